"""Pictures inside a report: input, restoration and heatmap of chosen images, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaeguard.reports.pictures import heat_picture, inspect_reduced, picture_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import Inspection
    from vaeguard.reports.report_file import Report

GROUP = 8
"""The most images of a group."""
SIDES = (256, 160, 96)
"""The longest sides of pictures, in pixels, that are tried in turn until all fit into the budget."""
BUDGET = 1_500_000
"""The most bytes of all pictures of a gallery, as text; the rest of a page takes no more than that again."""
LOSSLESS = 64
"""The longest side, in pixels, of pictures that are stored without loss, since pages enlarge them."""


@dataclass(frozen=True, eq=False)
class Group:
    """Images that belong together: `rows` of the data, the first of the `found` images of this kind."""

    name: str
    title: str
    rows: npt.NDArray[np.int64]
    found: int


@dataclass(frozen=True, eq=False)
class Sample:
    """Chosen images with their inspection; vectors have no pictures.

    Attributes
    ----------
    groups : tuple of Group
        The chosen images, by the reason.
    rows : int64 (n,)
        The rows of all chosen images, sorted, each once.
    images : uint8 (n, C, H, W) or None
        The pixels of these images.
    inspection : Inspection or None
        The inspection of these images, with pictures.
    hottest : float or None
        The value of the heatmap that is drawn in the last colour; None if the model does not state it.
    """

    groups: tuple[Group, ...]
    rows: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8] | None
    inspection: Inspection | None
    hottest: float | None = None


def group(name: str, title: str, candidates: npt.NDArray[np.bool_], strangeness: npt.NDArray[np.floating]) -> Group:
    """The candidates (a mask) of the highest `strangeness`, highest first; ties are in the order of the data."""
    rows = np.flatnonzero(candidates)
    order = np.argsort(-strangeness[rows].astype(np.float64), kind="stable")[:GROUP]
    return Group(name, title, rows[order].astype(np.int64), len(rows))


def sample(detector: Detector, images: npt.NDArray[Any], groups: Sequence[Group]) -> Sample:
    """Inspect the images of `groups` again, with pictures."""
    shown = tuple(group for group in groups if len(group.rows))
    rows = np.unique(np.concatenate([group.rows for group in shown])) if shown else np.zeros(0, np.int64)
    if images.dtype != np.uint8 or not len(rows):
        return Sample(shown, rows, None, None)
    return Sample(shown, rows, *inspect_reduced(detector, images, rows), detector.info.heatmap_scale)


def gallery(sample: Sample, facts: Mapping[str, Sequence[Any]], terms: Mapping[str, Any]) -> Report:
    """The keys `gallery` and `pictures` of a report.

    `facts` and `terms` have a value for each image of the data, such as `path` and `score`; terms are shown as a list.
    """
    groups = []
    for group in sample.groups:
        items = [
            {
                **{name: _plain(values[row]) for name, values in facts.items()},
                "terms": {name: float(values[row]) for name, values in terms.items()},
                "pictures": f"row-{row}" if sample.images is not None else None,
            }
            for row in group.rows.tolist()
        ]
        groups.append({"name": group.name, "title": group.title, "found": group.found, "items": items})
    return {"gallery": groups, "pictures": _pictures(sample)}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _pictures(sample: Sample) -> dict[str, dict[str, str]]:
    """The data URIs of input, restoration and heatmap of each image."""
    if sample.images is None or sample.inspection is None or sample.inspection.heatmap is None:
        return {}
    heat = sample.inspection.heatmap
    top = sample.hottest or float(heat.max()) or 1.0
    restored = sample.inspection.restored
    drawn = {
        f"row-{row}": {
            "input": picture_of(sample.images[at]),
            **({} if restored is None else {"restored": picture_of(restored[at])}),
            "heatmap": heat_picture(heat[at] / top),
        }
        for at, row in enumerate(sample.rows.tolist())
    }
    return fitting(drawn)


def fitting(
    drawn: Mapping[str, Mapping[str, Image.Image]], sides: Sequence[int] = SIDES, budget: int = BUDGET
) -> dict[str, dict[str, str]]:
    """Pictures as data URIs, as large as `sides` (pixels) and `budget` (bytes) allow; the last may be dropped."""
    uris: dict[str, dict[str, str]] = {}
    for side in sides:
        uris = {
            key: {name: data_uri(picture, side) for name, picture in pictures.items()}
            for key, pictures in drawn.items()
        }
        if _bytes(uris.values()) <= budget:
            return uris
    while _bytes(uris.values()) > budget:
        uris.popitem()
    return uris


def data_uri(picture: Image.Image, longest: int) -> str:
    """A picture as WebP inside a `data:` URI, reduced to `longest` pixels."""
    if max(picture.size) > longest:
        picture = picture.copy()
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if max(picture.size) <= LOSSLESS:
        picture.save(file, "WEBP", lossless=True)
    else:
        picture.save(file, "WEBP", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _bytes(pictures: Iterable[Mapping[str, str]]) -> int:
    return sum(len(uri) for uris in pictures for uri in uris.values())

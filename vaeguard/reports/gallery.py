"""Pictures in a report: input, restoration and heatmap of chosen images, small enough to travel inside it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaeguard.reports.pictures import heat_picture, picture_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import Inspection
    from vaeguard.reports.report_file import Report

GROUP = 8
"""So many images are shown of each kind."""
SIDES = (256, 160, 96)
"""Longest sides of pictures to try, in pixels, until they fit into the budget."""
BUDGET = 1_500_000
"""Bytes for all pictures of a gallery, as text; the rest of a page stays below as much again."""
LOSSLESS = 64
"""Smaller pictures keep every pixel: they are shown enlarged."""


@dataclass(frozen=True, eq=False)
class Group:
    """Images that belong together: `rows` of the data, of `found` that there are."""

    name: str
    title: str
    rows: npt.NDArray[np.int64]
    found: int


@dataclass(frozen=True, eq=False)
class Sample:
    """Chosen images and what the detector says of them, with pictures; vectors have none.

    Attributes
    ----------
    groups : tuple of Group
        Which images were chosen, and why.
    rows : int64 (n,)
        All of them, sorted, each once.
    images : uint8 (n, C, H, W) or None
        Their pixels.
    inspection : Inspection or None
        Theirs, with pictures.
    hottest : float or None
        How strange the strangest pixels of normal images are; None where the model does not say it.
    """

    groups: tuple[Group, ...]
    rows: npt.NDArray[np.int64]
    images: npt.NDArray[np.uint8] | None
    inspection: Inspection | None
    hottest: float | None = None


def group(name: str, title: str, candidates: npt.NDArray[np.bool_], strangeness: npt.NDArray[np.floating]) -> Group:
    """The candidates (a mask) of the highest `strangeness`, that first; equal ones in the order of the data."""
    rows = np.flatnonzero(candidates)
    order = np.argsort(-strangeness[rows].astype(np.float64), kind="stable")[:GROUP]
    return Group(name, title, rows[order].astype(np.int64), len(rows))


def sample(detector: Detector, images: npt.NDArray[Any], groups: Sequence[Group]) -> Sample:
    """Look again, with pictures, at the images of `groups`."""
    shown = tuple(each for each in groups if len(each.rows))
    rows = np.unique(np.concatenate([each.rows for each in shown])) if shown else np.zeros(0, np.int64)
    if images.dtype != np.uint8 or not len(rows):
        return Sample(shown, rows, None, None)
    pixels = np.ascontiguousarray(images[rows])
    return Sample(shown, rows, pixels, detector.inspect(pixels, pictures=True), detector.info.heatmap_scale)


def gallery(sample: Sample, facts: Mapping[str, Sequence[Any]], terms: Mapping[str, Any]) -> Report:
    """The keys `gallery` and `pictures` of a report.

    `facts` has a value for each image of the data, as `path` and `score`; `terms` likewise, shown as a list.
    """
    groups = []
    for each in sample.groups:
        items = [
            {
                **{name: _plain(values[row]) for name, values in facts.items()},
                "terms": {name: float(values[row]) for name, values in terms.items()},
                "pictures": f"row-{row}" if sample.images is not None else None,
            }
            for row in each.rows.tolist()
        ]
        groups.append({"name": each.name, "title": each.title, "found": each.found, "items": items})
    return {"gallery": groups, "pictures": _pictures(sample)}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _pictures(sample: Sample) -> dict[str, dict[str, str]]:
    """For each image the data URIs of its input, restoration and heatmap."""
    if sample.images is None or sample.inspection is None or sample.inspection.restored is None:
        return {}
    heat = sample.inspection.heatmap
    assert heat is not None
    top = sample.hottest or float(heat.max()) or 1.0
    restored = sample.inspection.restored
    drawn = {
        f"row-{row}": {
            "input": picture_of(sample.images[at]),
            "restored": picture_of(restored[at]),
            "heatmap": heat_picture(heat[at] / top),
        }
        for at, row in enumerate(sample.rows.tolist())
    }
    return fitting(drawn)


def fitting(
    drawn: Mapping[str, Mapping[str, Image.Image]], sides: Sequence[int] = SIDES, budget: int = BUDGET
) -> dict[str, dict[str, str]]:
    """Pictures as data URIs, as large as `sides` (pixels) and `budget` (bytes) allow; the last are left out."""
    found: dict[str, dict[str, str]] = {}
    for side in sides:
        found = {key: {name: data_uri(one, side) for name, one in each.items()} for key, each in drawn.items()}
        if _bytes(found.values()) <= budget:
            return found
    while _bytes(found.values()) > budget:
        found.popitem()
    return found


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
    return sum(len(uri) for each in pictures for uri in each.values())

"""Pictures inside a report: chosen images with their heat, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaeguard.data.images import reduced
from vaeguard.evaluation.scoring import inspect_originals
from vaeguard.reports.overlays import overlay
from vaeguard.reports.pictures import heat_picture, picture_of
from vaeguard.storage.files import valid_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.data.source import Original
    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import DetectorInfo, Inspection
    from vaeguard.reports.report_file import Report
    from vaeguard.statistics.spots import Spot

GROUP = 8
"""The most images of a group."""
LARGE = 128
"""The longest side, in pixels, of images that are shown whole with their heat and spots on them."""
SIDES = (512, 384, 256, 160, 96)
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
class Drawn:
    """An image of a gallery.

    Attributes
    ----------
    pictures : dict of picture
        `overlay` of an image of at least `LARGE` pixels; otherwise `input`, `restored` (if any) and `heatmap`.
    spots : tuple of Spot
        Its spots, in pixels of the original.
    found : int
        How many spots there are in all.
    """

    pictures: Mapping[str, Image.Image]
    spots: tuple[Spot, ...]
    found: int


def group(name: str, title: str, candidates: npt.NDArray[np.bool_], strangeness: npt.NDArray[np.floating]) -> Group:
    """The candidates (a mask) of the highest `strangeness`, highest first; ties are in the order of the data."""
    rows = np.flatnonzero(candidates)
    order = np.argsort(-strangeness[rows].astype(np.float64), kind="stable")[:GROUP]
    return Group(name, title, rows[order].astype(np.int64), len(rows))


def rows_to_show(groups: Sequence[Group]) -> list[int]:
    """The rows of all chosen images, sorted, each once."""
    return sorted({row for group in groups for row in group.rows.tolist()})


def draw(detector: Detector, originals: Iterable[Original], places: Mapping[str, int]) -> dict[int, Drawn]:
    """Draw chosen images, which are inspected again; `places` has the row of each name as tables hold it."""
    return {
        places[valid_text(original.name)]: drawn_of(original, inspection, detector.info)
        for original, inspection in inspect_originals(detector, originals)
    }


def drawn_of(original: Original, inspection: Inspection, info: DetectorInfo) -> Drawn:
    """Draw an image, of which this is the inspection, with pictures."""
    assert inspection.heatmap is not None
    (heatmap,), scale = inspection.heatmap, info.heatmap_scale
    spots, found = info.spots(heatmap, original.size)
    if max(original.size) >= LARGE:
        photograph = reduced(original.picture, SIDES[0])
        return Drawn({"overlay": overlay(photograph, heatmap, spots, scale=scale, size=original.size)}, spots, found)
    restored = {} if inspection.restored is None else {"restored": picture_of(inspection.restored[0])}
    heat = heat_picture(heatmap / (scale or float(heatmap.max()) or 1.0))
    return Drawn({"input": picture_of(original.pixels), **restored, "heatmap": heat}, spots, found)


def gallery(
    groups: Iterable[Group],
    facts: Mapping[str, Sequence[Any]],
    terms: Mapping[str, Any],
    drawn: Mapping[int, Drawn] | None = None,
) -> Report:
    """The keys `gallery` and `pictures` of a report.

    `facts` and `terms` have a value for each image of the data, such as `path` and `score`; terms are shown as a list.
    `drawn` has the pictures by the rows of the images; vectors have none.
    """
    drawn = drawn or {}
    shown = [
        {
            "name": group.name,
            "title": group.title,
            "found": group.found,
            "items": [
                {
                    **{name: _plain(values[row]) for name, values in facts.items()},
                    "terms": {name: float(values[row]) for name, values in terms.items()},
                    "pictures": f"row-{row}" if row in drawn else None,
                    "spots": [asdict(spot) for spot in drawn[row].spots] if row in drawn else [],
                    "spots_found": drawn[row].found if row in drawn else 0,
                }
                for row in group.rows.tolist()
            ],
        }
        for group in groups
        if len(group.rows)
    ]
    return {"gallery": shown, "pictures": fitting({f"row-{row}": drawn[row].pictures for row in sorted(drawn)})}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


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

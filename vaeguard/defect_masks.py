"""Masks of defects beside test images, and how well heatmaps point at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vaeguard.errors import RefusedError, UsageError
from vaeguard.metrics import per_region_overlap, pixel_roc_auc

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vaeguard.image_set import ImageSet
    from vaeguard.inspection import Detector

    Bools = npt.NDArray[np.bool_]

ENDINGS = ("_mask.png", ".png", "_mask.bmp", ".bmp", "_mask.tif", ".tif", "_mask.tiff", ".tiff")
BATCH = 64


@dataclass(frozen=True)
class PixelMetrics:
    """How well heatmaps point at defects.

    Attributes
    ----------
    roc_auc : float
        `metrics.pixel_roc_auc` of all pixels together.
    pro : float
        `metrics.per_region_overlap`, up to a false-positive rate of 0.3.
    images, masks : int
        Images compared, and how many of them have a mask; the others are normal.
    without : int
        Anomalous images that have none, left out here.
    """

    roc_auc: float
    pro: float
    images: int
    masks: int
    without: int


def measure_pixels(detector: Detector, image_set: ImageSet, anomalous: Bools, folder: str | Path) -> PixelMetrics:
    """Compare the heatmaps of `image_set` with the masks below `folder`.

    Normal images are sound all over; an anomalous one is compared where it has a mask. Takes memory for the heatmaps
    of all of them.

    Parameters
    ----------
    detector : Detector
        Of images.
    image_set : ImageSet
        The images, with paths.
    anomalous : bool (N,)
        Which are.
    folder : path
        The mask of `parts/crack/7.png` is `crack/7.png` or `crack/7_mask.png` below it (also `.bmp`, `.tif`).

    Raises
    ------
    UsageError
        No anomalous image has a mask there, the model is one of vectors, or all masks are empty.
    RefusedError
        A mask cannot be read.
    """
    if detector.info.vectors:
        raise UsageError("--masks: the model takes vectors, which have no pixels; leave it out")
    found = {row: mask_path(folder, image_set.paths[row]) for row in np.flatnonzero(anomalous).tolist()}
    masked = {row: path for row, path in found.items() if path}
    if not masked:
        example = Path(image_set.paths[next(iter(found))])
        stem = Path(*example.parts[-2:]).with_suffix("")
        raise UsageError(
            f"--masks {str(folder)!r} has no mask of any anomalous image; that of {str(example)!r} would be"
            f" {stem}.png or {stem}_mask.png below it"
        )
    rows = sorted({*np.flatnonzero(~anomalous).tolist(), *masked})
    _, height, width = detector.info.image_shape
    sound = np.zeros((height, width), bool)
    masks = [read_mask(masked[row], (height, width)) if row in masked else sound for row in rows]
    maps = _heatmaps(detector, image_set, rows)
    return PixelMetrics(
        roc_auc=pixel_roc_auc(masks, maps),
        pro=per_region_overlap(masks, maps),
        images=len(rows),
        masks=len(masked),
        without=len(found) - len(masked),
    )


def mask_path(folder: str | Path, image: str) -> Path | None:
    """The mask of the image at path `image`, whose last parts it repeats below `folder`, as many as there are."""
    parts = Path(image).with_suffix("").parts
    for start in range(len(parts)):
        if Path(*parts[start:]).is_absolute():
            continue
        stem = str(Path(folder, *parts[start:]))
        for ending in ENDINGS:
            if (path := Path(stem + ending)).is_file() and not _is_same(path, image):
                return path
    return None


def _is_same(path: Path, image: str) -> bool:
    return Path(image).exists() and path.samefile(image)


def read_mask(path: Path, size: tuple[int, int]) -> Bools:
    """The mask in a picture, scaled to `size` (H, W): pixels brighter than half of its brightest are defective.

    Raises
    ------
    RefusedError
        The file is missing or damaged.
    """
    try:
        with Image.open(path) as mask:
            values = np.asarray(mask.convert("L"))
    except (OSError, ValueError) as error:
        raise RefusedError(f"mask {str(path)!r} cannot be read ({error}); get it again") from error
    return scaled_mask(values > values.max() / 2, size)


def scaled_mask(mask: Bools, size: tuple[int, int]) -> Bools:
    """A mask (h, w) scaled to `size` (H, W) by the nearest pixel."""
    picture = Image.fromarray(mask.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture) > 0


def _heatmaps(detector: Detector, image_set: ImageSet, rows: Sequence[int]) -> list[npt.NDArray[np.float32]]:
    maps: list[npt.NDArray[np.float32]] = []
    for at in range(0, len(rows), BATCH):
        heatmap = detector.inspect(image_set.images[list(rows[at : at + BATCH])], pictures=True).heatmap
        assert heatmap is not None
        maps.extend(heatmap)
    return maps

"""Masks of defects beside test images, and how well heatmaps point at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vaeguard.data.images import open_picture, read_bytes
from vaeguard.errors import RefusedError, UnreadableError, UsageError
from vaeguard.statistics.metrics import per_region_overlap, pixel_roc_auc
from vaeguard.storage.files import is_same

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet

    Bools = npt.NDArray[np.bool_]

MOST_KINDS = 32
"""No mask numbers more kinds of defects; one that is painted is brighter."""
ENDINGS = ("_mask.png", ".png", "_mask.bmp", ".bmp", "_mask.tif", ".tif", "_mask.tiff", ".tiff")


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


def find_masks(folder: str | Path, image_set: ImageSet, anomalous: Bools) -> dict[int, Path]:
    """The masks below `folder`, by the rows of the anomalous images that have one.

    Parameters
    ----------
    folder : path
        The mask of `parts/crack/7.png` is `crack/7.png` or `crack/7_mask.png` below it (also `.bmp`, `.tif`).
    image_set : ImageSet
        Images with paths.
    anomalous : bool (N,)
        Which of them are.

    Raises
    ------
    UsageError
        The data are vectors, there is no such folder, or no anomalous image has a mask there.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"`masks` is {str(folder)!r}, which is no folder; give the folder of the masks")
    if image_set.vectors:
        raise UsageError("`masks` are of pixels, and the data are vectors; leave them out")
    rows = np.flatnonzero(anomalous).tolist()
    found = {row: path for row in rows if (path := mask_path(folder, image_set.paths[row]))}
    owners: dict[Path, int] = {}
    for row, path in found.items():
        if (other := owners.setdefault(path, row)) != row:
            raise UsageError(
                f"{str(path)!r} would be the mask of both {image_set.paths[other]!r} and {image_set.paths[row]!r}; sort"
                " the masks into sub-folders as the images are"
            )
    if not found:
        example = Path(image_set.paths[rows[0]])
        stem = Path(*example.parts[-2:]).with_suffix("")
        raise UsageError(
            f"`masks` is {str(folder)!r}, which has no mask of any anomalous image; name that of {str(example)!r}"
            f" {stem}.png or {stem}_mask.png below it"
        )
    return found


def measure_pixels(heatmaps: npt.NDArray[np.floating], anomalous: Bools, masks: Mapping[int, Bools]) -> PixelMetrics:
    """Compare heatmaps with masks.

    Normal images are sound all over; an anomalous one is compared where it has a mask.

    Parameters
    ----------
    heatmaps : float (N, H, W)
        Of all images.
    anomalous : bool (N,)
        Which of these are.
    masks : dict of bool (H, W)
        By the rows of the anomalous images that have one.

    Raises
    ------
    UsageError
        All masks are empty.
    """
    sound = np.zeros(heatmaps.shape[1:], bool)
    rows = sorted({*np.flatnonzero(~anomalous).tolist(), *masks})
    truth = [masks.get(row, sound) for row in rows]
    maps = [heatmaps[row] for row in rows]
    return PixelMetrics(
        roc_auc=pixel_roc_auc(truth, maps),
        pro=per_region_overlap(truth, maps),
        images=len(rows),
        masks=len(masks),
        without=int(np.count_nonzero(anomalous)) - len(masks),
    )


def mask_path(folder: str | Path, image: str) -> Path | None:
    """The mask of the image at path `image`, whose last parts it repeats below `folder`, as many as there are."""
    parts = Path(image).with_suffix("").parts
    for start in range(len(parts)):
        if Path(*parts[start:]).is_absolute():
            continue
        stem = str(Path(folder, *parts[start:]))
        for ending in ENDINGS:
            if (path := Path(stem + ending)).is_file() and not is_same(path, image):
                return path
    return None


def read_mask(path: Path, size: tuple[int, int]) -> Bools:
    """The mask in a picture, scaled to `size` (H, W): pixels brighter than half of its brightest are defective.

    Where the brightest is below 32 the values are numbers of kinds of defects, and all but 0 are defective.

    Raises
    ------
    RefusedError
        The file is missing or damaged.
    """
    try:
        picture = open_picture(read_bytes(path), str(path))
    except UnreadableError as error:
        raise RefusedError(f"mask {str(path)!r} cannot be read: {error.reason}; get it again") from error
    values = np.asarray(picture if picture.mode.startswith("I") else picture.convert("L"))
    brightest = values.max()
    return scaled_mask(values > (brightest / 2 if brightest >= MOST_KINDS else 0), size)


def scaled_mask(mask: Bools, size: tuple[int, int]) -> Bools:
    """A mask (h, w) scaled to `size` (H, W) by the nearest pixel.

    Where that would lose all of a thin defect, pixels that hold some of it are defective.
    """
    picture = Image.fromarray(mask.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    scaled: Bools = np.asarray(picture) > 0
    return scaled if scaled.any() or not mask.any() else _covering_mask(mask, size)


def _covering_mask(mask: Bools, size: tuple[int, int]) -> Bools:
    for axis, (wanted, found) in enumerate(zip(size, mask.shape, strict=True)):
        # Where the mask grows the same start comes several times, and reduceat repeats the pixel there.
        mask = np.logical_or.reduceat(mask, np.arange(wanted) * found // wanted, axis)
    return mask

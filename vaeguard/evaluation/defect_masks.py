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
"""Masks that number kinds of defects have fewer kinds than this; painted masks are brighter."""
ENDINGS = ("_mask.png", ".png", "_mask.bmp", ".bmp", "_mask.tif", ".tif", "_mask.tiff", ".tiff")


@dataclass(frozen=True)
class PixelMetrics:
    """How well heatmaps point at defects.

    Attributes
    ----------
    roc_auc : float
        ROC-AUC of all pixels together, see `metrics.pixel_roc_auc`.
    pro : float
        `metrics.per_region_overlap`, up to a false-positive rate of 0.3.
    images, masks : int
        Number of images compared, and of those among them that have a mask; the others are normal.
    without : int
        Number of anomalous images without a mask, which are left out.
    """

    roc_auc: float
    pro: float
    images: int
    masks: int
    without: int


def find_masks(folder: str | Path, image_set: ImageSet, anomalous: Bools) -> dict[int, Path]:
    """Find the masks below `folder`, keyed by the rows of their images.

    Parameters
    ----------
    folder : path
        The mask of `parts/crack/7.png` is `crack/7.png` or `crack/7_mask.png` below it (also `.bmp`, `.tif`).
    image_set : ImageSet
        Images with paths.
    anomalous : bool (N,)
        Which images are anomalous; only these have masks.

    Raises
    ------
    UsageError
        The data are vectors, there is no such folder, or no anomalous image has a mask there.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"`masks` is {str(folder)!r}, which is no folder; give the folder of the masks")
    if image_set.vectors:
        raise UsageError("`masks` mark pixels, and the data are vectors; leave `masks` out")
    rows = np.flatnonzero(anomalous).tolist()
    masks = {row: path for row in rows if (path := mask_path(folder, image_set.paths[row]))}
    owners: dict[Path, int] = {}
    for row, path in masks.items():
        if (other := owners.setdefault(path, row)) != row:
            raise UsageError(
                f"{str(path)!r} would be the mask of both {image_set.paths[other]!r} and {image_set.paths[row]!r}; sort"
                " the masks into sub-folders as the images are"
            )
    if not masks:
        example = Path(image_set.paths[rows[0]])
        stem = Path(*example.parts[-2:]).with_suffix("")
        raise UsageError(
            f"`masks` is {str(folder)!r}, which has no mask of any anomalous image; name the mask of"
            f" {str(example)!r} {stem}.png or {stem}_mask.png below it"
        )
    return masks


def measure_pixels(heatmaps: npt.NDArray[np.floating], anomalous: Bools, masks: Mapping[int, Bools]) -> PixelMetrics:
    """Compare heatmaps with masks.

    A normal image has no defect anywhere; an anomalous image is compared only if it has a mask.

    Parameters
    ----------
    heatmaps : float (N, H, W)
        One for each image.
    anomalous : bool (N,)
        Which images are anomalous.
    masks : dict of bool (H, W)
        Masks of anomalous images, keyed by the row of the image.

    Raises
    ------
    UsageError
        All masks are empty.
    """
    no_defect = np.zeros(heatmaps.shape[1:], bool)
    rows = sorted({*np.flatnonzero(~anomalous).tolist(), *masks})
    truth = [masks.get(row, no_defect) for row in rows]
    maps = [heatmaps[row] for row in rows]
    return PixelMetrics(
        roc_auc=pixel_roc_auc(truth, maps),
        pro=per_region_overlap(truth, maps),
        images=len(rows),
        masks=len(masks),
        without=int(np.count_nonzero(anomalous)) - len(masks),
    )


def mask_path(folder: str | Path, image: str) -> Path | None:
    """The mask of `image`: the file below `folder` that repeats the most of the last parts of the image's path."""
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
    """Read a mask and scale it to `size` (H, W): pixels more than half as bright as the brightest are defective.

    If the brightest value is below 32, the values number kinds of defects, and every pixel but 0 is defective.

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
    """Scale a mask (h, w) to `size` (H, W) by the nearest pixel.

    If the nearest pixels miss every defect, each pixel that covers part of a defect is defective instead.
    """
    picture = Image.fromarray(mask.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    scaled: Bools = np.asarray(picture) > 0
    return scaled if scaled.any() or not mask.any() else _covering_mask(mask, size)


def _covering_mask(mask: Bools, size: tuple[int, int]) -> Bools:
    for axis, (wanted, length) in enumerate(zip(size, mask.shape, strict=True)):
        # A mask that grows has repeated starts, for which reduceat repeats the pixel.
        mask = np.logical_or.reduceat(mask, np.arange(wanted) * length // wanted, axis)
    return mask

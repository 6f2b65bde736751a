"""Masks of defects beside test images, and how well heatmaps point at them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaeguard.data.decoding import read_one
from vaeguard.data.folders import walk
from vaeguard.data.images import open_picture, read_bytes
from vaeguard.data.unread import unmarked
from vaeguard.errors import RefusedError, UnreadableError, UsageError
from vaeguard.statistics.metrics import per_region_overlap, pixel_roc_auc
from vaeguard.storage.files import is_same

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.inspection import DetectorInfo

    Bools = npt.NDArray[np.bool_]

LEAST_PAINTED = 32
"""Painted masks are at least so bright; the values of darker ones number kinds of defects."""


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
    defects : int
        Number of defects: connected regions of the masks.
    hit : int or None
        How many of them lie in the box of a spot, at least in part; None for a model that knows no spots.
    false_spots : float or None
        Spots per normal image.
    """

    roc_auc: float
    pro: float
    images: int
    masks: int
    without: int
    defects: int = 0
    hit: int | None = None
    false_spots: float | None = None


def find_masks(folder: str | Path, image_set: ImageSet, anomalous: Bools) -> dict[int, Path]:
    """Find the masks below `folder`, keyed by the rows of their images.

    Parameters
    ----------
    folder : path
        The mask of `parts/crack/7.png` is `crack/7_mask.png` or `crack/7.png` below it (also with the other suffixes of
        images, and with the other marks of masks, such as `_gt`).
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
        raise UsageError(f"`masks` is {str(folder)!r}, which is not a folder; give the folder of the masks")
    if image_set.vectors:
        raise UsageError("`masks` mark pixels, but the data are vectors; remove `masks`")
    rows = np.flatnonzero(anomalous).tolist()
    below = masks_below(folder)
    masks = {row: path for row in rows if (path := mask_of(image_set.paths[row], below))}
    owners: dict[Path, int] = {}
    for row, path in masks.items():
        if (other := owners.setdefault(path, row)) != row:
            raise UsageError(
                f"{str(path)!r} would be the mask of both {image_set.paths[other]!r} and {image_set.paths[row]!r};"
                " sort the masks into the same sub-folders as the images"
            )
    if not masks:
        example = Path(image_set.paths[rows[0]])
        stem = Path(*example.parts[-2:]).with_suffix("")
        raise UsageError(
            f"`masks` is {str(folder)!r}, which contains no mask of an anomalous image; the mask of {str(example)!r},"
            f" for example, must be called {stem}.png or {stem}_mask.png"
        )
    return masks


def measure_pixels(
    heatmaps: npt.NDArray[np.float32], anomalous: Bools, masks: Mapping[int, Bools], info: DetectorInfo | None = None
) -> PixelMetrics:
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
    info : DetectorInfo or None
        The detector of the heatmaps, by which spots are found.

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
        **(_measure_spots(heatmaps, anomalous, masks, info) if info and len(info.peaks) else {}),
    )


def _measure_spots(
    heatmaps: npt.NDArray[np.float32], anomalous: Bools, masks: Mapping[int, Bools], info: DetectorInfo
) -> dict[str, Any]:
    from scipy.ndimage import label

    defects = hit = 0
    for row, mask in masks.items():
        labels, count = label(mask, np.ones((3, 3)))
        spots, _ = info.spots(heatmaps[row])
        boxes = [labels[spot.top : spot.top + spot.height, spot.left : spot.left + spot.width] for spot in spots]
        defects, hit = defects + count, hit + len({number for box in boxes for number in np.unique(box).tolist()} - {0})
    normal = np.flatnonzero(~anomalous)
    false = sum(info.spots(heatmaps[row])[1] for row in normal) / len(normal) if len(normal) else None
    return {"defects": defects, "hit": hit, "false_spots": false}


def masks_below(folder: str | Path) -> dict[str, list[Path]]:
    """All pictures below `folder`, by the paths of the images that they may be masks of; the likeliest first.

    The paths are relative, without suffix and in small letters.
    """
    by_image: dict[str, list[tuple[int, str]]] = {}
    for name in walk(Path(folder)).names:
        stem = Path(name).with_suffix("").as_posix()
        by_image.setdefault(stem.lower(), []).append((1, name))
        if image := unmarked(stem):
            by_image.setdefault(Path(image).as_posix().lower(), []).append((0 if stem == f"{image}_mask" else 2, name))
    return {image: [Path(folder, name) for _, name in sorted(found)] for image, found in by_image.items()}


def mask_of(image: str, below: Mapping[str, Sequence[Path]]) -> Path | None:
    """The mask of `image` among `masks_below` a folder: one that repeats the most of the last parts of its path."""
    parts = Path(image).with_suffix("").parts
    found = (path for start in range(len(parts)) for path in below.get("/".join(parts[start:]).lower(), ()))
    return next((path for path in found if not is_same(path, image)), None)


def read_mask(path: Path, size: tuple[int, int]) -> Bools:
    """Read a mask and scale it to `size` (H, W): every pixel but the background is defective.

    The background is 0, black or transparent; in a palette, index 0, unless another index is black and more frequent;
    where there is none of these, the most frequent of several values. In a mask with soft edges (a JPEG, or a mask that
    was scaled) the pixels are defective that differ from the background by more than half of the largest difference.

    Raises
    ------
    RefusedError
        The file is missing or damaged.
    """
    try:
        _, marked = read_one("vaeguard.evaluation.defect_masks:marked", str(path))
    except UnreadableError as error:
        advice = "" if ";" in error.reason else "; download it again"
        raise RefusedError(f"mask {str(path)!r} cannot be read: {error.reason}{advice}") from error
    return scaled_mask(marked, size)


def marked(name: str, content: bytes | None, rule: None) -> tuple[dict[str, Any], Bools]:
    """The pixels of a mask that are not background (H, W), as a process for decoding finds them."""
    del rule
    picture = open_picture(read_bytes(name) if content is None else content, name)
    if picture.mode == "P":
        return {}, _marked_in_palette(picture)
    values = _values(picture)
    difference = np.abs(values - _background(values)).max(-1)
    soft = picture.format == "JPEG" or _has_soft_edges(difference)
    return {}, difference > (difference.max() // 2 if soft else 0)


def _marked_in_palette(picture: Image.Image) -> Bools:
    """The pixels of a picture with a palette that are not background."""
    index = np.asarray(picture)
    counts = np.bincount(index.ravel(), minlength=256)
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    black = np.unique(index.ravel()[~colours.any(-1)]).tolist()
    used = set(np.flatnonzero(counts).tolist())
    candidates = {0} if 0 in black or len(used) == 1 else {0, *black} & used or used
    background = max(candidates, key=lambda number: counts[number])
    marked: Bools = index != background
    return marked


def _values(picture: Image.Image) -> npt.NDArray[np.int32]:
    """The values of a mask, (H, W, channels): grey or colour, with what is transparent as 0."""
    if picture.mode.startswith("I"):
        return np.asarray(picture).astype(np.int32)[..., None]
    if not picture.has_transparency_data:
        grey = picture.mode in ("1", "L")
        return np.asarray(picture.convert("L" if grey else "RGB")).astype(np.int32).reshape(*picture.size[::-1], -1)
    pixels = np.asarray(picture.convert("RGBA")).astype(np.int32)
    colours, opacity = pixels[..., :3], pixels[..., 3:]
    if (opacity == opacity[0, 0]).all():
        return colours
    seen = colours * (opacity > 0)
    return seen if seen.any() else opacity  # marks in black on a transparent background


def _background(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The value of the background, (channels,): 0 if there is any, or else the most frequent of several."""
    codes = values @ np.array([2**16, 2**8, 1][-values.shape[-1] :], np.int32)
    if not codes.all() or (codes == codes[0, 0]).all():
        return np.zeros(values.shape[-1], np.int32)
    _, places, counts = np.unique(codes, return_index=True, return_counts=True)
    most: npt.NDArray[np.int32] = values.reshape(-1, values.shape[-1])[places[counts.argmax()]]
    return most


def _has_soft_edges(difference: npt.NDArray[np.int32]) -> bool:
    """Whether most values between the background and the strongest mark are those of edges, not of areas like labels.

    A mask that is nowhere as bright as `LEAST_PAINTED` numbers kinds of defects.
    """
    strongest = difference.max()
    between = (difference > 0) & (difference < strongest)
    if strongest < LEAST_PAINTED or not between.any():
        return False
    block = difference[:-1, :-1]
    equal = (block == difference[1:, :-1]) & (block == difference[:-1, 1:]) & (block == difference[1:, 1:])
    padded = np.pad(equal, 1)
    in_area = padded[:-1, :-1] | padded[1:, :-1] | padded[:-1, 1:] | padded[1:, 1:]
    return bool(np.count_nonzero(between & in_area) < np.count_nonzero(between) / 2)


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

"""Surfaces and parts with defects: reading them, and splitting them so that no surface is on both sides.

Sets that hold the same surface more than once are never split image by image. Magnetic tiles were photographed under
several exposures and are split by group; circuit boards come as pairs of template and defective board and are split by
pair. Screws have an official test part.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vaeguard.benchmarking.tasks import ImageTask, limited_rows, missing
from vaeguard.data.image_set import from_array
from vaeguard.data.images import ImageRule, decode_image
from vaeguard.data.named_sets import data_folder
from vaeguard.errors import RefusedError
from vaeguard.evaluation.defect_masks import read_mask, scaled_mask

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Bools = npt.NDArray[np.bool_]
    Rows = npt.NDArray[np.int64]
    Size = tuple[int, int]

FIT_SHARE = 0.5
"""The share of the defect-free images to fit on, in whole groups."""

PCB_FOLDER = "deeppcb-77000/group77000"


@dataclass(frozen=True, eq=False)
class DefectSet:
    """Every image of a set with its mask, its kind of defect and its group.

    Attributes
    ----------
    name : str
        The set.
    images : uint8 (N, 1, H, W)
        Grey images, scaled.
    masks : bool (N, H, W) or None
        The defective pixels of each image, scaled by the nearest pixel.
    kinds : tuple of str
        The kind of defect of each image, `""` for none.
    groups : tuple of str
        The group of each image; images of the same surface have the same group. Empty if each image is its own.
    tested : bool (N,) or None
        The official test part; None if there is none.
    """

    name: str
    images: Bytes
    masks: Bools | None
    kinds: tuple[str, ...]
    groups: tuple[str, ...] = ()
    tested: Bools | None = None


def open_magnetic_tile(data_dir: str | Path | None, size: Size) -> DefectSet:
    """Open the magnetic tiles (Huang et al., 2018), scaled to `size` (H, W).

    Raises
    ------
    VaeguardError
        They are not there.
    RefusedError
        A file is missing or damaged.
    """
    folder = data_folder(data_dir) / "magnetic-tile"
    rows = _read_groups(folder / "groups.csv")
    images, masks = [], []
    for row in rows:
        path = folder / row["image"]
        images.append(decode_image(path, ImageRule(size, 1)))
        masks.append(read_mask(path.with_suffix(".png"), size))
    kinds = tuple("" if row["class"] == "Free" else row["class"] for row in rows)
    return DefectSet("magnetic-tile", np.stack(images), np.stack(masks), kinds, tuple(row["group"] for row in rows))


def open_deeppcb(data_dir: str | Path | None, size: Size) -> DefectSet:
    """Open group 77000 of DeepPCB (Tang et al., 2019), scaled to `size` (H, W); the masks are filled boxes.

    Raises
    ------
    VaeguardError
        It is not there.
    RefusedError
        A file is missing or damaged.
    """
    folder = data_folder(data_dir) / PCB_FOLDER
    boxes = sorted((folder / "77000_not").glob("*.txt"))
    if not boxes:
        raise missing("deeppcb-77000", folder / "77000_not")
    images, masks = [], []
    for path in boxes:
        pictures = folder / "77000"
        images += [decode_image(pictures / f"{path.stem}_{part}.jpg", ImageRule(size, 1)) for part in ("temp", "test")]
        mask = _read_boxes(path, pictures / f"{path.stem}_test.jpg", size)
        masks += [np.zeros_like(mask), mask]
    groups = tuple(path.stem for path in boxes for _ in range(2))
    return DefectSet("deeppcb-77000", np.stack(images), np.stack(masks), ("", "defective") * len(boxes), groups)


def open_screws(data_dir: str | Path | None, size: Size) -> DefectSet:
    """Open the screws of MVTec AD (Bergmann et al., 2019), scaled to `size` (H, W); they have no masks here.

    Raises
    ------
    VaeguardError
        They are not there.
    RefusedError
        A file is damaged.
    """
    folder = data_folder(data_dir) / "screws"
    parts = {part: sorted((folder / part).glob("*.*")) for part in ("train/good", "test/good", "test/bad")}
    for part, paths in parts.items():
        if not paths:
            raise missing("screws", folder / part)
    images = [decode_image(path, ImageRule(size, 1)) for paths in parts.values() for path in paths]
    counts = [len(paths) for paths in parts.values()]
    kinds = np.repeat(["", "", "defective"], counts)
    return DefectSet(
        "screws", np.stack(images), None, tuple(kinds.tolist()), (), np.repeat([False, True, True], counts)
    )


DEFECT_SETS = {"magnetic-tile": open_magnetic_tile, "deeppcb-77000": open_deeppcb, "screws": open_screws}


def split_surfaces(surfaces: DefectSet, seed: int, limit: int | None = None) -> ImageTask:
    """Fit on the defect-free images of half of the groups, chosen at random; test on all images of the other groups.

    A set with an official test part keeps it, whatever the seed.
    """
    normal = np.array([kind == "" for kind in surfaces.kinds])
    tested = surfaces.tested
    if tested is None:
        tested = ~np.isin(surfaces.groups, _fitted_groups(surfaces, normal, seed))
    train, test = np.flatnonzero(~tested & normal), np.flatnonzero(tested)
    kinds = np.array(surfaces.kinds)
    train = train[limited_rows(kinds[train], limit)]
    test = test[limited_rows(kinds[test], limit)]
    image_set = replace(from_array(surfaces.images[train]), name=surfaces.name)
    found = tuple(kinds[test].tolist())
    return ImageTask(
        image_set,
        None,
        surfaces.images[test],
        ~normal[test],
        kinds=found if len(set(found)) > 2 else (),
        masks=None if surfaces.masks is None else surfaces.masks[test],
        groups=tuple(surfaces.groups[row] for row in train) if surfaces.groups else (),
    )


def _fitted_groups(surfaces: DefectSet, normal: Bools, seed: int) -> list[str]:
    groups = np.array(surfaces.groups)
    names = np.random.default_rng(seed).permutation(np.unique(groups[normal]))
    sizes = np.array([np.count_nonzero((groups == name) & normal) for name in names])
    before = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    chosen: list[str] = names[before < FIT_SHARE * sizes.sum()].tolist()
    return chosen


def _read_groups(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise missing("magnetic-tile", path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "class", "group"} <= rows[0].keys():
        raise RefusedError(f"{str(path)!r} has no column image, class or group; download it again")
    return rows


def _read_boxes(path: Path, image: Path, size: Size) -> Bools:
    try:
        with Image.open(image) as picture:
            mask = np.zeros(picture.size[::-1], dtype=bool)
        for line in path.read_text(encoding="utf-8").splitlines():
            left, top, right, bottom = (int(number) for number in line.split()[:4])
            mask[top : bottom + 1, left : right + 1] = True
    except (OSError, ValueError) as error:
        raise RefusedError(f"boxes {str(path)!r} cannot be read ({error}); download the set again") from error
    return scaled_mask(mask, size)

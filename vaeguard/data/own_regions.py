"""Regions of single images: the mask `7_roi.png` beside `7.png` is white where a model looks.

The region becomes the last channel of the image, 255 inside and 0 outside, so it goes wherever the image goes: into the
cache, tiles, batches and both engines. An image without such a mask counts as a whole.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vaeguard.data.images import ImageRule, decode_bytes, read_bytes, read_header
from vaeguard.data.palette import has_few_colours, palette
from vaeguard.errors import UnreadableError
from vaeguard.storage.files import size_and_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Bytes = npt.NDArray[np.uint8]

ENDING = "_roi.png"
LOOK_HERE = 128
"""From this grey value on, a pixel of a mask is white."""


def region_path(image: str) -> str:
    """Where the region of an image file lies, if it has one."""
    return os.path.splitext(image)[0] + ENDING  # noqa: PTH122  (a million of them)


def regions_among(paths: Sequence[str]) -> list[str]:
    """Those of `paths` that are regions of others among them: by their names, unless they are photographs."""
    return [path for path in named_as_regions(paths) if _is_mask(path, size_and_time(path))]


def named_as_regions(names: Sequence[str]) -> list[str]:
    """Those of `names` that are the names of regions of others among them."""
    masks = [name for name in names if name.endswith(ENDING)]
    stems = {os.path.splitext(name)[0] for name in names} if masks else set()  # noqa: PTH122
    return [name for name in masks if name.removesuffix(ENDING) in stems]


@functools.cache
def _is_mask(path: str, _stamp: tuple[int, int]) -> bool:
    """Whether a picture has few colours; a damaged one may have had few."""
    return has_few_colours(path, exactly=False, damaged=True)


def with_region(image: Bytes, name: str, content: bytes | None = None, region: bytes | None = None) -> Bytes:
    """Pixels (C, H, W) that a process decoded, with the region of the image as one more channel.

    `name` is the path of the image, or its name if its `content` was sent, with that of its `region` if it has one.

    Raises
    ------
    UnreadableError
        The mask cannot be read, has another size than the image, or marks nothing.
    """
    size = image.shape[1:]
    there = os.path.lexists(region_path(name)) if content is None else region is not None
    inside = _read(name, content, region, (size[0], size[1])) if there else None
    channel = np.full((1, *size), 255, np.uint8) if inside is None else inside[None].astype(np.uint8) * np.uint8(255)
    return np.concatenate([image, channel])


def _read(image: str, content: bytes | None, region: bytes | None, size: tuple[int, int]) -> Bools | None:
    """The region of an image in the size of its pixels, (H, W); None if it is a photograph of that name."""
    path = region_path(image)
    name = os.path.basename(path)  # noqa: PTH119  (names need not be valid paths)
    try:
        region = read_bytes(path) if region is None else region
        (counted,) = palette(path, region)
        if not (counted["few"] or counted["frequent"]):
            return None
        mask = decode_bytes(region, ImageRule(channels=1), path)[0]
    except UnreadableError as error:
        raise UnreadableError(image, f"its region mask {name!r} cannot be read: {error.reason}") from error
    own, _ = read_header(image, content)
    if mask.shape not in (own, size):
        raise UnreadableError(
            image,
            f"its region mask {name!r} has {mask.shape[0]}x{mask.shape[1]} pixels (height x width), but the image has"
            f" {own[0]}x{own[1]}; save the mask at the size of the image",
        )
    inside = scaled(mask >= LOOK_HERE, size)
    if not inside.any():
        raise UnreadableError(image, f"its region mask {name!r} marks no pixel; make the part that matters white")
    return inside


def scaled(mask: Bools, size: tuple[int, int]) -> Bools:
    """A mask (h, w) in another size (H, W), by the nearest pixel."""
    picture = Image.fromarray(mask.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(picture) > 0

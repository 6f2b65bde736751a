"""Regions: the part of all images that a model looks at, painted as a mask or drawn as polygons."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from vaeguard.data.cache import nameless_file
from vaeguard.data.decoding import PIXELS, read_one
from vaeguard.data.images import ImageRule, read_bytes
from vaeguard.data.own_regions import LOOK_HERE, scaled
from vaeguard.errors import RefusedError, UnreadableError, UsageError
from vaeguard.settings.model import GREY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Points = list[tuple[float, float]]

LARGEST = 2**24
"""The coordinates of points are smaller."""
BLOCK_BYTES = 32 * 2**20


def read_region(roi: str | Path | npt.ArrayLike, size: tuple[int, int]) -> Bools | None:
    """The pixels of images of `size` (H, W) that count, bool (H, W); None if all do.

    Parameters
    ----------
    roi : path or array
        An image that is white where the model looks, or an array (h, w), bool or uint8, of any size: it is scaled by
        the nearest pixel. Or a JSON file of polygons, as LabelMe or COCO write them, all of which together count.
    size : (int, int)
        Height and width.

    Raises
    ------
    UsageError
        There is no such file, the array is no mask, or no pixel counts.
    RefusedError
        The file cannot be read.
    """
    if not isinstance(roi, str | os.PathLike):
        inside = scaled(_as_mask(np.asarray(roi)), size)
    elif Path(roi).suffix.lower() == ".json":
        inside = _polygons(str(roi), size)
    else:
        try:
            _, pixels = read_one(PIXELS, str(roi), ImageRule(channels=1))
        except UnreadableError as error:
            raise _unread(str(roi), error) from error
        inside = scaled(pixels[0, 0] >= LOOK_HERE, size)
    if not inside.any():
        raise UsageError("`roi` marks no pixel of the images; make the part that matters white")
    return None if inside.all() else inside


def _unread(roi: str, error: UnreadableError) -> UsageError | RefusedError:
    missing = not os.path.exists(roi)  # noqa: PTH110  (names need not be valid paths)
    return (UsageError if missing else RefusedError)(f"`roi` {roi!r} cannot be read: {error.reason}")


def _as_mask(values: npt.NDArray[Any]) -> Bools:
    if values.ndim != 2 or values.dtype not in (np.bool_, np.uint8) or not values.size:
        raise UsageError(
            f"`roi` is an array of {values.dtype} and shape {values.shape}; give an array of bool or uint8 with the"
            " shape (H, W)"
        )
    return values if values.dtype == np.bool_ else values >= LOOK_HERE


def _polygons(path: str, size: tuple[int, int]) -> Bools:
    try:
        content = json.loads(read_bytes(path))
        shapes = [*(_of_coco(content) if "annotations" in content else _of_labelme(content))]
        picture = Image.new("1", size[::-1])
        draw = ImageDraw.Draw(picture)
        for (height, width), kind, points in shapes:
            scaled = [(x * size[1] / width, y * size[0] / height) for x, y in points]
            _check_places(scaled)
            (draw.polygon if kind == "polygon" else draw.ellipse)(scaled, fill=1)
    except UnreadableError as error:
        raise _unread(path, error) from error
    except (ValueError, TypeError, KeyError, LookupError, AttributeError, RecursionError, ArithmeticError) as error:
        raise RefusedError(
            f"`roi` {path!r} contains no polygons in the format of LabelMe or COCO ({str(error)[:100]}); save it"
            " again, or give a mask"
        ) from error
    return np.asarray(picture)


def _check_places(points: Points) -> None:
    if not all(math.isfinite(number) and abs(number) < LARGEST for point in points for number in point):
        raise ValueError("a point is not a position in an image")


def _of_labelme(content: Mapping[str, Any]) -> Iterator[tuple[tuple[float, float], str, Points]]:
    """The size of the image, the kind of shape, and its points (x, y)."""
    size = float(content["imageHeight"]), float(content["imageWidth"])
    for shape in content["shapes"]:
        kind, points = shape.get("shape_type") or "polygon", [(float(x), float(y)) for x, y in shape["points"]]
        if kind == "rectangle":
            yield size, "polygon", _box(*points[0], *points[1])
        elif kind == "circle":
            (x, y), edge = points
            radius = math.dist((x, y), edge)
            yield size, "ellipse", [(x - radius, y - radius), (x + radius, y + radius)]
        elif kind == "polygon" and len(points) > 2:
            yield size, kind, points
        else:
            raise ValueError(f"a shape is a {kind} of {len(points)} points")


def _of_coco(content: Mapping[str, Any]) -> Iterator[tuple[tuple[float, float], str, Points]]:
    """As `_of_labelme`; a run-length mask is no polygon, and is refused."""
    sizes = {image["id"]: (float(image["height"]), float(image["width"])) for image in content["images"]}
    for annotation in content["annotations"]:
        size, parts = sizes[annotation["image_id"]], annotation.get("segmentation") or []
        if not isinstance(parts, list):
            raise ValueError("a segmentation is a run-length mask")  # noqa: TRY004
        if not parts:
            x, y, width, height = map(float, annotation["bbox"])
            yield size, "polygon", _box(x, y, x + width, y + height)
        for numbers in parts:
            points = [*zip(map(float, numbers[::2]), map(float, numbers[1::2]), strict=True)]
            if len(points) < 3:
                raise ValueError(f"a segmentation has {len(points)} points")
            yield size, "polygon", points


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def digest_of_region(inside: Bools) -> str:
    """The SHA-256 (hex) of a region."""
    return hashlib.sha256(repr(inside.shape).encode() + np.packbits(inside).tobytes()).hexdigest()


def covered(
    images: npt.NDArray[np.uint8], inside: Bools | None = None, *, regions: bool | None = False
) -> npt.NDArray[np.uint8]:
    """`images` (N, C, H, W), or a copy, grey where pixels do not count; a copy of a mapped array is one too.

    With `regions`, the last channel holds the regions of the images, and the copy does not have it.
    """
    if inside is None and not regions:
        return images
    rows = max(1, BLOCK_BYTES // images[:1].nbytes)
    blocks = (_covered(images[at : at + rows], inside, regions=bool(regions)) for at in range(0, len(images), rows))
    if not isinstance(images, np.memmap):
        return np.concatenate([*blocks])
    with nameless_file() as file:
        for block in blocks:
            file.write(block.data)
        file.flush()
        channels = images.shape[1] - bool(regions)
        return np.memmap(file, np.uint8, "r", shape=(len(images), channels, *images.shape[2:]))


def _covered(block: npt.NDArray[np.uint8], inside: Bools | None, *, regions: bool) -> npt.NDArray[np.uint8]:
    if regions:
        own = block[:, -1:] >= LOOK_HERE
        block, inside = block[:, :-1], own if inside is None else own & inside
    assert inside is not None
    return np.where(inside, block, np.uint8(GREY))

"""TIFF files: Pillow reads the kinds that it is known to read correctly, and tifffile reads the others."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

if TYPE_CHECKING:
    from typing import IO

    import numpy.typing as npt

CMYK = "it is CMYK, whose colours depend on a print profile; convert it to RGB"
LAB = "its colours are CIELAB; convert it to RGB"
INTEGERS = "its pixels are 32-bit or signed integers with no defined black and white; convert it to 8 or 16 bit"
FLOATS = "its pixels are floating-point numbers with no defined black and white; convert it to 8 or 16 bit"

_BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES, _PLANES = 258, 259, 262, 274, 277, 284
_FORMAT, _SUBSAMPLING, _DEPTH = 339, 530, 32997
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
_LABS = (8, 9, 10)
_UNCOMPRESSED, _JPEG = 1, (6, 7, 34892, 33007)
_PROVEN_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946)
"""None, CCITT, LZW, JPEG, deflate and PackBits. Whether Pillow knows the others depends on how it was built."""
_PROVEN_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "YCbCr")
_LARGEST_TILE = 2**26
"""Pixels; a larger tile would take memory out of proportion."""
_OPACITY = (1, 2)
"""The kinds of extra samples that say how opaque a pixel is: colours multiplied by it, and colours as they are."""
_TURNS = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
"""The turn or flip that brings pixels (H, W, C) upright, by the orientation in the file."""

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its warnings on stderr name no file


def open_tiff(file: IO[bytes]) -> ImageFile:
    """Open a TIFF, by Pillow where Pillow is known to give the right pixels."""
    with contextlib.suppress(OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        image = TiffImageFile(file)
        if image.n_frames == 1 and _is_proven(image):
            return image
    file.seek(0)
    return TiffPage(file)


def _is_proven(image: TiffImageFile) -> bool:
    tags = image.tag_v2
    if (
        tags.get(_DEPTH, 1) != 1
        or tags.get(_COMPRESSION, 1) not in _PROVEN_COMPRESSIONS
        or set(tags.get(_FORMAT, (1,))) != {1}
    ):
        return False
    if image.mode.startswith("I;16"):
        return tuple(tags.get(_BITS, ())) == (16,) and tags.get(_PHOTOMETRIC) == _BLACK_IS_ZERO
    if tags.get(_PHOTOMETRIC) == _YCBCR and tags.get(_COMPRESSION, 1) == _UNCOMPRESSED:
        return tags.get(_SUBSAMPLING) == (1, 1)
    return image.mode in _PROVEN_MODES and (tags.get(_PLANES, 1) == 1 or tags.get(_SAMPLES, 1) == 1)


class TiffPage(ImageFile):
    """The first page of a TIFF, smaller copies apart, read by tifffile, upright, with white as the largest value.

    Attributes
    ----------
    refusal : str
        Why pixels of this kind are not read; empty if they are.
    n_frames : int
        Number of pages, smaller copies and masks apart.
    """

    format = "TIFF"
    format_description = "TIFF, read by tifffile"

    def _open(self) -> None:
        import tifffile

        assert self.fp is not None
        pages: list[Any] = [*tifffile.TiffFile(self.fp, name="image.tif").pages]
        whole = [page for page in pages if not (page.is_reduced or page.is_mask)] or pages
        self.n_frames = len(whole)
        self._page = whole[0]
        self.refusal = refusal_of(self._page)
        turn = self._page.tags.valueof(_ORIENTATION, default=1)
        self._turn = _TURNS.get(turn) if isinstance(turn, int) else None
        width, height = self._page.imagewidth, self._page.imagelength
        self._size = (height, width) if self._turn and turn >= 5 else (width, height)
        self._mode = "L" if self.refusal else _mode(self._page)

    def load(self) -> Any:
        """Decode the pixels."""
        if self._im is None:
            picture = as_picture(self.pixels())
            if self._page.photometric == _PALETTE:
                picture.putpalette((self._page.colormap >> 8).astype(np.uint8).T.tobytes())
            self.im, self._mode, self.palette = picture.im, picture.mode, picture.palette
        return Image.Image.load(self)

    def pixels(self) -> npt.NDArray[Any]:
        """The pixels, uint8 or uint16 (H, W, C): grey, RGB or index of the palette, and opacity if the file has it."""
        page = self._page
        check_whole(page)
        planes = _decoded(page)  # planes, depth, rows, columns, samples
        values = np.moveaxis(planes, 0, -2)[0].reshape(page.imagelength, page.imagewidth, -1)
        values = values[..., : _colours(page) + _has_opacity(page)].astype(values.dtype.newbyteorder("="))
        if page.bitspersample < 8:
            full = 1 if page.photometric == _PALETTE else 255 // (2**page.bitspersample - 1)
            values = values.astype(np.uint8) * np.uint8(full)
        if page.photometric == _WHITE_IS_ZERO:
            values[..., 0] = np.iinfo(values.dtype).max - values[..., 0]
        if _has_opacity(page) and page.extrasamples[:1] == (1,):
            values = _unmultiplied(values)
        return np.ascontiguousarray(self._turn(values) if self._turn else values)


def as_picture(pixels: npt.NDArray[Any]) -> Image.Image:
    """A Pillow image of pixels, uint8 or uint16 (H, W, C); grey keeps all of 16 bits, other pixels the upper 8."""
    if pixels.shape[2] == 1:
        return Image.fromarray(pixels[..., 0])
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8))


def _mode(page: Any) -> str:
    if page.photometric == _PALETTE:
        return "P"
    channels = _colours(page) + _has_opacity(page)
    return "I;16" if channels == 1 and page.bitspersample == 16 else ("L", "LA", "RGB", "RGBA")[channels - 1]


def _colours(page: Any) -> int:
    """The number of samples that are colours; 0 if their meaning is unknown."""
    if page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE):
        return 1
    return 3 if page.photometric in (_RGB, _YCBCR) else 0


def _has_opacity(page: Any) -> bool:
    if page.extrasamples:
        return page.extrasamples[0] in _OPACITY and page.photometric != _PALETTE
    return bool(page.photometric == _RGB and page.samplesperpixel == 4)


def refusal_of(page: Any) -> str:
    """Why pixels of this kind are not read; empty if they are."""
    kind = "" if page.dtype is None else page.dtype.kind
    colours, samples, bits = _colours(page), page.samplesperpixel, page.bitspersample
    palette = page.photometric == _PALETTE
    reasons = {
        CMYK: page.photometric == _SEPARATED,
        LAB: page.photometric in _LABS,
        FLOATS: kind == "f",
        INTEGERS: kind == "i" or bits == 32,
        f"its palette has {bits} bits; convert the file to RGB": palette and bits not in _depths(page),
        f"its pixels have {bits} bits; convert it to 8 or 16 bit": bits not in _depths(page),
        f"its pixels ({_name(page.photometric)}) are neither grey nor RGB; convert the file to RGB": not colours,
        "its colours are YCbCr without JPEG; convert it to RGB": page.photometric == _YCBCR
        and page.compression not in _JPEG,
        f"it has {samples} channels, which are neither grey nor RGB; convert the file to RGB": samples < colours
        or (colours == 1 and samples > 2)
        or (colours == 1 and samples == 2 and not page.extrasamples),
        "it is a volume; save one slice as TIFF": page.imagedepth > 1,
        f"its compression ({_name(page.compression)}) is not supported; convert the file to PNG": not _is_known(
            page.compression
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _depths(page: Any) -> tuple[int, ...]:
    """The bits of a sample that are read."""
    if page.photometric == _PALETTE:
        return (1, 2, 4, 8)
    return (1, 2, 4, 8, 16) if page.samplesperpixel == 1 else (8, 16)


def _name(value: Any) -> str:
    """The name of a kind of colours or compression, or its number."""
    return getattr(value, "name", str(value))


def _is_known(compression: int) -> bool:
    import tifffile

    try:
        return compression == _UNCOMPRESSED or bool(tifffile.TIFF.DECOMPRESSORS[compression])
    except (KeyError, ValueError):
        return False


def check_whole(page: Any) -> None:
    """Refuse a page of which a part is missing, which tifffile would fill with zeros."""
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    end = page.parent.filehandle.size
    if page.is_tiled and page.tilewidth * page.tilelength * page.tiledepth > _LARGEST_TILE:
        raise ValueError(f"its tiles have {page.tilewidth} x {page.tilelength} pixels")
    if len(parts) < math.prod(page.chunked) or not all(offset and 0 < size <= end - offset for offset, size in parts):
        raise ValueError("a part of its pixels is missing")


def _decoded(page: Any) -> npt.NDArray[Any]:
    import tifffile

    try:
        values: npt.NDArray[Any] = page.asarray(squeeze=False, maxworkers=1)
    except tifffile.TiffFileError:
        raise
    except ValueError as error:  # by the documentation of tifffile, a kind that it does not decode
        raise NotImplementedError(str(error)) from error
    return values


def _unmultiplied(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Divide colours by the opacity that they were multiplied by."""
    full, opacity = np.iinfo(values.dtype).max, values[..., -1:].astype(np.uint64)
    colours = (values[..., :-1] * np.uint64(full) + opacity // 2) // np.maximum(opacity, 1)
    return np.concatenate([np.minimum(colours, full).astype(values.dtype), values[..., -1:]], -1)

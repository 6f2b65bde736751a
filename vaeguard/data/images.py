"""From image files to uint8 arrays: one rule each for colour, depth and size, the same in training and scoring.

Formats
    PNG, JPEG, JPEG 2000, TIFF, BMP and WEBP, recognised by their first bytes; one picture a file.
Depth
    8 bit as it is; 1 bit as 0 or 255; 16-bit grey as round(v * 255 / 65535); the upper 8 bits of 16-bit colour, and of
    16-bit grey with opacity. With a `pixel_range`, 16-bit grey and colour are round((v - black) * 255 / (white -
    black)), cut off at 0 and 255. A TIFF whose zero is white is inverted, so that white is the largest value
    everywhere. 32-bit, signed and floating-point pixels are refused.
Colour
    RGB to grey by the ITU-R 601 luma, grey to RGB by repeating; palettes are expanded; transparent pixels are laid
    over white, unless four channels (RGBA) are asked for. The EXIF orientation is applied. CMYK is refused.
Size
    Scaled to (H, W) with an antialiased bilinear filter: nothing is cropped, and the aspect ratio may change.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import (
    BmpImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from vaeguard.data.encodings import (
    PNG_START,
    deep_pixels,
    is_deep_grey_with_opacity,
    kind_of_jpeg,
    without_long_texts,
)
from vaeguard.data.limits import MAX_BYTES, MAX_PIXELS, too_much_memory
from vaeguard.data.tiffs import CMYK, FLOATS, INTEGERS, LAB, as_picture, open_tiff
from vaeguard.errors import UnreadableError, UsageError
from vaeguard.settings.checks import check_pixel_range
from vaeguard.storage import places

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt
    from PIL.ImageFile import ImageFile

    Bytes = npt.NDArray[np.uint8]

SUFFIXES_OF = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "JPEG 2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
}
"""The suffixes of each format that is read."""
SUFFIXES = tuple(suffix for suffixes in SUFFIXES_OF.values() for suffix in suffixes)

# The readers are called directly, not through Image.open, whose check for decompression bombs warns through
# process-wide state, which threads cannot turn into an error. The table is also the list of allowed formats.
_READERS: tuple[tuple[str, bytes, Callable[[io.BytesIO | io.BufferedReader], ImageFile]], ...] = (
    ("PNG", PNG_START, PngImagePlugin.PngImageFile),
    ("JPEG", b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    ("TIFF", b"II*\0", open_tiff),
    ("TIFF", b"MM\0*", open_tiff),
    ("TIFF", b"II+\0", open_tiff),
    ("TIFF", b"MM\0+", open_tiff),
    ("BMP", b"BM", BmpImagePlugin.BmpImageFile),
    ("WEBP", b"RIFF", WebPImagePlugin.WebPImageFile),
    ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n", Jpeg2KImagePlugin.Jpeg2KImageFile),
    ("JPEG 2000", b"\xff\x4f\xff\x51", Jpeg2KImagePlugin.Jpeg2KImageFile),
)
_NOT_READ = (
    *((0, b"GIF8", "a GIF"), (0, b"%PDF", "a PDF"), (4, b"ftyp", "a HEIC, AVIF or video file"), (0, b"8BPS", "a PSD")),
    *((0, b"\xff\x0a", "a JPEG XL"), (0, b"\0\0\0\x0cJXL ", "a JPEG XL"), (0, b"II\xbc", "a JPEG XR")),
    *((0, b"v/1\x01", "an OpenEXR file"), (0, b"DDS ", "a DDS"), (0, b"qoif", "a QOI"), (0, b"<svg", "an SVG")),
)
"""Formats that are not read: where their first bytes stand, these bytes, and a name."""
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG2000": b"\xff\xd9"}
"""The end marks of formats that Pillow also accepts without them, so that a file that lost its end would pass."""

DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError),
    *(RuntimeError, struct.error, zlib.error, Image.DecompressionBombError, Warning),
)
"""The errors that Pillow's readers were seen to raise on damaged bytes; Warning is for warnings turned into errors."""
_TOO_MANY = f"more than the limit of {MAX_PIXELS // 10**6} million; shrink it"
_UNSUPPORTED = re.compile("unsupported|not supported|unknown|cannot handle|not available", re.IGNORECASE)
"""Words with which decoders refuse what they do not know; Pillow has no error of its own for it."""

_GREY_MODES = ("1", "L", "LA", "La")
_REFUSED_MODES = {"CMYK": CMYK, "LAB": LAB, "I": INTEGERS, "F": FLOATS}
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_KEYS = ("exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp")


@dataclass(frozen=True)
class ImageRule:
    """The size and channels to which every image is converted.

    Attributes
    ----------
    size : (H, W) or None
        Height and width in pixels; None keeps the size of each image.
    channels : int or None
        1 grey, 3 RGB, 4 RGBA; None takes 1 for a grey file and 3 for a file in colour. 2 is only for arrays that have 2
        channels already.
    pixel_range : (black, white) or None
        The values of files of 16 bits that are black and white, from 0 to 65535; None is the full range.
    longest : int or None
        The longest side, in pixels, to which a data set of larger files is scaled down if `size` is None; None is that
        of `choice.default_size`.
    regions : bool or None
        Whether an additional channel holds the region of each image, see `own_regions`; None: if an image of the data
        set has a region.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    pixel_range: tuple[int, ...] | None = None
    longest: int | None = None
    regions: bool | None = False

    def __post_init__(self) -> None:
        check_pixel_range(self.pixel_range)
        if self.channels is not None and self.channels not in (1, 2, 3, 4):
            raise UsageError(f"`channels` is {self.channels}; it must be 1 (grey), 2, 3 (RGB) or 4 (RGBA)")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise UsageError(f"`size` is {self.size}; it must be a height and a width of at least 1 pixel")
        if self.regions and self.channels == 4:
            raise UsageError(
                "regions of single images do not work with 4 channels; set `channels` to 1 or 3, or"
                " `model.regions` to False"
            )

    @property
    def decoded_shape(self) -> tuple[int, int, int]:
        """The shape of an image by this rule; what the rule leaves open is 1."""
        return ((self.channels or 1) + bool(self.regions), *(self.size or (1, 1)))


def decode_image(path: str | Path, rule: ImageRule) -> Bytes:
    """Read one image file into uint8 (C, H, W) by `rule`.

    Raises
    ------
    UnreadableError
        The file is missing, damaged or too large, or its format or kind of pixels is not supported.
    """
    return decode_bytes(read_bytes(path), rule, str(path))


def decode_bytes(content: bytes, rule: ImageRule, name: str = "image") -> Bytes:
    """Decode the bytes of an image file into uint8 (C, H, W) by `rule`; `name` is for messages.

    Raises
    ------
    UnreadableError
        As `decode_image`.
    """
    check_file_rule(rule)
    image = open_picture(content, name)
    try:
        return _pixels(shaped(_upright(_ranged(image, content, rule), _orientation(image)), rule))
    except DECODE_ERRORS as error:
        raise _damaged(name, error, content) from error
    except MemoryError as error:
        raise UnreadableError(name, too_much_memory()) from error


def open_picture(content: bytes, name: str, *, load: bool = True) -> ImageFile:
    """Open the bytes of an image file with Pillow, neither turned nor converted.

    Raises
    ------
    UnreadableError
        As `decode_image`.
    """
    try:
        image = _open(io.BytesIO(content), content[:16], name)
        _check_whole(image, content, name)
        if load:
            image.load()
    except DECODE_ERRORS as error:
        lean = without_long_texts(content)
        if len(lean) < len(content):
            return open_picture(lean, name, load=load)
        raise _damaged(name, error, content) from error
    except MemoryError as error:
        raise UnreadableError(name, too_much_memory()) from error
    return image


def read_header(path: str | Path, content: bytes | None = None) -> tuple[tuple[int, int], int]:
    """Return ((H, W), channels) of the image that `decode_image` returns with an empty rule, from the header alone.

    `content` is the content of the file, if it has been read already.

    Raises
    ------
    UnreadableError
        As `decode_image`, but damage after the header is not noticed.
    """
    try:
        with open(_open_regular(path)[0], "rb") if content is None else io.BytesIO(content) as file:  # noqa: PTH123  (a descriptor)
            start = file.read(32)
            file.seek(0)
            image = _open(file, start, str(path))
            grey = image.mode in _GREY_MODES or image.mode.startswith("I;16") or is_deep_grey_with_opacity(start)
            width, height = image.size
            turned = image.format != "TIFF" and _orientation(image) >= 5  # Pillow turns the size of a TIFF itself
    except DECODE_ERRORS as error:
        content = read_bytes(path) if content is None else content
        lean = without_long_texts(content)
        if len(lean) < len(content):
            return read_header(path, lean)
        raise _damaged(str(path), error, content) from error
    return ((width, height) if turned else (height, width)), 1 if grey else 3


def read_bytes(path: str | Path, *, any_size: bool = False) -> bytes:
    """Read a regular file or an object of a bucket, of at most 512 MB unless `any_size` is set; never wait for a FIFO.

    Raises
    ------
    UnreadableError
        The file is missing, not a regular file, empty, too large or not permitted.
    """
    path = places.original(path)
    if places.is_url(path):
        return _read_object(str(path), any_size=any_size)
    handle, size = _open_regular(path, any_size=any_size)
    try:
        content = os.read(handle, size)
        while len(content) < size and (more := os.read(handle, size - len(content))):
            content += more
    except OSError as error:
        raise UnreadableError(str(path), f"it cannot be read ({error.strerror})") from error
    finally:
        os.close(handle)
    return content


def _read_object(url: str, *, any_size: bool) -> bytes:
    size, time = places.size_and_time(url)
    reason = _reason_of_size(size, any_size=any_size) if time else ""  # reading says why nothing is there
    if reason:
        raise UnreadableError(url, reason)
    return places.read(url)


def shape_array(image: Bytes, rule: ImageRule) -> Bytes:
    """Bring one uint8 (C, H, W) array to `rule` exactly like a file with the same pixels; four channels are RGBA.

    Raises
    ------
    UsageError
        The array has two channels, whose meaning is unknown.
    """
    check_file_rule(rule)
    if image.shape[0] not in (1, 3, 4):
        raise UsageError(
            f"images with {image.shape[0]} channels cannot be scaled or recoloured; convert them to 1, 3 or 4 channels"
        )
    channels = rule.channels or image.shape[0]
    return _pixels(shaped(_as_pillow(image), ImageRule(rule.size, channels)))


def reduced(image: Bytes, side: int) -> Bytes:
    """An image, uint8 (C, H, W), of at most `side` pixels a side, in the same shape."""
    longest = max(image.shape[1:])
    if longest <= side:
        return image
    height, width = (max(1, round(length * side / longest)) for length in image.shape[1:])
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BOX) for plane in image]
    return np.stack([np.asarray(plane) for plane in planes])


def write_png(path: str | Path, image: Bytes) -> None:
    """Write uint8 (C, H, W) with 1, 3 or 4 channels as a PNG file."""
    _as_pillow(image).save(path, format="PNG")


def shaped(image: Image.Image, rule: ImageRule) -> Image.Image:
    """Apply the rules of colour and size to an upright Pillow image; the result has mode L, RGB or RGBA."""
    image = _coloured(image, rule.channels)
    if rule.size is not None and image.size != rule.size[::-1]:
        image = image.resize(rule.size[::-1], Image.Resampling.BILINEAR)
    return image


def check_file_rule(rule: ImageRule) -> None:
    """Refuse a rule of two channels, since no file is read with two."""
    if rule.channels == 2:
        raise UsageError("image files are read with 1 (grey), 3 (RGB) or 4 (RGBA) channels, not 2")


def _open_regular(path: str | Path, *, any_size: bool = False) -> tuple[int, int]:
    """Open a file without waiting, as opening a FIFO would; return the descriptor and the size in bytes."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError as error:
        raise UnreadableError(str(path), "the file does not exist") from error
    except OSError as error:
        raise UnreadableError(str(path), f"it cannot be opened ({error.strerror})") from error
    except ValueError as error:
        raise UnreadableError(str(path), "its name contains a NUL character") from error
    status = os.fstat(handle)
    reason = _reason_to_refuse(status, any_size=any_size)
    if reason:
        os.close(handle)
        raise UnreadableError(str(path), reason)
    return handle, status.st_size


def _reason_to_refuse(status: os.stat_result, *, any_size: bool) -> str:
    """The reason why a file is not read; empty if there is none."""
    if stat.S_ISDIR(status.st_mode):
        return "it is a folder"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    return _reason_of_size(status.st_size, any_size=any_size)


def _reason_of_size(size: int, *, any_size: bool) -> str:
    if size == 0:
        return "the file is empty (0 bytes)"
    if size > MAX_BYTES and not any_size:
        return f"it has {size / 2**20:.0f} MB, more than the limit of {MAX_BYTES // 2**20} MB; shrink it"
    return ""


def format_of(start: bytes) -> str | None:
    """The format of a file by its first bytes, if it is PDF or an image format that is read; else None."""
    known = (*((name, magic) for name, magic, _ in _READERS), ("PDF", b"%PDF"))
    for name, magic in known:
        if start.startswith(magic) and (name != "WEBP" or start[8:12] == b"WEBP"):
            return name
    return None


def _open(file: io.BytesIO | io.BufferedReader, start: bytes, name: str) -> ImageFile:
    """Read the header with the reader for the first bytes, and refuse images that should not be decoded."""
    for format_name, magic, reader in _READERS:
        if start.startswith(magic) and (format_name != "WEBP" or start[8:12] == b"WEBP"):
            image = reader(file)
            _check(image, name)
            return image
    if kind := next((kind for offset, magic, kind in _NOT_READ if start[offset:].startswith(magic)), None):
        raise UnreadableError(name, f"it is {kind}, which is not supported; convert it to PNG")
    raise UnreadableError(
        name, "it is not a supported image (PNG, JPEG, JPEG 2000, TIFF, BMP or WEBP)" if start else "it is empty"
    )


def _check(image: ImageFile, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableError(name, f"it has {width} x {height} pixels, {_TOO_MANY}")
    if width * height == 0:
        raise UnreadableError(name, "it has no pixels")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        kind = (
            "pages; save each page as a file of its own" if image.format == "TIFF" else "frames; save one frame as PNG"
        )
        raise UnreadableError(name, f"it has {frames} {kind}")
    if reason := getattr(image, "refusal", "") or _REFUSED_MODES.get(image.mode):
        raise UnreadableError(name, reason)


def _check_whole(image: ImageFile, content: bytes, name: str) -> None:
    if (end := _ENDS.get(str(image.format))) and content.rfind(end) < 0:
        raise UnreadableError(
            name, f"the {image.format} data is cut short (its end mark is missing); copy the file again"
        )


def _damaged(name: str, error: BaseException, content: bytes) -> UnreadableError:
    """The error for a file that cannot be decoded: its kind is not read, it is damaged, or it may be either."""
    detail = " ".join(str(error).split()) or type(error).__name__
    if kind := kind_of_jpeg(content) if content.startswith(b"\xff\xd8") else "":
        return UnreadableError(name, f"it is a {kind}, which is not supported; convert it to PNG")
    if isinstance(error, Image.DecompressionBombError):  # of readers that know the size before `_check` does
        return UnreadableError(name, f"it has too many pixels, {_TOO_MANY}")
    if isinstance(error, NotImplementedError):
        return UnreadableError(name, f"its pixel format is not supported ({detail}); convert the file to PNG")
    if _UNSUPPORTED.search(detail):
        return UnreadableError(
            name, f"it is damaged or of an unsupported kind ({detail}); copy the file again, or convert it to PNG"
        )
    return UnreadableError(name, f"its image data is damaged or cut short ({detail}); copy the file again")


def _orientation(image: Image.Image) -> int:
    if not any(key in image.info for key in _EXIF_KEYS):
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except DECODE_ERRORS:  # the pixels may be fine although the EXIF is broken
        return 1
    return orientation if isinstance(orientation, int) and orientation in _UPRIGHT else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_UPRIGHT[orientation])


def _ranged(image: Image.Image, content: bytes, rule: ImageRule) -> Image.Image:
    """The opened file `image` as grey if it is; if it has 16 bits and the rule has a range of pixels, in 8 bits."""
    values = deep_pixels(content, image) if rule.pixel_range else None
    if values is None or rule.pixel_range is None:
        return image.convert("LA") if is_deep_grey_with_opacity(content) else image
    black, white = rule.pixel_range
    colours = values.shape[2] - (values.shape[2] in (2, 4))
    steps = np.clip(values[..., :colours].astype(np.int64), black, white) - black
    scaled = (steps * 255 + (white - black) // 2) // (white - black)
    return as_picture(np.concatenate([scaled, values[..., colours:] >> 8], -1).astype(np.uint8))


def _coloured(image: Image.Image, channels: int | None) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _from_16_bit(image)
    grey = image.mode in _GREY_MODES
    if channels == 4:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.has_transparency_data:
        image = _over_white(image.convert("LA" if grey else "RGBA"))
    mode = {1: "L", 3: "RGB", None: "L" if grey else "RGB"}[channels]
    return image if image.mode == mode else image.convert(mode)


def _over_white(image: Image.Image) -> Image.Image:
    opaque = Image.new("L" if image.mode == "LA" else "RGB", image.size, "white")
    opaque.paste(image.convert(opaque.mode), mask=image.getchannel("A"))
    return opaque


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _as_pillow(image: Bytes) -> Image.Image:
    return Image.fromarray(image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def _pixels(image: Image.Image) -> Bytes:
    flat = np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, -1)
    # A copy, since the buffer is read-only, which torch warns about.
    return np.array(flat.transpose(2, 0, 1), order="C")

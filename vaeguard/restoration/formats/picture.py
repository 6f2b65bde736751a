"""Scans of one page: PNG, JPEG, WEBP and BMP, with all that they say beside their pixels."""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from vaeguard.data.images import open_picture
from vaeguard.errors import UnreadableError
from vaeguard.restoration.formats.scan_page import ORIENTATION, Page, PageFacts, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vaeguard.restoration.formats.scan_page import Pixels

PNG_LEVEL = 3
"""Of compression: the next levels take twice the time for a few percent."""
METRES_PER_INCH = 0.0254
_PNG_START = b"\x89PNG\r\n\x1a\n"
_OF_THE_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_OF_OTHER_CHANNELS = (b"tRNS", b"bKGD", b"sBIT", b"hIST")
"""Chunks of a PNG that mean something else once a palette or a transparent colour is expanded."""
_KNOWN = (
    b"cHRM",
    b"gAMA",
    b"iCCP",
    b"sBIT",
    b"sRGB",
    b"bKGD",
    b"hIST",
    b"tRNS",
    b"sPLT",
    b"tIME",
    b"cICP",
    b"mDCV",
    b"cLLI",
)
"""Chunks that PNG forbids to copy unless one knows what they mean."""
_PHOTOSHOP, _PROFILE = b"Photoshop 3.0\0", b"Raw profile type 8bim"
"""What begins the resources that hold IPTC's captions: in a JPEG, and in a PNG."""


def encode_png(pixels: Pixels, chunks: list[tuple[bytes, bytes]]) -> bytes:
    """`pixels` as a PNG file with `chunks`, pairs of kind and data, behind its header."""
    import imagecodecs

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    plain = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=PNG_LEVEL))
    after_header = len(_PNG_START) + 25
    said = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return plain[:after_header] + said + plain[after_header:]


def picture_pages(content: bytes, name: str) -> Iterator[Page]:
    """As `scans.scan_pages`: the one page."""
    with reading(name):
        page, _, _ = _picture_page(content, name)
    yield page


def picture_facts(content: bytes, name: str) -> list[PageFacts]:
    """As `scans.facts_of`: of the one page."""
    with reading(name):
        facts = _facts(open_picture(content, name))
        if content.startswith(_PNG_START):
            _, _, bits, colour = struct.unpack(">IIBB", content[16:26])
            transparent = any(kind == b"tRNS" for kind, _ in png_chunks(content))
            channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[colour] + (transparent and colour in (0, 2, 3))
            depth = max(8, bits) if colour == 3 or bits > 1 else 1
            facts = replace(facts, bits=depth, channels=channels, iptc=_profile_in(content))
    return [facts]


def picture_sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """As `scans.page_sizes`: of the one page."""
    image = open_picture(content, name, load=False)
    return [(image.height, image.width)]


def _picture_page(content: bytes, name: str) -> tuple[Page, ImageFile, list[tuple[bytes, bytes]]]:
    """The page of a PNG, JPEG, WEBP or BMP, the opened file, and what it says as chunks of a PNG."""
    import imagecodecs

    png = content.startswith(_PNG_START)
    image = open_picture(content, name, load=not png)
    chunks = list(png_chunks(content)) if png else _chunks_from(image) if image.format == "JPEG" else []
    if any(kind == b"acTL" for kind, _ in chunks):
        raise UnreadableError(name, "it is animated; save one frame as PNG")
    pixels: Any
    if image.mode == "1" or (image.mode == "P" and image.getcolors(2)):  # a palette of two colours says no more
        pixels = np.asarray(image).astype(np.bool_)
    elif png:
        try:
            pixels = imagecodecs.png_decode(content)
        except imagecodecs.PngError as error:
            raise UnreadableError(name, f"its image data is damaged ({error}); copy the file again") from error
    elif image.mode in ("L", "RGB", "RGBA"):
        pixels = np.asarray(image)
    else:
        pixels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    return Page(1, pixels, _dpi(image), int(image.getexif().get(ORIENTATION, 1))), image, chunks


def rewrite_picture(
    content: bytes, name: str, target: Path, restore: Callable[[Page], Pixels], jpeg: int | None
) -> None:
    """As `scans.rewrite`."""
    with reading(name):
        page, image, chunks = _picture_page(content, name)
    restored = restore(page)
    if page.pixels.dtype == np.bool_:
        target.write_bytes(content)
    elif image.format == "PNG" or (image.format == "JPEG" and not jpeg):
        expanded = image.mode == "P" or any(kind == b"tRNS" for kind, _ in chunks)
        dropped = (*_OF_THE_PIXELS, *(_OF_OTHER_CHANNELS if expanded else ()))
        kept = [chunk for chunk in chunks if chunk[0] not in dropped and (chunk[0][3:].islower() or chunk[0] in _KNOWN)]
        target.write_bytes(encode_png(restored, kept))
    else:
        target.write_bytes(_saved(restored, image, content, jpeg))


def _saved(restored: Pixels, image: ImageFile, content: bytes, jpeg: int | None) -> bytes:
    """JPEG, WEBP or BMP with what the opened file says beside its pixels."""
    said = {key: image.info[key] for key in ("exif", "icc_profile", "xmp", "dpi") if image.info.get(key)}
    how: dict[str, Any] = {}
    if image.format == "JPEG":
        how = {"quality": jpeg, "subsampling": 0}
    elif image.format == "WEBP":
        how = {"lossless": True, "exact": True}
    file = io.BytesIO()
    Image.fromarray(restored).save(file, format=image.format, **{**said, **how})
    plain = file.getvalue()
    if image.format == "JPEG":
        return _with_segments(_with_density(plain, image), image)
    return _with_pixels_per_metre(plain, content) if image.format == "BMP" else plain


def _with_density(plain: bytes, image: ImageFile) -> bytes:
    """A JPEG with the density of `image`, whatever it says: Pillow writes inches only, and only what is likely."""
    if "jfif_density" not in image.info or plain[6:10] != b"JFIF":
        return plain
    return plain[:13] + struct.pack(">BHH", image.info["jfif_unit"], *image.info["jfif_density"]) + plain[18:]


def _with_pixels_per_metre(plain: bytes, content: bytes) -> bytes:
    """A BMP with the resolution of the one in `content`, also none: Pillow would write 96 dpi."""
    oldest = int.from_bytes(content[14:18], "little") < 40  # a header that has no place for it
    return plain[:38] + (bytes(8) if oldest else content[38:46]) + plain[46:]


def _with_segments(plain: bytes, image: ImageFile) -> bytes:
    """A JPEG with the captions and comments of `image`, behind the segments that begin it."""
    kept = {"APP13": b"\xff\xed", "COM": b"\xff\xfe"}
    more = [(kept[marker], data) for marker, data in getattr(image, "applist", []) if marker in kept]
    if image.format != "JPEG" or not more:
        return plain
    at = 2
    while plain[at : at + 2] in (b"\xff\xe0", b"\xff\xe1", b"\xff\xe2"):
        at += 2 + int.from_bytes(plain[at + 2 : at + 4])
    return plain[:at] + b"".join(mark + (len(data) + 2).to_bytes(2) + data for mark, data in more) + plain[at:]


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG: kind and data."""
    at = len(_PNG_START)
    while at + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        yield kind, content[at + 8 : at + 8 + length]
        at += 12 + length


def _chunks_from(image: ImageFile) -> list[tuple[bytes, bytes]]:
    """What a JPEG says beside its pixels, as chunks of a PNG."""
    info = image.info
    chunks = []
    if icc := info.get("icc_profile"):
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if resolution := _as_physical(image):
        chunks.append((b"pHYs", struct.pack(">IIB", *resolution)))
    if exif := info.get("exif"):
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if xmp := info.get("xmp"):
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    if profile := _iptc(image):
        said = b"\n8bim\n%8d\n%s\n" % (len(profile), profile.hex().encode())
        chunks.append((b"zTXt", _PROFILE + b"\0\0" + zlib.compress(said)))
    for comment in (data for marker, data in getattr(image, "applist", []) if marker == "COM"):
        # A tEXt is Latin-1, an iTXt UTF-8.
        as_utf8 = not comment.isascii() and _is_utf8(comment)
        chunks.append((b"iTXt", b"Comment\0\0\0\0\0" + comment) if as_utf8 else (b"tEXt", b"Comment\0" + comment))
    return chunks


def _as_physical(image: ImageFile) -> tuple[int, int, int] | None:
    """The resolution of a JPEG as PNG says it: across and down, and 1 for pixels per metre or 0 for their ratio."""
    across, down = image.info.get("jfif_density", (0, 0))
    if image.info.get("jfif_unit") == 0 and across != down and across and down:
        return across, down, 0
    dpi = image.info.get("dpi", (0, 0))
    per_metre = [round(float(value) / METRES_PER_INCH) for value in dpi if math.isfinite(value)]
    if len(per_metre) != 2 or not all(0 < value < 2**31 for value in per_metre):
        return None
    return per_metre[0], per_metre[1], 1


def _iptc(image: ImageFile) -> bytes:
    """The Photoshop resources of a JPEG, of which one holds the caption and keywords of IPTC."""
    segments = [data for marker, data in getattr(image, "applist", []) if marker == "APP13"]
    return b"".join(data.removeprefix(_PHOTOSHOP) for data in segments if data.startswith(_PHOTOSHOP))


def _profile_in(content: bytes) -> bytes:
    """The same of a PNG, where ImageMagick and ExifTool look for it."""
    for kind, data in png_chunks(content):
        if kind == b"zTXt" and data.startswith(_PROFILE + b"\0\0"):
            try:
                return bytes.fromhex(zlib.decompress(data[len(_PROFILE) + 2 :]).split(maxsplit=2)[2].decode())
            except (ValueError, LookupError, zlib.error):  # written by others, and kept as it is
                return data
    return b""


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _facts(image: ImageFile) -> PageFacts:
    dpi = _both_dpi(image)
    exif = image.getexif()
    listed: list[tuple[Any, str]] = [(key, str(value)) for key, value in exif.items() if key not in (0x8769, 0x8825)]
    for inner in (0x8769, 0x8825):
        listed += [((inner, key), str(value)) for key, value in exif.get_ifd(inner).items()]
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return PageFacts(
        size=(image.height, image.width),
        channels=len(image.getbands()) if image.mode != "P" else 3 + image.has_transparency_data,
        bits=16 if image.mode.startswith("I") else 1 if image.mode == "1" else 8,
        dpi=dpi and (round(dpi[0]), round(dpi[1])),
        icc=image.info.get("icc_profile"),
        exif=tuple(sorted(listed, key=str)),
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        iptc=_iptc(image) if isinstance(image, ImageFile) else b"",
    )


def _both_dpi(image: Image.Image) -> tuple[float, float] | None:
    dpi = image.info.get("dpi")
    if not dpi or not all(1 < float(value) < 100_000 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])


def _dpi(image: Image.Image) -> float | None:
    dpi = _both_dpi(image)
    return dpi[0] if dpi else None

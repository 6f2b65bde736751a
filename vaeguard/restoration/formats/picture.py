"""The formats of scans of one page, PNG, JPEG, WEBP and BMP, with their metadata."""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaeguard.data.encodings import MOST_TEXT, PIXEL_CHUNKS, PNG_START, packed_text, png_chunks, png_pixels
from vaeguard.data.images import open_picture
from vaeguard.data.limits import inflated
from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.restoration.formats.bmp import profile_of, with_pixels
from vaeguard.restoration.formats.jpeg import comments_of, has_profile, has_split_exif, iptc_of, with_segments, xmp_of
from vaeguard.restoration.formats.scan_format import Rewritten
from vaeguard.restoration.formats.scan_page import (
    METRES_PER_INCH,
    ORIENTATION,
    Page,
    PageFacts,
    digest_of_pixels,
    reading,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL.ImageFile import ImageFile

    from vaeguard.restoration.formats.scan_format import Coding, Restore
    from vaeguard.restoration.formats.scan_page import Pixels

PNG_LEVEL = 3
"""The level of compression; higher levels take twice the time for a few percent."""
_CHANNEL_CHUNKS = (b"tRNS", b"bKGD", b"sBIT", b"hIST")
"""Chunks of a PNG whose meaning changes when a palette or a transparent colour is expanded."""
_KNOWN_CHUNKS = (
    *(b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"bKGD", b"hIST"),
    *(b"tRNS", b"sPLT", b"tIME", b"cICP", b"mDCV", b"cLLI"),
)
"""Chunks that PNG allows a program to copy only if it knows their meaning."""
_PROFILE = b"Raw profile type 8bim"
"""The start of a chunk of a PNG that contains IPTC captions."""
_XMP = b"XML:com.adobe.xmp\0"
"""The start of a chunk of a PNG that contains XMP."""
_EXIF = 0x8769
_GPS = 0x8825


def encode_png(pixels: Pixels, chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Encode `pixels` as a PNG file with `chunks`, pairs of kind and data, behind the header."""
    import imagecodecs

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    plain = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=PNG_LEVEL))
    after_header = len(PNG_START) + 25
    extra = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return plain[:after_header] + extra + plain[after_header:]


def pages(content: bytes, name: str) -> Iterator[Page]:
    """Read the only page."""
    with reading(name):
        page, _, _ = _picture_page(content, name)
    yield page


def facts(content: bytes, name: str) -> list[PageFacts]:
    """Read the metadata of the only page."""
    with reading(name):
        image = open_picture(content, name)
        stated = _facts(image)
        if image.format == "JPEG":
            stated = replace(stated, xmp=xmp_of(content), iptc=iptc_of(content))
        if image.format == "BMP":
            stated = replace(stated, icc=profile_of(content))
        if content.startswith(PNG_START):
            _, _, bits, colour = struct.unpack(">IIBB", content[16:26])
            transparent = any(kind == b"tRNS" for kind, _ in png_chunks(content))
            channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[colour] + (transparent and colour in (0, 2, 3))
            depth = max(8, bits) if colour == 3 or bits > 1 else 1
            icc, xmp = _text_in(content, b"iCCP", b""), _text_in(content, b"iTXt", _XMP)
            stated = replace(stated, bits=depth, channels=channels, icc=icc, xmp=xmp, iptc=_profile_in(content))
    return [stated]


def sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """Read the height and width of the only page."""
    image = open_picture(content, name, load=False)
    return [(image.height, image.width)]


def _picture_page(content: bytes, name: str) -> tuple[Page, ImageFile, list[tuple[bytes, bytes]]]:
    """The page, the opened file, and the metadata of a PNG or JPEG as chunks of a PNG."""
    png = content.startswith(PNG_START)
    image = open_picture(content, name, load=not png)
    chunks = list(png_chunks(content)) if png else _chunks_from(image, content) if image.format == "JPEG" else []
    if any(kind == b"acTL" for kind, _ in chunks):
        raise UnreadableError(name, "it is animated; save one frame as PNG")
    if image.format == "JPEG" and not image.info.get("icc_profile") and has_profile(content):
        raise ValueError("a part of its colour profile is missing")
    dpi, turn = _both_dpi(image), _exif_of(image).get(ORIENTATION, 1)
    page = Page(
        number=1,
        pixels=_decoded(image, content, name),
        dpi=dpi[0] if dpi else None,
        orientation=turn if isinstance(turn, int) else 1,
    )
    return page, image, chunks


def _decoded(image: ImageFile, content: bytes, name: str) -> Any:
    """The pixels of an opened file: bool for one bit, else grey or RGB, with or without opacity."""
    import imagecodecs

    # A palette of two colours counts as one bit.
    if image.mode == "P" and image.getcolors(2):
        grey = np.asarray(image.convert("L"))
        dark, light = int(grey.min()), int(grey.max())
        return grey > ((dark + light) // 2 if dark < light else 127)
    if image.mode == "1":
        return np.asarray(image.convert("L")) > 127  # Pillow's own array has bytes of 255 for True
    if image.format == "PNG":
        try:
            return png_pixels(content)
        except imagecodecs.PngError as error:
            raise UnreadableError(name, f"its image data is damaged ({error}); copy the file again") from error
    if image.mode not in ("L", "RGB", "RGBA"):
        return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    return np.asarray(image)


def rewrite(content: bytes, name: str, target: Path, restore: Restore, coding: Coding) -> Rewritten:
    """Rewrite the only page; a JPEG becomes a PNG unless a quality is given, and one bit is copied."""
    with reading(name):
        page, image, chunks = _picture_page(content, name)
    restored = restore(page)
    if page.pixels.dtype == np.bool_:
        target.write_bytes(content)
    elif image.format == "PNG" or (image.format == "JPEG" and not coding.jpeg):
        target.write_bytes(encode_png(restored, _kept_chunks(image, chunks)))
    else:
        try:
            written = _saved(restored, image, content, coding.jpeg)
        except (OSError, ValueError, TypeError, struct.error) as error:
            raise RefusedError(f"{name!r} cannot be written as {image.format} ({error}); convert it to PNG") from error
        target.write_bytes(written)
        if image.format == "JPEG":
            return Rewritten(digests=[digest_of_pixels(page.pixels) for page in pages(written, name)])
    return Rewritten()


def _kept_chunks(image: ImageFile, chunks: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The chunks of the original whose meaning does not change; palettes and transparent colours are expanded."""
    expanded = image.mode == "P" or any(kind == b"tRNS" for kind, _ in chunks)
    dropped = (*PIXEL_CHUNKS, *(_CHANNEL_CHUNKS if expanded else ()))
    return [
        (kind, data) for kind, data in chunks if kind not in dropped and (kind[3:].islower() or kind in _KNOWN_CHUNKS)
    ]


def _saved(restored: Pixels, image: ImageFile, content: bytes, jpeg: int | None) -> bytes:
    """Encode a JPEG, WEBP or BMP with the metadata of the opened file."""
    metadata = {key: image.info[key] for key in ("exif", "icc_profile", "xmp") if image.info.get(key)}
    if image.format == "JPEG" and has_split_exif(content):
        del metadata["exif"]  # its segments are copied
    quality: dict[str, Any] = {}
    if image.format == "JPEG":
        quality = {"quality": jpeg, "subsampling": 0}
    elif image.format == "WEBP":
        quality = {"lossless": True, "exact": True}
    file = io.BytesIO()
    # Pillow would drop the opacity of a BMP, which is kept apart.
    shown = restored[..., :3] if image.format == "BMP" and restored.ndim == 3 else restored
    Image.fromarray(shown).save(file, format=image.format, **{**metadata, **quality})
    plain = file.getvalue()
    if image.format == "JPEG":
        return with_segments(plain, content)
    return with_pixels(content, restored, plain) if image.format == "BMP" else plain


def _chunks_from(image: ImageFile, content: bytes) -> list[tuple[bytes, bytes]]:
    """The metadata of a JPEG as chunks of a PNG."""
    info = image.info
    chunks = []
    if icc := info.get("icc_profile"):
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if resolution := _as_physical(image):
        chunks.append((b"pHYs", struct.pack(">IIB", *resolution)))
    if exif := info.get("exif"):
        chunks.append((b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if xmp := xmp_of(content):
        chunks.append((b"iTXt", _XMP + bytes(4) + xmp))
    if profile := iptc_of(content):
        text = b"\n8bim\n%8d\n%s\n" % (len(profile), profile.hex().encode())
        chunks.append((b"zTXt", _PROFILE + b"\0\0" + zlib.compress(text)))
    for comment in comments_of(content):
        # A tEXt is Latin-1, an iTXt UTF-8.
        as_utf8 = not comment.isascii() and _is_utf8(comment)
        chunks.append((b"iTXt", b"Comment\0\0\0\0\0" + comment) if as_utf8 else (b"tEXt", b"Comment\0" + comment))
    return chunks


def _as_physical(image: ImageFile) -> tuple[int, int, int] | None:
    """The resolution of a JPEG as in a PNG: across, down, and 1 for pixels per metre or 0 for a mere ratio."""
    across, down = image.info.get("jfif_density", (0, 0))
    if image.info.get("jfif_unit") == 0 and across != down and across and down:
        return across, down, 0
    dpi = image.info.get("dpi", (0, 0))
    per_metre = [round(float(value) / METRES_PER_INCH) for value in dpi if math.isfinite(value)]
    if len(per_metre) != 2 or not all(0 < value < 2**31 for value in per_metre):
        return None
    return per_metre[0], per_metre[1], 1


def _profile_in(content: bytes) -> bytes:
    """The Photoshop resources of a PNG, in the chunk in which ImageMagick and ExifTool store them."""
    for kind, data in png_chunks(content):
        if kind == b"zTXt" and data.startswith(_PROFILE + b"\0\0"):
            try:
                return bytes.fromhex(inflated(data[len(_PROFILE) + 2 :]).split(maxsplit=2)[2].decode())
            except (ValueError, LookupError, zlib.error):
                return data  # another program wrote it; the chunk is kept as it is
    return b""


def _text_in(content: bytes, kind: bytes, keyword: bytes) -> bytes | None:
    """The XMP or the colour profile of a PNG, which Pillow does not read if it is long."""
    for data in (data for own, data in png_chunks(content) if own == kind and data.startswith(keyword)):
        packed, text = packed_text(kind, data)
        try:
            return zlib.decompressobj().decompress(text, MOST_TEXT) if packed else text
        except zlib.error:
            return text
    return None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _facts(image: ImageFile) -> PageFacts:
    dpi = _both_dpi(image)
    return PageFacts(
        size=(image.height, image.width),
        channels=len(image.getbands()) if image.mode != "P" else 3 + image.has_transparency_data,
        bits=16 if image.mode.startswith("I") else 1 if image.mode == "1" else 8,
        dpi=dpi and (round(dpi[0]), round(dpi[1])),
        icc=image.info.get("icc_profile"),
        exif=tuple(sorted(((key, str(value)) for key, value in _exif_of(image).items()), key=str)),
        xmp=image.info.get("xmp"),
    )


def _exif_of(image: Image.Image) -> dict[Any, Any]:
    """The tags of EXIF, those of inner directories with the number of the directory; none if the EXIF is broken."""
    try:
        exif = image.getexif()
        tags: dict[Any, Any] = {key: value for key, value in exif.items() if key not in (_EXIF, _GPS)}
        for pointer in (_EXIF, _GPS):
            tags |= {(pointer, key): value for key, value in exif.get_ifd(pointer).items()}
    except Exception:  # noqa: BLE001 -- the pixels may be fine, and the bytes of the EXIF are copied unread
        return {}
    return tags


def _both_dpi(image: Image.Image) -> tuple[float, float] | None:
    dpi = image.info.get("dpi")
    if not dpi or not all(1 < float(value) < 100_000 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])

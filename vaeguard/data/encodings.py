"""What Pillow refuses or hides in PNG, JPEG and JPEG 2000: long texts, rare kinds of JPEG, and 16 bits of colour."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.tiffs import TiffPage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"
LONGEST_TEXT = 2**20
"""Bytes; Pillow refuses a PNG with a longer text or colour profile, none of which changes pixels."""
MOST_TEXT = 2**24
"""The most bytes of all texts and profiles of a PNG that are kept."""
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers of a frame; the others in this range define tables."""
_KINDS = {0xC3: "lossless JPEG", 0xF7: "JPEG-LS"}
"""Kinds of JPEG by the marker of their frame."""
_SCAN = 0xDA
"""The marker of the segment that the pixels follow."""
_HIERARCHICAL = (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF)


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and data of each chunk of a PNG."""
    start = len(PNG_START)
    while start + 12 <= len(content):
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        yield kind, content[start + 8 : start + 8 + length]
        start += 12 + length


def png_pixels(content: bytes) -> Any:
    """Decode a PNG in its full depth, palettes and transparent colours expanded.

    The decoder gets the chunks of the pixels alone: it would print warnings about metadata, or refuse long ones.
    """
    import imagecodecs

    start, kept = len(PNG_START), [PNG_START]
    for kind, data in png_chunks(content):
        end = start + 12 + len(data)
        kept += [content[start:end]] if kind in (*PIXEL_CHUNKS, b"tRNS") else []
        start = end
    return imagecodecs.png_decode(b"".join(kept))


def jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the data of each segment of a JPEG before the pixels."""
    at = 2
    while content[at : at + 1] == b"\xff" and at + 4 <= len(content):
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        if marker == 0xFF:  # a filling byte
            at += 1
            continue
        if marker == _SCAN:
            return
        yield marker, content[at + 4 : at + 2 + length]
        at += 2 + length


def is_deep_grey_with_opacity(start: bytes) -> bool:
    """Whether a file that begins so is a PNG of grey and opacity in 16 bits, which Pillow opens as RGBA."""
    return start.startswith(PNG_START) and start[24:26] == b"\x10\x04"


def without_long_texts(content: bytes) -> bytes:
    """A PNG without the texts and profiles that Pillow refuses; `content` itself if there are none."""
    if not content.startswith(PNG_START):
        return content
    total, start, kept = 0, len(PNG_START), [PNG_START]
    for kind, data in png_chunks(content):
        end = start + 12 + len(data)
        size = _text_size(kind, data) if kind in _TEXTS else 0
        if size <= LONGEST_TEXT and total + size <= MOST_TEXT:
            kept.append(content[start:end])
            total += size
        start = end
    lean = b"".join(kept) + content[start:]
    return content if len(lean) == len(content) else lean


def _text_size(kind: bytes, data: bytes) -> int:
    """The bytes of a text or profile when unpacked; `LONGEST_TEXT` + 1 for all that are longer."""
    packed, text = packed_text(kind, data)
    try:
        return len(zlib.decompressobj().decompress(text, LONGEST_TEXT + 1)) if packed else len(text)
    except zlib.error:
        return len(text)


def packed_text(kind: bytes, data: bytes) -> tuple[bool, bytes]:
    """Whether the text or profile in a chunk is compressed, and its bytes."""
    _, _, rest = data.partition(b"\0")
    if kind == b"iTXt":
        return rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    return (False, rest) if kind == b"tEXt" else (True, rest[1:])


def kind_of_jpeg(content: bytes) -> str:
    """The kind of a JPEG that is not read; empty for a usual one, and for bytes that are none."""
    frames = ((marker, data) for marker, data in jpeg_segments(content) if marker in {*_KINDS, *JPEG_FRAMES})
    marker, data = next(frames, (0, b""))
    kind = "hierarchical JPEG" if marker in _HIERARCHICAL else _KINDS.get(marker, "")
    return kind or (f"JPEG of {data[0]} bits" if data and data[0] != 8 else "")


def deep_pixels(content: bytes, image: Image.Image) -> npt.NDArray[np.uint16] | None:
    """The pixels (H, W, C) of an opened file of more than 8 bits in full; None for other files.

    A TIFF is upright, others are as stored. A JPEG 2000 of fewer than 16 bits fills the 16 bits.
    """
    values: Any
    if image.format == "TIFF":
        page = image if isinstance(image, TiffPage) else TiffPage(io.BytesIO(content))
        values = page.pixels()
    elif image.mode == "I;16":
        values = np.asarray(image)
    elif image.format == "PNG" and content[24] > 8:
        values = png_pixels(content)
    elif image.format == "JPEG2000":
        import imagecodecs

        values = imagecodecs.jpeg2k_decode(content)
        values = values << (16 - _jpeg2k_bits(content)) if values.dtype == np.uint16 else values
    else:
        return None
    values = np.asarray(values).astype(values.dtype.newbyteorder("="), copy=False)
    return values.reshape(*values.shape[:2], -1) if values.dtype == np.uint16 else None


def _jpeg2k_bits(content: bytes) -> int:
    """The bits of the first component, from the segment that begins with the marker of the size."""
    return (content[content.index(b"\xff\x4f\xff\x51") + 42] & 0x7F) + 1

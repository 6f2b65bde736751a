"""What Pillow loses of a BMP: its resolution, its opacity and its colour profile."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vaeguard.restoration.formats.scan_page import Pixels

_LONG_HEADER = 108
"""The least bytes of a header that states opacity and colours."""
_MASKS = (0xFF0000, 0xFF00, 0xFF)
"""The bits of red, green and blue in a pixel that begins with the byte of blue."""
_PROFILES = (b"DEBM", b"KNIL")
"""The marks of an embedded and of a linked colour profile."""


def with_pixels(original: bytes, pixels: Pixels, plain: bytes) -> bytes:
    """The file `original` with other pixels, (H, W, 3) or (H, W, 4).

    If its header is short, all that matters besides the pixels is the resolution, which the BMP `plain` then gets.
    """
    start, size, width, height = struct.unpack("<10xIIii", original[:26])
    if size < _LONG_HEADER or not _is_plain(original):
        return plain[:38] + (original[38:46] if size >= 40 else bytes(8)) + plain[46:]
    step = int.from_bytes(original[28:30], "little") // 8
    stride, rows = -(-width * step // 4) * 4, abs(height)
    made = bytearray(original)
    area = np.frombuffer(made, np.uint8, rows * stride, start).reshape(rows, stride)
    places = area[:: -1 if height > 0 else 1, : width * step].reshape(rows, width, step)
    places[..., : pixels.shape[2]] = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return bytes(made)


def profile_of(content: bytes) -> bytes | None:
    """The colour profile of a BMP, or the path of the file with the profile."""
    if int.from_bytes(content[14:18], "little") <= _LONG_HEADER or content[70:74] not in _PROFILES:
        return None
    offset, length = struct.unpack("<II", content[126:134])
    return content[14 + offset : 14 + offset + length]


def _is_plain(content: bytes) -> bool:
    """Whether the pixels are rows of blue, green, red and perhaps opacity, of one byte each."""
    bits, compression = struct.unpack("<HI", content[28:34])
    plain = compression == 0 or (compression == 3 and struct.unpack("<3I", content[54:66]) == _MASKS)
    return plain and bits in (24, 32)

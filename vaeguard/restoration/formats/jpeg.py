"""The segments of a JPEG before its pixels: what kind of JPEG it is, and the metadata that it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

APP0, APP1, APP2, APP13, APP14, COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""The markers of a frame; the others in this range define tables."""
_READ = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
"""The frames that are read: sequential and progressive ones, with Huffman or arithmetic coding."""
_JPEG_LS = 0xF7
_PIXELS = 0xDA


@dataclass(frozen=True)
class Frame:
    """What a JPEG says of its pixels.

    Attributes
    ----------
    bits : int
        Bits of a sample.
    components : bytes
        The identifiers of the components.
    jfif : bool
        Whether the JPEG follows JFIF, whose three components are luminance and colour differences.
    adobe : int or None
        The colour transform that Adobe's segment states, 0 for none; None without such a segment.
    other : str
        The name of a kind of JPEG that is not read; empty for those that are.
    """

    bits: int
    components: bytes
    jfif: bool = False
    adobe: int | None = None
    other: str = ""

    @property
    def reads_as_rgb(self) -> bool:
        """Whether a reader of JPEG files takes three components for red, green and blue."""
        if self.jfif or self.adobe is not None:
            return not self.jfif and self.adobe == 0
        return self.components == b"RGB"


def segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the data of each segment before the pixels."""
    at = 2
    while content[at : at + 1] == b"\xff" and at + 4 <= len(content):
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4])
        if marker == 0xFF:  # a filling byte
            at += 1
            continue
        if marker == _PIXELS:
            return
        yield marker, content[at + 4 : at + 2 + length]
        at += 2 + length


def segment(marker: int, data: bytes) -> bytes:
    """The bytes of a segment."""
    return bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2) + data


def frame_of(content: bytes) -> Frame | None:
    """What a JPEG says of its pixels; None if it is damaged and says nothing."""
    known = list(segments(content))
    frames = [(marker, data) for marker, data in known if (marker in _FRAMES or marker == _JPEG_LS) and len(data) >= 6]
    if not frames:
        return None
    marker, data = frames[0]
    adobe = [data[11] for marker, data in known if marker == APP14 and data.startswith(b"Adobe") and len(data) >= 12]
    return Frame(
        bits=data[0],
        components=data[6 : 6 + 3 * data[5] : 3],
        jfif=any(marker == APP0 and data.startswith(b"JFIF\0") for marker, data in known),
        adobe=adobe[0] if adobe else None,
        other="" if marker in _READ else "a JPEG-LS" if marker == _JPEG_LS else "a lossless or hierarchical JPEG",
    )

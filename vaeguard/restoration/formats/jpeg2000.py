"""The format of JPEG 2000 files: the pixels are written without loss, and all boxes around them are copied."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from PIL import Image

from vaeguard.data.limits import MAX_PIXELS
from vaeguard.errors import UnreadableError
from vaeguard.restoration.formats.scan_format import Rewritten
from vaeguard.restoration.formats.scan_page import METRES_PER_INCH, ORIENTATION, Page, PageFacts, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vaeguard.restoration.formats.scan_format import Coding, Restore
    from vaeguard.restoration.formats.scan_page import Pixels

SRGB, GREY = 16, 17
"""The numbers of the colour spaces that are restored."""
_COLOURS = {12: "CMYK", 14: "CIELAB", 18: "YCbCr", 24: "YCbCr"}
_PROFILES = {b"RGB ": SRGB, b"GRAY": GREY, b"CMYK": 12, b"Lab ": 14}
"""The colour spaces of profiles."""
_START = b"\xff\x4f\xff\x51"
"""The first two markers of a stream of pixels."""
_TILE, _COMMENT = 0xFF90, 0xFF64
_EXIF = b"JpgTiffExif->JP2"
_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


@dataclass(frozen=True)
class Header:
    """What a JPEG 2000 says of its pixels.

    Attributes
    ----------
    size : (int, int)
        Height and width.
    bits : tuple of int
        Bits of each component, negative if its values are signed.
    sampled : bool
        Whether a component has fewer pixels than the picture.
    palette : bool
        Whether the values are indices of a palette.
    colours : int or None
        The number of the colour space, which may be that of the profile, or 0 for any other; None if nothing states it.
    icc : bytes or None
        The profile.
    """

    size: tuple[int, int]
    bits: tuple[int, ...]
    sampled: bool
    palette: bool = False
    colours: int | None = None
    icc: bytes | None = None

    @property
    def other_kind(self) -> str:
        """The kind of a picture that is not restored; empty for others."""
        if self.palette:
            return "indexed"
        if self.colours not in (None, SRGB, GREY):
            return _COLOURS.get(self.colours, "of other colours")
        in_colour = None if self.colours is None else self.colours == SRGB
        if self.sampled or len(self.bits) > 4 or in_colour not in (None, len(self.bits) > 2):
            return "of other colours"
        if min(self.bits, default=0) < 0:
            return "signed"
        return "" if self.bits in ((8,) * len(self.bits), (16,) * len(self.bits)) else f"of {self.bits[0]} bits"


def boxes(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """The kind, the header and the data of each box; joined, headers and data are the content.

    A file that is nothing but a stream of pixels has no boxes.
    """
    at = len(content) if content.startswith(_START) else 0
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        start = at + 16 if length == 1 else at + 8
        end = {0: len(content), 1: at + int.from_bytes(content[at + 8 : start])}.get(length, at + length)
        if not start <= end <= len(content):
            raise ValueError(f"its box {kind.decode('latin-1')!r} is longer than the file")
        yield kind, content[at:start], content[start:end]
        at = end


def codestream_of(content: bytes) -> bytes:
    """The stream of pixels in a file, which may be nothing but that stream."""
    if content.startswith(_START):
        return content
    streams = [data for kind, _, data in boxes(content) if kind == b"jp2c"]
    if len(streams) != 1:
        raise ValueError(f"it has {len(streams)} streams of pixels")
    return streams[0]


def with_codestream(original: bytes, stream: bytes) -> bytes:
    """The file `original` with another stream of pixels; the comments in the stream are those of `original`."""
    comments = b"".join(data for marker, data in _segments(codestream_of(original)) if marker == _COMMENT)
    others = [data for marker, data in _segments(stream) if marker != _COMMENT]
    head = sum(len(data) for _, data in _segments(stream))
    size, rest = others[0], b"".join(others[1:])
    new = stream[:2] + size + comments + rest + stream[2 + head :]
    if original.startswith(_START):
        return new
    return b"".join(
        struct.pack(">I4s", 8 + len(new), kind) + new if kind == b"jp2c" else head + data
        for kind, head, data in boxes(original)
    )


def header_of(content: bytes) -> Header:
    """Read what a file says of its pixels.

    Raises
    ------
    ValueError
        The file is damaged.
    """
    stream = codestream_of(content)
    if not stream.startswith(_START) or len(stream) < 44:
        raise ValueError("it has no stream of pixels")
    right, lower, left, upper = struct.unpack(">4I", stream[8:24])
    (number,) = struct.unpack(">H", stream[40:42])
    components = [tuple(stream[42 + 3 * index : 45 + 3 * index]) for index in range(number)]
    inner = _inner_boxes(content)
    colours, icc = _colours(inner.get(b"colr", b""))
    return Header(
        size=(lower - upper, right - left),
        bits=tuple((depth & 127) + 1 if depth < 128 else -((depth & 127) + 1) for depth, _, _ in components),
        sampled=any((across, down) != (1, 1) for _, across, down in components),
        palette=b"pclr" in inner,
        colours=colours if _is_in_order(inner.get(b"cdef", b"")) else 0,
        icc=icc,
    )


def _colours(box: bytes) -> tuple[int | None, bytes | None]:
    """The number of the colour space and the profile that a box of colours states; None for an empty box."""
    method, profile = box[:1], box[3:]
    if not box:
        return None, None
    if method == b"\1":
        return int.from_bytes(profile[:4]), None
    if method in (b"\2", b"\3"):
        return _PROFILES.get(profile[16:20], 0), profile
    return 0, None


def _is_in_order(definitions: bytes) -> bool:
    """Whether the channels are those of the colour space in its order, and perhaps opacity behind them."""
    entries = [struct.unpack(">3H", definitions[at : at + 6]) for at in range(2, len(definitions) - 5, 6)]
    return all(kind or meaning in (0, channel + 1) for channel, kind, meaning in entries) and not any(
        kind and channel + 1 < len(entries) for channel, kind, _ in entries
    )


def encoded(pixels: Pixels) -> bytes:
    """Encode pixels without loss, as a stream without boxes."""
    return bytes(imagecodecs.jpeg2k_encode(np.ascontiguousarray(pixels), level=0, codecformat="j2k", reversible=True))


def pages(content: bytes, name: str) -> Iterator[Page]:
    """Read the only page."""
    with reading(name):
        _checked(content, name)
        yield _page(content)


def sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """Read the height and width of the only page."""
    with reading(name):
        return [_checked(content, name).size]


def facts(content: bytes, name: str) -> list[PageFacts]:
    """Read the metadata of the only page: every box but that of the pixels, and the comments among the pixels."""
    with reading(name):
        header, dpi = _checked(content, name), _dpi(content)
        kept = [box for box in boxes(content) if box[0] != b"jp2c"]
        kept += [(b"comment", b"", data) for marker, data in _segments(codestream_of(content)) if marker == _COMMENT]
        return [
            PageFacts(
                size=header.size,
                channels=len(header.bits),
                bits=header.bits[0],
                dpi=dpi and (round(dpi[0]), round(dpi[1])),
                icc=header.icc,
                exif=tuple((kind, hashlib.sha256(data).hexdigest()) for kind, _, data in kept),
                xmp=_user_box(content, _XMP) or None,
            )
        ]


def rewrite(content: bytes, name: str, target: Path, restore: Restore, _coding: Coding) -> Rewritten:
    """Rewrite the only page without loss."""
    with reading(name):
        _checked(content, name)
        page = _page(content)
    target.write_bytes(with_codestream(content, encoded(restore(page))))
    return Rewritten()


def _checked(content: bytes, name: str) -> Header:
    """The header of a file that is whole and whose kind is restored."""
    header = header_of(content)
    height, width = header.size
    if height * width > MAX_PIXELS:
        raise UnreadableError(
            name, f"it has {width} x {height} pixels, more than the limit of {MAX_PIXELS // 10**6} million; shrink it"
        )
    if kind := header.other_kind:
        raise UnreadableError(name, f"its pixels are {kind}; convert it to grey or RGB of 8 or 16 bits")
    return header


def _page(content: bytes) -> Page:
    pixels: Any = imagecodecs.jpeg2k_decode(codestream_of(content))
    dpi = _dpi(content)
    exif = Image.Exif()
    exif.load(_user_box(content, _EXIF))
    turn = exif.get(ORIENTATION, 1)
    return Page(1, pixels, dpi[0] if dpi else None, turn if isinstance(turn, int) else 1)


def _inner_boxes(content: bytes) -> dict[bytes, bytes]:
    """The first box of each kind in the header of a file."""
    inner: dict[bytes, bytes] = {}
    for kind, _, data in boxes(content):
        if kind == b"jp2h":
            for own, _, more in boxes(data):
                inner.setdefault(own, more)
    return inner


def _user_box(content: bytes, identifier: bytes) -> bytes:
    """The data of the box that other standards define by an identifier; empty if there is none."""
    found = (data[16:] for kind, _, data in boxes(content) if kind == b"uuid" and data.startswith(identifier))
    return next(found, b"")


def _dpi(content: bytes) -> tuple[float, float] | None:
    """Pixels per inch, across and down: those of the scan, or else those for display."""
    stated = dict.fromkeys((b"resc", b"resd"), b"")
    stated |= {kind: data for kind, _, data in boxes(_inner_boxes(content).get(b"res ", b""))}
    data = stated[b"resc"] or stated[b"resd"]
    if len(data) < 10:
        return None
    down, per_down, across, per_across, power_down, power_across = struct.unpack(">4Hbb", data[:10])
    if not (down and per_down and across and per_across):
        return None
    return (
        across / per_across * 10.0**power_across * METRES_PER_INCH,
        down / per_down * 10.0**power_down * METRES_PER_INCH,
    )


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the bytes, marker included, of each segment before the first tile."""
    at = 2
    while at + 4 <= len(stream):
        marker, length = struct.unpack(">HH", stream[at : at + 4])
        if marker == _TILE:
            return
        yield marker, stream[at : at + 2 + length]
        at += 2 + length

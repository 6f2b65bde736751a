"""The segments of a JPEG before its pixels: what it says of its colours, and its metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaeguard.data.encodings import JPEG_FRAMES, jpeg_segments
from vaeguard.restoration.formats.xmp import joined

if TYPE_CHECKING:
    from collections.abc import Iterable

APP0, APP1, APP2, APP13, APP14, COMMENT = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE
_EXIF = b"Exif\0\0"
_ICC = b"ICC_PROFILE\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
"""The start of a segment that holds a part of the XMP that is too long for one segment."""
_NAMED = re.compile(rb"""\s*\bxmpNote:HasExtendedXMP\s*=\s*["'](\w{32})["']|<xmpNote:HasExtendedXMP>(\w{32})</[^>]*>""")
"""The place where the XMP names the digest of its extension."""
_PHOTOSHOP = b"Photoshop 3.0\0"
"""The start of a segment that contains IPTC captions."""


@dataclass(frozen=True)
class Frame:
    """What a JPEG says of its colours.

    Attributes
    ----------
    components : bytes
        The identifiers of the components.
    jfif : bool
        Whether the JPEG follows JFIF, whose three components are luminance and colour differences.
    adobe : int or None
        The colour transform that Adobe's segment states, 0 for none; None without such a segment.
    """

    components: bytes
    jfif: bool = False
    adobe: int | None = None

    @property
    def reads_as_rgb(self) -> bool:
        """Whether a reader of JPEG files takes three components for red, green and blue."""
        return not self.jfif and (self.components == b"RGB" if self.adobe is None else self.adobe == 0)


def segment(marker: int, data: bytes) -> bytes:
    """The bytes of a segment."""
    return bytes([0xFF, marker]) + (len(data) + 2).to_bytes(2) + data


def frame_of(content: bytes) -> Frame | None:
    """What a JPEG says of its colours; None if it is damaged and says nothing."""
    known = list(jpeg_segments(content))
    frame = next((data for marker, data in known if marker in JPEG_FRAMES and len(data) >= 6), None)
    if frame is None:
        return None
    adobe = [data[11] for marker, data in known if marker == APP14 and data.startswith(b"Adobe") and len(data) >= 12]
    return Frame(
        components=frame[6 : 6 + 3 * frame[5] : 3],
        jfif=any(marker == APP0 and data.startswith(b"JFIF\0") for marker, data in known),
        adobe=adobe[0] if adobe else None,
    )


def comments_of(content: bytes) -> list[bytes]:
    """The comments of a JPEG."""
    return [data for marker, data in jpeg_segments(content) if marker == COMMENT]


def iptc_of(content: bytes) -> bytes:
    """The Photoshop resources of a JPEG, one of which contains the caption and keywords of IPTC."""
    stated = [data for marker, data in jpeg_segments(content) if marker == APP13 and data.startswith(_PHOTOSHOP)]
    return b"".join(data.removeprefix(_PHOTOSHOP) for data in stated)


def xmp_of(content: bytes) -> bytes | None:
    """The XMP of a JPEG, joined with its extension.

    Raises
    ------
    ValueError
        A part of the extension is missing.
    """
    stated = [data for marker, data in jpeg_segments(content) if marker == APP1]
    main = next((data.removeprefix(_XMP) for data in stated if data.startswith(_XMP)), None)
    extensions = _extensions(data.removeprefix(_MORE_XMP) for data in stated if data.startswith(_MORE_XMP))
    named = [digest for found in _NAMED.findall(main or b"") for digest in found if digest] or list(extensions)
    for length, extension in (extensions[digest] for digest in named if digest in extensions):
        if len(extension) != length:
            raise ValueError("a part of its XMP is missing")
        main = joined(_NAMED.sub(b"", main or b""), extension)
    return main


def _extensions(parts: Iterable[bytes]) -> dict[bytes, tuple[int, bytes]]:
    """Join the parts of extensions of XMP: the stated length and the bytes of each, by its digest."""
    lengths: dict[bytes, int] = {}
    by_offset: dict[bytes, dict[int, bytes]] = {}
    for part in parts:
        digest = part[:32]
        lengths[digest] = int.from_bytes(part[32:36])
        by_offset.setdefault(digest, {})[int.from_bytes(part[36:40])] = part[40:]
    return {digest: (lengths[digest], b"".join(own[at] for at in sorted(own))) for digest, own in by_offset.items()}


def has_profile(content: bytes) -> bool:
    """Whether a JPEG has a part of a colour profile."""
    return any(marker == APP2 and data.startswith(_ICC) for marker, data in jpeg_segments(content))


def has_split_exif(content: bytes) -> bool:
    """Whether the EXIF of a JPEG is too long for one segment, so that Pillow cannot write it."""
    return sum(marker == APP1 and data.startswith(_EXIF) for marker, data in jpeg_segments(content)) > 1


def with_segments(plain: bytes, original: bytes) -> bytes:
    """Copy density, captions, comments and the extension of the XMP into a JPEG, behind its first segments."""
    end = 2
    while plain[end : end + 2] in (b"\xff\xe0", b"\xff\xe1", b"\xff\xe2"):
        end += 2 + int.from_bytes(plain[end + 2 : end + 4])
    known = list(jpeg_segments(original))
    density = next((data[7:12] for marker, data in known if marker == APP0 and data.startswith(b"JFIF\0")), None)
    if density and plain[6:10] == b"JFIF":  # Pillow would write plausible densities per inch only
        plain = plain[:13] + density + plain[18:]
    starts = (_MORE_XMP, _EXIF) if has_split_exif(original) else (_MORE_XMP,)
    copied = [
        segment(marker, data)
        for marker, data in known
        if marker in (APP13, COMMENT) or (marker == APP1 and data.startswith(starts))
    ]
    return plain[:end] + b"".join(copied) + plain[end:]

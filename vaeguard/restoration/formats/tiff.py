"""The format of TIFF files of one or many pages, which keep their tags."""

from __future__ import annotations

import contextlib
import io
import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from vaeguard.data.limits import MAX_PIXELS
from vaeguard.data.tiffs import check_whole, refusal_of
from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.restoration.formats.scan_format import Rewritten
from vaeguard.restoration.formats.scan_page import ORIENTATION, Page, PageFacts, reading
from vaeguard.restoration.formats.tiff_directories import EXIF, GPS, amend, inner_tags, resolution_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vaeguard.restoration.formats.scan_format import Coding, Restore

_LAYOUT_TAGS = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 282, 283, 284, 292, 293, 296, 317, 320, 322, 323),
    *(324, 325, 330, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
}
"""Tags that describe the layout of the pixels in the file, which the writer sets."""
_SUB_DIRECTORIES = 330
_XMP = 700
_ICC = 34675
_RESOLUTION_UNIT = 296
_LOSSLESS = {1: None, 5: "lzw", 8: "zlib", 32773: "packbits", 32946: "zlib", 34925: "lzma", 50000: "zstd"}
"""Compressions that are kept; the others are lossy or cannot be written, and become deflate."""
_JPEG_2000 = (33003, 33004, 33005, 34712)
"""Kinds of JPEG 2000, which stay JPEG 2000, without loss."""
_ASCII = 2
_NO_UNIT = 1
_INCH = 2
_CENTIMETRE = 3


def rewrite(content: bytes, name: str, target: Path, restore: Restore, _coding: Coding) -> Rewritten:
    """Rewrite every page; each keeps its compression if that loses nothing, and becomes deflate otherwise."""
    with reading(name):
        tiff = tifffile.TiffFile(io.BytesIO(content))
        originals = _all_pages(tiff)
        inner = inner_tags(content, originals)
    with tiff, tifffile.TiffWriter(target, byteorder=tiff.byteorder, bigtiff=tiff.is_bigtiff) as writer:
        for page, original in _pages(tiff, name):
            restored = _with_white_as_maximum(restore(page), original)
            with _refusing_lost_tags(name):
                _write(writer, restored, original)
        writer.close()
        with _refusing_lost_tags(name):
            amend(target, [resolution_of(page) for page in originals], inner)
    return Rewritten()


def pages(content: bytes, name: str) -> Iterator[Page]:
    """Read the pages, with white as the largest value."""
    with reading(name):
        tiff = tifffile.TiffFile(io.BytesIO(content))
    with tiff:
        for page, _ in _pages(tiff, name):
            yield page


def facts(content: bytes, name: str) -> list[PageFacts]:
    """Read the metadata of each page."""
    with reading(name), tifffile.TiffFile(io.BytesIO(content)) as tiff:
        originals = _all_pages(tiff)
        return [_facts(page, inner) for page, inner in zip(originals, inner_tags(content, originals), strict=True)]


def sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """Read the height and width of each page; refuse pages that cannot be restored."""
    with reading(name), tifffile.TiffFile(io.BytesIO(content)) as tiff:
        originals = _all_pages(tiff)
        for page in originals:
            _check_kind(page, name)
        return [(page.imagelength, page.imagewidth) for page in originals]


def _all_pages(tiff: tifffile.TiffFile) -> list[Any]:
    """All pages; the chain of pages is checked, since tifffile silently returns the pages before a break."""
    originals = list(tiff.pages)
    if not originals:
        raise ValueError("it has no pages")
    layout, handle, last = tiff.tiff, tiff.filehandle, originals[-1].offset
    handle.seek(last)
    (count,) = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))
    handle.seek(last + layout.tagnosize + count * layout.tagsize)
    if any(handle.read(layout.offsetsize)):
        raise ValueError(f"its list of pages breaks off after page {len(originals)}")
    return originals


def _pages(tiff: tifffile.TiffFile, name: str) -> Iterator[tuple[Page, Any]]:
    with reading(name):
        originals = _all_pages(tiff)
    for number, original in enumerate(originals, 1):
        with reading(name):
            pixels = _with_white_as_maximum(_read(original, name), original)
            turn = original.tags.valueof(ORIENTATION, default=1)
            page = Page(number, pixels, _dpi(original), int(turn) if isinstance(turn, int) else 1)
        yield page, original


def _facts(page: Any, inner: dict[int, dict[int, Any]]) -> PageFacts:
    tags = [(tag.code, str(tag.value)) for tag in page.tags if tag.code not in (*_LAYOUT_TAGS, EXIF, GPS, _XMP, _ICC)]
    for pointer, values in inner.items():
        tags += [((pointer, code), str(value)) for code, value in values.items()]
    resolution = _resolution(page)
    return PageFacts(
        size=(page.imagelength, page.imagewidth),
        channels=_channels(page),
        bits=8 if _is_palette(page) else page.bitspersample,
        dpi=(round(resolution[0]), round(resolution[1])) if resolution else None,
        icc=page.tags.valueof(_ICC),
        exif=tuple(sorted(tags, key=str)),
        xmp=page.tags.valueof(_XMP),
    )


def _channels(page: Any) -> int:
    return 3 if _is_palette(page) else int(page.samplesperpixel)


def _is_palette(page: Any) -> bool:
    return bool(page.photometric == tifffile.PHOTOMETRIC.PALETTE)


def _check_kind(page: Any, name: str) -> None:
    """Refuse a page of a kind that is not restored, by its tags alone."""
    if reason := refusal_of(page):
        raise UnreadableError(name, reason)
    if page.bitspersample not in (1, 8, 16) and not _is_palette(page):
        raise UnreadableError(name, f"its pixels have {page.bitspersample} bits; convert it to 8 or 16 bit")
    if _SUB_DIRECTORIES in page.tags:
        raise UnreadableError(name, "its pages contain other pictures (SubIFDs); save it without them")
    if page.imagewidth * page.imagelength > MAX_PIXELS:
        raise UnreadableError(name, f"a page has more than {MAX_PIXELS // 10**6} million pixels; shrink that page")
    if _channels(page) > 4:
        raise UnreadableError(name, f"a page has {_channels(page)} channels; save it with 1 to 4")


def _read(page: Any, name: str) -> Any:
    """The pixels of a page as grey or RGB, with or without opacity; bool for one bit."""
    _check_kind(page, name)
    check_whole(page)
    pixels = page.asarray()
    if _is_palette(page):
        return np.ascontiguousarray(
            (page.colormap[:, pixels.astype(np.uint8)] >> 8).astype(np.uint8).transpose(1, 2, 0)
        )
    if page.bitspersample == 1:
        return pixels.astype(np.bool_)
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def _with_white_as_maximum(pixels: Any, page: Any) -> Any:
    """Invert pixels if white is 0 in the file; other pixels are returned as the same array."""
    if page.photometric != tifffile.PHOTOMETRIC.MINISWHITE:
        return pixels
    return ~pixels  # of bits as of unsigned integers


@contextlib.contextmanager
def _refusing_lost_tags(name: str) -> Iterator[None]:
    """Refuse a file whose tags cannot be written."""
    try:
        yield
    except (ValueError, TypeError, LookupError, struct.error) as error:
        raise RefusedError(f"the tags of {name!r} cannot be kept ({error}); save the file again") from error


def _text(page: Any, tag: Any) -> bytes:
    """The bytes of a text, whose encoding is unknown."""
    handle = page.parent.filehandle
    handle.seek(tag.valueoffset)
    text: bytes = handle.read(tag.count)
    return text


def _extra_tags(page: Any) -> list[tuple[Any, ...]]:
    """The tags of a page that do not follow from its pixels, as tifffile takes them."""
    return [
        (tag.code, tag.dtype, tag.count, _text(page, tag) if tag.dtype == _ASCII else tag.value, False)
        for tag in page.tags
        if tag.code not in (*_LAYOUT_TAGS, EXIF, GPS)
    ]


def _write(writer: Any, pixels: Any, page: Any) -> None:
    colour = pixels.ndim == 3 and pixels.shape[2] >= 3
    white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    writer.write(
        pixels,
        photometric="rgb" if colour else "miniswhite" if white_is_zero else "minisblack",
        planarconfig="contig" if colour else None,
        extrasamples=[int(value) for value in page.extrasamples] or None,
        subfiletype=int(page.subfiletype),
        extratags=_extra_tags(page),
        metadata=None,
        software=False,
        **_compression(page, pixels),
        **_written_resolution(page),
    )


def _compression(page: Any, pixels: Any) -> dict[str, Any]:
    """The lossless compression of a page, as options of tifffile."""
    bilevel, bytes_of_row = pixels.dtype == np.bool_, max(1, pixels[0].nbytes)
    if page.compression in _JPEG_2000 and not bilevel:
        options, rows = {"level": 0, "reversible": True}, max(1, 2**24 // bytes_of_row)
        return {"compression": "jpeg2000", "compressionargs": options, "predictor": False, "rowsperstrip": rows}
    kind = _LOSSLESS.get(int(page.compression), "zlib")
    predictor = bool(page.predictor == 2 and kind in ("lzw", "zlib") and not bilevel)
    return {"compression": kind, "predictor": predictor, "rowsperstrip": max(1, 2**18 // bytes_of_row)}


def _written_resolution(page: Any) -> dict[str, Any]:
    """The resolution of a page, as options of tifffile."""
    resolution, unit = _resolution_tags(page), page.tags.valueof(_RESOLUTION_UNIT, default=_INCH)
    if not all(numerator for numerator, _ in resolution):
        return {"resolution": None, "resolutionunit": _NO_UNIT}
    return {"resolution": resolution, "resolutionunit": unit if unit in (_INCH, _CENTIMETRE) else _NO_UNIT}


def _resolution(page: Any) -> tuple[float, float] | None:
    """Pixels per inch, across and down; None if the file does not state them."""
    across, down = (numerator / denominator for numerator, denominator in _resolution_tags(page))
    unit = page.tags.valueof(_RESOLUTION_UNIT, default=_INCH)
    if unit not in (_INCH, _CENTIMETRE) or not across or not down:
        return None
    per_inch = 2.54 if unit == _CENTIMETRE else 1
    return across * per_inch, down * per_inch


def _resolution_tags(page: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    return _ratio(page.tags.valueof(282)), _ratio(page.tags.valueof(283))


def _ratio(value: Any) -> tuple[int, int]:
    """A resolution as a fraction, from the fraction or number in the file; 0 if the file has neither."""
    numbers = value if isinstance(value, tuple) else (value,)
    if len(numbers) == 1 and isinstance(numbers[0], int | float) and math.isfinite(numbers[0]):
        return Fraction(numbers[0]).limit_denominator(10**6).as_integer_ratio()
    return numbers if len(numbers) == 2 and numbers[1] else (0, 1)


def _dpi(page: Any) -> float | None:
    resolution = _resolution(page)
    return resolution[0] if resolution and 10 < resolution[0] < 100_000 else None

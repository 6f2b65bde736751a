"""Scanned PDF files: the pictures inside are replaced, everything else stays."""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pikepdf
from pikepdf import Name

from vaeguard.data.images import MAX_PIXELS
from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.restoration.formats.pdf_codecs import decoded, replace, source_of
from vaeguard.restoration.formats.pdf_places import Place, places_of, stacked
from vaeguard.restoration.formats.scan_page import Page, Rewritten, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vaeguard.restoration.formats.pdf_codecs import Coding
    from vaeguard.restoration.formats.scan_page import Pixels

LEAST_SIDE = 64
"""Pictures with fewer pixels a side are ornaments."""
POINTS_PER_INCH = 72
_SPACES = ("/DeviceGray", "/DeviceRGB", "/CalGray", "/CalRGB", "/ICCBased")
_OTHER_SPACES = {"/DeviceCMYK": "CMYK", "/ICCBased": "CMYK", "/Indexed": "indexed", "/Lab": "CIELAB"}
_BILEVEL = ("/CCITTFaxDecode", "/JBIG2Decode")
_OF_8_BITS = ("/DCTDecode", "/JPXDecode")
"""Codecs that know their depth themselves; mostly it is this."""


def rewrite_pdf(
    content: bytes,
    name: str,
    target: Path,
    restore: Callable[[Page], Pixels],
    coding: Coding,
    written: Callable[[Pixels], None],
) -> Rewritten:
    """Replace the pictures of 8 bits, grey or RGB, in a PDF; see `scans.rewrite`.

    Streams of other pictures, and of those that do not change, stay byte for byte. `written` gets the pixels of each
    page as they are decoded from what was written.
    """
    result = Rewritten()
    with _opened(content, name) as pdf:
        with reading(name):
            left = _all_left(pdf)
        for page, strips in _pages(pdf, name):
            for picture in strips:
                left.pop(picture.objgen, None)
            pixels = restore(page)
            if pixels is not page.pixels and not np.array_equal(pixels, page.pixels):
                pixels, result.codecs[page.number] = _replaced(page, strips, pixels, coding)
            written(pixels)
        result.left = [*left.values(), *_inline(pdf)]
        pages = len(pdf.pages)
        # Streams are copied as they are, but in a file of packed objects, where all that is not packed would be packed.
        pdf.save(
            target,
            deterministic_id=True,
            fix_metadata_version=False,
            compress_streams=Name.Type in pdf.trailer,
            stream_decode_level=pikepdf.StreamDecodeLevel.none,
            linearize=pdf.is_linearized,
        )
    with pikepdf.open(target) as again:
        if len(again.pages) != pages:
            raise RefusedError(f"pages of {name!r} would be lost; report this")
    return result


def _replaced(page: Page, strips: list[Any], restored: Pixels, coding: Coding) -> tuple[Pixels, str]:
    """Write a page into its strips as nearly as `coding` demands; its pixels as they are decoded, and the codec."""
    ends = np.cumsum([int(picture.Height) for picture in strips])[:-1]
    before: list[Any] = np.split(page.pixels, ends)
    after: Any = np.split(restored, ends)
    # A strip that does not change keeps its stream.
    changed = [
        (strip, new, source_of(strip))
        for strip, old, new in zip(strips, before, after, strict=True)
        if not np.array_equal(old, new)
    ]
    for finer in coding.steps:
        try:
            codecs = {replace(strip, new, source, coding, finer) for strip, new, source in changed}
        except OSError:  # the codec cannot hold it, such as noise in a JPEG of the highest quality
            continue
        seen = _joined(strips)
        if finer == 0 or coding.accepts(page, restored, seen):
            break
    return seen, ", ".join(sorted(codecs))


def _all_left(pdf: pikepdf.Pdf) -> dict[tuple[int, int], tuple[int, str]]:
    """The first page of each picture, and why the picture stays as it is unless its page is restored."""
    left: dict[tuple[int, int], tuple[int, str]] = {}
    for number, page in enumerate(pdf.pages, 1):
        for picture in _pictures(page).values():
            small = "" if _large([picture]) else "small"
            left.setdefault(picture.objgen, (number, _unfit(picture) or small or "of another shape than the PDF says"))
    return left


def _inline(pdf: pikepdf.Pdf) -> Iterator[tuple[int, str]]:
    """Page and kind of pictures that are not objects of their own, but lie amid the drawing of a page."""
    for number, page in enumerate(pdf.pages, 1):
        try:
            steps = pikepdf.parse_content_stream(page, "BI ID EI")
            sizes = [(step.iimage.height, step.iimage.width) for step in steps if hasattr(step, "iimage")]
        except (pikepdf.PdfError, pikepdf.PdfParsingError, AttributeError, LookupError, TypeError, ValueError):
            continue
        for size in sizes:
            yield number, "inline" if min(size) >= LEAST_SIDE else "small"


def pdf_pages(content: bytes, name: str) -> Iterator[Page]:
    """The pictures that are restored."""
    with _opened(content, name) as pdf:
        for page, _ in _pages(pdf, name):
            yield page


def pdf_sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """Height and width of each picture that is restored."""
    with _opened(content, name) as pdf, reading(name):
        return [_size(drawn.strips) for drawn in _all_drawn(pdf, name)]


def _opened(content: bytes, name: str) -> pikepdf.Pdf:
    try:
        with reading(name):
            pdf = pikepdf.open(io.BytesIO(content))
    except UnreadableError as error:
        if isinstance(error.__cause__, pikepdf.PasswordError):
            raise UnreadableError(name, "it is locked with a password; unlock it first") from error
        raise
    if pdf.is_encrypted:
        raise UnreadableError(name, "it is protected, which a new file would not be; remove the protection first")
    if pdf.get_warnings():  # the reader guesses then, and pages that it does not find would be lost
        raise UnreadableError(name, "it is damaged or cut short; copy the file again, or mend it, such as with qpdf")
    form: Any = pdf.Root.get(Name.AcroForm)
    if form is not None and int(form.get(Name.SigFlags, 0)) & 1:
        raise UnreadableError(name, "it is signed, and the signature would not hold; remove the signature first")
    return pdf


@dataclass(frozen=True)
class _Drawn:
    """A picture that is restored, and where it is drawn.

    Attributes
    ----------
    strips : list
        The picture; of a page that the scanner cut into strips all of them, from the top.
    width : float
        In inches.
    number : int
        Of its page, from 1.
    orientation : int
        How it is to be turned to be seen upright, as in EXIF.
    """

    strips: list[Any]
    width: float
    number: int
    orientation: int


def _pages(pdf: pikepdf.Pdf, name: str) -> Iterator[tuple[Page, list[Any]]]:
    """What is restored, and the strips it is made of; pictures that decode to another shape are left out."""
    with reading(name):
        found = list(_all_drawn(pdf, name))
    # With one picture a page, as scanners write them, the numbers are those of the pages.
    pages = [drawn.number for drawn in found]
    numbers = pages if len(set(pages)) == len(pages) else range(1, len(pages) + 1)
    for number, drawn in zip(numbers, found, strict=True):
        with reading(name):
            strips = [decoded(picture) for picture in drawn.strips]
        if len({each.shape[2:] for each in strips}) == 1 and all(map(_fits, strips, drawn.strips)):
            pixels: Pixels = strips[0] if len(strips) == 1 else np.concatenate(strips)  # type: ignore[assignment]
            dpi = pixels.shape[1] / drawn.width if drawn.width > 0 else None
            yield Page(number, pixels, dpi, drawn.orientation), drawn.strips


def _joined(strips: list[Any]) -> Pixels:
    pixels: Pixels = np.concatenate([decoded(picture) for picture in strips])
    return pixels


def _fits(pixels: Pixels, picture: Any) -> bool:
    _, channels = _space(picture)
    return pixels.dtype == np.uint8 and pixels.shape == (*_size([picture]), *([3] if channels == 3 else []))


def _all_drawn(pdf: pikepdf.Pdf, name: str) -> Iterator[_Drawn]:
    """Pictures of 8 bits in a plain grey or RGB space, each once, in the order of the pages."""
    uses = Counter(picture.objgen for page in pdf.pages for picture in _pictures(page).values())
    seen = set()
    for number, page in enumerate(pdf.pages, 1):
        unit = float(page.get(Name.UserUnit, 1)) / POINTS_PER_INCH
        turn = int(page.get(Name.Rotate, 0))
        page_width = abs(float(page.mediabox[2]) - float(page.mediabox[0]))
        places = places_of(page)
        new = {key: each for key, each in _pictures(page).items() if each.objgen not in seen}
        pictures = {key: each for key, each in new.items() if not _unfit(each)}
        seen |= {picture.objgen for picture in pictures.values()}
        once = {
            key: places[key]
            for key, each in pictures.items()
            if key in places and places[key].upright and uses[each.objgen] == 1
        }
        for keys in [*stacked(once, pictures), *([key] for key in pictures if key not in once)]:
            strips = [pictures[key] for key in keys]
            if math.prod(_size(strips)) > MAX_PIXELS:
                raise UnreadableError(name, f"a picture in it has more than {MAX_PIXELS // 10**6} million pixels")
            if _large(strips):
                place = places.get(keys[0], Place(page_width, 0, 0, page_width, 0, 0))
                yield _Drawn(strips, place.width * unit, number, place.orientation(turn))


def _pictures(page: pikepdf.Page) -> dict[str, Any]:
    """The pictures of a page by name; those of forms on it, which may have the same names, after that of the form."""
    found: dict[str, Any] = {}
    forms: set[tuple[int, int]] = set()

    def look(resources: Any, before: str) -> None:
        for key, each in resources.get(Name.XObject, {}).items():
            kind = each.get(Name.Subtype)
            if kind == Name.Image:
                found[before + key] = each
            elif kind == Name.Form and each.objgen not in forms:
                forms.add(each.objgen)
                look(each.get(Name.Resources, {}), before + key)

    look(page.resources, "")
    return found


def _unfit(picture: Any) -> str:
    """Of a picture that must stay as it is its kind, in a word or a few; empty where it is restored."""
    if "/ImageMask" in picture and bool(picture.ImageMask):
        return "a mask"
    bits = int(picture.get(Name.BitsPerComponent, 8 if _codec(picture) in _OF_8_BITS else 0))
    if _codec(picture) in _BILEVEL or bits == 1:
        return "bilevel"
    return _unfit_colours(picture) or (f"of {bits} bits" if bits != 8 else "")


def _unfit_colours(picture: Any) -> str:
    """The same of a picture whose values mean something else than grey, or red, green and blue, as they are."""
    kind, channels = _space(picture)
    decode = [float(value) for value in picture.get(Name.Decode, [])]
    if not kind:
        return "without a colour space"
    if kind not in _SPACES or channels not in (1, 3):
        return _OTHER_SPACES.get(kind, "of other colours")
    if decode != [0.0, 1.0] * (len(decode) // 2):
        return "inverted by /Decode"
    if isinstance(picture.get(Name.Mask), pikepdf.Array):
        return "masked by colour"
    if int(picture.get(Name.SMaskInData, 0)) > 0 or (Name.SMask in picture and Name.Matte in picture.SMask):
        return "mixed with its opacity"
    return ""


def _space(picture: Any) -> tuple[str, int]:
    """The kind of a picture's colour space, empty if it has none, and the channels of those that are restored."""
    space = picture.get(Name.ColorSpace)
    kind = "" if space is None else str(space[0] if isinstance(space, pikepdf.Array) and len(space) else space)
    return kind, int(space[1].N) if kind == "/ICCBased" else 3 if kind.endswith("RGB") else 1


def _large(strips: list[Any]) -> bool:
    return min(_size(strips)) >= LEAST_SIDE


def _size(strips: list[Any]) -> tuple[int, int]:
    """Height and width of strips together."""
    return sum(int(each.get(Name.Height, 0)) for each in strips), int(strips[0].get(Name.Width, 0))


def _codec(picture: Any) -> str:
    """What its pixels are coded by, below what the whole stream is packed by."""
    filters = picture.get(Name.Filter)
    if isinstance(filters, pikepdf.Array):
        return str(filters[-1]) if len(filters) else ""
    return str(filters)

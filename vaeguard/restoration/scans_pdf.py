"""Scanned PDF files: the pictures inside are replaced, everything else stays."""

from __future__ import annotations

import io
import math
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pikepdf
from pikepdf import Name
from PIL import Image

from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.reading.images import MAX_PIXELS
from vaeguard.restoration.scan_page import Page, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vaeguard.restoration.scan_page import Pixels

LEAST_SIDE = 64
"""Pictures with fewer pixels a side are ornaments."""
POINTS_PER_INCH = 72
UPRIGHT = 1e-3
"""Pictures that are turned by less count as upright."""
_TURNED = {90: 6, 180: 3, 270: 8}
"""Degrees clockwise of a page as the orientation of EXIF."""
_SPACES = ("/DeviceGray", "/DeviceRGB", "/CalGray", "/CalRGB", "/ICCBased")


def rewrite_pdf(
    content: bytes, name: str, target: Path, restore: Callable[[Page], Pixels], jpeg: int | None = None
) -> int:
    """Replace the pictures of 8 bits, grey or RGB, in a PDF; see `scans.rewrite`. How many others stay as they are."""
    with _opened(content, name) as pdf:
        with reading(name):
            kept = {picture.objgen for page in pdf.pages for picture in _pictures(page).values() if _large([picture])}
        for page, strips in _pages(pdf, name):
            kept -= {picture.objgen for picture in strips}
            restored = restore(page)
            if restored is not page.pixels:
                done = 0
                for picture in strips:
                    end = done + int(picture.Height)
                    _replace(picture, restored[done:end], jpeg)
                    done = end
        pages = len(pdf.pages)
        pdf.save(target, deterministic_id=True)
    with pikepdf.open(target) as again:
        if len(again.pages) != pages:
            raise RefusedError(f"pages of {name!r} would be lost; report this")
    return len(kept)


def _replace(picture: Any, pixels: Pixels, jpeg: int | None) -> None:
    was_jpeg = _last_filter(picture) == Name.DCTDecode
    if Name.DecodeParms in picture:
        del picture[Name.DecodeParms]
    if jpeg and was_jpeg:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="JPEG", quality=jpeg, subsampling=0)
        picture.write(file.getvalue(), filter=Name.DCTDecode)
    else:
        picture.write(zlib.compress(pixels.tobytes(), 6), filter=Name.FlateDecode)


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
        In points.
    number : int
        Of its page, from 1.
    turn : int
        Of its page, degrees clockwise.
    """

    strips: list[Any]
    width: float
    number: int
    turn: int


def _pages(pdf: pikepdf.Pdf, name: str) -> Iterator[tuple[Page, list[Any]]]:
    """What is restored, and the strips it is made of; pictures that decode to another shape are left out."""
    with reading(name):
        found = list(_all_drawn(pdf, name))
    # With one picture a page, as scanners write them, the numbers are those of the pages.
    pages = [drawn.number for drawn in found]
    numbers = pages if len(set(pages)) == len(pages) else range(1, len(pages) + 1)
    for number, drawn in zip(numbers, found, strict=True):
        with reading(name):
            strips = [_decoded(picture) for picture in drawn.strips]
        if len({each.shape[2:] for each in strips}) == 1 and all(map(_fits, strips, drawn.strips)):
            pixels: Pixels = strips[0] if len(strips) == 1 else np.concatenate(strips)  # type: ignore[assignment]
            dpi = pixels.shape[1] * POINTS_PER_INCH / drawn.width if drawn.width > 0 else None
            yield Page(number, pixels, dpi, _TURNED.get(drawn.turn, 1)), drawn.strips


def _decoded(picture: Any) -> Pixels:
    decoded = pikepdf.PdfImage(picture).as_pil_image()
    # A soft mask, a file of its own, comes back as opacity.
    colours = {"LA": "L", "RGBA": "RGB"}.get(decoded.mode, decoded.mode)
    return np.asarray(decoded.convert(colours) if colours != decoded.mode else decoded)


def _fits(pixels: Pixels, picture: Any) -> bool:
    return pixels.dtype == np.uint8 and pixels.shape[2:] in ((), (3,)) and pixels.shape[:2] == _size([picture])


def _all_drawn(pdf: pikepdf.Pdf, name: str) -> Iterator[_Drawn]:
    """Pictures of 8 bits in a plain grey or RGB space, each once, in the order of the pages."""
    uses = Counter(picture.objgen for page in pdf.pages for picture in _pictures(page).values())
    seen = set()
    for number, page in enumerate(pdf.pages, 1):
        width = abs(float(page.mediabox[2]) - float(page.mediabox[0]))
        places = _places(page)
        pictures = {key: each for key, each in _pictures(page).items() if _is_plain(each) and each.objgen not in seen}
        seen |= {picture.objgen for picture in pictures.values()}
        once = {key: places[key] for key, each in pictures.items() if key in places and uses[each.objgen] == 1}
        for keys in [*_stacks(once, pictures), *([key] for key in pictures if key not in once)]:
            strips = [pictures[key] for key in keys]
            if math.prod(_size(strips)) > MAX_PIXELS:
                raise UnreadableError(name, f"a picture in it has more than {MAX_PIXELS // 10**6} million pixels")
            if _large(strips):
                drawn_width = places[keys[0]].width if keys[0] in places else width
                yield _Drawn(strips, drawn_width, number, int(page.get(Name.Rotate, 0)) % 360)


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


@dataclass(frozen=True)
class _Place:
    """Where a picture lies on its page, upright, in points from the lower left."""

    left: float
    bottom: float
    width: float
    height: float

    @property
    def top(self) -> float:
        return self.bottom + self.height


def _places(page: pikepdf.Page) -> dict[str, _Place]:
    """Of the pictures that a page draws itself, once and upright."""
    drawn: dict[str, list[pikepdf.Matrix]] = {}
    now, outer = pikepdf.Matrix(), []
    try:
        for step in pikepdf.parse_content_stream(page, "q Q cm Do"):
            operands, operator = step.operands, str(step.operator)
            if operator == "q":
                outer.append(now)
            elif operator == "Q" and outer:
                now = outer.pop()
            elif operator == "cm":
                now = pikepdf.Matrix(*(float(each) for each in operands)) @ now
            elif operator == "Do":
                drawn.setdefault(str(operands[0]), []).append(now)
    except (pikepdf.PdfError, pikepdf.PdfParsingError, TypeError, ValueError):
        return {}  # viewers draw what they understand, and its pictures can be restored one by one
    return {
        key: _Place(at.e, at.f, at.a, at.d)
        for key, (at, *more) in drawn.items()
        if not more and at.a > 0 and at.d > 0 and abs(at.b) + abs(at.c) < UPRIGHT * (at.a + at.d)
    }


def _stacks(places: dict[str, _Place], pictures: dict[str, Any]) -> Iterator[list[str]]:
    """Names of pictures that lie below each other without a gap, equally wide and of one kind; from the top."""
    stack: list[str] = []
    for key in sorted(places, key=lambda key: (places[key].left, -places[key].top)):
        if stack and not _continues(key, stack[-1], places, pictures):
            yield stack
            stack = []
        stack.append(key)
    if stack:
        yield stack


def _continues(lower: str, upper: str, places: dict[str, _Place], pictures: dict[str, Any]) -> bool:
    below, above = pictures[lower], pictures[upper]
    if below.Width != above.Width or below.get(Name.ColorSpace) != above.get(Name.ColorSpace):
        return False
    low, high = places[lower], places[upper]
    pixel = high.width / int(above.Width)
    apart = (low.left - high.left, low.width - high.width, low.top - high.bottom)
    # Writers round places to a hundredth of a point or so, and some strips overlap by a hair.
    return all(abs(each) < pixel for each in apart)


def _is_plain(picture: Any) -> bool:
    space = picture.get(Name.ColorSpace)
    kind = str(space[0]) if isinstance(space, pikepdf.Array) else str(space)
    plain = kind in _SPACES and (kind != "/ICCBased" or int(space[1].N) in (1, 3))
    # Values that are turned round, or that mean transparency, must stay as they are.
    decode = [float(value) for value in picture.get(Name.Decode, [])]
    turned = decode != [0.0, 1.0] * (len(decode) // 2)
    odd = turned or isinstance(picture.get(Name.Mask), pikepdf.Array) or int(picture.get(Name.SMaskInData, 0)) > 0
    matte = Name.SMask in picture and Name.Matte in picture.SMask
    bits = int(picture.get(Name.BitsPerComponent, 0))
    return plain and bits == 8 and not odd and not matte


def _large(strips: list[Any]) -> bool:
    return min(_size(strips)) >= LEAST_SIDE


def _size(strips: list[Any]) -> tuple[int, int]:
    """Height and width of strips together."""
    return sum(int(each.get(Name.Height, 0)) for each in strips), int(strips[0].get(Name.Width, 0))


def _last_filter(picture: Any) -> Any:
    """What its pixels are coded by, below what the whole stream is packed by."""
    filters = picture.get(Name.Filter)
    if isinstance(filters, pikepdf.Array):
        return filters[-1] if len(filters) else None
    return filters

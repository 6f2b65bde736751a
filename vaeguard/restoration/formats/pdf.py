"""The format of scanned PDF files: their pictures are replaced, and everything else is kept."""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pikepdf
from pikepdf import Name
from pikepdf.exceptions import PdfParsingError

from vaeguard.data.limits import MAX_PIXELS
from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.restoration.formats.pdf_codecs import (
    CHANNELS,
    channels_of,
    codec_of,
    decoded,
    replace,
    source_of,
    unfit_coding,
)
from vaeguard.restoration.formats.pdf_places import Place, places_of, stacked
from vaeguard.restoration.formats.scan_format import Rewritten
from vaeguard.restoration.formats.scan_page import Page, digest_of_pixels, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vaeguard.restoration.formats.scan_format import Coding, Restore
    from vaeguard.restoration.formats.scan_page import PageFacts, Pixels

LEAST_SIDE = 64
"""Pictures with fewer pixels on a side are ornaments."""
POINTS_PER_INCH = 72
LEAST_SHARE = 0.5
"""A picture that covers less of its page does not say how the page lies."""
_OTHER_COLOUR_SPACES = {"/DeviceCMYK": "CMYK", "/ICCBased": "CMYK", "/Indexed": "indexed", "/Lab": "CIELAB"}
_NOT_RGB = (b"XYZ ", b"Luv ", b"YCbr", b"Yxy ", b"HSV ", b"HLS ", b"CMY ")
"""The colours of profiles of three values that are not RGB."""
_BILEVEL = ("/CCITTFaxDecode", "/JBIG2Decode")
_DEPTH_IN_DATA = ("/DCTDecode", "/JPXDecode")
"""Codecs whose data states the depth, which is nearly always 8 bits."""


def rewrite(content: bytes, name: str, target: Path, restore: Restore, coding: Coding) -> Rewritten:
    """Replace the grey or RGB pictures of 8 bits.

    The streams of other pictures, and of pictures that do not change, stay byte for byte.
    """
    result = Rewritten()
    digests: list[str] = []
    with opened(content, name) as pdf:
        with reading(name):
            left = _reasons_to_leave(pdf)
        for page, picture in scanned_pages(pdf, name):
            for strip in picture.strips:
                left.pop(strip.objgen, None)
            pixels = restore(page)
            if pixels is not page.pixels:
                pixels, result.codecs[page.number] = _replaced(page, picture.strips, pixels, coding)
            digests.append(digest_of_pixels(pixels))
        result.left = [*left.values(), *_inline_pictures(pdf)]
        result.digests = digests
        save(pdf, target, name)
    return result


def save(pdf: pikepdf.Pdf, target: Path, name: str) -> None:
    """Write a PDF to `target`; streams that were not replaced stay byte for byte.

    Raises
    ------
    RefusedError
        Pages would be lost.
    """
    # In a file with packed objects, unpacked streams are packed as well; all other streams are copied as they are.
    pdf.save(
        target,
        deterministic_id=True,
        fix_metadata_version=False,
        compress_streams=Name.Type in pdf.trailer,
        stream_decode_level=pikepdf.StreamDecodeLevel.none,
        linearize=pdf.is_linearized,
    )
    with pikepdf.open(target) as written:
        if len(written.pages) != len(pdf.pages):
            raise RefusedError(f"pages of {name!r} would be lost; please report this")


def _replaced(page: Page, strips: list[Any], restored: Pixels, coding: Coding) -> tuple[Pixels, str]:
    """Write a page into its strips as `coding` demands; returns the pixels decoded from them, and the codecs."""
    ends = np.cumsum([int(picture.Height) for picture in strips])[:-1]
    before: list[Any] = np.split(page.pixels, ends)
    after: Any = np.split(restored, ends)
    # An unchanged strip keeps its stream.
    changed = [
        (strip, new, source_of(strip))
        for strip, old, new in zip(strips, before, after, strict=True)
        if not np.array_equal(old, new)
    ]
    for finer in coding.steps:
        try:
            codecs = {replace(strip, new, source, coding, finer) for strip, new, source in changed}
        except OSError:  # the codec cannot encode it, for example noise in a JPEG of the highest quality
            continue
        written = _joined(strips)
        if finer == 0 or coding.accepts(restored, written):
            break
    return written, ", ".join(sorted(codecs))


def _reasons_to_leave(pdf: pikepdf.Pdf) -> dict[tuple[int, int], tuple[int, str]]:
    """The first page of each picture, and why the picture would stay as it is if no page restores it."""
    left: dict[tuple[int, int], tuple[int, str]] = {}
    for number, page in enumerate(pdf.pages, 1):
        for picture in _pictures(page).values():
            other = "of a different shape than the PDF says" if _is_large([picture]) else "small"
            left.setdefault(picture.objgen, (number, _unfit_kind(picture) or other))
    return left


def _inline_pictures(pdf: pikepdf.Pdf) -> Iterator[tuple[int, str]]:
    """The page and kind of pictures in the content stream of a page, which are no objects of their own."""
    for number, page in enumerate(pdf.pages, 1):
        try:
            steps = pikepdf.parse_content_stream(page, "BI ID EI")
            sizes = [(step.iimage.height, step.iimage.width) for step in steps if hasattr(step, "iimage")]
        except (pikepdf.PdfError, PdfParsingError, AttributeError, LookupError, TypeError, ValueError):
            continue
        for size in sizes:
            yield number, "inline" if min(size) >= LEAST_SIDE else "small"


def pages(content: bytes, name: str) -> Iterator[Page]:
    """Read the pictures that are restored."""
    with opened(content, name) as pdf:
        for page, _ in scanned_pages(pdf, name):
            yield page


def facts(_content: bytes, _name: str) -> list[PageFacts]:
    """No facts, since everything but the pictures is copied unread."""
    return []


def sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """Read the height and width of each picture that is restored."""
    with opened(content, name) as pdf, reading(name):
        return [_size(picture.strips) for picture in _drawn_pictures(pdf, name)]


def opened(content: bytes, name: str) -> pikepdf.Pdf:
    """Open a PDF that may be rewritten.

    Raises
    ------
    UnreadableError
        The PDF is damaged, protected or signed.
    """
    try:
        with reading(name):
            pdf = pikepdf.open(io.BytesIO(content))
    except UnreadableError as error:
        if isinstance(error.__cause__, pikepdf.PasswordError):
            raise UnreadableError(name, "it is protected by a password; remove the password first") from error
        raise
    if pdf.is_encrypted:
        raise UnreadableError(name, "it is protected, but its clean copy would not be; remove the protection first")
    if pdf.get_warnings():  # the reader has guessed, and may have missed pages
        raise UnreadableError(
            name, "it is damaged or cut short; copy the file again, or repair it, for example with qpdf"
        )
    form: Any = pdf.Root.get(Name.AcroForm)
    if form is not None and int(form.get(Name.SigFlags, 0)) & 1:
        raise UnreadableError(
            name, "it is signed, and a clean copy would break the signature; remove the signature first"
        )
    return pdf


@dataclass(frozen=True)
class DrawnPicture:
    """A picture that is restored, and its position.

    Attributes
    ----------
    strips : list
        The picture, or the strips, from the top, into which a scanner has cut it.
    width : float
        Width of the picture on the page in inches.
    number : int
        Number of the page, from 1.
    orientation : int
        EXIF orientation of the picture.
    """

    strips: list[Any]
    width: float
    number: int
    orientation: int


def scanned_pages(pdf: pikepdf.Pdf, name: str) -> Iterator[tuple[Page, DrawnPicture]]:
    """The pages that are restored, and their pictures, without pictures that decode to another shape."""
    with reading(name):
        drawn = list(_drawn_pictures(pdf, name))
    # Scanners write one picture a page; then the numbers of the pages are used.
    own = [picture.number for picture in drawn]
    numbers = own if len(set(own)) == len(own) else range(1, len(own) + 1)
    for number, picture in zip(numbers, drawn, strict=True):
        yield from _decoded(number, picture, name)


def main_pictures(pdf: pikepdf.Pdf, name: str) -> Iterator[Page]:
    """The largest picture of each page that is restored, if it covers most of the page, with the page's number."""
    with reading(name):
        largest: dict[int, DrawnPicture] = {}
        for picture in _drawn_pictures(pdf, name):
            covered = _share(pdf, picture)
            if covered > LEAST_SHARE and covered > _share(pdf, largest.get(picture.number)):
                largest[picture.number] = picture
    for number, picture in largest.items():
        for page, _ in _decoded(number, picture, name):
            yield page


def _share(pdf: pikepdf.Pdf, picture: DrawnPicture | None) -> float:
    """The share of its page that a picture covers."""
    if picture is None:
        return 0.0
    page = pdf.pages[picture.number - 1]
    left, bottom, right, top = (float(side) for side in page.mediabox)
    unit = _number(page, Name.UserUnit, 1) / POINTS_PER_INCH
    height, width = _size(picture.strips)
    return picture.width**2 * height / width / max(abs(right - left) * abs(top - bottom) * unit**2, 1e-9)


def _decoded(number: int, picture: DrawnPicture, name: str) -> Iterator[tuple[Page, DrawnPicture]]:
    with reading(name):
        strips = [decoded(strip) for strip in picture.strips]
    if len({strip.shape[2:] for strip in strips}) == 1 and all(map(_fits, strips, picture.strips)):
        pixels: Pixels = strips[0] if len(strips) == 1 else np.concatenate(strips)  # type: ignore[assignment]
        dpi = pixels.shape[1] / picture.width if picture.width > 0 else None
        yield Page(number, pixels, dpi, picture.orientation), picture


def _joined(strips: list[Any]) -> Pixels:
    pixels: Pixels = np.concatenate([decoded(strip) for strip in strips])
    return pixels


def _fits(pixels: Pixels, picture: Any) -> bool:
    channels = [3] if channels_of(picture) == 3 else []
    return pixels.dtype == np.uint8 and pixels.shape == (*_size([picture]), *channels)


def _drawn_pictures(pdf: pikepdf.Pdf, name: str) -> Iterator[DrawnPicture]:
    """The distinct grey or RGB pictures of 8 bits, in the order of the pages."""
    uses = Counter(picture.objgen for page in pdf.pages for picture in _pictures(page).values())
    earlier: set[tuple[int, int]] = set()
    for number, page in enumerate(pdf.pages, 1):
        new = {key: picture for key, picture in _pictures(page).items() if picture.objgen not in earlier}
        pictures = {key: picture for key, picture in new.items() if not _unfit_kind(picture)}
        earlier |= {picture.objgen for picture in pictures.values()}
        used_once = [key for key, picture in pictures.items() if uses[picture.objgen] == 1]
        for drawn in _drawn_on(page, number, pictures, used_once):
            if math.prod(_size(drawn.strips)) > MAX_PIXELS:
                raise UnreadableError(
                    name, f"a picture in it has more than {MAX_PIXELS // 10**6} million pixels; shrink that picture"
                )
            if _is_large(drawn.strips):
                yield drawn


def _drawn_on(
    page: pikepdf.Page, number: int, pictures: dict[str, Any], used_once: list[str]
) -> Iterator[DrawnPicture]:
    """The pictures on a page; strips that lie below each other are joined, if nothing else uses them."""
    unit = _number(page, Name.UserUnit, 1) / POINTS_PER_INCH
    turn = int(_number(page, Name.Rotate, 0))
    page_width = abs(float(page.mediabox[2]) - float(page.mediabox[0]))
    places = places_of(page)
    stacks: list[list[str]] = []
    for quarters in range(4):  # a page, and so its strips, may be turned by its content
        turned = {key: places[key].turned(quarters) for key in used_once if key in places}
        stacks += stacked({key: place for key, place in turned.items() if place.upright}, pictures)
    joined = {key for keys in stacks for key in keys}
    for keys in [*stacks, *([key] for key in pictures if key not in joined)]:
        place = places.get(keys[0]) or Place(page_width, 0, 0, page_width, 0, 0)
        strips = [pictures[key] for key in keys]
        yield DrawnPicture(strips, place.width * unit, number, place.orientation(turn))


def _number(item: Any, key: Name, default: float) -> float:
    """An entry of a page or picture, or `default` if it is no number."""
    try:
        return float(item.get(key, default))
    except (TypeError, ValueError):
        return default


def _pictures(page: pikepdf.Page) -> dict[str, Any]:
    """The pictures of a page by name; the name of a picture in a form follows that of the form, to be unique."""
    pictures: dict[str, Any] = {}
    forms: set[tuple[int, int]] = set()

    def collect(resources: Any, prefix: str) -> None:
        for key, item in resources.get(Name.XObject, {}).items():
            kind = item.get(Name.Subtype)
            if kind == Name.Image:
                pictures[prefix + key] = item
            elif kind == Name.Form and item.objgen not in forms:
                forms.add(item.objgen)
                collect(item.get(Name.Resources, {}), prefix + key)

    collect(page.resources, "")
    return pictures


def _unfit_kind(picture: Any) -> str:
    """The kind of a picture that must stay as it is, in a few words; empty if the picture can be restored."""
    try:
        if "/ImageMask" in picture and bool(picture.ImageMask):
            return "a mask"
        bits = int(picture.get(Name.BitsPerComponent, 8 if codec_of(picture) in _DEPTH_IN_DATA else 0))
        if codec_of(picture) in _BILEVEL or bits == 1:
            return "bilevel"
        return unfit_coding(picture) or _unfit_colours(picture) or (f"of {bits} bits" if bits != 8 else "")
    except (pikepdf.PdfError, AttributeError, LookupError, TypeError, ValueError):
        return "with unclear entries"


def _unfit_colours(picture: Any) -> str:
    """The kind of a picture whose values are not plainly grey or RGB; empty for others."""
    space, channels = picture.get(Name.ColorSpace), channels_of(picture)
    if space is None and not channels:
        return "without a colour space"
    kind = str(space[0] if isinstance(space, pikepdf.Array) else space)
    if channels not in (1, 3):
        return _OTHER_COLOUR_SPACES.get(kind, "of other colours")
    other = _unfit_profile(space[1]) if kind == "/ICCBased" else ""
    return other or _unfit_values(picture, channels)


def _unfit_values(picture: Any, channels: int) -> str:
    """The kind of a picture whose values are more than its colours; empty for others."""
    if isinstance(picture.get(Name.Mask), pikepdf.Array):
        return "masked by colour"
    if int(picture.get(Name.SMaskInData, 0)) > 0 or (Name.SMask in picture and Name.Matte in picture.SMask):
        return "mixed with its opacity"
    decode = [float(value) for value in picture.get(Name.Decode, [])]
    plain, inverted = [0.0, 1.0] * channels, [1.0, 0.0] * channels
    return "" if decode in ([], plain) else "inverted by /Decode" if decode == inverted else "with a /Decode of its own"


def _unfit_profile(profile: Any) -> str:
    """The kind of colours that a profile describes; empty if it describes grey or RGB, or nothing that can be read."""
    alternate = profile.get(Name.Alternate)
    kind = str(alternate[0] if isinstance(alternate, pikepdf.Array) else alternate)
    if alternate is not None and CHANNELS.get(kind) != int(profile.N):
        return _OTHER_COLOUR_SPACES.get(kind, "of other colours")
    colours = bytes(profile.read_bytes())[16:20]
    return {b"Lab ": "CIELAB"}.get(colours, "of other colours" if colours in _NOT_RGB and int(profile.N) == 3 else "")


def _is_large(strips: list[Any]) -> bool:
    return min(_size(strips)) >= LEAST_SIDE


def _size(strips: list[Any]) -> tuple[int, int]:
    """The height and width of joined strips."""
    return sum(int(_number(strip, Name.Height, 0)) for strip in strips), int(_number(strips[0], Name.Width, 0))

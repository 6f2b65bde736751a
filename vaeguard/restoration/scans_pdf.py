"""Scanned PDF files: the pictures inside are replaced, everything else stays."""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pikepdf
from pikepdf import Name
from PIL import Image

from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.reading.images import MAX_PIXELS
from vaeguard.restoration.scans import Page, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vaeguard.restoration.scans import Pixels

LEAST_SIDE = 64
"""Pictures with fewer pixels a side are ornaments."""
POINTS_PER_INCH = 72
_TURNED = {90: 6, 180: 3, 270: 8}
"""Degrees clockwise of a page as the orientation of EXIF."""
_SPACES = ("/DeviceGray", "/DeviceRGB", "/CalGray", "/CalRGB", "/ICCBased")


def rewrite_pdf(
    content: bytes, name: str, target: Path, restore: Callable[[Page], Pixels], jpeg: int | None = None
) -> int:
    """Replace the pictures of 8 bits, grey or RGB, in a PDF; see `scans.rewrite`. How many others stay as they are."""
    with _opened(content, name) as pdf:
        with reading(name):
            kept = len(
                {picture.objgen for page in pdf.pages for picture in page.get_images().values() if _large(picture)}
            )
        for page, picture in _pictures(pdf, name):
            kept -= 1
            restored = restore(page)
            if restored is not page.pixels:
                was_jpeg = _last_filter(picture) == Name.DCTDecode
                for key in (Name.DecodeParms, Name.Intent):
                    if key in picture:
                        del picture[key]
                if jpeg and was_jpeg:
                    file = io.BytesIO()
                    Image.fromarray(restored).save(file, format="JPEG", quality=jpeg, subsampling=0)
                    picture.write(file.getvalue(), filter=Name.DCTDecode)
                else:
                    picture.write(zlib.compress(restored.tobytes(), 6), filter=Name.FlateDecode)
        pages = len(pdf.pages)
        pdf.save(target, deterministic_id=True)
    with pikepdf.open(target) as again:
        if len(again.pages) != pages:
            raise RefusedError(f"pages of {name!r} would be lost; report this")
    return kept


def pdf_pages(content: bytes, name: str) -> Iterator[Page]:
    """The pictures that are restored."""
    with _opened(content, name) as pdf:
        for page, _ in _pictures(pdf, name):
            yield page


def pdf_sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """Height and width of each picture that is restored."""
    with _opened(content, name) as pdf, reading(name):
        return [(int(picture.Height), int(picture.Width)) for picture, *_ in _candidates(pdf, name)]


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


def _pictures(pdf: pikepdf.Pdf, name: str) -> Iterator[tuple[Page, Any]]:
    """The pictures that are restored, as pages and as objects; those that decode to another shape are left out."""
    with reading(name):
        candidates = list(_candidates(pdf, name))
    # With one picture a page, as scanners write them, the numbers are those of the pages.
    pages = [number for _, _, number, _ in candidates]
    numbers = pages if len(set(pages)) == len(pages) else range(1, len(pages) + 1)
    for number, (picture, width, _, turned) in zip(numbers, candidates, strict=True):
        with reading(name):
            decoded = pikepdf.PdfImage(picture).as_pil_image()
            # A soft mask, a file of its own, comes back as opacity.
            colours = {"LA": "L", "RGBA": "RGB"}.get(decoded.mode, decoded.mode)
            pixels = np.asarray(decoded.convert(colours) if colours != decoded.mode else decoded)
            wanted = (int(picture.Height), int(picture.Width))
        if colours in ("L", "RGB") and pixels.shape[:2] == wanted:
            dpi = pixels.shape[1] * POINTS_PER_INCH / width if width > 0 else None
            yield Page(number, pixels, dpi, _TURNED.get(turned, 1)), picture


def _candidates(pdf: pikepdf.Pdf, name: str) -> Iterator[tuple[Any, float, int, int]]:
    """Pictures of 8 bits in a plain grey or RGB space, each once; of its page the width in points, number and turn."""
    seen = set()
    for number, page in enumerate(pdf.pages, 1):
        width = abs(float(page.mediabox[2]) - float(page.mediabox[0]))
        for picture in page.get_images().values():
            if picture.objgen not in seen and _is_restored(picture):
                if int(picture.Height) * int(picture.Width) > MAX_PIXELS:
                    raise UnreadableError(name, f"a picture in it has more than {MAX_PIXELS // 10**6} million pixels")
                seen.add(picture.objgen)
                yield picture, width, number, int(page.get(Name.Rotate, 0)) % 360


def _is_restored(picture: Any) -> bool:
    space = picture.get(Name.ColorSpace)
    kind = str(space[0]) if isinstance(space, pikepdf.Array) else str(space)
    plain = kind in _SPACES and (kind != "/ICCBased" or int(space[1].N) in (1, 3))
    # Values that are turned round, or that mean transparency, must stay as they are.
    decode = [float(value) for value in picture.get(Name.Decode, [])]
    turned = decode != [0.0, 1.0] * (len(decode) // 2)
    odd = turned or isinstance(picture.get(Name.Mask), pikepdf.Array) or int(picture.get(Name.SMaskInData, 0)) > 0
    matte = Name.SMask in picture and Name.Matte in picture.SMask
    bits = int(picture.get(Name.BitsPerComponent, 0))
    return plain and _large(picture) and bits == 8 and not odd and not matte


def _large(picture: Any) -> bool:
    return min(int(picture.get(Name.Width, 0)), int(picture.get(Name.Height, 0))) >= LEAST_SIDE


def _last_filter(picture: Any) -> Any:
    """What its pixels are coded by, below what the whole stream is packed by."""
    filters = picture.get(Name.Filter)
    if isinstance(filters, pikepdf.Array):
        return filters[-1] if len(filters) else None
    return filters

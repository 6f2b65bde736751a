"""Scans in and out: the pixels of every page go through a function, and everything else stays as it was.

Kept are the size in pixels, channels, bit depth, number of pages, resolution, ICC profile, EXIF, XMP and orientation;
each written file is read again, and its pixels and all that are compared before it takes its name. A JPEG becomes a
PNG, unless a JPEG is asked for; pictures in a PDF go back in the codec they came in. Pixels stay as they lie in the
file: the orientation is kept, not applied. A file of which no page changes is copied.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.images import SUFFIXES, format_of
from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.restoration.formats.picture import picture_facts, picture_pages, picture_sizes, rewrite_picture
from vaeguard.restoration.formats.scan_page import Rewritten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaeguard.restoration.formats.pdf_codecs import Check
    from vaeguard.restoration.formats.scan_page import Page, PageFacts, Pixels

SCAN_SUFFIXES = (*SUFFIXES, ".pdf")
TIFF_SUFFIXES = (".tif", ".tiff")
JPEG_SUFFIXES = (".jpg", ".jpeg")


def written_name(name: str, *, jpeg: int | None) -> str:
    """Name of the file that is written for the scan `name`: a JPEG's ends in `.png`, unless `jpeg` is a quality."""
    path = Path(name)
    return str(path.with_name(path.name + ".png")) if path.suffix.lower() in JPEG_SUFFIXES and not jpeg else name


_CALLED = {
    **dict.fromkeys(JPEG_SUFFIXES, "JPEG"),
    **dict.fromkeys(TIFF_SUFFIXES, "TIFF"),
    ".png": "PNG",
    ".bmp": "BMP",
    ".pdf": "PDF",
    ".webp": "WEBP",
}


def _check_name(content: bytes, name: str) -> None:
    """Refuse a file that is of another kind than it is called: what is written for it would be called wrongly, too."""
    called = _CALLED.get(Path(name).suffix.lower())
    found = format_of(content[:16])
    if found and called and found != called:
        raise UnreadableError(name, f"it is a {found} and called as a {called}; rename it")


def rewrite(
    content: bytes,
    name: str,
    target: Path,
    restore: Callable[[Page], Pixels],
    *,
    jpeg: int | None = None,
    lossless: bool = False,
    check: Check | None = None,
) -> Rewritten:
    """Write the scan `content` to `target` with the pixels of each page as `restore` returns them.

    Pictures in a PDF go back in the codec they came in, at about its quality; nothing else loses anything.

    Parameters
    ----------
    content : bytes
        The file.
    name : str
        Its path: the suffix tells the format, and messages name it.
    target : path
        What is written; the caller gives it its name.
    restore : callable
        Takes a page and returns its new pixels, of the same shape and type, or the very same ones.
    jpeg : int or None
        Write a JPEG, also one inside a PDF, as a JPEG of this quality, 1 to 100.
    lossless : bool
        Write pictures in a PDF without loss, whatever they came in.
    check : callable or None
        Takes a page of a PDF that was written with loss, and its pixels as they are decoded again, right after
        `restore` returned them; where it says False, the page is written with less loss, in the end with none.

    Returns
    -------
    Rewritten
        Which pictures of a PDF stay as they are, since they are of a kind that is not restored, and the codecs.

    Raises
    ------
    UnreadableError
        The scan is damaged, or of a kind that is not restored.
    RefusedError
        Something would be lost in writing.
    """
    changed, result = False, Rewritten()
    digests: list[str] = []

    def written(pixels: Pixels) -> None:
        digests.append(digest_of_pixels(pixels))

    def seen(page: Page) -> Pixels:
        nonlocal changed
        restored = restore(page)
        if restored.shape != page.pixels.shape or restored.dtype != page.pixels.dtype:
            raise ValueError(f"page {page.number}: {restored.dtype} {restored.shape} came back")
        changed = changed or restored is not page.pixels
        if suffix != ".pdf":
            written(restored)
        return restored

    _check_name(content, name)
    suffix = Path(name).suffix.lower()
    if suffix == ".pdf":
        from vaeguard.restoration.formats.pdf import rewrite_pdf
        from vaeguard.restoration.formats.pdf_codecs import Coding

        result = rewrite_pdf(content, name, target, seen, Coding(jpeg, lossless, check), written)
        changed = bool(result.codecs)
    elif suffix in TIFF_SUFFIXES:
        from vaeguard.restoration.formats.tiff import rewrite_tiff

        rewrite_tiff(content, name, target, seen)
    else:
        rewrite_picture(content, name, target, seen, jpeg)
    if not changed and Path(name).suffix == target.suffix:
        target.write_bytes(content)
        return result
    if suffix != ".pdf":
        _check_facts(content, target, name)
    if not (jpeg and suffix in JPEG_SUFFIXES):
        _check_pixels(digests, target, name)
    return result


def scan_pages(content: bytes, name: str) -> Iterator[Page]:
    """The pages of a scan, one after the other.

    Raises
    ------
    UnreadableError
        It is damaged, or of a kind that is not restored.
    """
    _check_name(content, name)
    suffix = Path(name).suffix.lower()
    if suffix == ".pdf":
        from vaeguard.restoration.formats.pdf import pdf_pages

        yield from pdf_pages(content, name)
    elif suffix in TIFF_SUFFIXES:
        from vaeguard.restoration.formats.tiff import tiff_pages

        yield from tiff_pages(content, name)
    else:
        yield from picture_pages(content, name)


def facts_of(content: bytes, name: str) -> list[PageFacts]:
    """What a picture or TIFF says beside its pixels, page by page.

    Raises
    ------
    UnreadableError
        It is damaged.
    """
    if Path(name).suffix.lower() in TIFF_SUFFIXES:
        from vaeguard.restoration.formats.tiff import tiff_facts

        return tiff_facts(content, name)
    return picture_facts(content, name)


def page_sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """Height and width of each page, from the headers; of a PDF of each picture that is restored.

    Raises
    ------
    UnreadableError
        The scan is damaged.
    """
    _check_name(content, name)
    if Path(name).suffix.lower() == ".pdf":
        from vaeguard.restoration.formats.pdf import pdf_sizes

        return pdf_sizes(content, name)
    if Path(name).suffix.lower() in TIFF_SUFFIXES:
        from vaeguard.restoration.formats.tiff import tiff_sizes

        return tiff_sizes(content, name)
    return picture_sizes(content, name)


def _check_facts(content: bytes, target: Path, name: str) -> None:
    before, after = facts_of(content, name), facts_of(target.read_bytes(), str(target))
    if len(before) != len(after):
        raise RefusedError(f"{name!r} has {len(before)} pages, but {len(after)} would have been written; report this")
    for number, (old, new) in enumerate(zip(before, after, strict=True), 1):
        for what, value in vars(old).items():
            now = getattr(new, what)
            if now != value and not (what == "dpi" and value and now and _is_as_fine(value, now)):
                raise RefusedError(f"page {number} of {name!r} would lose its {what}; report this")


def _is_as_fine(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether two resolutions are one: a format that counts in metres rounds in another way than one in inches."""
    return all(abs(old - new) <= 1 for old, new in zip(before, after, strict=True))


def _check_pixels(digests: list[str], target: Path, name: str) -> None:
    written = [digest_of_pixels(page.pixels) for page in scan_pages(target.read_bytes(), str(target))]
    if written != digests:
        raise RefusedError(f"the pixels of {name!r} would not have been written rightly; report this")


def digest_of_pixels(pixels: Pixels) -> str:
    """SHA-256 (hex) over type, shape and values, whatever the file is that they lie in."""
    digest = hashlib.sha256(f"{pixels.dtype} {[side for side in pixels.shape if side > 1]}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()

"""Rewrite scans: a function replaces the pixels of every page, and everything else stays as it was.

The size in pixels, channels, bit depth, number of pages, resolution, ICC profile, EXIF, XMP and orientation are kept.
Each written file is read again and compared with the original before the file takes its name. A JPEG becomes a PNG,
unless a JPEG is asked for; pictures in a PDF keep their codec. Pixels are processed as stored: the orientation is kept,
not applied. If no page changes, the file is copied.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.images import SUFFIXES, SUFFIXES_OF, format_of
from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.restoration.formats.picture import picture_facts, picture_pages, picture_sizes, rewrite_picture
from vaeguard.restoration.formats.scan_page import Rewritten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaeguard.restoration.formats.pdf_codecs import Check
    from vaeguard.restoration.formats.scan_page import Page, PageFacts, Pixels

SCAN_SUFFIXES = (*SUFFIXES, ".pdf")
TIFF_SUFFIXES = SUFFIXES_OF["TIFF"]
JPEG_SUFFIXES = SUFFIXES_OF["JPEG"]


def written_name(name: str, *, jpeg: int | None) -> str:
    """The name of the clean file for the scan `name`; that of a JPEG ends in `.png`, unless `jpeg` is a quality."""
    path = Path(name)
    return str(path.with_name(path.name + ".png")) if path.suffix.lower() in JPEG_SUFFIXES and not jpeg else name


_FORMATS = {suffix: kind for kind, suffixes in SUFFIXES_OF.items() for suffix in suffixes} | {".pdf": "PDF"}


def _check_name(content: bytes, name: str) -> None:
    """Refuse a file whose suffix names another format, since the clean file would have a wrong name, too."""
    named = _FORMATS.get(Path(name).suffix.lower())
    actual = format_of(content[:16])
    if actual and named and actual != named:
        raise UnreadableError(name, f"it is a {actual}, but its name is that of a {named}; rename it")


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
    """Write the scan `content` to `target` with the pixels that `restore` returns for each page.

    Pictures in a PDF keep their codec and about their quality; everything else is written without loss.

    Parameters
    ----------
    content : bytes
        The bytes of the scan.
    name : str
        The path of the scan: its suffix tells the format, and messages name it.
    target : path
        A temporary file, which the caller renames.
    restore : callable
        Takes a page, and returns new pixels of the same shape and type, or the page's own array.
    jpeg : int or None
        Write a JPEG file, or a JPEG inside a PDF, as a JPEG of this quality, 1 to 100.
    lossless : bool
        Write pictures in a PDF without loss, whatever their codec.
    check : callable or None
        Takes a page of a PDF that was written with loss, and the pixels decoded from it, right after `restore`
        returned. If it returns False, the page is written with less loss, and finally without loss.

    Returns
    -------
    Rewritten
        The pictures of a PDF that stay as they are, and the codecs of the others.

    Raises
    ------
    UnreadableError
        The scan is damaged, or its kind is not restored.
    RefusedError
        The written file would lose something.
    """
    _check_name(content, name)
    suffix = Path(name).suffix.lower()
    changed, result = False, Rewritten()
    digests: list[str] = []

    def record(pixels: Pixels) -> None:
        digests.append(digest_of_pixels(pixels))

    def restored_page(page: Page) -> Pixels:
        nonlocal changed
        restored = restore(page)
        if restored.shape != page.pixels.shape or restored.dtype != page.pixels.dtype:
            raise ValueError(f"page {page.number}: {restored.dtype} {restored.shape} came back")
        changed = changed or restored is not page.pixels
        if suffix != ".pdf":
            record(restored)
        return restored

    if suffix == ".pdf":
        from vaeguard.restoration.formats.pdf import rewrite_pdf
        from vaeguard.restoration.formats.pdf_codecs import Coding

        result = rewrite_pdf(content, name, target, restored_page, Coding(jpeg, lossless, check), record)
        changed = bool(result.codecs)
    elif suffix in TIFF_SUFFIXES:
        from vaeguard.restoration.formats.tiff import rewrite_tiff

        rewrite_tiff(content, name, target, restored_page)
    else:
        rewrite_picture(content, name, target, restored_page, jpeg)
    if not changed and Path(name).suffix == target.suffix:
        target.write_bytes(content)
        return result
    if suffix != ".pdf":
        _check_facts(content, target, name)
    if not (jpeg and suffix in JPEG_SUFFIXES):
        _check_pixels(digests, target, name)
    return result


def scan_pages(content: bytes, name: str) -> Iterator[Page]:
    """Read the pages of a scan one by one.

    Raises
    ------
    UnreadableError
        The scan is damaged, or its kind is not restored.
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
    """Read the metadata of a picture or TIFF, page by page.

    Raises
    ------
    UnreadableError
        The file is damaged.
    """
    if Path(name).suffix.lower() in TIFF_SUFFIXES:
        from vaeguard.restoration.formats.tiff import tiff_facts

        return tiff_facts(content, name)
    return picture_facts(content, name)


def page_sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """Read the height and width of each page, or of each restored picture in a PDF, from the headers.

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
        for fact, value in vars(old).items():
            written = getattr(new, fact)
            if written != value and not (fact == "dpi" and value and written and _same_resolution(value, written)):
                raise RefusedError(f"page {number} of {name!r} would lose its {fact}; report this")


def _same_resolution(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether two resolutions are equal but for rounding, which differs between formats in metres and in inches."""
    return all(abs(old - new) <= 1 for old, new in zip(before, after, strict=True))


def _check_pixels(digests: list[str], target: Path, name: str) -> None:
    written = [digest_of_pixels(page.pixels) for page in scan_pages(target.read_bytes(), str(target))]
    if written != digests:
        raise RefusedError(f"the pixels of {name!r} would be written incorrectly; report this")


def digest_of_pixels(pixels: Pixels) -> str:
    """SHA-256 (hex) of the type, shape and values of pixels, independent of their file format."""
    digest = hashlib.sha256(f"{pixels.dtype} {[side for side in pixels.shape if side > 1]}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()

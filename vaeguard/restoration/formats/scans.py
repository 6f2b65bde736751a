"""Rewrite scans: a function replaces the pixels of every page, and everything else stays as it was.

The size in pixels, channels, bit depth, number of pages, resolution, ICC profile, EXIF, XMP and orientation are kept.
Each written file is read again and compared with the original before the file takes its name. A JPEG becomes a PNG,
unless a JPEG is asked for; pictures in a PDF keep their codec. Pixels are processed as stored: the orientation is kept,
not applied. If no page changes, the file is copied.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from vaeguard.data.images import SUFFIXES_OF, format_of
from vaeguard.data.limits import clock, limit_memory
from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.restoration.formats.scan_format import Coding
from vaeguard.restoration.formats.scan_page import digest_of_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaeguard.restoration.formats.scan_format import Restore, Rewritten, ScanFormat
    from vaeguard.restoration.formats.scan_page import Page, PageFacts, Pixels


class Kind(NamedTuple):
    """A kind of scan: its name, the suffixes of its files, and the module of this folder that is its `ScanFormat`."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    lossless_suffix: str = ""
    """What is added to the name of a clean file, since the format itself loses something."""


KINDS = (
    Kind("PNG", SUFFIXES_OF["PNG"], "picture"),
    Kind("JPEG", SUFFIXES_OF["JPEG"], "picture", lossless_suffix=".png"),
    Kind("TIFF", SUFFIXES_OF["TIFF"], "tiff"),
    Kind("BMP", SUFFIXES_OF["BMP"], "picture"),
    Kind("WEBP", SUFFIXES_OF["WEBP"], "picture"),
    Kind("JPEG 2000", SUFFIXES_OF["JPEG 2000"], "jpeg2000"),
    Kind("PDF", (".pdf",), "pdf"),
)
_BY_SUFFIX = {suffix: kind for kind in KINDS for suffix in kind.suffixes}
SCAN_SUFFIXES = tuple(_BY_SUFFIX)
_BY_NAME = {kind.name: kind for kind in KINDS}


def written_name(name: str, *, jpeg: int | None) -> str:
    """The name of the clean file for the scan `name`; that of a JPEG ends in `.png`, unless `jpeg` is a quality."""
    kind = _BY_SUFFIX.get(Path(name).suffix.lower())
    return name + kind.lossless_suffix if kind and not jpeg else name


def _format_of(content: bytes, name: str) -> ScanFormat:
    """The format of a file, by its name or, if the name says nothing, by its first bytes.

    The module of a format is imported only now, since most formats need large libraries.
    """
    kind = _BY_SUFFIX.get(Path(name).suffix.lower()) or _BY_NAME.get(format_of(content[:16]) or "", KINDS[0])
    return cast("ScanFormat", import_module(f"vaeguard.restoration.formats.{kind.module}"))


def _check_name(content: bytes, name: str) -> None:
    """Refuse a file whose suffix names another format, since the clean file would have a wrong name, too."""
    named = _BY_SUFFIX.get(Path(name).suffix.lower())
    actual = format_of(content[:16])
    if actual and named and actual != named.name:
        raise UnreadableError(name, f"it is a {actual}, but its name ends like that of a {named.name}; rename it")


def rewrite(
    content: bytes,
    name: str,
    target: Path,
    restore: Restore,
    *,
    jpeg: int | None = None,
    lossless: bool = False,
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
    digests: list[str] = []
    changed = False

    def restored_page(page: Page) -> Pixels:
        nonlocal changed
        restored = restore(page)
        if restored.shape != page.pixels.shape or restored.dtype != page.pixels.dtype:
            raise ValueError(f"page {page.number}: {restored.dtype} {restored.shape} came back")
        if np.array_equal(restored, page.pixels):
            restored = page.pixels
        changed = changed or restored is not page.pixels
        digests.append(digest_of_pixels(restored))
        return restored

    result = _format_of(content, name).rewrite(content, name, target, restored_page, Coding(jpeg, lossless))
    if not changed and Path(name).suffix == target.suffix:
        target.write_bytes(content)
        return result
    limit_memory(held=-target.stat().st_size)  # the written file may be larger than one page
    _check_facts(content, target, name)
    _check_pixels(digests if result.digests is None else result.digests, target, name)
    return result


def scan_pages(content: bytes, name: str) -> Iterator[Page]:
    """Read the pages of a scan one by one.

    Raises
    ------
    UnreadableError
        The scan is damaged, or its kind is not restored.
    """
    _check_name(content, name)
    for page in _format_of(content, name).pages(content, name):
        clock.restart()
        yield page


def facts_of(content: bytes, name: str) -> list[PageFacts]:
    """Read the metadata that must be kept, page by page; empty for a PDF, of which all but the pictures is copied.

    Raises
    ------
    UnreadableError
        The file is damaged.
    """
    return _format_of(content, name).facts(content, name)


def page_sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """Read the height and width of each page, or of each restored picture in a PDF, from the headers.

    Raises
    ------
    UnreadableError
        The scan is damaged.
    """
    _check_name(content, name)
    return _format_of(content, name).sizes(content, name)


def _check_facts(content: bytes, target: Path, name: str) -> None:
    before, after = facts_of(content, name), facts_of(target.read_bytes(), str(target))
    if len(before) != len(after):
        raise RefusedError(
            f"{name!r} has {len(before)} pages, but {len(after)} would have been written; please report this"
        )
    for number, (old, new) in enumerate(zip(before, after, strict=True), 1):
        for fact, value in vars(old).items():
            written = getattr(new, fact)
            if written != value and not (fact == "dpi" and value and written and _same_resolution(value, written)):
                raise RefusedError(f"page {number} of {name!r} would lose its {fact}; please report this")


def _same_resolution(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether two resolutions are equal but for rounding, which differs between formats in metres and in inches."""
    return all(abs(old - new) <= 1 for old, new in zip(before, after, strict=True))


def _check_pixels(digests: list[str], target: Path, name: str) -> None:
    written = [digest_of_pixels(page.pixels) for page in scan_pages(target.read_bytes(), str(target))]
    if written != digests:
        raise RefusedError(f"the pixels of {name!r} would be written incorrectly; please report this")

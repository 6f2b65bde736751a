"""Copies of scans in black and white: a TIFF of all pages, compressed by CCITT Group 4, or a PDF of such pictures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from PIL import Image, TiffImagePlugin

from vaeguard.errors import RefusedError
from vaeguard.restoration.formats.scan_page import ORIENTATION, digest_of_pixels
from vaeguard.restoration.formats.scans import facts_of, scan_pages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from vaeguard.restoration.formats.scan_page import Page, PageFacts

    Mask = npt.NDArray[np.bool_]

GROUP_4: dict[str, Any] = {"format": "TIFF", "compression": "group4", "strip_size": 2**31 - 1}
"""Options of Pillow for one strip of Group 4."""
_TEXTS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)
"""Tags that describe a page in words: titles, makers, dates, authors."""
_XMP = 700
_STRIP, _LENGTH = 273, 279


def write_bilevel(content: bytes, name: str, target: Path, threshold: Callable[[Page], Any]) -> None:
    """Write a TIFF with the white pixels that `threshold` returns for each page of a scan.

    Resolution, orientation, XMP and the words that describe a page stay.

    Raises
    ------
    UnreadableError
        The scan is damaged.
    RefusedError
        The copy would not be as `threshold` returned it.
    """
    facts = facts_of(content, name)
    digests = []
    with TiffImagePlugin.AppendingTiffWriter(str(target), new=True) as file:
        for page, stated in zip(scan_pages(content, name), facts, strict=True):
            white = threshold(page)
            digests.append(digest_of_pixels(white))
            resolution = {"dpi": stated.dpi} if stated.dpi else {}
            Image.fromarray(white).save(file, **GROUP_4, **resolution, tiffinfo=_tags(page, stated))  # type: ignore[arg-type]
            file.newFrame()
    if [digest_of_pixels(page.pixels) for page in scan_pages(target.read_bytes(), "copy.tif")] != digests:
        raise RefusedError(f"the black and white copy of {name!r} would be written incorrectly; please report this")


def _tags(page: Page, facts: PageFacts) -> dict[int, Any]:
    texts = {code: text.encode() for code, text in facts.exif if code in _TEXTS}
    xmp = {_XMP: facts.xmp} if facts.xmp else {}
    return {ORIENTATION: page.orientation, **texts, **xmp}


def group4(white: Mask) -> bytes:
    """Compress white pixels by CCITT Group 4, in which the runs of black are those of ink."""
    file = io.BytesIO()
    Image.fromarray(~white).save(file, **GROUP_4)
    with Image.open(file, formats=["TIFF"]) as image:
        tags: Any = image
        start, length = tags.tag_v2[_STRIP][0], tags.tag_v2[_LENGTH][0]
    return file.getvalue()[start : start + length]

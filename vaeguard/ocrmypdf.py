"""A plugin for OCRmyPDF: pages are cleaned before they are read, and on request in the PDF as well.

OCRmyPDF finds it by itself where both are installed, and it does nothing unless `--vaeguard ocr` or `--vaeguard page`
is given. Pages keep their size in pixels and their resolution, so the text layer lies where it did.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from ocrmypdf import hookimpl
from ocrmypdf.exceptions import BadArgsError
from PIL import Image

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from pathlib import Path

    from vaeguard.restoration.restorer import Restorer

MODES = ("L", "RGB")
"""Modes of pictures that are cleaned; those of one bit have nothing to clean."""
MOST_SIDE = 32_000
"""Pixels a side; OCRmyPDF itself shrinks larger pages for tesseract."""
JPEG_QUALITY = 75
"""OCRmyPDF's own, so that a page takes the room that it would take."""


@hookimpl
def add_options(parser: ArgumentParser) -> None:
    """Add `--vaeguard`."""
    group = parser.add_argument_group("vaeguard", "Clean stained, folded and noisy pages")
    group.add_argument(
        "--vaeguard",
        choices=("ocr", "page"),
        help="What to clean: with ocr, only the images that the OCR engine reads; with page, also the pages of the PDF,"
        " which needs --force-ocr or --deskew.",
    )


@hookimpl
def check_options(options: Any) -> None:
    """Refuse `page` where OCRmyPDF keeps the pages as they are and would not ask for clean ones."""
    if _asked(options) == "page" and options.lossless_reconstruction:
        raise BadArgsError("--vaeguard page needs newly written page images; add --force-ocr, or use --vaeguard ocr")


@hookimpl
def filter_ocr_image(page: Any, image: Image.Image) -> Image.Image | None:
    """The clean image for the OCR engine; None leaves it to the other plugins."""
    if not _asked(page.options) or image.mode not in MODES or max(image.size) > MOST_SIDE:
        return None
    return _cleaned(image)


@hookimpl
def filter_page_image(page: Any, image_filename: Path) -> Path | None:
    """The clean image of the page, in the format that OCRmyPDF chose; None leaves it as it is."""
    if _asked(page.options) != "page":
        return None
    with Image.open(image_filename) as image:
        if image.mode not in MODES:
            return None
        clean = _cleaned(image)
    target = image_filename.with_stem(f"{image_filename.stem}-vaeguard")
    clean.save(target, dpi=clean.info.get("dpi"), quality=JPEG_QUALITY)  # a PNG takes no quality
    return target


def _asked(options: Any) -> str | None:
    mode: str | None = options.extra_attrs.get("vaeguard")
    return mode


def _cleaned(image: Image.Image) -> Image.Image:
    """The clean image, with the resolution of the original."""
    from vaeguard.settings.restoration import RestoreSettings

    clean = Image.fromarray(_restorer().restore(np.asarray(image), RestoreSettings()).pixels)
    clean.info.update({key: value for key, value in image.info.items() if key == "dpi"})
    return clean


@cache
def _restorer() -> Restorer:
    """The denoisers, opened in the process that uses them: OCRmyPDF has one for each page at a time.

    They are imported here, since OCRmyPDF loads the plugin at every start, asked or not.
    """
    from vaeguard.restoration.restorer import open_restorer

    return open_restorer(None, "cpu", 1)

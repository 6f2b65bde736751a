"""Whether a page can still be read, as tesseract sees it."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError, VaeguardError
from vaeguard.scans import encode_png

if TYPE_CHECKING:
    from vaeguard.scans import Pixels

CONFIDENT = 90.0
"""Percent, by tesseract's own account."""
LEAST_LETTERS = 3
DEFAULT_DPI = 150


def words_lost(before: Pixels, after: Pixels, dpi: float | None) -> bool:
    """Whether fewer words can be read with confidence `after` than `before`."""
    return confident_words(after, dpi).total() < confident_words(before, dpi).total()


def confident_words(pixels: Pixels, dpi: float | None) -> Counter[str]:
    """The words of a page that tesseract is sure of, with how often each occurs.

    Raises
    ------
    UsageError
        Tesseract is not installed.
    VaeguardError
        It failed.
    """
    table = _run(pixels, dpi, "tsv")
    rows = csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE)
    return Counter(
        row["text"]
        for row in rows
        if row["text"] and sum(map(str.isalnum, row["text"])) >= LEAST_LETTERS and float(row["conf"]) >= CONFIDENT
    )


def read_text(pixels: Pixels, dpi: float | None = None) -> str:
    """The text of a page, as tesseract reads it.

    Raises
    ------
    UsageError, VaeguardError
        As `confident_words`.
    """
    return _run(pixels, dpi, "txt")


def check_tesseract() -> None:
    """Complain where tesseract is missing.

    Raises
    ------
    UsageError
        It is.
    """
    if shutil.which("tesseract") is None:
        raise UsageError("--ocr needs the program tesseract; install it (on Debian: apt install tesseract-ocr)")


def _run(pixels: Pixels, dpi: float | None, kind: str) -> str:
    check_tesseract()
    resolution = str(round(dpi or DEFAULT_DPI))
    command = ["tesseract", "stdin", "stdout", "--dpi", resolution, "--psm", "6", kind]
    done = subprocess.run(command, input=encode_png(pixels, []), capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        raise VaeguardError(f"tesseract failed ({done.stderr.decode(errors='replace').strip()}); leave out --ocr")
    return done.stdout.decode(errors="replace")

"""Whether a page can still be read, as tesseract sees it."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError, VaeguardError
from vaeguard.restoration.scans_picture import encode_png

if TYPE_CHECKING:
    from vaeguard.restoration.scan_page import Pixels

CONFIDENT = 90.0
"""Percent, by tesseract's own account."""
LEAST_LETTERS = 3
DEFAULT_DPI = 150


def words_lost(before: Pixels, after: Pixels, dpi: float | None) -> bool:
    """Whether more words that were read with confidence are gone afterwards than new ones have come.

    Raises
    ------
    UsageError
        Tesseract is not installed.
    VaeguardError
        It failed.
    """
    old, new = _words(before, dpi), _words(after, dpi)
    gone = _confident(old) - Counter(word for word, _ in new)
    come = _confident(new) - Counter(word for word, _ in old)
    return gone.total() > come.total()


def _confident(words: list[tuple[str, float]]) -> Counter[str]:
    return Counter(word for word, confidence in words if confidence >= CONFIDENT)


def _words(pixels: Pixels, dpi: float | None) -> list[tuple[str, float]]:
    """The words of a page with tesseract's confidence in each, in percent."""
    rows = csv.DictReader(io.StringIO(_run(pixels, dpi, "tsv")), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [
        (row["text"], float(row["conf"]))
        for row in rows
        if row["text"] and sum(map(str.isalnum, row["text"])) >= LEAST_LETTERS
    ]


def read_text(pixels: Pixels, dpi: float | None = None) -> str:
    """The text of a page, as tesseract reads it.

    Raises
    ------
    UsageError
        Tesseract is not installed.
    VaeguardError
        It failed.
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
    # One page is little work; its threads would only wait for each other.
    environment = os.environ | {"OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(command, input=encode_png(pixels, []), capture_output=True, check=False, env=environment)  # noqa: S603
    if done.returncode:
        raise VaeguardError(f"tesseract failed ({done.stderr.decode(errors='replace').strip()}); leave out --ocr")
    return done.stdout.decode(errors="replace")

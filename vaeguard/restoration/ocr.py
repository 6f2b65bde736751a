"""Text recognition by tesseract: read a page, and compare its words before and after cleaning."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError, VaeguardError
from vaeguard.restoration.formats.picture import encode_png

if TYPE_CHECKING:
    from vaeguard.restoration.formats.scan_page import Pixels

CONFIDENT = 90.0
"""Tesseract's own confidence in a word, in percent, from which the word counts."""
LEAST_LETTERS = 3
"""Shorter words do not count."""
DEFAULT_DPI = 150
CREDIBLE_DPI = (70, 2400)
"""The resolutions that tesseract takes; a page whose file states another one gets the default."""


def words_lost(before: Pixels, after: Pixels, dpi: float | None, language: str = "") -> bool:
    """Whether cleaning lost more confidently read words than it gained, or lost any number.

    A changed word may have been misread before cleaning, but nobody would notice a changed number.
    `language` is a code of tesseract, or several, such as `deu+fra`; tesseract's default is English.

    Raises
    ------
    UsageError
        Tesseract is not installed.
    VaeguardError
        Tesseract failed.
    """
    old, new = _words(before, dpi, language), _words(after, dpi, language)
    lost = _confident(old) - Counter(word for word, _ in new)
    gained = _confident(new) - Counter(word for word, _ in old)
    return lost.total() > gained.total() or any(any(map(str.isdigit, word)) for word in lost)


def _confident(words: list[tuple[str, float]]) -> Counter[str]:
    return Counter(word for word, confidence in words if confidence >= CONFIDENT)


def _words(pixels: Pixels, dpi: float | None, language: str) -> list[tuple[str, float]]:
    """The words of a page without punctuation, and tesseract's confidence in each word, in percent."""
    rows = csv.DictReader(io.StringIO(_run(pixels, dpi, "tsv", language)), delimiter="\t", quoting=csv.QUOTE_NONE)
    words = (("".join(filter(str.isalnum, row["text"] or "")), float(row["conf"])) for row in rows)
    return [(word, confidence) for word, confidence in words if len(word) >= LEAST_LETTERS]


def read_text(pixels: Pixels, dpi: float | None = None) -> str:
    """Read the text of a page with tesseract.

    Raises
    ------
    UsageError
        Tesseract is not installed.
    VaeguardError
        Tesseract failed.
    """
    return _run(pixels, dpi, "txt")


def check_tesseract(language: str = "") -> None:
    """Check that tesseract and the data of a language are installed.

    Raises
    ------
    UsageError
        Tesseract or a language is missing.
    """
    if shutil.which("tesseract") is None:
        raise UsageError(
            "`ocr` needs the program tesseract, which is not installed; install it (on Debian: tesseract-ocr)"
        )
    if language:
        listing = subprocess.run(["tesseract", "--list-langs"], capture_output=True, check=False, text=True)  # noqa: S607
        known = listing.stdout.split()
        for code in language.split("+"):
            if code not in known:
                raise UsageError(
                    f"`ocr_language` contains {code!r}, which tesseract does not know; install that language (on"
                    f" Debian: apt install tesseract-ocr-{code.replace('_', '-')})"
                )


def _run(pixels: Pixels, dpi: float | None, kind: str, language: str = "") -> str:
    check_tesseract()
    credible = dpi if dpi and CREDIBLE_DPI[0] <= dpi <= CREDIBLE_DPI[1] else DEFAULT_DPI
    options = ["--dpi", str(round(credible)), "--psm", "6", *(["-l", language] if language else [])]
    command = ["tesseract", "stdin", "stdout", *options, kind]
    # A page is too little work for several threads.
    environment = os.environ | {"OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(command, input=encode_png(pixels, []), capture_output=True, check=False, env=environment)  # noqa: S603
    if done.returncode:
        raise VaeguardError(f"tesseract failed ({done.stderr.decode(errors='replace').strip()}); remove `ocr`")
    return done.stdout.decode(errors="replace")

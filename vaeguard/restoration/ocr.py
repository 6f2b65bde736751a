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
from vaeguard.restoration.formats.picture import encode_png

if TYPE_CHECKING:
    from vaeguard.restoration.formats.scan_page import Pixels

CONFIDENT = 90.0
"""Percent, by tesseract's own account."""
LEAST_LETTERS = 3
DEFAULT_DPI = 150


def words_lost(before: Pixels, after: Pixels, dpi: float | None, language: str = "") -> bool:
    """Whether more words that were read with confidence are gone afterwards than new ones have come, or any number.

    A word that is read otherwise may have been misread before; a number that is read otherwise, nobody would notice.
    `language` is what tesseract calls one or several, such as `deu+fra`; its own choice is English.

    Raises
    ------
    UsageError
        Tesseract is not installed.
    VaeguardError
        It failed.
    """
    old, new = _words(before, dpi, language), _words(after, dpi, language)
    gone = _confident(old) - Counter(word for word, _ in new)
    come = _confident(new) - Counter(word for word, _ in old)
    return gone.total() > come.total() or any(any(map(str.isdigit, word)) for word in gone)


def _confident(words: list[tuple[str, float]]) -> Counter[str]:
    return Counter(word for word, confidence in words if confidence >= CONFIDENT)


def _words(pixels: Pixels, dpi: float | None, language: str) -> list[tuple[str, float]]:
    """The words of a page, letters and digits alone, with tesseract's confidence in each, in percent."""
    rows = csv.DictReader(io.StringIO(_run(pixels, dpi, "tsv", language)), delimiter="\t", quoting=csv.QUOTE_NONE)
    read = (("".join(filter(str.isalnum, row["text"] or "")), float(row["conf"])) for row in rows)
    return [(word, confidence) for word, confidence in read if len(word) >= LEAST_LETTERS]


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


def check_tesseract(language: str = "") -> None:
    """Complain where tesseract, or what it knows of a language, is missing.

    Raises
    ------
    UsageError
        It is.
    """
    if shutil.which("tesseract") is None:
        raise UsageError(
            "`ocr` needs the program tesseract, which is not installed; install it (on Debian: apt install"
            " tesseract-ocr)"
        )
    if language:
        done = subprocess.run(["tesseract", "--list-langs"], capture_output=True, check=False, text=True)  # noqa: S607
        known = done.stdout.split()
        for one in language.split("+"):
            if one not in known:
                raise UsageError(
                    f"`ocr_language` names {one!r}, which tesseract does not know; install it (on Debian: apt install"
                    f" tesseract-ocr-{one.replace('_', '-')})"
                )


def _run(pixels: Pixels, dpi: float | None, kind: str, language: str = "") -> str:
    check_tesseract()
    resolution = str(round(dpi or DEFAULT_DPI))
    command = [
        "tesseract",
        "stdin",
        "stdout",
        "--dpi",
        resolution,
        "--psm",
        "6",
        *(["-l", language] if language else []),
        kind,
    ]
    # One page is little work; its threads would only wait for each other.
    environment = os.environ | {"OMP_THREAD_LIMIT": "1"}
    done = subprocess.run(command, input=encode_png(pixels, []), capture_output=True, check=False, env=environment)  # noqa: S603
    if done.returncode:
        raise VaeguardError(f"tesseract failed ({done.stderr.decode(errors='replace').strip()}); leave out `ocr`")
    return done.stdout.decode(errors="replace")

"""Dirty pages through OCRmyPDF without and with the plugin: wrong characters, and the size of the PDF.

python -m benchmarks.ocr_plugin

Twelve odd pages of the dirty documents, never trained on, three of each kind of dirt, go as a PDF of JPEG pictures
through the command `ocrmypdf`. The truth is what tesseract reads on the clean page of each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.common import data_dir, write_result
from benchmarks.restoration import document_rows, error_rate, grey, text_of

RESOLUTION, QUALITY = 100, 85
RUNS = {"without": (), "--vaeguard ocr": ("--vaeguard", "ocr"), "--vaeguard page": ("--vaeguard", "page")}
PLAIN = ("--force-ocr", "--output-type", "pdf", "--quiet")
KINDS = ("stain", "fold", "dark", "wrinkle")
PAGES = 3


def main() -> None:
    """Make the PDF, read it three times, and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    folder, rows = data_dir() / "dirty-documents", document_rows(odd=True)
    names = [*chain.from_iterable([row["image"] for row in rows if row["noise"] == kind][:PAGES] for kind in KINDS)]
    truth = [text_of(grey(folder / "train_cleaned" / name)) for name in names]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "dirty.pdf"
        first, *rest = (Image.open(folder / "train" / name).convert("L") for name in names)
        first.save(source, save_all=True, append_images=rest, resolution=RESOLUTION, quality=QUALITY)
        found = [measured(source, name, options, truth) for name, options in RUNS.items()]
    notes = [f"{len(names)} pages, ocrmypdf {' '.join(PLAIN)}; size is that of the PDF over that of the input."]
    write_result("ocr_plugin", "Dirty pages through OCRmyPDF", found, notes)


def measured(source: Path, name: str, options: tuple[str, ...], truth: list[str]) -> dict[str, Any]:
    """Wrong characters of all pages and of the worst one, and the size of the PDF."""
    target, text = source.with_name("read.pdf"), source.with_name("read.txt")
    command = [sys.executable, "-m", "ocrmypdf", *PLAIN, *options, "--sidecar", text, source, target]
    subprocess.run([*map(str, command)], check=True)  # noqa: S603
    pages = [" ".join(page.split()) for page in text.read_text("utf-8").split("\f")][: len(truth)]
    rates = [error_rate(*pair) for pair in zip(truth, pages, strict=True)]
    whole = sum(rate * len(page) for rate, page in zip(rates, truth, strict=True)) / sum(map(len, truth))
    size = target.stat().st_size / source.stat().st_size
    return {"name": name, "wrong_characters": whole, "worst_page": max(rates), "size": round(size, 3)}


if __name__ == "__main__":
    main()

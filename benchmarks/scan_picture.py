"""Draw docs/pictures/scan.jpg: a page worn by a program, and the same page as `vaeguard denoise` gives it back.

python -m benchmarks.scan_picture [--seed 34]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import vaeguard
from vaeguard.restoration.denoiser import shipped_denoiser
from vaeguard.restoration.networks.degrade import degrade_document

TARGET = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "scan.jpg"
TEXT = """The archive holds some forty boxes of letters, bills and
reports, typed between 1921 and 1938, most of them on thin
paper. Coffee was spilt on a few, nearly all were folded, and
the lamp of the copying stand stood to the left. What can be
read today should be read tomorrow as well: nothing may be
lost on the way, and nothing may be added to it, not even a
comma. The originals stay as they are; beside each clean
page lies a note of what was done to it, and by how much."""
FONT, SIZE, LINE, MARGIN = "/usr/share/fonts/truetype/dejavu/DejaVuSerif.ttf", 19, 32, 22
TINT = (1.0, 0.95, 0.82)
GAP, QUALITY = 10, 82


def main() -> None:
    """Print the page, wear it, restore it, and put both side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=34)
    given = parser.parse_args()
    page = Image.new("L", (620, 300), 255)
    draw, font = ImageDraw.Draw(page), ImageFont.truetype(FONT, SIZE)
    for number, line in enumerate(TEXT.splitlines()):
        draw.text((MARGIN, MARGIN + LINE * number), line, fill=30, font=font)
    clean = np.asarray(page, np.float32) / np.float32(255)
    worn, _ = degrade_document(clean, np.random.default_rng(given.seed))
    scan = np.round(255 * worn[..., None] * np.array(TINT)).astype(np.uint8)
    denoiser = shipped_denoiser("document", "cpu", 1)
    found = vaeguard.restore_page(scan, lambda _: denoiser, vaeguard.RestoreSettings(kind="document"))
    gap = np.full((scan.shape[0], GAP, 3), 255, np.uint8)
    Image.fromarray(np.concatenate([scan, gap, found.pixels], 1)).save(TARGET, quality=QUALITY)
    print(f"{found.report} -> {TARGET}")


if __name__ == "__main__":
    main()

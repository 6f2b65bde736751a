"""Draw docs/pictures/part.jpg: a wall with a crack that a program drew, and the same with its heat and its spots.

python -m benchmarks.part_picture

The photograph is the brick wall of scikit-image (CC0, `pip install '.[peers]'`). Sixty crops of its upper part are the
good parts; the crack is in a crop of its lower part, which the fit never saw. Everything is left at its defaults.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

TARGET = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "part.jpg"
COMMAND = Path(sys.executable).with_name("vaeguard")
SIDE, GOOD, HORIZON = 192, 60, 320
CRACK = [(52, 60), (66, 74), (72, 92), (88, 101), (93, 118)]
GAP, QUALITY = 10, 85


def main() -> None:
    """Crop, fit, score, and put the photograph and its overlay side by side."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    from skimage.data import brick

    wall, draw = np.asarray(brick()), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        for folder in ("good", "test"):
            (home / folder).mkdir()
        for number in range(GOOD):
            top, left = draw.integers(HORIZON - SIDE + 1), draw.integers(wall.shape[1] - SIDE + 1)
            Image.fromarray(wall[top : top + SIDE, left : left + SIDE]).save(home / "good" / f"{number:02d}.png")
        part = Image.fromarray(wall[HORIZON : HORIZON + SIDE, 150 : 150 + SIDE])
        ImageDraw.Draw(part).line(CRACK, fill=40, width=2)
        part.save(home / "test" / "part.png")
        _run("fit", home / "good", "-o", home / "run")
        _run("score", home / "test", "-m", home / "run", "-o", home / "scores.csv", "--heatmaps", home / "heat")
        (overlay,) = (home / "heat").rglob("*.overlay.png")
        sides = [np.asarray(Image.open(path).convert("RGB")) for path in (home / "test" / "part.png", overlay)]
        print((home / "spots.csv").read_text())
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    Image.fromarray(np.concatenate([sides[0], gap, sides[1]], 1)).save(TARGET, quality=QUALITY)


def _run(*arguments: object) -> None:
    subprocess.run([COMMAND, *map(str, arguments)], check=True)  # noqa: S603


if __name__ == "__main__":
    main()

"""Find bad parts in a folder: learn from 40 good parts, score new parts, and say where flagged parts look bad.

python examples/find_bad_parts.py [FOLDER]   (the program makes the pictures; to use your own, remove `make_parts`)
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import vaeguard

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-parts")
random = np.random.default_rng(0)


def make_parts(target: Path, count: int, *, bad: bool = False) -> None:
    """Write pictures of `count` discs with some noise; `bad` discs have a scratch."""
    target.mkdir(parents=True)
    for number in range(count):
        part = Image.new("L", (96, 96), 90)
        ImageDraw.Draw(part).ellipse((16, 16, 80, 80), fill=int(random.integers(175, 185)))
        if bad:
            ImageDraw.Draw(part).line((*random.integers(30, 40, 2), *random.integers(50, 65, 2)), fill=60, width=2)
        noisy = np.asarray(part) + random.normal(0, 5, (96, 96))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(target / f"{number:03}.png")


for name, count in (("good", 40), ("new/good", 20), ("new/bad", 5)):
    make_parts(folder / name, count, bad=name == "new/bad")
detector = vaeguard.fit(vaeguard.open_images(folder / "good"), run=folder / "run")
summary = vaeguard.score_files(detector, [folder / "new"], folder / "scores.csv", fpr=0.05)
new = vaeguard.open_images(folder / "new")
found = detector.inspect(np.asarray(new.images[:]), pictures=True)
for row in np.flatnonzero(found.p_value <= summary.fpr):
    y, x = np.unravel_index(found.heatmap[row].argmax(), found.heatmap[row].shape)
    print(f"{new.paths[row]}: p-value {found.p_value[row]:.3f}, most anomalous at x {x}, y {y}")
print(f"{summary.anomalies} of {summary.images} new parts are flagged; the table is {summary.output}")

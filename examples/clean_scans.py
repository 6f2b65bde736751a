"""Clean a folder of scans, list the pages to check, restore the originals, and check the files years later.

python examples/clean_scans.py [FOLDER]

The program first makes scans: lines of text on stained, noisy paper. For scans of your own, remove `make_scans`.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import vaeguard

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "example-scans")
random = np.random.default_rng(0)


def make_scans(target: Path, count: int) -> None:
    """Write `count` pages with a stain and noise."""
    target.mkdir(parents=True)
    for number in range(count):
        page = Image.new("L", (400, 300), 225)
        ImageDraw.Draw(page).ellipse((150, 80, 330, 240), fill=190)
        ImageDraw.Draw(page).text((20, 20), f"Page {number + 1}\n" + 8 * "The quick brown fox\n", fill=40, font_size=20)
        noisy = np.asarray(page) + random.normal(0, 10, (300, 400))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(target / f"{number + 1}.png", dpi=(150, 150))


make_scans(folder / "scans", 2)
outputs = vaeguard.DenoiseOutputs(residual=True)  # without residuals, the originals cannot be restored
done = vaeguard.denoise_scans(folder / "scans", folder / "clean", outputs=outputs)
print(f"{done.pages} pages cleaned in {done.seconds:.1f} s; {len(done.look_first)} of them to check: {done.output}")
vaeguard.undo_scans(folder / "clean", folder / "originals")
same = np.array_equal(Image.open(folder / "originals/1.png"), Image.open(folder / "scans/1.png"))
print(f"the original of page 1 is {'the same' if same else 'NOT the same'}")
files, changed = vaeguard.check_scans(folder / "clean")
print(f"{files} clean files are unchanged, {len(changed)} have changed")

"""Train the denoisers that ship, from photographs and fonts with free licences.

python -m benchmarks.train_denoisers photo --photos FOLDER --held-out FOLDER      photographs, searched recursively
python -m benchmarks.train_denoisers document                                     fonts of the system

The multiple behind the stated interval is measured on --held-out, or on pages that were not trained on; with
--interval-only the weights that ship stay, and it alone is measured anew.

vaeguard/weights/README.md names the photographs and fonts. The result is vaeguard/weights/<kind>.onnx; training takes
half an hour (document) to two hours on one core.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from pydoc_data import topics
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import vaeguard

if TYPE_CHECKING:
    import numpy.typing as npt

    Rng = np.random.Generator

WEIGHTS = Path(vaeguard.__file__).parent / "weights"
SETTINGS: dict[str, dict[str, Any]] = {
    "photo": {"width": 40, "depth": 6, "steps": 56_000, "exact_steps": 4_000, "by_noise": True},
    "document": {"width": 32, "depth": 8, "steps": 14_000, "exact_steps": 0, "by_noise": False},
}
EXACT_RATE = 2e-4
"""Of the last steps, in float32: bfloat16 rounds by about as much as weak noise deviates."""
SIDES = (560, 900, 1500)
"""Photographs are scaled down to these, which also removes what noise and compression they have."""
PAGE = 640
NOT_LETTERS = "Symbol|Initials|Dingbats|D050|Hairline|Keyboard|MathTeX"
RARE = ["0123456789", "äöüéèñçøßÀÉ", "§&%€£", "½", "...", ",;:!?()[]"]


def photographs(folder: Path) -> list[list[npt.NDArray[np.uint8]]]:
    """Every photograph below `folder`, grey, each at several sizes."""
    found = []
    for path in vaeguard.list_images([folder]):
        image = Image.open(path).convert("RGB")
        sizes = []
        for side in SIDES:
            share = side / max(image.size)
            if share <= 0.67:
                size = round(image.width * share), round(image.height * share)
                kind = Image.Resampling.BOX if share < 0.34 else Image.Resampling.LANCZOS
                sizes.append(np.asarray(image.resize(size, kind).convert("L")))
        found.append(sizes)
    return found


class Printer:
    """Draws pages of text: free fonts, words of Python's own manual."""

    def __init__(self) -> None:
        paths = (str(path) for suffix in ("ttf", "otf", "t1") for path in Path("/usr/share/fonts").rglob(f"*.{suffix}"))
        self.fonts = sorted(path for path in paths if not re.search(NOT_LETTERS, path))
        text = re.sub(r"[^\x20-\x7e]+", " ", " ".join(topics.topics.values()))
        self.words = re.sub(r"[*=~`|^_-]{2,}|``|\*\*", " ", text).split()

    def __call__(self, rng: Rng) -> tuple[npt.NDArray[np.float32], int]:
        """A clean page, and the size of its letters in pixels."""
        size = int(np.exp(rng.uniform(np.log(11), np.log(56))))
        ink = 0 if rng.random() < 0.8 else int(rng.integers(0, 90))
        page = Image.new("L", (PAGE, PAGE), 255)
        self._print(ImageDraw.Draw(page), size, ink, rng)
        if rng.random() < 0.25:
            page = page.rotate(rng.uniform(-3, 3), Image.Resampling.BICUBIC, fillcolor=255)
        return np.asarray(page, np.float32) / np.float32(255), size

    def _print(self, draw: ImageDraw.ImageDraw, size: int, ink: int, rng: Rng) -> None:
        font = self._font(size, rng)
        left, height = int(rng.integers(-size, 3 * size)), float(rng.integers(-size, size))
        lead, at = rng.uniform(1.05, 1.6) * size, int(rng.integers(len(self.words) - 5000))
        while height < PAGE:
            indent = 0
            if rng.random() < 0.06:
                height, indent = height + lead, 2 * size
            line, room = "", PAGE - left - indent - size + (60 if rng.random() < 0.3 else 0)
            while font.getlength(line) < room and rng.random() > 0.02:
                line += self._word(at, rng) + " "
                at += 1
            draw.text((left + indent, height), line, fill=ink, font=font)
            height += lead
            if rng.random() < 0.04:
                draw.line((0, int(height), PAGE, int(height)), fill=ink, width=int(rng.integers(1, 4)))
            if rng.random() < 0.03:
                font = self._font(size, rng)
        if rng.random() < 0.15:
            corners = np.sort(rng.integers(0, PAGE, (2, 2)), axis=0)
            draw.rectangle([int(value) for value in corners.flatten()], outline=ink, width=int(rng.integers(1, 4)))

    def _font(self, size: int, rng: Rng) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(self.fonts[rng.integers(len(self.fonts))], size)

    def _word(self, at: int, rng: Rng) -> str:
        if rng.random() < 0.05:
            return str(rng.integers(10 ** int(rng.integers(1, 6))))
        return (RARE[rng.integers(len(RARE))] if rng.random() < 0.06 else "") + self.words[at % len(self.words)]


def main() -> None:
    """Train one denoiser, or keep the one that ships; measure its interval, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=SETTINGS)
    parser.add_argument("--photos", type=Path, help="photographs to train on")
    parser.add_argument("--held-out", type=Path, help="photographs to measure the interval on")
    parser.add_argument("--interval-only", action="store_true", help="keep the weights that ship")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.kind == "photo" and not (given.held_out and (given.photos or given.interval_only)):
        parser.error("give --photos to train on, and --held-out to measure the interval on")
    path = WEIGHTS / f"{given.kind}.onnx"
    if given.interval_only:
        (net, _), card = vaeguard.read_networks(path), vaeguard.shipped_denoiser(given.kind, "cpu", 1).card
    else:
        net, card = _trained(given)
    if given.kind == "photo":
        grey = [np.asarray(Image.open(name).convert("L")) for name in vaeguard.list_images([given.held_out])]
        held_out = vaeguard.photo_batches(grey, given.seed)
    else:
        held_out = vaeguard.page_batches(Printer(), given.seed + 10_000)
    interval = vaeguard.interval_of(net, held_out)
    vaeguard.write_denoiser(net, path, given.kind, interval=interval, card=card)
    print(f"{given.kind}: interval {interval:.3f} -> {WEIGHTS}")


def _trained(given: argparse.Namespace) -> tuple[vaeguard.DirectDenoiser, dict[str, Any]]:
    """The network, and how it came to be."""
    settings = SETTINGS[given.kind]
    steps = given.steps or settings["steps"]
    torch.manual_seed(given.seed)
    # A fifth faster on a CPU with channels last.
    net = vaeguard.DirectDenoiser(settings["width"], settings["depth"]).to(memory_format=torch.channels_last)
    if given.kind == "photo":
        photos = [size for sizes in photographs(given.photos) for size in sizes]
        batches, others = (vaeguard.photo_batches(photos, given.seed + more) for more in (0, 1))
    else:
        batches, others = (vaeguard.page_batches(Printer(), given.seed + more) for more in (0, 1))
    loss = vaeguard.supervised_loss(net, by_noise=settings["by_noise"], bf16=vaeguard.has_bf16("cpu"))
    net, _ = vaeguard.train_network(net, loss, batches, steps, progress=_say)
    if last := settings["exact_steps"]:
        loss = vaeguard.supervised_loss(net.requires_grad_(), by_noise=settings["by_noise"])
        net, _ = vaeguard.train_network(net, loss, others, last, rate=EXACT_RATE, progress=_say)
    net = net.to(memory_format=torch.contiguous_format)
    vaeguard.fit_spread(net, batches)
    recipe = {"recipe": "benchmarks/train_denoisers.py", "seed": given.seed, "steps": steps + last}
    return net, {**recipe, **vaeguard.environment("cpu")}


def _say(step: int, steps: int, text: str) -> None:
    if step % 500 == 0:
        print(f"{step}/{steps} {text}", flush=True)


if __name__ == "__main__":
    main()

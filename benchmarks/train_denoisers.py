"""Train the denoisers that ship, from photographs and fonts with free licences.

python -m benchmarks.train_denoisers photo --photos FOLDER --held-out FOLDER      photographs, searched recursively
python -m benchmarks.train_denoisers colour --photos FOLDER                       in colour: the estimator alone
python -m benchmarks.train_denoisers document                                     fonts of the system

The multiple behind the stated interval is measured on --held-out, or on pages that were not trained on. `--part` trains
a part and keeps the others that ship: the `network`, the `estimator` of the noise of photographs, or the `interval`
alone. The network for colours starts from the one for grey photographs.

vaeguard/weights/README.md names the photographs and fonts. The result is vaeguard/weights/<kind>.onnx; training takes
half an hour (document) to two hours on one core. Where it is killed, the same command goes on from --checkpoints.
"""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from pydoc_data import topics
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import vaeguard
from vaeguard.data.folders import list_images
from vaeguard.devices import has_bf16
from vaeguard.restoration.denoiser import shipped_denoiser
from vaeguard.restoration.networks.batches import page_batches, photo_batches
from vaeguard.restoration.networks.camera_batches import SHOT, estimator_batches
from vaeguard.restoration.networks.direct import ColourDenoiser, DirectDenoiser
from vaeguard.restoration.networks.estimator import NoiseEstimator, estimator_loss
from vaeguard.restoration.networks.exporting import DenoiserNetworks, read_estimator, read_networks, write_denoiser
from vaeguard.restoration.networks.training import (
    LEARNING_RATE,
    fit_spread,
    interval_of,
    supervised_loss,
    train_network,
)
from vaeguard.storage.provenance import environment
from vaeguard.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Rng = np.random.Generator

WEIGHTS = Path(vaeguard.__file__).parent / "weights"
SETTINGS: dict[str, dict[str, Any]] = {
    "photo": {"width": 40, "depth": 6, "steps": 56_000, "exact_steps": 4_000, "by_noise": True},
    "document": {"width": 32, "depth": 8, "steps": 8_000, "exact_steps": 0, "by_noise": False},
}
ESTIMATOR_STEPS = {"photo": 6_000, "colour": 2_000}
ESTIMATOR_RATE = 3e-3
PLANES = {"photo": 1, "colour": 3}
EXACT_RATE = 2e-4
"""Of the last steps, in float32: bfloat16 rounds by about as much as weak noise deviates."""
GO_ON_RATE = 5e-4
"""The largest learning rate of weights that were trained before."""
SIDES = (560, 900, 1500)
"""Photographs are scaled down to these, which also removes what noise and compression they have."""
ESTIMATOR_SIDES = (360, *SIDES)
"""Smaller ones are full of texture, which must not be taken for noise."""
PAGE = 640
NOT_LETTERS = "Symbol|Initials|Dingbats|D050|Hairline|Keyboard|MathTeX"
RARE = ["0123456789", "äöüéèñçøßÀÉ", "§&%€£", "½", "...", ",;:!?()[]"]


def photographs(folder: Path, mode: str = "L", sides: tuple[int, ...] = SIDES) -> list[list[npt.NDArray[np.uint8]]]:
    """Every photograph below `folder`, each at several sizes: grey (mode `L`), or in colour (`RGB`)."""
    found = []
    for path in list_images([folder]):
        image = Image.open(path).convert("RGB")
        sizes = []
        for side in sides:
            share = side / max(image.size)
            if share <= 0.67:
                size = round(image.width * share), round(image.height * share)
                kind = Image.Resampling.BOX if share < 0.34 else Image.Resampling.LANCZOS
                sizes.append(np.asarray(image.resize(size, kind).convert(mode)))
        found.append(sizes)
    return found


class Printer:
    """Draws pages of text: free fonts, words of Python's own manual."""

    def __init__(self) -> None:
        paths = (str(path) for suffix in ("ttf", "otf", "t1") for path in Path("/usr/share/fonts").rglob(f"*.{suffix}"))
        self.fonts = sorted(path for path in paths if not re.search(NOT_LETTERS, path))
        text = re.sub(r"[^\x20-\x7e]+", " ", " ".join(topics.topics.values()))
        self.words = re.sub(r"[*=~`|^_-]{2,}|``|\*\*", " ", text).split()

    def __call__(self, rng: Rng) -> npt.NDArray[np.float32]:
        """A clean page: text of one or two inks, and now and then ruled lines, a heading, a frame or a stamp."""
        size = int(np.exp(rng.uniform(np.log(11), np.log(56))))
        ink = 0 if rng.random() < 0.6 else int(rng.integers(0, 120))
        page = Image.new("L", (PAGE, PAGE), 255)
        draw = ImageDraw.Draw(page)
        if rng.random() < 0.2:
            self._rule(draw, size, rng)
        self._print(draw, size, ink, rng)
        if rng.random() < 0.3:
            self._heading(draw, ink, rng)
        if rng.random() < 0.15:
            self._stamp(draw, rng)
        if rng.random() < 0.25:
            page = page.rotate(rng.uniform(-3, 3), Image.Resampling.BICUBIC, fillcolor=255)
        return np.asarray(page, np.float32) / np.float32(255)

    def _print(self, draw: ImageDraw.ImageDraw, size: int, ink: int, rng: Rng) -> None:
        font = self._font(size, rng)
        left, height = int(rng.integers(-size, 3 * size)), float(rng.integers(-size, size))
        lead, at = rng.uniform(1.05, 1.6) * size, int(rng.integers(len(self.words) - 5000))
        other_ink = int(rng.integers(ink, 170)) if rng.random() < 0.35 else ink
        while height < PAGE:
            indent = 0
            if rng.random() < 0.06:
                height, indent = height + lead, 2 * size
            line, room = "", PAGE - left - indent - size + (60 if rng.random() < 0.3 else 0)
            while font.getlength(line) < room and rng.random() > 0.02:
                line += self._word(at, rng) + " "
                at += 1
            draw.text((left + indent, height), line, fill=other_ink if rng.random() < 0.3 else ink, font=font)
            height += lead
            if rng.random() < 0.04:
                draw.line((0, int(height), PAGE, int(height)), fill=ink, width=int(rng.integers(1, 4)))
            if rng.random() < 0.03:
                font = self._font(size, rng)
        if rng.random() < 0.15:
            corners = np.sort(rng.integers(0, PAGE, (2, 2)), axis=0)
            draw.rectangle([int(value) for value in corners.flatten()], outline=ink, width=int(rng.integers(1, 4)))

    def _rule(self, draw: ImageDraw.ImageDraw, size: int, rng: Rng) -> None:
        """Faint lines to write on, or squares."""
        ink, step = int(rng.integers(80, 215)), max(8, int(size * rng.uniform(1.1, 1.7)))
        width = int(rng.integers(1, 3))
        for at in range(int(rng.integers(step)), PAGE, step):
            draw.line((0, at, PAGE, at), fill=ink, width=width)
            if rng.random() < 0.3:
                draw.line((at, 0, at, PAGE), fill=ink, width=width)

    def _heading(self, draw: ImageDraw.ImageDraw, ink: int, rng: Rng) -> None:
        """Letters as thick as others are high, or a bar."""
        top, left = int(rng.integers(PAGE - 100)), int(rng.integers(PAGE // 2))
        if rng.random() < 0.3:
            wide, high = int(rng.integers(40, PAGE)), int(rng.integers(6, 60))
            draw.rectangle((left, top, left + wide, top + high), fill=ink)
            return
        size = int(rng.integers(60, 220))
        draw.rectangle((0, top, PAGE, top + size * 1.2), fill=255)
        draw.text(
            (left, top), self._word(int(rng.integers(len(self.words))), rng), fill=ink, font=self._font(size, rng)
        )

    def _stamp(self, draw: ImageDraw.ImageDraw, rng: Rng) -> None:
        """Rings with a word, over whatever is there."""
        top, left, side = (int(value) for value in rng.integers((0, 0, 60), (PAGE - 60, PAGE - 60, 220)))
        ink, width = int(rng.integers(30, 190)), int(rng.integers(1, 6))
        draw.ellipse((left, top, left + side, top + side), outline=ink, width=width)
        font = self._font(max(11, side // 5), rng)
        draw.text(
            (left + side // 5, top + side // 2),
            self._word(int(rng.integers(len(self.words))), rng),
            fill=ink,
            font=font,
        )

    def _font(self, size: int, rng: Rng) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(self.fonts[rng.integers(len(self.fonts))], size)

    def _word(self, at: int, rng: Rng) -> str:
        if rng.random() < 0.05:
            return str(rng.integers(10 ** int(rng.integers(1, 6))))
        return (RARE[rng.integers(len(RARE))] if rng.random() < 0.06 else "") + self.words[at % len(self.words)]


def main() -> None:
    """Train what is asked for, keep the rest of what ships; measure the interval, and write the file."""
    given = _arguments()
    path = WEIGHTS / f"{given.kind}.onnx"
    recipe = {"recipe": "benchmarks/train_denoisers.py", "seed": given.seed, **environment("cpu")}
    shipped = shipped_denoiser("photo" if given.kind == "colour" else given.kind, "cpu", 1)
    card = {name: value for name, value in shipped.card.items() if name != "estimator"}
    estimator = None
    if given.kind in PLANES:
        steps = given.steps or ESTIMATOR_STEPS[given.kind]
        card["estimator"] = {**recipe, "steps": steps}
        if given.part in ("all", "estimator"):
            estimator = _trained_estimator(given, steps)
        else:
            estimator = read_estimator(path)
            card["estimator"] = shipped_denoiser(given.kind, "cpu", 1).card["estimator"]
    if given.kind == "colour":
        grey, _ = read_networks(WEIGHTS / "photo.onnx")
        colour, interval = ColourDenoiser(grey), shipped.interval
        networks = DenoiserNetworks(direct=colour, kind=given.kind, interval=interval, card=card, estimator=estimator)
        write_denoiser(networks, path)
        return
    if given.part in ("all", "network"):
        net = _trained(given)
        settings = SETTINGS[given.kind]
        card = {**card, **recipe, "steps": (given.steps or settings["steps"]) + settings["exact_steps"]}
    else:
        net, _ = read_networks(path)
    interval = interval_of(net, _held_out(given))
    networks = DenoiserNetworks(direct=net, kind=given.kind, interval=interval, card=card, estimator=estimator)
    write_denoiser(networks, path)
    print(f"{given.kind}: interval {interval:.3f} -> {WEIGHTS}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("photo", "colour", "document"))
    parser.add_argument("--part", choices=("all", "network", "estimator", "interval"), default="all")
    parser.add_argument("--photos", type=Path, help="photographs to train on")
    parser.add_argument("--held-out", type=Path, help="photographs to measure the interval on")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="where trainings are kept")
    parser.add_argument("--start", type=Path, help="a denoiser to go on from, such as an earlier one that shipped")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.kind == "photo" and not given.held_out:
        parser.error("give --held-out to measure the interval on")
    if given.kind in PLANES and given.part != "interval" and not given.photos:
        parser.error("give --photos to train on")
    if given.kind not in PLANES and given.part == "estimator":
        parser.error(f"the noise of {given.kind}s has no estimator")
    return given


def _held_out(given: argparse.Namespace) -> Iterator[Any]:
    """Batches that the network was not trained on."""
    if given.kind not in PLANES:
        return page_batches(Printer(), given.seed + 10_000)
    grey = [np.asarray(Image.open(name).convert("L")) for name in list_images([given.held_out])]
    return photo_batches(grey, given.seed)


def _trained_estimator(given: argparse.Namespace, steps: int) -> NoiseEstimator:
    """The estimator of noise; in float32, since bfloat16 rounds weak noise away."""
    torch.manual_seed(given.seed)
    estimator = NoiseEstimator(PLANES[given.kind])
    photos = _in_colour(given.photos, ESTIMATOR_SIDES)
    batches = estimator_batches(photos, given.seed, grey=given.kind == "photo")
    kept = _checkpoint(given, "estimator", steps)
    loss = partial(estimator_loss, estimator)
    return train_network(estimator, loss, batches, steps, rate=ESTIMATOR_RATE, progress=_say, checkpoint=kept)[0]


def _trained(given: argparse.Namespace) -> DirectDenoiser:
    settings = SETTINGS[given.kind]
    torch.manual_seed(given.seed)
    # A fifth faster on a CPU with channels last.
    if given.start:
        net, rate = read_networks(given.start)[0].requires_grad_(), GO_ON_RATE
    else:
        net, rate = DirectDenoiser(settings["width"], settings["depth"]), LEARNING_RATE
    net = net.to(memory_format=torch.channels_last)
    batches, others = _batches(given, 0), _batches(given, 1)
    loss = supervised_loss(net, by_noise=settings["by_noise"], bf16=has_bf16("cpu"))
    steps = given.steps or settings["steps"]
    kept = _checkpoint(given, "network", steps)
    net, _ = train_network(net, loss, batches, steps, rate=rate, progress=_say, checkpoint=kept)
    if last := settings["exact_steps"]:
        loss = supervised_loss(net.requires_grad_(), by_noise=settings["by_noise"])
        kept = _checkpoint(given, "exact", last)
        net, _ = train_network(net, loss, others, last, rate=EXACT_RATE, progress=_say, checkpoint=kept)
    net = net.to(memory_format=torch.contiguous_format)
    fit_spread(net, others)
    return net


def _batches(given: argparse.Namespace, more: int) -> Iterator[Any]:
    """What the network learns from: `more` streams of other chance."""
    seed = given.seed + more
    if given.kind == "photo":
        return photo_batches([size for sizes in photographs(given.photos) for size in sizes], seed)
    return page_batches(Printer(), seed)


def _in_colour(folder: Path, sides: tuple[int, ...] = SIDES) -> list[npt.NDArray[np.uint8]]:
    photos = [size for sizes in photographs(folder, "RGB", sides) for size in sizes]
    return [photo for photo in photos if min(photo.shape[:2]) >= SHOT]


def _checkpoint(given: argparse.Namespace, part: str, steps: int) -> Checkpoint:
    given.checkpoints.mkdir(exist_ok=True)
    settings = {"denoiser": {"kind": given.kind, "seed": given.seed, "steps": steps}, "data": {}}
    return Checkpoint(given.checkpoints / f"{given.kind}-{part}.safetensors", settings)


def _say(step: int, steps: int, text: str) -> None:
    if step % 500 == 0:
        print(f"{step}/{steps} {text}", flush=True)


if __name__ == "__main__":
    main()

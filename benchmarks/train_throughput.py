"""Training rate against the tutorials' way: the same model behind a DataLoader and ToTensor, same threads, same run.

python -m benchmarks.train_throughput [--threads 1] [--rounds 3]
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

import vaeguard
from benchmarks.common import write_result

Array = np.ndarray[Any, np.dtype[np.uint8]]


class Pictures(Dataset[tuple[Tensor, int]]):
    """The steps of torchvision's MNIST and CIFAR-10 data sets: tensor row, target, PIL image, ToTensor."""

    def __init__(self, images: Array) -> None:
        self.data = torch.from_numpy(images.transpose(0, 2, 3, 1).squeeze())
        self.targets = torch.zeros(len(images), dtype=torch.long)
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = self.data[index], int(self.targets[index])
        return self.transform(Image.fromarray(image.numpy())), target


class TutorialMlp(nn.Module):
    """784-400-400-20 with ReLU, as the MNIST tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU())
        self.mean, self.logvar = nn.Linear(400, 20), nn.Linear(400, 20)
        self.decode = nn.Sequential(
            nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid()
        )

    def loss(self, image: Tensor) -> Tensor:
        """BCE summed + KL."""
        image = image.view(-1, 784)
        h = self.encode(image)
        mu, logvar = self.mean(h), self.logvar(h)
        restored = self.decode(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))
        bce = F.binary_cross_entropy(restored, image, reduction="sum")
        return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


class TutorialConv(nn.Module):
    """The CIFAR-10 ConvVAE as the tutorials write it: 64-128-256-512, latent 128."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 64, 128, 256, 512)
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for i in range(4):
            down += [nn.Conv2d(widths[i], widths[i + 1], 4, 2, 1)]
            down += [nn.BatchNorm2d(widths[i + 1])] if i else []
            down += [nn.ReLU()]
            up = [nn.ConvTranspose2d(widths[i + 1], widths[i], 4, 2, 1), *up]
            up = [nn.BatchNorm2d(widths[i + 1]), nn.ReLU(), *up] if i < 3 else up
        self.encode = nn.Sequential(*down, nn.Flatten())
        self.mean, self.logvar = nn.Linear(2048, 128), nn.Linear(2048, 128)
        self.decode = nn.Sequential(nn.Linear(128, 2048), nn.Unflatten(1, (512, 2, 2)), *up, nn.Sigmoid())

    def loss(self, image: Tensor) -> Tensor:
        """MSE summed + KL."""
        h = self.encode(image)
        mu, logvar = self.mean(h), self.logvar(h)
        restored = self.decode(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu))
        squared = F.mse_loss(restored, image, reduction="sum")
        return squared - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def tutorial_rate(images: Array, model: TutorialMlp | TutorialConv) -> float:
    """Images per second of one epoch of the tutorial's loop."""
    loader = DataLoader(Pictures(images), batch_size=128, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    total = 0.0
    started = time.perf_counter()
    for image, _ in loader:
        optimizer.zero_grad()
        loss = model.loss(image)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
        optimizer.step()
    return len(images) / (time.perf_counter() - started)


def our_rate(images: Array, preset: str, threads: int, *, bf16: bool) -> float:
    """Images per second of `vaeguard.fit`'s last epoch, the pass over the validation images included."""
    chosen = vaeguard.preset(preset)
    training = vaeguard.TrainSpec(
        epochs=2, schedule="constant", validation=0.02, calibration=0.02, threads=threads, bf16=bf16
    )
    with tempfile.TemporaryDirectory() as run:
        record = vaeguard.fit(images, model=chosen.model, training=training, run=run).info.record
        with (Path(run) / "history.csv").open() as file:
            seconds = float(list(csv.DictReader(file))[-1]["seconds"])
    return record.data.split.training / seconds


def matmul_rate(batch: int = 128) -> float:
    """Images per second if a step of the MLP were its matrix products alone: forward, both gradients."""
    shapes = [(784, 400), (400, 400), (400, 40), (20, 400), (400, 400), (400, 784)]
    factors = [(torch.randn(batch, a), torch.randn(a, b), torch.randn(batch, b)) for a, b in shapes]
    repeats = 60
    started = time.perf_counter()
    for _ in range(repeats):
        for layer, (x, w, g) in enumerate(factors):
            torch.mm(x, w)
            torch.mm(x.T, g)
            if layer:  # pixels need no gradient
                torch.mm(g, w.T)
    return repeats * batch / (time.perf_counter() - started)


def main() -> None:
    """Measure in turns, so that a noisy machine disturbs both alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = np.random.default_rng(0)
    grey = generator.integers(0, 256, (30_000, 1, 28, 28), dtype=np.uint8)
    colour = generator.integers(0, 256, (2_000, 3, 32, 32), dtype=np.uint8)
    rows = []
    for preset, images, tutorial in (
        ("mlp-400-400-20", grey, TutorialMlp),
        ("conv-128", colour, TutorialConv),
    ):
        found: list[tuple[float, float, float]] = []
        for _ in range(options.rounds):
            ours = [our_rate(images, preset, options.threads, bf16=bf16) for bf16 in (False, True)]
            found.append((ours[0], ours[1], tutorial_rate(images, tutorial())))
        matmul = matmul_rate() if preset.startswith("mlp") else float("nan")
        for column, precision in enumerate(("float32", "bfloat16")):
            ratios = [rates[column] / rates[2] for rates in found]
            rate = statistics.median(rates[column] for rates in found)
            rows.append({
                "preset": preset,
                "precision": precision,
                "vaeguard images/s": rate,
                "DataLoader loop images/s": statistics.median(rates[2] for rates in found),
                "ratio (median)": statistics.median(ratios),
                "ratios": " ".join(f"{ratio:.2f}" for ratio in ratios),
                "float32 matrix products alone, share of the time": rate / matmul if precision == "float32" else "",
            })  # fmt: skip
    notes = [
        "Random pixels: the rate does not depend on them. The DataLoader loop is the tutorials': PIL image, ToTensor,",
        "one process, Adam, float32; vaeguard's rate includes its validation pass. One run in turns; compare by ratio.",
        "bfloat16 is what vaeguard chooses where the processor has it; --set training.bf16=false trains in float32.",
    ]
    write_result("train_throughput", "Training rate against a DataLoader loop of the same model", rows, notes,
                 threads=options.threads, batch=128, rounds=options.rounds)  # fmt: skip


if __name__ == "__main__":
    main()

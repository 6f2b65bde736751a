"""A fit by two processes against one: the weights in float64, and images a second.

python -m benchmarks.processes [--images 10000] [--data mnist]

The speed compares two processes of one thread with one process of two threads, so it means something only where two
cores are idle; `--images 0` leaves it out.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import vaeguard
from benchmarks.common import write_result
from vaeguard import ModelSpec, TrainSpec
from vaeguard.models.vae import VAE
from vaeguard.training import loop, vae_task
from vaeguard.training.processes import PLACE, joined
from vaeguard.training.vae_task import Examples, VAETask

CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "mlp, 60 steps": ("mlp", 60, {}),
    "mlp, 60 steps, augmented, free bits": (
        "mlp", 60, {"augment_warp": 1.0, "augment_flip": True, "input_noise": 0.1, "free_bits": 0.5},
    ),
    "conv, 20 steps": ("conv", 20, {}),
    "conv, 20 steps, binarised": ("conv", 20, {"binarise": True}),
}  # fmt: skip
"""The kind of model, the steps and the settings of each training in float64."""
STEPS_AN_EPOCH, BATCH, SIDE = 5, 50, 28
SPEEDS = {"mlp": ("--model", "mlp"), "conv": ("--model", "conv")}
EPOCHS = 4


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank:
        with joined():
            for name in CASES:
                save_file(trained(name), given.rank / f"{name} {os.environ['RANK']}")
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = weights(Path(folder))
        if given.images:
            rows += speeds(Path(folder), given.data, given.images)
    notes = [
        "Weights: largest difference to one process, relative to the largest weight of the layer, and to the weight.",
        "Speed: median over the epochs after the first, validation included.",
    ]
    write_result(
        "processes", "A fit by two processes against one", rows, notes, images=given.images, batch=BATCH, epochs=EPOCHS
    )


def trained(case: str) -> dict[str, torch.Tensor]:
    """The weights after a training in float64 on random images."""
    kind, steps, settings = CASES[case]
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    setattr(vae_task, "to_unit", lambda pixels: pixels.double() / 255)  # noqa: B010
    images = np.random.default_rng(0).integers(0, 256, (300, 1, SIDE, SIDE), dtype=np.uint8)
    model = ModelSpec(kind=kind, pseudo_classes=0).resolved((1, SIDE, SIDE), ())
    training = TrainSpec(
        epochs=steps // STEPS_AN_EPOCH, batch_size=BATCH, device="cpu", bf16=False, **{"augment_warp": 0.0, **settings}
    ).sized(model.view)
    learnt, held = (Examples(images, None, np.arange(*part)) for part in ((250,), (250, 300)))
    task = VAETask(VAE(model), training, learnt, held)
    loop.train(task.start(), task)
    return {name: values.contiguous() for name, values in task.net.state_dict().items()}


def weights(folder: Path) -> list[dict[str, Any]]:
    """One row for each case."""
    command = [sys.executable, "-m", "benchmarks.processes", "--rank", str(folder)]
    common = os.environ | {PLACE: f"file://{folder}/store", "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    started = [subprocess.Popen(command, env={**common, "RANK": str(rank)}) for rank in range(2)]  # noqa: S603
    assert [process.wait() for process in started] == [0, 0]
    rows = []
    for case in CASES:
        one, two = (load_file(folder / f"{case} {rank}") for rank in range(2))
        alone = {name: values for name, values in trained(case).items() if name.endswith("weight")}
        apart = {name: (one[name] - values).abs() for name, values in alone.items()}
        rows.append(
            {
                "case": case,
                "relative difference": max(float(apart[name].max() / alone[name].abs().max()) for name in alone),
                "of a weight near 0": max(float((apart[name] / alone[name].abs()).max()) for name in alone),
                "ranks bit-equal": all(torch.equal(one[name], two[name]) for name in one),
            }
        )
    return rows


def speeds(folder: Path, data: str, images: int) -> list[dict[str, Any]]:
    """One row for each kind of model and number of processes."""
    np.save(folder / "images.npy", vaeguard.open_images(data).images[:images])
    rows = []
    for kind, options in SPEEDS.items():
        for processes in (1, 2):
            run = folder / f"{kind}-{processes}"
            command = [
                *(Path(sys.executable).with_name("vaeguard"), "fit", folder / "images.npy", "-o", run, *options),
                *("--epochs", EPOCHS, "--device", "cpu", "--processes", processes),
                *("--set", f"training.threads={2 // processes}"),
            ]
            subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            with (run / "history.csv").open() as file:
                seconds = [float(row["seconds"]) for row in csv.DictReader(file)][1:]
            learnt = vaeguard.load(run).info.record.data.split.training
            rows.append(
                {
                    "case": f"{kind}, {processes} processes of {2 // processes} threads",
                    "images/s": round(learnt / median(seconds)),
                }
            )
    return rows


if __name__ == "__main__":
    main()

"""A set larger than the disk: a fit that reads MNIST from its files in every epoch, beside one with it in the cache.

python -m benchmarks.streamed WORK [--seeds 3] [--epochs 10]

The training images lie in 20 Parquet files, in random order. The cache is limited to 30 MB (the images need 47 MB), and
the buffer in which images are mixed to 8 MB. Digit 9 is the anomaly. WORK keeps the files and the runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import vaeguard
from benchmarks.common import data_dir, spread, write_result

FILES = 20
KINDS = {
    "in the cache": (),
    "read in every epoch": ("--set", "run.cache_gb=0.03", "--set", "run.buffer_gb=0.008"),
}
"""The options of each way to read the images."""


def main() -> None:
    """Fit, evaluate, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    shards = options.work / "shards"
    if not shards.exists():
        pack(shards)
    rows = [
        {"images": kind, "ROC-AUC": spread([roc_auc(shards, kind, seed, options) for seed in range(options.seeds)])}
        for kind in KINDS
    ]
    note = f"Mean ± standard deviation over {options.seeds} seeds; --model mlp, guided by the labels, default settings."
    write_result("streamed", "MNIST from files in every epoch", rows, [note], epochs=options.epochs)


def pack(shards: Path) -> None:
    """Write the training images into Parquet files, in random order."""
    images = vaeguard.open_images("mnist", data_dir=data_dir())
    assert images.labels is not None
    shards.mkdir(parents=True)
    order = np.random.default_rng(1).permutation(len(images))
    for number, rows in enumerate(np.array_split(order, FILES)):
        columns = {
            "image": [_png(images.images[row, 0]) for row in rows],
            "label": [images.class_names[images.labels[row]] for row in rows],
        }
        pq.write_table(pa.table(columns), shards / f"{number:02d}.parquet")


def _png(pixels: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def roc_auc(shards: Path, kind: str, seed: int, options: argparse.Namespace) -> float:
    """That of the combined score of a fit on the official test images."""
    run = options.work / f"{kind.replace(' ', '-')}-{seed}"
    own = ("--model", "mlp", "--epochs", options.epochs, "--seed", seed, "--device", "cpu", *KINDS[kind])
    _run("fit", shards, "--normal-classes", "0-8", "-o", run, *own)
    found = json.loads(_run("evaluate", "mnist", "--normal-classes", "0-8", "-m", run, "--json"))
    return float(found["metrics"][0]["roc_auc"])


def _run(*arguments: object) -> bytes:
    command = [str(Path(sys.executable).with_name("vaeguard")), *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603


if __name__ == "__main__":
    main()

"""`vaeguard score` on small PNG files: rate against decoding alone with Pillow, and peak memory against their number.

python -m benchmarks.score_throughput
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import vaeguard
from benchmarks.common import write_result

MEMORY_CODE = """
import sys, vaeguard
vaeguard.score_files(vaeguard.load(sys.argv[1]), [sys.argv[2]], sys.argv[3])
# Not ru_maxrss, which a child inherits from its parent.
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def decode_seconds(folder: Path) -> float:
    """Seconds to decode every file with Pillow, one after another."""
    started = time.perf_counter()
    for path in vaeguard.list_images([folder]):
        with Image.open(path) as image:
            np.asarray(image)
    return time.perf_counter() - started


def score_seconds(run: Path, folder: Path, table: Path) -> float:
    """Seconds that the command reports for the whole batch job: list, decode, inspect, write; start-up left out."""
    command = [str(Path(sys.executable).with_name("vaeguard")), "score", str(folder)]
    return float(json.loads(_output([*command, "-m", str(run), "-o", str(table), "--json"]))["seconds"])


def peak_memory(run: Path, folder: Path, table: Path) -> float:
    """Peak resident memory of a process that scores `folder`, MB."""
    return float(_output([sys.executable, "-c", MEMORY_CODE, str(run), str(folder), str(table)]))


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 -- our own command


def main() -> None:
    """Measure in turns and write the table."""
    generator = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        images = generator.integers(0, 256, (50_000, 1, 7, 7), dtype=np.uint8).repeat(4, 2).repeat(4, 3)
        for count in (1_000, 10_000, 50_000):
            packed = home / f"{count}.npy"
            np.save(packed, images[:count])
            vaeguard.write_images(vaeguard.open_images(packed), home / str(count))
        for preset in ("mlp-400-400-20", "conv-128"):
            run, table = home / preset, home / "scores.csv"
            training = vaeguard.TrainSpec(epochs=1)
            vaeguard.fit(images[:2000], model=vaeguard.preset(preset).model, training=training, run=run)
            pairs = [(decode_seconds(home / "10000"), score_seconds(run, home / "10000", table)) for _ in range(5)]
            ratio = statistics.median(decode / score for decode, score in pairs)
            memory = [peak_memory(run, home / str(count), table) for count in (1_000, 50_000)]
            rows.append({
                "model": preset,
                "decode only, files/s": 10_000 / statistics.median(pair[0] for pair in pairs),
                "score, files/s": 10_000 / statistics.median(pair[1] for pair in pairs),
                "score rate / decode rate": ratio,
                "peak MB, 1,000 files": memory[0],
                "peak MB, 50,000 files": memory[1],
                "memory growth": memory[1] / memory[0] - 1,
            })  # fmt: skip
    notes = [
        "28x28 grey PNG files in the page cache; decoding alone is Pillow, one file after another, in the same run."
    ]
    write_result("score_throughput", "Scoring 10,000 PNG files of 28x28", rows, notes, rounds=5)


if __name__ == "__main__":
    main()

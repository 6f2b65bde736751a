"""Training from a folder of 100,000 files: decoded once, mapped afterwards, never whole in memory.

python -m benchmarks.large_folder [--images 100000] [--size 64]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import write_result

FIT_CODE = """
import json, sys, threading, time, vaeguard

def anonymous():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))

def watch():
    global most
    while True:
        most = max(most, anonymous())
        time.sleep(0.05)

import torch
most = before = anonymous()
threading.Thread(target=watch, daemon=True).start()
started = time.perf_counter()
images = vaeguard.open_images(sys.argv[1])
opened = time.perf_counter() - started
model, training = vaeguard.ModelSpec(kind="mlp", hidden=(64,), latent=8), vaeguard.TrainSpec(epochs=1)
vaeguard.fit(images, model=model, training=training)
fitted = time.perf_counter() - started - opened
print(json.dumps({"open, s": opened, "fit one epoch, s": fitted, "most memory over the start, MB": most - before,
                  "pixels, MB": images.images.nbytes / 2**20}))
"""


def main() -> None:
    """Write the files, fit twice (first decoding, then from the cache) and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        folder.mkdir()

        def write(number: int) -> None:
            generator = np.random.default_rng(number)
            small = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((options.size, options.size)).save(
                folder / f"{number:06d}.png", compress_level=1
            )

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, range(options.images)))
        rows = []
        for time in ("first, files decoded", "second, from the cache"):
            environment = os.environ | {"VAEGUARD_CACHE": str(Path(name) / "cache")}
            command = [sys.executable, "-W", "ignore", "-c", FIT_CODE, str(folder)]
            result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603
            rows.append({"time": time, **json.loads(result.stdout)})
    notes = [
        "Memory is what the process itself holds (RssAnon); pages of the mapped file belong to the system's cache."
    ]
    write_result("large_folder", f"A folder of {options.images:,} PNG files", rows, notes, **vars(options))


if __name__ == "__main__":
    main()

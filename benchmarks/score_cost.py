"""Cost of scoring with all default terms against one pass through encoder and decoder, in the same run.

python -m benchmarks.score_cost [--repeats 20]
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import vaeguard
from benchmarks.common import write_result

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 256
SETTINGS: dict[str, tuple[vaeguard.ModelSpec, tuple[int, int, int]]] = {
    "conv, 28x28": (vaeguard.ModelSpec(), (1, 28, 28)),
    "conv, 64x64 colour": (vaeguard.ModelSpec(), (3, 64, 64)),
    "mlp 400-400, 28x28": (vaeguard.ModelSpec(kind="mlp"), (1, 28, 28)),
}


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of `work` over `repeats` calls, after one to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Fit for a moment on noise (the cost does not depend on what was learnt) and time both."""
    model, shape = SETTINGS[name]
    noise = np.random.default_rng(0).integers(0, 256, (12_600, *shape), dtype=np.uint8)
    labels = np.arange(len(noise)) % 9
    detector = vaeguard.fit(noise, labels, model=model, training=vaeguard.TrainSpec(epochs=1))
    batch = noise[:ROWS]
    through = median_seconds(lambda: detector.decode(detector.encode(batch).mean), repeats)
    whole = median_seconds(lambda: detector.inspect(batch, pictures=True), repeats)
    return {
        "model": name,
        "encode + decode, images/s": round(ROWS / through),
        "all terms, images/s": round(ROWS / whole),
        "cost, target at most 2.5": whole / through,
    }


def main() -> None:
    """Measure every setting and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    rows = [measure(name, options.repeats) for name in SETTINGS]
    notes = [
        f"Batches of {ROWS} images, guided, compared with 2,000 clusters of normal images, heatmap included; medians.",
        f"PyTorch with {torch.get_num_threads()} threads.",
    ]
    write_result("score_cost", "Cost of the score", rows, notes, **vars(options))


if __name__ == "__main__":
    main()

"""Search settings on digits 0 to 8; beside it, as information only, the real anomalies: the 9 of the test part.

python -m benchmarks.tuning [-o tuning/digits] [--trials 20]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

import vaeguard
from benchmarks.common import write_result

NORMAL = "0-8"
SEEDS = 3


def main() -> None:
    """Search, measure on real anomalies, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", default="tuning/digits", help="a search that was begun there goes on")
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args()
    images = vaeguard.open_images("digits", split="train")
    started, cpu = time.perf_counter(), time.process_time()
    found = vaeguard.tune(images, normal_classes=NORMAL, trials=options.trials, folder=options.output)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    start, compared = found.trials[0], found.comparison
    rows = [
        {
            "settings": name,
            "trial": trial.number,
            "objective, judging images": trial.objective,
            "on untouched images": objective,
            "9 as the anomaly (information only)": _real(images, model, training),
        }
        for name, trial, objective, model, training in (
            ("start (defaults)", start, compared and compared.start_objective, None, None),
            ("best", found.best, compared and compared.best_objective, found.model, found.training),
        )
    ]
    notes = [_verdict(found), f"Settings of the best: {found.best.settings}.", _cost(found, wall, cpu)]
    notes.append(
        "The last column was looked at after the search and decided nothing: ROC-AUC on the test part, 9 as the"
        f" anomaly, fitted on all normal training images, mean and standard deviation of {SEEDS} seeds."
    )
    write_result(
        "tuning", f"Search of {len(found.trials)} trials on digits 0 to 8: mean ROC-AUC", rows, notes,
        trials=options.trials, images=found.report["images"],
    )  # fmt: skip


def _real(images: vaeguard.ImageSet, model: Any, training: Any) -> str:
    test = vaeguard.open_images("digits", split="test")
    areas = []
    for seed in range(SEEDS):
        settings = {**vaeguard.to_dict(training or vaeguard.TrainSpec()), "seed": seed}
        spec = vaeguard.from_dict(vaeguard.TrainSpec, settings)
        detector = vaeguard.fit(images, normal_classes=NORMAL, model=model, training=spec)
        areas.append(vaeguard.evaluate(detector, test).metrics[0].roc_auc)
    return f"{np.mean(areas):.3f} ± {np.std(areas, ddof=1):.3f}"


def _verdict(found: vaeguard.Tuning) -> str:
    compared = found.comparison
    if compared is None:
        return "No trial beat the defaults, so there is nothing to compare."
    said = "better than" if compared.low > 0 else "worse than" if compared.high < 0 else "not told apart from"
    return (
        f"On {compared.images} untouched normal images, {compared.fits} fits of each, the best is {said} the defaults:"
        f" {compared.difference:+.3f} (95 % interval {compared.low:+.3f} to {compared.high:+.3f})."
    )


def _cost(found: vaeguard.Tuning, wall: float, cpu: float) -> str:
    seconds = sum(trial.seconds for trial in found.trials)
    return (
        f"All trials {seconds / 60:.1f} minutes of wall time; this process {wall / 60:.1f} minutes, {cpu / 60:.1f} of"
        " CPU time (less than the whole where the folder held finished trials)."
    )


if __name__ == "__main__":
    main()

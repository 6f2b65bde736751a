"""Search settings on digits 0 to 8; beside it, as information only, the real anomalies: the 9 of the test part.

python -m benchmarks.tuning [-o tuning/digits] [--trials 20]
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

import vaeguard
from benchmarks.common import write_result

NORMAL = "0-8"
SEEDS = 3
DEFAULTS = vaeguard.ModelSpec(), vaeguard.TrainSpec()


def main() -> None:
    """Search, measure on real anomalies, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", default="tuning/digits", help="a search that was begun there goes on")
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args()
    images = vaeguard.open_images("digits", split="train")
    found = vaeguard.tune(images, normal_classes=NORMAL, trials=options.trials, folder=options.output)
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
            ("start (defaults)", start, compared and compared.start_objective, *DEFAULTS),
            ("best", found.best, compared and compared.best_objective, found.model, found.training),
        )
    ]
    minutes = sum(trial.seconds for trial in found.trials) / 60
    real = (
        "The last column was looked at after the search and decided nothing: ROC-AUC on the test part, 9 as the"
        f" anomaly, fitted on all normal training images, mean and standard deviation of {SEEDS} seeds."
    )
    cost = f"The {len(found.trials)} trials took {minutes:.1f} minutes; the comparison at the end comes on top."
    notes = [_verdict(found), f"Settings of the best: {found.best.settings}.", cost, real]
    write_result(
        "tuning", f"Search of {len(found.trials)} trials on digits 0 to 8: mean ROC-AUC", rows, notes,
        trials=options.trials, images=found.report["images"],
    )  # fmt: skip


def _real(images: vaeguard.ImageSet, model: vaeguard.ModelSpec, training: vaeguard.TrainSpec) -> str:
    test = vaeguard.open_images("digits", split="test")
    areas = []
    for seed in range(SEEDS):
        detector = vaeguard.fit(images, normal_classes=NORMAL, model=model, training=replace(training, seed=seed))
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


if __name__ == "__main__":
    main()

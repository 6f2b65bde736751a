"""How often the stated 95 % interval of the ROC-AUC, or of the difference of two, holds the truth; DeLong's beside it.

python -m benchmarks.auc_interval

Scores are drawn from normal distributions with a known ROC-AUC, those of anomalies as wide as those of normal images or
twice as wide.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from scipy.stats import norm, rankdata

from benchmarks.common import write_result
from vaeguard.statistics.metrics import auc_difference, auc_interval

SIZES = ((8, 500), (10, 100), (30, 300), (60, 536), (500, 500), (1000, 9000))
WIDTHS = (1.0, 2.0)
AREAS = (0.7, 0.9, 0.96, 0.983, 0.995)
PAIRS = ((0.5, 0.95), (0.7, 0.75), (0.9, 0.92), (0.98, 0.98), (0.99, 0.995))
CORRELATIONS = (0.0, 0.5, 0.95)
TRIALS = 300


def delong(anomalous: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The interval of DeLong et al. (1988): the area and 1.96 standard errors on both sides."""
    positive, negative = scores[anomalous], scores[~anomalous]
    ranks = rankdata(scores)
    above = (ranks[anomalous] - rankdata(positive)) / len(negative)
    below = 1 - (ranks[~anomalous] - rankdata(negative)) / len(positive)
    error = np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    half = norm.ppf(0.975) * error
    return above.mean() - half, min(1.0, above.mean() + half)


def delong_difference(anomalous: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """The interval of DeLong et al. (1988) for the difference of the ROC-AUCs of two scores, shape (2, N)."""
    m, ranks = int(anomalous.sum()), rankdata(scores, axis=1)
    n = len(anomalous) - m
    above = (ranks[:, anomalous] - rankdata(scores[:, anomalous], axis=1)) / n
    below = 1 - (ranks[:, ~anomalous] - rankdata(scores[:, ~anomalous], axis=1)) / m
    more, less = above[1] - above[0], below[1] - below[0]
    half = norm.ppf(0.975) * np.sqrt(more.var(ddof=1) / m + less.var(ddof=1) / n)
    return more.mean() - half, more.mean() + half


def differences() -> None:
    """Simulate pairs of scores of the same images, and write."""
    rng = np.random.default_rng(0)
    rows = []
    for (anomalies, normals), correlation in itertools.product(SIZES, CORRELATIONS):
        anomalous = np.arange(anomalies + normals) < anomalies
        held: dict[str, list[float]] = {"ours": [], "DeLong": []}
        widths = []
        for areas in PAIRS:
            shift = norm.ppf(areas)[:, None] * np.sqrt(2)
            found = []
            for _ in range(TRIALS):
                common, own = rng.standard_normal(len(anomalous)), rng.standard_normal((2, len(anomalous)))
                scores = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own + shift * anomalous
                ours = auc_difference(anomalous, *scores)
                found.append([ours[1:], delong_difference(anomalous, scores)])
            true = areas[1] - areas[0]
            widths.append(float(np.mean([high - low for (low, high), _ in found])))
            for name, ends in zip(held, np.moveaxis(np.array(found), 1, 0), strict=True):
                held[name].append(float(((ends[:, 0] <= true) & (true <= ends[:, 1])).mean()))
        of_each = {f"{name}, held": f"{min(shares):.2f} to {max(shares):.2f}" for name, shares in held.items()}
        width = {"ours, mean width": f"{min(widths):.3f} to {max(widths):.3f}"}
        rows.append({"anomalies": anomalies, "normal": normals, "correlation": correlation, **of_each, **width})
        print(rows[-1], flush=True)
    pairs = ", ".join(f"{first} and {second}" for first, second in PAIRS)
    notes = [f"Share of {TRIALS} trials for each pair of true ROC-AUCs, {pairs}: least and most."]
    write_result("auc_interval/difference", "Does the 95 % interval of a difference of two ROC-AUCs hold?", rows, notes)


def main() -> None:
    """Simulate and write."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    differences()
    rng = np.random.default_rng(0)
    rows = []
    for (anomalies, normals), width in itertools.product(SIZES, WIDTHS):
        anomalous = np.arange(anomalies + normals) < anomalies
        held: dict[str, list[float]] = {"ours": [], "DeLong": []}
        for area in AREAS:
            shift = norm.ppf(area) * np.sqrt(1 + width**2)
            found = []
            for _ in range(TRIALS):
                scores = rng.standard_normal(len(anomalous))
                scores[anomalous] = shift + width * scores[anomalous]
                found.append([interval(anomalous, scores) for interval in (auc_interval, delong)])
            for name, ends in zip(held, np.moveaxis(np.array(found), 1, 0), strict=True):
                held[name].append(float(((ends[:, 0] <= area) & (area <= ends[:, 1])).mean()))
        of_each = {f"{name}, held": f"{min(shares):.2f} to {max(shares):.2f}" for name, shares in held.items()}
        rows.append({"anomalies": anomalies, "normal": normals, "width of anomalies": width, **of_each})
        print(rows[-1], flush=True)
    notes = [f"Share of {TRIALS} trials for each true ROC-AUC of {', '.join(map(str, AREAS))}: least and most."]
    write_result("auc_interval/interval", "Does the 95 % interval of the ROC-AUC hold?", rows, notes)


if __name__ == "__main__":
    main()

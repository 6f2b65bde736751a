"""How often the stated 95 % interval of the ROC-AUC holds the true one, beside DeLong's own interval.

python -m benchmarks.auc_interval

Scores are drawn from normal distributions with a known ROC-AUC, those of anomalies as wide as those of normal images or
twice as wide.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.stats import norm, rankdata

import vaeguard
from benchmarks.common import write_result

SIZES = ((8, 500), (10, 100), (30, 300), (60, 536), (500, 500), (1000, 9000))
WIDTHS = (1.0, 2.0)
AREAS = (0.7, 0.9, 0.96, 0.983, 0.995)
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


def main() -> None:
    """Simulate and write."""
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
                found.append([interval(anomalous, scores) for interval in (vaeguard.auc_interval, delong)])
            for name, ends in zip(held, np.moveaxis(np.array(found), 1, 0), strict=True):
                held[name].append(float(((ends[:, 0] <= area) & (area <= ends[:, 1])).mean()))
        of_each = {f"{name}, held": f"{min(shares):.2f} to {max(shares):.2f}" for name, shares in held.items()}
        rows.append({"anomalies": anomalies, "normal": normals, "width of anomalies": width, **of_each})
        print(rows[-1], flush=True)
    notes = [f"Share of {TRIALS} trials for each true ROC-AUC of {', '.join(map(str, AREAS))}: least and most."]
    write_result("auc_interval", "Does the 95 % interval of the ROC-AUC hold?", rows, notes)


if __name__ == "__main__":
    main()

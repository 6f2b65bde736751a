"""How scores are spread: bins, counts above each threshold, and curves, thinned so that every page stays small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Scores = npt.NDArray[np.floating]

BINS = 60
WIDE, LINEAR = 15.0, 2.0
"""Scores beyond the first are drawn on an axis that is logarithmic well above the second."""
POINTS = 400
"""Of a curve, or of a table of thresholds."""
EXACT = 200
"""So many of the highest thresholds are all kept: that is where one chooses."""


def histogram(kinds: dict[str, Scores], weights: dict[str, npt.NDArray[np.int64]] | None = None) -> dict[str, Any]:
    """Counts of each kind of score in common bins, and whether the axis is `linear` or `symlog`; infinities count last.

    The bins are equally wide as drawn: far anomalies must not press the others together. `weights` says how often a
    score counts, where it is not once.
    """
    together = np.concatenate(list(kinds.values())).astype(np.float64)
    limits = together[np.isfinite(together)]
    low, high = (limits.min(), limits.max()) if len(limits) else (0.0, 1.0)
    low = min(low, 0.0)
    high = max(high, low + 1)
    edges = np.linspace(low, high, BINS + 1)
    if high > WIDE:
        edges = np.sinh(np.linspace(np.arcsinh(low / LINEAR), np.arcsinh(high / LINEAR), BINS + 1)) * LINEAR
        edges[0], edges[-1] = low, high
    counts = {
        name: np.histogram(scores.clip(low, high), edges, weights=(weights or {}).get(name))[0].tolist()
        for name, scores in kinds.items()
    }
    return {"edges": edges.tolist(), "scale": "symlog" if high > WIDE else "linear", "counts": counts}


def thresholds(scores: Scores, anomalous: Bools, p_value: Scores, chosen: float | None) -> dict[str, Any]:
    """For rising thresholds how many normal and anomalous images reach them; `chosen` is among them.

    `fpr` is the highest p-value that still reaches the threshold: the false-alarm rate that sets it. The last threshold
    lies above every finite score, and its `fpr` is 0.
    """
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    kept = set(last[:EXACT].tolist()) | set(last[np.linspace(0, len(last) - 1, POINTS).astype(int)].tolist())
    if chosen is not None:
        kept |= set(last[falling[last] == np.float32(chosen)].tolist())
    rows = np.array([row for row in sorted(kept, reverse=True) if np.isfinite(falling[row])], np.int64)
    finite = falling[np.isfinite(falling)]
    beyond = np.nextafter(finite[0], np.float32(np.inf)) if len(finite) else np.float32(0)
    above = order[: len(falling) - len(finite)]  # infinite scores reach every threshold
    return {
        "threshold": [*falling[rows].astype(float).tolist(), float(beyond)],
        "fpr": [*np.maximum.accumulate(p_value[order])[rows].astype(float).tolist(), 0.0],
        "normal": [*np.cumsum(~anomalous[order])[rows].tolist(), int(np.count_nonzero(~anomalous[above]))],
        "anomalous": [*np.cumsum(anomalous[order])[rows].tolist(), int(np.count_nonzero(anomalous[above]))],
        "of": len(last),
    }


def curves(anomalous: Bools, scores: Scores) -> dict[str, list[float]]:
    """The ROC curve (`fpr`, `tpr`) and the precision-recall curve (`recall`, `precision`) of one score."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    ranks = np.unique(scores, return_inverse=True)[1]  # finite where a term overflowed
    false_positive_rate, true_positive_rate, _ = roc_curve(anomalous, ranks)
    precision, recall, _ = precision_recall_curve(anomalous, ranks)
    roc = _thinned(false_positive_rate, true_positive_rate)
    # By rising recall; without the point at recall 0, which no threshold gives.
    recall, precision = recall[-2::-1], precision[-2::-1]
    pr = _thinned(recall, precision)
    return {"fpr": roc[0], "tpr": roc[1], "recall": pr[0], "precision": pr[1]}


def _thinned(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> tuple[list[float], list[float]]:
    """At most `POINTS` of a curve, evenly along its length, with its ends."""
    if len(x) > POINTS:
        along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], POINTS)).clip(0, len(x) - 1))
        kept = np.unique(np.concatenate([[0], kept, [len(x) - 1]]))
        x, y = x[kept], y[kept]
    return np.round(x, 5).tolist(), np.round(y, 5).tolist()

"""Distributions of scores: bins, counts above each threshold, and curves, thinned so that every page stays small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.statistics.metrics import counts_above

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Scores = npt.NDArray[np.floating]

BINS = 60
WIDE = 15.0
"""The largest score on a linear axis; if there are larger ones, the axis is logarithmic."""
LINEAR = 2.0
"""The score well above which such an axis is logarithmic; well below, it is linear."""
POINTS = 400
"""The most points of a curve, or about the most of a table of thresholds."""
EXACT = 200
"""The number of highest thresholds that are never thinned, since users choose among these."""


def histogram(kinds: dict[str, Scores], weights: dict[str, npt.NDArray[np.int64]] | None = None) -> dict[str, Any]:
    """Counts of each kind of score in common bins, and whether the axis is `linear` or `symlog`.

    Infinite scores are in the last bin. All bins are equally wide as drawn, so that far anomalies leave room for the
    others. `weights` says how often each score counts; by default once.
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
    """For each of some rising thresholds, `chosen` among them, how many normal and anomalous images reach it.

    `fpr` is the highest p-value that still reaches the threshold, which is the false-alarm rate that sets it. The last
    threshold lies above every finite score, and its `fpr` is 0.
    """
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    falling = scores[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    ends = set(last[:EXACT].tolist()) | set(last[np.linspace(0, len(last) - 1, POINTS).astype(int)].tolist())
    if chosen is not None:
        ends |= set(last[falling[last] == np.float32(chosen)].tolist())
    rows = np.array([row for row in sorted(ends, reverse=True) if np.isfinite(falling[row])], np.int64)
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
    false_alarms, detections = counts_above(anomalous, scores)
    recall = detections / detections[-1]
    roc = _thinned(false_alarms / false_alarms[-1], recall)
    pr = _thinned(recall[1:], detections[1:] / (false_alarms + detections)[1:])  # without images, no precision
    return {"fpr": roc[0], "tpr": roc[1], "recall": pr[0], "precision": pr[1]}


def _thinned(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> tuple[list[float], list[float]]:
    """At most `POINTS` of a curve, evenly along its length, with its ends."""
    if len(x) > POINTS:
        along = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        rows = np.searchsorted(along, np.linspace(0, along[-1], POINTS)).clip(0, len(x) - 1)
        rows = np.unique(np.concatenate([[0], rows, [len(x) - 1]]))
        x, y = x[rows], y[rows]
    return np.round(x, 5).tolist(), np.round(y, 5).tolist()

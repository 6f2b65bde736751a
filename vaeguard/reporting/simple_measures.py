"""Brightness and complexity of images: what a score may be measuring without anybody wanting it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.reporting.report_file import Report

MEASURED = 2000
"""At most so many images are measured, spread evenly over the data."""
DRAWN = 1000
NAMES = ("brightness", "complexity")


@dataclass(frozen=True, eq=False)
class SimpleMeasures:
    """Brightness and complexity of some images.

    Attributes
    ----------
    rows : int64 (n,)
        Which images of the data.
    brightness : float64 (n,)
        Mean of the pixels, 0 to 1.
    complexity : float64 (n,)
        Bits per pixel and channel after lossless compression by zlib, as in Serrà et al., "Input complexity and
        out-of-distribution detection with likelihood-based generative models", ICLR 2020.
    """

    rows: npt.NDArray[np.int64]
    brightness: npt.NDArray[np.float64]
    complexity: npt.NDArray[np.float64]


def simple_measures(images: npt.NDArray[Any]) -> SimpleMeasures | None:
    """Measure images, uint8 (N, C, H, W); None for vectors, which have neither."""
    if images.dtype != np.uint8:
        return None
    rows = np.unique(np.linspace(0, len(images) - 1, min(MEASURED, len(images))).astype(np.int64))
    brightness, complexity = np.empty(len(rows)), np.empty(len(rows))
    for at, row in enumerate(rows):
        pixels = np.ascontiguousarray(images[row])
        brightness[at] = pixels.mean() / 255
        complexity[at] = 8 * len(zlib.compress(pixels.tobytes(), 6)) / pixels.size
    return SimpleMeasures(rows, brightness, complexity)


def against_score(
    found: SimpleMeasures, scores: npt.NDArray[np.floating], anomalous: npt.NDArray[np.bool_]
) -> Report | None:
    """How the score goes with brightness and complexity among normal images, and what these tell by themselves.

    `roc_auc` is that of the measure alone, in the direction that suits it better, so it is never below 0.5.
    None where the images measured are all of one kind.
    """
    from scipy.stats import spearmanr

    from vaeguard.metrics import measure

    score, truth = scores[found.rows].astype(np.float64), anomalous[found.rows]
    if truth.all() or not truth.any():
        return None
    drawn = np.unique(np.linspace(0, len(score) - 1, min(DRAWN, len(score))).astype(int))
    report: Report = {"measured": len(score), "drawn": len(drawn), "score": score[drawn].tolist()}
    report["anomalous"] = truth[drawn].tolist()
    for name in NAMES:
        values = getattr(found, name)
        area = measure(name, truth, values).roc_auc
        normal = ~truth
        constant = np.ptp(values[normal]) == 0 or np.ptp(score[normal]) == 0
        correlation = None if constant else float(spearmanr(values[normal], score[normal]).statistic)
        report[name] = {
            "roc_auc": max(area, 1 - area),
            "rank_correlation": correlation,
            "values": np.round(values[drawn], 4).tolist(),
        }
    return report

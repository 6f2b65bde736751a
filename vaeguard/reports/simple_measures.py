"""Brightness and complexity of images, which a score may measure by mistake."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.split import spread_out
from vaeguard.reports.kinds import Part
from vaeguard.statistics.metrics import roc_auc

if TYPE_CHECKING:
    import numpy.typing as npt

MEASURED = 2000
"""The most images that are measured, spread evenly over the data."""
DRAWN = 1000
"""The most images that are drawn."""


class SimpleMeasure(Part):
    """The ROC-AUC of a measure by itself, and its correlation with the score among normal images."""

    roc_auc: float
    rank_correlation: float | None
    values: list[float]


class SimpleMeasures(Part):
    """The measures and scores of the images that are drawn; `measured` images in all are measured."""

    measured: int
    drawn: int
    score: list[float]
    anomalous: list[bool]
    brightness: SimpleMeasure
    complexity: SimpleMeasure


def simple_measures(
    images: npt.NDArray[Any], scores: npt.NDArray[np.floating], anomalous: npt.NDArray[np.bool_]
) -> SimpleMeasures | None:
    """The correlation of the score with brightness and complexity, and how well these tell anomalies by themselves.

    Brightness is the mean of the pixels, 0 to 1; complexity the bits per pixel and channel after lossless compression
    by zlib, as in Serrà et al., "Input complexity and out-of-distribution detection with likelihood-based generative
    models", ICLR 2020. `roc_auc` is that of the measure alone, in its better direction, so it is never below 0.5. The
    result is None for vectors, and if the measured images are all normal or all anomalous.
    """
    rows = spread_out(len(images), MEASURED)
    score, truth = scores[rows].astype(np.float64), anomalous[rows]
    if images.dtype != np.uint8 or truth.all() or not truth.any():
        return None
    measured = np.array([_measured(np.ascontiguousarray(images[row])) for row in rows])
    drawn = spread_out(len(score), DRAWN)
    brightness, complexity = (_simple_measure(values, score, truth, drawn) for values in measured.T)
    shown = score[drawn].tolist(), truth[drawn].tolist()
    return SimpleMeasures(len(score), len(drawn), *shown, brightness, complexity)


def _simple_measure(
    values: npt.NDArray[np.float64],
    score: npt.NDArray[np.float64],
    anomalous: npt.NDArray[np.bool_],
    drawn: npt.NDArray[np.int64],
) -> SimpleMeasure:
    from scipy.stats import spearmanr

    area, normal = roc_auc(anomalous, values), ~anomalous
    constant = np.ptp(values[normal]) == 0 or np.ptp(score[normal]) == 0
    correlation = None if constant else float(spearmanr(values[normal], score[normal]).statistic)
    return SimpleMeasure(max(area, 1 - area), correlation, np.round(values[drawn], 4).tolist())


def _measured(pixels: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Brightness and complexity of an image."""
    return float(pixels.mean()) / 255, 8 * len(zlib.compress(pixels.tobytes(), 6)) / pixels.size

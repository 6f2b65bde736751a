"""How well a score separates anomalous from normal images, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.errors import VaeguardError

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Scores = npt.NDArray[np.floating]

TARGET_TPR = 0.95
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Metrics:
    """How well one score separates anomalous from normal images, whatever the threshold.

    Attributes
    ----------
    name : str
        `score` for the combined score, else the term's name.
    roc_auc : float
        Area under the ROC curve: how often an anomalous image scores above a normal one (ties count half).
    roc_auc_low, roc_auc_high : float
        Its 95% interval (DeLong), in [0, 1].
    average_precision : float
        Area under the precision-recall curve, anomalous = positive.
    no_skill_precision : float
        What chance gives there: the share of anomalous images.
    fpr_at_95_tpr : float
        The smallest share of normal images flagged while at least 95% of the anomalous ones are.
    """

    name: str
    roc_auc: float
    roc_auc_low: float
    roc_auc_high: float
    average_precision: float
    no_skill_precision: float
    fpr_at_95_tpr: float


@dataclass(frozen=True)
class Rate:
    """A share of images with its exact 95% interval (Clopper and Pearson 1934): `count` of `images`."""

    value: float
    low: float
    high: float
    count: int
    images: int


def measure(name: str, anomalous: Bools, scores: Scores) -> Metrics:
    """Measure one score, higher = more anomalous, against the truth; both have shape (N,).

    Raises
    ------
    VaeguardError
        A score is not a number.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    if np.isnan(scores).any():
        raise VaeguardError(f"{name!r} is not a number for {int(np.isnan(scores).sum())} images; fit the model anew")
    # Only the order counts, and ranks are finite where a term overflowed to infinity.
    ranks = np.unique(scores, return_inverse=True)[1]
    false_positive_rate, true_positive_rate, _ = roc_curve(anomalous, ranks, drop_intermediate=False)
    low, high = delong_interval(anomalous, ranks)
    return Metrics(
        name=name,
        roc_auc=float(roc_auc_score(anomalous, ranks)),
        roc_auc_low=low,
        roc_auc_high=high,
        average_precision=float(average_precision_score(anomalous, ranks)),
        no_skill_precision=float(anomalous.mean()),
        fpr_at_95_tpr=float(false_positive_rate[true_positive_rate >= TARGET_TPR].min()),
    )


def delong_interval(anomalous: Bools, scores: Scores | npt.NDArray[np.integer]) -> tuple[float, float]:
    """Return the 95% interval of the ROC-AUC after DeLong et al. (1988), by the midranks of Sun and Xu (2014).

    Clipped to [0, 1], which it is whole where one of the two kinds has a single image and so no variance. Where the
    estimated variance is zero, as at a ROC-AUC of 0 or 1, the width is that of an exact binomial interval with as many
    trials as the rarer kind has images.
    """
    from scipy.stats import norm, rankdata

    positive, negative = scores[anomalous], scores[~anomalous]
    m, n = len(positive), len(negative)
    if min(m, n) < 2:
        return 0.0, 1.0
    midranks = rankdata(np.concatenate([positive, negative]))
    beaten = (midranks[:m] - rankdata(positive)) / n  # for each anomalous image: share of normal ones below it
    beating = 1 - (midranks[m:] - rankdata(negative)) / m  # for each normal image: share of anomalous ones above it
    deviation = np.sqrt(beaten.var(ddof=1) / m + beating.var(ddof=1) / n)
    if deviation == 0:
        # No pair out of order tells only that few can be: the exact bound for so many independent trials.
        width = 1 - ((1 - CONFIDENCE) / 2) ** (1 / min(m, n))
        return max(0.0, float(beaten.mean()) - width), min(1.0, float(beaten.mean()) + width)
    half = norm.ppf((1 + CONFIDENCE) / 2) * deviation
    return float(np.clip(beaten.mean() - half, 0, 1)), float(np.clip(beaten.mean() + half, 0, 1))


def rate(flagged: Bools) -> Rate:
    """Return the share of true entries with its Clopper-Pearson interval."""
    from scipy.stats import binomtest

    count, images = int(np.count_nonzero(flagged)), len(flagged)
    interval = binomtest(count, images).proportion_ci(CONFIDENCE, method="exact")
    return Rate(count / images, float(interval.low), float(interval.high), count, images)

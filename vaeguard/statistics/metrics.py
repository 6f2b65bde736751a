"""How well a score separates anomalous from normal images, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.errors import UsageError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Scores = npt.NDArray[np.floating]

TARGET_TPR = 0.95
CONFIDENCE = 0.95
CHANCE = 0.5
"""ROC-AUC of an uninformative score."""
THRESHOLDS = 2**18
"""The most pixel thresholds: as many float32 values as fit into a processor's cache."""


@dataclass(frozen=True)
class Metrics:
    """How well one score separates anomalous from normal images, at all thresholds.

    Attributes
    ----------
    name : str
        `score` for the combined score, otherwise the name of the term.
    roc_auc : float
        Area under the ROC curve: the probability that an anomalous image scores above a normal one (ties count half).
    roc_auc_low, roc_auc_high : float
        95% interval of the ROC-AUC, in [0, 1]; see `auc_interval`.
    average_precision : float
        Area under the precision-recall curve, anomalous = positive.
    no_skill_precision : float
        Average precision of an uninformative score: the share of anomalous images.
    fpr_at_95_tpr : float
        The smallest share of normal images that is flagged if at least 95% of the anomalous images are.
    """

    name: str
    roc_auc: float
    roc_auc_low: float
    roc_auc_high: float
    average_precision: float
    no_skill_precision: float
    fpr_at_95_tpr: float


@dataclass(frozen=True)
class Share:
    """A share of images with its exact 95% interval (Clopper and Pearson 1934): `count` of `images`."""

    value: float
    low: float
    high: float
    count: int
    images: int


def measure(name: str, anomalous: Bools, scores: Scores) -> Metrics:
    """Measure one score (N,), higher = more anomalous, against the truth (N,).

    Raises
    ------
    VaeguardError
        A score is not a number.
    """
    if bad := int(np.isnan(scores).sum()):
        raise VaeguardError(f"{name!r} is NaN for {bad} of {len(scores)} images; fit the model again")
    false_alarms, detections = counts_above(anomalous, scores)
    precision = detections[1:] / (false_alarms + detections)[1:]
    enough = detections / detections[-1] >= TARGET_TPR
    low, high = auc_interval(anomalous, scores)
    return Metrics(
        name=name,
        roc_auc=roc_auc(anomalous, scores),
        roc_auc_low=low,
        roc_auc_high=high,
        average_precision=float(np.sum(np.diff(detections) / detections[-1] * precision)),
        no_skill_precision=float(anomalous.mean()),
        fpr_at_95_tpr=float(false_alarms[enough].min() / false_alarms[-1]),
    )


def counts_above(anomalous: Bools, scores: Scores) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The numbers of normal and of anomalous images at or above each distinct score, from none to all of them."""
    each = np.unique(scores, return_inverse=True)[1]
    counts = [np.bincount(each[kind], minlength=each.max() + 1)[::-1] for kind in (~anomalous, anomalous)]
    false_alarms, detections = (np.concatenate([[0], np.cumsum(count)]) for count in counts)
    return false_alarms, detections


def roc_auc(anomalous: Bools, scores: Scores) -> float:
    """The area under the ROC curve of scores (N,), higher = more anomalous, against the truth (N,)."""
    false_alarms, detections = counts_above(anomalous, scores)
    return float(np.trapezoid(detections, false_alarms) / (detections[-1] * false_alarms[-1]))


def auc_interval(anomalous: Bools, scores: Scores) -> tuple[float, float]:
    """Return the 95% interval of the ROC-AUC: Wilson's interval (1927) with an effective number of trials.

    The number of trials is that of independent trials with the variance of DeLong et al. (1988), computed by the
    midranks of Sun and Xu (2014). With few images or near 1, that variance is far too small, so one more, uninformative
    image of each kind is added. For Gaussian scores of 8 to 1,000 anomalous and 100 to 9,000 normal images and a
    ROC-AUC of 0.7 to 0.995, the interval covered the truth in 90 to 100 % of trials, and DeLong's own interval in 24 to
    97 % (`python -m benchmarks.auc_interval`).

    The interval is [0, 1] if one of the two kinds has a single image.
    """
    from scipy.stats import norm

    positive, negative = scores[anomalous], scores[~anomalous]
    if min(len(positive), len(negative)) < 2:
        return 0.0, 1.0
    placements = _placements(positive, negative)
    area = float(placements[0].mean())
    padded = [np.append(shares, CHANCE) for shares in placements]
    shrunk = float(np.mean([shares.mean() for shares in padded]))
    variance = float(sum(shares.var(ddof=1) / len(shares) for shares in padded))
    trials = shrunk * (1 - shrunk) / variance if variance else min(map(len, placements))  # all scores may be tied
    z = norm.ppf((1 + CONFIDENCE) / 2)
    centre = (area + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(area * (1 - area) / trials + z**2 / (4 * trials**2))
    return float(max(0, centre - half)), float(min(1, centre + half))


def auc_difference(anomalous: Bools, first: Scores, second: Scores) -> tuple[float, float, float]:
    """Return the ROC-AUC of `second` minus that of `first`, and the 95% interval of this difference.

    Both score the same images, shape (N,) each. An image that is hard for one is mostly hard for the other, so the
    difference is known far better than two overlapping intervals suggest. The variance is that of DeLong et al. (1988).
    It is too small with few images or near 1, so for each of the two, one more image of each kind is added that only
    this one ranks well. `python -m benchmarks.auc_interval` measures the coverage.

    The interval is [-1, 1] if one of the two kinds has a single image.
    """
    from scipy.stats import norm

    placements = [_placements(scores[anomalous], scores[~anomalous]) for scores in (first, second)]
    differences = [after - before for before, after in zip(*placements, strict=True)]
    difference = float(differences[0].mean())
    if min(map(len, differences)) < 2:
        return difference, -1.0, 1.0
    padded = [np.append(values, [CHANCE, -CHANCE]) for values in differences]
    error = float(np.sqrt(sum(values.var(ddof=1) / len(values) for values in padded)))
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) * error
    return difference, max(-1.0, difference - half), min(1.0, difference + half)


def _placements(positive: Scores, negative: Scores) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The share of normal images below each anomalous image, and of anomalous images above each normal image."""
    from scipy.stats import rankdata

    m, n = len(positive), len(negative)
    midranks = rankdata(np.concatenate([positive, negative]))
    return (midranks[:m] - rankdata(positive)) / n, 1 - (midranks[m:] - rankdata(negative)) / m


def roc_auc_by_image(normal: Scores, corrupted: Scores) -> npt.NDArray[np.float64]:
    """The contribution of each of N images, at least 2, to the ROC-AUC between corrupted and normal images.

    The mean is that ROC-AUC, and the variance divided by N is its squared standard error, since an image and its
    corrupted copy form one cluster (Obuchowski 1997). Two detectors can so be compared image by image.

    Parameters
    ----------
    normal, corrupted : float (N,)
        Scores of the images, and of their corrupted copies.
    """
    below, above = _placements(corrupted, normal)
    contributions: npt.NDArray[np.float64] = below + above - below.mean()
    return contributions


def share(flagged: Bools) -> Share:
    """Return the share of true entries with its Clopper-Pearson interval."""
    return share_of(int(np.count_nonzero(flagged)), len(flagged))


def share_of(count: int, images: int, confidence: float = CONFIDENCE) -> Share:
    """Return the share `count` of `images`; without images, the interval is [0, 1]."""
    from scipy.special import betaincinv  # much lighter than scipy.stats

    if not images:
        return Share(0.0, 0.0, 1.0, 0, 0)
    tail = (1 - confidence) / 2
    low = float(betaincinv(count, images - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, images - count, 1 - tail)) if count < images else 1.0
    return Share(count / images, low, high, count, images)


def pixel_roc_auc(masks: Sequence[Bools], heatmaps: Sequence[Scores]) -> float:
    """Area under the ROC curve of all pixels: the probability that a defective pixel is stranger than a sound one.

    It is exact up to 2^18 pixels in all; beyond that, pixels between two neighbours of 2^18 sampled values are ties.

    Parameters
    ----------
    masks : sequence of bool (H, W)
        Defective pixels of each image; sizes may differ between images.
    heatmaps : sequence of float (H, W)
        Strangeness of each pixel, higher = stranger.

    Raises
    ------
    UsageError
        Masks and heatmaps do not fit together, or the pixels are all sound or all defective.
    """
    sound, defective, _ = _pixel_counts(masks, heatmaps)
    false_alarms, detections = (_shares_above(counts) for counts in (sound, defective))
    return float(np.trapezoid(detections, false_alarms))


def per_region_overlap(masks: Sequence[Bools], heatmaps: Sequence[Scores], limit: float = 0.3) -> float:
    """Per-region overlap (PRO) integrated over false-positive rates of pixels from 0 to `limit`, scaled to [0, 1].

    Every connected defect has the same weight, whatever its size (8-neighbourhood; trapezoids between thresholds), as
    in Bergmann et al., "The MVTec Anomaly Detection Dataset", 2021, section 5.2. The false-positive rate is that of the
    sound pixels of all images. The result is exact up to 2^18 pixels, see `pixel_roc_auc`.

    Parameters
    ----------
    masks, heatmaps
        As for `pixel_roc_auc`.
    limit : float
        The highest false-positive rate, in (0, 1].

    Raises
    ------
    UsageError
        As for `pixel_roc_auc`, or `limit` is outside (0, 1].
    """
    if not 0 < limit <= 1:
        raise UsageError(f"`limit` is {limit}; the highest false-positive rate must be above 0 and at most 1")
    sound, _, overlap = _pixel_counts(masks, heatmaps)
    false_alarms, overlaps = _shares_above(sound), _shares_above(overlap)
    inside = false_alarms <= limit
    last = np.interp(limit, false_alarms, overlaps)
    curve = np.append(overlaps[inside], last), np.append(false_alarms[inside], limit)
    return float(np.trapezoid(*curve) / limit)


def _pixel_counts(
    masks: Sequence[Bools], heatmaps: Sequence[Scores]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sound pixels, defective pixels, and defective pixels weighted by 1 / area of their region, by threshold interval.

    It takes one image at a time, so memory does not grow with the number of images.
    """
    from scipy.ndimage import label

    _check_maps(masks, heatmaps)
    edges = _thresholds(heatmaps)
    totals = np.zeros((3, len(edges)))
    for mask, heatmap in zip(masks, heatmaps, strict=True):
        bins = np.searchsorted(edges, heatmap, "right").clip(1) - 1
        regions, _ = label(mask, np.ones((3, 3)))
        areas = np.bincount(regions.ravel())
        totals[0] += np.bincount(bins[~mask], minlength=len(edges))
        totals[1] += np.bincount(bins[mask], minlength=len(edges))
        totals[2] += np.bincount(bins[mask], 1 / areas[regions[mask]], len(edges))
    if not totals[0].any() or not totals[1].any():
        what = "defective" if totals[1].any() else "sound"
        raise UsageError(
            f"every pixel is {what}, so there is nothing to compare; use masks with defective and with sound pixels"
        )
    return totals[0], totals[1], totals[2]


def _thresholds(heatmaps: Sequence[Scores]) -> Scores:
    """Sorted thresholds: every value that occurs, or a sample of the values if there are too many."""
    pixels = sum(heatmap.size for heatmap in heatmaps)
    share = min(1.0, THRESHOLDS / pixels)
    generator = np.random.default_rng(0)
    picked = [
        heatmap.ravel() if share == 1 else generator.choice(heatmap.ravel(), int(share * heatmap.size) + 1)
        for heatmap in heatmaps
    ]
    return np.unique(np.concatenate(picked))


def _shares_above(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the counts at or above each threshold, from the highest threshold down; from 0 to 1."""
    summed = np.concatenate([[0.0], np.cumsum(counts[::-1])])
    shares: npt.NDArray[np.float64] = summed / summed[-1]
    return shares


def _check_maps(masks: Sequence[Bools], heatmaps: Sequence[Scores]) -> None:
    if len(masks) != len(heatmaps) or len(masks) == 0:
        raise UsageError(
            f"the number of masks ({len(masks)}) and that of heatmaps ({len(heatmaps)}) must be equal and above 0"
        )
    for number, (mask, heatmap) in enumerate(zip(masks, heatmaps, strict=True)):
        if mask.shape != heatmap.shape or mask.ndim != 2 or mask.dtype != np.bool_:
            raise UsageError(
                f"mask {number} is {mask.dtype} of shape {mask.shape}, and its heatmap has the shape {heatmap.shape};"
                " masks must be bool and have the shape (H, W) of their heatmaps"
            )
        if np.isnan(heatmap).any():
            raise UsageError(f"heatmap {number} contains NaN; fit the model again")

"""The fits of a search: trials, and the comparison of two settings on images that no trial used."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.devices import is_out_of_memory
from vaeguard.errors import VaeguardError
from vaeguard.statistics.metrics import CONFIDENCE, measure, roc_auc_by_image
from vaeguard.training.loop import DivergedError, TrainingWarning
from vaeguard.tuning.pseudo_anomalies import make_pseudo_anomalies
from vaeguard.tuning.study import CHANCE, Trial
from vaeguard.workflows.fit import fit

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.engines.inspection import Floats, Images, Inspection
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.progress import Progress
    from vaeguard.tuning.plan import SearchPlan
    from vaeguard.tuning.search_space import Settings

REFITS = 3
"""Number of fits with each of the two settings in the comparison, with seeds that no trial had."""
FAILURES = (VaeguardError, RuntimeError, MemoryError)
"""The exceptions of a failed fit; a `RuntimeError` is one only if memory ran out."""
RECORDED_TERMS = ("neg_elbo", "recon_error")
"""The terms whose means over the normal images are recorded beside the objective."""


@dataclass(frozen=True)
class Comparison:
    """The best settings against those at the start of the search, on normal images that no trial used.

    Attributes
    ----------
    start, best : dict of float
        ROC-AUC of each kind of pseudo-anomaly, averaged over the fits.
    start_objective, best_objective : float
        The means of `start` and `best`.
    difference, low, high : float
        The gain of the best settings, and its 95% confidence interval over images and seeds.
    images, fits : int
        The number of normal images, and the number of fits with each of the two settings.
    """

    start: dict[str, float]
    best: dict[str, float]
    start_objective: float
    best_objective: float
    difference: float
    low: float
    high: float
    images: int
    fits: int


@dataclass(frozen=True)
class Compared:
    """The `comparison`, if there is one, the number of `times` that a comparison was made, and the last error.

    All comparisons use the same images, so each one after the first is less strict than its interval suggests.
    """

    comparison: Comparison | None
    times: int
    error: str = ""


def measured(plan: SearchPlan, settings: Settings, number: int, progress: Progress) -> Trial:
    """Fit a detector with `settings` and measure it; a failed fit gives a trial without an objective.

    Raises
    ------
    VaeguardError
        The first trial fails, so that the others would have nothing to be compared with.
    """
    started = time.monotonic()
    try:
        detector = _fitted(plan, settings, plan.seed, progress)
        images = plan.image_set.images[plan.judging]
        normal = detector.inspect(images)
        areas = {
            kind: _roc_auc(normal.score, scores) for kind, scores in _anomalous_scores(plan, detector, images).items()
        }
    except FAILURES as error:
        if number == 0:
            raise
        return Trial(number, settings, None, seconds=time.monotonic() - started, error=why_failed(error))
    objective = float(np.mean(list(areas.values())))
    return Trial(number, settings, objective, areas, _figures(detector, normal), time.monotonic() - started)


def why_failed(error: Exception) -> str:
    """The message of a failed fit; an error that is not the failure of a fit is raised again."""
    if isinstance(error, VaeguardError | MemoryError) or is_out_of_memory(error):
        return str(error) or "out of memory"
    raise error


def compare(plan: SearchPlan, best: Settings, progress: Progress) -> Comparison:
    """Fit the `best` settings and those at the start with new seeds, so that a lucky trial gains nothing.

    The variance of the difference is the sum of the variance over images, each with its pseudo-anomalies, and the
    variance over seeds. The interval is Student's, with the degrees of freedom of Welch and Satterthwaite. A fit that
    diverges counts as chance.

    Raises
    ------
    VaeguardError, MemoryError, RuntimeError
        A fit failed for another reason, perhaps because of the machine and not of the settings.
    """
    from scipy.stats import t

    shares: list[npt.NDArray[np.float64]] = []
    for number in range(REFITS):
        for settings in (plan.space.base, best):
            fitting = within(progress, len(shares), 2 * REFITS, "comparing the best settings with the initial settings")
            shares.append(_shares(plan, settings, plan.seed + 1 + number, fitting))
    start_shares, best_shares = np.array(shares).reshape(REFITS, 2, len(plan.kinds), -1).swapaxes(0, 1)
    gain = (best_shares - start_shares).mean(1)  # (fits, images)
    fits, images = gain.shape
    variances = np.array([gain.mean(0).var(ddof=1) / images, gain.mean(1).var(ddof=1) / fits])
    freedom = variances.sum() ** 2 / (variances**2 / (images - 1, fits - 1)).sum() if variances.any() else 1
    half_width = float(t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(variances.sum()))
    difference = float(gain.mean())
    return Comparison(
        start=dict(zip(plan.kinds, start_shares.mean((0, 2)).tolist(), strict=True)),
        best=dict(zip(plan.kinds, best_shares.mean((0, 2)).tolist(), strict=True)),
        start_objective=float(start_shares.mean()),
        best_objective=float(best_shares.mean()),
        difference=difference,
        low=difference - half_width,
        high=difference + half_width,
        images=images,
        fits=fits,
    )


def within(progress: Progress, done: int, total: int, text: str) -> Progress:
    """The progress of one fit, after `done` of `total` fits: `text` comes before its own line of text."""
    return lambda _, __, fit_text: progress(done, total, f"{text}; {fit_text}")


def _shares(plan: SearchPlan, settings: Settings, seed: int, progress: Progress) -> npt.NDArray[np.float64]:
    """The contribution of each image of the comparison to the ROC-AUC of each kind, shape (kinds, images)."""
    images = plan.image_set.images[plan.compared]
    try:
        detector = _fitted(plan, settings, seed, progress)
    except DivergedError:
        return np.full((len(plan.kinds), len(images)), CHANCE)
    normal = detector.inspect(images).score
    return np.array([roc_auc_by_image(normal, scores) for scores in _anomalous_scores(plan, detector, images).values()])


def _fitted(plan: SearchPlan, settings: Settings, seed: int, progress: Progress) -> TorchDetector:
    model, training = plan.space.specs(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # the figures of the trial show the same
        return fit(
            plan.fitted_set,
            groups=plan.groups,
            normal_classes=plan.normal_classes,
            model=model,
            training=replace(training, seed=seed),
            progress=progress,
        )


def _anomalous_scores(plan: SearchPlan, detector: TorchDetector, images: Images) -> dict[str, Floats]:
    """Scores of the pseudo-anomalies of `images`; every trial has the same pseudo-anomalies."""
    return {kind: detector.inspect(make_pseudo_anomalies(images, kind, plan.seed)).score for kind in plan.kinds}


def _roc_auc(normal: Floats, scores: Floats) -> float:
    anomalous = np.arange(len(normal) + len(scores)) >= len(normal)
    return measure("score", anomalous, np.concatenate([normal, scores])).roc_auc


def _figures(detector: TorchDetector, normal: Inspection) -> dict[str, float]:
    best = detector.info.record.best_epoch
    names = {"class_accuracy": "valid_class_accuracy", "active_units": "active_units", "best_epoch": "epoch"}
    figures = {name: float(best[key]) for name, key in names.items() if key in best}
    return figures | {name: float(values.mean()) for name, values in normal.terms.items() if name in RECORDED_TERMS}

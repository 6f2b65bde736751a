"""What a search measures: a trial on pseudo-anomalies; at the end two settings on images that no trial touched."""

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
"""At the end both settings are fitted so many times, with seeds that no trial had."""
FAILURES = (VaeguardError, RuntimeError, MemoryError)
"""What a fit may fail with; a `RuntimeError` only where memory ran out."""
KEPT_TERMS = ("neg_elbo", "recon_error")
"""Their means over the normal images stand beside the objective."""


@dataclass(frozen=True)
class Comparison:
    """The best settings and those that the search started from, on normal images that no trial touched.

    Attributes
    ----------
    start, best : dict of float
        ROC-AUC of telling each kind of pseudo-anomaly, mean over the fits.
    start_objective, best_objective : float
        Their means.
    difference, low, high : float
        By how much the best settings are better, and its 95% interval over images and seeds.
    images, fits : int
        So many normal images; so many fits with each of the two settings.
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
    """What came of comparing: the `comparison`, if there is one, how many `times` there was one, and the last error.

    All are made on the same images, so each after the first is less strict than its interval says.
    """

    comparison: Comparison | None
    times: int
    error: str = ""


def measured(plan: SearchPlan, settings: Settings, number: int, progress: Progress) -> Trial:
    """Fit `settings` and measure them; a fit that fails makes a trial without objective.

    Raises
    ------
    VaeguardError
        The first trial fails: nothing could be compared with it.
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
    """What to say of a fit that failed; an error that is no failure of a fit is raised again."""
    if isinstance(error, VaeguardError | MemoryError) or is_out_of_memory(error):
        return str(error) or "out of memory"
    raise error


def compare(plan: SearchPlan, best: Settings, progress: Progress) -> Comparison:
    """Fit the `best` settings and those of the start with fresh seeds, so that the luck of a trial does not count.

    The variance of the difference is that over images, each with its pseudo-anomalies, plus that over seeds; its
    interval is Student's, with the degrees of freedom of Welch and Satterthwaite. A fit that diverges counts as chance.

    Raises
    ------
    VaeguardError, MemoryError, RuntimeError
        A fit failed otherwise, which may say more of the machine than of the settings.
    """
    from scipy.stats import t

    shares: list[npt.NDArray[np.float64]] = []
    for number in range(REFITS):
        for settings in (plan.space.base, best):
            fitting = within(progress, len(shares), 2 * REFITS, "comparing the best settings with the first")
            shares.append(_shares(plan, settings, plan.seed + 1 + number, fitting))
    start, found = np.array(shares).reshape(REFITS, 2, len(plan.kinds), -1).swapaxes(0, 1)
    gain = (found - start).mean(1)  # (fits, images)
    fits, images = gain.shape
    parts = np.array([gain.mean(0).var(ddof=1) / images, gain.mean(1).var(ddof=1) / fits])
    freedom = parts.sum() ** 2 / (parts**2 / (images - 1, fits - 1)).sum() if parts.any() else 1
    half = float(t.ppf((1 + CONFIDENCE) / 2, freedom) * np.sqrt(parts.sum()))
    difference = float(gain.mean())
    return Comparison(
        start=dict(zip(plan.kinds, start.mean((0, 2)).tolist(), strict=True)),
        best=dict(zip(plan.kinds, found.mean((0, 2)).tolist(), strict=True)),
        start_objective=float(start.mean()),
        best_objective=float(found.mean()),
        difference=difference,
        low=difference - half,
        high=difference + half,
        images=images,
        fits=fits,
    )


def within(progress: Progress, done: int, total: int, text: str) -> Progress:
    """The progress of one fit, after `done` of `total`: its own line of text behind `text`."""
    return lambda _, __, more: progress(done, total, f"{text}; {more}")


def _shares(plan: SearchPlan, settings: Settings, seed: int, progress: Progress) -> npt.NDArray[np.float64]:
    """What each image of the comparison adds to the ROC-AUC of each kind, shape (kinds, images)."""
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
        warnings.simplefilter("ignore", TrainingWarning)  # the figures of the trial show what came of it
        return fit(
            plan.fitted_set,
            groups=plan.groups,
            normal_classes=plan.normal_classes,
            model=model,
            training=replace(training, seed=seed),
            progress=progress,
        )


def _anomalous_scores(plan: SearchPlan, detector: TorchDetector, images: Images) -> dict[str, Floats]:
    """Scores of the pseudo-anomalies made of `images`, which are the same in every trial."""
    return {kind: detector.inspect(make_pseudo_anomalies(images, kind, plan.seed)).score for kind in plan.kinds}


def _roc_auc(normal: Floats, scores: Floats) -> float:
    anomalous = np.arange(len(normal) + len(scores)) >= len(normal)
    return measure("score", anomalous, np.concatenate([normal, scores])).roc_auc


def _figures(detector: TorchDetector, normal: Inspection) -> dict[str, float]:
    best = detector.info.record.best_epoch
    names = {"class_accuracy": "valid_class_accuracy", "active_units": "active_units", "best_epoch": "epoch"}
    found = {name: float(best[key]) for name, key in names.items() if key in best}
    return found | {name: float(values.mean()) for name, values in normal.terms.items() if name in KEPT_TERMS}

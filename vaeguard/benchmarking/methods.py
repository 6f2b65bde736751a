"""The methods: our own fits, a plain classifier, simple baselines, and how each is measured on a task."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.benchmarking import baselines
from vaeguard.benchmarking.tasks import ImageTask, TableTask
from vaeguard.data.split import MIN_NORMAL, MIN_PER_CLASS, normal_numbers, split_for
from vaeguard.errors import UsageError
from vaeguard.evaluation.defect_masks import measure_pixels
from vaeguard.evaluation.evaluating import class_roc_auc, measure_detector, measure_scores
from vaeguard.settings.choice import DEFAULT_FEATURES
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.presets import PRESETS
from vaeguard.settings.specs import changed, from_dict, to_dict, without_places
from vaeguard.settings.training import TrainSpec
from vaeguard.statistics.false_alarms import FPRS, false_alarms
from vaeguard.storage.provenance import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from vaeguard.benchmarking.tasks import Task
    from vaeguard.engines.detector import Detector
    from vaeguard.progress import Progress
    from vaeguard.statistics.metrics import Metrics

    Scores = npt.NDArray[np.floating]
    Score = Callable[[], tuple[Mapping[str, Scores], Scores | None]]
    """Gives the scores of the test examples by name, (N,), and heatmaps (N, H, W), or None if there are none."""
    Fit = Callable[[Any, "Setup", Progress], tuple[Score, str]]

Result = dict[str, Any]
Fits = dict[ModelSpec, tuple[Any, "Detector", float]]
"""The last fit of each model: its data and settings, the detector, and the seconds that the fit took."""


@dataclass(frozen=True, eq=False)
class Setup:
    """The settings of our own method: `training` has the seed; `fits` keeps the fits that the next task may share.

    With `download`, the weights of networks are fetched.
    """

    model: ModelSpec
    training: TrainSpec
    fits: Fits
    download: bool = False


@dataclass(frozen=True, eq=False)
class Method:
    """A way to tell anomalous examples from normal ones.

    Attributes
    ----------
    settings : callable
        What the result depends on besides the task, as JSON can hold it. Raises UsageError if the task is unsuitable.
    measure : callable
        Fits and measures, and returns the result, as JSON can hold it.
    random : bool
        Whether the result depends on the seed.
    cost : int
        The rough time that the method takes, in hundredths of a fit.
    """

    settings: Callable[[Any, Setup], Result]
    measure: Callable[[Any, Setup, Progress], Result]
    random: bool = True
    cost: int = 100


def measured(name: str, task: Task, setup: Setup, progress: Progress) -> Result:
    """The result of the method `name`, a key of `METHODS`, on a task, with its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = METHODS[name].measure(task, setup, progress)
    return {**result, "warnings": sorted({str(item.message) for item in caught})}


def _fit_method(adapt: Callable[[Setup], Setup]) -> Method:
    """Our detector, fitted with the settings as changed by `adapt`."""
    return Method(
        settings=lambda task, setup: _fit_settings(task, adapt(setup)),
        measure=lambda task, setup, progress: _measure_fit(task, adapt(setup), progress),
    )


def _guided(setup: Setup, *, guided: bool) -> Setup:
    """A fit of pixels, whatever the size of the images."""
    return replace(setup, model=replace(setup.model, guided=guided, features=setup.model.features or ""))


def _for_patches(setup: Setup) -> Setup:
    """The preset for small defects; settings that were given override it."""
    preset = PRESETS["patches"]
    model = from_dict(ModelSpec, to_dict(preset.model) | changed(setup.model))
    training = from_dict(TrainSpec, to_dict(preset.training) | changed(setup.training))
    return _guided(replace(setup, model=model, training=training), guided=False)


def _for_features(setup: Setup) -> Setup:
    """The features of a pretrained network, by default those that a fit of photographs learns."""
    return replace(setup, model=replace(setup.model, features=setup.model.features or DEFAULT_FEATURES))


def _fit_settings(task: ImageTask, setup: Setup) -> Result:
    training = setup.training
    normal = normal_numbers(task.train, task.normal_classes)
    try:
        split = split_for(task.train, normal, setup.model, training, task.groups or None)
    except UsageError as error:
        # The advice of the split is for a fit; a benchmark has other parameters.
        raise UsageError(
            f"{str(error).partition(';')[0]}; a fit needs at least {MIN_NORMAL} normal images and {MIN_PER_CLASS} of"
            " every normal class, so add images or raise `limit`"
        ) from error
    return {
        "fit_split": split.digest(),
        "model": to_dict(setup.model.sized()),
        "training": without_places(to_dict(training)),
    }


def _measure_fit(task: ImageTask, setup: Setup, progress: Progress) -> Result:
    """Measure the combined score of a detector, its terms, its heatmaps where there are masks, and its false alarms."""
    detector, seconds = _fit(task, setup, progress)
    measurement = measure_detector(detector, task.test, task.anomalous, task.defects)
    inspection, record = measurement.inspection, detector.info.record
    normal, calibration = inspection.p_value[~task.anomalous], record.calibration.images
    scores = {"score": inspection.score, **inspection.terms}
    return {
        **_result(task, scores, measurement.metrics, (seconds, measurement.seconds)),
        **({} if measurement.pixels is None else {"pixels": asdict(measurement.pixels)}),
        "false_alarms": [asdict(false_alarms(normal, calibration, fpr)) for fpr in FPRS],
        "spec": {"model": to_dict(record.model), "training": to_dict(record.training)},
        "fit_split_sha256": record.data.split.sha256,
        "environment": environment(detector.device),
    }


def _fit(task: ImageTask, setup: Setup, progress: Progress) -> tuple[Detector, float]:
    """The detector and the seconds that its fit took; the last fit is reused for the same training part."""
    from vaeguard.workflows.fit import fit

    key = task.train.fingerprint, task.normal_classes, setup.training
    if setup.fits.get(setup.model, (None,))[0] != key:
        started = time.perf_counter()
        detector = fit(
            task.train, groups=task.groups or None, normal_classes=task.normal_classes, model=setup.model,
            training=setup.training, download=setup.download, progress=progress,
        )  # fmt: skip
        setup.fits[setup.model] = key, detector, time.perf_counter() - started
    return setup.fits[setup.model][1:]


def _score_method(
    settings: Callable[[Any, Setup], Result], fit: Fit, *, random: bool = True, cost: int = 100
) -> Method:
    """A method that is fitted by `fit` and gives nothing but scores."""

    def measure(task: Task, setup: Setup, progress: Progress) -> Result:
        started = time.perf_counter()
        score, device = fit(task, setup, progress)
        fitted = time.perf_counter()
        scores, heatmaps = score()
        seconds = fitted - started, time.perf_counter() - fitted
        result = _result(task, scores, measure_scores(task.anomalous, scores), seconds)
        return {**result, **_by_pixel(task, heatmaps), "environment": environment(device)}

    return Method(settings, measure, random, cost)


def _fit_classifier(task: ImageTask, setup: Setup, progress: Progress) -> tuple[Score, str]:
    """A plain classifier of the normal classes."""
    from vaeguard.benchmarking.classifier import Classifier

    classifier = Classifier(task, replace(setup.model, guided=False), setup.training, progress)
    return lambda: (classifier.scores(task.test), None), classifier.device


def _fit_estimator(task: TableTask, setup: Setup, _: Progress) -> tuple[Score, str]:
    """Our estimator for tables."""
    from vaeguard.devices import pick_device
    from vaeguard.sklearn import VAEDetector

    device = setup.training.device
    detector = VAEDetector(random_state=setup.training.seed, device=device).fit(task.train)

    def score() -> tuple[Mapping[str, Scores], None]:
        return {"score": -detector.score_samples(task.test), **detector.terms(task.test)}, None

    return score, pick_device(device)


def _estimator_settings(_task: TableTask, _setup: Setup) -> Result:
    from vaeguard.sklearn import VAEDetector

    return {"estimator": {name: repr(value) for name, value in VAEDetector().get_params().items()}}


def _baseline(baseline: baselines.Fit, *, random: bool = False, **settings: Any) -> Method:
    """A method of `baselines`; `settings` describe the method, so that changed settings make another cell."""

    def fit(task: Task, setup: Setup, _: Progress) -> tuple[Score, str]:
        train, test = task.vectors()
        scorer = baseline(train, setup.training.seed)

        def score() -> tuple[Mapping[str, Scores], Scores | None]:
            scores, by_value = scorer(test), None
            if scores.ndim == 2:
                by_value = scores.reshape(task.test.shape).mean(1) if isinstance(task, ImageTask) else None
                scores = scores.mean(1)
            return {baseline.__name__: scores}, by_value

        return score, "cpu"

    return _score_method(lambda _task, _setup: {"baseline": settings}, fit, random=random, cost=4)


def _cell_baseline(baseline: baselines.CellFit, **settings: Any) -> Method:
    """A method of `baselines` on the cells that our model of features sees; see `_baseline`."""

    def name_of(setup: Setup) -> str:
        return _for_features(setup).model.features or ""

    def fit(task: ImageTask, setup: Setup, _: Progress) -> tuple[Score, str]:
        from vaeguard.benchmarking.features import features_of

        features = features_of(task, name_of(setup), download=setup.download)
        scorer = baseline(features.train, setup.training.seed)

        def score() -> tuple[Mapping[str, Scores], Scores]:
            strongest, heatmaps = features.judged(scorer)
            return {baseline.__name__: strongest}, heatmaps

        return score, "cpu"

    return _score_method(
        lambda _task, setup: {"baseline": {**settings, "features": name_of(setup)}}, fit, random=True, cost=20
    )


def _result(
    task: Task, scores: Mapping[str, Scores], metrics: tuple[Metrics, ...], seconds: tuple[float, float]
) -> Result:
    """The part of a result that every method has: its metrics, and the seconds to fit and to score."""
    truth = task.anomalous
    return {
        "images": {"train": task.n_normal, "normal": int((~truth).sum()), "anomalous": int(truth.sum())},
        "split_sha256": task.sha256,
        "scores": {metric.name: asdict(metric) for metric in metrics},
        **_by_kind(task, scores),
        "seconds": dict(zip(("fit", "score"), seconds, strict=True)),
    }


def _by_pixel(task: Task, heatmaps: Scores | None) -> Result:
    """How well heatmaps (N, H, W) locate defects."""
    if heatmaps is None or not isinstance(task, ImageTask) or not task.defects:
        return {}
    return {"pixels": asdict(measure_pixels(heatmaps, task.anomalous, task.defects))}


def _by_kind(task: Task, scores: Mapping[str, Scores]) -> Result:
    """ROC-AUC of each kind of anomaly by itself against all normal test images."""
    if not isinstance(task, ImageTask) or not task.kinds:
        return {}
    kinds, truth = np.array(task.kinds), task.anomalous
    areas = {
        kind: {name: class_roc_auc(kinds == kind, truth, values) for name, values in scores.items()}
        for kind in np.unique(kinds[truth]).tolist()
    }
    return {"kinds": areas}


METHODS = {
    "guided": _fit_method(lambda setup: _guided(setup, guided=True)),
    "unlabelled": _fit_method(lambda setup: _guided(setup, guided=False)),
    "features": _fit_method(_for_features),
    "patches": _fit_method(_for_patches),
    "vaeguard": _score_method(_estimator_settings, _fit_estimator),
    "classifier": _score_method(
        lambda task, setup: _fit_settings(task, _guided(setup, guided=False)), _fit_classifier, cost=50
    ),
    "pca": _baseline(
        baselines.pca, components=baselines.COMPONENTS, at_most="half the features and half the examples"
    ),
    "knn": _baseline(
        baselines.knn,
        neighbours=baselines.NEIGHBOURS, distance="to the last", pca_above_features=baselines.MANY_FEATURES,
    ),
    "isolation_forest": _baseline(baselines.isolation_forest, random=True, trees=100),
    "one_class_svm": _baseline(
        baselines.one_class_svm, random=True,
        nu=0.5, gamma="scale", rows=baselines.SVM_ROWS, pca_above_features=baselines.MANY_FEATURES,
    ),
    "brightness": _baseline(baselines.brightness),
    "gaussian": _cell_baseline(baselines.gaussian, cells=baselines.DRAWN, floor=baselines.FLOOR),
    "padim": _cell_baseline(baselines.padim, features=baselines.POSITION_FEATURES, added=baselines.ADDED),
    "patchcore": _cell_baseline(baselines.patchcore, cells=baselines.BANK_OF, bank=baselines.BANK),
}  # fmt: skip

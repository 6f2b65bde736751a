"""How each method is measured on a task: our own fit, the plain classifier, the simple baselines."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.benchmarking.baselines import fit_baseline, pca_residual
from vaeguard.benchmarking.peak_memory import peak_memory
from vaeguard.benchmarking.tasks import ImageTask
from vaeguard.settings.specs import to_dict
from vaeguard.statistics.false_alarms import FPRS, false_alarms
from vaeguard.statistics.metrics import measure, per_region_overlap, pixel_roc_auc
from vaeguard.storage.provenance import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from vaeguard.benchmarking.tasks import TableTask, Task
    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import Inspection
    from vaeguard.progress import Progress
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec

    Result = dict[str, Any]
    Fits = dict[Any, tuple[Detector, float]]
    Scores = npt.NDArray[np.floating]

SCORE_ROWS = 256


def measure_fit(
    task: ImageTask, model: ModelSpec, training: TrainSpec, progress: Progress, fits: Fits | None = None
) -> Result:
    """Fit a detector on the normal images, and measure the combined score, its terms and its false alarms.

    With `fits` it is the one of an earlier task with the same training part and settings, if there was one, or else
    kept there for later tasks.
    """
    from vaeguard.workflows.fit import fit

    def work() -> Result:
        started = time.perf_counter()
        key = task.train.fingerprint, task.normal_classes, model, training
        if fits is not None and key in fits:
            detector, seconds_of_fit = fits[key]
        else:
            detector = fit(
                task.train, groups=task.groups or None, normal_classes=task.normal_classes, model=model,
                training=training, progress=progress,
            )  # fmt: skip
            seconds_of_fit = time.perf_counter() - started
            if fits is not None:
                fits[key] = detector, seconds_of_fit
        fitted = time.perf_counter()
        found = _inspect(detector, task.test, pictures=task.masks is not None)
        seconds = {"fit": seconds_of_fit, "score": time.perf_counter() - fitted}
        record = detector.info.record
        calibration = record.calibration.images
        alarms = [asdict(false_alarms(found.p_value[~task.anomalous], calibration, fpr)) for fpr in FPRS]
        return {
            **_measured(task, {"score": found.score, **found.terms}),
            **_pixels(task, found.heatmap),
            "false_alarms": alarms,
            "seconds": seconds,
            "spec": {"model": to_dict(record.model), "training": to_dict(record.training)},
            "fit_split_sha256": record.data.split.sha256,
            "environment": environment(detector.device),
        }

    return _watched(work)


def measure_classifier(task: ImageTask, model: ModelSpec, training: TrainSpec, progress: Progress) -> Result:
    """Train a plain classifier of the normal classes, and measure the scores that its logits give."""
    from vaeguard.benchmarking.classifier import Classifier

    def work() -> Result:
        started = time.perf_counter()
        classifier = Classifier(task, model, training, progress)
        fitted = time.perf_counter()
        scores = classifier.scores(task.test)
        seconds = {"fit": fitted - started, "score": time.perf_counter() - fitted}
        return {**_measured(task, scores), "seconds": seconds, "environment": environment(classifier.device)}

    return _watched(work)


def measure_baseline(task: Task, name: str, seed: int) -> Result:
    """Fit a baseline, a key of `baselines.SETTINGS`, and measure its one score."""

    def work() -> Result:
        train, test = task.vectors()
        started = time.perf_counter()
        scorer = fit_baseline(name, train, seed)
        fitted = time.perf_counter()
        scores = {name: scorer(test)}
        seconds = {"fit": fitted - started, "score": time.perf_counter() - fitted}
        result = {**_measured(task, scores), "seconds": seconds, "environment": environment()}
        if name == "pca" and isinstance(task, ImageTask) and task.masks is not None:
            result |= _pixels(task, pca_residual(train)(test).reshape(task.test.shape).mean(1))
        return result

    return _watched(work)


def measure_table(task: TableTask, seed: int, device: str) -> Result:
    """Fit our estimator for tables on the training rows, and measure its score and terms on the test rows."""
    from vaeguard.devices import pick_device
    from vaeguard.sklearn import VAEDetector

    def work() -> Result:
        started = time.perf_counter()
        detector = VAEDetector(random_state=seed, device=device).fit(task.train)
        fitted = time.perf_counter()
        scores = {"score": -detector.score_samples(task.test), **detector.terms(task.test)}
        seconds = {"fit": fitted - started, "score": time.perf_counter() - fitted}
        where = environment(pick_device(device))
        return {**_measured(task, scores), "seconds": seconds, "environment": where}

    return _watched(work)


def table_settings() -> dict[str, str]:
    """The settings that our estimator for tables has by itself."""
    from vaeguard.sklearn import VAEDetector

    return {name: repr(value) for name, value in VAEDetector().get_params().items()}


def _measured(task: Task, scores: Mapping[str, Scores]) -> Result:
    truth = task.anomalous
    found = {name: asdict(measure(name, truth, values)) for name, values in scores.items()}
    counts = {"train": task.n_normal, "normal": int((~truth).sum()), "anomalous": int(truth.sum())}
    return {"images": counts, "split_sha256": task.sha256, "scores": found, **_by_kind(task, scores)}


def _by_kind(task: Task, scores: Mapping[str, Scores]) -> Result:
    """ROC-AUC of each kind of anomaly by itself against all normal test images."""
    from sklearn.metrics import roc_auc_score

    if not isinstance(task, ImageTask) or not task.kinds:
        return {}
    kinds = np.array(task.kinds)
    found = {}
    for kind in np.unique(kinds[task.anomalous]).tolist():
        compared = (kinds == kind) | ~task.anomalous
        found[kind] = {
            name: float(roc_auc_score(task.anomalous[compared], values[compared])) for name, values in scores.items()
        }
    return {"kinds": found}


def _pixels(task: ImageTask, heatmaps: npt.NDArray[np.float32] | None) -> Result:
    if task.masks is None or heatmaps is None:
        return {}
    masks, maps = list(task.masks), list(heatmaps)
    return {"pixels": {"roc_auc": pixel_roc_auc(masks, maps), "pro": per_region_overlap(masks, maps)}}


def _inspect(detector: Detector, images: npt.NDArray[np.uint8], *, pictures: bool) -> Inspection:
    """What the detector says of all images; of the pictures only the heatmaps are kept."""
    from vaeguard.engines.inspection import concatenate

    parts = [
        replace(detector.inspect(images[at : at + SCORE_ROWS], pictures=pictures), restored=None)
        for at in range(0, len(images), SCORE_ROWS)
    ]
    return concatenate(parts)


def _watched(work: Callable[[], Result]) -> Result:
    """Keep what the work warned of, and the memory it took, with its result, where a report can show it."""
    with warnings.catch_warnings(record=True) as caught, peak_memory() as peak:
        warnings.simplefilter("always")
        result = work()
    texts = sorted({str(item.message) for item in caught})
    return {**result, "warnings": texts, "peak_memory_mb": peak.megabytes}

"""Evaluate a detector on labelled images: ROC-AUC of every term, realised false alarms, results for each class."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.image_set import as_image_set, digests_of
from vaeguard.data.split import split_for
from vaeguard.errors import UsageError
from vaeguard.evaluation.advice import next_steps
from vaeguard.evaluation.defect_masks import PixelMetrics, find_masks, measure_pixels, read_mask
from vaeguard.evaluation.scoring import score_set
from vaeguard.settings.classes import resolve_classes
from vaeguard.statistics.false_alarms import flag, fpr_note
from vaeguard.statistics.metrics import Metrics, Share, measure, roc_auc, share
from vaeguard.wording import brief

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import DetectorInfo, Inspection
    from vaeguard.engines.record import ModelRecord
    from vaeguard.progress import Progress

    Bools = npt.NDArray[np.bool_]
    Scores = npt.NDArray[np.floating]


NEGLIGIBLE_SHARE = 0.01
"""A smaller share of normal images that the model was fitted on does not distort an evaluation."""


@dataclass(frozen=True)
class ClassResult:
    """One class of the data.

    Attributes
    ----------
    name : str
        Name of the class.
    normal : bool
        Whether the class counts as normal.
    images : int
        Number of images.
    flagged : float
        Share of images with `p_value <= fpr`: false alarms if normal, detections if anomalous.
    median_score : float
        Median combined score.
    roc_auc : float or None
        ROC-AUC of the combined score against all normal images; None for a normal class.
    """

    name: str
    normal: bool
    images: int
    flagged: float
    median_score: float
    roc_auc: float | None


@dataclass(frozen=True, eq=False)
class Measurement:
    """How well a detector tells images apart.

    Attributes
    ----------
    inspection : Inspection
        The detector's results for each image, without pictures.
    metrics : tuple of Metrics
        The combined score first, then every term.
    pixels : PixelMetrics or None
        How well the heatmaps locate the defects; None without masks.
    seconds : float
        How long scoring took.
    """

    inspection: Inspection
    metrics: tuple[Metrics, ...]
    pixels: PixelMetrics | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of `evaluate`; arrays have one entry per image, in the order of the data.

    Attributes
    ----------
    fpr : float
        The stated false-alarm rate; images with `p_value <= fpr` are flagged.
    normal_classes : tuple of str
        The classes of the data that count as normal.
    metrics : tuple of Metrics
        The combined score first, then every term.
    false_alarm_rate, detection_rate : Share
        Realised share of normal and of anomalous images that are flagged.
    classes : tuple of ClassResult
        One per class that has images, in the order of the data.
    pixels : PixelMetrics or None
        How well the heatmaps locate the defects; None without masks.
    note : str or None
        A warning: no image can be flagged at this rate, or images were left out.
    independent : bool
        Whether (nearly) all normal images are new to the model; only then does their false-alarm rate apply to new
        images.
    anomalous : bool (N,)
        Which images are anomalous.
    image_set : ImageSet
        The images that were scored.
    inspection : Inspection
        The detector's results for these images.
    record : ModelRecord
        What the model file says about the fit.
    device : str
        The device that the detector ran on.
    seconds : float
        How long scoring took.
    """

    fpr: float
    normal_classes: tuple[str, ...]
    metrics: tuple[Metrics, ...]
    false_alarm_rate: Share
    detection_rate: Share
    classes: tuple[ClassResult, ...]
    pixels: PixelMetrics | None
    note: str | None
    independent: bool
    anomalous: Bools
    image_set: ImageSet
    inspection: Inspection
    record: ModelRecord
    device: str
    seconds: float

    def __repr__(self) -> str:
        return brief(
            self,
            data=self.image_set.name,
            images=self.images,
            fpr=self.fpr,
            roc_auc=self.metrics[0].roc_auc,
            detection_rate=self.detection_rate.value,
            false_alarm_rate=self.false_alarm_rate.value,
        )

    @property
    def images(self) -> dict[str, int]:
        """Count of normal and of anomalous images."""
        return {"normal": self.false_alarm_rate.images, "anomalous": self.detection_rate.images}

    @property
    def threshold(self) -> float | None:
        """The lowest combined score that is flagged, or None if no image is."""
        return _threshold(self.inspection, self.fpr)

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to try next if the score finds anomalies poorly, as parameters of `fit`; else empty."""
        return next_steps(self.record, self.metrics[0], self.detection_rate)

    def to_dict(self) -> dict[str, object]:
        """Return everything but the arrays as plain values that JSON can hold."""
        return {
            "data": self.image_set.name,
            "fingerprint": self.image_set.fingerprint,
            "fpr": self.fpr,
            "normal_classes": list(self.normal_classes),
            "images": self.images,
            "threshold": self.threshold,
            "false_alarm_rate": asdict(self.false_alarm_rate),
            "detection_rate": asdict(self.detection_rate),
            "metrics": [asdict(row) for row in self.metrics],
            "classes": [asdict(row) for row in self.classes],
            "pixels": None if self.pixels is None else asdict(self.pixels),
            "note": self.note,
            "next_steps": list(self.next_steps),
            "left_out": self.image_set.left_out,
            "independent": self.independent,
            "seconds": self.seconds,
        }


def evaluate(
    detector: Detector,
    images: ImageSet | npt.ArrayLike,
    normal_classes: str | int | Sequence[str | int] | None = None,
    *,
    labels: npt.ArrayLike | None = None,
    fpr: float | None = None,
    masks: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score labelled images and compare the scores with the labels; classes are matched by name.

    Images that the model was fitted on are left out, unless they are less than 1 % of the normal images. If the fit had
    folds, such images are kept, with the results of the model that was fitted without their fold. In both cases, `note`
    of the result says so.

    Parameters
    ----------
    detector : Detector
        Any engine.
    images : ImageSet, or array with `labels`
        Images that the model was neither fitted nor calibrated on.
    normal_classes : `"0-8"`, `"good,ok"`, names or None
        The classes that count as normal; None takes the normal classes of the model.
    labels : array of int or str, shape (N,), optional
        The classes of an array of images.
    fpr : float or None
        The false-alarm rate at which images are flagged, in (0, 1); None takes the one of the export, else 0.05.
    masks : path or None
        Folder of masks of the defects, see `defect_masks.find_masks`; the heatmaps of all images are then in memory.
    progress : callable or None
        Called with the number of images done, the number of all images, and a line of text.

    Raises
    ------
    UsageError
        The data has no labels, a class is unknown, all or none of the images are normal, no image has a mask, or `fpr`
        is not between 0 and 1.
    RefusedError
        As `vaeguard.from_array`, for an array.
    VaeguardError
        A score is not a number.
    """
    fpr = detector.info.rate(fpr)
    image_set, note, independent = _independent_part(detector.info, as_image_set(images, labels))
    if image_set.labels is None:
        raise UsageError(
            f"data {image_set.name!r} has no classes to compare; sort the images into one sub-folder per class, or"
            " give labels"
        )
    chosen = None
    if normal_classes is not None:
        numbers = resolve_classes(normal_classes, image_set.class_names, must_leave_anomalies=True)
        chosen = [image_set.class_names[k] for k in numbers]
    names = _normal_names(image_set, chosen, detector.info.normal_classes)
    anomalous = ~np.isin(image_set.labels, [image_set.class_names.index(name) for name in names])
    _check_both_kinds(image_set, names, anomalous)
    paths = find_masks(masks, image_set, anomalous) if masks else {}
    defects = {row: read_mask(path, image_set.images.shape[2:]) for row, path in paths.items()}
    measured = measure_detector(detector, image_set, anomalous, defects, progress)
    inspection = measured.inspection
    flagged = flag(inspection.p_value, fpr)
    return Evaluation(
        fpr=fpr,
        normal_classes=names,
        metrics=measured.metrics,
        false_alarm_rate=share(flagged[~anomalous]),
        detection_rate=share(flagged[anomalous]),
        classes=tuple(_class_results(image_set, anomalous, inspection.score, flagged)),
        pixels=measured.pixels,
        note="; ".join(filter(None, (note, fpr_note(detector.info.calibrated_on, fpr)))) or None,
        independent=independent,
        anomalous=anomalous,
        image_set=image_set,
        inspection=inspection,
        record=detector.info.record,
        device=detector.device,
        seconds=measured.seconds,
    )


def measure_detector(
    detector: Detector,
    images: ImageSet | npt.ArrayLike,
    anomalous: Bools,
    masks: Mapping[int, Bools] | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Score every image and compare the scores with the truth.

    Parameters
    ----------
    detector, progress
        As for `evaluate`.
    images : ImageSet or array
        N images.
    anomalous : bool (N,)
        Which images are anomalous.
    masks : dict of bool (H, W), optional
        Masks of the defects of anomalous images, keyed by the row of the image.

    Raises
    ------
    UsageError
        There are no images, or all masks are empty.
    VaeguardError
        The detector gives no number for an image.
    """
    started = time.perf_counter()
    inspection = score_set(detector, images, heatmaps=bool(masks), progress=progress)
    inspection = _out_of_fold(detector.info, as_image_set(images), inspection)
    seconds = time.perf_counter() - started
    pixels = None
    if masks and inspection.heatmap is not None:
        pixels = measure_pixels(inspection.heatmap, anomalous, masks, detector.info)
        inspection = replace(inspection, heatmap=None)  # heatmaps are large, and no caller needs them
    metrics = measure_scores(anomalous, {"score": inspection.score, **inspection.terms})
    return Measurement(inspection, metrics, pixels, seconds)


def _out_of_fold(info: DetectorInfo, image_set: ImageSet, inspection: Inspection) -> Inspection:
    """The results of images that were fitted on, by models that had not seen their folds; all others as they are.

    Heatmaps stay those of the detector.
    """
    if info.out_of_fold is None or info.fitted_on is None:
        return inspection
    order, digests = np.argsort(info.fitted_on), digests_of(image_set.images)
    at = order[np.searchsorted(info.fitted_on, digests, sorter=order).clip(max=len(order) - 1)]
    fitted = info.fitted_on[at] == digests
    own = (inspection.score, inspection.p_value, *(inspection.terms[name] for name in info.term_names))
    score, p_value, *terms = (
        np.where(fitted, known, value) for known, value in zip(info.out_of_fold[at].T, own, strict=True)
    )
    return replace(inspection, score=score, p_value=p_value, terms=dict(zip(info.term_names, terms, strict=True)))


def measure_scores(anomalous: Bools, scores: Mapping[str, Scores]) -> tuple[Metrics, ...]:
    """The metrics of each named score (N,); `anomalous` (N,) is the truth."""
    return tuple(measure(name, anomalous, values) for name, values in scores.items())


def class_roc_auc(members: Bools, anomalous: Bools, scores: Scores) -> float:
    """ROC-AUC of the anomalous images where `members` (N,) is true against all normal images."""
    compared = members | ~anomalous
    return roc_auc(anomalous[compared], scores[compared])


def _threshold(inspection: Inspection, fpr: float) -> float | None:
    flagged = inspection.score[flag(inspection.p_value, fpr)]
    return float(flagged.min()) if len(flagged) else None


def unseen(info: DetectorInfo, image_set: ImageSet) -> tuple[ImageSet, str | None]:
    """The images that the model was not fitted on, and a caution if there were others."""
    chosen, note, _ = _independent_part(info, image_set)
    return chosen, note


def _independent_part(info: DetectorInfo, image_set: ImageSet) -> tuple[ImageSet, str | None, bool]:
    """The results of `unseen`, and whether (nearly) all normal images of the data are new to the model."""
    # Different rows of a table may be equal; different pictures are not.
    if info.fitted_on is not None and info.view.pictures:
        return _new_by_digest(info, image_set, ~np.isin(digests_of(image_set.images), info.fitted_on))
    data, training = info.record.data, info.record.training
    if data.fingerprint != image_set.fingerprint:
        return image_set, _UNKNOWN if info.record.onnx and info.view.pictures else None, True
    normal = tuple(k for k, name in enumerate(image_set.class_names) if name in info.normal_classes)
    split = split_for(image_set, normal, info.record.model, training)
    if split.folds is not None or split.digest() != data.split.sha256:
        return image_set, _same_images_note(image_set), False
    fresh = np.ones(len(image_set.images), dtype=bool)
    fresh[np.concatenate([split.training, split.validation])] = False
    return image_set.select(fresh), _left_out_note(image_set, int(np.count_nonzero(~fresh))), False


_UNKNOWN = (
    "the exported file does not list the images of the fit; if some of these images are among them, the figures are"
    " too good; to have this checked, give the run folder as the model"
)


def _new_by_digest(info: DetectorInfo, image_set: ImageSet, fresh: Bools) -> tuple[ImageSet, str | None, bool]:
    """The results of `_independent_part` if it is known which images are `fresh`, not fitted on."""
    of_normal = fresh[_normal_rows(info, image_set)]
    known, few = int(np.count_nonzero(~of_normal)), bool(of_normal.mean() > 1 - NEGLIGIBLE_SHARE)
    if info.out_of_fold is not None and known:
        return image_set, _out_of_fold_note(known, len(of_normal)), few
    # Some published data sets have a few test images that are also training images; these stay.
    if few:
        return image_set, _negligible_note(known, len(of_normal)), True
    if not of_normal.any():
        return image_set, _same_images_note(image_set), False
    return image_set.select(fresh), _left_out_note(image_set, int(np.count_nonzero(~fresh))), False


def _negligible_note(count: int, images: int) -> str | None:
    if not count:
        return None
    return (
        f"{count:,} of the {images:,} normal images were also used for the fit; they are too few to matter and were"
        " kept"
    )


def _out_of_fold_note(count: int, images: int) -> str:
    return (
        f"{count:,} of the {images:,} normal images were used for the fit and calibrate the score, so they are flagged"
        " at the stated false-alarm rate by construction; to measure false alarms, use other images"
    )


def _normal_rows(info: DetectorInfo, image_set: ImageSet) -> Bools:
    """Which images have a class that the model was fitted on; all images if none has."""
    numbers = [k for k, name in enumerate(image_set.class_names) if name in info.normal_classes]
    normal: Bools = np.isin(image_set.labels, numbers) if image_set.labels is not None else np.zeros(0, bool)
    return normal if normal.any() else np.ones(len(image_set.images), bool)


def _same_images_note(image_set: ImageSet) -> str:
    return (
        f"the normal images of {image_set.name!r} were used for the fit, so the figures are too good; use other images"
    )


def _left_out_note(image_set: ImageSet, count: int) -> str:
    return (
        f"{image_set.name!r} contains images of the fit: {count} that trained the model were skipped, but the remaining"
        " normal images may include some that calibrate the score; for independent figures, use other images"
    )


def _normal_names(image_set: ImageSet, asked: Sequence[str] | None, fitted: Sequence[str]) -> tuple[str, ...]:
    """Return the normal classes in the order of the data."""
    if not asked and not fitted:
        if not image_set.class_names:
            raise UsageError(
                f"{image_set.name!r} has no classes, so it is not known which images are normal; sort the images into"
                " one folder per class, or use a labelled data set"
            )
        raise UsageError(
            "the model was fitted without classes, so it is not known which images are normal; set `normal_classes` to"
            f" some of the classes of {image_set.name!r}: {', '.join(image_set.class_names)}"
        )
    wanted = set(asked or fitted)
    return tuple(name for name in image_set.class_names if name in wanted)


def _check_both_kinds(image_set: ImageSet, names: tuple[str, ...], anomalous: Bools) -> None:
    if anomalous.all() or not anomalous.any():
        what = "none of the images is normal" if len(names) == 0 or anomalous.any() else "every image is normal"
        raise UsageError(
            f"{what} (normal classes: {', '.join(names) or 'none'}), so there is nothing to compare; choose different"
            f" `normal_classes`; the classes of {image_set.name!r} are {', '.join(image_set.class_names)}"
        )


def _class_results(image_set: ImageSet, anomalous: Bools, score: Scores, flagged: Bools) -> list[ClassResult]:
    results = []
    for index, name in enumerate(image_set.class_names):
        members: Bools = np.asarray(image_set.labels) == index
        if not members.any():
            continue
        normal = not anomalous[members][0]
        results.append(
            ClassResult(
                name=name,
                normal=normal,
                images=int(members.sum()),
                flagged=float(flagged[members].mean()),
                median_score=float(np.median(score[members])),
                roc_auc=None if normal else class_roc_auc(members, anomalous, score),
            )
        )
    return results

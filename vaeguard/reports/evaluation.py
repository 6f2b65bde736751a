"""The report of an evaluation."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.reports.distributions import curves, histogram, thresholds
from vaeguard.reports.gallery import gallery, group, sample
from vaeguard.reports.report_file import heading
from vaeguard.reports.simple_measures import simple_measures
from vaeguard.statistics.false_alarms import expected_interval, flag
from vaeguard.statistics.metrics import share

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import Inspection
    from vaeguard.evaluation.evaluating import Evaluation
    from vaeguard.reports.gallery import Group
    from vaeguard.reports.report_file import Report

STATED = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""False-alarm rates at which the realised one is compared."""


def evaluation_report(evaluation: Evaluation, detector: Detector, command: str = "") -> Report:
    """The report of an evaluation; some of its images are inspected again, with pictures.

    The keys are those of `Evaluation.to_dict` and those of `docs/report-format.md`.
    """
    inspection, anomalous = evaluation.inspection, evaluation.anomalous
    scores = {"score": inspection.score, **inspection.terms}
    normal = ", ".join(evaluation.normal_classes)
    drawn = _gallery(evaluation, detector)
    return {
        **heading(
            "evaluation", f"{evaluation.image_set.name}: normal {normal}", command=command, device=evaluation.device
        ),
        **evaluation.to_dict(),
        "histogram": histogram({"normal": inspection.score[~anomalous], "anomalous": inspection.score[anomalous]}),
        "thresholds": thresholds(inspection.score, anomalous, inspection.p_value, evaluation.threshold),
        "curves": {name: curves(anomalous, values) for name, values in scores.items()},
        "calibration": [_realised(evaluation, stated) for stated in STATED],
        "expected_false_alarms": _expected(evaluation, evaluation.fpr),
        "simple_measures": simple_measures(evaluation.image_set.images, inspection.score, anomalous),
        "fit": evaluation.record.to_dict(),
        **drawn,
    }


def _realised(evaluation: Evaluation, stated: float) -> Report:
    """The false-alarm rate that came of a stated one, and what it should be."""
    flagged = flag(evaluation.inspection.p_value[~evaluation.anomalous], stated)
    return {"stated": stated, **asdict(share(flagged)), "expected": _expected(evaluation, stated)}


def _expected(evaluation: Evaluation, stated: float) -> Report | None:
    """Where the rate lies with 95 % probability for images like those that rank the score, if their number is known."""
    calibration = evaluation.record.calibration.images
    if not calibration:
        return None
    low, high = expected_interval(evaluation.images["normal"], calibration, stated)
    return {"low": low, "high": high}


def groups_to_look_at(
    inspection: Inspection, anomalous: npt.NDArray[np.bool_], fpr: float, threshold: float | None
) -> tuple[Group, ...]:
    """The images that tell most: the strangest, the worst mistakes of both kinds, and the closest calls."""
    score, flagged = inspection.score, flag(inspection.p_value, fpr)
    everything = np.ones(len(score), bool)
    groups = [
        group("most_anomalous", "Most anomalous", everything, score),
        group("missed", "Anomalous, but not flagged: the most normal-looking", anomalous & ~flagged, -score),
        group("false_alarms", "Normal, but flagged: the strangest", ~anomalous & flagged, score),
    ]
    if threshold is not None:
        closeness = np.nan_to_num(-np.abs(score.astype(np.float64) - threshold), nan=0.0)
        groups.append(group("borderline", "Closest to the threshold", everything, closeness))
    return tuple(groups)


def _gallery(evaluation: Evaluation, detector: Detector) -> Report:
    inspection, image_set = evaluation.inspection, evaluation.image_set
    assert image_set.labels is not None
    groups = groups_to_look_at(inspection, evaluation.anomalous, evaluation.fpr, evaluation.threshold)
    facts: dict[str, Any] = {
        "path": image_set.paths,
        "class": [image_set.class_names[label] for label in image_set.labels],
        "anomalous": evaluation.anomalous,
        "score": inspection.score,
        "p_value": inspection.p_value,
    }
    return gallery(sample(detector, image_set.images, groups), facts, inspection.terms)

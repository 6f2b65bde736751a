"""The report of an evaluation."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from vaeguard.data.folders import originals_of
from vaeguard.data.regions import covered
from vaeguard.evaluation.defect_masks import PixelMetrics
from vaeguard.evaluation.evaluating import ClassResult
from vaeguard.reports.distributions import curves, histogram, thresholds
from vaeguard.reports.gallery import draw, gallery, group, rows_to_show
from vaeguard.reports.kinds import Part, ReportFigures, Verdict, percent
from vaeguard.reports.report_file import heading
from vaeguard.reports.simple_measures import SimpleMeasures, simple_measures
from vaeguard.reports.terminal import SHOWN, Histogram, sparklines, table_of
from vaeguard.statistics.false_alarms import expected_interval, flag
from vaeguard.statistics.metrics import Metrics, Share, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt
    from rich.console import RenderableType

    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import Inspection
    from vaeguard.evaluation.evaluating import Evaluation
    from vaeguard.reports.gallery import Group
    from vaeguard.reports.report_file import Report

STATED = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""The stated false-alarm rates that are compared with the realised ones."""
QUALITY = (
    (0.99, 0.8, "Finds anomalies almost perfectly", "good"),
    (0.95, 0.6, "Finds anomalies well", "good"),
    (0.85, 0.3, "Finds many anomalies", "fair"),
    (0.7, 0.0, "Finds anomalies poorly", "poor"),
)
"""The least ROC-AUC and the least share caught for each headline, with the tone of the headline.

Somewhat less is asked of the share than Gaussian scores of this ROC-AUC catch at 5 % (95, 75, 43 and 18 %)."""
SLACK = 0.1
"""How far the lower end of the interval may lie below the least ROC-AUC of a headline."""
EXPLAINED = 0.02
"""If the ROC-AUC of a measure as simple as brightness comes this close, the score may measure nothing else."""


def evaluation_report(evaluation: Evaluation, detector: Detector, command: str = "") -> Report:
    """The report of an evaluation, for which some images are inspected again, with pictures.

    The keys are those of `Evaluation.to_dict` and of `docs/reference/report-format.md`.
    """
    inspection, anomalous = evaluation.inspection, evaluation.anomalous
    scores = {"score": inspection.score, **inspection.terms}
    normal = ", ".join(evaluation.normal_classes)
    images: Any = evaluation.image_set.images
    seen = covered(images, regions=evaluation.image_set.regions)
    measures = simple_measures(seen, inspection.score, anomalous)
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
        "simple_measures": measures and asdict(measures),
        "fit": evaluation.record.to_dict(),
        **drawn,
    }


def _realised(evaluation: Evaluation, stated: float) -> Report:
    """The realised false-alarm rate at a stated one, and the interval in which it should lie."""
    flagged = flag(evaluation.inspection.p_value[~evaluation.anomalous], stated)
    return {"stated": stated, **asdict(share(flagged)), "expected": _expected(evaluation, stated)}


def _expected(evaluation: Evaluation, stated: float) -> Report | None:
    """The 95 % interval of the rate for images like the calibration images; None if their number is unknown."""
    calibration = evaluation.record.calibration.images
    if not calibration:
        return None
    low, high = expected_interval(evaluation.images["normal"], calibration, stated)
    return {"low": low, "high": high}


def groups_to_look_at(
    inspection: Inspection, anomalous: npt.NDArray[np.bool_], fpr: float, threshold: float | None
) -> tuple[Group, ...]:
    """The images to look at: the most anomalous, the worst mistakes of both kinds, and those nearest the threshold."""
    score, flagged = inspection.score, flag(inspection.p_value, fpr)
    everything = np.ones(len(score), bool)
    groups = [
        group("most_anomalous", "Most anomalous", everything, score),
        group("missed", "Anomalous, but not flagged: the most normal-looking", anomalous & ~flagged, -score),
        group("false_alarms", "Normal, but flagged: the most anomalous", ~anomalous & flagged, score),
    ]
    if threshold is not None:
        closeness = np.nan_to_num(-np.abs(score.astype(np.float64) - threshold), nan=0.0)
        borderline = group("borderline", "Closest to the threshold", everything, closeness)
        if not np.isin(borderline.rows, groups[0].rows).all():
            groups.append(borderline)
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
    drawn = {}
    if rule := detector.info.rule:
        rows = rows_to_show(groups)
        drawn = draw(detector, originals_of(image_set, rows, rule), {image_set.paths[row]: row for row in rows})
    return gallery(groups, facts, inspection.terms, drawn)


class Expected(Part):
    """The interval in which a false-alarm rate should lie."""

    low: float
    high: float


class Figures(ReportFigures):
    """The figures of an evaluation that its verdict and its lines take."""

    fpr: float
    threshold: float | None
    false_alarm_rate: Share
    detection_rate: Share
    metrics: tuple[Metrics, ...]
    classes: tuple[ClassResult, ...]
    pixels: PixelMetrics | None
    note: str | None
    independent: bool
    histogram: Histogram
    expected_false_alarms: Expected | None
    simple_measures: SimpleMeasures | None

    def verdict(self) -> Verdict:
        """Return how well the score tells anomalies, and whether the false alarms are as stated."""
        score, caught, alarms = self.metrics[0], self.detection_rate, self.false_alarm_rate
        headline, tone = _quality(score, caught.value)
        if self._flags_nothing:
            headline, tone = "No image can be flagged at this false-alarm rate", "poor"
        interval = f"95 % interval {percent(alarms.low)} to {percent(alarms.high)}"
        sentence = (
            f"ROC-AUC {score.roc_auc:.3f} (95 % interval {score.roc_auc_low:.3f} to {score.roc_auc_high:.3f})."
            f" At the chosen false-alarm rate of {self.fpr:.3g}, {caught.count:,} of {caught.images:,} anomalous"
            f" images {_is(caught.count)} caught ({percent(caught.value)}) and {alarms.count:,} of {alarms.images:,}"
            f" normal ones {_is(alarms.count)} flagged ({percent(alarms.value)}, {interval})."
        )
        return Verdict(headline, sentence, tuple(self._notes()), tone)

    @property
    def _flags_nothing(self) -> bool:
        """Whether so few images calibrate the score that no p-value is low enough."""
        return self.expected_false_alarms is not None and self.expected_false_alarms.high == 0

    def _notes(self) -> Iterator[str]:
        if self.note:
            yield self.note
        by_area, caught = _quality(self.metrics[0], 1.0)[0], self.detection_rate.value
        if not self._flags_nothing and by_area != _quality(self.metrics[0], caught)[0]:
            yield (
                f"by the ROC-AUC alone, the verdict would be {by_area!r}, but at this false-alarm rate only"
                f" {percent(caught)} of the anomalous images are caught; a higher rate catches more, and fitting on"
                " more normal images makes the threshold more precise"
            )
        rate, expected = self.false_alarm_rate.value, self.expected_false_alarms
        if expected and self.independent and not expected.low <= rate <= expected.high:
            more = "more" if rate > expected.high else "fewer"
            # Images that the model was fitted on look more normal to the model than any others.
            cause = (
                "these normal images differ from the calibration images; look at the flagged images and, if they are"
                " normal, include such images in the fit"
                if more == "more"
                else "either some of these normal images were used for the fit, which makes every figure here too good,"
                " or they differ from the calibration images"
            )
            yield (
                f"there are {more} false alarms than expected: {percent(rate)} instead of {percent(expected.low)} to"
                f" {percent(expected.high)} at a stated rate of {percent(self.fpr)}, so {cause}"
            )
        if self.simple_measures:
            yield from self._as_good_as_the_score(self.simple_measures)

    def _as_good_as_the_score(self, measures: SimpleMeasures) -> Iterator[str]:
        for name, measure in (("brightness", measures.brightness), ("complexity", measures.complexity)):
            if measure.roc_auc >= self.metrics[0].roc_auc - EXPLAINED:
                yield (
                    f"{name} alone reaches a ROC-AUC of {measure.roc_auc:.3f}, so these data do not show that the score"
                    " detects more than this measure"
                )

    def lines(self) -> Iterable[RenderableType]:
        """Yield the histogram, the terms by themselves, the heatmaps and the most difficult classes."""
        yield from sparklines(self.histogram, self.threshold)
        terms = sorted(self.metrics[1:], key=lambda term: -term.roc_auc)
        named = ", ".join(f"{term.name} {term.roc_auc:.3f}" for term in terms)
        yield f"ROC-AUC of each term alone: {named}"
        if pixels := self.pixels:
            without = f" ({pixels.without} anomalous images have no mask)" if pixels.without else ""
            hit = f"; {pixels.hit} of {pixels.defects} defects lie at least partly in the box of a spot"
            spots = "" if pixels.hit is None else hit
            yield (
                f"heatmaps compared with {pixels.masks} masks{without}: pixel ROC-AUC {pixels.roc_auc:.3f},"
                f" per-region overlap {pixels.pro:.3f}{spots}"
            )
        yield self._classes()

    def _classes(self) -> RenderableType:
        table = table_of("images", "flagged", "ROC-AUC")
        anomalous = sorted((row for row in self.classes if not row.normal), key=lambda row: row.roc_auc or 0.0)
        normal = sorted((row for row in self.classes if row.normal), key=lambda row: -row.flagged)
        for rows, text in ((anomalous, "anomalous, hardest to find"), (normal, "normal, most often flagged")):
            for row in rows[:SHOWN]:
                area = "" if row.roc_auc is None else f"{row.roc_auc:.3f}"
                table.add_row(f"{escape(row.name[:40])} ({text})", f"{row.images:,}", f"{row.flagged:.1%}", area)
        return table


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _quality(score: Metrics, caught: float) -> tuple[str, str]:
    """Headline and tone for the metrics of the combined score, and the share of anomalies caught."""
    area, low, high = score.roc_auc, score.roc_auc_low, score.roc_auc_high
    if low <= 0.5 < area and high > 0.6:
        return "Too few images to know whether the score is better than chance", "poor"
    if low <= 0.5:
        return "No better than chance", "poor"
    headline, tone = _level(area, low, caught)
    best_headline, best_tone = _level(area, area, caught)
    if headline != best_headline and tone == "poor":
        unsure = "Finds anomalies" if best_tone != "poor" else "May find anomalies"
        return f"{unsure}, but there are too few images to say how well", "fair" if best_tone != "poor" else "poor"
    return headline, tone


def _level(area: float, low: float, caught: float) -> tuple[str, str]:
    """Headline and tone for a ROC-AUC whose interval begins at `low`, and the share of anomalies caught."""
    for least, least_caught, text, tone in QUALITY:
        if area >= least and low >= least - SLACK and caught >= least_caught:
            return text, tone
    return "Hardly finds any anomalies", "poor"

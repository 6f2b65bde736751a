from __future__ import annotations

import importlib
from dataclasses import asdict

import numpy as np
import pytest

from vaeguard.reports.kinds import ReportFigures, report_kinds, verdict
from vaeguard.reports.scores import drift
from vaeguard.reports.simple_measures import SimpleMeasure, SimpleMeasures
from vaeguard.reports.terminal import Histogram, sparkline, sparklines
from vaeguard.restoration.reasons import BILEVEL, CLEAN
from vaeguard.statistics.false_alarms import expected_interval
from vaeguard.statistics.metrics import Metrics, share_of

NO_HISTOGRAM = {"edges": [0, 1], "counts": {}}


def measures(brightness: float, complexity: float) -> dict:
    return asdict(SimpleMeasures(9, 9, [], [], *(SimpleMeasure(area, 0.0, []) for area in (brightness, complexity))))


def evaluation(area: float, low: float, high: float, **changes) -> dict:
    score = vars(Metrics("score", area, low, high, average_precision=area, no_skill_precision=0.1, fpr_at_95_tpr=0.1))
    rates = {"detection_rate": vars(share_of(50, 60)), "false_alarm_rate": vars(share_of(30, 600))}
    figures = {"metrics": [score], "fpr": 0.05, "note": None, "independent": True,
               "simple_measures": measures(0.45, 0.45),
               "threshold": None, "classes": [], "pixels": None, "histogram": NO_HISTOGRAM}  # fmt: skip
    expected = {"expected_false_alarms": {"low": 0.03, "high": 0.08}}
    return {"kind": "evaluation", **figures, **rates, **expected, **changes}


@pytest.mark.parametrize(
    ("area", "low", "headline", "tone"),
    [
        (0.999, 0.998, "almost perfectly", "good"),
        (0.96, 0.94, "well", "good"),
        (0.9, 0.8, "many", "fair"),
        (0.75, 0.6, "poorly", "poor"),
        (0.6, 0.55, "Hardly", "poor"),
        (0.99, 0.4, "Too few images to know", "poor"),
        (0.52, 0.49, "No better than chance", "poor"),
        (1.0, 0.85, "well", "good"),
        (0.992, 0.745, "Finds anomalies, but there are too few images to say how well", "fair"),
        (0.9, 0.62, "Finds anomalies, but there are too few images", "fair"),
        (0.84, 0.55, "May find anomalies, but there are too few images", "poor"),
    ],
)
def test_the_headline_follows_the_roc_auc_and_its_interval(area, low, headline, tone):
    found = verdict(evaluation(area, low, min(1.0, 2 * area - low)))
    assert headline in found.headline
    assert found.tone == tone
    assert f"{area:.3f}" in found.sentence
    assert "50 of 60" in found.sentence
    assert "30 of 600" in found.sentence
    assert not found.notes


@pytest.mark.parametrize(
    ("caught", "headline", "tone"), [(50, "almost perfectly", "good"), (40, "well", "good"), (20, "many", "fair"),
                                     (5, "poorly", "poor")]
)  # fmt: skip
def test_what_is_caught_at_the_stated_rate_limits_the_headline(caught, headline, tone):
    found = verdict(evaluation(0.999, 0.998, 1, detection_rate=vars(share_of(caught, 60))))
    assert headline in found.headline
    assert found.tone == tone
    assert [note.startswith("by the ROC-AUC alone, the verdict would be") for note in found.notes] == [True] * (
        caught < 50
    )


def test_a_rate_at_which_nothing_can_be_flagged_is_the_headline():
    nothing = {"detection_rate": vars(share_of(0, 60)), "false_alarm_rate": vars(share_of(0, 600))}
    found = verdict(evaluation(0.99, 0.98, 1, expected_false_alarms={"low": 0, "high": 0}, **nothing))
    assert found.headline.startswith("No image can be flagged")
    assert not found.notes


def test_false_alarms_beyond_the_stated_rate_are_said():
    found = verdict(evaluation(0.99, 0.98, 1, false_alarm_rate=vars(share_of(120, 600))))
    assert "more false alarms than expected" in found.notes[0]
    found = verdict(evaluation(0.99, 0.98, 1, false_alarm_rate=vars(share_of(0, 600))))
    assert "fewer false alarms than expected" in found.notes[0]


NOTE = "2 of the 400 normal images were also used for the fit; they are too few to matter and were kept"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"note": NOTE, "independent": True}, True),
        ({"note": "9 that trained the model were skipped", "independent": False}, False),
        ({"note": None}, True),
    ],
)
def test_false_alarms_are_judged_where_the_normal_images_are_strangers_whatever_else_is_noted(fields, said):
    found = verdict(evaluation(0.99, 0.98, 1, false_alarm_rate=vars(share_of(120, 600)), **fields))
    assert any("more false alarms than expected" in note for note in found.notes) == said


def test_a_score_no_better_than_brightness_is_said():
    found = verdict(evaluation(0.99, 0.98, 1, simple_measures=measures(0.985, 0.6)))
    assert [note.split()[0] for note in found.notes] == ["brightness"]


def test_drift_tells_a_normal_batch_from_one_that_differs():
    generator = np.random.default_rng(0)
    normal = generator.random(2000)
    few_anomalies = np.concatenate([normal[:1900], np.full(100, 0.001)])
    shifted, fitted_on = normal**3, normal ** (1 / 3)
    warned = [drift(int((p > 0.5).sum()), len(p), 1000).warning for p in (normal, few_anomalies, shifted, fitted_on)]
    assert warned[0] is None
    assert warned[1] is None
    assert "something else has changed" in warned[2]
    assert "look more normal" in warned[3]
    assert drift(3, 20, 1000).warning is None  # too few to tell
    assert drift(0, 0, 1000).normal_share is None
    found = drift(800, 2000, 1000)
    assert found.low < found.normal_share == 0.8 < found.high


def test_sparklines_share_the_axis_and_show_the_threshold():
    edges = list(range(11))
    counts = {"normal": [9, 3, 0, 0, 0, 0, 0, 0, 0, 0], "odd": [0] * 9 + [4]}
    lines = list(sparklines(Histogram(edges, counts), 9.0))
    assert lines[0] == "normal █▃         12"
    assert lines[1] == "odd             █ 4"
    assert lines[2].index("^") == lines[1].index("█")


def test_a_sparkline_shows_the_smallest_number_and_copes_with_gaps():
    assert sparkline([0, 1, 1000]) == " ▁█"
    assert len(sparkline(range(1000))) == 60
    assert sparkline([]) == ""
    assert sparkline([None, 0.0, None]) == "   "
    falling = sparkline([110, 104, 102, 101, 100.5])
    assert falling[0] == "█"
    assert len(set(falling)) > 2


def test_exchangeable_images_give_no_warning_however_few_rank_the_score():
    """The middle p-value of few calibration images is itself uncertain, and so is the threshold."""
    generator = np.random.default_rng(0)
    warned = 0
    for _ in range(300):
        ranking, batch = np.sort(generator.random(30)), generator.random(3000)
        p_value = (1 + len(ranking) - np.searchsorted(ranking, batch)) / 31
        warned += drift(int((p_value > 0.5).sum()), len(batch), 30).warning is not None
    assert warned <= 15


def test_nothing_read_is_not_called_clean():
    nothing = {**scans(0, {}), "files": 0, "errors": {"count": 3}}
    assert verdict(nothing).headline == "No input could be read"
    scores = {**scored(0, 0, 500), "errors": {"count": 3}}
    assert verdict(scores).tone == "poor"
    few = {**scores, "images": 1000, "anomalies": vars(share_of(52, 1000)), "drift": vars(drift(500, 1000, 500))}
    assert verdict(few).headline == "No more images are flagged than expected if all are normal"
    many = {**few, "anomalies": vars(share_of(90, 1000))}
    assert verdict(many).headline == "90 images to check"


def scans(restored: int, left: dict[str, int], look: int = 0) -> dict:
    pages = restored + sum(left.values())
    return {"kind": "scans", "pages": pages, "files": 1, "actions": {"restored": restored}, "look_first": look,
            "left": [{"reason": reason, "pages": count} for reason, count in left.items()],
            "notes": [], "table": [], "errors": {"count": 0}}  # fmt: skip


def test_only_what_was_judged_clean_is_called_clean():
    assert verdict(scans(3, {})).headline == "Cleaned without problems"
    assert verdict(scans(0, {CLEAN: 2})).headline == "Every page was already clean"
    assert verdict(scans(3, {CLEAN: 2})).tone == "good"
    assert verdict(scans(3, {CLEAN: 2, BILEVEL: 1})).headline == "Clean, except for 1 page left unchanged"
    assert verdict(scans(0, {BILEVEL: 2})).headline == "No page was changed"
    assert verdict(scans(3, {"its paper was not found": 2}, look=2)).headline == "2 pages to check first"
    assert verdict(scans(1, {})).sentence == "1 page in 1 file restored."
    assert verdict(scans(1, {CLEAN: 9, BILEVEL: 3})).sentence == (
        "1 of 13 pages in 1 file restored; 12 pages were left unchanged: 9 because nothing to restore was found,"
        " 3 because they have only two grey levels."
    )


def scored(flagged: int, images: int, calibration: int, **changes) -> dict:
    return {"kind": "scores", "images": images, "anomalies": vars(share_of(flagged, images)), "fpr": 0.05,
            "errors": {"count": 0}, "note": None, "threshold": None, "histogram": NO_HISTOGRAM, "gallery": [],
            "drift": vars(drift(images // 2, images, calibration)),
            "fit": {"calibration": {"images": calibration}}, **changes}  # fmt: skip


def test_where_nothing_can_be_flagged_that_is_said_and_how_it_could_be():
    found = verdict(scored(0, 60, 8, note="no image can be flagged at a false-alarm rate of 0.05: ..."))
    assert found.headline == "No image can be flagged at a false-alarm rate of 0.05"
    assert found.tone == "poor"
    assert "calibrated on 8 normal images, so the lowest possible p-value is 0.11" in found.sentence
    assert "needs 19 calibration images" in found.sentence
    assert "alone" not in found.sentence
    way = "raise the false-alarm rate to 0.12, fit with more images, or, if the fit has no folds, hold out a larger"
    way += " share of them for calibration (training.calibration)"
    assert found.notes == (f"to flag images, {way}",)
    assert verdict(scored(0, 60, 19)).headline == "No image is flagged"
    assert verdict(scored(0, 60, 8, fpr=0.12)).headline == "No image is flagged"


def test_a_threshold_of_few_images_may_itself_flag_many():
    few, many = scored(90, 1000, 30), scored(90, 1000, 3000)
    assert few["anomalies"]["low"] > few["fpr"]
    assert verdict(few).headline == "No more images are flagged than expected if all are normal"
    assert verdict(many).headline == "90 images to check"
    low, high = (round(1000 * share) for share in expected_interval(1000, 30, 0.05))
    assert f"if all were normal, {low} to {high} would be flagged." in verdict(few).sentence
    assert verdict(scored(high, 1000, 30)).headline == "No more images are flagged than expected if all are normal"
    assert verdict(scored(high + 1, 1000, 30)).headline == f"{high + 1} images to check"


@pytest.mark.parametrize("kind", sorted(report_kinds()))
def test_a_kind_is_a_template_and_a_module_that_reads_what_is_written(kind):
    figures = importlib.import_module(f"vaeguard.reports.{kind}").Figures
    assert issubclass(figures, ReportFigures)
    with pytest.raises(KeyError):
        verdict({"kind": kind})

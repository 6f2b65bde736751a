from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from toy import toy_info, toy_record

from vaeguard.data.image_set import ImageSet, digests_of
from vaeguard.engines.inspection import DetectorInfo, Inspection
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.evaluation.evaluating import evaluate, unseen
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.training import TrainSpec
from vaeguard.statistics.metrics import auc_interval, measure, share
from vaeguard.storage.tables import read_table
from vaeguard.workflows.evaluation import write_evaluation
from vaeguard.workflows.fit import fit

if TYPE_CHECKING:
    from pathlib import Path

scored = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=40)


def split(pairs: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    anomalous, scores = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs], np.float32)
    assume(anomalous.any() and not anomalous.all())
    return anomalous, scores


def pair_counting(anomalous: np.ndarray, scores: np.ndarray) -> float:
    difference = scores[anomalous][:, None] - scores[~anomalous][None]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


@settings(deadline=None)
@given(scored)
def test_roc_auc_equals_pair_counting_with_ties(pairs: list[tuple[bool, int]]) -> None:
    anomalous, scores = split(pairs)
    found = measure("score", anomalous, scores)
    assert found.roc_auc == pytest.approx(pair_counting(anomalous, scores), abs=1e-12)
    assert 0 <= found.roc_auc_low <= found.roc_auc_high <= 1
    assert found.roc_auc_low - 1e-12 <= found.roc_auc <= found.roc_auc_high + 1e-12
    assert found.no_skill_precision == anomalous.mean()


@settings(deadline=None)
@given(scored)
def test_metrics_keep_under_monotone_maps_and_flip_under_negation(pairs: list[tuple[bool, int]]) -> None:
    anomalous, scores = split(pairs)
    found = measure("score", anomalous, scores)
    overflown = np.where(scores == scores.max(), np.float32(np.inf), scores)
    for mapped in (np.exp(scores), scores**3 + 7, scores.astype(np.float64) * 1e-30, overflown):
        assert measure("score", anomalous, mapped) == found
    flipped = measure("score", anomalous, -scores)
    assert flipped.roc_auc == pytest.approx(1 - found.roc_auc, abs=1e-12)
    assert flipped.roc_auc_low == pytest.approx(1 - found.roc_auc_high, abs=1e-12)


@settings(deadline=None)
@given(scored)
def test_fpr_at_95_tpr_is_the_smallest_over_all_thresholds(pairs: list[tuple[bool, int]]) -> None:
    anomalous, scores = split(pairs)
    good = [t for t in np.unique(scores) if (scores[anomalous] >= t).mean() >= 0.95]
    smallest = min((scores[~anomalous] >= t).mean() for t in good)
    assert measure("score", anomalous, scores).fpr_at_95_tpr == pytest.approx(smallest, abs=1e-12)


def test_auc_interval_agrees_with_the_bootstrap() -> None:
    generator = np.random.default_rng(0)
    anomalous = np.arange(400) < 150
    scores = np.round(generator.normal(size=400) + anomalous, 1)  # rounded: with ties
    draws = []
    for _ in range(1500):
        rows = np.concatenate([generator.integers(0, 150, 150), generator.integers(150, 400, 250)])
        draws.append(pair_counting(anomalous[rows], scores[rows]))
    assert auc_interval(anomalous, scores) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.006)


@pytest.mark.parametrize("anomalies", [8, 30, 400])
@pytest.mark.parametrize("truth", [0.7, 0.96, 0.995])
@pytest.mark.parametrize("spread", [1, 2])
def test_auc_interval_covers_the_truth(anomalies: int, truth: float, spread: float) -> None:
    from scipy.stats import norm

    generator = np.random.default_rng(1)
    count = max(2 * anomalies, 100)
    anomalous = np.arange(anomalies + count) < anomalies
    shift = norm.ppf(truth) * np.sqrt(1 + spread**2)  # normal distributions with just this ROC-AUC
    hits = 0
    for _ in range(300):
        scores = generator.normal(size=len(anomalous))
        scores[anomalous] = shift + spread * scores[anomalous]
        low, high = auc_interval(anomalous, scores)
        hits += low <= truth <= high
    assert hits / 300 >= 0.88


def test_one_image_of_a_kind_gives_no_interval_to_speak_of() -> None:
    assert auc_interval(np.array([True, False, False]), np.array([1.0, 0.0, 2.0])) == (0.0, 1.0)


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_rate_has_the_interval_of_clopper_and_pearson(pair: tuple[int, int]) -> None:
    count, images = pair
    found = share(np.arange(images) < count)
    assert (found.value, found.count, found.images) == (count / images, count, images)
    low = beta.ppf(0.025, count, images - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, images - count) if count < images else 1.0
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@dataclass
class FakeDetector:
    """The top left pixel is the score; the p-value falls with it."""

    device = "cpu"

    info: DetectorInfo = field(
        default_factory=lambda: DetectorInfo(
            toy_record((1, 4, 4), ("cat", "dog"), 9, class_names=("cat", "dog", "fox")), ("recon_error",)
        )
    )

    def inspect(self, images: np.ndarray, *, pictures: bool = False) -> Inspection:
        score = images[:, 0, 0, 0].astype(np.float32)
        heatmap = images[:, 0] / np.float32(255) if pictures else None
        return Inspection(score, (256 - score) / 256, {"recon_error": -score}, heatmap=heatmap)


@pytest.fixture
def animals() -> ImageSet:
    generator = np.random.default_rng(0)
    names = ("ant", "cat", "dog", "unused")  # and one that has no image
    labels = np.repeat([0, 1, 2], [30, 50, 20])
    images = np.zeros((100, 1, 4, 4), np.uint8)
    images[:, 0, 0, 0] = generator.integers(0, 200, 100) + 50 * (labels == 0)
    return ImageSet("animals", images, labels, names, [f"{i}.png" for i in range(100)], "")


def test_classes_are_matched_by_name(animals: ImageSet) -> None:
    found = evaluate(FakeDetector(), animals, fpr=0.3)
    assert found.normal_classes == ("cat", "dog")
    assert found.anomalous.tolist() == [True] * 30 + [False] * 70
    assert [(row.name, row.normal, row.images) for row in found.classes] == [
        ("ant", False, 30),
        ("cat", True, 50),
        ("dog", True, 20),
    ]
    assert found.images == {"normal": 70, "anomalous": 30}
    assert [row.name for row in found.metrics] == ["score", "recon_error"]
    assert found.metrics[0].roc_auc == pytest.approx(1 - found.metrics[1].roc_auc, abs=1e-12)
    # One anomalous class only: against all normal images it is the whole picture.
    assert found.classes[0].roc_auc == pytest.approx(found.metrics[0].roc_auc, abs=1e-12)
    assert found.classes[1].roc_auc is None


def test_flagged_shares_add_up(animals: ImageSet) -> None:
    found = evaluate(FakeDetector(), animals, fpr=0.3)
    flagged = found.inspection.p_value <= np.float32(0.3)
    assert found.false_alarm_rate.value == flagged[~found.anomalous].mean()
    assert found.detection_rate.value == flagged[found.anomalous].mean()
    assert sum(row.flagged * row.images for row in found.classes) == pytest.approx(flagged.sum())
    assert found.threshold is not None
    assert np.array_equal(found.inspection.score >= found.threshold, flagged)


def test_normal_classes_of_the_caller_win(animals: ImageSet) -> None:
    found = evaluate(FakeDetector(), animals, ["dog"])
    assert found.normal_classes == ("dog",)
    assert found.images == {"normal": 20, "anomalous": 80}


def test_classes_of_the_model_that_the_data_lacks_do_not_matter(animals: ImageSet) -> None:
    detector = FakeDetector()
    detector.info = toy_info((1, 4, 4), classes=("cat", "owl"))
    assert evaluate(detector, animals).normal_classes == ("cat",)


def fitted_on(images: np.ndarray) -> FakeDetector:
    detector = FakeDetector()
    return replace(detector, info=replace(detector.info, fitted_on=digests_of(images)))


def test_images_of_the_fit_are_left_out_by_their_share_of_the_normal_ones(animals: ImageSet) -> None:
    images = animals.images.copy()
    images[:, 0, 1, 1] = np.arange(100)  # all different
    many = ImageSet(
        "many",
        np.concatenate([np.repeat(images[:30], 100, axis=0), images[30:]]),  # 3,000 anomalies, 70 normal images
        np.repeat([0, 1, 2], [3000, 50, 20]),
        animals.class_names,
        [f"{i}.png" for i in range(3070)],
        "",
    )
    found = evaluate(fitted_on(images[30:40]), many, fpr=0.3)  # 0.3 % of all
    assert not found.independent
    assert found.images == {"normal": 60, "anomalous": 3000}
    assert "10 that trained the model were skipped" in str(found.note)
    every = evaluate(fitted_on(images[30:]), many, fpr=0.3)
    assert not every.independent
    assert every.images == {"normal": 70, "anomalous": 3000}
    assert "were used for the fit, so the figures are too good" in str(every.note)
    wide = ImageSet("wide", np.arange(500, dtype=np.uint16).astype("<u2").view(np.uint8).reshape(500, 1, 1, 2),
                    np.repeat([0, 1, 2], [100, 200, 200]), animals.class_names, ["x.png"] * 500, "")  # fmt: skip
    detector = fitted_on(wide.images[100:102])  # 0.5 %
    (kept, note) = unseen(detector.info, wide)
    assert len(kept) == 500
    assert note == "2 of the 400 normal images were also used for the fit; they are too few to matter and were kept"
    record = replace(detector.info.record, model=replace(detector.info.record.model, image_shape=(1, 1, 2)))
    four = replace(detector, info=replace(detector.info, record=record))
    assert evaluate(four, wide).independent
    none = evaluate(fitted_on(255 - images), many, fpr=0.3)
    assert (none.images["normal"], none.note, none.independent) == (70, None, True)


def test_a_rate_below_what_calibration_can_tell_is_noted(animals: ImageSet) -> None:
    assert evaluate(FakeDetector(), animals, fpr=0.1).note is None
    assert "9 normal images" in (evaluate(FakeDetector(), animals, fpr=0.01).note or "")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["owl"], "'owl'.*ant, cat, dog"),
        (["ant", "cat", "dog"], "every image is normal.*ant, cat, dog"),
        (["unused"], "none of the images is normal.*ant, cat, dog"),
    ],
)
def test_classes_that_leave_nothing_to_compare_are_refused(names: list[str], message: str, animals: ImageSet) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(FakeDetector(), animals, names)


def test_an_array_comes_with_its_labels(animals: ImageSet) -> None:
    assert animals.labels is not None
    names = np.array(animals.class_names)[animals.labels]
    found = evaluate(FakeDetector(), animals.images, labels=names)
    assert found.metrics == evaluate(FakeDetector(), animals).metrics
    with pytest.raises(UsageError, match="has its own"):
        evaluate(FakeDetector(), animals, labels=names)
    with pytest.raises(UsageError, match="or give labels"):
        evaluate(FakeDetector(), animals.images)


def test_rows_of_a_table_that_equal_rows_of_the_fit_are_counted() -> None:
    generator = np.random.default_rng(0)
    fitted, other = (generator.integers(0, 2, (200, 3)).astype(float) for _ in range(2))
    training = TrainSpec(epochs=1)
    detector = fit(fitted, model=ModelSpec(latent=2, hidden=(8,), autoencoder=True), training=training)
    found = evaluate(detector, other, 0, labels=np.repeat([0, 1], 100))
    assert (len(found.anomalous), found.note) == (200, None)


def test_data_without_labels_and_models_without_classes_are_refused(animals: ImageSet) -> None:
    from dataclasses import replace

    with pytest.raises(UsageError, match="no classes to compare"):
        evaluate(FakeDetector(), replace(animals, labels=None))
    detector = FakeDetector()
    detector.info = toy_info((1, 4, 4))
    with pytest.raises(UsageError, match=r"fitted without classes.*ant, cat, dog"):
        evaluate(detector, animals)
    detector.info = toy_info((1, 4, 4), classes=("owl",))
    with pytest.raises(UsageError, match=r"none of the images is normal.*ant, cat, dog"):
        evaluate(detector, animals)


@pytest.mark.parametrize("fpr", [0, 1, float("nan"), "0.05"])
def test_a_false_alarm_rate_outside_0_to_1_is_refused(fpr: float, animals: ImageSet) -> None:
    with pytest.raises(UsageError, match="`fpr`"):
        evaluate(FakeDetector(), animals, fpr=fpr)


def test_scores_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(VaeguardError, match="'kl' is NaN for 1 of"):
        measure("kl", np.array([True, False]), np.array([np.nan, 1.0]))


def test_scores_of_no_evaluation_are_kept(animals: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("path,score\na.png,1\n")
    with pytest.raises(UsageError, match=r"scores\.csv' does not belong to an evaluation"):
        write_evaluation(evaluate(FakeDetector(), animals), FakeDetector(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_everything_is_written(animals: ImageSet, tmp_path: Path) -> None:
    found = evaluate(FakeDetector(), animals, fpr=0.3)
    written = write_evaluation(found, FakeDetector(), tmp_path / "report", command="vaeguard evaluate animals")
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["report.html", "report.json", "scores.csv"]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report == json.loads(json.dumps(written))
    assert found.to_dict().items() <= written.items()
    assert report["command"] == "vaeguard evaluate animals"
    assert report["metrics"][0]["name"] == "score"
    table = read_table(tmp_path / "report" / "scores.csv")
    assert list(table.columns) == ["path", "score", "p_value", "anomaly", "recon_error", "class", "normal"]
    assert table["path"].tolist() == animals.paths
    assert table["normal"].tolist() == (~found.anomalous).tolist()
    assert table["class"].tolist() == ["ant"] * 30 + ["cat"] * 50 + ["dog"] * 20

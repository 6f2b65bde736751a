import pickle
import subprocess
import sys

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone, is_outlier_detector
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter
from toy import bars

import vaeguard
from vaeguard.sklearn import FEW_ROWS, PyODDetector, VAEDetector

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=(300, 2)) @ RANDOM.normal(size=(2, 5)) + 0.1 * RANDOM.normal(size=(300, 5))
FAR = NORMAL[:30] + 8 * RANDOM.choice([-1, 1], (30, 5))
TABLE = np.concatenate([NORMAL, FAR])
IS_FAR = np.arange(len(TABLE)) >= len(NORMAL)
QUICK = {"epochs": 20}


@parametrize_with_checks([VAEDetector(), PyODDetector()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def detector():
    return VAEDetector().fit(TABLE)


@pytest.fixture(scope="module")
def pyod():
    return PyODDetector().fit(TABLE)


def test_what_is_far_from_the_others_is_flagged(detector):
    assert detector.predict(TABLE)[IS_FAR].mean() < -0.8
    assert detector.predict(NORMAL).mean() > 0.9
    assert detector.p_value(FAR).max() < np.median(detector.p_value(NORMAL))


def test_all_signs_agree(detector):
    found, score = detector.predict(TABLE), detector.score_samples(TABLE)
    np.testing.assert_array_equal(score, -detector.decision_scores_)
    np.testing.assert_array_equal(detector.decision_function(TABLE), score - detector.offset_)
    np.testing.assert_array_equal(found == -1, detector.decision_function(TABLE) < 0)
    np.testing.assert_array_equal(found == -1, detector.labels_ == 1)
    np.testing.assert_array_equal(found == -1, detector.decision_scores_ > detector.threshold_)
    assert detector.offset_ == -detector.threshold_
    order = np.argsort(score)
    assert (np.diff(detector.p_value(TABLE)[order]) >= 0).all()


def test_pyods_convention_is_the_same_model_with_its_own_signs(detector, pyod):
    score = pyod.decision_function(TABLE)
    np.testing.assert_array_equal(score, -detector.score_samples(TABLE))
    np.testing.assert_array_equal(score, pyod.decision_scores_)
    np.testing.assert_array_equal(pyod.predict(TABLE), (1 - detector.predict(TABLE)) // 2)
    np.testing.assert_array_equal(pyod.predict(TABLE), (score > pyod.threshold_).astype(int))
    np.testing.assert_array_equal(clone(pyod).fit_predict(TABLE), pyod.labels_)
    assert not is_outlier_detector(pyod)
    assert is_outlier_detector(detector)


def test_pyods_probabilities_rise_with_the_score_and_sum_to_one(pyod):
    found = pyod.predict_proba(np.concatenate([TABLE, 100 * FAR]))
    np.testing.assert_allclose(found.sum(1), 1)
    assert 0 <= found.min() <= found.max() <= 1
    order = np.argsort(pyod.decision_scores_)
    assert (np.diff(found[: len(TABLE), 1][order]) >= 0).all()


def test_p_values_keep_the_rate_on_fresh_rows_where_the_threshold_does_not():
    shares = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        rows, fresh = generator.normal(size=(300, 8)), generator.normal(size=(4000, 8))
        fitted = VAEDetector(contamination=0.05).fit(rows)
        found = fitted.p_value(fresh)
        assert 0 < found.min() <= found.max() <= 1
        shares.append([np.mean(found <= 0.05), np.mean(fitted.predict(fresh) == -1)])
    flagged, beyond = np.mean(shares, 0)
    assert flagged <= 0.05 < 0.1 < beyond


@pytest.mark.parametrize("hidden", [[16], np.array([16]), (16,)])
def test_hidden_sizes_come_in_any_sequence(hidden):
    assert VAEDetector(hidden=hidden, epochs=1).fit(TABLE).detector_.graph.vae.spec.hidden == (16,)


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("kind", [VAEDetector, PyODDetector])
def test_the_share_of_flagged_training_rows_is_the_contamination(kind, contamination):
    fitted = kind(contamination=contamination, **QUICK).fit(TABLE)
    assert abs(fitted.labels_.sum() - contamination * len(TABLE)) < 1


@pytest.mark.parametrize("contamination", [0, -0.1, 0.51, float("nan"), "auto", None])
def test_another_contamination_is_refused(contamination):
    with pytest.raises(ValueError, match="contamination"):
        VAEDetector(contamination=contamination).fit(TABLE)


@pytest.mark.parametrize("kind", [VAEDetector, PyODDetector])
@pytest.mark.parametrize("seed", [0, np.int64(3), None])
def test_a_seed_gives_the_same_bits(kind, seed):
    one, two = (kind(random_state=seed, **QUICK).fit(TABLE) for _ in range(2))
    np.testing.assert_array_equal(one.decision_scores_, two.decision_scores_)
    other = kind(random_state=17, **QUICK).fit(TABLE)
    assert not np.array_equal(one.decision_scores_, other.decision_scores_)


def test_a_random_state_draws_the_seed():
    one, two = (VAEDetector(random_state=np.random.RandomState(5), **QUICK).fit(TABLE) for _ in range(2))
    np.testing.assert_array_equal(one.decision_scores_, two.decision_scores_)


def test_pickled_and_loaded_it_gives_the_same_bits(detector, tmp_path):
    joblib.dump(detector, tmp_path / "detector.joblib")
    for other in (pickle.loads(pickle.dumps(detector)), joblib.load(tmp_path / "detector.joblib")):
        np.testing.assert_array_equal(other.score_samples(TABLE), detector.score_samples(TABLE))
        assert other.get_params() == detector.get_params()
        np.testing.assert_array_equal(other.p_value(TABLE), detector.p_value(TABLE))
        assert other.detector_.info.record.model == detector.detector_.info.record.model
    unfitted = pickle.loads(pickle.dumps(VAEDetector(latent=3)))
    assert unfitted.latent == 3


def test_a_damaged_pickle_is_refused(detector):
    state = detector.__getstate__()
    state["detector_"] = state["detector_"][:-1] + bytes([state["detector_"][-1] ^ 1])
    with pytest.raises(vaeguard.RefusedError):
        VAEDetector().__setstate__(state)


def test_the_librarys_own_model_file_holds_it(detector, tmp_path):
    loaded = vaeguard.load(vaeguard.save(detector.detector_, tmp_path))
    score = loaded.inspect(vaeguard.from_array(TABLE).images).score
    np.testing.assert_array_equal(-score.astype(float), detector.score_samples(TABLE))


@pytest.mark.nightly
def test_it_works_in_a_pipeline_and_a_grid_search():
    pipeline = make_pipeline(StandardScaler(), VAEDetector(**QUICK))
    np.testing.assert_array_equal(pipeline.fit(TABLE).predict(TABLE), clone(pipeline).fit_predict(TABLE))
    grid = {"vaedetector__latent": [1, 2], "vaedetector__beta": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=StratifiedKFold(2))
    search.fit(TABLE, np.where(IS_FAR, -1, 1))
    assert search.best_score_ > 0.9
    assert search.best_estimator_[-1].detector_.graph.vae.spec.latent == search.best_params_["vaedetector__latent"]


@pytest.mark.parametrize(("side", "images"), [(96, 30), (95, 120)])
def test_photographs_which_folds_hold_out_are_not_repeated(side, images, monkeypatch):
    fitted = []

    def fit(image_set, **_):
        fitted.append(len(image_set))
        raise NotFittedError

    monkeypatch.setattr("vaeguard.workflows.fit.fit", fit)
    with pytest.raises(NotFittedError):
        VAEDetector().fit(RANDOM.integers(0, 256, (30, side, side)).astype(np.uint8))
    assert fitted == [images]


@pytest.mark.parametrize("rows", [2, 5, 19, 40, FEW_ROWS - 1, FEW_ROWS])
def test_small_tables_are_enough_for_finite_ordered_scores(rows):
    fitted = VAEDetector(**QUICK).fit(NORMAL[:rows])
    assert np.isfinite(fitted.decision_scores_).all()
    assert fitted.score_samples(FAR).max() < fitted.score_samples(NORMAL[:rows]).mean()


def test_a_data_frames_columns_are_remembered():
    frame = pd.DataFrame(TABLE, columns=list("abcde"))
    fitted = VAEDetector(**QUICK).fit(frame)
    assert list(fitted.feature_names_in_) == list("abcde")
    np.testing.assert_array_equal(fitted.score_samples(frame), -fitted.decision_scores_)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[list("edcba")])


IMAGES, CLASSES = bars(150)


FORMS = {"nchw": IMAGES, "nhw": IMAGES[:, 0], "float": IMAGES[:, 0] / 255, "nhwc": IMAGES.transpose(0, 2, 3, 1)}


@pytest.mark.parametrize("images", FORMS.values(), ids=FORMS)
def test_images_come_in_every_form_and_flat(images):
    settings = {"hidden": (32,), "latent": 4, "epochs": 3}
    shaped = VAEDetector(**settings).fit(images)
    flat = images.reshape(len(images), -1)
    through = VAEDetector(image_shape=images.shape[1:], **settings).fit(flat)
    np.testing.assert_array_equal(shaped.decision_scores_, VAEDetector(**settings).fit(IMAGES).decision_scores_)
    np.testing.assert_array_equal(shaped.decision_scores_, through.decision_scores_)
    np.testing.assert_array_equal(shaped.score_samples(flat), through.score_samples(images))
    assert shaped.n_features_in_ == through.n_features_in_ == 64


@pytest.mark.nightly
def test_images_go_through_pipelines():
    digits = load_digits()
    zeros, others = digits.data[digits.target == 0], digits.data[digits.target != 0]
    scaler = MinMaxScaler(clip=True)
    pipeline = make_pipeline(scaler, VAEDetector(image_shape=(8, 8), hidden=(64,), latent=4, epochs=40)).fit(zeros)
    assert pipeline[-1].detector_.info.image_shape == (1, 8, 8)
    assert (pipeline.predict(others) == -1).mean() > 0.5 > (pipeline.predict(zeros) == -1).mean()


@pytest.mark.parametrize("names", [CLASSES, np.array(["x", "y", "z"], object)[CLASSES]])
def test_classes_guide_only_when_asked_to(names):
    settings = {"hidden": (32,), "latent": 4, "epochs": 3}
    plain = VAEDetector(**settings).fit(IMAGES, names)
    guided = VAEDetector(guided=True, **settings).fit(IMAGES, names)
    assert "class_energy" not in plain.detector_.info.term_names
    assert "class_energy" in guided.detector_.info.term_names
    with pytest.raises(ValueError, match="guided"):
        VAEDetector(guided=True).fit(IMAGES)
    with pytest.raises(ValueError, match="one label for each"):
        VAEDetector(guided=True).fit(IMAGES, names[:-1])


@pytest.mark.parametrize(
    ("settings", "x", "message"),
    [
        ({}, np.where(IS_FAR[:, None], np.nan, TABLE), "NaN"),
        ({}, np.where(IS_FAR[:, None], 1e300, TABLE), "too large"),
        ({}, TABLE[:1], "minimum of 2"),
        ({}, IMAGES.astype(float), "0 to 1"),
        ({}, IMAGES.astype(int), "int64"),
        ({"image_shape": (3, 3)}, TABLE, "reshape"),
        ({"kind": "conv"}, TABLE, "mlp"),
        ({"latent": 0}, TABLE, "latent"),
        ({"hidden": 5}, TABLE, "`hidden` is 5; it must be of type tuple of int or None"),
        ({"image_shape": 5}, TABLE, "`image_shape` is 5; give"),
        ({"hidden": "64"}, TABLE, "`hidden` is '64'; it must be of type tuple of int"),
    ],
)
def test_what_cannot_work_is_a_value_error(settings, x, message):
    with pytest.raises(ValueError, match=message):
        VAEDetector(**settings).fit(x)


def test_a_column_that_float32_cannot_hold_is_named():
    times = 1.7e9 + np.arange(len(TABLE), dtype=float)
    with pytest.warns(UserWarning, match=rf"values of column {TABLE.shape[1]} are so far from zero.*StandardScaler"):
        VAEDetector(epochs=1).fit(np.column_stack([TABLE, times]))
    make_pipeline(StandardScaler(), VAEDetector(epochs=1)).fit(np.column_stack([TABLE, times]))


def test_sparse_tables_are_refused():
    with pytest.raises(TypeError, match=r"Sparse.*toarray"):
        VAEDetector().fit(sparse.csr_array(TABLE))


def test_images_of_another_shape_are_refused_though_they_have_as_many_pixels(detector):
    fitted = VAEDetector(hidden=(8,), epochs=1).fit(IMAGES[:, 0])
    with pytest.raises(ValueError, match="shape"):
        fitted.predict(IMAGES.reshape(-1, 4, 16))
    with pytest.raises(ValueError, match="a table"):
        detector.predict(TABLE[:, :, None])


def test_nothing_is_scored_before_the_fit():
    for method in ("predict", "score_samples", "decision_function", "p_value"):
        with pytest.raises(NotFittedError):
            getattr(VAEDetector(), method)(TABLE)


def test_vaeguard_alone_does_not_import_scikit_learn():
    code = "import sys, vaeguard, vaeguard.settings.specs; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", [VAEDetector, PyODDetector])
def test_weights_are_refused_in_words(kind):
    assert not has_fit_parameter(kind(), "sample_weight")
    for fit in (kind().fit, make_pipeline(kind()).fit):
        name = "sample_weight" if fit.__self__.__class__ is kind else f"{kind.__name__.lower()}__sample_weight"
        with pytest.raises(TypeError, match="does not take sample_weight, because every row has the same weight"):
            fit(np.zeros((200, 3)), **{name: np.ones(200)})

"""A VAE evaluated as a generative model: the figures and the report."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from toy import bars

import vaeguard
from vaeguard import UsageError
from vaeguard.evaluation.generative import class_information

pytestmark = pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
MODEL = vaeguard.ModelSpec(kind="mlp", hidden=(32,), latent=4, pseudo_classes=0)
QUICK = vaeguard.TrainSpec(epochs=80, batch_size=32, beta=0.2, learning_rate=3e-3, binarise=True, threads=1)


@pytest.fixture(scope="module")
def images():
    pixels, labels = bars(3000, seed=1)
    return vaeguard.from_array(pixels, labels)


@pytest.fixture(scope="module")
def detector():
    pixels, labels = bars(240)
    return vaeguard.fit(pixels, labels, normal_classes="0-1", model=MODEL, training=QUICK)


@pytest.fixture(scope="module")
def found(detector, images):
    return vaeguard.evaluate_generative(detector, images, samples=50, images=40)


def test_only_normal_images_are_looked_at(found):
    assert found.classes == ("0", "1")
    assert found.images == 2000
    assert len(found.bounds.neg_iwae) == 40
    assert found.note is None


def test_images_of_the_fit_are_left_out_and_named(detector):
    pixels, labels = bars(240)
    same = vaeguard.evaluate_generative(detector, vaeguard.from_array(pixels, labels), samples=2)
    assert same.images == 16  # the tenth that calibrated
    assert "that trained the model were skipped" in same.note
    assert same.quality is None


def test_origins_are_ranked_as_they_should_be(found):
    distances = found.quality.distances
    assert list(distances) == ["real", "reconstructed", "aggregate", "prior"]
    assert distances["real"] < distances["reconstructed"] < 3 * distances["prior"]
    assert found.quality.images == 500
    assert found.quality.accuracy > 0.95


def test_information_of_units_that_tell_the_class_and_of_units_that_do_not():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 6000)
    means = np.stack([labels + generator.normal(0, 0.01, 6000), generator.normal(0, 1, 6000)], 1)
    information, gap = class_information(means, labels)
    np.testing.assert_allclose(information, [math.log(4), 0], atol=0.03)
    assert gap == pytest.approx(1, abs=0.03)
    few, _ = class_information(means[:200], labels[:200])
    assert few[1] < 0.1, "what chance gives with few images is taken off"
    assert class_information(means[:, [0, 0]], labels)[1] == pytest.approx(0, abs=1e-9)


def test_the_report_says_what_was_found(found, tmp_path):
    report = vaeguard.write_generative(found, tmp_path, command="vaeguard evaluate --generative")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["kind"] == "generative"
    assert written["neg_iwae"]["mean"] == pytest.approx(found.bounds.neg_iwae.mean())
    assert written["neg_elbo"]["mean"] > written["neg_iwae"]["mean"]
    assert written["bits_per_dimension"] == pytest.approx(found.bounds.neg_iwae.mean() / 64 / math.log(2))
    assert sum(report["histogram"]["counts"]) == 40
    page = (tmp_path / "report.html").read_text()
    assert f"{found.bounds.neg_iwae.mean():.2f}" in page
    assert "cross-entropy is not a likelihood" not in page


def test_a_model_of_grey_pixels_under_cross_entropy_is_warned_of(images, tmp_path):
    pixels, labels = bars(120)
    training = vaeguard.TrainSpec(epochs=40, beta=0.01, learning_rate=3e-3, threads=1)
    grey = vaeguard.fit(pixels, labels, model=MODEL, training=training)
    report = vaeguard.write_generative(vaeguard.evaluate_generative(grey, images, samples=2, images=3), tmp_path)
    assert any("not a likelihood" in note and "training.binarise" in note for note in report["notes"])


def test_images_of_a_fit_without_labels_are_left_out_too():
    pixels, _ = bars(240)
    training = vaeguard.TrainSpec(epochs=2, binarise=True, threads=1)
    flat = vaeguard.fit(pixels, model=MODEL, training=training)
    same = vaeguard.evaluate_generative(flat, vaeguard.from_array(pixels), samples=2)
    assert same.images == 24
    assert "that trained the model were skipped" in same.note
    assert same.information is None


def test_a_single_image_has_bounds(detector):
    pixels, _ = bars(1)
    found = vaeguard.evaluate_generative(detector, vaeguard.from_array(pixels), samples=2)
    assert len(found.bounds.neg_elbo) == 1
    assert not found.correlation.any()


def test_images_without_a_normal_class_are_refused(detector):
    pixels, _ = bars(30)
    with pytest.raises(UsageError, match="no image of a normal class"):
        vaeguard.evaluate_generative(detector, vaeguard.from_array(pixels, ["other"] * 30))

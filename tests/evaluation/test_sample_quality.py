from __future__ import annotations

import numpy as np
import pytest
from toy import bars

from vaeguard.evaluation.sample_quality import SampleJudge, frechet_distance


def test_frechet_distance_of_known_gaussians():
    generator = np.random.default_rng(0)
    first = generator.normal(0, 1, (40_000, 3))
    second = generator.normal([1, 0, 0], [1, 2, 1], (40_000, 3))
    # |difference of means|² + (2 − 1)², as the covariances are diagonal
    assert frechet_distance(first, second) == pytest.approx(2, abs=0.08)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


@pytest.fixture(scope="module")
def judged():
    images, labels = bars(300)
    return SampleJudge(images, labels), images, labels


def test_the_judge_tells_the_classes_of_other_images(judged):
    judge, _, _ = judged
    images, labels = bars(90, seed=5)
    assert (judge.classes(images) == labels).mean() > 0.95
    assert np.array_equal(judge.classes(images), judge.classes(images / 255)), "floats in [0, 1] are the same images"


def test_noise_is_further_from_images_than_other_images_are(judged):
    judge, images, _ = judged
    real, other = judge.features(images[:150]), judge.features(images[150:])
    noise = judge.features(np.random.default_rng(0).integers(0, 255, (150, 1, 8, 8)).astype(np.uint8))
    assert real.shape == (150, 64)
    assert frechet_distance(real, noise) > 10 * frechet_distance(real, other)


def test_large_images_are_reduced_before_they_are_judged():
    images, labels = bars(120)
    large = images.repeat(8, -1).repeat(8, -2)
    large = large.reshape(120, 1, 64, 64)
    judge = SampleJudge(large, labels)
    assert judge.network.coefs_[0].shape[0] == 32 * 32
    assert (judge.classes(large) == labels).mean() > 0.95

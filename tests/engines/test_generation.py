from __future__ import annotations

import numpy as np
import pytest
from toy import bars

import vaeguard
from vaeguard.engines.generation import interpolate_latents, sample_latents
from vaeguard.errors import UsageError

QUICK = vaeguard.TrainSpec(epochs=60, beta=0.01, learning_rate=3e-3, threads=1)
SMALL = {"kind": "mlp", "hidden": (16,), "latent": 4, "pseudo_classes": 0}


@pytest.fixture(scope="module")
def plain():
    images, labels = bars(120)
    return vaeguard.fit(images, labels, model=vaeguard.ModelSpec(**SMALL), training=QUICK)


@pytest.fixture(scope="module")
def per_class():
    images, labels = bars(120)
    model = vaeguard.ModelSpec(**SMALL, prior="per-class")
    return vaeguard.fit(images, labels, normal_classes="0-1", model=model, training=QUICK)


def as_batch(images):
    return images.reshape(len(images), *images.shape[-3:]) if images.ndim == 4 else images[:, None]


def test_decoding_the_posterior_mean_is_the_restoration(plain):
    images = as_batch(bars(300)[0])  # more than one part
    found = plain.inspect(images, pictures=True)
    encoding = plain.encode(images)
    assert encoding.mean.shape == encoding.logvar.shape == (300, 4)
    np.testing.assert_allclose(plain.decode(encoding.mean), found.restored, atol=1e-5)


def test_vectors_come_back_in_their_own_units():
    rows = np.random.default_rng(0).normal(50, 20, (200, 5)).astype(np.float32)
    detector = vaeguard.fit(vaeguard.from_array(rows), model=vaeguard.ModelSpec(hidden=(16,), latent=3), training=QUICK)
    batch = rows[:, None, None]
    restored = detector.inspect(batch, pictures=True).restored
    np.testing.assert_allclose(detector.decode(detector.encode(batch).mean), restored, rtol=1e-4, atol=1e-3)


def test_samples_of_the_prior_are_standard_normal_and_repeatable(plain):
    drawn = sample_latents(plain.graph, 20_000, seed=3)
    assert abs(drawn.mean()) < 0.02
    assert drawn.std() == pytest.approx(1, abs=0.02)
    assert sample_latents(plain.graph, 20_000, temperature=0.5, seed=3).std() == pytest.approx(0.5, abs=0.01)
    assert np.array_equal(sample_latents(plain.graph, 5, seed=3), drawn[:5])
    assert not np.array_equal(sample_latents(plain.graph, 5, seed=4), drawn[:5])
    assert plain.sample(7).shape == (7, 1, 8, 8)


def test_samples_of_a_class_lie_around_its_mean(per_class):
    means = per_class.graph.vae.prior_means.detach().numpy()
    for number, name in enumerate(("0", "1")):
        drawn = sample_latents(per_class.graph, 20_000, class_=name)
        np.testing.assert_allclose(drawn.mean(0), means[number], atol=0.03)
    both = sample_latents(per_class.graph, 20_000)
    np.testing.assert_allclose(both[::2].mean(0), means[0], atol=0.04)
    np.testing.assert_allclose(both[1::2].mean(0), means[1], atol=0.04)


def test_samples_like_images_have_their_aggregate_posterior(plain):
    images = as_batch(bars(120)[0])
    encoding = plain.encode(images)
    drawn = sample_latents(plain.graph, 40_000, like=images)
    np.testing.assert_allclose(drawn.mean(0), encoding.mean.mean(0), atol=0.03)
    whole = encoding.mean.var(0) + np.exp(encoding.logvar).mean(0)  # the law of total variance
    np.testing.assert_allclose(drawn.var(0), whole, rtol=0.05)


def test_the_way_between_two_latents():
    first, last = np.array([3.0, 0, 0], np.float32), np.array([0, 4.0, 0], np.float32)
    straight, curved = interpolate_latents(first, last, 5), interpolate_latents(first, last, 5, spherical=True)
    for way in (straight, curved):
        np.testing.assert_allclose(way[[0, -1]], [first, last], atol=1e-6)
    np.testing.assert_allclose(straight[2], [1.5, 2, 0])
    lengths = np.linalg.norm(
        interpolate_latents(first, 4 / 3 * np.array([0, 2.25, 0], np.float32), 9, spherical=True), axis=1
    )
    np.testing.assert_allclose(lengths, 3, rtol=1e-5)  # between equal lengths the length stays
    np.testing.assert_allclose(interpolate_latents(first, -first, 3, spherical=True)[1], 0, atol=1e-6)
    np.testing.assert_allclose(interpolate_latents(first, 0 * first, 3, spherical=True)[1], first / 2)


def test_an_interpolation_begins_and_ends_with_restorations(plain):
    images = as_batch(bars(4)[0])
    restored = plain.inspect(images, pictures=True).restored
    found = plain.interpolate(images[[0, 3]], 6)
    assert found.shape == (6, 1, 8, 8)
    np.testing.assert_allclose(found[[0, -1]], restored[[0, 3]], atol=1e-5)


def test_what_cannot_work_is_refused_in_one_sentence(plain, per_class):
    images = as_batch(bars(30)[0])
    cases = [
        (lambda: plain.sample(0), "at least 1"),
        (lambda: plain.sample(3, temperature=0.0), "`temperature` above 0"),
        (lambda: plain.sample(3, seed=-1), "`seed` is -1; it must not be negative"),
        (lambda: plain.sample(3, class_="0"), "with `model.prior` set to 'per-class'"),
        (lambda: per_class.sample(3, class_="7"), "no class '7'; its classes are 0, 1"),
        (lambda: per_class.sample(3, class_="0", like=images), "remove one of them"),
        (lambda: plain.interpolate(images[:2], 1), "`steps` is 1; it must be at least 2"),
        (lambda: plain.encode(images[:, :, :4]), "the model takes"),
        (lambda: plain.encode(images[:0]), "the model takes"),
        (lambda: plain.encode(images.astype(np.float32)), r"must lie in \[0, 1\]"),
        (lambda: plain.sample(3, like=images.astype(np.float32)), r"must lie in \[0, 1\]"),
        (lambda: plain.interpolate(images[:3], 4), "3 images were given, but an interpolation is between two"),
        (lambda: plain.decode(np.zeros((0, 4), np.float32)), "4 units"),
        (lambda: plain.decode(np.zeros((2, 3), np.float32)), r"4 units; give an array of shape \(N, 4\)"),
    ]
    halves = images / 255  # float64, as NumPy divides
    np.testing.assert_allclose(plain.encode(halves).mean, plain.encode(images).mean, atol=1e-5)
    for call, message in cases:
        with pytest.raises(UsageError, match=message):
            call()
    auto = vaeguard.fit(images, model=vaeguard.ModelSpec(**SMALL, autoencoder=True), training=QUICK)
    with pytest.raises(UsageError, match="no prior to sample from"):
        auto.sample(3)
    assert auto.encode(images).logvar is None
    assert auto.sample(3, like=images).shape == (3, 1, 8, 8)

"""Bounds of the likelihood against the integral itself, which a latent of two units allows."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import bars

import vaeguard
from vaeguard.errors import UsageError
from vaeguard.evaluation.likelihood_bounds import bound_likelihood
from vaeguard.models.likelihoods import Bernoulli, Gaussian

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")]
QUICK = vaeguard.TrainSpec(epochs=150, kl_warmup=50, batch_size=32, learning_rate=3e-3, threads=1)
SMALL = {"kind": "mlp", "hidden": (16,), "latent": 2, "pseudo_classes": 0, "guided": False}


@functools.cache
def fitted(training=None, **model):
    images, labels = bars(120)
    return vaeguard.fit(images, labels, model=vaeguard.ModelSpec(**SMALL | model), training=training or QUICK)


def batch(n):
    return bars(n, seed=1)[0].reshape(n, 1, 8, 8)


def integral(graph, image):
    """log p(x), by adding up p(x | z) p(z) over a fine grid of z."""
    axis = torch.linspace(-9, 9, 361)
    grid = torch.cartesian_prod(axis, axis)
    with torch.inference_mode():
        inside = graph.vae.likelihood(grid).log_prob(image).flatten(1).double().sum(1)
    centres = torch.zeros(1, 2) if graph.vae.prior_means is None else graph.vae.prior_means
    squares = (grid[:, None] - centres.detach()).square().sum(2).double()
    prior = torch.logsumexp(-0.5 * squares, 1) - math.log(2 * math.pi * len(centres))
    return float(torch.logsumexp(inside + prior, 0)) + 2 * math.log(18 / 360)


@pytest.mark.parametrize(
    "model",
    [{}, {"likelihood": "continuous-bernoulli"}, {"likelihood": "gaussian", "sigma": 0.2}, {"prior": "per-class"}],
)
@pytest.mark.nightly
def test_the_importance_weighted_bound_reaches_the_likelihood(model):
    detector, images = fitted(**model), batch(4)
    found = bound_likelihood(detector, images, samples=20_000)
    observed = detector.graph.vae.family.observed(images, np.random.default_rng(0))
    truth = np.array([-integral(detector.graph, torch.from_numpy(observed[row : row + 1])) for row in range(4)])
    assert found.neg_iwae.mean() == pytest.approx(truth.mean(), abs=0.1)
    one, few = (bound_likelihood(detector, batch(20), samples=samples) for samples in (1, 5))
    np.testing.assert_allclose(one.neg_iwae, one.neg_elbo)
    assert (few.neg_iwae < few.neg_elbo).all()


def test_the_negative_elbo_is_distortion_and_rate():
    detector, images = fitted(), batch(3)
    found = bound_likelihood(detector, images, samples=20_000)
    observed = Bernoulli.observed(images, np.random.default_rng(0))
    with torch.inference_mode():
        image = torch.from_numpy(observed)
        posterior = detector.graph.vae.posterior(image)
        latent = posterior.sample(torch.randn(4000, 3, 2))
        log_prob = detector.graph.vae.likelihood(latent.flatten(0, 1)).log_prob(image.repeat(4000, 1, 1, 1))
        distortion = -log_prob.flatten(1).sum(1).view(4000, 3).mean(0)
    np.testing.assert_allclose(found.neg_elbo, distortion.numpy() + found.rate, atol=0.3)


def test_pixels_become_what_the_likelihood_is_one_of():
    images = np.tile(np.array([0, 64, 255], np.uint8), 40_000).reshape(-1, 1, 1, 3)
    black_or_white = Bernoulli.observed(images, np.random.default_rng(0))
    assert Bernoulli.pixels == "binarised"
    assert set(np.unique(black_or_white)) == {0.0, 1.0}
    np.testing.assert_allclose(black_or_white.mean((0, 1, 2)), [0, 64 / 255, 1], atol=0.01)
    dense = Gaussian.observed(images, np.random.default_rng(0))
    assert Gaussian.pixels == "dequantised"
    assert np.abs(dense * 256 - images - 0.5).max() <= 0.5
    assert dense.std() > 0


def test_bits_per_dimension_of_a_model_that_knows_nothing_are_those_of_the_file():
    detector = copy.deepcopy(fitted(likelihood="continuous-bernoulli"))
    with torch.no_grad():
        for weights in detector.graph.vae.decoder.parameters():
            weights.zero_()  # logits of zero: the uniform density
    found = bound_likelihood(detector, batch(3), samples=50)
    assert found.bits_per_dimension == pytest.approx(8, abs=0.1)  # what the bound of few samples leaves
    binary = copy.deepcopy(fitted())
    with torch.no_grad():
        for weights in binary.graph.vae.decoder.parameters():
            weights.zero_()
    assert bound_likelihood(binary, batch(3), samples=50).bits_per_dimension == pytest.approx(1, abs=0.05)


def test_models_without_a_likelihood_are_refused():
    no_rate = replace(QUICK, free_bits=0, kl_warmup=0)
    with pytest.raises(UsageError, match="an autoencoder has no prior"):
        bound_likelihood(fitted(no_rate, autoencoder=True), batch(2))
    with pytest.raises(UsageError, match="at least 1"):
        bound_likelihood(fitted(), batch(2), samples=0)
    with pytest.raises(UsageError, match="give uint8 images of shape"):
        bound_likelihood(fitted(), batch(2).astype(np.float32))
    with pytest.raises(UsageError, match="give uint8 images of shape"):
        bound_likelihood(fitted(), np.zeros((2, 1, 9, 9), np.uint8))


def test_models_of_patches_and_vectors_are_refused_by_name():
    once = vaeguard.TrainSpec(epochs=1)
    patches = vaeguard.fit(bars(60, size=16)[0], model=vaeguard.ModelSpec(patch=4), training=once)
    with pytest.raises(UsageError, match="`model.patch`"):
        bound_likelihood(patches, bars(3, size=16)[0])
    rows = np.random.default_rng(0).normal(0, 1, (60, 4)).astype(np.float32)
    vectors = vaeguard.fit(rows, model=vaeguard.ModelSpec(hidden=(8,), latent=2), training=once)
    with pytest.raises(UsageError, match="model of vectors"):
        bound_likelihood(vectors, rows)


def test_an_image_of_a_part_has_the_bounds_that_it_has_alone():
    detector, images = fitted(), batch(2)
    assert bound_likelihood(detector, images, samples=3000).neg_elbo[0] == pytest.approx(
        bound_likelihood(detector, images[:1], samples=3000).neg_elbo[0]
    )

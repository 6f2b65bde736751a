import math

import pytest
import torch
import torch.nn.functional as F

from vaeguard.models.likelihoods import LIKELIHOODS, MIN_SIGMA, Bernoulli, ContinuousBernoulli, Gaussian
from vaeguard.settings.likelihoods import LIKELIHOOD_FACTS
from vaeguard.settings.model import ModelSpec


def test_bernoulli_log_prob_is_the_classic_cross_entropy():
    logits, image = torch.randn(5, 1, 4, 3), torch.rand(5, 1, 4, 3)
    classic = F.binary_cross_entropy(torch.sigmoid(logits), image, reduction="none")
    torch.testing.assert_close(-Bernoulli(logits).log_prob(image), classic)


def test_bernoulli_probabilities_of_both_values_sum_to_one():
    head = Bernoulli(3 * torch.randn(50, 1, 2, 2))
    ones = torch.ones(50, 1, 2, 2)
    torch.testing.assert_close(head.log_prob(ones).exp() + head.log_prob(0 * ones).exp(), ones)


@pytest.mark.parametrize("logit", [-200, -5, -0.31, -0.29, -1e-4, 0, 1e-4, 0.29, 0.31, 5, 200])
def test_continuous_bernoulli_is_a_density_with_the_mean_that_it_states(logit):
    head = ContinuousBernoulli(torch.tensor(float(logit), dtype=torch.float64))
    grid = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    density = head.log_prob(grid).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-5)
    assert torch.trapezoid(density * grid, grid).item() == pytest.approx(head.mean.item(), abs=1e-5)


def test_continuous_bernoulli_agrees_with_the_one_of_pytorch():
    logits, image = 4 * torch.randn(200, 1, 2, 2, dtype=torch.float64), torch.rand(200, 1, 2, 2, dtype=torch.float64)
    head = ContinuousBernoulli(logits)
    theirs = torch.distributions.ContinuousBernoulli(logits=logits)
    torch.testing.assert_close(head.log_prob(image), theirs.log_prob(image), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(head.mean, theirs.mean, atol=1e-5, rtol=1e-5)


def test_logits_of_a_mean_have_that_mean():
    mean = torch.tensor([1 / 512, 0.01, 0.3, 0.5, 0.7, 0.99, 511 / 512], dtype=torch.float64)
    torch.testing.assert_close(ContinuousBernoulli(ContinuousBernoulli.start(mean)).mean, mean)


def test_continuous_bernoulli_has_finite_gradients_everywhere():
    logits = torch.tensor([-1e4, -50, -0.1, 0, 1e-8, 0.1, 50, 1e4], requires_grad=True)
    ContinuousBernoulli(logits).log_prob(torch.full((8,), 0.3)).sum().backward()
    assert logits.grad.isfinite().all()


def test_gaussian_density_integrates_to_one():
    head = Gaussian(torch.tensor(0.3), torch.tensor(0.2))
    grid = torch.linspace(-3, 4, 20001)
    assert torch.trapezoid(head.log_prob(grid).exp(), grid).item() == pytest.approx(1, abs=1e-4)


def test_classic_sigma_gives_the_squared_error_and_a_constant():
    mean, image = torch.rand(6, 1, 5, 5), torch.rand(6, 1, 5, 5)
    head = Gaussian.from_decoder(torch.logit(mean), ModelSpec().sized())
    constant = 0.5 * math.log(math.pi)
    torch.testing.assert_close(-head.log_prob(image), (image - mean).square() + constant)


def test_settings_know_every_likelihood():
    assert list(LIKELIHOODS) == list(LIKELIHOOD_FACTS)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_samples_have_the_mean_that_the_head_states(name):
    spec = ModelSpec(likelihood=name, sigma=0.3)
    torch.manual_seed(0)
    raw = torch.randn(1, LIKELIHOODS[name].channels, 4, 4).expand(20000, -1, -1, -1)
    head = LIKELIHOODS[name].from_decoder(raw, spec)
    sampled = head.sample(torch.Generator().manual_seed(1))
    torch.testing.assert_close(sampled.mean(0), head.mean[0], atol=0.05, rtol=0)


def test_learned_sigma_is_shared_per_image_or_free_per_pixel():
    raw = torch.randn(3, 2, 4, 4)
    per_image = LIKELIHOODS["gaussian-image"].from_decoder(raw, ModelSpec())
    per_pixel = LIKELIHOODS["gaussian-pixel"].from_decoder(raw, ModelSpec())
    assert per_image.sigma.shape == (3, 1, 1, 1)
    assert per_pixel.sigma.shape == (3, 1, 4, 4)
    low = LIKELIHOODS["gaussian-pixel"].from_decoder(raw - 100, ModelSpec())
    assert low.sigma.min() >= MIN_SIGMA


@pytest.mark.parametrize("name", ["gaussian", "gaussian-image", "gaussian-pixel"])
def test_the_mean_of_a_vector_is_unbounded(name):
    spec = ModelSpec(likelihood=name).resolved((1, 1, 6), (), vectors=True)
    raw = 10 * torch.randn(5, LIKELIHOODS[name].channels, 1, 6)
    assert torch.equal(LIKELIHOODS[name].from_decoder(raw, spec).mean, raw[:, :1])

"""The ladder VAE and its likelihood."""

import numpy as np
import pytest
import torch

from vaeguard.restoration.denoiser import STRIDES
from vaeguard.restoration.networks.ladder import LadderVAE, pixel_distortion
from vaeguard.restoration.noise import grain_kernel

NOISE = torch.full((2, 1, 1, 1), 0.1)


def made(seed=0, spread=0.1):
    torch.manual_seed(seed)
    ladder = LadderVAE(6, (2, 3, 4))
    if spread:
        for parameter in ladder.parameters():
            torch.nn.init.normal_(parameter, std=spread)
    return ladder


def latent_noise(ladder, image):
    return [torch.randn(shape) for shape in ladder.latent_shapes(len(image), *image.shape[2:])]


def test_shapes_and_a_rate_that_begins_at_zero():
    ladder, image = made(spread=0), torch.rand(2, 1, 32, 48)
    found = ladder(image, NOISE, latent_noise(ladder, image))
    assert found.restored.shape == image.shape
    assert [level.shape for level in found.kl] == [(2, 32 // stride, 48 // stride) for stride in STRIDES]
    torch.testing.assert_close(found.rate(), torch.zeros(2))


def test_the_rate_is_the_divergence_of_the_gaussians():
    level = made(spread=0.3).levels[-1]
    known, seen = torch.randn(2, 6, 2, 2), torch.randn(2, 6, 2, 2)
    _, kl = level(known, seen, None)
    mean, log_variance = level.prior(known).chunk(2, 1)
    shift, log_ratio = level.posterior(torch.cat([known, seen], 1)).chunk(2, 1)
    prior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    posterior = torch.distributions.Normal(
        mean + torch.exp(0.5 * log_variance) * shift, torch.exp(0.5 * (log_variance + log_ratio))
    )
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(posterior, prior).sum(1), rtol=1e-4, atol=1e-4)
    level.tell.weight.data.zero_()
    level.tell.weight.data[:4, :4, 0, 0] = torch.eye(4)  # what is told on is the latent itself
    level.tell.bias.data.zero_()
    level.refine = torch.nn.Identity()
    high = torch.full((2, 6, 2, 2), 50.0)
    posterior_high = level.posterior(torch.cat([high, seen], 1)).chunk(2, 1)
    prior_high = level.prior(high).chunk(2, 1)
    noise = torch.randn(2, 4, 2, 2)
    deviation = torch.exp(0.5 * prior_high[1].clamp(-8, 8))
    drawn = prior_high[0] + deviation * (posterior_high[0] + torch.exp(0.5 * posterior_high[1].clamp(-8, 8)) * noise)
    told, _ = level(high, seen, noise)
    torch.testing.assert_close(told[:, :4], torch.relu(high[:, :4] + drawn), rtol=1e-4, atol=1e-3)


def test_nothing_beyond_the_halo_matters():
    ladder = made(spread=0.3)
    side = 4 * ladder.halo
    image = torch.rand(1, 1, side, side, requires_grad=True)
    found = ladder(image, NOISE[:1], [None] * 3).restored
    found[0, 0, side // 2 : side // 2 + 8, side // 2 : side // 2 + 8].sum().backward()
    rows, columns = np.nonzero(image.grad[0, 0].numpy())
    for places in (rows, columns):
        assert side // 2 - places.min() <= ladder.halo
        assert places.max() - (side // 2 + 7) <= ladder.halo


def test_noise_changes_the_sample_and_zeros_are_the_mean():
    ladder, image = made(spread=0.3), torch.rand(2, 1, 16, 16)
    drawn = latent_noise(ladder, image)
    mean = ladder(image, NOISE, [None] * 3).restored
    zeros = [torch.zeros_like(each) for each in drawn]
    torch.testing.assert_close(ladder(image, NOISE, zeros).restored, mean)
    assert not torch.allclose(ladder(image, NOISE, drawn).restored, mean)


def test_the_distortion_is_the_gaussian_density():
    restored, seen = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    expected = -torch.distributions.Normal(restored, NOISE).log_prob(seen)
    torch.testing.assert_close(pixel_distortion(restored, seen, NOISE), expected)


@pytest.mark.parametrize("width", [0.4, 0.5])
def test_the_distortion_of_wide_grain_is_its_density(width):
    """Against the multivariate normal density, of images that go round as the Fourier transform has it."""
    side, kernel = 16, torch.from_numpy(grain_kernel(width)).double()
    shift = torch.zeros(side, dtype=torch.float64)
    shift[: len(kernel)] = kernel
    axis = torch.stack([shift.roll(k - 3) for k in range(side)])
    root = torch.kron(axis, axis)
    grain = (root @ torch.randn(side * side, 40, dtype=torch.float64)).T
    exact = torch.distributions.MultivariateNormal(torch.zeros(side * side).double(), 0.01 * root @ root.T)
    image = 0.1 * grain.float().reshape(40, 1, side, side)
    nats = pixel_distortion(torch.zeros_like(image), image, torch.full((40, 1, 1, 1), 0.1), width)
    torch.testing.assert_close(nats.sum((1, 2, 3)).double(), -exact.log_prob(0.1 * grain), rtol=2e-3, atol=0.5)

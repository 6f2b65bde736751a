"""The ladder VAE and its likelihood."""

import numpy as np
import pytest
import torch

from vaeguard.denoiser import STRIDES
from vaeguard.denoiser_batches import draw_grain
from vaeguard.ladder import LadderVAE, distortion

NOISE = torch.full((2, 1, 1, 1), 0.1)


def made(seed=0, spread=0.1):
    torch.manual_seed(seed)
    ladder = LadderVAE(6, (2, 3, 4))
    if spread:
        for parameter in ladder.parameters():
            torch.nn.init.normal_(parameter, std=spread)
    return ladder


def chance(ladder, image):
    return [torch.randn(shape) for shape in ladder.chance_shapes(len(image), *image.shape[2:])]


def test_shapes_and_a_rate_that_begins_at_zero():
    ladder, image = made(spread=0), torch.rand(2, 1, 32, 48)
    found = ladder(image, NOISE, chance(ladder, image))
    assert found.restored.shape == image.shape
    assert [level.shape for level in found.kl] == [(2, 32 // stride, 48 // stride) for stride in STRIDES]
    torch.testing.assert_close(found.rate(), torch.zeros(2))


def test_the_rate_is_the_log_ratio_of_the_densities_on_average():
    """The closed form against Monte Carlo, for the coarsest latent, whose prior depends on nothing."""
    ladder, image = made(spread=0.3), torch.rand(2, 1, 16, 16)
    level = ladder.levels[-1]
    known, seen = torch.randn(2, 6, 2, 2), torch.randn(2, 6, 2, 2)
    _, kl = level(known, seen, None)
    mean, log_variance = level.prior(known).chunk(2, 1)
    shift, log_ratio = level.posterior(torch.cat([known, seen], 1)).chunk(2, 1)
    prior = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    posterior = torch.distributions.Normal(
        mean + torch.exp(0.5 * log_variance) * shift, torch.exp(0.5 * (log_variance + log_ratio))
    )
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(posterior, prior).sum(1), rtol=1e-4, atol=1e-4)
    assert image.shape[2] // STRIDES[-1] == 2


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


def test_chance_changes_the_sample_and_zeros_are_the_mean():
    ladder, image = made(spread=0.3), torch.rand(2, 1, 16, 16)
    drawn = chance(ladder, image)
    mean = ladder(image, NOISE, [None] * 3).restored
    zeros = [torch.zeros_like(each) for each in drawn]
    torch.testing.assert_close(ladder(image, NOISE, zeros).restored, mean)
    assert not torch.allclose(ladder(image, NOISE, drawn).restored, mean)


def test_the_distortion_is_the_gaussian_density():
    restored, seen = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    expected = -torch.distributions.Normal(restored, NOISE).log_prob(seen)
    torch.testing.assert_close(distortion(restored, seen, NOISE), expected)


@pytest.mark.parametrize("width", [0.4, 0.6])
def test_wide_grain_is_white_once_whitened(width):
    grain = 0.1 * draw_grain(torch.Size((64, 1, 64, 64)), width, torch.Generator().manual_seed(0))
    nats = distortion(torch.zeros_like(grain), grain, torch.full((64, 1, 1, 1), 0.1), width)
    white = 0.5 + np.log(0.1) + 0.5 * np.log(2 * np.pi)
    assert nats.mean().item() == pytest.approx(white, abs=0.05)

"""Training denoisers, very briefly."""

import itertools

import numpy as np
import pytest
import torch

from vaeguard.restoration.networks import training
from vaeguard.restoration.networks.batches import PatchSpec, photo_batches, seen_batches
from vaeguard.restoration.networks.direct import DirectDenoiser
from vaeguard.restoration.networks.ladder import LadderVAE
from vaeguard.restoration.networks.training import (
    fit_spread,
    interval_of,
    paired_elbo_loss,
    seen_elbo_loss,
    stein_estimate,
    supervised_loss,
    train_network,
    unsupervised_loss,
)
from vaeguard.training.loop import DivergedError

pytestmark = pytest.mark.slow

SPEC = PatchSpec(size=32, batch=4)


def photos():
    y, x = np.mgrid[:120, :160]
    return [(127 + 80 * np.sin(x / k) * np.cos(y / 9)).astype(np.uint8) for k in (5, 9, 14)]


def noisy_photos(level=0.1):
    rng = np.random.default_rng(0)
    return [
        (photo / np.float32(255) + level * rng.standard_normal(photo.shape)).astype(np.float32) for photo in photos()
    ]


def errors_of(net):
    """Mean squared error of what is restored, and of what went in, at a noise of 0.1."""
    found = []
    with torch.no_grad():
        for clean, noisy, noise in itertools.islice(photo_batches(photos(), 1, SPEC, noise=0.1), 20):
            restored, _ = net(noisy, noise)
            found.append([(each - clean).square().mean().item() for each in (restored, noisy)])
    return np.mean(found, axis=0)


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)


def test_a_fit_on_clean_images_learns_and_its_spread_covers():
    net, calls = DirectDenoiser(8, 2), []
    batches = photo_batches(photos(), 0, SPEC)
    loss = supervised_loss(net, by_noise=True)
    net, losses = train_network(net, loss, batches, 400, progress=lambda *call: calls.append(call))
    assert calls[-1][:2] == (400, 400)
    assert len(losses) == training.HISTORY
    assert losses[-1] < losses[0]
    ours, before = errors_of(net)
    assert ours < 0.7 * before
    fit_spread(net, batches, 300)
    interval, held_out = interval_of(net, photo_batches(photos(), 2, SPEC), 20), photo_batches(photos(), 2, SPEC)
    assert 0.8 < interval < 3
    inside = []
    for clean, noisy, noise in itertools.islice(held_out, 20):
        restored, log_variance = (found.detach() for found in net(noisy, noise))
        inside.append(((restored.clamp(0, 1) - clean).abs() <= interval * torch.exp(0.5 * log_variance)).float().mean())
    assert float(torch.stack(inside).mean()) == pytest.approx(0.9, abs=1e-3)


def test_a_fit_without_clean_images_learns_too():
    net = DirectDenoiser(8, 2)
    net, _ = train_network(net, unsupervised_loss(net), seen_batches(noisy_photos(), 0, SPEC), 400, rate=3e-3)
    ours, before = errors_of(net)
    assert ours < 0.7 * before


def test_steins_estimate_is_the_error_on_average():
    net = DirectDenoiser(8, 2)
    net, _ = train_network(net, supervised_loss(net, by_noise=True), photo_batches(photos(), 0, SPEC), 100)
    estimates, errors = [], []
    with torch.no_grad():
        for clean, noisy, noise in itertools.islice(photo_batches(photos(), 3, SPEC, noise=0.1), 150):
            fresh = 0.1 * torch.randn(clean.shape)
            estimates.append(stein_estimate(net, noisy, fresh, noise).mean().item())
            errors.append((net(noisy, noise)[0] - clean).square().mean().item())
    assert np.mean(estimates) == pytest.approx(np.mean(errors), rel=0.1)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.nightly
def test_the_bound_of_the_ladder_falls_and_its_mean_is_cleaner(paired):
    ladder = LadderVAE(8, (2, 3, 4))
    if paired:
        loss, batches = paired_elbo_loss(ladder), photo_batches(photos(), 0, SPEC, noise=0.1)
    else:
        loss, batches = seen_elbo_loss(ladder, 0.0), seen_batches(noisy_photos(), 0, SPEC)
    ladder, losses = train_network(ladder, loss, batches, 400, rate=3e-3)
    assert losses[-1] < losses[5]

    class Mean(torch.nn.Module):
        def forward(self, noisy, noise):
            return ladder(noisy, noise, [None] * 3).restored, None

    ours, before = errors_of(Mean())
    assert ours < 0.7 * before


def test_a_loss_that_is_not_finite_stops():
    net = DirectDenoiser(8, 2)
    batches = ((clean, noisy * float("nan"), noise) for clean, noisy, noise in photo_batches(photos(), 0, SPEC))
    with pytest.raises(DivergedError, match="after 1 steps"):
        train_network(net, supervised_loss(net, by_noise=True), batches, 10)


def test_the_history_has_the_mean_loss_of_each_hundredth():
    net, values = torch.nn.Linear(1, 1), np.random.default_rng(0).random(257).astype(np.float32)
    batches = ((torch.full((1, 1), value),) for value in values.tolist())
    _, losses = train_network(net, lambda value: value.mean() + 0 * net(value).sum(), batches, len(values))
    parts = np.array_split(values.astype(np.float64), training.HISTORY)
    np.testing.assert_array_equal(losses, [part.mean() for part in parts])

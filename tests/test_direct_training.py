"""Fitting a denoiser, very briefly."""

import itertools

import numpy as np
import pytest
import torch

from vaeguard import direct_training
from vaeguard.direct import DirectDenoiser
from vaeguard.direct_training import PatchSpec, fit_denoiser, interval_of, page_batches, page_pair, photo_batches

SPEC = PatchSpec(size=32, batch=4, pages=3)


def photos():
    y, x = np.mgrid[:120, :160]
    return [(127 + 80 * np.sin(x / k) * np.cos(y / 9)).astype(np.uint8) for k in (5, 9, 14)]


def test_photo_patches_have_the_noise_that_is_said():
    clean, noisy, noise = map(torch.cat, zip(*itertools.islice(photo_batches(photos(), 0, SPEC), 60), strict=True))
    assert clean.shape == (240, 1, 32, 32)
    assert 0 <= clean.min() <= clean.max() <= 1
    measured = (noisy - clean).std((1, 2, 3))
    assert (measured / noise.flatten()).median() == pytest.approx(1, rel=0.05)
    assert noise.max() <= direct_training.LARGEST_NOISE


def test_batches_repeat_with_their_seed():
    for one, two in zip(
        photo_batches(photos(), 3, SPEC), itertools.islice(photo_batches(photos(), 3, SPEC), 3), strict=False
    ):
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_page_pairs_are_paper_and_ink(printed):
    def render(rng):
        return printed(96, 96, int(rng.integers(100))), 14

    rng = np.random.default_rng(0)
    for _ in range(10):
        worn, clean, noise = page_pair(render, rng)
        assert worn.shape == clean.shape
        assert 0.8 < np.median(worn) < 1.2
        assert noise >= 0
    clean, worn, noise = next(page_batches(render, 0, SPEC))
    assert clean.shape == worn.shape == (4, 1, 32, 32)
    assert noise.shape == (4, 1, 1, 1)


def test_a_fit_learns_and_its_spread_covers(monkeypatch):
    monkeypatch.setattr(direct_training, "SPREAD_STEPS", 300)
    monkeypatch.setattr(direct_training, "WARM_UP", 20)
    torch.manual_seed(0)
    calls = []
    net = fit_denoiser(
        DirectDenoiser(8, 2),
        photo_batches(photos(), 0, SPEC),
        400,
        by_noise=True,
        progress=lambda *call: calls.append(call),
    )
    assert calls[-1][:2] == (400, 400)
    errors = []
    for clean, noisy, noise in itertools.islice(photo_batches(photos(), 1, SPEC), 20):
        restored, _ = net(noisy, noise)
        errors.append(((restored - clean).square().mean().item(), (noisy - clean).square().mean().item()))
    ours, before = np.mean(errors, axis=0)
    assert ours < 0.7 * before
    assert 0.8 < interval_of(net, photo_batches(photos(), 2, SPEC), 20) < 3

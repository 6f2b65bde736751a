"""What denoisers are trained on."""

import itertools

import numpy as np
import pytest
import torch

from vaeguard.restoration.networks import batches
from vaeguard.restoration.networks.batches import (
    PatchSpec,
    draw_grain,
    page_batches,
    page_pair,
    pair_batches,
    photo_batches,
    seen_batches,
)

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
    assert noise.max() <= batches.LARGEST_NOISE


def test_batches_repeat_with_their_seed():
    for one, two in zip(
        photo_batches(photos(), 3, SPEC), itertools.islice(photo_batches(photos(), 3, SPEC), 3), strict=False
    ):
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_page_pairs_are_paper_and_ink(printed):
    def render(rng):
        return printed(96, 96, int(rng.integers(100)))

    rng = np.random.default_rng(0)
    unworn, papers = 0, []
    for _ in range(60):
        worn, clean, noise = page_pair(render, rng)
        assert worn.shape == clean.shape == (96, 96)
        papers.append(np.median(worn))
        assert np.median(clean) == 1
        assert noise >= 0
        unworn += bool((np.minimum(worn, 1) == clean).mean() > 0.99)
    assert 1 <= unworn <= 15  # one in ten
    assert (np.abs(np.array(papers) - 1) < 0.2).mean() > 0.95
    clean, worn, noise = next(page_batches(render, 0, SPEC))
    assert clean.shape == worn.shape == (4, 1, 32, 32)
    assert noise.shape == (4, 1, 1, 1)


def test_noise_of_one_strength_is_white_and_of_that_strength():
    clean, noisy, noise = next(photo_batches(photos(), 0, PatchSpec(size=96, batch=8), noise=0.1))
    assert (noise == np.float32(0.1)).all()
    assert (noisy - clean).std().item() == pytest.approx(0.1, rel=0.02)


def test_pairs_are_cut_at_the_same_place():
    rng = np.random.default_rng(0)
    images = [rng.random((70, 90), np.float32) for _ in range(3)]
    pairs = [(image + np.float32(k), image, 0.1 * k) for k, image in enumerate(images)]
    for clean, noisy, noise in itertools.islice(pair_batches(pairs, 0, SPEC), 10):
        torch.testing.assert_close(noisy - clean, (10 * noise).expand_as(clean), atol=1e-5, rtol=1e-5)


def test_fresh_grain_is_as_strong_as_that_of_the_images():
    y, x = np.mgrid[:256, :256] / np.float32(256)
    generator = torch.Generator().manual_seed(0)
    images = []
    for level in (0.05, 0.1):
        grain = level * draw_grain(torch.Size((1, 1, 256, 256)), 0.6, generator)[0, 0].numpy()
        images.append((0.5 + 0.3 * np.sin(3 * x) * y + grain).astype(np.float32))
    found = {}
    for seen, grain, noise in itertools.islice(seen_batches(images, 0, PatchSpec(size=64, batch=8)), 10):
        assert seen.shape == grain.shape == (8, 1, 64, 64)
        for one, level in zip(grain, noise.flatten().tolist(), strict=True):
            found.setdefault(round(level, 5), []).append(one.std().item())
    assert sorted(found) == pytest.approx([0.05, 0.1], rel=0.1)
    told = [np.mean(found[level]) for level in sorted(found)]
    assert told == pytest.approx(sorted(found), rel=0.05)

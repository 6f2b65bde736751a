"""Photographs as cameras take them, and what is learned from them."""

import numpy as np
import pytest
import torch

from vaeguard.restoration.networks import camera
from vaeguard.restoration.networks.batches import PatchSpec
from vaeguard.restoration.networks.camera import camera_shot, noise_curve
from vaeguard.restoration.networks.camera_batches import estimator_batches
from vaeguard.restoration.noise import CELL, OPPONENT, opponent_deviations

SPEC = PatchSpec(size=32, batch=4, pages=3, steps_per_page=4)


def photo(side=200):
    y, x = np.mgrid[:side, :side]
    return np.stack([127 + 80 * np.sin(x / k) * np.cos(y / 9) for k in (15, 19, 24)], -1).astype(np.uint8)


def test_independent_noise_is_as_strong_in_brightness_as_in_colours():
    np.testing.assert_allclose(OPPONENT @ OPPONENT.T, np.eye(3), atol=1e-6)
    residual = 7 * np.random.default_rng(0).standard_normal((100_000, 3)).astype(np.float32)
    np.testing.assert_allclose(opponent_deviations(residual), 7, rtol=0.01)
    np.testing.assert_allclose(opponent_deviations(residual[:, :1]), 7, rtol=0.01)


def test_grey_noise_is_in_brightness_alone():
    grey = np.repeat(np.random.default_rng(0).standard_normal((10_000, 1)), 3, 1).astype(np.float32)
    np.testing.assert_allclose(opponent_deviations(grey), [3**0.5, 0], atol=0.03)


def test_the_curve_follows_brightness():
    brightness = np.tile(np.linspace(0, 255, 256, dtype=np.float32), (256, 1))
    noise = np.random.default_rng(0).standard_normal((256, 256)) * (2 + brightness / 20)
    curve = noise_curve(noise.astype(np.float32)[..., None], brightness)[0]
    centres = curve[0, 32::64]
    np.testing.assert_allclose(centres, 2 + np.arange(32, 256, 64) / 20, rtol=0.1)


@pytest.mark.parametrize("grey", [False, True])
def test_a_shot_without_noise_is_what_was_stored(monkeypatch, grey):
    monkeypatch.setattr(camera, "CLEAN_SHARE", 1)
    for seed in range(8):
        shot = camera_shot(photo(), np.random.default_rng(seed), grey=grey)
        np.testing.assert_array_equal(shot.noisy, shot.stored)
        assert not shot.noise.any()
        assert shot.clean.shape == (200, 200, 1 if grey else 3)
        assert shot.noise.shape == (1 if grey else 2, 200, 200)


def test_shots_repeat_with_their_seed_and_have_noise(monkeypatch):
    monkeypatch.setattr(camera, "CLEAN_SHARE", 0)
    one, two = (camera_shot(photo(), np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.noisy, two.noisy)
    assert one.noise.max() > 0


def test_linear_light_goes_there_and_back():
    values = np.linspace(0, 1, 256, dtype=np.float32)
    np.testing.assert_allclose(camera._displayed(camera._linear(values)), values, atol=1e-6)


@pytest.mark.parametrize(("grey", "planes", "levels"), [(False, 3, 2), (True, 1, 1)])
def test_patches_for_the_estimator(grey, planes, levels):
    noisy, noise = next(estimator_batches([photo()], 0, SPEC, grey=grey))
    assert noisy.shape == (4, planes, 32, 32)
    assert noise.shape == (4, levels, 32 // CELL, 32 // CELL)
    again, _ = next(estimator_batches([photo()], 0, SPEC, grey=grey))
    assert torch.equal(noisy, again)

"""Noise estimated from the image alone."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vaeguard.restoration.noise import (
    finest_noise,
    grain_kernel,
    grain_of,
    jpeg_grid,
    photo_noise,
    print_noise,
)


def smooth(size=256):
    y, x = np.mgrid[:size, :size] / np.float32(size)
    return (0.5 + 0.3 * np.sin(6 * x) * np.cos(4 * y)).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.2])
def test_white_noise_is_measured(sigma):
    noise = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    for measure in (photo_noise, print_noise):
        assert measure(smooth() + sigma * noise) == pytest.approx(sigma, rel=0.08)


def test_noise_scales_with_the_image_and_is_zero_in_an_even_one():
    image = smooth() + 0.1 * np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    assert photo_noise(255 * image) == pytest.approx(255 * photo_noise(image), rel=1e-5)
    assert photo_noise(np.full((64, 64), 0.4, np.float32)) == 0
    assert photo_noise(smooth()) < 1e-3


def test_wide_grain_of_a_large_image_is_not_missed():
    grain = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((800, 800)), 0.8)
    grain *= 0.1 / grain.std()
    assert 0.08 < photo_noise((smooth(800) + grain).astype(np.float32)) < 0.11


@pytest.mark.parametrize("shape", [(1, 1), (15, 300), (3, 3), (8, 7000), (7000, 8)])
def test_an_image_that_is_too_small_has_no_noise(shape):
    assert photo_noise(np.random.default_rng(0).random(shape, np.float32)) == 0


def scene(sigma):
    """A picture with the spectrum of scenes, without a quiet place, and with noise of `sigma` levels."""
    rng = np.random.default_rng(3)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
    spectrum = np.fft.fft2(rng.standard_normal((256, 256))) / np.maximum(frequency, 1 / 256)
    texture = np.fft.ifft2(spectrum).real
    image = 0.5 + 0.15 * texture / texture.std() + sigma / 255 * rng.standard_normal((256, 256))
    return image.astype(np.float32)


@pytest.mark.parametrize("sigma", [0, 10, 25])
def test_texture_everywhere_is_no_noise(sigma):
    image = scene(sigma)
    estimated, by_differences = 255 * photo_noise(image), 255 * finest_noise(image)
    assert by_differences > sigma + 2  # the finest differences take texture for noise
    assert abs(estimated - sigma) < 0.7 * (by_differences - sigma)


@pytest.mark.parametrize("quality", [60, 75])
@pytest.mark.parametrize("sigma", [0, 10])
def test_noise_is_estimated_after_jpeg_removed_the_finest_differences(sigma, quality):
    noise = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    image = np.clip(np.round(255 * (smooth() + (scene(0) - 0.5) / 4) + sigma * noise), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(file), np.float32)
    assert jpeg_grid(decoded) > 2.5 > abs(jpeg_grid(image.astype(np.float32)))
    assert photo_noise(decoded) == pytest.approx(sigma, abs=3 if sigma else 2)
    assert not sigma or finest_noise(decoded) < 0.75 * sigma


@pytest.mark.parametrize("width", [0, 0.5, 0.6, 0.8, 1.0])
def test_grain_of_any_width_is_estimated(width):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:300, :300] / 300
    images = []
    for level in (0.05, 0.1, 0.08):
        white = rng.standard_normal((300, 300))
        kernel = grain_kernel(width)
        grain = ndimage.convolve1d(ndimage.convolve1d(white, kernel, 0), kernel, 1)
        images.append((level, (0.5 + 0.3 * np.sin(3 * x) * y + level * grain).astype(np.float32)))
    estimated, ratio = grain_of([image for _, image in images])
    assert estimated == pytest.approx(width, abs=0.1)
    for level, image in images:
        assert ratio * finest_noise(image) == pytest.approx(level, rel=0.13)


def test_white_noise_on_detail_is_estimated_as_white():
    rng = np.random.default_rng(0)
    detail = ndimage.gaussian_filter(rng.standard_normal((40, 200, 200)), (0, 1.5, 1.5)) * 0.4
    assert grain_of((detail + 0.06 * rng.standard_normal(detail.shape)).astype(np.float32)) == (0.0, 1.0)


def test_images_without_noise_have_no_grain():
    assert grain_of([np.full((64, 64), 0.5, np.float32)]) == (0.0, 1.0)
    assert grain_of([]) == (0.0, 1.0)


@pytest.mark.parametrize("side", [96, 180, 400])
def test_selecting_quiet_blocks_does_not_bias_the_noise(side):
    rng = np.random.default_rng(0)
    estimates = [finest_noise(0.1 * rng.standard_normal((side, side)).astype(np.float32)) for _ in range(20)]
    assert np.mean(estimates) == pytest.approx(0.1, rel=0.04)

"""A simulated camera for training on clean photographs: noise of light and sensor, demosaicing, smoothing, JPEG.

The steps are those of a camera's own processing, as in CBDNet (Guo et al., 2019) and "Unprocessing images" (Brooks et
al., 2019).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from scipy import ndimage

from vaeguard.restoration.noise import OPPONENT, opponent_deviations

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Levels = npt.NDArray[np.uint8]
    Rng = np.random.Generator

STRENGTHS = (0.6, 40.0)
"""The range of the deviation of the noise at middle grey, in levels of 0 to 255, drawn evenly by its logarithm."""
MIDDLE = 0.2140
"""Middle grey in linear light."""
CLEAN_SHARE = 0.2
"""The share of photographs without noise."""
BANDS = 4
"""The number of bands of brightness, each with a deviation of its own."""
_GREEN = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_RED_OR_BLUE = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4


@dataclass(frozen=True)
class CameraShot:
    """A photograph as a camera would have taken it.

    Attributes
    ----------
    clean, noisy : ndarray
        uint8, shape (H, W, C).
    stored : ndarray
        The clean photograph as the camera would have stored it, by JPEG or without loss.
    noise : ndarray
        The deviation of the noise in brightness and in colour at each pixel, by a curve over brightness, in levels of 0
        to 255; float32, shape (2, H, W), or (1, H, W) for a grey photograph.
    """

    clean: Levels
    noisy: Levels
    stored: Levels
    noise: Floats


def camera_shot(photo: Levels, rng: Rng, *, grey: bool = False) -> CameraShot:
    """Take a clean photograph, uint8 (H, W, 3), again with a noisy camera; `grey` returns one plane."""
    clean = _varied(photo.astype(np.float32) / np.float32(255), rng)
    noisy = clean if rng.random() < CLEAN_SHARE else np.clip(clean + _processed(_sensor_noise(clean, rng), rng), 0, 1)
    if grey:
        clean, noisy = (photo.mean(-1, keepdims=True) for photo in (clean, noisy))
    jpeg = _jpeg_settings(rng)
    noisy_levels, stored = _stored(noisy, jpeg), _stored(clean, jpeg)
    residual = noisy_levels.astype(np.float32) - stored.astype(np.float32)
    curve = noise_curve(residual, stored.astype(np.float32).mean(-1))
    return CameraShot(_stored(clean, {}), noisy_levels, stored, curve)


def noise_curve(residual: Floats, brightness: Floats) -> Floats:
    """The deviation of a residual, (H, W, C), at each pixel's brightness: shape (2, H, W) or (1, H, W)."""
    smooth = ndimage.gaussian_filter(brightness, 2)
    band = np.searchsorted(np.quantile(smooth, np.arange(1, BANDS) / BANDS), smooth)
    deviations = [opponent_deviations(residual[band == number]) for number in range(BANDS)]
    curve: Floats = np.array(deviations, np.float32)[band].transpose(2, 0, 1)
    return curve


def _varied(clean: Floats, rng: Rng) -> Floats:
    """A photograph with other contrast and colours, softer or sharper."""
    if rng.random() < 0.5:
        contrast, level = rng.uniform(0.5, 1.15), rng.uniform(0, 1, 3) if rng.random() < 0.3 else rng.uniform(0, 1)
        clean = clean * np.float32(contrast) + np.asarray(level, np.float32) * np.float32(max(0, 1 - contrast))
    if rng.random() < 0.15:
        clean = ndimage.gaussian_filter(clean, (*[rng.uniform(0.4, 1.2)] * 2, 0))
    elif rng.random() < 0.2:
        blurred = ndimage.gaussian_filter(clean, (0.8, 0.8, 0))
        clean = clean + np.float32(rng.uniform(0.2, 1)) * (clean - blurred)
    return np.clip(clean, 0, 1).astype(np.float32)


def _sensor_noise(clean: Floats, rng: Rng) -> Floats:
    """Shot noise and read noise, drawn in linear light and returned as a difference of displayed values."""
    strength = np.exp(rng.uniform(*np.log(STRENGTHS))) / 255
    of_light = rng.uniform(0.2, 1)
    gains = np.array([rng.uniform(1, 2.4), 1, rng.uniform(1, 2.6)], np.float32)
    linear = _linear(clean)
    raw = linear / gains
    variance = of_light * strength**2 / MIDDLE * raw + (1 - of_light) * strength**2 / 4
    noise = rng.standard_normal(clean.shape, np.float32) * np.sqrt(variance, dtype=np.float32)
    if rng.random() < 0.7:
        noise = _demosaiced(noise)
    mixing = np.float32(rng.uniform(0, 0.8)) * (np.eye(3, dtype=np.float32) - np.float32(1 / 3))
    mixed = (noise * gains) @ (np.eye(3, dtype=np.float32) + mixing)
    difference: Floats = _displayed(np.clip(linear + mixed, 0, 1)) - clean
    return difference


def _demosaiced(noise: Floats) -> Floats:
    """Noise of the cells of a Bayer sensor, interpolated to all pixels like its colours."""
    rows, columns = np.indices(noise.shape[:2])
    places = (rows % 2 == 0) & (columns % 2 == 0), (rows + columns) % 2 == 1, (rows % 2 == 1) & (columns % 2 == 1)
    kernels = _RED_OR_BLUE, _GREEN, _RED_OR_BLUE
    planes = [
        ndimage.convolve(np.where(place, noise[..., number], np.float32(0)), kernel, mode="mirror")
        for number, (place, kernel) in enumerate(zip(places, kernels, strict=True))
    ]
    return np.stack(planes, axis=-1)


def _processed(noise: Floats, rng: Rng) -> Floats:
    """Noise after smoothing and sharpening in the camera, which change brightness a little and colours a lot."""
    planes = noise @ OPPONENT.T
    if rng.random() < 0.35:
        planes[..., 0] = _smoothed(planes[..., 0], rng.uniform(0.3, 0.9), rng.uniform(0.5, 1))
    elif rng.random() < 0.3:
        planes[..., 0] *= 1 + np.float32(rng.uniform(0, 0.6))
        planes[..., 0] -= np.float32(0.3) * ndimage.gaussian_filter(planes[..., 0], 1)
    if rng.random() < 0.5:
        width, share = np.exp(rng.uniform(np.log(0.5), np.log(4))), rng.uniform(0.3, 1)
        for number in (1, 2):
            planes[..., number] = _smoothed(planes[..., number], width, share)
    processed: Floats = (planes @ OPPONENT).astype(np.float32)
    return processed


def _smoothed(plane: Floats, width: float, share: float) -> Floats:
    """`plane` blurred by `width` pixels, and scaled to the share `share` of its deviation."""
    wide = ndimage.gaussian_filter(plane, width)
    scaled: Floats = wide * np.float32(share * plane.std() / max(float(wide.std()), 1e-9))
    return scaled


def _jpeg_settings(rng: Rng) -> dict[str, int]:
    """The settings of the JPEG that the camera writes; empty if it stores the photograph without loss."""
    if rng.random() < 0.25:
        return {}
    return {"quality": int(rng.integers(70, 99)), "subsampling": int(rng.choice([0, 1, 2], p=[0.35, 0.15, 0.5]))}


def _stored(image: Floats, jpeg: dict[str, int]) -> Levels:
    """`image` in 256 levels, after JPEG compression unless `jpeg` is empty; the channels stay."""
    levels = np.clip(np.round(255 * image), 0, 255).astype(np.uint8)
    if not jpeg:
        return levels
    file = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels).save(file, "JPEG", **jpeg)
    return np.asarray(Image.open(file)).reshape(levels.shape)


def _linear(displayed: Floats) -> Floats:
    """Linear light from values of sRGB."""
    powered = ((displayed + np.float32(0.055)) / np.float32(1.055)) ** np.float32(2.4)
    return np.where(displayed <= 0.04045, displayed / np.float32(12.92), powered)


def _displayed(linear: Floats) -> Floats:
    """Values of sRGB from linear light."""
    powered = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(linear <= 0.0031308, np.float32(12.92) * linear, powered)

"""Pseudo-anomalies: normal images corrupted on purpose, to compare settings where no anomaly is known.

Pseudo-anomalies need no other data, and they are hard to detect, since they resemble normal images. They do not model
any real anomaly, and no detector is trained on them. The patches are those of CutPaste (Li et al., CVPR 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Values = npt.NDArray[Any]
    Corruption = Callable[[Values, Values, np.random.Generator], Values]

PART_VALUES = 2**22
"""Number of values that are corrupted at a time."""
LEAST_CHANGE = 1.0
"""Least mean change of an image in grey levels; an image that changed less is corrupted again."""
TRIES = 10
"""The most attempts to change an image enough."""

PATCH_AREA = (0.02, 0.15)
"""Least and greatest share of the image that a pasted patch covers, as in CutPaste."""
BLOCK_AREA = (0.1, 0.3)
"""Least and greatest share of the image that a blurred or noisy block covers."""
LONGEST = 3.3
"""Greatest aspect ratio of a patch or block."""
SLIP = 0.25
"""Greatest shift of one half of an image, as a share of the width."""
BEND = 0.06
"""Standard deviation of the displacement of a warped image, in units of its shorter side."""
NOISE = 40.0
"""Standard deviation of the noise in a noisy block, in grey levels."""
SWAPPED = 0.25
"""Share of the features of a vector that come from another vector."""


def make_pseudo_anomalies(images: Values, kind: str, seed: int) -> Values:
    """Corrupt each of N images in its own way; the same seed gives the same pseudo-anomalies.

    Parameters
    ----------
    images : uint8 (N, C, H, W) or float32 (N, 1, 1, F)
        Normal images of any size, or vectors; at least 2, since most kinds mix two of them.
    kind : str
        One of `pseudo_anomaly_kinds(images)`.
    seed : int
        Seed of the positions, the shapes, and the second image of each pair.

    Returns
    -------
    array of the shape and type of `images`

    Raises
    ------
    UsageError
        There is only one image, or the kind is unknown.
    """
    kinds = _kinds(images)
    if kind not in kinds:
        raise UsageError(f"unknown pseudo-anomaly {kind!r}; choose from {', '.join(kinds)}")
    if len(images) < 2:
        raise UsageError("pseudo-anomalies mix two images, but there is only one; add more")
    generator = np.random.default_rng(seed)
    corrupted = np.array(images)
    pending = np.arange(len(images))
    for _ in range(TRIES):
        for rows in np.array_split(pending, -(-len(pending) * images[0].size // PART_VALUES)):
            partners = (rows + generator.integers(1, len(images), len(rows))) % len(images)
            corrupted[rows] = _to_dtype(images.dtype, kinds[kind](images[rows], images[partners], generator))
        pending = pending[~_changed(images, corrupted, pending)]
        if not len(pending):
            break
    return corrupted


def pseudo_anomaly_kinds(images: Values) -> tuple[str, ...]:
    """Names of the kinds of pseudo-anomaly for such images, or for vectors."""
    return tuple(_kinds(images))


def _kinds(images: Values) -> dict[str, Corruption]:
    return IMAGE_KINDS if images.dtype == np.uint8 else VECTOR_KINDS


def _to_dtype(dtype: np.dtype[Any], values: Values) -> Values:
    return np.rint(values).clip(0, 255).astype(dtype) if dtype == np.uint8 else values.astype(dtype)


def _changed(images: Values, corrupted: Values, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    least = LEAST_CHANGE if images.dtype == np.uint8 else np.finfo(np.float32).tiny
    return np.array([np.abs(images[row].astype(float) - corrupted[row]).mean() >= least for row in rows], bool)


def _patch(images: Values, others: Values, generator: np.random.Generator) -> Values:
    """A rectangle from another position in another image."""
    n, _, height, width = images.shape
    rows = (np.arange(height) + generator.integers(0, height, (n, 1))) % height
    columns = (np.arange(width) + generator.integers(0, width, (n, 1))) % width
    shifted = others[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)
    return np.where(_rectangles(images, PATCH_AREA, generator), shifted, images)


def _halves(images: Values, others: Values, _: np.random.Generator) -> Values:
    """The left half of one image, the right half of another."""
    return np.where(np.arange(images.shape[3]) < images.shape[3] // 2, images, others)


def _blend(images: Values, others: Values, _: np.random.Generator) -> Values:
    """The mean of two images."""
    return (images.astype(np.float32) + others) / 2


def _slip(images: Values, _: Values, generator: np.random.Generator) -> Values:
    """The upper half shifted sideways against the lower half."""
    height, width = images.shape[2:]
    most_pixels, shape = max(1, round(SLIP * width)), (len(images), 1)
    pixels = generator.integers(1, most_pixels + 1, shape) * generator.choice((-1, 1), shape)
    columns = (np.arange(width) + pixels).clip(0, width - 1)
    shifted = np.take_along_axis(images, columns[:, None, None, :], axis=3)
    return np.where(np.arange(height)[:, None] < height // 2, shifted, images)


def _warp(images: Values, _: Values, generator: np.random.Generator) -> Values:
    """A smooth deformation, stronger than that of the augmentation."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    n, channels, height, width = images.shape
    side = min(height, width)
    field = gaussian_filter(generator.standard_normal((2, n, 1, height, width)), (0, 0, 0, side / 6, side / 6))
    field *= BEND * side / field.std(axis=(3, 4), keepdims=True)
    indices = np.indices((n, channels, height, width), np.float32, sparse=True)
    warped = (indices[2] + field[0], indices[3] + field[1])
    coordinates = np.stack([np.broadcast_to(axis, images.shape) for axis in (*indices[:2], *warped)])
    return np.asarray(map_coordinates(images.astype(np.float32), coordinates, order=1, mode="nearest"))


def _blur(images: Values, _: Values, generator: np.random.Generator) -> Values:
    """A block without its detail."""
    from scipy.ndimage import gaussian_filter

    sigma = min(images.shape[2:]) / 8
    smooth = gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma))
    return np.where(_rectangles(images, BLOCK_AREA, generator), smooth, images)


def _noise(images: Values, _: Values, generator: np.random.Generator) -> Values:
    """A block with Gaussian noise."""
    noise = NOISE * generator.standard_normal(images.shape, np.float32)
    return np.where(_rectangles(images, BLOCK_AREA, generator), images + noise, images)


def _swap(vectors: Values, others: Values, generator: np.random.Generator) -> Values:
    """Some features from another vector: each value is usual by itself, but not together with the others."""
    return np.where(generator.random(vectors.shape) < SWAPPED, others, vectors)


def _rectangles(images: Values, area: tuple[float, float], generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """One rectangle in each image, as a mask (N, 1, H, W); its area, within `area`, and its aspect ratio are random."""
    n, _, height, width = images.shape
    share = generator.uniform(*area, n)
    aspect = np.exp(generator.uniform(-np.log(LONGEST), np.log(LONGEST), n))
    inside = []
    for side, fraction in ((height, np.sqrt(share * aspect)), (width, np.sqrt(share / aspect))):
        length = np.rint(fraction * side).clip(1, side)
        start = np.floor(generator.uniform(0, side - length + 1))
        position = np.arange(side)
        inside.append((position >= start[:, None]) & (position < (start + length)[:, None]))
    rectangles: npt.NDArray[np.bool_] = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return rectangles


IMAGE_KINDS: dict[str, Corruption] = {
    "patch": _patch,
    "halves": _halves,
    "blend": _blend,
    "slip": _slip,
    "warp": _warp,
    "blur": _blur,
    "noise": _noise,
}
VECTOR_KINDS: dict[str, Corruption] = {"swap": _swap}

"""How strong the noise of an image is, told from the image alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

MAD_OF_GAUSSIAN = 0.6745
"""Median absolute deviation of a Gaussian with standard deviation 1."""
QUIET_SHARE = 0.25
"""The quietest quarter of an image shows its noise, the rest also its detail."""
WIDE_SHARE = 0.9
"""Detail weighs more in coarser differences; so much of them is believed."""


def noise_level(image: Floats, *, wide: bool = True) -> float:
    """Estimate the standard deviation of the noise of an image.

    The median absolute deviation of diagonal Haar differences (Donoho, 1995) in the quieter blocks.

    Parameters
    ----------
    image : ndarray
        Shape (H, W), in any unit.
    wide : bool
        Also look at half the resolution: grain that is wider than a pixel hardly shows in the finest differences. Not
        for pages of print, whose strokes are everywhere at that scale.

    Returns
    -------
    float
        In the unit of the image; 0 for an image of fewer than 16 pixels a side.
    """
    fine = _quiet_deviation(image)
    if not wide:
        return fine
    # The mean of four pixels has half of the deviation.
    coarse = 2 * _quiet_deviation(_halved(image))
    return float(max(fine, WIDE_SHARE * coarse))


def _quiet_deviation(image: Floats) -> float:
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    diagonal = (upper_left - upper_right - lower_left + lower_right) / 2
    side = 32 if min(diagonal.shape) >= 128 else 16 if min(diagonal.shape) >= 32 else 8
    rows, columns = (length // side for length in diagonal.shape)
    if not rows * columns:
        return 0.0
    blocks = diagonal[: rows * side, : columns * side].reshape(rows, side, columns, side)
    deviations = np.median(np.abs(blocks), axis=(1, 3)) / MAD_OF_GAUSSIAN
    return float(np.quantile(deviations, QUIET_SHARE))


def _halved(image: Floats) -> Floats:
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    return (upper_left + upper_right + lower_left + lower_right) / np.float32(4)


def _quarters(image: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The pixels at even and odd rows and columns, in arrays of one shape."""
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return even[0::2, 0::2], even[0::2, 1::2], even[1::2, 0::2], even[1::2, 1::2]

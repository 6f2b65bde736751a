"""How strong the noise of an image is, told from the image alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

MAD_OF_GAUSSIAN = 0.6745
"""Median absolute deviation of a Gaussian with standard deviation 1."""
QUIET_SHARE, QUIET_SHARE_OF_PRINT = 0.1, 0.25
"""The quietest part of an image shows its noise, the rest also its detail; most of a page of print is paper."""
WIDE_SHARE, FEWEST_WIDE_PIXELS = 0.9, 400_000
"""Detail weighs more in coarser differences: so much of them is believed, and only where there are many."""


def photo_noise(image: Floats) -> float:
    """Estimate the standard deviation of the noise of a photograph.

    The median absolute deviation of diagonal Haar differences (Donoho, 1995) in the quieter blocks; in large images
    also at half the resolution, since grain that is wider than a pixel hardly shows in the finest differences.

    Parameters
    ----------
    image : ndarray
        Shape (H, W), in any unit.

    Returns
    -------
    float
        In the unit of the image; 0 for an image of fewer than 16 pixels a side.
    """
    fine = _quiet_deviation(image, QUIET_SHARE)
    if image.size < FEWEST_WIDE_PIXELS:
        return fine
    # The mean of four pixels has half of the deviation.
    return max(fine, WIDE_SHARE * 2 * _quiet_deviation(_halved(image), QUIET_SHARE))


def print_noise(page: Floats) -> float:
    """Estimate the standard deviation of the noise of a page of print.

    As `photo_noise`, but from the finest scale only: at half the resolution strokes are everywhere.
    """
    return _quiet_deviation(page, QUIET_SHARE_OF_PRINT)


def _quiet_deviation(image: Floats, share: float) -> float:
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    diagonal = (upper_left - upper_right - lower_left + lower_right) / 2
    side = 32 if min(diagonal.shape) >= 128 else 16 if min(diagonal.shape) >= 32 else 8
    rows, columns = (length // side for length in diagonal.shape)
    if not rows * columns:
        return 0.0
    blocks = diagonal[: rows * side, : columns * side].reshape(rows, side, columns, side)
    deviations = np.median(np.abs(blocks), axis=(1, 3)) / MAD_OF_GAUSSIAN
    return float(np.quantile(deviations, share))


def _halved(image: Floats) -> Floats:
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    return (upper_left + upper_right + lower_left + lower_right) / np.float32(4)


def _quarters(image: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The pixels at even and odd rows and columns, in arrays of one shape."""
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return even[0::2, 0::2], even[0::2, 1::2], even[1::2, 0::2], even[1::2, 1::2]

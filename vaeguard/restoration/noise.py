"""How strong the noise of an image is, told from the image alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

MAD_OF_GAUSSIAN = 0.6745
"""Median absolute deviation of a Gaussian with standard deviation 1."""
QUIET_SHARE, QUIET_SHARE_OF_PRINT = 0.1, 0.25
"""The quietest part of an image shows its noise, the rest also its detail; most of a page of print is paper."""
WIDE_SHARE, FEWEST_WIDE_PIXELS = 0.9, 400_000
"""Detail weighs more in coarser differences: so much of them is believed, and only where there are many."""
FEWEST_SIDE = 16
FEWEST_JPEG_PIXELS = 50_000
"""Fewer leave too few blocks at a quarter of the resolution."""
JPEG_BLOCK, PLAIN_GRID, EDGE_STEP = 8, 2.5, 3
GRAIN_REACH = 3
WIDTHS = np.linspace(0, 1.2, 61)
"""Of grain, in pixels."""
LEAST_WIDTH = 0.46
"""Narrower grain counts as white: detail makes white noise look up to so wide (0.36 to 0.45 on BSD400, at 25 to 8 of
255 levels), and it never makes grain look narrower."""


def photo_noise(image: Floats) -> float:
    """Estimate the standard deviation of the noise of a photograph.

    The median absolute deviation of diagonal Haar differences (Donoho, 1995) in the quieter blocks, at full and at half
    the resolution. In a small image all blocks may hold texture: that is as strong at half the resolution, since scenes
    look alike at all scales (Ruderman and Bialek, 1994), and white noise half as strong, so the two can be told apart.
    In a large image some block is quiet, and grain that is wider than a pixel hardly shows in the finest differences.
    Neither does noise in an image that was a JPEG of middling quality, which is asked an octave further up instead.

    Parameters
    ----------
    image : ndarray
        Shape (H, W), in any unit.

    Returns
    -------
    float
        In the unit of the image; 0 for an image of fewer than 16 pixels a side.
    """
    if min(image.shape) < FEWEST_SIDE:
        return 0.0
    fine, half = (_quiet_deviation([_diagonal(each)], QUIET_SHARE) for each in (image, halved(image)))
    # The mean of four pixels has half of the deviation of white noise.
    if image.size >= FEWEST_WIDE_PIXELS:
        return max(fine, WIDE_SHARE * 2 * half)
    white = _beyond_texture(fine, half)
    if image.size < FEWEST_JPEG_PIXELS or jpeg_grid(image) < PLAIN_GRID:
        return white
    quarter = _quiet_deviation([_diagonal(halved(halved(image)))], QUIET_SHARE)
    return max(white, 2 * _beyond_texture(half, quarter))


def _beyond_texture(fine: float, half: float) -> float:
    """The white noise in `fine` if texture is as strong in `half`, deviations at a resolution and at half of it."""
    return float(np.sqrt(max(0.0, (fine**2 - half**2) / (1 - 1 / 4))))


def jpeg_grid(image: Floats) -> float:
    """How far steps across the grid of JPEG's blocks stand out among others, in deviations of the others.

    Within 2.5 of 0 where there is no grid, beyond after JPEG of quality 75 or less, also with noise of 10 levels: both
    hold for nine in ten of BSD400. Steps of edges count no more than a few times the median; where that is 0, there is
    no noise to look for, and the result is 0.

    Parameters
    ----------
    image : ndarray
        Shape (H, W), both at least 16, with the corner of the JPEG.
    """
    found = []
    for steps in (np.abs(np.diff(image, axis=0)), np.abs(np.diff(image, axis=1)).T):
        capped = np.minimum(steps, EDGE_STEP * np.median(steps))
        means = np.array([capped[phase::JPEG_BLOCK].mean() for phase in range(JPEG_BLOCK)], np.float64)
        inside, across = means[:-1], means[-1]
        found.append((across - inside.mean()) / max(inside.std(), np.finfo(np.float32).tiny))
    return float(np.mean(found))


def print_noise(page: Floats) -> float:
    """Estimate the standard deviation of the noise of a page of print.

    As `photo_noise`, but from the finest scale only: at half the resolution strokes are everywhere.
    """
    return _quiet_deviation([_diagonal(page)], QUIET_SHARE_OF_PRINT)


def colour_noise(difference: Floats) -> float:
    """Estimate the standard deviation of the noise of a difference of colours, at its own resolution.

    From differences along rows, columns and diagonals alike: JPEG keeps colours at half the resolution and coarsely, so
    that hardly any noise is left in the diagonal ones, and edges, which show in the others, are few in colours.

    Parameters
    ----------
    difference : ndarray
        Shape (H, W), in any unit.
    """
    upper_left, upper_right, lower_left, lower_right = _quarters(difference)
    along_rows = (upper_left - upper_right + lower_left - lower_right) / np.float32(2)
    along_columns = (upper_left + upper_right - lower_left - lower_right) / np.float32(2)
    return _quiet_deviation([along_rows, along_columns, _diagonal(difference)], QUIET_SHARE)


def finest_noise(image: Floats) -> float:
    """Estimate the standard deviation of the finest differences of the noise, without the bias of choosing by them.

    The quieter blocks are those that are quiet at half the resolution. White noise is independent there, so that the
    finest differences in them are neither smaller nor larger than elsewhere.
    """
    fine, coarse = (_diagonal(each) for each in (image, halved(image)))
    side = 16 if min(coarse.shape) >= 64 else 8
    rows, columns = (length // side for length in coarse.shape)
    if not rows * columns:
        return _quiet_deviation([fine], QUIET_SHARE)
    coarse_blocks, fine_blocks = (
        each[: rows * wide, : columns * wide].reshape(rows, wide, columns, wide).swapaxes(1, 2).reshape(-1, wide * wide)
        for each, wide in ((coarse, side), (fine, 2 * side))
    )
    order = np.argsort(np.median(np.abs(coarse_blocks), axis=1))
    quiet = fine_blocks[order[: max(1, round(QUIET_SHARE * len(order)))]]
    return float(np.median(np.abs(quiet)) / MAD_OF_GAUSSIAN)


def grain_kernel(width: float) -> Floats:
    """What white noise is smoothed with to become grain of `width` pixels: shape (7,), for rows and columns alike.

    The sum of its squares is 1, so that the deviation stays; 0 leaves white noise as it is.
    """
    offsets = np.arange(-GRAIN_REACH, GRAIN_REACH + 1)
    kernel = np.exp(-np.square(offsets) / (2 * max(width, 0.05) ** 2))
    normed: Floats = (kernel / np.linalg.norm(kernel)).astype(np.float32)
    return normed


def grain_of(images: Iterable[Floats]) -> tuple[float, float]:
    """Tell the grain of a collection: its width in pixels, and its deviation over that in the finest differences.

    Grain that is wider than a pixel is stronger at half the resolution than white noise would be, compared with the
    finest differences. Medians over the images; both are right to about a tenth.

    Parameters
    ----------
    images : iterable of ndarray
        Each of shape (H, W).
    """
    ratios = []
    for image in images:
        fine = finest_noise(image)
        if fine > 0:
            ratios.append(finest_noise(halved(image)) / fine)
    correlations = [np.correlate(grain_kernel(width), grain_kernel(width), "full") for width in WIDTHS]
    one, two, three = (np.array([c[2 * GRAIN_REACH + lag] for c in correlations]) for lag in (1, 2, 3))
    finest = 1 - one  # deviation of the diagonal difference: of one axis the variance, and there are two axes
    at_half = (1 + one) / 2 - (one + 2 * two + three) / 4
    width = float(np.interp(np.median(ratios), at_half / finest, WIDTHS)) if ratios else 0.0
    width = width if width >= LEAST_WIDTH else 0.0
    return width, float(1 / np.interp(width, WIDTHS, finest))


def _quiet_deviation(differences: Sequence[Floats], share: float) -> float:
    """The deviation of the quieter blocks, mean over kinds of differences, from median absolute deviations."""
    height, width = differences[0].shape
    side = 32 if min(height, width) >= 128 else 16 if min(height, width) >= 32 else 8
    rows, columns = height // side, width // side
    if not rows * columns:
        return 0.0
    blocks = (each[: rows * side, : columns * side].reshape(rows, side, columns, side) for each in differences)
    deviations = [np.median(np.abs(each), axis=(1, 3)) / MAD_OF_GAUSSIAN for each in blocks]
    return float(np.quantile(np.mean(deviations, axis=0), share))


def _diagonal(image: Floats) -> Floats:
    """Diagonal Haar differences: of white noise they have its deviation."""
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    return (upper_left - upper_right - lower_left + lower_right) / np.float32(2)


def halved(image: Floats) -> Floats:
    """The means of four pixels each; of odd sides the last pixels are left out."""
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    return (upper_left + upper_right + lower_left + lower_right) / np.float32(4)


def _quarters(image: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The pixels at even and odd rows and columns, in arrays of one shape."""
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return even[0::2, 0::2], even[0::2, 1::2], even[1::2, 0::2], even[1::2, 1::2]

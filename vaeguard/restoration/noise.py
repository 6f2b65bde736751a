"""Estimate the noise of an image from the image alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

OPPONENT = np.array(
    [[3**-0.5, 3**-0.5, 3**-0.5], [2**-0.5, 0, -(2**-0.5)], [6**-0.5, -2 * 6**-0.5, 6**-0.5]], np.float32
)
"""Brightness and two differences of colours; since they are orthonormal, white noise is equally strong in all three."""
DIFFERENCES = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0, -1 / 2], [1 / 4, -1 / 2, 1 / 4]], np.float32)
"""The planes of a colour image for a grey denoiser: the mean (0 to 1), red minus blue, and green against both (-0.5 to
0.5)."""
INVERSE_DIFFERENCES = np.linalg.inv(DIFFERENCES.astype(np.float64)).astype(np.float32)
CELL = 8
"""Side in pixels of the cells for which an estimator estimates the noise."""
FLOOR = 0.5
"""Levels of 0 to 255 that are added to a deviation before its logarithm; weaker noise counts as none."""
KNOTS = 8
"""The number of brightnesses at which a noise curve has a value; between them, the curve is linear."""
COMMON = 0.1
"""The share of all evidence that is added at each knot, so that a few cells cannot bend the curve."""
LOWEST = 0.1
"""The share of cells, by weight, that counts as the quietest."""
DOUBT = 2.5
"""The noise that is certain lies below the curve by this many times the gap, in logarithms, between the curve and the
quietest cells."""
TEXTURE = 1.36
"""The curve of a grey picture is lowered by this many times the excess of that gap over the usual gap, since a grey
picture's texture is partly taken for noise."""
USUAL = 0.127
"""The usual gap."""
MOST = 0.15
"""The largest excess that counts."""
EVEN = 1.03
"""A curve whose largest value exceeds the smallest by no more than this factor is a constant."""
MAD_OF_GAUSSIAN = 0.6745
"""Median absolute deviation of a Gaussian with standard deviation 1."""
QUIET_SHARE = 0.1
"""The share of a photograph's blocks that show its noise alone; the other blocks show detail as well."""
QUIET_SHARE_OF_PRINT = 0.25
"""The same share of a page of print, most of which is paper."""
WIDE_SHARE = 0.9
"""The share of the coarser differences that counts as noise, since detail weighs more in them."""
FEWEST_WIDE_PIXELS = 400_000
"""Coarser differences do not count in smaller images."""
FEWEST_SIDE = 16
"""The noise of an image with a shorter side, in pixels, is not estimated."""
FEWEST_JPEG_PIXELS = 50_000
"""Smaller images have too few blocks at a quarter of the resolution."""
JPEG_BLOCK = 8
"""Side in pixels of the blocks of a JPEG."""
PLAIN_GRID = 2.5
"""Images with a smaller `jpeg_grid` show no grid."""
EDGE_STEP = 3
"""Steps between pixels are capped at this many times their median."""
GRAIN_REACH = 3
"""The reach in pixels of the kernel of grain."""
WIDTHS = np.linspace(0, 1.2, 61)
"""The widths of grain in pixels for which deviations are tabulated."""
LEAST_WIDTH = 0.46
"""Narrower grain counts as white noise: with detail, white noise seems to be up to this wide (0.36 to 0.45 pixels on
BSD400, at 25 to 8 of 255 levels), while detail never makes grain seem narrower."""


def photo_noise(image: Floats) -> float:
    """Estimate the standard deviation of the noise of a photograph.

    The estimate is the median absolute deviation of diagonal Haar differences (Donoho, 1995) in the quieter blocks, at
    full and half resolution. In a small image, every block may contain texture. Texture is equally strong at half the
    resolution, since scenes look alike at all scales (Ruderman and Bialek, 1994), while white noise halves: the
    difference tells the two apart. In a large image, some blocks are quiet, but grain wider than a pixel hardly shows
    in the finest differences. The noise of a former JPEG of medium quality hardly shows there either, so the noise is
    also measured at a half and a quarter of the resolution.

    Parameters
    ----------
    image : ndarray
        Shape (H, W), in any unit.

    Returns
    -------
    float
        In the unit of the image; 0 if a side is shorter than 16 pixels.
    """
    if min(image.shape) < FEWEST_SIDE:
        return 0.0
    fine, half = (_quiet_deviation(_diagonal(picture), QUIET_SHARE) for picture in (image, halved(image)))
    # White noise halves in the mean of four pixels.
    if image.size >= FEWEST_WIDE_PIXELS:
        return max(fine, WIDE_SHARE * 2 * half)
    white = _beyond_texture(fine, half)
    if image.size < FEWEST_JPEG_PIXELS or jpeg_grid(image) < PLAIN_GRID:
        return white
    quarter = _quiet_deviation(_diagonal(halved(halved(image))), QUIET_SHARE)
    return max(white, 2 * _beyond_texture(half, quarter))


def _beyond_texture(fine: float, half: float) -> float:
    """The deviation of white noise, from deviations at a resolution and half of it, if texture is equal in both."""
    return float(np.sqrt(max(0.0, (fine**2 - half**2) / (1 - 1 / 4))))


def jpeg_grid(image: Floats) -> float:
    """Measure how far the steps across the grid of JPEG blocks exceed other steps, in deviations of the other steps.

    The result lies within 2.5 of 0 without a grid, and above 2.5 after a JPEG of quality 75 or less, even with noise of
    10 levels: both hold for nine in ten images of BSD400. Steps are capped at a few times their median; where the
    median is 0, the image has no noise, and the result is 0.

    Parameters
    ----------
    image : ndarray
        Shape (H, W), both at least 16, starting at a corner of a JPEG block.
    """
    excesses = []
    for steps in (np.abs(np.diff(image, axis=0)), np.abs(np.diff(image, axis=1)).T):
        capped = np.minimum(steps, EDGE_STEP * np.median(steps))
        means = np.array([capped[phase::JPEG_BLOCK].mean() for phase in range(JPEG_BLOCK)], np.float64)
        inside, across = means[:-1], means[-1]
        excesses.append((across - inside.mean()) / max(inside.std(), np.finfo(np.float32).tiny))
    return float(np.mean(excesses))


def print_noise(page: Floats) -> float:
    """Estimate the standard deviation of the noise of a page of print.

    Unlike `photo_noise`, this uses the finest scale alone: at half the resolution, strokes are everywhere.
    """
    return _quiet_deviation(_diagonal(page), QUIET_SHARE_OF_PRINT)


def finest_noise(image: Floats) -> float:
    """Estimate the standard deviation of the finest differences of the noise without selection bias.

    The quieter blocks are selected at half the resolution. White noise is independent at the two resolutions, so the
    finest differences in these blocks are neither smaller nor larger than elsewhere.
    """
    fine, coarse = _diagonal(image), _diagonal(halved(image))
    side = 16 if min(coarse.shape) >= 64 else 8
    rows, columns = (length // side for length in coarse.shape)
    if not rows * columns:
        return _quiet_deviation(fine, QUIET_SHARE)
    coarse_blocks, fine_blocks = (
        _blocks(differences, size, rows, columns).swapaxes(1, 2).reshape(-1, size * size)
        for differences, size in ((coarse, side), (fine, 2 * side))
    )
    order = np.argsort(np.median(np.abs(coarse_blocks), axis=1))
    quiet = fine_blocks[order[: max(1, round(QUIET_SHARE * len(order)))]]
    return float(np.median(np.abs(quiet)) / MAD_OF_GAUSSIAN)


def opponent_deviations(residual: Floats) -> Floats:
    """The deviation of noise of shape (N, C) in brightness and, for C of 3, in colour: shape (1,) or (2,)."""
    planes = residual if residual.shape[1] == 1 else residual @ OPPONENT.T
    variances = np.square(planes).sum(0) / np.float32(max(1, len(planes)))
    deviations: Floats = np.sqrt(np.array([variances[0], *([variances[1:].mean()] if len(variances) > 1 else [])]))
    return deviations


@dataclass(frozen=True)
class NoiseCurve:
    """The deviation of noise, from 0 to 1, as a curve over brightness.

    Attributes
    ----------
    deviations : ndarray
        Shape (levels, KNOTS): one level for a grey image, two (brightness and differences of colours) for a colour one.
    overall : tuple of float
        The root mean square of each level over the pixels of the image.
    certain : tuple of float
        The deviation that is certainly noise. It is smaller if the cells of the image differ more, since noise is
        everywhere, and texture only in places.
    """

    deviations: Floats
    overall: tuple[float, ...]
    certain: tuple[float, ...]

    @classmethod
    def constant(cls, deviation: float, levels: int) -> NoiseCurve:
        """A constant curve, equal for brightness and colours."""
        values = (deviation,) * levels
        return cls(np.full((levels, KNOTS), deviation, np.float32), values, values)

    def at(self, brightness: Floats) -> Floats:
        """The deviation at each brightness: shape (levels, H, W), or (levels, 1, 1) for a constant."""
        if self.deviations.max() <= EVEN * self.deviations.min():
            return np.array(self.overall, np.float32)[:, None, None]
        place = np.clip(brightness * KNOTS - np.float32(0.5), 0, KNOTS - 1)
        before = np.minimum(place.astype(np.int32), KNOTS - 2)
        share = place - before
        return np.stack([values[before] + share * np.diff(values)[before] for values in self.deviations])

    def of_each_colour(self, levels: Floats | None = None) -> Floats:
        """The deviation of each colour at `levels`, by default the overall levels."""
        if levels is None:
            levels = np.array(self.overall, np.float32)
        shares = np.array([1.0] if len(levels) == 1 else [1 / 3, 2 / 3], np.float32)
        return cast("Floats", np.sqrt(np.tensordot(shares, np.square(levels), 1)))


def fitted_curve(estimates: Sequence[tuple[Floats, Floats]], brightness: Sequence[Floats]) -> NoiseCurve:
    """Fit a curve over brightness to the estimates of an image's cells, or of the cells of parts of it.

    Parameters
    ----------
    estimates : sequence of (log_deviation, log_precision)
        The results of `Denoiser.estimate`, of shape (levels, H, W).
    brightness : sequence of ndarray
        The brightness of the same cells, 0 to 1, shape (H, W).
    """
    means = np.concatenate([part.ravel() for part in brightness])
    log_deviations, precision = (
        np.concatenate([pair[part].reshape(len(pair[part]), -1) for pair in estimates], axis=1) for part in (0, 1)
    )
    weights = np.exp(precision)
    place = np.clip(means * KNOTS - 0.5, 0, KNOTS - 1)
    near = np.clip(1 - np.abs(place - np.arange(KNOTS)[:, None]), 0, None)
    evidence, votes = weights @ near.T, (weights * log_deviations) @ near.T
    common = votes.sum(1, keepdims=True) / evidence.sum(1, keepdims=True)
    prior = COMMON * evidence.sum(1, keepdims=True)
    logs = (votes + prior * common) / (evidence + prior)
    rows = zip(log_deviations, logs, weights, strict=True)
    gaps = np.array([_lowest(row - curve @ near, weight) for row, curve, weight in rows])
    shares = near.mean(1)
    certain = np.exp(logs @ shares + DOUBT * gaps)
    if len(logs) == 1:
        logs = logs - TEXTURE * np.clip(-gaps - USUAL, 0, MOST)
    deviations, certain = (np.maximum(values - FLOOR, 0) / 255 for values in (np.exp(logs), certain))
    overall = np.sqrt(np.square(deviations) @ shares)
    return NoiseCurve(deviations.astype(np.float32), tuple(map(float, overall)), tuple(map(float, certain)))


def _lowest(values: Floats, weights: Floats) -> float:
    """The value below which a tenth of the weight lies."""
    order = np.argsort(values)
    summed = np.cumsum(weights[order], dtype=np.float64)
    return float(values[order][np.searchsorted(summed, LOWEST * summed[-1])])


def grain_kernel(width: float) -> Floats:
    """The kernel for rows and columns, shape (7,), that makes grain of `width` pixels from white noise.

    The squares of the kernel sum to 1, which keeps the deviation; a width of 0 leaves white noise as it is.
    """
    offsets = np.arange(-GRAIN_REACH, GRAIN_REACH + 1)
    kernel = np.exp(-np.square(offsets) / (2 * max(width, 0.05) ** 2))
    normed: Floats = (kernel / np.linalg.norm(kernel)).astype(np.float32)
    return normed


def grain_of(images: Iterable[Floats]) -> tuple[float, float]:
    """Estimate the grain of a collection from the medians over its images.

    Relative to the finest differences, grain wider than a pixel is stronger at half the resolution than white noise.

    Parameters
    ----------
    images : iterable of ndarray
        Images of shape (H, W).

    Returns
    -------
    (float, float)
        The width in pixels, and the deviation divided by that of the finest differences; both are accurate to about
        a tenth.
    """
    ratios = []
    for image in images:
        fine = finest_noise(image)
        if fine > 0:
            ratios.append(finest_noise(halved(image)) / fine)
    correlations = [np.correlate(grain_kernel(width), grain_kernel(width), "full") for width in WIDTHS]
    one, two, three = (np.array([lags[2 * GRAIN_REACH + lag] for lags in correlations]) for lag in (1, 2, 3))
    # The diagonal difference has the product of the deviations along two equal axes: the variance along one axis.
    finest = 1 - one
    at_half = (1 + one) / 2 - (one + 2 * two + three) / 4
    width = float(np.interp(np.median(ratios), at_half / finest, WIDTHS)) if ratios else 0.0
    width = width if width >= LEAST_WIDTH else 0.0
    return width, float(1 / np.interp(width, WIDTHS, finest))


def _quiet_deviation(differences: Floats, share: float) -> float:
    """The quantile `share` of the deviations of blocks, measured as median absolute deviations."""
    height, width = differences.shape
    side = 32 if min(height, width) >= 128 else 16 if min(height, width) >= 32 else 8
    rows, columns = height // side, width // side
    if not rows * columns:
        return 0.0
    deviations = np.median(np.abs(_blocks(differences, side, rows, columns)), axis=(1, 3)) / MAD_OF_GAUSSIAN
    return float(np.quantile(deviations, share))


def _blocks(values: Floats, side: int, rows: int, columns: int) -> Floats:
    """The blocks of `side` x `side` pixels, shape (rows, side, columns, side), without incomplete ones at the ends."""
    return values[: rows * side, : columns * side].reshape(rows, side, columns, side)


def _diagonal(image: Floats) -> Floats:
    """Diagonal Haar differences, scaled to keep the deviation of white noise."""
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    return (upper_left - upper_right - lower_left + lower_right) / np.float32(2)


def halved(image: Floats) -> Floats:
    """An image at half the resolution, in means of four pixels, without the last pixels of odd sides."""
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    return (upper_left + upper_right + lower_left + lower_right) / np.float32(4)


def _quarters(image: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The pixels at even and odd rows and columns, in four arrays of equal shape."""
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return even[0::2, 0::2], even[0::2, 1::2], even[1::2, 0::2], even[1::2, 1::2]

"""How strong the noise of an image is, told from the image alone."""

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
"""Brightness and two differences of colours; orthonormal, so that independent noise is as strong in each."""
DIFFERENCES = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0, -1 / 2], [1 / 4, -1 / 2, 1 / 4]], np.float32)
"""What a grey denoiser takes of colours: their mean (0 to 1), red against blue, green against both (-0.5 to 0.5)."""
INVERSE_DIFFERENCES = np.linalg.inv(DIFFERENCES.astype(np.float64)).astype(np.float32)
CELL = 8
"""Side of the cells for which an estimator tells the noise, in pixels."""
FLOOR = 0.5
"""Levels of 0 to 255 that are added to a deviation before its logarithm; weaker noise is none."""
KNOTS = 8
"""Brightnesses at which a curve of noise has its own values, with straight lines between."""
COMMON = 0.1
"""Share of all evidence that counts at each knot besides the knot's own, so that few cells bend no curve."""
LOWEST, DOUBT = 0.1, 2.5
"""The logarithm of the noise is doubted by so many times the gap between the curve and the lowest tenth of cells."""
TEXTURE, USUAL, MOST = 1.36, 0.127, 0.15
"""The curve of a grey picture is lowered, since texture passes for noise there: by so many times the excess of the gap
to the lowest tenth over the usual gap; the excess counts up to the most."""
EVEN = 1.03
"""A curve whose values differ by less is a constant."""
MAD_OF_GAUSSIAN = 0.6745
"""Median absolute deviation of a Gaussian with standard deviation 1."""
QUIET_SHARE, QUIET_SHARE_OF_PRINT = 0.1, 0.25
"""The quietest part of an image shows its noise, the rest also its detail; most of a page of print is paper."""
WIDE_SHARE, FEWEST_WIDE_PIXELS = 0.9, 400_000
"""Detail weighs more in coarser differences: this share of them counts, and only in images of so many pixels."""
FEWEST_SIDE = 16
FEWEST_JPEG_PIXELS = 50_000
"""Smaller images leave too few blocks at a quarter of the resolution."""
JPEG_BLOCK, PLAIN_GRID, EDGE_STEP = 8, 2.5, 3
GRAIN_REACH = 3
WIDTHS = np.linspace(0, 1.2, 61)
"""Of grain, in pixels."""
LEAST_WIDTH = 0.46
"""Narrower grain counts as white: detail makes white noise look up to so wide (0.36 to 0.45 on BSD400, at 25 to 8 of
255 levels), and detail never makes grain look narrower."""


def photo_noise(image: Floats) -> float:
    """Estimate the standard deviation of the noise of a photograph.

    The median absolute deviation of diagonal Haar differences (Donoho, 1995) in the quieter blocks, at full and at half
    the resolution. In small images all blocks may hold texture, which is as strong at half the resolution, since scenes
    look alike at all scales (Ruderman and Bialek, 1994), while white noise halves, so that the two can be told apart.
    In a large image some block is quiet, and grain that is wider than a pixel hardly shows in the finest differences.
    Noise in a former JPEG of middling quality hardly shows there either, and is also measured at a half and a quarter.

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

    The result is within 2.5 of 0 without a grid, and beyond after JPEG of quality 75 or less, also with noise of 10
    levels: both hold for nine in ten of BSD400. Steps are capped at a few times their median; where the median is 0,
    there is no noise to look for, and the result is 0.

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


def finest_noise(image: Floats) -> float:
    """Estimate the standard deviation of the finest differences of the noise, without the bias of choosing by them.

    The quieter blocks are those that are quiet at half the resolution. White noise at the two resolutions is
    independent, so that the finest differences in these blocks are neither smaller nor larger than elsewhere.
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


def opponent_deviations(residual: Floats) -> Floats:
    """The deviation of the noise of pixels in brightness and in colour: shape (2,) for (N, 3), (1,) for (N, 1)."""
    planes = residual if residual.shape[1] == 1 else residual @ OPPONENT.T
    variances = np.square(planes).sum(0) / np.float32(max(1, len(planes)))
    deviations: Floats = np.sqrt(np.array([variances[0], *([variances[1:].mean()] if len(variances) > 1 else [])]))
    return deviations


@dataclass(frozen=True)
class NoiseCurve:
    """The deviation of noise as a curve over brightness.

    Attributes
    ----------
    deviations : ndarray
        In units of 0 to 1, shape (levels, KNOTS), in colour for brightness and for differences of colours.
    overall : tuple of float
        The root mean square of each level over the pixels of the image.
    certain : tuple of float
        How strong the noise is without doubt: the less, the more the cells of the image differ, since noise is
        everywhere and texture only in places.
    """

    deviations: Floats
    overall: tuple[float, ...]
    certain: tuple[float, ...]

    @classmethod
    def constant(cls, deviation: float, levels: int) -> NoiseCurve:
        """Noise that is equally strong everywhere, for brightness and colours alike."""
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
        """The deviation of each colour if its noise is `levels`, or overall."""
        if levels is None:
            levels = np.array(self.overall, np.float32)
        shares = np.array([1.0] if len(levels) == 1 else [1 / 3, 2 / 3], np.float32)
        return cast("Floats", np.sqrt(np.tensordot(shares, np.square(levels), 1)))


def fitted_curve(estimates: Sequence[tuple[Floats, Floats]], brightness: Sequence[Floats]) -> NoiseCurve:
    """Join what an estimator tells of the cells of an image, or of parts of it, to a curve over brightness.

    Parameters
    ----------
    estimates : sequence of (log_deviation, log_precision)
        As `Denoiser.estimate` gives them, each of shape (levels, H, W).
    brightness : sequence of ndarray
        Of the same cells, 0 to 1, shape (H, W).
    """
    means = np.concatenate([each.ravel() for each in brightness])
    said, precision = (
        np.concatenate([pair[part].reshape(len(pair[part]), -1) for pair in estimates], axis=1) for part in (0, 1)
    )
    weights = np.exp(precision)
    place = np.clip(means * KNOTS - 0.5, 0, KNOTS - 1)
    near = np.clip(1 - np.abs(place - np.arange(KNOTS)[:, None]), 0, None)
    evidence, votes = weights @ near.T, (weights * said) @ near.T
    common = votes.sum(1, keepdims=True) / evidence.sum(1, keepdims=True)
    prior = COMMON * evidence.sum(1, keepdims=True)
    logs = (votes + prior * common) / (evidence + prior)
    differing = [_lowest(row - curve @ near, weight) for row, curve, weight in zip(said, logs, weights, strict=True)]
    shares = near.mean(1)
    certain = np.exp(logs @ shares + DOUBT * np.array(differing))
    if len(logs) == 1:
        logs = logs - TEXTURE * np.clip(-np.array(differing) - USUAL, 0, MOST)
    deviations, certain = (np.maximum(each - FLOOR, 0) / 255 for each in (np.exp(logs), certain))
    overall = np.sqrt(np.square(deviations) @ shares)
    return NoiseCurve(deviations.astype(np.float32), tuple(map(float, overall)), tuple(map(float, certain)))


def _lowest(values: Floats, weights: Floats) -> float:
    """The value below which a tenth of the weight lies."""
    order = np.argsort(values)
    summed = np.cumsum(weights[order], dtype=np.float64)
    return float(values[order][np.searchsorted(summed, LOWEST * summed[-1])])


def grain_kernel(width: float) -> Floats:
    """The kernel that makes grain of `width` pixels from white noise: shape (7,), for rows and columns alike.

    The sum of its squares is 1, so that the deviation stays; 0 leaves white noise as it is.
    """
    offsets = np.arange(-GRAIN_REACH, GRAIN_REACH + 1)
    kernel = np.exp(-np.square(offsets) / (2 * max(width, 0.05) ** 2))
    normed: Floats = (kernel / np.linalg.norm(kernel)).astype(np.float32)
    return normed


def grain_of(images: Iterable[Floats]) -> tuple[float, float]:
    """Tell the grain of a collection: its width in pixels, and its deviation divided by that of the finest differences.

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
    """Diagonal Haar differences; those of white noise have the noise's own deviation."""
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    return (upper_left - upper_right - lower_left + lower_right) / np.float32(2)


def halved(image: Floats) -> Floats:
    """The means of four pixels each; the last pixels of odd sides are left out."""
    upper_left, upper_right, lower_left, lower_right = _quarters(image)
    return (upper_left + upper_right + lower_left + lower_right) / np.float32(4)


def _quarters(image: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The pixels at even and odd rows and columns, in arrays of one shape."""
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return even[0::2, 0::2], even[0::2, 1::2], even[1::2, 0::2], even[1::2, 1::2]

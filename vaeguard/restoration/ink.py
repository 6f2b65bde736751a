"""The ink of a page, found on the page as it came in: what cleaning may not take away.

This model of strokes knows nothing of what a denoiser makes of the page, nor of the paper that the page is divided by.
A stroke is a ridge: darker, in some colour, than what is on both of its sides. Strokes are sharp, about as sharp as the
others of their page; folds, edges of stains and what shines through from the back are softer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.restoration.paper import DARKEST_PAPER, interpolated_colours, unlike_brown

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from vaeguard.restoration.paper import Paper

    Floats = npt.NDArray[np.float32]

WIDEST = 4
"""Ridges are at most so many blocks wide; wider ink is looked for in the blocks themselves."""
LEAST_RIDGE = 0.1
"""Shallower ridges, as a share of the paper, do not count when the usual depth is measured."""
NOISY, BRIGHTEST_NOISE = 0.01, 3.0
"""Above this noise pixels are averaged; the brightest pixels around lie so many deviations above the paper."""
USUAL, STRONG, FEWEST_STROKES = 0.8, 0.8, 100
"""The quantile of depths that is usual, the share of the usual from which sharpness counts, and the fewest pixels."""
UNKNOWN_DEPTH = 0.6
"""The usual depth where a page has hardly any strokes."""
FAINT, CERTAIN = 0.22, 0.37
"""Shares of the usual depth: a ridge below the first may be dirt, a ridge above the second is ink."""
SOFT, DEEP = 0.85, (0.5, 0.7)
"""Ridges less sharp than this share of the usual count as fainter, the less the deeper they are between these two."""

STEEP, MOST_STEEP = 2.0, 0.45
"""A ridge counts as fainter by this times the change of the paper, but by no more than the second."""
TINGED, COLOURED = 0.02, 0.04
"""Differences in hue: none below the first; above the second, ink of its own colour, however faint."""


@dataclass(frozen=True)
class Ridges:
    """What `ridges` finds at each pixel, all of shape (H, W).

    Attributes
    ----------
    depth : ndarray
        From 0 for paper to 1 for black, in the colour in which the pixel is darkest.
    sharpness : ndarray
        The steepest step from pixel to pixel nearby, as a share of the greatest depth nearby.
    hue : ndarray or None
        How much further from brown the hue of the pixel is than that of its sides; None without colours.
    """

    depth: Floats
    sharpness: Floats
    hue: Floats | None = None


@dataclass(frozen=True)
class InkModel:
    """What the strokes of a page are like.

    Attributes
    ----------
    depth : float
        Of the usual stroke, as a share of the paper beside it.
    sharpness : float
        Of the usual stroke: its steepest step from pixel to pixel as a share of its depth.
    """

    depth: float
    sharpness: float


def ink_model(parts: Iterable[Ridges]) -> InkModel:
    """Measure the usual stroke on parts of a page."""
    depths, sharps = [], []
    for part in parts:
        some = part.depth[::2, ::2], part.sharpness[::2, ::2]
        strokes = some[0] > LEAST_RIDGE
        depths.append(some[0][strokes])
        sharps.append(some[1][strokes])
    depth, sharp = np.concatenate(depths), np.concatenate(sharps)
    if depth.size < FEWEST_STROKES:
        return InkModel(UNKNOWN_DEPTH, 0.0)
    usual = float(np.quantile(depth, USUAL))
    return InkModel(usual, float(np.median(sharp[depth > STRONG * usual])))


def reach(block: int) -> int:
    """How many rows away a pixel may still matter to `ridges`."""
    return 2 * WIDEST * block + block + 4


def ridges(rows: Floats, paper: Paper, start: int, noise: float) -> Ridges:
    """How much darker than both of its sides each pixel is, how sharp that is, and how much it differs in hue.

    Parameters
    ----------
    rows : ndarray
        Of the page as it came in, shape (H, W, C), from row `start`; the first and last `reach` rows lack neighbours.
    paper : Paper
        Of the page: for the size of its blocks and for the brightest paper around them.
    start : int
        The row of the page where `rows` begin.
    noise : float
        Standard deviation of the noise of the page divided by its paper. On noisy pages, strokes are looked for in
        means of nine pixels, and the depth that noise alone would give is subtracted.

    """
    from scipy import ndimage

    stop = start + len(rows)
    bright = interpolated_colours(paper.around, paper.block, start, stop, rows.shape[1])
    ratios = rows / bright
    level = ratios.min(axis=2)
    if noise > NOISY:
        level, noise = ndimage.uniform_filter(level, 3, mode="nearest"), noise / 3
    width = 2 * (WIDEST * paper.block // 2) + 1
    closed = ndimage.grey_closing(level, width, mode="nearest")
    ridge = (closed - level) / np.maximum(closed, np.float32(DARKEST_PAPER))
    depth = np.maximum(ridge - np.float32(BRIGHTEST_NOISE * noise), 0)
    steps = np.hypot(*(ndimage.correlate1d(level, [-0.5, 0, 0.5], axis, mode="nearest") for axis in (0, 1)))
    times = max(1, round(paper.block / 2))
    steepest, deepest = (_with_neighbours(each, times) for each in (steps, depth))
    hue = None
    if rows.shape[2] == 3:
        plain = 1 - ndimage.uniform_filter(unlike_brown(ratios), 3, mode="nearest")
        hue = ndimage.grey_closing(plain, width, mode="nearest") - plain
    sharpness = (steepest / np.maximum(deepest, np.float32(DARKEST_PAPER))).astype(np.float32)
    return Ridges(depth, sharpness, hue)


def certainty(found: Ridges, model: InkModel, steep: Floats) -> Floats:
    """How certain it is that each pixel is ink, 0 to 1, shape (H, W); the pixels beside a stroke count with it.

    `steep` says how much the paper changes around each pixel, in the same shape: a faint ridge
    where the paper changes much is more likely to be the edge of a stain or a fold.
    """
    share = found.depth / np.float32(model.depth)
    if model.sharpness:
        soft = np.minimum(1, found.sharpness / np.float32(SOFT * model.sharpness))
        deep = np.clip((share - DEEP[0]) / (DEEP[1] - DEEP[0]), 0, 1)
        share = share * (soft + (1 - soft) * deep)
    share = share - np.clip(STEEP * steep, 0, MOST_STEEP)
    certain = np.clip((share - FAINT) / (CERTAIN - FAINT), 0, 1)
    if found.hue is not None:
        certain = np.maximum(certain, np.clip((found.hue - TINGED) / (COLOURED - TINGED), 0, 1))
    return _with_neighbours(certain.astype(np.float32))


def _with_neighbours(values: Floats, times: int = 1) -> Floats:
    """The largest of each pixel and those up to `times` pixels away; several times as fast as the filter of SciPy."""
    for axis in (0, 1) * times:
        wide = values.copy()
        before, after = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        np.maximum(wide[before], values[after], out=wide[before])
        np.maximum(wide[after], values[before], out=wide[after])
        values = wide
    return values

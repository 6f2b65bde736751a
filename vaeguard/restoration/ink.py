"""Find the ink of the original page, which cleaning must not remove.

The search depends neither on the denoiser nor on the paper by which the page is divided. A stroke is a ridge: in some
colour, it is darker than both of its sides. All strokes of a page are about equally sharp; folds, the edges of stains
and bleed-through are softer.
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
"""The largest width of a ridge, in blocks; `paper` finds wider ink in the blocks themselves."""
LEAST_RIDGE = 0.1
"""The least depth, as a share of the paper, of the ridges on which the usual depth is measured."""
NOISY = 0.01
"""The noise, as a share of the paper, above which pixels are averaged."""
BRIGHTEST_NOISE = 3.0
"""Deviations of the noise by which the brightest pixels in a neighbourhood exceed the paper."""
USUAL = 0.8
"""The quantile of all depths that counts as the usual depth."""
STRONG = 0.8
"""The least share of the usual depth at which sharpness is measured."""
FEWEST_STROKES = 100
"""The fewest pixels of strokes from which a page's ink is measured."""
UNKNOWN_DEPTH = 0.6
"""The usual depth of a page with hardly any strokes."""
FAINT = 0.22
"""A ridge below this share of the usual depth may be dirt."""
CERTAIN = 0.37
"""A ridge above this share of the usual depth is ink."""
SOFT = 0.85
"""A ridge counts as fainter if its sharpness is below this share of the usual sharpness."""
DEEP = (0.5, 0.7)
"""Shares of the usual depth between which softness counts less and less."""
STEEP = 2.0
"""A ridge counts as fainter by this many times the change of the paper around it."""
MOST_STEEP = 0.45
"""The largest share of the usual depth by which a ridge counts as fainter for the change of the paper."""
TINGED = 0.02
"""Smaller differences in hue do not count."""
COLOURED = 0.04
"""A larger difference in hue is coloured ink, however faint."""


@dataclass(frozen=True)
class Ridges:
    """The ridges at each pixel, in arrays of shape (H, W).

    Attributes
    ----------
    depth : ndarray
        0 for paper to 1 for black, in the colour in which the pixel is darkest.
    sharpness : ndarray
        The steepest step between neighbouring pixels nearby, as a share of the greatest depth nearby.
    hue : ndarray or None
        How much further the pixel's hue is from brown than the hue of its sides; None for grey pages.
    """

    depth: Floats
    sharpness: Floats
    hue: Floats | None = None


@dataclass(frozen=True)
class InkModel:
    """The usual stroke of a page.

    Attributes
    ----------
    depth : float
        Its depth, as a share of the paper beside it.
    sharpness : float
        Its steepest step between neighbouring pixels, as a share of its depth; 0 if the page has too few strokes.
    """

    depth: float
    sharpness: float


def ink_model(parts: Iterable[Ridges]) -> InkModel:
    """Measure the usual stroke on parts of a page."""
    depths, sharpnesses = [], []
    for part in parts:
        depth, sharpness = part.depth[::2, ::2], part.sharpness[::2, ::2]
        strokes = depth > LEAST_RIDGE
        depths.append(depth[strokes])
        sharpnesses.append(sharpness[strokes])
    depth, sharpness = np.concatenate(depths), np.concatenate(sharpnesses)
    if depth.size < FEWEST_STROKES:
        return InkModel(UNKNOWN_DEPTH, 0.0)
    usual = float(np.quantile(depth, USUAL))
    return InkModel(usual, float(np.median(sharpness[depth > STRONG * usual])))


def reach(block: int) -> int:
    """The largest distance in rows at which a pixel affects `ridges`."""
    return 2 * WIDEST * block + block + 4


def ridges(rows: Floats, paper: Paper, start: int, noise: float) -> Ridges:
    """Measure how much darker each pixel is than both of its sides, how sharp it is, and how it differs in hue.

    Parameters
    ----------
    rows : ndarray
        Rows of the original page, shape (H, W, C); the first and last `reach` rows lack neighbours.
    paper : Paper
        The paper of the page; its block size and the brightest paper around are used.
    start : int
        The number of the first row on the page.
    noise : float
        Standard deviation of the noise of the page divided by its paper. On noisy pages, ridges are measured on means
        of nine pixels; the depth of noise alone is subtracted.
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
    steepest, deepest = (_dilated(values, times) for values in (steps, depth))
    hue = None
    if rows.shape[2] == 3:
        plain = 1 - ndimage.uniform_filter(unlike_brown(ratios), 3, mode="nearest")
        hue = ndimage.grey_closing(plain, width, mode="nearest") - plain
    sharpness = (steepest / np.maximum(deepest, np.float32(DARKEST_PAPER))).astype(np.float32)
    return Ridges(depth, sharpness, hue)


def certainty(measured: Ridges, model: InkModel, steep: Floats) -> Floats:
    """The certainty that each pixel, or one beside it, is ink: shape (H, W), 0 to 1.

    `steep`, of the same shape, is the change of the paper around each pixel: where the paper changes much, a faint
    ridge is probably the edge of a stain or a fold.
    """
    share = measured.depth / np.float32(model.depth)
    if model.sharpness:
        soft = np.minimum(1, measured.sharpness / np.float32(SOFT * model.sharpness))
        deep = np.clip((share - DEEP[0]) / (DEEP[1] - DEEP[0]), 0, 1)
        share = share * (soft + (1 - soft) * deep)
    share = share - np.clip(STEEP * steep, 0, MOST_STEEP)
    certain = np.clip((share - FAINT) / (CERTAIN - FAINT), 0, 1)
    if measured.hue is not None:
        certain = np.maximum(certain, np.clip((measured.hue - TINGED) / (COLOURED - TINGED), 0, 1))
    return _dilated(certain.astype(np.float32))


def _dilated(values: Floats, times: int = 1) -> Floats:
    """Dilate by `times` pixels; several times as fast as the maximum filter of SciPy."""
    for axis in (0, 1) * times:
        wide = values.copy()
        before, after = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        np.maximum(wide[before], values[after], out=wide[before])
        np.maximum(wide[after], values[before], out=wide[after])
        values = wide
    return values

"""The skew of a page: the small angle by which its lines of text are not level.

The ink is projected along many angles, and lines are level where neighbouring rows of the projection differ most
(Postl, Detection of linear oblique structures and skew scan in digitized documents, 1986; the squared differences are
those of Bloomberg, Kopec and Dasari, Measuring document image skew and orientation, 1995).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

MOST_ANGLE = 8.0
"""The largest angle in degrees that is looked for."""
LEAST_ANGLE = 0.1
"""Smaller angles, in degrees, cannot be told from none, and such a page is not turned."""
STEPS = (0.2, 0.04, 0.01)
"""Steps in degrees between angles, from coarse to fine."""
SIDE = 1200
"""A page is reduced so that its shorter side has about so many pixels."""
WIDEST = 15
"""The width in pixels of the widest strokes on the reduced page."""
EDGE = 0.03
"""A share of the page at each edge counts for nothing: dark borders there follow the scanner, not the text."""
LEAST_DEPTH = 16
"""Levels by which ink is darker than the paper around it at the least."""
FEWEST = 300
"""The fewest pixels of ink in which lines can be found."""
MOST_POINTS = 200_000
"""Of more pixels of ink, some are taken."""
PROMINENT = 2.5
"""Lines are found if their angle exceeds the median of all angles by this factor."""


def skew_of(grey: npt.NDArray[np.uint8]) -> float | None:
    """The degrees by which an upright page, shape (H, W), must be turned counterclockwise for its lines to be level.

    Lines of text may also run up and down. The result is rounded to hundredths of a degree; None if no lines are found
    within `MOST_ANGLE`.
    """
    y, x = _ink_points(grey)
    if len(y) < FEWEST:
        return None
    for across, down, sign in ((x, y, 1), (y, x, -1)):
        angle = _level_angle(across, down)
        if angle is not None:
            return round(sign * angle, 2)
    return None


def _ink_points(grey: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Rows and columns of pixels of ink on the reduced page, from its centre: narrow marks darker than their paper."""
    from scipy import ndimage

    factor = max(1, min(grey.shape) // SIDE)
    small = _reduced(grey, factor)
    depth = ndimage.grey_closing(small, (WIDEST, WIDEST), mode="nearest").astype(np.int16) - small
    top, left = (int(EDGE * side) for side in depth.shape)
    inner = depth[top : depth.shape[0] - top, left : depth.shape[1] - left]
    deep = inner[inner > LEAST_DEPTH]
    limit = max(LEAST_DEPTH, float(np.quantile(deep, 0.9)) / 2) if deep.size else LEAST_DEPTH
    y, x = np.nonzero(inner > limit)
    every = max(1, len(y) // MOST_POINTS)
    # Spread over their pixels, since points on a grid line up at an angle of 0 whatever the text does.
    spread = np.random.default_rng(0).uniform(-0.5, 0.5, (2, len(y[::every])))
    return y[::every] - inner.shape[0] / 2 + spread[0], x[::every] - inner.shape[1] / 2 + spread[1]


def _reduced(grey: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.uint8]:
    """The means of squares of `factor` pixels a side."""
    if factor == 1:
        return grey
    height, width = (side // factor * factor for side in grey.shape)
    rows = [
        grey[start : start + factor, :width].reshape(factor, -1, factor).mean(axis=(0, 2))
        for start in range(0, height, factor)
    ]
    return np.stack(rows).astype(np.uint8)


def _level_angle(x: Floats, y: Floats) -> float | None:
    """The angle in degrees at which points lie in level lines; None if it is not prominent."""
    coarse = np.arange(-MOST_ANGLE, MOST_ANGLE + STEPS[0] / 2, STEPS[0])
    strengths = np.array([_strength(x, y, angle) for angle in coarse])
    best = int(strengths.argmax())
    if best in (0, len(coarse) - 1) or strengths[best] < PROMINENT * np.median(strengths):
        return None
    angle = float(coarse[best])
    for wide, step in pairwise(STEPS):
        finer = angle + np.arange(-wide, wide + step / 2, step)
        angle = float(finer[np.argmax([_strength(x, y, each) for each in finer])])
    return angle


def _strength(x: Floats, y: Floats, angle: float) -> float:
    """How much neighbouring rows differ in ink when the points are turned counterclockwise by `angle` degrees.

    Each point is shared by the two nearest rows, so that the strength changes smoothly with the angle.
    """
    turn = np.deg2rad(angle)
    # Rows count downwards, so a counterclockwise turn lifts what lies on the right.
    rows = y * np.cos(turn) - x * np.sin(turn)
    rows -= rows.min()
    whole = rows.astype(np.int64)
    share = rows - whole
    counts = np.bincount(whole, 1 - share, whole.max() + 2)
    counts[1:] += np.bincount(whole, share, whole.max() + 1)
    return float((np.diff(counts) ** 2).sum())

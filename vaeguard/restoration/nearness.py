"""Check that a page written with loss stays near the restored page everywhere."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.restoration.cleaned import SQUARE, split_squares
from vaeguard.restoration.paper import STRIP

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.restoration.formats.scan_page import Pixels

LARGEST_DIFFERENCE = 6.0
"""The largest root mean square, in levels, by which a lossy codec may change a picture.

At quality 75, pages of small print change by 3 to 6 levels."""
LARGEST_IN_A_SQUARE = 20.0
"""The largest root mean square, in levels, by which a square may change. At quality 75, small black print changes by up
to 10 levels, and small red print by 20, since most JPEGs store colour at a quarter of the pixels."""


def is_near(restored: Pixels, decoded: Pixels) -> bool:
    """Whether two pictures of 8 bits are nearly equal, as a whole and everywhere."""
    return difference(restored, decoded) <= LARGEST_DIFFERENCE and keeps_squares(restored, decoded)


def difference(one: Pixels, other: Pixels) -> float:
    """The root mean square difference between two pictures of 8 bits, in levels."""
    strips = range(0, len(one), STRIP)  # the differences of a whole page would take eight times its memory
    total = sum(_squares(one[start : start + STRIP], other[start : start + STRIP]) for start in strips)
    return math.sqrt(total / one.size)


def _squares(one: Pixels, other: Pixels) -> int:
    """The sum of the squared differences."""
    return int(np.square(one.astype(np.int32) - other).sum(dtype=np.int64))


def keeps_squares(restored: Pixels, decoded: Pixels) -> bool:
    """Whether every square of 32 pixels a side is nearly equal in two pictures of 8 bits.

    The mean over a whole page would hide a single smeared word.
    """
    return all(
        _largest_difference(restored[start : start + STRIP], decoded[start : start + STRIP]) <= LARGEST_IN_A_SQUARE
        for start in range(0, len(restored), STRIP)
    )


def _largest_difference(one: Pixels, other: Pixels) -> float:
    """The largest root mean square difference of any square."""
    squared: npt.NDArray[np.float32] = (one.astype(np.float32) - other) ** 2
    sums = split_squares(squared.reshape(*squared.shape[:2], -1).mean(axis=2)).sum((1, 3))
    heights, widths = (np.minimum(SQUARE, side - np.arange(0, side, SQUARE)) for side in squared.shape[:2])
    return float(np.sqrt((sums / np.outer(heights, widths)).max()))

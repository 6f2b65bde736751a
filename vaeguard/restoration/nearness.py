"""Whether a page that was written with loss still shows what was to be written, everywhere on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vaeguard.restoration.cleaned import CELL, cells
from vaeguard.restoration.paper import STRIP

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.restoration.formats.scan_page import Pixels

LARGEST_IN_A_SQUARE = 20.0
"""Levels (root of the mean square) by which a square may change. At quality 75, small black print changes by up to 10,
and small red print, of whose colour a JPEG mostly keeps a quarter of the pixels, by 20."""


def keeps_squares(restored: Pixels, decoded: Pixels) -> bool:
    """Whether no square of 32 pixels a side differs much between two pictures of 8 bits.

    In the mean over a whole page, a single smeared word hardly counts.
    """
    return all(
        _largest(restored[start : start + STRIP], decoded[start : start + STRIP]) <= LARGEST_IN_A_SQUARE
        for start in range(0, len(restored), STRIP)
    )


def _largest(one: Pixels, other: Pixels) -> float:
    """The largest root mean square of the differences in any square of some rows."""
    apart: npt.NDArray[np.float32] = (one.astype(np.float32) - other) ** 2
    squares = cells(apart.reshape(*apart.shape[:2], -1).mean(axis=2)).sum((1, 3))
    height, width = (np.minimum(CELL, side - np.arange(0, side, CELL)) for side in apart.shape[:2])
    return float(np.sqrt((squares / np.outer(height, width)).max()))

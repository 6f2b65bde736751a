"""What cleaning a page gives, whichever kind of page it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.restoration.formats.scan_page import Pixels

CELL = 32
"""Side in pixels of the squares that count as put back or not."""


@dataclass(frozen=True)
class Cleaned:
    """A cleaned page and what was done to it.

    Attributes
    ----------
    pixels : ndarray
        Of the shape and type that came in, (H, W, C).
    noise : float
        Standard deviation of the noise of each colour, in levels of 0 to 255.
    put_back : ndarray
        bool, shape (ceil(H / 32), ceil(W / 32)): squares in which the original, or ink, was put back.
    reason : str
        Why the page was left as it is, bit for bit; empty where it was cleaned.
    lightened, removed : float
        As in `PageReport`.
    region : tuple of int or None
        Top, left, bottom and right of the part that was cleaned, in pixels, where it is not the whole.
    uncertainty : ndarray or None
        uint8, shape (H, W): half of the interval that holds the clean value in nine of ten cases, in levels.
    spread : float
        The mean of the uncertainty, in levels.
    """

    pixels: Pixels
    noise: float
    put_back: npt.NDArray[np.bool_]
    reason: str = ""
    lightened: float = 0.0
    removed: float = 0.0
    region: tuple[int, int, int, int] | None = None
    uncertainty: npt.NDArray[np.uint8] | None = None
    spread: float = 0.0


def cells(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The squares of some rows, shape (rows, `CELL`, columns, `CELL`); beyond the ends there is nothing, which is 0."""
    height, width = rows.shape
    padded = np.pad(rows, ((0, -height % CELL), (0, -width % CELL)))
    return padded.reshape(padded.shape[0] // CELL, CELL, -1, CELL)

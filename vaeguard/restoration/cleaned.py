"""The result of cleaning a page of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.restoration.formats.scan_page import Pixels

SQUARE = 32
"""Side in pixels of the squares in which the original, or its ink, is put back or not."""


@dataclass(frozen=True)
class Cleaned:
    """A cleaned page and what was done to it.

    Attributes
    ----------
    pixels : ndarray
        Shape (H, W, C), with the shape and type of the original.
    noise : float
        Standard deviation of the noise of each colour, in levels of 0 to 255.
    put_back : ndarray
        bool, shape (ceil(H / 32), ceil(W / 32)): squares in which the original, or ink, was put back.
    reason : str
        Why the page was left bit for bit as it was; empty if it was cleaned.
    lightened, removed : float
        As in `PageReport`.
    region : tuple of int or None
        Top, left, bottom and right of the cleaned part, in pixels; None for the whole page.
    uncertainty : ndarray or None
        uint8, shape (H, W): half of the interval that contains the clean value in nine of ten cases, in levels.
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


def split_squares(rows: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Split a map of shape (H, W) into squares, shape (rows, `SQUARE`, columns, `SQUARE`), padded with 0."""
    height, width = rows.shape
    padded = np.pad(rows, ((0, -height % SQUARE), (0, -width % SQUARE)))
    return padded.reshape(padded.shape[0] // SQUARE, SQUARE, -1, SQUARE)

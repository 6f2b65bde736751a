"""Brightness and sharpness of images, which change with lamp, exposure, focus and dirt on a lens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Images = npt.NDArray[Any]

MEASURES = ("brightness", "sharpness")
MOST_VALUES = 2**18
"""Of larger images, only some rows and columns are measured."""
DIGITS = 5
"""Significant digits of a measure, so that a stored one equals one that is measured anew."""


def appearance(images: Images) -> dict[str, tuple[float, ...]]:
    """Brightness and sharpness of images uint8 (N, C, H, W), by name, each a value 0 and up for every image.

    Brightness is the mean of the pixels, 0 to 1. Sharpness is the mean difference of neighbouring pixels over the
    standard deviation of all pixels, so it does not change with the light; noise raises it.
    """
    step = math.ceil(math.prod(images.shape[1:]) / MOST_VALUES)
    measured = [_measured(image.astype(np.int16), step) for image in images]
    return {
        name: tuple(float(f"{values[place]:.{DIGITS}g}") for values in measured) for place, name in enumerate(MEASURES)
    }


def _measured(pixels: npt.NDArray[np.int16], step: int) -> tuple[float, float]:
    rows, columns = pixels[:, ::step], pixels[:, :, ::step]
    spread = float(rows.std())
    edges = [np.abs(np.diff(part, axis=axis)) for part, axis in ((rows, 2), (columns, 1))]
    difference = math.fsum(float(edge.mean()) for edge in edges if edge.size)
    return float(rows.mean()) / 255, difference / spread if spread else 0.0

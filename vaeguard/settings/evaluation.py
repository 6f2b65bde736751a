"""Settings for the use of a fitted model: the false-alarm rate, bounds, exports, plots of latents."""

from __future__ import annotations

from numbers import Real
from typing import Any

from vaeguard.errors import UsageError

DEFAULT_FPR = 0.05
"""The share of normal images that may be flagged."""
DRIFT_CHANCE = 0.01
"""The chance that a watch tells of a drift at any time though there is none."""
PIXELS = ("uint8", "float32")
"""Types of the image that an exported model takes."""
IMPORTANCE_SAMPLES = 5000
"""Samples per image of the importance-weighted bound, as in Burda et al. (2016)."""
BOUND_IMAGES = 1000
"""The bounds of so many images of 28x28 pixels take minutes."""
PROJECTIONS = ("pca", "tsne")
"""Projections of latents to a plane."""


def check_fpr(fpr: Any, name: str = "fpr") -> None:
    """Refuse a false-alarm rate, the parameter `name`, outside (0, 1).

    Raises
    ------
    UsageError
        `fpr` is 0, 1, outside, or not a number.
    """
    if not isinstance(fpr, Real) or not 0 < float(fpr) < 1:
        raise UsageError(f"`{name}` is {fpr!r}; it must be above 0 and below 1, such as 0.05")

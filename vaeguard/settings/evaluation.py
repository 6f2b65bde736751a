"""Settings of what uses a fitted model: the false-alarm rate, bounds, exports, pictures of latents."""

from __future__ import annotations

from numbers import Real
from typing import Any

from vaeguard.errors import UsageError

DEFAULT_FPR = 0.05
"""Share of normal images that may be flagged."""
PIXELS = ("uint8", "float32")
"""Types of the image that an exported model takes."""
IMPORTANCE_SAMPLES = 5000
"""Samples per image of the importance-weighted bound, as Burda et al. (2016) took."""
BOUND_IMAGES = 1000
"""Bounds of so many images of 28x28 are a matter of minutes."""
PROJECTIONS = ("pca", "tsne")
"""How latents of many units become points in a plane."""


def check_fpr(fpr: Any) -> None:
    """Refuse a false-alarm rate outside (0, 1).

    Raises
    ------
    UsageError
        `fpr` is 0, 1, outside, or not a number.
    """
    if not isinstance(fpr, Real) or not 0 < float(fpr) < 1:
        raise UsageError(f"`fpr` is {fpr!r}; it must be a share above 0 and below 1, such as 0.05")

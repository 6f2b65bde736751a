"""Standardised vectors: every feature has mean 0 and variance 1 over the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

FURTHEST = 20.0
"""Standardised values are limited to this, far beyond normal values, so that their squares cannot overflow."""


class Standardise(nn.Module):
    """From the units of the features to standardised units and back; part of the inference graph.

    Attributes
    ----------
    offset, scale : float32 (C, H, W)
        Mean and standard deviation of each feature over the training rows; the scale of a constant feature is 1.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    offset: Tensor
    scale: Tensor

    def fit(self, vectors: npt.NDArray[Any]) -> None:
        """Fit mean and deviation to `vectors`, shape (n, C, H, W)."""
        values = vectors.astype(np.float64)
        # Rounding can give equal values a deviation, and a deviation can be too small for float32.
        scale = np.where(np.ptp(values, axis=0) > 0, values.std(0), 1).astype(np.float32)
        self.offset.copy_(torch.from_numpy(values.mean(0)))
        self.scale.copy_(torch.from_numpy(np.where(scale > 0, scale, 1)))

    def forward(self, vector: Tensor) -> Tensor:
        """(N, C, H, W) in the units of the features to standardised values in −20 to 20."""
        return ((vector - self.offset) / self.scale).clamp(-FURTHEST, FURTHEST)

    def restore(self, standardised: Tensor) -> Tensor:
        """(N, C, H, W) standardised values to the units of the features."""
        return standardised * self.scale + self.offset

"""Features of tables and cells, scaled, or whitened: without correlation among normal rows or cells.

Directions in which normal features hardly vary carry the anomalies, and whitening gives them the same weight as all
others. Whitened values stay as near to their features as possible (ZCA; Kessy et al., 2018), so each speaks of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

FURTHEST = 20.0
"""Scaled features are limited to this, far beyond normal values, so that their squares cannot overflow."""
FLOOR = 0.01
"""The least variance of a direction, as a share of the mean variance, so that rounding is not amplified."""
ONE_UNIT = 20.0
"""Features are of one unit if none varies so many times as much as the median one: those of networks and spectra."""


class Whiten(nn.Module):
    """From the units of the features to whitened values and back; part of the inference graph.

    The features of a network have one unit, so they are scaled alike before they are whitened: those that hardly vary
    are mostly noise. The columns of a table may have any units, so each is scaled by its own deviation, unless the
    table is whitened, and none of its columns varies far more than the others.

    Parameters
    ----------
    features : int
        Number of features, F.
    table : bool
        Whether these are the columns of a table, which can be restored, or the features of a network.
    whiten : bool
        False if features are only scaled.

    Attributes
    ----------
    offset, scale : float32 (F,)
        Mean of each feature, and the deviation that it is divided by; 1 for a constant one that is scaled by itself.
    """

    def __init__(self, features: int, *, table: bool = False, whiten: bool = True) -> None:
        super().__init__()
        self.table, self.whiten = table, whiten
        size = features if whiten else 0
        self.register_buffer("offset", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("matrix", torch.eye(size))
        self.register_buffer("inverse", torch.eye(size if table else 0))

    offset: Tensor
    scale: Tensor
    matrix: Tensor
    inverse: Tensor

    def fit(self, features: Tensor) -> None:
        """Fit to the features of normal rows or cells, (n, F)."""
        mean = features.double().mean(0)
        # Rounding of the mean can give equal values a deviation.
        centred = (features.double() - mean).masked_fill_(features.amax(0) == features.amin(0), 0)
        deviations = centred.square().mean(0).sqrt()
        varying = deviations[deviations > 0]
        alike = self.whiten and (not self.table or (bool(len(varying)) and varying.max() < ONE_UNIT * varying.median()))
        self._set_scale(mean, deviations.square().mean().sqrt() if alike else deviations)
        if self.whiten:
            self._whiten(centred.T @ centred / len(features))

    def fit_moments(self, mean: Tensor, covariance: Tensor) -> None:
        """Fit to the mean (F,) and the covariance (F, F) of cells, float64."""
        self._set_scale(mean, covariance.diagonal().mean().sqrt())
        self._whiten(covariance)

    def _set_scale(self, mean: Tensor, deviations: Tensor) -> None:
        """Set offset and scale; `deviations` (F,) or () are float64."""
        # A deviation can be too small for float32.
        scale = deviations.float().expand_as(self.scale)
        self.offset.copy_(mean)
        self.scale.copy_(torch.where(scale > 0, scale, 1))

    def _whiten(self, covariance: Tensor) -> None:
        """Fit the matrix after which scaled features of this covariance (F, F) are white."""
        scale = self.scale.double()
        variances, directions = torch.linalg.eigh(covariance / scale.outer(scale))
        variances = variances.clamp(min=0)
        floor = FLOOR * variances.mean()
        deviations = (variances + torch.where(floor > 0, floor, 1)).sqrt()
        self.matrix.copy_(directions / deviations @ directions.T)
        if len(self.inverse):
            self.inverse.copy_(directions * deviations @ directions.T)

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) in the units of the features to scaled or whitened (..., F)."""
        if not self.table:  # one product, since a graph of cells spends its time here
            shift = (self.offset / self.scale) @ self.matrix
            matrix = self.matrix / self.scale.unsqueeze(1)
            return torch.addmm(-shift, features.flatten(0, -2), matrix).view(features.shape)
        scaled = ((features - self.offset) / self.scale).clamp(-FURTHEST, FURTHEST)
        return scaled @ self.matrix if self.whiten else scaled

    def restore(self, whitened: Tensor) -> Tensor:
        """What `forward` gives, (..., F), to the units of the features."""
        scaled = whitened @ self.inverse if self.whiten else whitened
        return scaled * self.scale + self.offset

"""From terms to one score: tail probabilities of held-out normal images, nothing ever tuned on anomalies.

Each term is turned into its *surprise*, −log10 of the share of normal images with at least that value; surprises of
different terms compare, and their mean is turned into the score by the same step. Past the last normal images an
exponential tail keeps the order of ever stranger ones (no ties at the top).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from vaeguard.errors import VaeguardError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

KNOTS = 64


class Tail(nn.Module):
    """Surprise of K quantities: −log10 of their estimated tail probability among normal images.

    Piecewise linear between quantiles of the normal values, 0 below the smallest, exponential tail past the largest
    5 % (at least 5 images), whose scale is their mean excess.
    """

    def __init__(self, quantities: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.full((quantities, KNOTS), torch.inf))
        self.register_buffer("heights", torch.zeros(quantities, KNOTS))
        self.register_buffer("slopes", torch.zeros(quantities, KNOTS))

    knots: Tensor
    heights: Tensor
    slopes: Tensor

    def fit(self, normal: npt.NDArray[np.float32]) -> None:
        """Fit to the values of normal images, shape (n, K)."""
        for k, column in enumerate(normal.T):
            knots, heights, slopes = _fit_tail(column.astype(np.float64))
            self.knots[k] = torch.inf
            self.knots[k, : len(knots)] = torch.from_numpy(knots)
            self.heights[k, : len(knots)] = torch.from_numpy(heights)
            self.slopes[k, : len(knots)] = torch.from_numpy(slopes)

    def forward(self, values: Tensor) -> Tensor:
        """(N, K) values to (N, K) surprises, 0 and up."""
        above = (values.unsqueeze(2) >= self.knots).sum(2)
        at = (above - 1).clamp(min=0).unsqueeze(2)
        rows = values.shape[0]
        knot, height, slope = (
            table.unsqueeze(0).expand(rows, -1, -1).gather(2, at).squeeze(2)
            for table in (self.knots, self.heights, self.slopes)
        )
        # A quantity that is constant among normal images has one knot; below it nothing is known.
        inside = height + (values - knot) * slope
        return torch.where(above > 0, inside, torch.zeros_like(inside))


def _fit_tail(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], ...]:
    values = np.sort(values)
    n = len(values)
    excesses = max(5, n // 20)
    survival = np.geomspace(1, excesses / n, KNOTS)
    index = np.unique(np.minimum(np.round(n * (1 - survival)).astype(int), n - 1))
    knots, first = np.unique(values[index].astype(np.float32), return_index=True)
    heights = -np.log10((n - index[first]) / n)
    beyond = np.maximum(values[-excesses:].mean() - knots[-1], 1e-6 * max(1.0, abs(float(knots[-1]))))
    slopes = np.append(np.diff(heights) / np.diff(knots), 1 / (beyond * np.log(10)))
    return knots, heights.astype(np.float32), slopes.astype(np.float32)


class Calibration(nn.Module):
    """Combines the terms of an image into `score` and `p_value`; part of the inference graph.

    Two disjoint sets of held-out normal images settle it: one shapes the score, the other ranks it, so that the
    p-value is that of split-conformal prediction (Vovk et al., 2005) and honest for finite samples.
    """

    def __init__(self, terms: int, normal_scores: int) -> None:
        super().__init__()
        self.term_tail = Tail(terms)
        self.score_tail = Tail(1)
        self.register_buffer("normal_scores", torch.zeros(normal_scores))

    normal_scores: Tensor

    def fit_score(self, terms: npt.NDArray[np.float32]) -> None:
        """Shape the score by the terms of normal images, shape (n, K).

        Raises
        ------
        VaeguardError
            A term is not finite.
        """
        if not np.isfinite(terms).all():
            raise VaeguardError(
                "a term of the score is not finite on normal images; lower --learning-rate and fit again"
            )
        self.term_tail.fit(terms)
        combined = self._combine(torch.from_numpy(terms))
        self.score_tail.fit(combined.numpy())

    def forward(self, terms: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) terms to `score` (N,) and `p_value` (N,)."""
        score = self.score_tail(self._combine(terms)).squeeze(1)
        stranger = (self.normal_scores >= score.unsqueeze(1)).sum(1)
        return score, (1 + stranger).float() / (1 + self.normal_scores.shape[0])

    def _combine(self, terms: Tensor) -> Tensor:
        surprise: Tensor = self.term_tail(terms)
        return surprise.mean(1, keepdim=True)

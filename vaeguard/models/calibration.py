"""From terms to one score: tail probabilities of held-out normal images; no anomaly is needed.

Each term is turned into its *surprise*, −log10 of the share of normal images with at least that value, so that
different terms are comparable. The images are ordered by a weighted mean of the leading terms' surprises, plus the part
of any term's surprise that exceeds nearly all normal images. An uninformative term then costs next to nothing, and an
extreme one is not averaged away. The same step turns the result into the score. Beyond the bulk of the normal images, a
generalised Pareto tail ranks ever stranger images without ties.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vaeguard.errors import VaeguardError
from vaeguard.models.sums import row_mean, row_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

KNOTS = 64
"""The most knots of a tail below its Pareto part."""
ALARM = 3.0
"""The part of a surprise above this, which one normal image in a thousand exceeds, counts for every term."""
LARGEST = 1e25
"""Larger values of a term are cut off here, so that no product overflows."""
TIE = 1e-4
"""Scores with a smaller relative difference are ties, so that the rounding of another engine does not rank them."""


class Tail(nn.Module):
    """Surprise of K quantities: −log10 of their estimated tail probability among normal images.

    Piecewise linear between quantiles of the normal values, 0 below the smallest, and past the highest tenth (at least
    10 images) a generalised Pareto tail (Pickands, 1975).
    """

    def __init__(self, quantities: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.full((quantities, KNOTS), torch.inf))
        self.register_buffer("heights", torch.zeros(quantities, KNOTS))
        self.register_buffer("slopes", torch.zeros(quantities, KNOTS))
        self.register_buffer("tail_start", torch.zeros(quantities))
        self.register_buffer("tail_scale", torch.ones(quantities))
        self.register_buffer("tail_shape", torch.ones(quantities))

    knots: Tensor
    heights: Tensor
    slopes: Tensor
    tail_start: Tensor
    tail_scale: Tensor
    tail_shape: Tensor

    def fit(self, normal: npt.NDArray[np.float32]) -> None:
        """Fit to the values of normal images, shape (n, K)."""
        for k, column in enumerate(normal.T):
            values = np.sort(column.astype(np.float64))
            knots, heights, slopes = _quantile_knots(values)
            self.knots[k] = torch.inf
            self.knots[k, : len(knots)] = torch.from_numpy(knots)
            self.heights[k, : len(knots)] = torch.from_numpy(heights)
            self.slopes[k, : len(knots)] = torch.from_numpy(slopes)
            self.tail_start[k] = float(knots[-1])
            self.tail_scale[k], self.tail_shape[k] = _pareto(values, float(knots[-1]))

    def forward(self, values: Tensor) -> Tensor:
        """(N, K) values to (N, K) surprises, 0 and up."""
        finite = values.clamp(max=LARGEST)
        above = (finite.unsqueeze(2) >= self.knots).float().sum(2).long()
        at = (above - 1).clamp(min=0).unsqueeze(2)
        rows = values.shape[0]
        knot, height, slope = (
            table.unsqueeze(0).expand(rows, -1, -1).gather(2, at).squeeze(2)
            for table in (self.knots, self.heights, self.slopes)
        )
        bulk = height + (finite - knot) * slope
        excess = (finite - self.tail_start).clamp(min=0) / self.tail_scale
        beyond = torch.log1p(self.tail_shape * excess) / (self.tail_shape * math.log(10))
        # A quantity that is constant among normal images has one knot, below which there is no surprise.
        surprise = torch.where(above > 0, bulk, torch.zeros_like(bulk)) + beyond
        return torch.where(values.isnan(), values, surprise)


def _tail_images(n: int) -> int:
    return min(n, max(10, n // 10))


def _quantile_knots(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], ...]:
    """Knots of sorted values up to the start of the tail: value, surprise, and slope after it (0 at the last)."""
    n, tail = len(values), _tail_images(len(values))
    survival = np.geomspace(1, tail / n, KNOTS)
    knots = np.unique(values[np.round(n * (1 - survival)).astype(int)].astype(np.float32))
    at_least = n - np.searchsorted(values.astype(np.float32), knots, "left")
    heights = -np.log10(at_least / n)
    slopes = np.append(np.diff(heights) / np.diff(knots), 0)
    above = int(np.count_nonzero(values.astype(np.float32) > knots[-1]))
    if 0 < above < tail - 1:
        # Many images share the value at which the tail starts, and the surprise jumps just above it.
        knots = np.append(knots, knots[-1] + np.float32(max(1e-6 * abs(knots[-1]), 1e-12)))[-KNOTS:]
        heights = np.append(heights, -np.log10(above / n))[-KNOTS:]
        slopes = np.append(slopes, 0)[-KNOTS:]
    return knots.astype(np.float32), heights.astype(np.float32), slopes.astype(np.float32)


def _pareto(values: npt.NDArray[np.float64], start: float) -> tuple[float, float]:
    """Scale and shape of a generalised Pareto tail of sorted values above `start`, by probability-weighted moments.

    Hosking & Wallis (1987). The shape is limited to tails with a mean and without an upper end, since anomalies lie
    beyond any end.
    """
    excesses = values[values > start] - start
    floor = 1e-6 * max(abs(start), 1e-3)
    if len(excesses) == 0:
        return floor, 0.01
    n = len(excesses)
    mean = max(float(excesses.mean()), floor)
    weighted = float((excesses * np.arange(n - 1, -1, -1)).sum()) / (n * max(n - 1, 1))
    shape = float(np.clip(2 - mean / max(mean - 2 * weighted, 1e-9 * mean), 0.01, 0.9))
    return mean * (1 - shape), shape


class Calibration(nn.Module):
    """Combines the terms of an image into `score` and `p_value`; part of the inference graph.

    It is fitted on two disjoint sets of held-out normal images. One shapes the terms' surprises, and so the order of
    images. The other ranks that order, so the p-value is that of split-conformal prediction (Vovk et al., 2005), which
    is valid for finite samples. After a fit with folds both sets are the same (`docs/explanation/score.md`).
    `weights` has one weight per term; a term of weight 0 counts only above `ALARM`.
    """

    def __init__(self, weights: Sequence[float], normal_scores: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights) / sum(weights))
        self.term_tail = Tail(len(weights))
        self.score_tail = Tail(1)
        self.register_buffer("normal_scores", torch.zeros(normal_scores))

    normal_scores: Tensor
    weights: Tensor

    def fit_terms(self, terms: npt.NDArray[np.float32]) -> None:
        """Shape the surprises by the terms of normal images, shape (n, K), or (n, T, K) for T tiles each.

        A surprise is the share of images of which any tile has such a value.

        Raises
        ------
        VaeguardError
            A term is not finite.
        """
        if not np.isfinite(terms).all():
            raise VaeguardError(
                "a term of the score is not finite on normal images; lower `training.learning_rate` and fit again"
            )
        self.term_tail.fit(terms.reshape(len(terms), -1, terms.shape[-1]).max(1))

    def fit_ranks(self, terms: npt.NDArray[np.float32]) -> None:
        """Rank the score by the terms of other normal images, shape (n, K), or (n, T, K) for T tiles each.

        Only the scale of the score is fitted here, not the order of images, so the ranks stay exchangeable. An image is
        as strange as its strangest tile.
        """
        combined = self._combine(torch.from_numpy(terms.reshape(-1, terms.shape[-1])))
        strangest = combined.view(len(terms), -1).amax(1, keepdim=True)
        self.score_tail.fit(strangest.numpy())
        self.normal_scores.copy_(self.score_tail(strangest).squeeze(1).sort().values)

    def forward(self, terms: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) terms to `score` (N,) and `p_value` (N,); a NaN ranks as the strangest image."""
        score = self.score(terms)
        count = self.normal_scores.shape[0]
        ranked = torch.where(score.isnan(), torch.inf, score)
        stranger = count - self._below(ranked * (1 - TIE))
        return score, (1 + stranger).float() / (1 + count)

    def _below(self, score: Tensor) -> Tensor:
        """The number of normal scores below `score` (N,): first among every √n-th, then between two of these."""
        count = self.normal_scores.shape[0]
        side = math.isqrt(max(count - 1, 0)) + 1
        blocks = F.pad(self.normal_scores, (0, side * side - count), value=torch.inf).view(side, side)
        before = ((blocks[:, 0] < score.unsqueeze(1)).float().sum(1) - 1).clamp(min=0).long()
        inside = (blocks[before] < score.unsqueeze(1)).float().sum(1).long()
        return before * side + inside

    def score(self, terms: Tensor) -> Tensor:
        """(N, K) terms to `score` (N,)."""
        score: Tensor = self.score_tail(self._combine(terms)).squeeze(1)
        return score

    def _combine(self, terms: Tensor) -> Tensor:
        surprise: Tensor = self.term_tail(terms)
        alarm = row_mean((surprise - ALARM).clamp(min=0))
        return (row_sum(surprise * self.weights) + alarm).unsqueeze(1)

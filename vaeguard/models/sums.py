"""Sums that give a row the same bits at any place in a batch.

Engines sum a row in vector registers from the first aligned address on. Rows that start at different places of a
register would round differently, and an image's score would depend on its place in the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

LANES = 8
"""Values in a vector register."""


def sum_last(values: Tensor) -> Tensor:
    """Sum over the last axis, (..., D) to (...)."""
    missing = -values.shape[-1] % LANES
    return (F.pad(values, (0, missing)) if missing else values).sum(-1)


def row_sum(values: Tensor) -> Tensor:
    """Sum over all axes but the first, (N, ...) to (N,)."""
    return sum_last(values.flatten(1))


def row_mean(values: Tensor) -> Tensor:
    """Mean over all axes but the first, (N, ...) to (N,)."""
    flat = values.flatten(1)
    return sum_last(flat) / flat.shape[1]

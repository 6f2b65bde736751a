"""Equal weights for all classes, whatever their numbers of images: in draws, and in means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def balanced_draws(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw N positions in `labels`, int64 (N,), with replacement; each class has the same probability.

    Random oversampling; He & Garcia, "Learning from imbalanced data" (2009), section 3.1.1.
    """
    by_class = torch.argsort(labels, stable=True)
    sizes = torch.bincount(labels)
    starts = sizes.cumsum(0) - sizes
    present = sizes.nonzero().flatten()
    drawn = present[torch.randint(len(present), labels.shape, generator=generator)]
    within = torch.rand(labels.shape, generator=generator, dtype=torch.float64) * sizes[drawn]
    return by_class[starts[drawn] + within.long()]


def balanced_weights(labels: Tensor) -> Tensor:
    """Weights of examples, float32 (N,) of mean 1; each class in `labels`, int64 (N,), has the same sum."""
    sizes = torch.bincount(labels)
    return (len(labels) / (sizes.count_nonzero() * sizes))[labels]

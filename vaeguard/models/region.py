"""Regions: the pixels of an image that count, as a part of the inference graph.

All others are replaced by one grey before anything looks at them, so no bit of a result depends on them; and patches
and cells whose centre lies outside never count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from vaeguard.models.sums import row_mean, row_sum
from vaeguard.settings.model import GREY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

WHITE = 0.5
"""From this value on, a pixel of the channel with an image's own region is white; 128 of 255 is, 127 is not."""
NOWHERE = -1e25
"""The value of a tile without any patch or cell that counts: less strange than every other."""


class Region(nn.Module):
    """The region of images of one size.

    Attributes
    ----------
    inside : bool (H, W)
        The pixels that count; True everywhere until it is set.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("inside", torch.ones(size, dtype=torch.bool))

    inside: Tensor

    def forward(self, size: tuple[int, int], first: Tensor | None = None) -> Tensor:
        """The pixels that count, bool (N or 1, 1, h, w).

        `first`, int64 (N, 2), holds the first row and column of tiles of `size` (h, w); None stands for whole images.
        """
        if first is None:
            return self.inside[None, None]
        rows, columns = (
            first[:, axis, None] + torch.arange(side, device=first.device) for axis, side in enumerate(size)
        )
        return self.inside[rows.unsqueeze(2), columns.unsqueeze(1)].unsqueeze(1)


def outside_grey(image: Tensor, inside: Tensor) -> Tensor:
    """`image` (N, C, H, W) in [0, 1], grey where `inside` (N or 1, 1, H, W) is false."""
    return torch.where(inside, image, GREY / 255)


def at_centres(inside: Tensor, centres: tuple[Sequence[int], Sequence[int]]) -> Tensor:
    """Which patches or cells count, (N, P), by the pixels that count (N, 1, h, w) and the centres' rows and columns."""
    rows, columns = (torch.tensor(places, device=inside.device) for places in centres)
    return inside[:, 0].index_select(1, rows).index_select(2, columns).flatten(1)


def strongest_mean(values: Tensor, most: int, inside: Tensor | None) -> Tensor:
    """The mean of the `most` largest of `values` (N, P), or of those that count by `inside` (N or 1, P); shape (N,)."""
    most = min(most, values.shape[1])
    if inside is None:
        return row_mean(values.topk(most, dim=1).values)
    largest = torch.where(inside, values, -torch.inf).topk(most, dim=1).values
    left_out = (largest == -torch.inf).float()
    count = most - row_sum(left_out)
    total = row_sum(torch.where(left_out > 0, 0.0, largest))
    return torch.where(count > 0, total / count.clamp(min=1), NOWHERE)

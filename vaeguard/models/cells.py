"""Cells: squares of 8x8 pixels of an image, each with its features, whitened, as a VAE sees them.

The maps of a backbone are brought to one grid and stacked, so every cell has one vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from vaeguard.models.region import at_centres, strongest_mean
from vaeguard.models.whiten import Whiten

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.models.backbones import Backbone

STRIDE = 8
"""A cell is so many pixels from the next."""
STRONGEST = 5
"""An image's value is the mean over so many of its largest values of cells."""
MARGIN = 1
"""So many outermost rings of cells are ignored: the rims of normal surfaces differ more than most defects."""
FEWEST = 8
"""A side with fewer cells has no margin, which would be a large part of it."""


class Cells(nn.Module):
    """The cells of images of one shape.

    Parameters
    ----------
    image_shape : (C, H, W)
        Shape of an image.
    backbone : Backbone
        The frozen network.
    whole : bool
        False for a tile of an image, whose cells at the border lie within the image.

    Attributes
    ----------
    grid : (int, int)
        Number of rows and columns of cells.
    margins : (int, int)
        The outermost rows and columns of cells that do not count for the value of an image.
    """

    def __init__(self, image_shape: tuple[int, int, int], backbone: Backbone, *, whole: bool = True) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.whiten = Whiten(sum(backbone.channels))
        _, self.height, self.width = image_shape
        self.grid = (-(-self.height // STRIDE), -(-self.width // STRIDE))
        self.margins = tuple(MARGIN if whole and count >= FEWEST else 0 for count in self.grid)
        for name in ("mean", "deviation"):
            self.register_buffer(name, torch.tensor(getattr(backbone, name)).view(3, 1, 1), persistent=False)

    backbone: Backbone
    mean: Tensor
    deviation: Tensor

    def features(self, image: Tensor) -> Tensor:
        """The features of the cells of `image` (N, C, H, W) in [0, 1], (N, rows, columns, F)."""
        colour = image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image
        maps = self.backbone((colour - self.mean) / self.deviation)
        scaled = [
            values
            if values.shape[2:] == self.grid
            else F.interpolate(values, self.grid, mode="bilinear", align_corners=False, antialias=False)
            for values in maps
        ]
        return torch.cat(scaled, 1).permute(0, 2, 3, 1)

    def see(self, image: Tensor) -> tuple[Tensor, None]:
        """The whitened cells of `image` (N, C, H, W) in [0, 1], image by image and row by row, (N * P, 1, 1, F).

        Features cannot be turned into an image again.
        """
        cells: Tensor = self.whiten(self.features(image))
        return cells.reshape(-1, 1, 1, cells.shape[-1]), None

    def counted(self, inside: Tensor) -> Tensor:
        """Which cells count, (N, P), by the pixels that count, bool (N, 1, h, w)."""
        return at_centres(inside, self.centres)

    def decides(self, inside: Tensor) -> Tensor:
        """Which cells may decide the value of an image, (N, p): those that count, without the margins."""
        return self._inner(self.counted(inside))

    @property
    def centres(self) -> tuple[list[int], list[int]]:
        """The rows and columns of pixels in which cells have their centres."""
        rows, columns = (
            [min(STRIDE * number + STRIDE // 2, side - 1) for number in range(count)]
            for count, side in zip(self.grid, (self.height, self.width), strict=True)
        )
        return rows, columns

    def strongest(self, values: Tensor, counted: Tensor | None = None) -> Tensor:
        """One value per image, (N,): the mean of the five largest values of its cells, (N * P,), or of those counted.

        `counted` is bool (N or 1, P). Cells of the margins do not count.
        """
        return strongest_mean(self._inner(values), STRONGEST, None if counted is None else self._inner(counted))

    def heatmap(self, values: Tensor) -> Tensor:
        """Values of cells, (N * P,), smoothed, at their centres and bilinear in between, shape (N, H, W).

        A value is averaged with its neighbours by the weights 1, 2, 1 of each direction: a cell sees more of the image
        than it covers, so single values are placed too sharply.
        """
        covered = [count * STRIDE for count in self.grid]
        heat = F.pad(values.view(-1, 1, *self.grid), (1, 1, 1, 1), mode="replicate")
        heat = F.avg_pool2d(F.avg_pool2d(heat, 2, 1), 2, 1)
        heat = F.interpolate(heat, covered, mode="bilinear", align_corners=False)
        return heat[:, 0, : self.height, : self.width]

    def _inner(self, values: Tensor) -> Tensor:
        """The values of the cells, (N * P,) or (N, P), without those of the margins, (N, p)."""
        (top, left), (rows, columns) = self.margins, self.grid
        return values.view(-1, rows, columns)[:, top : rows - top, left : columns - left].flatten(1)

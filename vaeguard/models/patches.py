"""Patches: how a model of small squares covers a large image, and how the values of patches become one result.

Small defects show in the texture, not in the whole image. Exposure and shading are removed first, every patch is judged
by itself, and the image is as strange as its strangest patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from vaeguard.models.region import at_centres, strongest_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from numpy import int64, uint8
    from torch import Tensor

    from vaeguard.models.shares import Draws

STRIDES = 4
"""Neighbouring patches are a quarter of their side apart."""
MARGIN = 1
"""So many outermost rings of patches are ignored: the rims of normal surfaces differ more than most defects."""
STRONGEST = 5
"""An image's value is the mean over so many of its largest patch values."""
RADIUS = 15
"""The surroundings of a pixel are 31x31 pixels."""
REDRAWN = 16
"""A training patch outside of the region is drawn again so many times."""
FLOOR = 0.03
"""Added to pixels before their logarithm, so that the noise of dark pixels is not amplified."""


def surrounded(image: Tensor) -> Tensor:
    """Repeat the outermost pixels of `image` (N, C, H, W) until every pixel has full surroundings."""
    return F.pad(image, (RADIUS,) * 4, mode="replicate")


def local_contrast(image: Tensor) -> tuple[Tensor, Tensor]:
    """Contrast of pixels to their surroundings, without exposure and shading.

    Let r be the ratio of a pixel to the geometric mean of the 31x31 pixels around it, with 0.03 added to each pixel.
    The contrast is r² / (1 + r²): 0.5 in flat areas, and 0.5 plus about half the logarithm of r for faint texture.

    Parameters
    ----------
    image : float32 (N, C, H + 30, W + 30)
        Pixels in [0, 1] with their surroundings.

    Returns
    -------
    float32 (N, C, H, W), float32 (N, C, H, W)
        Contrast in (0, 1), and the mean logarithm of the surroundings.
    """
    logs = torch.log(image + FLOOR)
    side = 2 * RADIUS + 1
    # Two passes over 31 pixels are cheaper than one over 961.
    mean = F.avg_pool2d(F.avg_pool2d(logs, (side, 1), 1), (1, side), 1)
    return torch.sigmoid(2 * (logs[:, :, RADIUS:-RADIUS, RADIUS:-RADIUS] - mean)), mean


def undo_contrast(contrast: Tensor, mean: Tensor) -> Tensor:
    """Pixels in [0, 1] from the results of `local_contrast`."""
    return (torch.exp(mean + 0.5 * torch.logit(contrast, eps=1e-6)) - FLOOR).clamp(0, 1)


def random_windows(
    images: npt.NDArray[uint8],
    rows: npt.NDArray[int64],
    patch: int,
    draws: Draws,
    tiles: Sequence[tuple[Sequence[int], int]] | None = None,
    inside: Callable[[npt.NDArray[int64], npt.NDArray[int64], npt.NDArray[int64]], npt.NDArray[np.bool_]] | None = None,
) -> Tensor:
    """A patch at a random place, with its surroundings, from each of `rows` of `images` (N, C, H, W).

    `tiles` are the first pixels of all tiles along each side, and the side of a tile: a patch then lies in a random
    tile, beyond which it has no surroundings. Patches whose centres do not count are drawn again, some times; `inside`
    is called with `rows` and the rows and columns of the centres, and returns bool (n,). Returns uint8
    (rows, C, patch + 30, patch + 30), of which `local_contrast` makes patches.
    """
    sides = images.shape[2:] if tiles is None else tuple(side for _, side in tiles)
    first, begin = _random_places(len(rows), patch, draws, sides, tiles)
    if inside is not None:
        for _ in range(REDRAWN):
            centres = first + begin + patch // 2
            outside = ~inside(rows, centres[0], centres[1])
            again = _random_places(len(rows), patch, draws, sides, tiles)
            first, begin = np.where(outside, again[0], first), np.where(outside, again[1], begin)
    window = np.arange(-RADIUS, patch + RADIUS)
    # Clamped indices repeat the outermost pixels, as `surrounded` does.
    y, x = (
        start[:, None] + np.clip(at[:, None] + window, 0, side - 1)
        for start, at, side in zip(first, begin, sides, strict=True)
    )
    picked = images[rows[:, None, None], :, y[:, :, None], x[:, None, :]]
    return torch.from_numpy(picked).permute(0, 3, 1, 2)


def _random_places(
    count: int,
    patch: int,
    draws: Draws,
    sides: tuple[int, ...],
    tiles: Sequence[tuple[Sequence[int], int]] | None,
) -> tuple[npt.NDArray[int64], npt.NDArray[int64]]:
    """The first row and column of tiles, and of patches within them, each (2, count)."""

    def uniform() -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = draws.uniform(2, count, 1, axis=1).cpu().numpy()
        return values[:, :, 0]

    begin = np.stack([(u * (side - patch + 1)).astype(np.int64) for u, side in zip(uniform(), sides, strict=True)])
    if tiles is None:
        return np.zeros_like(begin), begin
    firsts = [np.asarray(first) for first, _ in tiles]
    chosen = zip(uniform(), firsts, strict=True)
    return np.stack([first[(u * len(first)).astype(np.int64)] for u, first in chosen]), begin


class Patches:
    """The overlapping patches of images of one shape, in rows and columns.

    Parameters
    ----------
    image_shape : (C, H, W)
        Shape of an image.
    patch : int
        Side of a patch in pixels.

    Attributes
    ----------
    grid : (int, int)
        Number of rows and columns of patches. The last patches may reach beyond the image, whose outermost pixels are
        then repeated.
    """

    def __init__(self, image_shape: tuple[int, int, int], patch: int) -> None:
        self.side, self.stride = patch, patch // STRIDES
        _, self.height, self.width = image_shape
        self.grid = tuple(1 - (patch - size) // self.stride for size in (self.height, self.width))
        self.covered = tuple((count - 1) * self.stride + patch for count in self.grid)

    def see(self, image: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The contrast of all patches of `image` (N, C, H, W) in [0, 1], and what makes an image of patches again."""
        contrast, mean = local_contrast(surrounded(image))
        return self.cut(contrast), lambda patches: undo_contrast(self.fold(patches), mean)

    def cut(self, image: Tensor) -> Tensor:
        """The patches of `image` (N, C, H, W), image by image and row by row, shape (N * P, C, patch, patch)."""
        beyond = (0, self.covered[1] - self.width, 0, self.covered[0] - self.height)
        columns = F.unfold(F.pad(image, beyond, mode="replicate"), self.side, stride=self.stride)
        return columns.transpose(1, 2).reshape(-1, image.shape[1], self.side, self.side)

    def fold(self, patches: Tensor) -> Tensor:
        """Undo `cut`: (N * P, C, patch, patch) to (N, C, H, W), the mean where patches overlap."""
        values = patches.reshape(-1, self.grid[0] * self.grid[1], patches[0].numel()).transpose(1, 2)
        total, count = (
            F.fold(columns, self.covered, self.side, stride=self.stride)
            for columns in (values, torch.ones_like(values[:1]))
        )
        return (total / count)[:, :, : self.height, : self.width]

    def decides(self, inside: Tensor) -> Tensor:
        """Which of the places that may decide count, by the pixels that count, bool (N, 1, h, w); (N, P)."""
        return self._inner(at_centres(inside, self.centres)).flatten(1)

    @property
    def centres(self) -> tuple[list[int], list[int]]:
        """The rows and columns of pixels in which patches have their centres."""
        rows, columns = (
            [min(self.stride * number + self.side // 2, side - 1) for number in range(count)]
            for count, side in zip(self.grid, (self.height, self.width), strict=True)
        )
        return rows, columns

    def strongest(self, values: Tensor, counted: Tensor | None = None) -> Tensor:
        """One value per image, (N,): the mean of the five largest values of its patches, (N * P,), or of those counted.

        `counted` is bool (N or 1, P).
        """
        inside = None if counted is None else self._inner(counted).flatten(1)
        return strongest_mean(self._inner(values).flatten(1), STRONGEST, inside)

    def heatmap(self, values: Tensor) -> Tensor:
        """Values of patches, (N * P,), at their centres and bilinear in between, shape (N, H, W)."""
        inner = self._inner(values).unsqueeze(1)
        between = [(count - 1) * self.stride + 1 for count in inner.shape[2:]]
        heat = F.interpolate(inner, between, mode="bilinear", align_corners=True)
        before = self.side // 2 + MARGIN * self.stride
        after = [covered - before - size for covered, size in zip(self.covered, between, strict=True)]
        heat = F.pad(heat, (before, after[1], before, after[0]), mode="replicate")
        return heat[:, 0, : self.height, : self.width]

    def _inner(self, values: Tensor) -> Tensor:
        """The grid of values without its margin, (N, rows, columns)."""
        return values.view(-1, *self.grid)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]

"""The direct denoiser: one pass from a noisy image to a clean one and its expected error.

It is a residual network on two scales. Without normalisation layers, a pixel depends on a fixed neighbourhood only, so
that tiles give the same result as the whole image. The noise level is an input, as in FFDNet (Zhang et al., 2018), so
that one set of weights serves many strengths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vaeguard.restoration.noise import DIFFERENCES, INVERSE_DIFFERENCES

if TYPE_CHECKING:
    from torch import Tensor

GRID = 4
"""Height, width and the corners of tiles are multiples of this."""
LOG_VARIANCE_RANGE = (-14.0, 4.0)


def noise_levels(planes: int) -> int:
    """The number of deviations that describe the noise: one in grey, two (brightness and colours) in colour."""
    return 1 if planes == 1 else 2


class Residual(nn.Module):
    """Two convolutions that are added to their input; at first they add nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(cast("Tensor", self.second.bias))

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape (N, channels, H, W)."""
        added: Tensor = self.second(F.relu(self.first(features)))
        return features + added


class DirectDenoiser(nn.Module):
    """A denoiser of grey images.

    Parameters
    ----------
    width : int
        Channels at half the resolution; a quarter of the resolution has twice as many.
    depth : int
        Convolutions at a quarter of the resolution, in pairs with a residual connection.
    """

    planes, levels = 1, noise_levels(1)

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        twice = 2 * width
        self.enter = nn.Conv2d(4 + 1, width, 3, padding=1)
        self.fine = nn.Conv2d(width, width, 3, padding=1)
        self.down = nn.Conv2d(width, twice, 2, stride=2)
        self.coarse = nn.ModuleList(Residual(twice) for _ in range(depth // 2))
        self.up = nn.Conv2d(twice, 4 * width, 1)
        self.merge = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 4, 3, padding=1)
        self.spread = nn.Conv2d(width, 4, 3, padding=1)
        nn.init.zeros_(self.spread.weight)

    @property
    def halo(self) -> int:
        """The largest distance in pixels at which a pixel may matter, as a multiple of `GRID`."""
        fine_layers, coarse_layers = 4, self.depth
        reach = 2 * fine_layers + 4 * coarse_layers + GRID - 1
        return -(-reach // GRID) * GRID

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Restore `image` and estimate the error.

        Parameters
        ----------
        image : Tensor
            Shape (N, 1, H, W), 0 to 1; H and W multiples of `GRID`.
        noise : Tensor
            The standard deviation of the noise, shape (N, 1, H / 2, W / 2), or (N, 1, 1, 1) if it is the same
            everywhere.

        Returns
        -------
        restored : Tensor
            Shape (N, 1, H, W).
        log_variance : Tensor
            The logarithm of the expected squared error of each pixel, in the same shape; its gradients do not reach the
            layers behind `restored`.
        """
        halves = F.pixel_unshuffle(image, 2)
        level = noise.expand(-1, 1, halves.shape[2], halves.shape[3])
        features = F.relu(self.enter(torch.cat([halves - 0.5, level], 1)))
        features = F.relu(self.fine(features))
        coarse = F.relu(self.down(features))
        for pair in self.coarse:
            coarse = pair(coarse)
        features = F.relu(features + F.pixel_shuffle(self.up(coarse), 2))
        features = F.relu(self.merge(features))
        restored = image - F.pixel_shuffle(self.leave(features), 2)
        log_variance = F.pixel_shuffle(self.spread(features.detach()), 2)
        return restored, log_variance.clamp(*LOG_VARIANCE_RANGE)


class ColourDenoiser(nn.Module):
    """A denoiser of red, green and blue by a grey one, which cleans their mean and two of their differences.

    Parameters
    ----------
    grey : DirectDenoiser
        Trained on photographs.
    """

    planes, levels = 3, noise_levels(3)

    def __init__(self, grey: DirectDenoiser) -> None:
        super().__init__()
        self.grey = grey
        self.width, self.depth, self.halo = grey.width, grey.depth, grey.halo

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Restore `image` and estimate the error.

        Parameters
        ----------
        image : Tensor
            Shape (N, 3, H, W), 0 to 1; H and W multiples of `GRID`.
        noise : Tensor
            The standard deviation of the noise in brightness and in differences of colours (see `noise.OPPONENT`),
            shape (N, 2, H / 2, W / 2).

        Returns
        -------
        restored : Tensor
            Shape (N, 3, H, W).
        log_variance : Tensor
            The logarithm of the expected squared error of each pixel's mean over the colours, shape (N, 1, H, W).
        """
        turned = F.conv2d(image, torch.from_numpy(DIFFERENCES)[..., None, None], torch.tensor([0, 0.5, 0.5]))
        cleaned = [
            self.grey(turned[:, number : number + 1], float(scale) * noise[:, level : level + 1])
            for number, (scale, level) in enumerate(zip(np.linalg.norm(DIFFERENCES, axis=1), (0, 1, 1), strict=True))
        ]
        shift = torch.tensor([0, 0.5, 0.5])[:, None, None]
        planes = torch.cat([restored for restored, _ in cleaned], 1) - shift
        restored = F.conv2d(planes, torch.from_numpy(INVERSE_DIFFERENCES)[..., None, None])
        return restored, cleaned[0][1]

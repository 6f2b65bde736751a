"""The ladder VAE: a hierarchical VAE with spatial latents on several scales, which restores images of any size.

It follows ladder VAEs (Sønderby et al., 2016) and HDN (Prakash et al., 2022). Each latent is a map. Its prior depends
on the coarser latents, and its posterior also on the image. Without normalisation layers, a pixel depends on a fixed
neighbourhood only, so that tiles give the same result as the whole image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from vaeguard.restoration.networks.direct import Residual
from vaeguard.restoration.noise import grain_kernel
from vaeguard.settings.restoration import STRIDES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LOG_VARIANCE = 8.0
"""The largest absolute logarithm of a variance."""
FAINTEST = 0.1
"""The least amplitude of a frequency of wide grain, since smaller ones cannot be measured."""


@dataclass(frozen=True)
class LadderOutput:
    """The output of a ladder VAE for a batch.

    Attributes
    ----------
    restored : Tensor
        The decoder's mean, shape (N, 1, H, W).
    kl : tuple of Tensor
        KL(posterior ‖ prior) at each position, in nats, finest first: shapes (N, H / s, W / s) with s of `STRIDES`.
    """

    restored: Tensor
    kl: tuple[Tensor, ...]

    def rate(self) -> Tensor:
        """Nats per image, shape (N,)."""
        return torch.stack([level.sum((1, 2)) for level in self.kl]).sum(0)


class LadderVAE(nn.Module):
    """A hierarchical VAE of grey images.

    Parameters
    ----------
    width : int
        Channels of the features on every scale.
    latent : sequence of int
        Channels of the latent on each scale of `STRIDES`.
    """

    def __init__(self, width: int = 40, latent: Sequence[int] = (8, 12, 16)) -> None:
        super().__init__()
        self.width, self.latent = width, tuple(latent)
        self.enter = nn.Conv2d(4 + 1, width, 3, padding=1)
        self.look = nn.ModuleList(Residual(width) for _ in STRIDES)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 2, stride=2) for _ in STRIDES[1:])
        self.levels = nn.ModuleList(_Level(width, channels) for channels in self.latent)
        self.up = nn.ModuleList(nn.Conv2d(width, 4 * width, 1) for _ in STRIDES[1:])
        self.top = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.leave = nn.Conv2d(width, 4, 3, padding=1)

    @property
    def halo(self) -> int:
        """The largest distance in pixels at which a pixel may matter, as a multiple of the coarsest stride."""
        convolutions = dict.fromkeys(STRIDES, 2 + 3)  # those of `look`, then those of posterior and refinement
        convolutions[STRIDES[0]] += 2  # those of `enter` and `leave`
        coarsest = STRIDES[-1]
        reach = sum(stride * count for stride, count in convolutions.items()) + coarsest - 1
        return -(-reach // coarsest) * coarsest

    def latent_shapes(self, count: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """The shapes of the noise for the latents of `count` images, finest first."""
        sizes = zip(self.latent, STRIDES, strict=True)
        return [(count, channels, height // stride, width // stride) for channels, stride in sizes]

    def forward(self, image: Tensor, noise: Tensor, latent_noise: Sequence[Tensor | None]) -> LadderOutput:
        """Encode, draw from the posterior and decode.

        Parameters
        ----------
        image : Tensor
            Shape (N, 1, H, W), 0 to 1; H and W multiples of the coarsest stride.
        noise : Tensor
            The standard deviation of the noise, shape (N, 1, 1, 1).
        latent_noise : sequence of Tensor or None
            Standard normal noise in the shapes of `latent_shapes`; None, or zeros, for the posterior means.
        """
        halves = F.pixel_unshuffle(image, 2)
        level = noise.expand(-1, 1, *halves.shape[2:])
        features = F.relu(self.enter(torch.cat([halves - 0.5, level], 1)))
        seen = []
        for number, look in enumerate(self.look):
            features = look(F.relu(self.down[number - 1](features)) if number else features)
            seen.append(features)
        known = self.top.expand_as(features)
        kls: list[Tensor] = []
        for number in reversed(range(len(STRIDES))):
            if number < len(STRIDES) - 1:
                known = F.pixel_shuffle(self.up[number](known), 2)
            known, kl = self.levels[number](known, seen[number], latent_noise[number])
            kls.insert(0, kl)
        return LadderOutput(F.pixel_shuffle(self.leave(known), 2) + 0.5, tuple(kls))


class _Level(nn.Module):
    """One latent map: the prior depends on the coarser maps, and the posterior on these and the image."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.prior = nn.Conv2d(width, 2 * latent, 1)
        self.posterior = nn.Conv2d(2 * width, 2 * latent, 3, padding=1)
        self.tell = nn.Conv2d(latent, width, 1)
        self.refine = Residual(width)
        nn.init.zeros_(self.posterior.weight)
        nn.init.zeros_(cast("Tensor", self.posterior.bias))

    def forward(self, known: Tensor, seen: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """The features after this latent, shape (N, width, h, w), and the KL of the latent in nats, (N, h, w)."""
        mean, log_variance = self.prior(known).float().chunk(2, 1)
        log_variance = log_variance.clamp(-LOG_VARIANCE, LOG_VARIANCE)
        # The posterior is relative to the prior (NVAE: Vahdat and Kautz, 2020); at first both are the same.
        shift, log_ratio = self.posterior(torch.cat([known, seen], 1)).float().chunk(2, 1)
        log_ratio = log_ratio.clamp(-LOG_VARIANCE, LOG_VARIANCE)
        deviation = torch.exp(0.5 * log_variance)
        kl = 0.5 * (torch.exp(log_ratio) + shift.square() - 1 - log_ratio).sum(1)
        latent = mean + deviation * shift
        if noise is not None:
            latent = latent + deviation * torch.exp(0.5 * log_ratio) * noise
        return self.refine(F.relu(known + self.tell(latent))), kl


def pixel_distortion(restored: Tensor, seen: Tensor, deviation: Tensor, grain_width: float = 0) -> Tensor:
    """-log p(seen | latent) in nats per pixel, for Gaussian grain around the restored image.

    Parameters
    ----------
    restored, seen : Tensor
        Shape (N, 1, H, W).
    deviation : Tensor
        The deviation of the grain, shape (N, 1, 1, 1), above 0.
    grain_width : float
        The width of the grain in pixels; grain that is wider than a pixel is whitened first.

    Returns
    -------
    Tensor
        Shape (N, 1, H, W).
    """
    residual = (seen - restored) / deviation
    scale = deviation.log()
    if grain_width:
        amplitude = _amplitude(grain_width, *residual.shape[2:]).to(residual.device)
        residual = torch.fft.ifft2(torch.fft.fft2(residual) / amplitude).real
        scale = scale + amplitude.log().mean()
    return 0.5 * residual.square() + scale + 0.5 * math.log(2 * math.pi)


def _amplitude(width: float, height: int, breadth: int) -> Tensor:
    """The amplitude of grain of `width` at each frequency of a periodic image, relative to white noise."""
    kernel = torch.from_numpy(grain_kernel(width))
    rows, columns = torch.fft.fft(kernel, height).abs(), torch.fft.fft(kernel, breadth).abs()
    amplitude: Tensor = (rows[:, None] * columns).clamp(min=FAINTEST)
    return amplitude

"""Likelihood heads p(x | z): each owns its `log_prob` and its `sample`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.settings.specs import ModelSpec

SERIES = 0.3
"""Below this the continuous Bernoulli is computed by its series: its formula divides by what goes to zero."""
MIN_SIGMA = 1 / 255
"""Pixels are known to one grey level only; a smaller learned sigma would buy nats without knowing more."""


@dataclass(frozen=True)
class Bernoulli:
    """Each pixel is on with probability sigmoid(logits), shape (N, C, H, W).

    With grey targets the log-probability is the classic binary cross-entropy, which is no normalised likelihood.
    """

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean image in [0, 1], shape (N, C, H, W)."""
        return torch.sigmoid(self.logits)

    def log_prob(self, image: Tensor) -> Tensor:
        """Log-probability of every pixel, nats, shape (N, C, H, W)."""
        logits = self.logits
        if logits.requires_grad:
            return -F.binary_cross_entropy_with_logits(logits, image, reduction="none")
        # The fused form of training cancels digits where logits are large.
        return -(logits.clamp(min=0) - logits * image + torch.log1p(torch.exp(-logits.abs())))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One binary image per row, shape (N, C, H, W)."""
        return torch.bernoulli(self.mean, generator=generator)


@dataclass(frozen=True)
class ContinuousBernoulli:
    """Grey values in [0, 1] with the density a·exp(a·x) / (exp(a) − 1), where a is `logits`, shape (N, C, H, W).

    The likelihood that binary cross-entropy of grey pixels only resembles: the same but for the constant that makes
    it integrate to one (Loaiza-Ganem & Cunningham, "The continuous Bernoulli", NeurIPS 2019).
    """

    logits: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean image in [0, 1], shape (N, C, H, W); not sigmoid(logits), but nearer to one half."""
        small = self.logits.abs() < SERIES
        safe = torch.where(small, torch.ones_like(self.logits), self.logits)
        a = self.logits
        return torch.where(small, 0.5 + a / 12 - a**3 / 720, 1 / (1 - torch.exp(-safe)) - 1 / safe)

    def log_prob(self, image: Tensor) -> Tensor:
        """Log-density of every pixel, nats, shape (N, C, H, W)."""
        size = self.logits.abs()
        small = size < SERIES
        safe = torch.where(small, torch.ones_like(size), size)
        series = -size / 2 + size.square() / 24 - size**4 / 2880
        normaliser = torch.where(small, series, torch.log((1 - torch.exp(-safe)) / safe))
        return self.logits * image - self.logits.clamp(min=0) - normaliser

    @staticmethod
    def logits_of(mean: Tensor) -> Tensor:
        """The logits, from −1000 to 1000, at which the mean is `mean`, any shape, in (0, 1); by bisection, float64."""
        low = torch.full_like(mean, -1000, dtype=torch.float64)
        high = -low
        for _ in range(60):
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One image per row, shape (N, C, H, W), by inversion of the distribution function."""
        uniform = torch.rand(self.logits.shape, generator=generator, device=self.logits.device)
        # Below 0.001 the density is as good as uniform; the formula is turned so that exp never overflows.
        size = self.logits.abs().clamp(min=1e-3)
        inverted = (1 + torch.log(uniform + (1 - uniform) * torch.exp(-size)) / size).clamp(0, 1)
        return torch.where(self.logits > 0, inverted, 1 - inverted)


@dataclass(frozen=True)
class Gaussian:
    """Independent normal values with `mean` (N, C, H, W) and `sigma`, which broadcasts to it.

    Pixels lie in 0 to 1; vectors are standardised and anywhere.
    """

    mean: Tensor
    sigma: Tensor

    def log_prob(self, image: Tensor) -> Tensor:
        """Log-density of every pixel, nats, shape (N, C, H, W)."""
        scaled = (image - self.mean) / self.sigma
        return -0.5 * scaled.square() - self.sigma.log() - 0.5 * math.log(2 * math.pi)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One image per row, shape (N, C, H, W); not clipped to [0, 1]."""
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device)
        return self.mean + self.sigma * noise


Likelihood = Bernoulli | ContinuousBernoulli | Gaussian


def raw_channels(spec: ModelSpec) -> int:
    """How many channels the decoder has to deliver per image channel: two where sigma is learned."""
    return 2 if spec.likelihood in {"gaussian-image", "gaussian-pixel"} else 1


def likelihood(spec: ModelSpec, raw: Tensor) -> Likelihood:
    """Read the decoder's output `raw`, shape (N, raw_channels * C, H, W), as a distribution over images."""
    if spec.likelihood == "bernoulli":
        return Bernoulli(raw)
    if spec.likelihood == "continuous-bernoulli":
        return ContinuousBernoulli(raw)
    if spec.likelihood == "gaussian":
        return Gaussian(_mean(spec, raw), raw.new_tensor(spec.sigma))
    mean, spread = raw.chunk(2, dim=1)
    if spec.likelihood == "gaussian-image":
        spread = spread.mean(dim=(1, 2, 3), keepdim=True)
    return Gaussian(_mean(spec, mean), MIN_SIGMA + F.softplus(spread))


def least_distortion(spec: ModelSpec) -> float:
    """The least that −log p(x | z) can be, nats per value."""
    if spec.likelihood == "bernoulli":
        return 0.0
    sigma = spec.sigma if spec.likelihood == "gaussian" else MIN_SIGMA
    return math.log(sigma) + 0.5 * math.log(2 * math.pi)


def _mean(spec: ModelSpec, raw: Tensor) -> Tensor:
    """Pixels end at black and white; standardised features end nowhere."""
    return raw if spec.vectors else torch.sigmoid(raw)

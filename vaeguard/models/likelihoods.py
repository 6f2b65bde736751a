"""The likelihoods p(x | z): one class each, listed in one table.

The facts that settings and reports need are in `settings.likelihoods`, which does not import torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from typing import Self

    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.models.shares import Draws
    from vaeguard.settings.model import ModelSpec

SERIES = 0.3
"""Logits below this are computed by the series of the continuous Bernoulli; its formula approaches 0 / 0."""
MIN_SIGMA = 1 / 255
"""Pixels are known only to one grey level; a smaller learned sigma would gain nats without better knowledge."""


def between_levels(image: Tensor, part: Tensor | float) -> Tensor:
    """Grey values of 256 levels in [0, 1], moved towards the next level by `part` in [0, 1].

    A density has no bound at isolated levels; noise of one level spreads them.
    """
    return (255 * image + part) / 256


class Likelihood(ABC):
    """A distribution over images, given the output of the decoder; tensors are (N, C, H, W) unless stated.

    Attributes
    ----------
    channels : int
        Channels of the decoder's output for each channel of an image.
    bounded : bool
        Whether `log_prob` has an upper bound; without it the loss can fall forever and training diverge.
    start : callable or None
        Gives the decoder's output whose mean is a given image in (0, 1), at which a fresh decoder has to start; None if
        a decoder learns the mean image by itself.
    pixels : str
        How `observed` treats pixels: `binarised` or `dequantised`.
    """

    channels: ClassVar[int] = 1
    bounded: ClassVar[bool] = False
    start: ClassVar[Any] = None
    pixels: ClassVar[str] = "dequantised"

    @classmethod
    @abstractmethod
    def from_decoder(cls, raw: Tensor, spec: ModelSpec) -> Self:
        """Read the decoder's output `raw`, shape (N, channels * C, H, W), as a distribution."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The mean image."""

    @abstractmethod
    def log_prob(self, image: Tensor) -> Tensor:
        """Log-probability or log-density of every pixel, nats."""

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One image per row."""

    @classmethod
    @abstractmethod
    def least_distortion(cls, spec: ModelSpec) -> float:
        """The least possible −log p(x | z), nats per value."""

    @classmethod
    def for_training(cls, image: Tensor, draws: Draws) -> Tensor:  # noqa: ARG003
        """`image` in [0, 1] as an observation for training."""
        return image

    @classmethod
    def for_scoring(cls, image: Tensor) -> Tensor:
        """`image` in [0, 1] as an observation for scoring, the same at every call."""
        return image

    @classmethod
    def observed(cls, images: npt.NDArray[np.uint8], generator: np.random.Generator) -> npt.NDArray[np.float32]:
        """Images, uint8, as float32 values in [0, 1] that suit a true density.

        Uniform noise of one grey level is added (Theis et al., "A note on the evaluation of generative models", 2016):
        a bound of −log p(x) then also holds for 8-bit images.
        """
        return (images + generator.random(images.shape, dtype=np.float32)) / np.float32(256)


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Each pixel is on with probability sigmoid(logits), shape (N, C, H, W).

    For grey targets, the log-probability is the classic binary cross-entropy, which is no normalised likelihood.
    """

    logits: Tensor
    bounded: ClassVar[bool] = True
    pixels: ClassVar[str] = "binarised"

    @classmethod
    def from_decoder(cls, raw: Tensor, spec: ModelSpec) -> Self:  # noqa: ARG003
        """The decoder's output is the logits."""
        return cls(raw)

    @property
    def mean(self) -> Tensor:
        """The mean image in [0, 1], shape (N, C, H, W)."""
        return torch.sigmoid(self.logits)

    def log_prob(self, image: Tensor) -> Tensor:
        """Log-probability of every pixel, nats, shape (N, C, H, W)."""
        logits = self.logits
        if logits.requires_grad:
            return -F.binary_cross_entropy_with_logits(logits, image, reduction="none")
        # PyTorch's fused form loses digits if logits are large.
        return -(logits.clamp(min=0) - logits * image + torch.log1p(torch.exp(-logits.abs())))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One binary image per row, shape (N, C, H, W)."""
        return torch.bernoulli(self.mean, generator=generator)

    @classmethod
    def least_distortion(cls, spec: ModelSpec) -> float:  # noqa: ARG003
        """No probability is above 1."""
        return 0.0

    @classmethod
    def observed(cls, images: npt.NDArray[np.uint8], generator: np.random.Generator) -> npt.NDArray[np.float32]:
        """Binary pixels: each is on with its grey value as probability (Salakhutdinov & Murray, 2008)."""
        uniform = generator.random(images.shape, dtype=np.float32)
        return (uniform < images / np.float32(255)).astype(np.float32)


@dataclass(frozen=True)
class ContinuousBernoulli(Likelihood):
    """Grey values in [0, 1] with the density a·exp(a·x) / (exp(a) − 1), where a is `logits`, shape (N, C, H, W).

    It is the binary cross-entropy of grey pixels with the constant that makes the density integrate to one
    (Loaiza-Ganem & Cunningham, "The continuous Bernoulli", NeurIPS 2019).
    """

    logits: Tensor

    @classmethod
    def from_decoder(cls, raw: Tensor, spec: ModelSpec) -> Self:  # noqa: ARG003
        """The decoder's output is the logits."""
        return cls(raw)

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

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One image per row, shape (N, C, H, W), by inversion of the distribution function."""
        uniform = torch.rand(self.logits.shape, generator=generator, device=self.logits.device)
        # Below 0.001 the density is nearly uniform; the sign of the exponent prevents an overflow.
        size = self.logits.abs().clamp(min=1e-3)
        inverted = (1 + torch.log(uniform + (1 - uniform) * torch.exp(-size)) / size).clamp(0, 1)
        return torch.where(self.logits > 0, inverted, 1 - inverted)

    @classmethod
    def least_distortion(cls, spec: ModelSpec) -> float:  # noqa: ARG003
        """There is no least one: the density at the ends grows with the logits."""
        return -math.inf

    @staticmethod
    def start(mean: Tensor) -> Tensor:
        """The logits, from −1000 to 1000, whose mean is `mean` in (0, 1), of any shape; by bisection, float64.

        Logits of constant and of varying pixels lie hundreds apart. If the decoder first has to learn those of black
        borders, its hidden units saturate, and no latent unit is ever used: on MNIST, 0 of 50 units after 15 epochs,
        but all 50 with this start.
        """
        low = torch.full_like(mean, -1000, dtype=torch.float64)
        high = -low
        for _ in range(60):
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    @classmethod
    def for_training(cls, image: Tensor, draws: Draws) -> Tensor:
        """Values between the grey levels, drawn again for every batch."""
        return between_levels(image, draws.uniform(*image.shape))

    @classmethod
    def for_scoring(cls, image: Tensor) -> Tensor:
        """The middle between two grey levels."""
        return between_levels(image, 0.5)


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Independent normal values with `location` (N, C, H, W), their mean, and `sigma`, which broadcasts to it.

    Pixels lie between 0 and 1; scaled vectors are unbounded. This class takes sigma from the settings.
    """

    location: Tensor
    sigma: Tensor

    @classmethod
    def from_decoder(cls, raw: Tensor, spec: ModelSpec) -> Self:
        """The decoder's output is the mean; for pixels, it is the logits of the mean."""
        return cls(cls._location(raw, spec), raw.new_tensor(spec.fixed_sigma))

    @staticmethod
    def _location(raw: Tensor, spec: ModelSpec) -> Tensor:
        """Pixels are bounded by black and white; scaled features are unbounded."""
        return torch.sigmoid(raw) if spec.view.unit else raw

    @property
    def mean(self) -> Tensor:
        """The mean image, shape (N, C, H, W)."""
        return self.location

    def log_prob(self, image: Tensor) -> Tensor:
        """Log-density of every pixel, nats, shape (N, C, H, W)."""
        scaled = (image - self.location) / self.sigma
        return -0.5 * scaled.square() - self.sigma.log() - 0.5 * math.log(2 * math.pi)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One image per row, shape (N, C, H, W); not clipped to [0, 1]."""
        noise = torch.randn(self.location.shape, generator=generator, device=self.location.device)
        return self.location + self.sigma * noise

    @classmethod
    def least_distortion(cls, spec: ModelSpec) -> float:
        """The distortion of a value at the mean."""
        return math.log(spec.fixed_sigma) + 0.5 * math.log(2 * math.pi)


class GaussianPixel(Gaussian):
    """A Gaussian that learns a sigma for each pixel."""

    channels: ClassVar[int] = 2

    @classmethod
    def from_decoder(cls, raw: Tensor, spec: ModelSpec) -> Self:
        """The decoder's output is the mean, followed by the spread, from which sigma is computed."""
        mean, spread = raw.chunk(2, dim=1)
        spread = cls._pooled(spread)
        return cls(cls._location(mean, spec), MIN_SIGMA + F.softplus(spread))

    @staticmethod
    def _pooled(spread: Tensor) -> Tensor:
        return spread

    @classmethod
    def least_distortion(cls, spec: ModelSpec) -> float:  # noqa: ARG003
        """The distortion of a value at the mean with the smallest sigma."""
        return math.log(MIN_SIGMA) + 0.5 * math.log(2 * math.pi)


class GaussianImage(GaussianPixel):
    """A Gaussian that learns a sigma for each image."""

    @staticmethod
    def _pooled(spread: Tensor) -> Tensor:
        return spread.mean(dim=(1, 2, 3), keepdim=True)


LIKELIHOODS: dict[str | None, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "gaussian-image": GaussianImage,
    "gaussian-pixel": GaussianPixel,
}
"""All likelihoods, by their names in `ModelSpec.likelihood`."""

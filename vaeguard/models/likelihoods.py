"""The likelihoods p(x | z): one class each, in one table, that owns all that is particular to it.

What settings and reports say of a likelihood is in `settings.likelihoods`, which needs no torch.
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

    from vaeguard.settings.model import ModelSpec

SERIES = 0.3
"""Below this the continuous Bernoulli is computed by its series: its formula divides by what goes to zero."""
MIN_SIGMA = 1 / 255
"""Pixels are known to one grey level only; a smaller learned sigma would buy nats without knowing more."""


def between_levels(image: Tensor, part: Tensor | float) -> Tensor:
    """Grey values of 256 levels, in [0, 1], moved towards the next level by `part` in [0, 1].

    Levels are points, on which a density has no bound; noise of one level spreads them.
    """
    return (255 * image + part) / 256


class Likelihood(ABC):
    """A distribution over images, given the output of the decoder; tensors are (N, C, H, W) unless stated.

    Attributes
    ----------
    channels : int
        Channels that the decoder delivers for each channel of an image.
    bounded : bool
        Whether `log_prob` has an upper bound; without one a loss can fall for ever, and training diverge.
    start : callable or None
        The decoder's output at which the mean is a given image in (0, 1), where a fresh decoder has to begin there;
        None where it learns the mean image by itself.
    pixels : str
        What `observed` makes of pixels: `binarised` or `dequantised`.
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
        """The least that −log p(x | z) can be, nats per value."""

    @classmethod
    def for_training(cls, image: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG003
        """What `image` in [0, 1] is as an observation to learn from."""
        return image

    @classmethod
    def for_scoring(cls, image: Tensor) -> Tensor:
        """What `image` in [0, 1] is as an observation to score, the same at every call."""
        return image

    @classmethod
    def observed(cls, images: npt.NDArray[np.uint8], generator: np.random.Generator) -> npt.NDArray[np.float32]:
        """Images, uint8, as values that the likelihood is a true one of, float32 in [0, 1].

        Uniform noise of one grey level is added (Theis et al., "A note on the evaluation of generative models", 2016):
        a bound of −log p(x) then holds for 8-bit images too.
        """
        return (images + generator.random(images.shape, dtype=np.float32)) / np.float32(256)


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Each pixel is on with probability sigmoid(logits), shape (N, C, H, W).

    With grey targets the log-probability is the classic binary cross-entropy, which is no normalised likelihood.
    """

    logits: Tensor
    bounded: ClassVar[bool] = True
    pixels: ClassVar[str] = "binarised"

    @classmethod
    def from_decoder(cls, raw: Tensor, spec: ModelSpec) -> Self:  # noqa: ARG003
        """The decoder delivers the logits."""
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
        # The fused form of training cancels digits where logits are large.
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
        """Black and white: a pixel is on with its grey value as probability (Salakhutdinov & Murray, 2008)."""
        uniform = generator.random(images.shape, dtype=np.float32)
        return (uniform < images / np.float32(255)).astype(np.float32)


@dataclass(frozen=True)
class ContinuousBernoulli(Likelihood):
    """Grey values in [0, 1] with the density a·exp(a·x) / (exp(a) − 1), where a is `logits`, shape (N, C, H, W).

    The likelihood that binary cross-entropy of grey pixels only resembles: the same but for the constant that makes
    it integrate to one (Loaiza-Ganem & Cunningham, "The continuous Bernoulli", NeurIPS 2019).
    """

    logits: Tensor

    @classmethod
    def from_decoder(cls, raw: Tensor, spec: ModelSpec) -> Self:  # noqa: ARG003
        """The decoder delivers the logits."""
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
        # Below 0.001 the density is as good as uniform; the formula is turned so that exp never overflows.
        size = self.logits.abs().clamp(min=1e-3)
        inverted = (1 + torch.log(uniform + (1 - uniform) * torch.exp(-size)) / size).clamp(0, 1)
        return torch.where(self.logits > 0, inverted, 1 - inverted)

    @classmethod
    def least_distortion(cls, spec: ModelSpec) -> float:  # noqa: ARG003
        """There is none: the density at the ends grows with the logits."""
        return -math.inf

    @staticmethod
    def start(mean: Tensor) -> Tensor:
        """The logits, from −1000 to 1000, at which the mean is `mean`, any shape, in (0, 1); by bisection, float64.

        The logits of such pixels lie hundreds apart. If the decoder has to learn those of ever black borders first,
        its hidden units saturate, and no latent unit is ever used: on MNIST 0 of 50 in 15 epochs, all with this start.
        """
        low = torch.full_like(mean, -1000, dtype=torch.float64)
        high = -low
        for _ in range(60):
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    @classmethod
    def for_training(cls, image: Tensor, generator: torch.Generator) -> Tensor:
        """The density is one of values between the grey levels, drawn anew for every batch."""
        return between_levels(image, torch.rand(image.shape, generator=generator, device=image.device))

    @classmethod
    def for_scoring(cls, image: Tensor) -> Tensor:
        """The middle between two grey levels."""
        return between_levels(image, 0.5)


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Independent normal values with `location` (N, C, H, W), their mean, and `sigma`, which broadcasts to it.

    Pixels lie in 0 to 1; vectors are standardised and anywhere. Here sigma is that of the settings.
    """

    location: Tensor
    sigma: Tensor

    @classmethod
    def from_decoder(cls, raw: Tensor, spec: ModelSpec) -> Self:
        """The decoder delivers the mean, of pixels as logits."""
        return cls(cls._location(raw, spec), raw.new_tensor(spec.sigma))

    @staticmethod
    def _location(raw: Tensor, spec: ModelSpec) -> Tensor:
        """Pixels end at black and white; standardised features end nowhere."""
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
        """That of a value at the mean."""
        return math.log(spec.sigma) + 0.5 * math.log(2 * math.pi)


class GaussianPixel(Gaussian):
    """A Gaussian that learns the sigma of every pixel."""

    channels: ClassVar[int] = 2

    @classmethod
    def from_decoder(cls, raw: Tensor, spec: ModelSpec) -> Self:
        """The decoder delivers the mean, and after it what becomes sigma."""
        mean, spread = raw.chunk(2, dim=1)
        spread = cls._pooled(spread)
        return cls(cls._location(mean, spec), MIN_SIGMA + F.softplus(spread))

    @staticmethod
    def _pooled(spread: Tensor) -> Tensor:
        return spread

    @classmethod
    def least_distortion(cls, spec: ModelSpec) -> float:  # noqa: ARG003
        """That of a value at the mean with the smallest sigma."""
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
"""All likelihoods by the name that `ModelSpec.likelihood` has."""

"""The VAEs: an encoder made of stages, two heads for the posterior, a decoder that mirrors the encoder."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from vaeguard.models.likelihoods import LIKELIHOODS, Likelihood
from vaeguard.models.shares import BatchNorm
from vaeguard.settings.model import PSEUDO_HEADS

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.settings.model import ModelSpec

ACTIVATIONS = {"relu": nn.ReLU, "leaky-relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU, "tanh": nn.Tanh}
MAX_LOGVAR = 15.0
"""Keeps exp(logvar) finite for images far from the training data; no trained posterior comes near it."""


class Posterior(NamedTuple):
    """The Gaussian q(z | x): `mean` and `logvar`, each (N, latent); `logvar` is None for an autoencoder."""

    mean: Tensor
    logvar: Tensor | None

    def sample(self, noise: Tensor) -> Tensor:
        """The reparametrised sample for standard normal `noise`, shape (N, latent)."""
        if self.logvar is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.logvar) * noise


class VAE(nn.Module):
    """A variational autoencoder (Kingma & Welling, 2014) for images of one shape, or for scaled vectors.

    Every `image` in [0, 1] may also be vectors (N, 1, 1, F), scaled by `Whiten`.

    Attributes
    ----------
    family : type of Likelihood
        The likelihood that `spec` names.
    stages : nn.ModuleList
        The encoder's layers; their outputs are the hidden activations that RaPP compares.
    prior_means : (classes, latent) parameter or None
        The learned mean of each normal class, if `spec.prior` is `per-class`.
    class_head : nn.Linear or None
        From the posterior mean to logits of the normal classes, if `spec.guided`.
    pseudo_head : nn.Linear or None
        From the posterior mean to logits of the pseudo-classes, clustering by clustering.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.family = LIKELIHOODS[spec.likelihood]
        build = {"mlp": _mlp, "conv": _conv}[spec.kind or ""]
        self.stages, self.decoder, features = build(spec)
        self.posterior_mean = nn.Linear(features, spec.latent_size)
        self.posterior_logvar = None if spec.autoencoder else nn.Linear(features, spec.latent_size)
        n_classes = len(spec.classes)
        self.prior_means = nn.Parameter(torch.randn(n_classes, spec.latent_size)) if spec.prior == "per-class" else None
        self.class_head = nn.Linear(spec.latent_size, n_classes) if spec.guided else None
        n_pseudo = PSEUDO_HEADS * spec.pseudo_classes
        self.pseudo_head = nn.Linear(spec.latent_size, n_pseudo) if n_pseudo else None

    def hidden(self, image: Tensor) -> list[Tensor]:
        """Activations after each stage of the encoder for `image` (N, C, H, W) in [0, 1]."""
        activations = []
        for stage in self.stages:
            image = stage(image)
            activations.append(image)
        return activations

    def posterior(self, image: Tensor) -> Posterior:
        """q(z | x) for `image` (N, C, H, W) in [0, 1]."""
        return self.posterior_from(self.hidden(image)[-1])

    def posterior_from(self, features: Tensor) -> Posterior:
        """q(z | x) from the last hidden activation."""
        features = features.flatten(1)
        mean = _precise(self.posterior_mean(features))
        if self.posterior_logvar is None:
            return Posterior(mean, None)
        return Posterior(mean, _precise(self.posterior_logvar(features)).clamp(max=MAX_LOGVAR))

    def pseudo_logits(self, mean: Tensor) -> Tensor:
        """Logits of the pseudo-classes at the posterior `mean` (N, latent), shape (N, PSEUDO_HEADS, clusters)."""
        assert self.pseudo_head is not None
        logits: Tensor = _precise(self.pseudo_head(mean))
        return logits.view(logits.shape[0], PSEUDO_HEADS, -1)

    @torch.no_grad()
    def start_at(self, output: Tensor) -> None:
        """Let the decoder of a fresh `mlp` start at `output` (channels * C, H, W), the same for every latent."""
        last = self.decoder[-2]
        assert isinstance(last, nn.Linear)
        last.bias.copy_(output.flatten())

    def likelihood(self, latent: Tensor) -> Likelihood:
        """p(x | z) for `latent` (N, latent)."""
        return self.family.from_decoder(_precise(self.decoder(latent)), self.spec)


def _precise(values: Tensor) -> Tensor:
    """At least float32: bfloat16 has too few digits for rates and for sums over thousands of pixels."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _stage(spec: ModelSpec, *layers: nn.Module) -> nn.Sequential:
    dropout = [nn.Dropout(spec.dropout)] if spec.dropout else []
    return nn.Sequential(*layers, ACTIVATIONS[spec.activation_name](), *dropout)


def _mlp(spec: ModelSpec) -> tuple[nn.ModuleList, nn.Sequential, int]:
    channels, height, width = spec.vae_shape
    sizes = [channels * height * width, *spec.hidden_sizes]
    stages = [_stage(spec, nn.Linear(a, b)) for a, b in pairwise(sizes)]
    stages[0].insert(0, nn.Flatten())
    back = [spec.latent_size, *reversed(spec.hidden_sizes)]
    mirrored = [_stage(spec, nn.Linear(a, b)) for a, b in pairwise(back)]
    raw = (LIKELIHOODS[spec.likelihood].channels * channels, height, width)
    decoder = nn.Sequential(*mirrored, nn.Linear(back[-1], math.prod(raw)), nn.Unflatten(1, raw))
    return nn.ModuleList(stages), decoder, sizes[-1]


def _conv(spec: ModelSpec) -> tuple[nn.ModuleList, nn.Sequential, int]:
    channels, height, width = spec.vae_shape
    grid = (math.ceil(height / 16), math.ceil(width / 16))
    widths = [channels, *(spec.width * factor for factor in (1, 2, 4, 8))]
    stages = [_down(spec, a, b, norm=i > 0) for i, (a, b) in enumerate(pairwise(widths))]
    stages[0].insert(0, Pad(16 * grid[0], 16 * grid[1]))
    top = (widths[-1], *grid)
    ups = [_up(spec, a, b) for a, b in pairwise(widths[:0:-1])]
    decoder = nn.Sequential(
        nn.Linear(spec.latent_size, math.prod(top)),
        nn.Unflatten(1, top),
        *ups,
        nn.ConvTranspose2d(widths[1], LIKELIHOODS[spec.likelihood].channels * channels, 4, 2, 1),
        Crop(height, width),
    )
    return nn.ModuleList(stages), decoder, math.prod(top)


def _down(spec: ModelSpec, inputs: int, outputs: int, *, norm: bool) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, 4, 2, 1), *([BatchNorm(outputs)] if norm else [])]
    return _stage(spec, *layers)


def _up(spec: ModelSpec, inputs: int, outputs: int) -> nn.Sequential:
    return _stage(spec, nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), BatchNorm(outputs))


class Pad(nn.Module):
    """Pad with zeros, evenly on both sides, to `height` x `width`."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, h, w) to (N, C, height, width)."""
        rows, columns = self.height - image.shape[2], self.width - image.shape[3]
        return F.pad(image, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class Crop(nn.Module):
    """Undo `Pad`: keep the middle `height` x `width`."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, height, width)."""
        top, left = (image.shape[2] - self.height) // 2, (image.shape[3] - self.width) // 2
        return image[:, :, top : top + self.height, left : left + self.width]

"""One pass of the VAE over a batch: all that terms look at, each computed once, when it is first asked for."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from vaeguard.models.objective import distortion, nearest_kl
from vaeguard.models.reference import features_of, movement_of
from vaeguard.models.sums import row_mean, row_sum, sum_last

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.models.likelihoods import Likelihood
    from vaeguard.models.reference import Reference
    from vaeguard.models.vae import VAE, Posterior

SMALL, NO_DOUBT = 0.01, 1e-30
"""Up to the one, three terms of the series of log(1 + x) are as good as float32; below the other, no doubt is left."""


class Inference:
    """What a VAE finds in N images.

    Parameters
    ----------
    vae : VAE
        The model.
    image : float32 (N, C, H, W)
        Images as the VAE reads them.
    reference : Reference or None
        Statistics of normal images, where the model has any.
    noise : float32 (samples, latent) or None
        What latents are sampled with, where the model samples any.
    """

    def __init__(
        self, vae: VAE, image: Tensor, reference: Reference | None = None, noise: Tensor | None = None
    ) -> None:
        self.vae, self.image = vae, image
        self._reference, self._noise = reference, noise

    @property
    def reference(self) -> Reference:
        """Statistics of normal images; a model of patches has none."""
        assert self._reference is not None
        return self._reference

    @cached_property
    def hidden(self) -> list[Tensor]:
        """Activations after each stage of the encoder."""
        return self.vae.hidden(self.image)

    @cached_property
    def posterior(self) -> Posterior:
        """q(z | x)."""
        return self.vae.posterior_from(self.hidden[-1])

    @cached_property
    def likelihood(self) -> Likelihood:
        """p(x | z) at the posterior mean."""
        return self.vae.likelihood(self.posterior.mean)

    @cached_property
    def restored(self) -> Tensor:
        """The decoder's mean image."""
        return self.likelihood.mean

    @cached_property
    def error(self) -> Tensor:
        """Squared error of every pixel, (N, C, H, W)."""
        return (self.image - self.restored).square()

    @cached_property
    def rate(self) -> Tensor:
        """KL(q(z | x) ‖ p(z)), nats, (N,)."""
        return nearest_kl(self.vae, self.posterior)

    @cached_property
    def mean_error(self) -> Tensor:
        """Squared error, mean over pixels, (N,)."""
        return row_mean(self.error)

    @cached_property
    def observed(self) -> Tensor:
        """What the likelihood is one of."""
        return self.vae.family.for_scoring(self.image)

    @cached_property
    def neg_elbo(self) -> Tensor:
        """Distortion at the posterior mean + rate, nats, (N,)."""
        return distortion(self.likelihood, self.observed) + self.rate

    @cached_property
    def again(self) -> list[Tensor]:
        """Activations of the encoder where it reads its own reconstruction."""
        return self.vae.hidden(self.restored)

    @cached_property
    def moved(self) -> Tensor:
        """How far the activations move on re-encoding, mean square per layer, summed, (N,)."""
        moved = [row_mean((a - b).square()) for a, b in zip(self.hidden, self.again, strict=True)]
        return torch.stack(moved).sum(0)

    @cached_property
    def movement(self) -> Tensor:
        """How activations and posterior mean move on re-encoding, see `movement_of`, (N, D)."""
        mean_again = self.vae.posterior_from(self.again[-1]).mean
        return movement_of(self.hidden, self.again, self.posterior.mean, mean_again)

    @cached_property
    def features(self) -> Tensor:
        """The last activations, see `features_of`, (N, D)."""
        return features_of(self.hidden)

    @cached_property
    def pseudo_entropy(self) -> Tensor:
        """Entropy of the pseudo-class probabilities, nats, mean over the clusterings, (N,)."""
        return row_mean(_entropy(self.vae.pseudo_logits(self.posterior.mean)))

    @cached_property
    def class_logits(self) -> Tensor:
        """Logits of the normal classes, (N, classes)."""
        assert self.vae.class_head is not None
        logits: Tensor = self.vae.class_head(self.posterior.mean)
        return logits

    @cached_property
    def class_surprise(self) -> Tensor:
        """−log of the largest class probability, nats, (N,)."""
        return surprise_of(self.class_logits)

    @cached_property
    def log_weights(self) -> Tensor:
        """Log p(x, z) − log q(z | x) of latents drawn with the same noise for every image, nats, (samples, N).

        The prior is the standard normal.
        """
        assert self._noise is not None
        weights = []
        for noise in self._noise:
            latent = self.posterior.sample(noise.expand_as(self.posterior.mean))
            log_ratio = 0.5 * row_sum(noise.square() - latent.square())  # log p(z) − log q(z | x), but for sigma
            if self.posterior.logvar is not None:
                log_ratio = log_ratio + 0.5 * row_sum(self.posterior.logvar)
            weights.append(log_ratio - distortion(self.vae.likelihood(latent), self.observed))
        return torch.stack(weights)

    @cached_property
    def neg_iwae(self) -> Tensor:
        """The importance-weighted bound (Burda et al., 2016), nats, (N,)."""
        return math.log(len(self.log_weights)) - self.log_weights.logsumexp(0)


def surprise_of(logits: Tensor) -> Tensor:
    """−log of the largest probability, nats, (N,), that `logits` (N, K) give.

    To five digits or more, which decide between images that are classified with hardly any doubt: what the other
    classes have is added up without the one of the largest, and log(1 + x) is taken by its series where x is small.
    """
    largest, at = logits.max(1, keepdim=True)
    is_largest = torch.arange(logits.shape[1], device=logits.device) == at
    others = sum_last((logits - largest).exp().masked_fill(is_largest, 0.0))
    # log1p is no operator of ONNX, and is written there as the logarithm of a rounded sum.
    others = others.clamp(min=NO_DOUBT)
    series = others - others.square() / 2 + others**3 / 3
    return torch.where(others < SMALL, series, (1 + others).log())


def _entropy(logits: Tensor) -> Tensor:
    """Entropy, nats, of the probabilities that `logits` (..., K) give; one exponential each, they are thousands."""
    shifted = logits - logits.amax(-1, keepdim=True)
    weights = shifted.exp()
    total = sum_last(weights)
    return total.log() - sum_last(weights * shifted) / total

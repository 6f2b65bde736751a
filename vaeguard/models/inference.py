"""One pass of the VAE over a batch: the quantities behind the terms, each computed once, on first use."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from vaeguard.models.objective import distortion, nearest_kl
from vaeguard.models.reference import features_of, movement_of
from vaeguard.models.region import outside_grey
from vaeguard.models.sums import row_mean, row_sum, sum_last

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.models.likelihoods import Likelihood
    from vaeguard.models.reference import Reference
    from vaeguard.models.vae import VAE, Posterior

SMALL = 0.01
"""Below this, three terms of the series of log(1 + x) are as precise as float32."""
LEAST_DOUBT = 1e-30
"""The least probability that is left to the classes which are not the likeliest."""


class Inference:
    """The quantities that a VAE computes for N images.

    Parameters
    ----------
    vae : VAE
        The model.
    image : float32 (N, C, H, W)
        Input of the VAE.
    reference : Reference or None
        Statistics of normal images; None for a model of patches or features.
    noise : float32 (samples, latent) or None
        Noise of sampled latents; None if the model samples none.
    inside : bool (N or 1, 1, H, W) or None
        The pixels that count; None if all do.
    """

    def __init__(
        self,
        vae: VAE,
        image: Tensor,
        reference: Reference | None = None,
        noise: Tensor | None = None,
        inside: Tensor | None = None,
    ) -> None:
        self.vae, self.image = vae, image
        self._reference, self._noise, self._inside = reference, noise, inside

    @property
    def reference(self) -> Reference:
        """Statistics of normal images; a model of patches or features has none."""
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
        """The decoder's mean image; pixels that do not count are as in the input."""
        mean = self.likelihood.mean
        return mean if self._inside is None else outside_grey(mean, self._inside)

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
        mean = row_mean(self.error)
        return mean if self._inside is None else mean / row_mean(self._inside.float())

    @cached_property
    def observed(self) -> Tensor:
        """The images as the likelihood takes them."""
        return self.vae.family.for_scoring(self.image)

    @cached_property
    def neg_elbo(self) -> Tensor:
        """Distortion at the posterior mean + rate, nats, (N,)."""
        return self.distortion + self.rate

    @cached_property
    def distortion(self) -> Tensor:
        """−log p(x | z) at the posterior mean, nats, (N,)."""
        spec = self.vae.spec
        if not (spec.features and spec.likelihood == "gaussian"):
            return distortion(self.likelihood, self.observed, self._inside)
        # The sum of squared errors is there already, and thousands of cells make a second pass over them slow.
        least = self.image[0].numel() * self.vae.family.least_distortion(spec)
        return row_sum(self.error) / (2 * spec.fixed_sigma**2) + least

    @cached_property
    def again(self) -> list[Tensor]:
        """Activations of the encoder for its own reconstruction."""
        return self.vae.hidden(self.restored)

    @cached_property
    def moved(self) -> Tensor:
        """Movement of the activations on re-encoding: mean square per layer, summed, (N,)."""
        moved = [row_mean((a - b).square()) for a, b in zip(self.hidden, self.again, strict=True)]
        return torch.stack(moved).sum(0)

    @cached_property
    def movement(self) -> Tensor:
        """Movement of activations and posterior mean on re-encoding, see `movement_of`, (N, D)."""
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
        """Log p(x, z) − log q(z | x) for latents drawn with the same noise for every image, nats, (samples, N).

        The prior is the standard normal distribution.
        """
        assert self._noise is not None
        weights = []
        for noise in self._noise:
            latent = self.posterior.sample(noise.expand_as(self.posterior.mean))
            log_ratio = 0.5 * row_sum(
                noise.square() - latent.square()
            )  # log p(z) − log q(z | x) without the term in sigma
            if self.posterior.logvar is not None:
                log_ratio = log_ratio + 0.5 * row_sum(self.posterior.logvar)
            weights.append(log_ratio - distortion(self.vae.likelihood(latent), self.observed, self._inside))
        return torch.stack(weights)

    @cached_property
    def neg_iwae(self) -> Tensor:
        """The importance-weighted bound (Burda et al., 2016), nats, (N,)."""
        return math.log(len(self.log_weights)) - self.log_weights.logsumexp(0)


def surprise_of(logits: Tensor) -> Tensor:
    """−log of the largest probability of `logits` (N, K), nats, (N,).

    The result has at least five digits, which rank images that are classified with hardly any doubt: the other classes
    are summed without the largest one, and log(1 + x) is a series if x is small.
    """
    largest, at = logits.max(1, keepdim=True)
    is_largest = torch.arange(logits.shape[1], device=logits.device) == at
    others = sum_last((logits - largest).exp().masked_fill(is_largest, 0.0))
    # ONNX has no log1p, and an export would replace it by the logarithm of a rounded sum.
    others = others.clamp(min=LEAST_DOUBT)
    series = others - others.square() / 2 + others**3 / 3
    return torch.where(others < SMALL, series, (1 + others).log())


def _entropy(logits: Tensor) -> Tensor:
    """Entropy of the probabilities of `logits` (..., K), nats; K is large, so each exponential is computed once."""
    shifted = logits - logits.amax(-1, keepdim=True)
    weights = shifted.exp()
    total = sum_last(weights)
    return total.log() - sum_last(weights * shifted) / total

"""The objective, per example until the last line, so that training and scoring share one piece of code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from vaeguard.models.sums import row_sum, sum_last

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.models.likelihoods import Likelihood
    from vaeguard.models.vae import VAE, Posterior
    from vaeguard.settings.training import TrainSpec


ACTIVE_VARIANCE = 0.01
"""A latent unit counts as active if its posterior mean varies by more than this (Burda et al., 2016, section 5.2)."""


def gaussian_kl(posterior: Posterior, prior_mean: Tensor | float = 0.0) -> Tensor:
    """KL(q(z|x) ‖ N(prior_mean, 1)) of every latent unit, nats, shape (N, latent).

    Kingma & Welling (2014), appendix B. An autoencoder has no noise and no rate: zeros.
    """
    if posterior.logvar is None:
        return torch.zeros_like(posterior.mean)
    excess = torch.exp(posterior.logvar) - 1 - posterior.logvar
    return 0.5 * (excess + (posterior.mean - prior_mean).square())


def nearest_kl(vae: VAE, posterior: Posterior) -> Tensor:
    """The rate, nats, shape (N,); for a prior per class, the smallest over the classes."""
    if vae.prior_means is None:
        return row_sum(gaussian_kl(posterior))
    means = vae.prior_means.unsqueeze(0)
    logvar = None if posterior.logvar is None else posterior.logvar.unsqueeze(1)
    by_class = gaussian_kl(posterior._replace(mean=posterior.mean.unsqueeze(1), logvar=logvar), means)
    return sum_last(by_class).amin(1)


def distortion(likelihood: Likelihood, image: Tensor, inside: Tensor | None = None) -> Tensor:
    """−log p(x | z), nats, of all pixels or of those `inside`, bool (N or 1, 1, H, W); shape (N,)."""
    log_prob = likelihood.log_prob(image)
    return -row_sum(log_prob if inside is None else torch.where(inside, log_prob, 0.0))


@dataclass(frozen=True)
class Losses:
    """The losses of one pass over N examples.

    `distortion` (N,) and `kl` (N, latent) are in nats. A guided model has `class_loss` (N,), in nats, and `correct`
    (N,). A model with pseudo-classes has `pseudo_loss` (N,), in nats, the mean over the clusterings.
    """

    posterior_mean: Tensor
    distortion: Tensor
    kl: Tensor
    class_loss: Tensor | None = None
    correct: Tensor | None = None
    pseudo_loss: Tensor | None = None


def losses(
    vae: VAE, image: Tensor, target: Tensor, noise: Tensor, labels: Tensor | None, pseudo: Tensor | None = None
) -> Losses:
    """Encode `image`, decode one sample with `noise` (N, latent), and compare it with `target`; both (N, C, H, W).

    `labels` (N,) are the classes, and `pseudo` (N, PSEUDO_HEADS) the pseudo-classes, if any.
    """
    posterior = vae.posterior(image)
    means = vae.prior_means[labels] if vae.prior_means is not None else 0.0
    class_loss = correct = pseudo_loss = None
    if vae.class_head is not None and labels is not None:
        logits = vae.class_head(posterior.mean)
        class_loss = F.cross_entropy(logits, labels, reduction="none")
        correct = logits.argmax(1) == labels
    if vae.pseudo_head is not None and pseudo is not None:
        flat = vae.pseudo_logits(posterior.mean).flatten(0, 1)
        pseudo_loss = F.cross_entropy(flat, pseudo.flatten(), reduction="none").view(pseudo.shape).mean(1)
    return Losses(
        posterior_mean=posterior.mean,
        distortion=distortion(vae.likelihood(posterior.sample(noise)), target),
        kl=gaussian_kl(posterior, means),
        class_loss=class_loss,
        correct=correct,
        pseudo_loss=pseudo_loss,
    )


def objective(batch: Losses, spec: TrainSpec, beta: float, pixels: int, weights: Tensor | None = None) -> Tensor:
    """The loss of training: the mean over the examples of distortion + beta * rate (+ class losses).

    `pixels` is the number of values in an image. With `reduction="mean"`, distortion and class losses are taken per
    value, and the rate per latent unit. Free bits (Kingma et al., 2016) exempt the first nats of each unit's mean rate
    over the batch. With `weights` (N,) of the examples, the mean is a weighted one.
    """
    if spec.free_bits:
        rate = _mean(batch.kl, weights).clamp(min=spec.free_bits).sum()
    else:
        rate = _mean(batch.kl.sum(1), weights)
    loss, units = _mean(batch.distortion, weights), batch.kl.shape[1]
    for class_loss in (batch.class_loss, batch.pseudo_loss):
        if class_loss is not None:
            loss = loss + spec.guide_weight * _mean(class_loss, weights)
    if spec.reduction == "mean":
        loss, rate = loss / pixels, rate / units
    return loss + beta * rate


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The (weighted) mean over the first axis."""
    return values.mean(0) if weights is None else torch.tensordot(weights, values, 1) / weights.sum()

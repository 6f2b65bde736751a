"""How likely images are under the model: the negative ELBO and the importance-weighted bound, nats per image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaeguard.errors import UsageError
from vaeguard.objective import distortion, nearest_kl
from vaeguard.sums import row_sum

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.graph import InferenceGraph
    from vaeguard.models import VAE, Posterior
    from vaeguard.progress import Progress

    Doubles = npt.NDArray[np.float64]

IMPORTANCE_SAMPLES = 5000
"""As Burda et al. (2016) took."""
ROWS = 1024
"""Latents decoded at a time: as many as keep their images near the processor."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """Upper bounds of −log p(x), nats for each of N images, float64 (N,).

    Attributes
    ----------
    neg_elbo : float64 (N,)
        Distortion + rate, the mean over the samples.
    neg_iwae : float64 (N,)
        The importance-weighted bound over all samples (Burda et al., 2016, equation 8), which is tighter.
    rate : float64 (N,)
        KL of the posterior from the prior (from the nearest class's, with one per class).
    pixels : str
        What stands for the pixels: `binarised` or `dequantised`, see `as_observed`.
    values : int
        Pixels times channels of an image.
    """

    neg_elbo: Doubles
    neg_iwae: Doubles
    rate: Doubles
    pixels: str
    values: int

    @property
    def bits_per_dimension(self) -> float:
        """Of the importance-weighted bound: of binary pixels, or of 8-bit ones where they were dequantised."""
        bits = float(self.neg_iwae.mean()) / (self.values * math.log(2))
        return bits if self.pixels == "binarised" else bits + 8


def as_observed(likelihood: str, images: npt.NDArray[np.uint8], seed: int) -> tuple[str, npt.NDArray[np.float32]]:
    """Images, uint8 (N, C, H, W), as values that the likelihood is one of: a word for it, and float32 in [0, 1].

    Black and white for a Bernoulli likelihood: every pixel is on with its grey value as probability, once and for all
    (`binarised`; Salakhutdinov & Murray, 2008). For a density uniform noise of one grey level is added (`dequantised`;
    Theis et al., "A note on the evaluation of generative models", 2016): the bound then holds for 8-bit images too.
    """
    uniform = np.random.default_rng(seed).random(images.shape, dtype=np.float32)
    if likelihood == "bernoulli":
        return "binarised", (uniform < images / np.float32(255)).astype(np.float32)
    return "dequantised", (images + uniform) / np.float32(256)


@torch.inference_mode()
def bounds(
    graph: InferenceGraph,
    images: npt.NDArray[np.uint8],
    *,
    samples: int = IMPORTANCE_SAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bounds:
    """Bound −log p(x) of `images`, uint8 (N, C, H, W), each with `samples` latents of its posterior.

    With a prior per class p(z) is the mixture of all of them in equal shares.

    Raises
    ------
    UsageError
        The model is an autoencoder, or one of patches or vectors; or `samples` is below 1.
    """
    _check(graph, samples)
    vae = graph.vae.eval()
    device = next(vae.parameters()).device
    pixels, observed = as_observed(vae.spec.likelihood or "", images, seed)
    generator = torch.Generator(device).manual_seed(seed)
    elbo, iwae, rate = [], [], []
    for at in range(len(observed)):
        image = torch.from_numpy(observed[at : at + 1]).to(device)
        posterior = vae.posterior(image)
        weights = torch.cat(
            [
                _log_weights(vae, posterior, image, min(ROWS, samples - done), generator).double()
                for done in range(0, samples, ROWS)
            ]
        )
        elbo.append(-float(weights.mean()))
        iwae.append(math.log(samples) - float(weights.logsumexp(0)))
        rate.append(float(nearest_kl(vae, posterior)))
        if progress:
            progress(at + 1, len(observed), "bounds")
    return Bounds(np.array(elbo), np.array(iwae), np.array(rate), pixels, observed[0].size)


def _check(graph: InferenceGraph, samples: int) -> None:
    spec = graph.vae.spec
    if spec.autoencoder:
        raise UsageError("an autoencoder has no prior and so no likelihood; fit without --autoencoder")
    if spec.vectors or spec.patch:
        raise UsageError("likelihoods are measured for models of whole images; fit one without --patch")
    if samples < 1:
        raise UsageError(f"{samples} importance samples: give at least 1")


def _log_weights(vae: VAE, posterior: Posterior, image: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Log p(x, z) − log q(z | x) for `count` latents z of the posterior of one image, shape (count,)."""
    assert posterior.logvar is not None
    noise = torch.randn(count, vae.spec.latent, generator=generator, device=image.device)
    latent = posterior.sample(noise)
    # The factors of 2π are the same in p(z) and q(z | x).
    log_posterior = -0.5 * (row_sum(noise.square()) + posterior.logvar.sum())
    return _log_prior(vae, latent) - log_posterior - distortion(vae.likelihood(latent), image)


def _log_prior(vae: VAE, latent: Tensor) -> Tensor:
    """Log p(z) without its factor of 2π, shape (N,)."""
    if vae.prior_means is None:
        return -0.5 * row_sum(latent.square())
    squares = (latent.unsqueeze(1) - vae.prior_means).square().sum(2)
    return (-0.5 * squares).logsumexp(1) - math.log(len(vae.prior_means))

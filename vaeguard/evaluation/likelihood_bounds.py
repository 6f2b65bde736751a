"""How likely images are under the model: the negative ELBO and the importance-weighted bound, nats per image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaeguard.errors import UsageError
from vaeguard.models.objective import distortion
from vaeguard.models.sums import row_sum
from vaeguard.settings.evaluation import IMPORTANCE_SAMPLES
from vaeguard.wording import brief

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.models.vae import VAE, Posterior
    from vaeguard.progress import Progress

    Doubles = npt.NDArray[np.float64]

PART_VALUES = 2**20
"""So many pixels are decoded at a time, so that they stay in the processor's cache."""
PART_ROWS = 1024
"""The most images decoded at a time."""


@dataclass(frozen=True, eq=False)
class LikelihoodBounds:
    """Upper bounds of −log p(x), nats for each of N images.

    Attributes
    ----------
    neg_elbo : float64 (N,)
        Distortion + rate, mean over the samples.
    neg_iwae : float64 (N,)
        The importance-weighted bound over all samples (Burda et al., 2016, equation 8), a tighter one.
    rate : float64 (N,)
        KL of the posterior from the prior, mean over the same samples.
    pixels : str
        How pixels become data: `binarised` or `dequantised`, see `Likelihood.observed`.
    values : int
        Pixels times channels of an image.
    """

    neg_elbo: Doubles
    neg_iwae: Doubles
    rate: Doubles
    pixels: str
    values: int

    __repr__ = brief

    @property
    def bits_per_dimension(self) -> float:
        """The importance-weighted bound in bits per binary pixel, or per 8-bit pixel if pixels were dequantised."""
        bits = float(self.neg_iwae.mean()) / (self.values * math.log(2))
        return bits if self.pixels == "binarised" else bits + 8


@torch.inference_mode()
def bound_likelihood(
    detector: TorchDetector,
    images: npt.NDArray[np.uint8],
    *,
    samples: int = IMPORTANCE_SAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> LikelihoodBounds:
    """Bound −log p(x) of `images`, uint8 (N, C, H, W), each with `samples` latents of its posterior.

    Of a prior per class, p(z) is the mixture of all of them in equal shares.

    Raises
    ------
    UsageError
        The model is refused by `check_generative`, the images have another shape or type, or `samples` is below 1.
    """
    check_generative(detector)
    vae = detector.graph.vae.eval()
    shape = detector.info.image_shape
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        wanted = ", ".join(map(str, shape))
        raise UsageError(
            f"the images are {images.dtype} of shape {images.shape}; give uint8 images of shape (N, {wanted})"
        )
    if samples < 1:
        raise UsageError(f"`samples` is {samples}; it must be at least 1")
    device = next(vae.parameters()).device
    random_state, noise = np.random.default_rng(seed), torch.Generator(device).manual_seed(seed)
    part = max(1, min(PART_ROWS, PART_VALUES // images[0].size))
    neg_elbo, neg_iwae, rate = [], [], []
    for at in range(len(images)):
        image = torch.from_numpy(vae.family.observed(images[at : at + 1], random_state)).to(device)
        posterior = vae.posterior(image)
        parts = [_sampled(vae, posterior, image, min(part, samples - done), noise) for done in range(0, samples, part)]
        rates, distortions = (torch.cat(column).double() for column in zip(*parts, strict=True))
        neg_elbo.append(float((rates + distortions).mean()))
        neg_iwae.append(math.log(samples) - float((-rates - distortions).logsumexp(0)))
        rate.append(float(rates.mean()))
        if progress:
            progress(at + 1, len(images), "bounds on the likelihood")
    return LikelihoodBounds(np.array(neg_elbo), np.array(neg_iwae), np.array(rate), vae.family.pixels, images[0].size)


def check_generative(detector: TorchDetector) -> None:
    """Refuse a model without a likelihood of whole images.

    Raises
    ------
    UsageError
        The model is an autoencoder, a model of patches or vectors, or an exported file.
    """
    if not hasattr(detector, "graph"):
        raise UsageError("an exported file can only score images; load the run from which it was exported")
    spec = detector.graph.vae.spec
    if spec.autoencoder:
        raise UsageError(
            "an autoencoder has no prior and therefore no likelihood; fit a model without `model.autoencoder`"
        )
    if not spec.view.whole:
        raise UsageError(
            "a model of patches or features has no likelihood of a whole image; fit a model of whole images, without"
            " `model.patch` and with `model.features=none`"
        )
    if spec.region or spec.regions:
        raise UsageError("a model of a region has no likelihood of a whole image; fit a model without `roi`")
    if not spec.view.pictures:
        raise UsageError("likelihoods are measured on images, but this is a model of vectors; use a model of images")


def _sampled(
    vae: VAE, posterior: Posterior, image: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """For `count` latents z of one image's posterior, log q(z | x) − log p(z) and −log p(x | z), each (count,)."""
    assert posterior.logvar is not None
    noise = torch.randn(count, vae.spec.latent_size, generator=generator, device=image.device)
    latent = posterior.sample(noise)
    # The factors of 2π are the same in p(z) and q(z | x).
    log_posterior = -0.5 * (row_sum(noise.square()) + posterior.logvar.sum())
    return log_posterior - _log_prior(vae, latent), distortion(vae.likelihood(latent), image)


def _log_prior(vae: VAE, latent: Tensor) -> Tensor:
    """Log p(z) without its factor of 2π, shape (N,)."""
    if vae.prior_means is None:
        return -0.5 * row_sum(latent.square())
    squares = (latent.unsqueeze(1) - vae.prior_means).square().sum(2)
    return (-0.5 * squares).logsumexp(1) - math.log(len(vae.prior_means))

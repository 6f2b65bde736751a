"""What each unit of the latent does: how much it says about normal images, and what changes when it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaeguard.graph import from_unit
from vaeguard.objective import gaussian_kl
from vaeguard.patches import local_contrast, surrounded
from vaeguard.training import ACTIVE_VARIANCE

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.graph import InferenceGraph
    from vaeguard.models import VAE, Posterior

TRAVERSED = 10
"""So many units of the highest rate are traversed."""
STEPS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Places along a unit: standard deviations of its posterior means from their mean."""


@dataclass(frozen=True, eq=False)
class LatentUnits:
    """The units of a latent, as seen on some normal images.

    Attributes
    ----------
    rate : float64 (L,)
        KL of each unit from the prior (from the nearest class's, with one per class), nats, mean over the images.
    variance : float64 (L,)
        Variance of its posterior mean over the images.
    traversed : int64 (K,)
        The units of the highest rate, that first.
    traversals : uint8 (K, len(STEPS), C, H, W) or None
        The decoder's mean image for the mean latent, with one unit moved along `STEPS`; None for vectors and patches.
    """

    rate: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    traversed: npt.NDArray[np.int64]
    traversals: npt.NDArray[np.uint8] | None

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """Which units' means vary at all (Burda et al., 2016, section 5.2)."""
        return self.variance > ACTIVE_VARIANCE


@torch.no_grad()
def latent_units(graph: InferenceGraph, images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> LatentUnits:
    """Look at the latent of `images`, (N, C, H, W) as the graph takes them, N at most a few hundred."""
    vae = graph.vae.eval()
    pixels = graph.prepared(torch.from_numpy(images).to(next(vae.parameters()).device))
    if graph.patches is not None:
        pixels = graph.patches.cut(local_contrast(surrounded(pixels))[0])
    posterior = vae.posterior(pixels)
    rate = _nearest(vae, posterior).double().mean(0).cpu().numpy()
    mean, deviation = posterior.mean.mean(0), posterior.mean.std(0, correction=0)
    traversed = np.argsort(-rate, kind="stable")[:TRAVERSED]
    pictures = None
    if graph.standardise is None and graph.patches is None:
        pictures = np.stack([_traversal(vae, mean, deviation, unit) for unit in traversed.tolist()])
    return LatentUnits(rate, deviation.square().double().cpu().numpy(), traversed.astype(np.int64), pictures)


def _nearest(vae: VAE, posterior: Posterior) -> Tensor:
    """KL of every unit, (N, L), from the prior; with one per class from that of the nearest class."""
    if vae.prior_means is None:
        return gaussian_kl(posterior)
    each = torch.stack([gaussian_kl(posterior, prior_mean) for prior_mean in vae.prior_means])
    nearest = each.sum(2).argmin(0)
    return each[nearest, torch.arange(each.shape[1])]


def _traversal(vae: VAE, mean: Tensor, deviation: Tensor, unit: int) -> npt.NDArray[np.uint8]:
    latents = mean.repeat(len(STEPS), 1)
    latents[:, unit] += deviation[unit] * torch.tensor(STEPS, device=mean.device)
    pixels: npt.NDArray[np.uint8] = from_unit(vae.likelihood(latents).mean).cpu().numpy()
    return pixels

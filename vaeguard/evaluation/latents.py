"""What each unit of the latent does: how much it says about normal images, and what changes when it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.engines.generation import encode
from vaeguard.models.graph import from_unit
from vaeguard.models.objective import ACTIVE_VARIANCE, gaussian_kl
from vaeguard.models.patches import local_contrast, surrounded

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.models.graph import InferenceGraph
    from vaeguard.models.vae import VAE, Posterior

TRAVERSED = 10
"""So many units of the highest rate are traversed."""
PART = 64
"""So many images are encoded at a time; of patches one, which has thousands."""
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
        The units of the highest rate, that first; of an autoencoder, which has none, those that vary most.
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
    """Look at the latent of `images`, (N, C, H, W) as the graph takes them; of patches each one counts."""
    vae = graph.vae.eval()
    sums = torch.zeros(3, vae.spec.latent_size, dtype=torch.float64)  # of the rate, the mean and its square
    count = 0
    part = 1 if graph.patches is not None else PART
    for at in range(0, len(images), part):
        posterior = vae.posterior(_as_seen(graph, images[at : at + part]))
        mean = posterior.mean.double()
        found = torch.stack([_nearest(vae, posterior).double().sum(0), mean.sum(0), mean.square().sum(0)])
        sums += found.cpu()
        count += len(mean)
    rate, mean, square = sums / count
    variance = (square - mean.square()).clamp(min=0)
    # An autoencoder has no rate: there the units that vary most come first.
    traversed = np.argsort(-(variance if vae.spec.autoencoder else rate).numpy(), kind="stable")[:TRAVERSED]
    pictures = None
    if graph.standardise is None and graph.patches is None:
        pictures = np.stack([_traversal(vae, mean, variance.sqrt(), unit) for unit in traversed.tolist()])
    return LatentUnits(rate.numpy(), variance.numpy(), traversed.astype(np.int64), pictures)


def _as_seen(graph: InferenceGraph, images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> Tensor:
    """What the VAE reads of `images`: pixels, standardised vectors, or the patches of all of them."""
    pixels = graph.prepared(torch.from_numpy(images).to(next(graph.parameters()).device))
    return pixels if graph.patches is None else graph.patches.cut(local_contrast(surrounded(pixels))[0])


def _nearest(vae: VAE, posterior: Posterior) -> Tensor:
    """KL of every unit, (N, L), from the prior; with one per class from that of the nearest class."""
    if vae.prior_means is None:
        return gaussian_kl(posterior)
    each = torch.stack([gaussian_kl(posterior, prior_mean) for prior_mean in vae.prior_means])
    nearest = each.sum(2).argmin(0)
    return each[nearest, torch.arange(each.shape[1], device=each.device)]


def _traversal(vae: VAE, mean: Tensor, deviation: Tensor, unit: int) -> npt.NDArray[np.uint8]:
    latents = mean.repeat(len(STEPS), 1)
    latents[:, unit] += deviation[unit] * torch.tensor(STEPS, dtype=torch.float64)
    weights = next(vae.parameters())
    found = vae.likelihood(latents.to(weights.device, weights.dtype)).mean
    pixels: npt.NDArray[np.uint8] = from_unit(found).cpu().numpy()
    return pixels


def latent_table(detector: TorchDetector, image_set: ImageSet) -> dict[str, Any]:
    """The latents of a set as columns of a table: `path`, `class` where known, `mean_0`, ..., `logvar_0`, ...

    Raises
    ------
    UsageError
        As `generation.encode`.
    """
    encoding = encode(detector.graph, image_set.images)
    columns: dict[str, Any] = {"path": list(image_set.paths)}
    if image_set.labels is not None:
        columns["class"] = [image_set.class_names[label] for label in image_set.labels.tolist()]
    columns |= {f"mean_{unit}": values for unit, values in enumerate(encoding.mean.T)}
    if encoding.logvar is not None:
        columns |= {f"logvar_{unit}": values for unit, values in enumerate(encoding.logvar.T)}
    return columns

"""What each unit of the latent does: its rate on normal images, and how images change along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.engines.generation import encode
from vaeguard.models.graph import from_unit
from vaeguard.models.objective import ACTIVE_VARIANCE, gaussian_kl
from vaeguard.wording import brief

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.models.graph import InferenceGraph
    from vaeguard.models.vae import VAE, Posterior

TRAVERSED = 10
"""So many units, those of the highest rate, are traversed."""
PART = 64
"""So many images are encoded at a time; of patches or cells, an image has thousands, so one image is."""
STEPS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Positions along a unit, in standard deviations of its posterior means from their mean."""


@dataclass(frozen=True, eq=False)
class LatentUnits:
    """The units of a latent, measured on normal images.

    Attributes
    ----------
    rate : float64 (L,)
        KL of each unit from the prior (or from the prior of the nearest class), nats, mean over the images.
    variance : float64 (L,)
        Variance of each unit's posterior mean over the images.
    traversed : int64 (K,)
        The units of the highest rate, highest first; for an autoencoder, which has no rate, those that vary most.
    traversals : uint8 (K, len(STEPS), C, H, W) or None
        The decoder's mean images for the mean latent with one unit moved along `STEPS`; None unless whole images are
        decoded.
    """

    rate: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    traversed: npt.NDArray[np.int64]
    traversals: npt.NDArray[np.uint8] | None

    __repr__ = brief

    @property
    def active(self) -> npt.NDArray[np.bool_]:
        """The units whose posterior means vary (Burda et al., 2016, section 5.2)."""
        return self.variance > ACTIVE_VARIANCE


@torch.no_grad()
def latent_units(
    graph: InferenceGraph,
    images: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    first: npt.NDArray[np.int64] | None = None,
) -> LatentUnits:
    """Measure the latent on `images`, (N, C, H, W) as the graph takes them; a patch or cell counts as an image.

    For tiles, `first` (N, 2) holds the first row and column of each.
    """
    vae = graph.vae.eval()
    sums = torch.zeros(3, vae.spec.latent_size, dtype=torch.float64)  # of the rate, the mean and the squared mean
    count = 0
    part = 1 if graph.places is not None else PART
    for at in range(0, len(images), part):
        tiles = slice(at, at + part)
        posterior = vae.posterior(_vae_input(graph, images[tiles], None if first is None else first[tiles]))
        mean = posterior.mean.double()
        part_sums = [_unit_kl(vae, posterior).double().sum(0), mean.sum(0), mean.square().sum(0)]
        sums += torch.stack(part_sums).cpu()
        count += len(mean)
    rate, mean, square = sums / count
    variance = (square - mean.square()).clamp(min=0)
    traversed = np.argsort(-(variance if vae.spec.autoencoder else rate).numpy(), kind="stable")[:TRAVERSED]
    pictures = None
    if vae.spec.view.whole_pictures:
        pictures = np.stack([_traversal(vae, mean, variance.sqrt(), unit) for unit in traversed.tolist()])
    return LatentUnits(rate.numpy(), variance.numpy(), traversed.astype(np.int64), pictures)


def _vae_input(
    graph: InferenceGraph,
    images: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
    first: npt.NDArray[np.int64] | None,
) -> Tensor:
    """The VAE's input for `images`: pixels, scaled vectors, or the patches or cells of all images."""
    device = next(graph.parameters()).device
    at = None if first is None or not graph.vae.spec.tile else torch.from_numpy(first).to(device)
    pixels = graph.prepared(torch.from_numpy(images).to(device), at)
    return pixels if graph.places is None else graph.places.see(pixels)[0]


def _unit_kl(vae: VAE, posterior: Posterior) -> Tensor:
    """KL of every unit from the prior, (N, L); of a prior per class, from that of the nearest class."""
    if vae.prior_means is None:
        return gaussian_kl(posterior)
    by_class = torch.stack([gaussian_kl(posterior, prior_mean) for prior_mean in vae.prior_means])
    nearest = by_class.sum(2).argmin(0)
    return by_class[nearest, torch.arange(by_class.shape[1], device=by_class.device)]


def _traversal(vae: VAE, mean: Tensor, deviation: Tensor, unit: int) -> npt.NDArray[np.uint8]:
    latents = mean.repeat(len(STEPS), 1)
    latents[:, unit] += deviation[unit] * torch.tensor(STEPS, dtype=torch.float64)
    weights = next(vae.parameters())
    mean_images = vae.likelihood(latents.to(weights.device, weights.dtype)).mean
    pixels: npt.NDArray[np.uint8] = from_unit(mean_images).cpu().numpy()
    return pixels


def latent_table(detector: TorchDetector, image_set: ImageSet) -> dict[str, Any]:
    """The latents of a set as columns of a table: `path`, `class` if known, `mean_0`, ..., `logvar_0`, ...

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

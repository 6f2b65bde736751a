"""The VAE as a generative model: images to latents and back, new images, and interpolation between two images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaeguard.errors import UsageError
from vaeguard.wording import brief

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.engines.inspection import Floats, Images
    from vaeguard.models.graph import InferenceGraph

PART = 256
"""The most images or latents in one pass through the network."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """The posterior q(z | x) of N images.

    Attributes
    ----------
    mean : float32 (N, L)
        Mean of the posterior: the embedding of each image.
    logvar : float32 (N, L) or None
        Logarithm of the posterior's variance; None for an autoencoder.
    """

    mean: Floats
    logvar: Floats | None

    __repr__ = brief


@torch.inference_mode()
def encode(graph: InferenceGraph, images: Images) -> Encoding:
    """The posterior of `images`, uint8 in 0..255 or float32 in [0, 1], shape (N, C, H, W), or vectors (N, 1, 1, F).

    Raises
    ------
    UsageError
        The model sees patches, so an image has no single latent; the images have another shape; or there are none.
    """
    check_whole(graph)
    shape = graph.vae.spec.image_shape
    if images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise UsageError(
            f"images have the shape {images.shape}, but the model takes (N, {', '.join(map(str, shape or ()))})"
        )
    parts = [graph.encode(_on(graph, images[at : at + PART])) for at in range(0, len(images), PART)]
    mean = torch.cat([part.mean for part in parts]).cpu().numpy()
    if parts[0].logvar is None:
        return Encoding(mean, None)
    return Encoding(mean, torch.cat([part.logvar for part in parts if part.logvar is not None]).cpu().numpy())


@torch.inference_mode()
def decode(graph: InferenceGraph, latents: Floats) -> Floats:
    """The decoder's mean images for `latents` (N, L): float32 (N, C, H, W) in [0, 1], vectors in their own units.

    Raises
    ------
    UsageError
        The model sees patches, or the latents have another size.
    """
    check_whole(graph)
    size = graph.vae.spec.latent_size
    latents = np.asarray(latents)
    if latents.ndim != 2 or latents.shape[1] != size or not len(latents):
        raise UsageError(
            f"latents have the shape {latents.shape}, but the model has {size} units; give an array of shape (N,"
            f" {size})"
        )
    starts = range(0, len(latents), PART)
    parts = [graph.decode(_on(graph, latents[at : at + PART].astype(np.float32))) for at in starts]
    return np.concatenate([part.cpu().numpy() for part in parts])


def sample_latents(
    graph: InferenceGraph,
    count: int,
    *,
    class_: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    like: Images | None = None,
) -> Floats:
    """Draw latents, float32 (count, L).

    Parameters
    ----------
    graph : InferenceGraph
        A fitted graph.
    count : int
        Number of latents, at least 1.
    class_ : str or None
        The class to draw from, for a prior per class; None takes each class equally often.
    temperature : float
        Factor on the standard deviation, above 0: samples are more typical below 1 and more varied above 1.
    seed : int
        At least 0; the same seed gives the same latents.
    like : images or None
        Draw from the aggregate posterior of these images instead: pick an image at random, and sample its posterior.
        With many latent units, large regions of the prior hold no image.

    Raises
    ------
    UsageError
        A number is out of range; the model is an autoencoder and `like` is None; or `class_` is no class of a prior
        per class.
    """
    if count < 1 or not temperature > 0:
        raise UsageError(
            f"`count` is {count} and `temperature` is {temperature:g}; `count` must be at least 1, and"
            " `temperature` above 0"
        )
    if seed < 0:
        raise UsageError(f"`seed` is {seed}; it must not be negative")
    if class_ is not None and like is not None:
        raise UsageError("`class_` samples from the prior, but `like` samples around images; remove one of them")
    generator = np.random.default_rng(seed)
    noise = temperature * generator.standard_normal((count, graph.vae.spec.latent_size)).astype(np.float32)
    if like is None:
        return _prior_means(graph, count, class_) + noise
    encoding = encode(graph, like)
    rows = generator.integers(0, len(like), count)
    deviation = 0.0 if encoding.logvar is None else np.exp(0.5 * encoding.logvar[rows])
    return (encoding.mean[rows] + deviation * noise).astype(np.float32)


def _prior_means(graph: InferenceGraph, count: int, class_: str | None) -> Floats:
    """The prior's mean for each of `count` latents, (count, L), or (1, L) of zeros for one prior."""
    spec, means = graph.vae.spec, graph.vae.prior_means
    if spec.autoencoder:
        raise UsageError("an autoencoder has no prior to sample from; to sample around images, give them as `like`")
    if means is None:
        if class_ is None:
            return np.zeros((1, spec.latent_size), np.float32)
        raise UsageError(
            "the model has one prior for all classes; to sample one class, fit again with `model.prior` set to"
            " 'per-class'"
        )
    names = list(spec.classes)
    if class_ is not None and class_ not in names:
        raise UsageError(f"the model has no class {class_!r}; its classes are {', '.join(names)}")
    chosen = np.arange(count) % len(names) if class_ is None else np.full(count, names.index(class_))
    class_means: Floats = means.detach().cpu().numpy()[chosen]
    return class_means


def interpolate_latents(first: Floats, last: Floats, steps: int, *, spherical: bool = False) -> Floats:
    """Latents between `first` and `last`, each (L,): float32 (steps, L), both ends included.

    `spherical` follows a great circle instead of a straight line (White, "Sampling generative networks", 2016): with
    many units, the middle of a straight line is shorter than the latent of any image.

    Raises
    ------
    UsageError
        Fewer than 2 steps.
    """
    if steps < 2:
        raise UsageError(f"`steps` is {steps}; it must be at least 2, because both ends count")
    fraction = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    lengths = np.linalg.norm(first), np.linalg.norm(last)
    if not spherical or min(lengths) == 0:
        return (1 - fraction) * first + fraction * last
    angle = float(np.arccos(np.clip(first @ last / (lengths[0] * lengths[1]), -1, 1)))
    if np.sin(angle) < 1e-6:
        return (1 - fraction) * first + fraction * last
    curve: Floats = (np.sin((1 - fraction) * angle) * first + np.sin(fraction * angle) * last) / np.sin(angle)
    return curve.astype(np.float32)


def check_whole(graph: InferenceGraph) -> None:
    """Refuse a model that has no latent of a whole image.

    Raises
    ------
    UsageError
        The model sees patches or features.
    """
    if graph.places is not None:
        raise UsageError(
            "a model of patches or features has no latent vector for a whole image; fit a model of whole images,"
            " without `model.patch` and with `model.features=none`"
        )


def _on(graph: InferenceGraph, values: npt.NDArray[np.generic]) -> Tensor:
    # A copy, since torch does not accept read-only arrays.
    return torch.from_numpy(np.array(values)).to(next(graph.parameters()).device)

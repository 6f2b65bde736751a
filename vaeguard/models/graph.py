"""The inference graph: pixels in, a fixed set of named results out, preprocessing and calibration included."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from vaeguard.models.calibration import Calibration
from vaeguard.models.cells import Cells
from vaeguard.models.inference import Inference
from vaeguard.models.patches import Patches
from vaeguard.models.pretrained import backbone
from vaeguard.models.reference import Reference
from vaeguard.models.region import WHITE, Region, at_centres, outside_grey
from vaeguard.models.terms import TERMS, term_names, term_weights
from vaeguard.models.whiten import Whiten

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from vaeguard.models.backbones import Backbone
    from vaeguard.models.vae import VAE, Posterior
    from vaeguard.settings.model import ModelSpec

NOISE_SAMPLES = 8
"""Latents per image of the sampled bounds."""
NOISE_SEED = 0


class InferenceGraph(nn.Module):
    """Everything between pixels and results; PyTorch runs this graph, and an ONNX file contains exactly it.

    The terms, each (N,), higher = stranger, are those of `terms.TERMS`, except those in `spec.without`.

    With `spec.patch`, the VAE sees the local contrast of every patch; with `spec.features`, the whitened features of
    every cell, of which nothing is restored. Patches and cells are the *places* of an image. A term is the mean of its
    five largest values over the places, without those at the borders of a whole image, and the heatmap is the negative
    ELBO of a place, in nats per value above the least possible. Terms that compare with statistics of whole images do
    not exist. With `spec.tile`, an image of the graph is a tile.

    With `spec.region`, pixels outside of the region are replaced by grey before anything looks at them, errors there
    and places with their centre there do not count, and the heatmap is 0 there. With `spec.regions`, the last channel
    of an image, which the VAE does not see, is white where the image's own region is; only pixels in both count.

    Terms and heatmap of vectors are in scaled or whitened units; `restored` is in the units of the input.
    """

    noise: Tensor

    def __init__(self, vae: VAE, normal_scores: int = 0, centres: int = 1, network: Backbone | None = None) -> None:
        super().__init__()
        self.vae = vae
        spec, view = vae.spec, vae.spec.view
        self.whiten = None if view.pictures else Whiten(spec.shape[2], table=True, whiten=bool(spec.whiten))
        self.region = Region(spec.shape[1:]) if spec.region else None
        self.places = _places(spec, network)
        self.reference = Reference(spec.shape, _sizes(vae), centres) if view.whole else None
        if spec.sampled_elbo:
            generator = torch.Generator().manual_seed(NOISE_SEED)
            noise = torch.empty(NOISE_SAMPLES, spec.latent_size)
            self.register_buffer("noise", noise if noise.is_meta else noise.normal_(generator=generator))
        self.term_names = term_names(spec)
        weights = term_weights(spec)
        self.combined_names = tuple(weights)
        self.calibration = Calibration(list(weights.values()), normal_scores)

    def forward(self, image: Tensor, first: Tensor | None = None) -> dict[str, Tensor]:
        """Inspect `image`, uint8 (0..255) or float32 ([0, 1]), shape (N, C, H, W), or float32 vectors (N, 1, 1, F).

        `first`, int64 (N, 2), holds the first row and column of each tile, for a model of tiles with a region.
        """
        inside = self.inside(image, first)
        image = self.prepared(image, first)
        if self.places is None:
            inference = self.infer(image, inside)
            terms, pictures = self._terms(inference), {"restored": inference.restored}
            pictures["heatmap"] = inference.error.mean(1)
        else:
            terms, pictures = self._inspect_places(image, self.places, inside)
        score, p_value = self.calibration(torch.stack([terms[name] for name in self.combined_names], 1))
        if self.whiten is not None:
            pictures["restored"] = self.whiten.restore(pictures["restored"])
        return {"score": score, "p_value": p_value, **terms, **pictures}

    def prepared(self, image: Tensor, first: Tensor | None = None) -> Tensor:
        """The input of the VAE: pixels in [0, 1], or scaled vectors; float32 (N, C, H, W)."""
        if self.whiten is not None:
            scaled: Tensor = self.whiten(image)
            return scaled
        inside, pixels = self.inside(image, first), to_unit(image)
        pixels = pixels[:, :-1] if self.vae.spec.regions else pixels
        return pixels if inside is None else outside_grey(pixels, inside)

    def inside(self, image: Tensor | None, first: Tensor | None = None) -> Tensor | None:
        """The pixels of `image` that count, bool (N or 1, 1, h, w); None if all do.

        Only with `spec.regions` does `image` matter.
        """
        of_all = None if self.region is None else self.region(self.vae.spec.graph_shape[1:], first)
        if not self.vae.spec.regions or image is None:
            return of_all
        own = to_unit(image[:, -1:]) >= WHITE
        return own if of_all is None else own & of_all

    def encode(self, image: Tensor) -> Posterior:
        """q(z | x) of `image`, given as to `forward`; a model of patches or features has no latent of a whole image."""
        return self.vae.posterior(self.prepared(image))

    def decode(self, latent: Tensor) -> Tensor:
        """The decoder's mean for `latent` (N, L): (N, C, H, W) in [0, 1], or vectors in their own units."""
        mean = self.vae.likelihood(latent).mean
        return mean if self.whiten is None else self.whiten.restore(mean)

    def _inspect_places(
        self, image: Tensor, places: Patches | Cells, inside: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms and pictures of `image`, (N, C, H, W) in [0, 1], from all its patches or cells that count."""
        seen, undo = places.see(image)
        inference = self.infer(seen)
        counted = None if inside is None else at_centres(inside, places.centres)
        terms = {name: places.strongest(values, counted) for name, values in self._terms(inference).items()}
        heat = inference.neg_elbo / inference.image[0].numel() - self.vae.family.least_distortion(self.vae.spec)
        restored = {"restored": undo(inference.restored)} if undo else {}
        heat = heat.clamp(min=0)
        if inside is None or counted is None:
            return terms, {**restored, "heatmap": places.heatmap(heat)}
        heat = torch.where(counted, heat.view(-1, counted.shape[1]), 0.0).flatten()
        return terms, {**restored, "heatmap": torch.where(inside[:, 0], places.heatmap(heat), 0.0)}

    def infer(self, image: Tensor, inside: Tensor | None = None) -> Inference:
        """One pass of the VAE over its input `image` (N, C, H, W), of which the pixels `inside` count."""
        return Inference(self.vae, image, self.reference, self.noise if self.vae.spec.sampled_elbo else None, inside)

    def _terms(self, inference: Inference) -> dict[str, Tensor]:
        return {name: TERMS[name](inference) for name in self.term_names}

    @torch.no_grad()
    def fit_reference(self, batches: Iterable[Tensor], seed: int) -> None:
        """Fit the statistics of normal images on `batches` of training images; `seed` is that of the clusters."""
        assert self.reference is not None
        errors, features, movements, means = [], [], [], []
        for batch in batches:
            inference = self.infer(self.prepared(batch), self.inside(batch))
            errors.append(inference.error.sum(0))
            features.append(inference.features)
            movements.append(inference.movement)
            means.append(inference.posterior.mean)
        squared_error = torch.stack(errors).sum(0) / sum(map(len, means))
        self.reference.fit(squared_error, torch.cat(features), torch.cat(movements), torch.cat(means), seed)


def _places(spec: ModelSpec, network: Backbone | None) -> Patches | Cells | None:
    """What cuts an image into the places that the VAE sees; None if it sees whole inputs."""
    if spec.features:
        return Cells(spec.graph_shape, network or backbone(spec.features), whole=not spec.tile)
    return Patches(spec.graph_shape, spec.patch) if spec.patch else None


@torch.no_grad()
def _sizes(vae: VAE) -> tuple[int, int, int]:
    """Sizes of features, movement and latent."""
    inference = Inference(vae.eval(), next(vae.parameters()).new_zeros(1, *vae.spec.shape))
    return inference.features.shape[1], inference.movement.shape[1], inference.posterior.mean.shape[1]


def to_unit(image: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1]; uint8 is divided by 255."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image


def from_unit(image: Tensor) -> Tensor:
    """Pixels in [0, 1] as uint8, rounded."""
    return (image * 255).round().clamp(0, 255).byte()

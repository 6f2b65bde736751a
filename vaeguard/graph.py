"""The inference graph: pixels in, a fixed set of named results out, preprocessing and calibration included."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from vaeguard.calibration import Calibration
from vaeguard.objective import distortion, nearest_kl
from vaeguard.standardise import Standardise

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.models import VAE
    from vaeguard.spec import ModelSpec


def term_names(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the terms of a model, in the order of the columns of `scores.csv`."""
    guided = ("class_energy", "class_surprise") if spec.guided else ()
    return ("recon_error", "kl", "neg_elbo", "hidden_error", *guided)


class InferenceGraph(nn.Module):
    """Everything between pixels and results; PyTorch runs it, and an ONNX file holds exactly it.

    Terms, each (N,), higher = stranger:

    - `recon_error`: squared error at the posterior mean, mean over pixels
    - `kl`: the rate, nats per image (the smallest over the classes with a prior per class)
    - `neg_elbo`: distortion at the posterior mean + rate, nats per image
    - `hidden_error`: how far the encoder's activations move when it reads its own reconstruction, mean square per
      layer, summed (RaPP's SAP; Kim et al., ICLR 2020)
    - `class_energy`: −logsumexp of the class logits (Liu et al., NeurIPS 2020), where guided
    - `class_surprise`: −log of the largest class probability, nats (Hendrycks & Gimpel, ICLR 2017), where guided

    Terms and heatmap of vectors are in standardised units, `restored` is in those of the input.
    """

    def __init__(self, vae: VAE, normal_scores: int = 0) -> None:
        super().__init__()
        self.vae = vae
        shape = vae.spec.image_shape
        self.standardise = Standardise(shape) if vae.spec.vectors and shape else None
        self.term_names = term_names(vae.spec)
        # An autoencoder has no rate, and its negative ELBO is the distortion alone.
        without = {"kl", "neg_elbo"} if vae.spec.autoencoder else set()
        self.combined_names = tuple(name for name in self.term_names if name not in without)
        self.calibration = Calibration(len(self.combined_names), normal_scores)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Inspect `image`, uint8 (0..255) or float32 ([0, 1]), shape (N, C, H, W), or float32 vectors (N, 1, 1, F)."""
        image = self.prepared(image)
        terms, restored = self.terms(image)
        score, p_value = self.calibration(torch.stack([terms[name] for name in self.combined_names], 1))
        heatmap = (image - restored).square().mean(1)
        if self.standardise is not None:
            restored = self.standardise.restore(restored)
        return {"score": score, "p_value": p_value, **terms, "restored": restored, "heatmap": heatmap}

    def prepared(self, image: Tensor) -> Tensor:
        """The input as the VAE reads it: pixels in [0, 1], standardised vectors; float32 (N, C, H, W)."""
        return to_unit(image) if self.standardise is None else self.standardise(image)

    def terms(self, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The terms of `image` as `prepared` returns it, and its restoration, both (N, C, H, W)."""
        hidden = self.vae.hidden(image)
        posterior = self.vae.posterior_from(hidden[-1])
        likelihood = self.vae.likelihood(posterior.mean)
        restored = likelihood.mean
        rate = nearest_kl(self.vae, posterior)
        again = self.vae.hidden(restored)
        terms = {
            "recon_error": (image - restored).square().flatten(1).mean(1),
            "kl": rate,
            "neg_elbo": distortion(likelihood, image) + rate,
            "hidden_error": torch.stack([_mean_square(a - b) for a, b in zip(hidden, again, strict=True)]).sum(0),
        }
        if self.vae.class_head is not None:
            logits = self.vae.class_head(posterior.mean)
            terms["class_energy"] = -logits.logsumexp(1)
            terms["class_surprise"] = -logits.log_softmax(1).amax(1)
        return {name: terms[name] for name in self.term_names}, restored


def to_unit(image: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1]; uint8 is divided by 255."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image


def _mean_square(values: Tensor) -> Tensor:
    return values.square().flatten(1).mean(1)

"""The terms of the score: one class each, in one table from which all lists of terms and columns are taken.

Leading terms have weights, and their mean surprise orders the images; the others count only above `calibration.ALARM`.
For images, half of the weight is on the position among normal images, and half, in a guided model, on the class. For
vectors, error, rate and activations lead. For patches, features and whitened vectors, the negative ELBO leads. The
weights were chosen once: for images with letters of notMNIST held out one at a time, for vectors on 20 tables of
ADBench, for whitened ones on 15 more of deep features, for patches on magnetic tiles and circuit boards, and for
features on these and on screws.

This module does not import torch, since a table of scores is checked without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from vaeguard.errors import UsageError
from vaeguard.settings.views import FeatureView, PatchView, PixelView, VectorView, View, WhiteView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from vaeguard.models.inference import Inference
    from vaeguard.settings.model import ModelSpec

    Weights = Mapping[type[View], float]


class Term(ABC):
    """A number for each image, higher = stranger.

    Attributes
    ----------
    compares : bool
        Whether the term compares with statistics of whole normal images, which a model of patches does not have.
    of_rate : bool
        Whether the term needs a rate: an autoencoder, which has none, shows the term but leaves it out of the score.
    weights : dict of view to float
        Weight among the leading terms, for the views in which the term leads.
    """

    compares: ClassVar[bool] = False
    of_rate: ClassVar[bool] = False
    weights: ClassVar[Weights] = {}

    def exists(self, spec: ModelSpec) -> bool:
        """Whether a model has the term."""
        return spec.view.whole or not self.compares

    def weight(self, spec: ModelSpec) -> float:
        """Weight among the leading terms of a model; 0 if the term does not lead."""
        return self.weights.get(type(spec.view), 0.0)

    @abstractmethod
    def __call__(self, inference: Inference) -> Tensor:
        """Values of the term, shape (N,)."""


class _ReconError(Term):
    """Squared error at the posterior mean, mean over pixels."""

    def weight(self, spec: ModelSpec) -> float:
        """Only an autoencoder of patches has no other leading term."""
        return 1.0 if spec.autoencoder and not spec.view.whole else 0.0

    def __call__(self, inference: Inference) -> Tensor:
        return inference.mean_error


class _ReconRatio(Term):
    """Squared error of each pixel relative to its mean error among normal images, mean over pixels."""

    compares = True
    weights: ClassVar[Weights] = {VectorView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.reference.error_ratio(inference.error)


class _Kl(Term):
    """The rate, nats per image; for a prior per class, the smallest over the classes."""

    of_rate = True
    weights: ClassVar[Weights] = {VectorView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.rate


class _NegElbo(Term):
    """Distortion at the posterior mean + rate, nats per image."""

    of_rate = True
    weights: ClassVar[Weights] = {PatchView: 1.0, FeatureView: 1.0, WhiteView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.neg_elbo


class _HiddenError(Term):
    """Movement of the encoder's activations on re-encoding: mean square per layer, summed.

    It follows RaPP's SAP (Kim et al., ICLR 2020), which also counts the pixels and does not average.
    """

    def exists(self, spec: ModelSpec) -> bool:
        """Not for features, whose terms would take a sixth longer to compute."""
        return not spec.features

    def __call__(self, inference: Inference) -> Tensor:
        return inference.moved


class _HiddenDistance(Term):
    """Mahalanobis distance of the movement of activations and posterior mean from that of normal images.

    It follows RaPP's NAP, on activations averaged to a grid of 2x2.
    """

    compares = True
    weights: ClassVar[Weights] = {VectorView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.reference.movement_distance(inference.movement)


class _FeatureDistance(Term):
    """Distance of the encoder's last activations from the nearest of up to 2,000 clusters of normal images.

    It is measured in the directions that tell normal images apart (deep nearest neighbours; Sun et al., ICML 2022).
    """

    compares = True
    weights: ClassVar[Weights] = {PixelView: 1.0, VectorView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.reference.feature_distance(inference.features)


class _LatentDistance(Term):
    """Distance of the posterior mean, scaled to unit length, from the nearest cluster of normal images.

    It is large where the aggregate posterior has little density.
    """

    compares = True
    weights: ClassVar[Weights] = {PixelView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.reference.latent_distance(inference.posterior.mean)


class _PseudoEntropy(Term):
    """Entropy of the pseudo-class probabilities, nats, mean over the clusterings."""

    def exists(self, spec: ModelSpec) -> bool:
        """Only a model with pseudo-classes has the term."""
        return bool(spec.pseudo_classes)

    def __call__(self, inference: Inference) -> Tensor:
        return inference.pseudo_entropy


class _ClassTerm(Term):
    """A term of the class logits of a guided model."""

    def exists(self, spec: ModelSpec) -> bool:
        """Only a guided model has class logits."""
        return bool(spec.guided)


class _ClassEnergy(_ClassTerm):
    """−logsumexp of the class logits of a guided model (Liu et al., NeurIPS 2020)."""

    def __call__(self, inference: Inference) -> Tensor:
        return -inference.class_logits.amax(1) - inference.class_surprise


class _ClassSurprise(_ClassTerm):
    """−log of the largest class probability of a guided model, nats (Hendrycks & Gimpel, ICLR 2017)."""

    weights: ClassVar[Weights] = {PixelView: 2.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.class_surprise


class _SampledTerm(Term):
    """A bound over eight latents drawn with fixed noise, nats, of a model with `sampled_elbo`."""

    of_rate = True

    def exists(self, spec: ModelSpec) -> bool:
        """Only a model with `sampled_elbo` draws latents."""
        return spec.sampled_elbo


class _NegElboSampled(_SampledTerm):
    """The negative ELBO over sampled latents."""

    def __call__(self, inference: Inference) -> Tensor:
        return -inference.log_weights.mean(0)


class _NegIwae(_SampledTerm):
    """The importance-weighted bound (Burda et al., 2016)."""

    def __call__(self, inference: Inference) -> Tensor:
        return inference.neg_iwae


TERMS: dict[str, Term] = {
    "recon_error": _ReconError(),
    "recon_ratio": _ReconRatio(),
    "kl": _Kl(),
    "neg_elbo": _NegElbo(),
    "hidden_error": _HiddenError(),
    "hidden_distance": _HiddenDistance(),
    "feature_distance": _FeatureDistance(),
    "latent_distance": _LatentDistance(),
    "pseudo_entropy": _PseudoEntropy(),
    "class_energy": _ClassEnergy(),
    "class_surprise": _ClassSurprise(),
    "neg_elbo_sampled": _NegElboSampled(),
    "neg_iwae": _NegIwae(),
}
"""All terms, in the order of the columns of a table."""


def term_names(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the terms of a model, in the order of the columns of `scores.csv`.

    Raises
    ------
    UsageError
        `spec.without` names a term that the model does not have, or leaves no term.
    """
    names = [name for name, term in TERMS.items() if term.exists(spec)]
    for name in spec.without:
        if name not in names:
            raise UsageError(
                f"`model.without` names {name!r}, but the model has no such term; its terms are {', '.join(names)}"
            )
    left = tuple(name for name in names if name not in spec.without)
    if not any(_is_combined(name, spec) for name in left):
        raise UsageError("`model.without` removes every term of the score; remove fewer terms")
    return left


def term_weights(spec: ModelSpec) -> dict[str, float]:
    """Weights of the terms in the score; 0 for a term that does not lead.

    If every leading term is left out, the others have equal weights.
    """
    weights = {name: TERMS[name].weight(spec) for name in term_names(spec) if _is_combined(name, spec)}
    return weights if any(weights.values()) else dict.fromkeys(weights, 1.0)


def _is_combined(name: str, spec: ModelSpec) -> bool:
    """Whether the term enters the score; an autoencoder has no rate."""
    return not (spec.autoencoder and TERMS[name].of_rate)

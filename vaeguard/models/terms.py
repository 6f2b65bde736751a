"""The terms of the score: one class each, in one table. Whatever lists terms or columns takes them from there.

The leading terms, whose mean surprise orders the images, have weights; the others only sound an alarm. Of images half
of the weight is where they lie among the normal ones, half to which class they belong, where guided; of vectors their
error, rate and activations; of patches how well the model explains them. The weights were chosen once: for images with
letters of notMNIST held out one at a time, for vectors on 20 tables of ADBench, for patches on magnetic tiles and
circuit boards.

This module does not load torch: a table of scores is checked without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from vaeguard.errors import UsageError
from vaeguard.settings.views import PatchView, PixelView, VectorView, View

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
        Whether it compares with statistics of whole normal images; a model of patches has none.
    of_rate : bool
        Whether it says something of the rate only where there is one: an autoencoder shows it, but does not combine it.
    weights : dict of view to float
        Its weight among the leading terms, where it leads.
    """

    compares: ClassVar[bool] = False
    of_rate: ClassVar[bool] = False
    weights: ClassVar[Weights] = {}

    def exists(self, spec: ModelSpec) -> bool:
        """Whether a model has it."""
        return spec.view.whole or not self.compares

    def weight(self, spec: ModelSpec) -> float:
        """Its weight among the leading terms of a model; 0 where it does not lead."""
        return self.weights.get(type(spec.view), 0.0)

    @abstractmethod
    def __call__(self, inference: Inference) -> Tensor:
        """Its values, shape (N,)."""


class _ReconError(Term):
    """Squared error at the posterior mean, mean over pixels."""

    def weight(self, spec: ModelSpec) -> float:
        """An autoencoder of patches has nothing else to lead."""
        return 1.0 if spec.autoencoder and not spec.view.whole else 0.0

    def __call__(self, inference: Inference) -> Tensor:
        return inference.mean_error


class _ReconRatio(Term):
    """Squared error, each pixel against its own mean error among normal images, mean over pixels."""

    compares = True
    weights: ClassVar[Weights] = {VectorView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.reference.error_ratio(inference.error)


class _Kl(Term):
    """The rate, nats per image: the smallest over the classes with a prior per class."""

    of_rate = True
    weights: ClassVar[Weights] = {VectorView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.rate


class _NegElbo(Term):
    """Distortion at the posterior mean + rate, nats per image."""

    of_rate = True
    weights: ClassVar[Weights] = {PatchView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.neg_elbo


class _HiddenError(Term):
    """How far the encoder's activations move when it reads its own reconstruction, mean square per layer, summed.

    After RaPP's SAP, which also counts the pixels and does not average (Kim et al., ICLR 2020).
    """

    def __call__(self, inference: Inference) -> Tensor:
        return inference.moved


class _HiddenDistance(Term):
    """The movement of `hidden_error`, on a grid of 2x2 and with that of the posterior mean, against normal images.

    A Mahalanobis distance, after RaPP's NAP.
    """

    compares = True
    weights: ClassVar[Weights] = {VectorView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.reference.movement_distance(inference.movement)


class _FeatureDistance(Term):
    """Distance of the encoder's last activations from the nearest of up to 2,000 clusters of normal ones.

    In the directions that tell normal images apart (deep nearest neighbours; Sun et al., ICML 2022).
    """

    compares = True
    weights: ClassVar[Weights] = {PixelView: 1.0, VectorView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.reference.feature_distance(inference.features)


class _LatentDistance(Term):
    """Distance of the posterior mean, taken to unit length, from the nearest cluster of normal ones.

    It is large where the aggregate posterior is thin.
    """

    compares = True
    weights: ClassVar[Weights] = {PixelView: 1.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.reference.latent_distance(inference.posterior.mean)


class _PseudoEntropy(Term):
    """Entropy of the pseudo-class probabilities, nats, mean over the clusterings."""

    def exists(self, spec: ModelSpec) -> bool:
        """A model without pseudo-classes has no entropy of them."""
        return bool(spec.pseudo_classes)

    def __call__(self, inference: Inference) -> Tensor:
        return inference.pseudo_entropy


class _ClassTerm(Term):
    """A term of the class logits of a guided model."""

    def exists(self, spec: ModelSpec) -> bool:
        """Only a guided model has class logits."""
        return bool(spec.guided)


class _ClassEnergy(_ClassTerm):
    """−logsumexp of the class logits, where guided (Liu et al., NeurIPS 2020)."""

    def __call__(self, inference: Inference) -> Tensor:
        return -inference.class_logits.amax(1) - inference.class_surprise


class _ClassSurprise(_ClassTerm):
    """−log of the largest class probability, nats, where guided (Hendrycks & Gimpel, ICLR 2017)."""

    weights: ClassVar[Weights] = {PixelView: 2.0}

    def __call__(self, inference: Inference) -> Tensor:
        return inference.class_surprise


class _SampledTerm(Term):
    """A bound over eight latents drawn with fixed noise, nats, where `sampled_elbo`."""

    of_rate = True

    def exists(self, spec: ModelSpec) -> bool:
        """Only a model that is asked for it draws latents."""
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
        `spec.without` names a term that the model has not, or leaves none.
    """
    names = [name for name, term in TERMS.items() if term.exists(spec)]
    for name in spec.without:
        if name not in names:
            raise UsageError(
                f"`model.without` names {name!r}, and the model has no such term; it has {', '.join(names)}"
            )
    left = tuple(name for name in names if name not in spec.without)
    if not any(_is_combined(name, spec) for name in left):
        raise UsageError("`model.without` leaves no term to make a score of; leave out fewer")
    return left


def term_weights(spec: ModelSpec) -> dict[str, float]:
    """Weights of the terms that make up the score; 0 for one that only sounds an alarm.

    Where every leading term is left out, the others lead alike.
    """
    weights = {name: TERMS[name].weight(spec) for name in term_names(spec) if _is_combined(name, spec)}
    return weights if any(weights.values()) else dict.fromkeys(weights, 1.0)


def _is_combined(name: str, spec: ModelSpec) -> bool:
    """An autoencoder has no rate, and its negative ELBO is the distortion alone."""
    return not (spec.autoencoder and TERMS[name].of_rate)

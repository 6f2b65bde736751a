"""The inference graph: pixels in, a fixed set of named results out, preprocessing and calibration included."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from vaeguard.errors import UsageError
from vaeguard.models.calibration import Calibration
from vaeguard.models.likelihoods import least_distortion
from vaeguard.models.objective import distortion, nearest_kl
from vaeguard.models.patches import Patches, local_contrast, surrounded, undo_contrast
from vaeguard.models.reference import Reference, features_of, movement_of
from vaeguard.models.standardise import Standardise
from vaeguard.models.sums import row_mean, row_sum, sum_last
from vaeguard.settings.specs import TERMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from vaeguard.models.vae import VAE, Posterior
    from vaeguard.settings.specs import ModelSpec

COMPARED = {"recon_ratio", "hidden_distance", "feature_distance", "latent_distance"}
"""Terms that compare with statistics of whole normal images; a model of patches has none."""
RATES = {"kl", "neg_elbo", "neg_elbo_sampled", "neg_iwae"}
"""Terms that an autoencoder has not: it has no rate, and its negative ELBO is the distortion alone."""
MOVEMENTS = {"hidden_error", "hidden_distance"}
"""Terms that need the reconstruction to be encoded again."""
SMALL, NO_DOUBT = 0.01, 1e-30
"""Up to the one, three terms of the series of log(1 + x) are as good as float32; below the other, no doubt is left."""
NOISE_SAMPLES = 8
NOISE_SEED = 0


def term_names(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the terms of a model, in the order of the columns of `scores.csv`.

    Raises
    ------
    UsageError
        `spec.without` names a term that the model has not, or leaves none.
    """
    missing = {
        *(COMPARED if spec.patch else ()),
        *(() if spec.pseudo_classes else ("pseudo_entropy",)),
        *(() if spec.guided else ("class_energy", "class_surprise")),
        *(() if spec.sampled_elbo else ("neg_elbo_sampled", "neg_iwae")),
    }
    names = [name for name in TERMS if name not in missing]
    for name in spec.without:
        if name not in names:
            raise UsageError(
                f"`model.without` names {name!r}, and the model has no such term; it has {', '.join(names)}"
            )
    kept = tuple(name for name in names if name not in spec.without)
    if not set(kept) - (RATES if spec.autoencoder else set()):
        raise UsageError("`model.without` leaves no term to make a score of; leave out fewer")
    return kept


def term_weights(spec: ModelSpec) -> dict[str, float]:
    """Weights of the leading terms, whose mean surprise orders the images; the others only sound an alarm.

    Of images half of it is where they lie among the normal ones, half to which class they belong, where guided; of
    vectors their error, rate and activations; of patches how well the model explains them. These constants were chosen
    once: for images with letters of notMNIST held out one at a time, for vectors on 20 tables of ADBench, for patches
    on magnetic tiles and circuit boards.
    """
    if spec.patch:
        return {"recon_error" if spec.autoencoder else "neg_elbo": 1.0}
    if spec.vectors:
        return dict.fromkeys(("recon_ratio", "kl", "hidden_distance", "feature_distance"), 1.0)
    place = {"latent_distance": 1.0, "feature_distance": 1.0}
    return {**place, "class_surprise": 2.0} if spec.guided else place


class InferenceGraph(nn.Module):
    """Everything between pixels and results; PyTorch runs it, and an ONNX file holds exactly it.

    Terms, each (N,), higher = stranger:

    - `recon_error`: squared error at the posterior mean, mean over pixels
    - `recon_ratio`: the same, each pixel against its own mean error among normal images
    - `kl`: the rate, nats per image (the smallest over the classes with a prior per class)
    - `neg_elbo`: distortion at the posterior mean + rate, nats per image
    - `hidden_error`: how far the encoder's activations move when it reads its own reconstruction, mean square per
      layer, summed (after RaPP's SAP, which also counts the pixels and does not average; Kim et al., ICLR 2020)
    - `hidden_distance`: the same movement, on a grid of 2x2 and with that of the posterior mean, against how it varies
      among normal images (after RaPP's NAP)
    - `feature_distance`: distance of the encoder's last activations from the nearest of up to 2,000 clusters of
      normal ones, in the directions that tell normal images apart (deep nearest neighbours; Sun et al., ICML 2022)
    - `latent_distance`: the same of the posterior mean, taken to unit length: where the aggregate posterior is thin
    - `pseudo_entropy`: entropy of the pseudo-class probabilities, nats, mean over the clusterings
    - `class_energy`: −logsumexp of the class logits (Liu et al., NeurIPS 2020), where guided
    - `class_surprise`: −log of the largest class probability, nats (Hendrycks & Gimpel, ICLR 2017), where guided
    - `neg_elbo_sampled`, `neg_iwae`: negative ELBO and importance-weighted bound (Burda et al., 2016) over eight
      latents drawn with fixed noise, nats, where `spec.sampled_elbo`

    `spec.without` leaves terms out. With `spec.patch` the VAE looks at the local contrast of all patches, a term is the
    mean of its five largest values over them, and the heatmap is the negative ELBO of a patch, nats per pixel above the
    least there can be; the terms that compare with statistics of whole images do not exist.

    Terms and heatmap of vectors are in standardised units, `restored` is in those of the input.
    """

    noise: Tensor

    def __init__(self, vae: VAE, normal_scores: int = 0, centres: int = 1) -> None:
        super().__init__()
        self.vae = vae
        spec = vae.spec
        shape = spec.image_shape
        assert shape is not None
        self.standardise = Standardise(shape) if spec.vectors else None
        self.patches = Patches(shape, spec.patch) if spec.patch else None
        self.reference = None if spec.patch else Reference(shape, _sizes(vae), centres)
        if spec.sampled_elbo:
            generator = torch.Generator().manual_seed(NOISE_SEED)
            self.register_buffer("noise", torch.randn(NOISE_SAMPLES, spec.latent_size, generator=generator))
        self.term_names = term_names(spec)
        without = RATES if spec.autoencoder else set()
        self.combined_names = tuple(name for name in self.term_names if name not in without)
        weights = [term_weights(spec).get(name, 0.0) for name in self.combined_names]
        # Where every leading term is switched off, the others lead alike.
        self.calibration = Calibration(weights if any(weights) else [1.0] * len(weights), normal_scores)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Inspect `image`, uint8 (0..255) or float32 ([0, 1]), shape (N, C, H, W), or float32 vectors (N, 1, 1, F)."""
        image = self.prepared(image)
        if self.patches is None:
            terms, restored = self.terms(image)
            heatmap = (image - restored).square().mean(1)
        else:
            terms, restored, heatmap = self._all_over(image, self.patches)
        terms = {name: terms[name] for name in self.term_names}
        score, p_value = self.calibration(torch.stack([terms[name] for name in self.combined_names], 1))
        if self.standardise is not None:
            restored = self.standardise.restore(restored)
        return {"score": score, "p_value": p_value, **terms, "restored": restored, "heatmap": heatmap}

    def prepared(self, image: Tensor) -> Tensor:
        """The input as the VAE reads it: pixels in [0, 1], standardised vectors; float32 (N, C, H, W)."""
        return to_unit(image) if self.standardise is None else self.standardise(image)

    def encode(self, image: Tensor) -> Posterior:
        """q(z | x) of `image`, as `forward` takes it; a model of patches has none for a whole image."""
        return self.vae.posterior(self.prepared(image))

    def decode(self, latent: Tensor) -> Tensor:
        """The decoder's mean for `latent` (N, L): (N, C, H, W) in [0, 1], vectors in their own units."""
        mean = self.vae.likelihood(latent).mean
        return mean if self.standardise is None else self.standardise.restore(mean)

    def _all_over(self, image: Tensor, patches: Patches) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Terms, restoration and heatmap of `image`, (N, C, H, W) in [0, 1], from all its patches."""
        contrast, mean = local_contrast(surrounded(image))
        each, restored = self.terms(patches.cut(contrast))
        terms = {name: patches.strongest(values) for name, values in each.items()}
        heat = each["neg_elbo"] / restored[0].numel() - least_distortion(self.vae.spec)
        return terms, undo_contrast(patches.fold(restored), mean), patches.heatmap(heat.clamp(min=0))

    def terms(self, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Terms of `image`, as the VAE reads it, left out or not, and its restoration, both (N, C, H, W)."""
        vae, reference = self.vae, self.reference
        hidden = vae.hidden(image)
        posterior = vae.posterior_from(hidden[-1])
        likelihood = vae.likelihood(posterior.mean)
        restored = likelihood.mean
        error, rate = (image - restored).square(), nearest_kl(vae, posterior)
        terms = {
            "recon_error": row_mean(error),
            "kl": rate,
            "neg_elbo": distortion(likelihood, self._observed(image)) + rate,
        }
        if MOVEMENTS & set(self.term_names):
            terms |= self._movement_terms(hidden, posterior.mean, restored)
        if reference is not None:
            terms |= {
                "recon_ratio": reference.error_ratio(error),
                "feature_distance": reference.feature_distance(features_of(hidden)),
                "latent_distance": reference.latent_distance(posterior.mean),
            }
        terms |= self._class_terms(posterior.mean)
        if vae.spec.sampled_elbo:
            terms |= self._sampled(image, posterior)
        return terms, restored

    def _observed(self, image: Tensor) -> Tensor:
        """What the likelihood is one of: a density of grey values was learned from values between the levels."""
        return between_levels(image, 0.5) if self.vae.spec.likelihood == "continuous-bernoulli" else image

    def _movement_terms(self, hidden: list[Tensor], mean: Tensor, restored: Tensor) -> dict[str, Tensor]:
        again = self.vae.hidden(restored)
        moved = [row_mean((a - b).square()) for a, b in zip(hidden, again, strict=True)]
        terms = {"hidden_error": torch.stack(moved).sum(0)}
        if self.reference is not None:
            movement = movement_of(hidden, again, mean, self.vae.posterior_from(again[-1]).mean)
            terms["hidden_distance"] = self.reference.movements(movement)
        return terms

    def _class_terms(self, mean: Tensor) -> dict[str, Tensor]:
        terms = {}
        if self.vae.pseudo_head is not None:
            terms["pseudo_entropy"] = row_mean(_entropy(self.vae.pseudo_logits(mean)))
        if self.vae.class_head is not None:
            logits = self.vae.class_head(mean)
            terms["class_surprise"] = surprise_of(logits)
            terms["class_energy"] = -logits.amax(1) - terms["class_surprise"]
        return terms

    def _sampled(self, image: Tensor, posterior: Posterior) -> dict[str, Tensor]:
        """Bounds over latents drawn with the same noise for every image; the prior is the standard normal."""
        weights = []
        for noise in self.noise:
            latent = posterior.sample(noise.expand_as(posterior.mean))
            log_ratio = 0.5 * row_sum(noise.square() - latent.square())  # log p(z) − log q(z | x), but for sigma
            if posterior.logvar is not None:
                log_ratio = log_ratio + 0.5 * row_sum(posterior.logvar)
            weights.append(log_ratio - distortion(self.vae.likelihood(latent), self._observed(image)))
        each = torch.stack(weights)
        return {"neg_elbo_sampled": -each.mean(0), "neg_iwae": math.log(len(each)) - each.logsumexp(0)}

    @torch.no_grad()
    def fit_reference(self, batches: Iterable[Tensor], seed: int) -> None:
        """Fit the statistics of normal images on `batches` of training images; `seed` starts their clusters."""
        assert self.reference is not None
        errors, features, movements, means = [], [], [], []
        for batch in batches:
            image = self.prepared(batch)
            hidden = self.vae.hidden(image)
            mean = self.vae.posterior_from(hidden[-1]).mean
            restored = self.vae.likelihood(mean).mean
            again = self.vae.hidden(restored)
            errors.append((image - restored).square().sum(0))
            features.append(features_of(hidden))
            movements.append(movement_of(hidden, again, mean, self.vae.posterior_from(again[-1]).mean))
            means.append(mean)
        squared_error = torch.stack(errors).sum(0) / sum(map(len, means))
        self.reference.fit(squared_error, torch.cat(features), torch.cat(movements), torch.cat(means), seed)


@torch.no_grad()
def _sizes(vae: VAE) -> tuple[int, int, int]:
    """Sizes of `features_of`, `movement_of` and the latent."""
    assert vae.spec.image_shape is not None
    hidden = vae.eval().hidden(next(vae.parameters()).new_zeros(1, *vae.spec.image_shape))
    mean = vae.posterior_from(hidden[-1]).mean
    return features_of(hidden).shape[1], movement_of(hidden, hidden, mean, mean).shape[1], mean.shape[1]


def to_unit(image: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1]; uint8 is divided by 255."""
    return image.float().div_(255) if image.dtype == torch.uint8 else image


def between_levels(image: Tensor, part: Tensor | float) -> Tensor:
    """Grey values of 256 levels, in [0, 1], moved towards the next level by `part` in [0, 1].

    Levels are points, on which a density has no bound; noise of one level spreads them.
    """
    return (255 * image + part) / 256


def from_unit(image: Tensor) -> Tensor:
    """Pixels in [0, 1] as uint8, rounded."""
    return (image * 255).round().clamp(0, 255).byte()


def surprise_of(logits: Tensor) -> Tensor:
    """−log of the largest probability, nats, (N,), that `logits` (N, K) give.

    To five digits or more, which decide between images that are classified with hardly any doubt: what the other
    classes have is added up without the one of the largest, and log(1 + x) is taken by its series where x is small.
    """
    largest, at = logits.max(1, keepdim=True)
    is_largest = torch.arange(logits.shape[1], device=logits.device) == at
    others = sum_last((logits - largest).exp().masked_fill(is_largest, 0.0))
    # log1p is no operator of ONNX, and is written there as the logarithm of a rounded sum.
    others = others.clamp(min=NO_DOUBT)
    series = others - others.square() / 2 + others**3 / 3
    return torch.where(others < SMALL, series, (1 + others).log())


def _entropy(logits: Tensor) -> Tensor:
    """Entropy, nats, of the probabilities that `logits` (..., K) give; one exponential each, they are thousands."""
    shifted = logits - logits.amax(-1, keepdim=True)
    weights = shifted.exp()
    total = sum_last(weights)
    return total.log() - sum_last(weights * shifted) / total

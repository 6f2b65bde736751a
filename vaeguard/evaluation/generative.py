"""Evaluate a VAE as a generative model: bounds of the likelihood, the quality of samples, and what its latent holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.image_set import as_image_set
from vaeguard.errors import UsageError
from vaeguard.evaluation.evaluating import unseen
from vaeguard.evaluation.latents import LatentUnits, latent_units
from vaeguard.evaluation.likelihood_bounds import LikelihoodBounds, bound_likelihood, check_generative
from vaeguard.evaluation.sample_quality import SampleJudge, frechet_distance
from vaeguard.settings.evaluation import BOUND_IMAGES, IMPORTANCE_SAMPLES
from vaeguard.wording import brief

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.record import ModelRecord
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.progress import Progress

    Pixels = npt.NDArray[Any]
    Doubles = npt.NDArray[np.float64]

LATENT_IMAGES = 5000
"""The units of the latent are measured on so many images."""
MOST_JUDGED = 8000
"""The most images for judging samples: half train the judge, and samples are compared with a quarter."""
FEWEST_JUDGED = 2000
MOST_VALUES = 2**28
"""The most pixels in memory as floats; of large images, fewer are used."""
SHOWN = 10
"""So many images of each origin are shown."""
BINS = 20
"""The values of a unit are sorted into so many bins of equal counts to measure its information on the class."""
FEWEST_BINNED = 500
"""The fewest images for that measurement."""


@dataclass(frozen=True)
class SampleQuality:
    """How near images of several origins come to real ones, as an independent classifier sees them.

    Attributes
    ----------
    distances : dict of float
        Squared Fréchet distance between the classifier's features of real images and of images of each origin: other
        `real` images (the distance that remains by chance), `reconstructed`, `aggregate` (drawn around latents of
        images) and `prior`.
    images : int
        Number of images of each origin.
    accuracy : float
        Share of real images, held out from training, whose class the classifier predicts.
    """

    distances: dict[str, float]
    images: int
    accuracy: float


@dataclass(frozen=True, eq=False)
class GenerativeEvaluation:
    """The result of `evaluate_generative` on normal images.

    Attributes
    ----------
    data : str
        Name of the data.
    classes : tuple of str
        The normal classes in the data; empty if the model has none.
    images : int
        Number of normal images; `len(bounds.neg_elbo)` of them have bounds.
    bounds : LikelihoodBounds
        Negative ELBO and importance-weighted bound.
    samples : int
        Latents per image behind the bounds.
    units : LatentUnits
        Rate and activity of each unit.
    correlation : float64 (L, L)
        Correlation of the units' posterior means; 0 for a unit that does not vary.
    information : float64 (L,) or None
        Mutual information between each unit, sampled from its posterior, and the class, nats; None without classes or
        with too few images.
    information_gap : float or None
        Information of the best unit minus that of the second best, as a share of the classes' entropy (the mutual
        information gap of Chen et al., "Isolating sources of disentanglement", NeurIPS 2018, with the class as the one
        known factor).
    quality : SampleQuality or None
        Quality of samples; None without classes or with too few images.
    shown : dict of float (n, C, H, W)
        Some images of each origin.
    grey : bool
        Whether the images are more than black and white.
    note : str or None
        A caution for the reader.
    record : ModelRecord
        What the model file says about the fit.
    device : str
        The device that the model ran on.
    seconds : float
        How long the evaluation took.
    """

    data: str
    classes: tuple[str, ...]
    images: int
    bounds: LikelihoodBounds
    samples: int
    units: LatentUnits
    correlation: Doubles
    information: Doubles | None
    information_gap: float | None
    quality: SampleQuality | None
    shown: dict[str, Pixels]
    grey: bool
    note: str | None
    record: ModelRecord
    device: str
    seconds: float

    def __repr__(self) -> str:
        return brief(
            self,
            data=self.data,
            images=self.images,
            neg_elbo=float(self.bounds.neg_elbo.mean()),
            neg_iwae=float(self.bounds.neg_iwae.mean()),
            bits_per_dimension=self.bounds.bits_per_dimension,
            active=int(self.units.active.sum()),
        )


def evaluate_generative(
    detector: TorchDetector,
    image_set: ImageSet | npt.ArrayLike,
    *,
    samples: int = IMPORTANCE_SAMPLES,
    images: int = BOUND_IMAGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> GenerativeEvaluation:
    """Measure how well the model describes normal images that it was not fitted on.

    Parameters
    ----------
    detector : TorchDetector
        A fitted VAE of whole images.
    image_set : ImageSet
        Images; if they are labelled, only those of the model's normal classes are used.
    samples : int
        Number of latent samples per image for the bounds.
    images : int
        Number of images, drawn at random, for which the bounds are computed; 0 means all.
    seed : int
        Seed of the choice of images, their binarisation or dequantisation, all samples, and the classifier.
    progress : callable or None
        Called with the number of images done, the number of all images, and a line of text.

    Raises
    ------
    UsageError
        The model has no likelihood (an autoencoder, patches, vectors), there is no normal image, or a number is
        negative.
    """
    started = time.perf_counter()
    if images < 0 or seed < 0:
        raise UsageError(f"`images` is {images} and `seed` is {seed}; both must be 0 or more")
    check_generative(detector)
    chosen, note = unseen(detector.info, as_image_set(image_set))
    chosen = _normal(chosen, detector.info.normal_classes)
    order = np.random.default_rng(seed).permutation(len(chosen))
    bounded = chosen.select(np.sort(order[: images or None])).images  # a mapped array stays on disk
    bounds = bound_likelihood(detector, bounded, samples=samples, seed=seed, progress=progress)
    most = MOST_VALUES // chosen.images[0].size
    rows = np.sort(order[: min(LATENT_IMAGES, most)])
    observed = _observed(detector, chosen.images[rows], seed)
    encoding = detector.encode(observed)
    information = gap = None
    if chosen.labels is not None and len(rows) >= FEWEST_BINNED and len(np.unique(chosen.labels[rows])) > 1:
        assert encoding.logvar is not None
        noise = np.random.default_rng(seed).standard_normal(encoding.mean.shape)
        information, gap = class_information(encoding.mean + np.exp(0.5 * encoding.logvar) * noise, chosen.labels[rows])
    return GenerativeEvaluation(
        data=chosen.name,
        classes=tuple(name for name in chosen.class_names if name in detector.info.normal_classes),
        images=len(chosen),
        bounds=bounds,
        samples=samples,
        units=latent_units(detector.graph, observed),
        correlation=_correlation(encoding.mean),
        information=information,
        information_gap=gap,
        quality=_quality(detector, chosen, order[: min(MOST_JUDGED, most)], seed),
        shown=_shown(detector, _observed(detector, chosen.images[order[:SHOWN]], seed), observed, seed),
        grey=bool(np.any((chosen.images[rows] != 0) & (chosen.images[rows] != 255))),
        note=note,
        record=detector.info.record,
        device=detector.device,
        seconds=time.perf_counter() - started,
    )


def class_information(latents: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> tuple[Doubles, float]:
    """Mutual information between each unit of the latents (N, L) and the class, nats (L,); and the gap of the best two.

    The latents are samples of posteriors, since a mean carries no information if the posterior's noise drowns it. The
    bias from the finite number of images is subtracted (Miller & Madow, 1955). The gap is a share of the classes'
    entropy: it is 1 if one unit determines the class and the other units carry no information on it.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import mutual_info_score

    bins = (BINS * (rankdata(latents, axis=0, method="min") - 1) / len(latents)).astype(int)
    bias = (BINS - 1) * (len(np.unique(labels)) - 1) / (2 * len(latents))
    information = np.array([mutual_info_score(labels, column) for column in bins.T])
    information = np.maximum(information - bias, 0)
    best = np.sort(information)[::-1]
    second = best[1] if len(best) > 1 else 0.0
    return information, float((best[0] - second) / mutual_info_score(labels, labels))


def _observed(detector: TorchDetector, images: Pixels, seed: int) -> Pixels:
    """Images whose pixels are binarised or dequantised as for the bounds, so that all results agree."""
    return detector.graph.vae.family.observed(images, np.random.default_rng(seed))


def _normal(image_set: ImageSet, normal_classes: tuple[str, ...]) -> ImageSet:
    if image_set.labels is None or not normal_classes:
        return image_set
    normal = [k for k, name in enumerate(image_set.class_names) if name in normal_classes]
    rows = np.flatnonzero(np.isin(image_set.labels, normal))
    if not len(rows):
        raise UsageError(
            f"data {image_set.name!r} has no image of a normal class ({', '.join(normal_classes)}); its classes are"
            f" {', '.join(image_set.class_names)}"
        )
    return image_set.select(rows)


def _correlation(means: npt.NDArray[np.floating]) -> Doubles:
    if len(means) < 2:
        return np.zeros((means.shape[1], means.shape[1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.atleast_2d(np.corrcoef(means, rowvar=False))
    finite: Doubles = np.nan_to_num(correlation)
    return finite


def _quality(
    detector: TorchDetector, image_set: ImageSet, order: npt.NDArray[np.int64], seed: int
) -> SampleQuality | None:
    labels, quarter = image_set.labels, len(order) // 4
    if labels is None or image_set.regions or 4 * quarter < FEWEST_JUDGED or len(np.unique(labels[order])) < 2:
        return None
    trained, real, other = np.split(order[: 4 * quarter], [2 * quarter, 3 * quarter])
    judge = SampleJudge(image_set.images[trained], labels[trained], seed)
    target, others = judge.features(image_set.images[real]), image_set.images[other]
    observed = _observed(detector, others, seed)
    origins = {
        "real": others,
        "reconstructed": detector.decode(detector.encode(observed).mean),
        "aggregate": detector.sample(quarter, like=observed, seed=seed),
        "prior": _prior(detector, [image_set.class_names[label] for label in labels[other]], seed),
    }
    held_out = np.concatenate([real, other])
    return SampleQuality(
        {name: frechet_distance(target, judge.features(pixels)) for name, pixels in origins.items()},
        quarter,
        float((judge.classes(image_set.images[held_out]) == labels[held_out]).mean()),
    )


def _prior(detector: TorchDetector, classes: list[str], seed: int) -> Pixels:
    """Samples of the prior; of a prior per class, as many for each class as `classes` names it."""
    if detector.graph.vae.spec.prior != "per-class":
        return detector.sample(len(classes), seed=seed)
    counts = {name: classes.count(name) for name in dict.fromkeys(classes)}
    parts = [
        detector.sample(count, class_=name, seed=seed + number) for number, (name, count) in enumerate(counts.items())
    ]
    return np.concatenate(parts)


def _shown(detector: TorchDetector, examples: Pixels, images: Pixels, seed: int) -> dict[str, Pixels]:
    return {
        "real": examples,
        "reconstructed": detector.decode(detector.encode(examples).mean),
        "aggregate": detector.sample(SHOWN, like=images, seed=seed),
        "prior": detector.sample(SHOWN, seed=seed),
    }

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

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.record import ModelRecord
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.progress import Progress

    Pixels = npt.NDArray[Any]
    Doubles = npt.NDArray[np.float64]

LATENT_IMAGES = 5000
JUDGED, FEWEST_JUDGED = 8000, 2000
"""At most, and at least, so many images: half train the judge of samples, a quarter is what they are compared with."""
MOST_VALUES = 2**28
"""And at most so many pixels of them, which become floats: large images are looked at in smaller numbers."""
SHOWN = 10
BINS, FEWEST_BINNED = 20, 500
"""Of a unit, each with as many images: how finely its information on the class is counted, and of how many images."""


@dataclass(frozen=True)
class SampleQuality:
    """How near images of several origins come to real ones, as an independent classifier sees them.

    Attributes
    ----------
    distances : dict of float
        Squared Fréchet distance of its features from those of real images, by origin: other `real` images (what chance
        leaves), `reconstructed`, `aggregate` (drawn around latents of images) and `prior`.
    images : int
        Of each origin.
    accuracy : float
        Share of real images whose class the classifier tells, none of them trained on.
    """

    distances: dict[str, float]
    images: int
    accuracy: float


@dataclass(frozen=True, eq=False)
class GenerativeEvaluation:
    """What `evaluate_generative` found on normal images.

    Attributes
    ----------
    data : str
        Name of the data.
    classes : tuple of str
        The normal classes looked at; empty where the model has none.
    images : int
        Normal images there are; the bounds are of `len(bounds.neg_elbo)` of them.
    bounds : LikelihoodBounds
        Negative ELBO and importance-weighted bound.
    samples : int
        Latents per image that the bounds are made of.
    units : LatentUnits
        Rate and activity of each unit.
    correlation : float64 (L, L)
        Between the posterior means of the units; 0 for a unit that does not vary.
    information : float64 (L,) or None
        Mutual information of each unit, sampled from its posterior, and the class, nats; None without classes or with
        too few images.
    information_gap : float or None
        That of the best unit minus that of the second, as a share of the classes' entropy (the mutual information gap
        of Chen et al., "Isolating sources of disentanglement", NeurIPS 2018, with the class as the one known factor).
    quality : SampleQuality or None
        None without classes, or with too few images.
    shown : dict of float (n, C, H, W)
        Some images of each origin.
    grey : bool
        Whether the images are more than black and white.
    note : str or None
        What to beware of.
    record : ModelRecord
        What the model file says of the fit.
    device : str
        Where the model ran.
    seconds : float
        In all.
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
        Images; of labelled ones those of the model's normal classes are taken.
    samples : int
        Latents per image for the bounds.
    images : int
        Bounds are measured on so many of the images, drawn at random; 0: on all.
    seed : int
        Of the choice of images, their binarisation or dequantisation, all samples, and the classifier.
    progress : callable or None
        Called with images done, images in all, a line of text.

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
    found = bound_likelihood(detector, bounded, samples=samples, seed=seed, progress=progress)
    most = MOST_VALUES // chosen.images[0].size
    rows = np.sort(order[: min(LATENT_IMAGES, most)])
    looked_at = _observed(detector, chosen.images[rows], seed)
    encoding = detector.encode(looked_at)
    information = gap = None
    if chosen.labels is not None and len(rows) >= FEWEST_BINNED and len(np.unique(chosen.labels[rows])) > 1:
        assert encoding.logvar is not None
        noise = np.random.default_rng(seed).standard_normal(encoding.mean.shape)
        information, gap = class_information(encoding.mean + np.exp(0.5 * encoding.logvar) * noise, chosen.labels[rows])
    return GenerativeEvaluation(
        data=chosen.name,
        classes=tuple(name for name in chosen.class_names if name in detector.info.normal_classes),
        images=len(chosen),
        bounds=found,
        samples=samples,
        units=latent_units(detector.graph, looked_at),
        correlation=_correlation(encoding.mean),
        information=information,
        information_gap=gap,
        quality=_quality(detector, chosen, order[: min(JUDGED, most)], seed),
        shown=_shown(detector, _observed(detector, chosen.images[order[:SHOWN]], seed), looked_at, seed),
        grey=bool(np.any((chosen.images[rows] != 0) & (chosen.images[rows] != 255))),
        note=note,
        record=detector.info.record,
        device=detector.device,
        seconds=time.perf_counter() - started,
    )


def class_information(latents: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> tuple[Doubles, float]:
    """Mutual information of each unit, (N, L), and the class, nats (L,); and the gap of the best two.

    The latents are samples of posteriors: a mean says nothing where the noise drowns it. What chance alone gives with
    so many images is subtracted (Miller & Madow, 1955). The gap is a share of the classes' entropy: 1 where one unit
    tells the class and no other says anything of it.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import mutual_info_score

    bins = (BINS * (rankdata(latents, axis=0, method="min") - 1) / len(latents)).astype(int)
    chance = (BINS - 1) * (len(np.unique(labels)) - 1) / (2 * len(latents))
    information = np.array([mutual_info_score(labels, column) for column in bins.T])
    information = np.maximum(information - chance, 0)
    best = np.sort(information)[::-1]
    second = best[1] if len(best) > 1 else 0.0
    return information, float((best[0] - second) / mutual_info_score(labels, labels))


def _observed(detector: TorchDetector, images: Pixels, seed: int) -> Pixels:
    """Images with pixels like those that the bounds are of, so that everything else speaks of the same kind."""
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
    if labels is None or 4 * quarter < FEWEST_JUDGED or len(np.unique(labels[order])) < 2:
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
    """Samples of the prior; with one per class as many of each as there are in `classes`."""
    if detector.graph.vae.spec.prior != "per-class":
        return detector.sample(len(classes), seed=seed)
    counts = {name: classes.count(name) for name in dict.fromkeys(classes)}
    parts = [
        detector.sample(count, class_=name, seed=seed + number) for number, (name, count) in enumerate(counts.items())
    ]
    return np.concatenate(parts)


def _shown(detector: TorchDetector, some: Pixels, images: Pixels, seed: int) -> dict[str, Pixels]:
    return {
        "real": some,
        "reconstructed": detector.decode(detector.encode(some).mean),
        "aggregate": detector.sample(SHOWN, like=images, seed=seed),
        "prior": detector.sample(SHOWN, seed=seed),
    }

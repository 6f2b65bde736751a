"""Evaluate a VAE as a generative model: bounds of the likelihood, the quality of samples, and what its latent holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import UsageError
from vaeguard.evaluation import unseen
from vaeguard.latents import LatentUnits, latent_units
from vaeguard.likelihood_bounds import IMPORTANCE_SAMPLES, Bounds, bounds
from vaeguard.reporting.generative import generative_report
from vaeguard.reporting.report_file import JSON_NAME, write_report
from vaeguard.sample_quality import Judge, frechet_distance

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.image_set import ImageSet
    from vaeguard.progress import Progress
    from vaeguard.reporting.report_file import Report
    from vaeguard.torch_detector import TorchDetector

    Pixels = npt.NDArray[Any]
    Doubles = npt.NDArray[np.float64]

BOUND_IMAGES = 1000
"""Bounds of so many images are a matter of minutes."""
LATENT_IMAGES = 5000
JUDGED = 8000
"""At most so many images: half train the judge of samples, a quarter is what they are compared with."""
FEWEST_JUDGED = 200
SHOWN = 10
BINS = 20
"""Of a unit's mean, each with as many images: how finely its information on the class is counted."""


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
    bounds : Bounds
        Negative ELBO and importance-weighted bound.
    samples : int
        Latents per image that the bounds are made of.
    units : LatentUnits
        Rate and activity of each unit.
    correlation : float64 (L, L)
        Between the posterior means of the units; 0 for a unit that does not vary.
    information : float64 (L,) or None
        Mutual information of each unit's mean and the class, nats; None without classes.
    information_gap : float or None
        That of the best unit minus that of the second, as a share of the classes' entropy (the mutual information gap
        of Chen et al., "Isolating sources of disentanglement", NeurIPS 2018, with the class as the one known factor).
    quality : SampleQuality or None
        None without classes, or with too few images.
    shown : dict of float or uint8 (n, C, H, W)
        Some images of each origin.
    note : str or None
        What to beware of.
    record : dict
        What the model file says of the fit.
    device : str
        Where the model ran.
    seconds : float
        In all.
    """

    data: str
    classes: tuple[str, ...]
    images: int
    bounds: Bounds
    samples: int
    units: LatentUnits
    correlation: Doubles
    information: Doubles | None
    information_gap: float | None
    quality: SampleQuality | None
    shown: dict[str, Pixels]
    note: str | None
    record: dict[str, Any]
    device: str
    seconds: float


def evaluate_generative(
    detector: TorchDetector,
    image_set: ImageSet,
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
        The model has no likelihood (an autoencoder, patches, vectors), or there is no normal image.
    """
    started = time.perf_counter()
    chosen, note = unseen(detector.info, image_set)
    chosen = _normal(chosen, detector.info.normal_classes)
    order = np.random.default_rng(seed).permutation(len(chosen))
    pixels = chosen.images
    bounded = np.sort(order[: images or None])
    found = bounds(detector.graph, pixels[bounded], samples=samples, seed=seed, progress=progress)
    looked_at = np.sort(order[:LATENT_IMAGES])
    means = detector.encode(pixels[looked_at]).mean
    information = gap = None
    if chosen.labels is not None and len(np.unique(chosen.labels[looked_at])) > 1:
        information, gap = class_information(means, chosen.labels[looked_at])
    return GenerativeEvaluation(
        data=chosen.name,
        classes=tuple(name for name in chosen.class_names if name in detector.info.normal_classes),
        images=len(chosen),
        bounds=found,
        samples=samples,
        units=latent_units(detector.graph, pixels[looked_at]),
        correlation=_correlation(means),
        information=information,
        information_gap=gap,
        quality=_quality(detector, chosen, order, seed),
        shown=_shown(detector, pixels[order[:SHOWN]], pixels[looked_at], seed),
        note=note,
        record=detector.info.record,
        device=detector.device,
        seconds=time.perf_counter() - started,
    )


def write_generative(evaluation: GenerativeEvaluation, folder: str | Path, *, command: str = "") -> Report:
    """Write `report.json` and `report.html` into `folder`, each one whole, and return the report.

    Raises
    ------
    VaeguardError
        They cannot be written.
    """
    report = generative_report(evaluation, command)
    write_report(Path(folder) / JSON_NAME, report)
    return report


def class_information(means: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> tuple[Doubles, float]:
    """Mutual information of each unit's posterior mean, (N, L), and the class, nats (L,); and the gap of the best two.

    The gap is a share of the classes' entropy: 1 where one unit tells the class and no other says anything of it.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import mutual_info_score

    bins = (BINS * (rankdata(means, axis=0, method="min") - 1) / len(means)).astype(int)
    information = np.array([mutual_info_score(labels, column) for column in bins.T])
    best = np.sort(information)[::-1]
    second = best[1] if len(best) > 1 else 0.0
    return information, float((best[0] - second) / mutual_info_score(labels, labels))


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
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.atleast_2d(np.corrcoef(means, rowvar=False))
    finite: Doubles = np.nan_to_num(correlation)
    return finite


def _quality(
    detector: TorchDetector, image_set: ImageSet, order: npt.NDArray[np.int64], seed: int
) -> SampleQuality | None:
    rows = order[: JUDGED // 4 * 4]
    labels = image_set.labels
    if labels is None or len(rows) < FEWEST_JUDGED or len(np.unique(labels[rows])) < 2:
        return None
    quarter = len(rows) // 4
    trained, real, other = (rows[: 2 * quarter], rows[2 * quarter : 3 * quarter], rows[3 * quarter : 4 * quarter])
    judge = Judge(image_set.images[trained], labels[trained], seed)
    held_out = image_set.images[np.concatenate([real, other])]
    target = judge.features(image_set.images[real])
    origins = {
        "real": image_set.images[other],
        "reconstructed": detector.decode(detector.encode(image_set.images[other]).mean),
        "aggregate": detector.sample(quarter, like=image_set.images[other], seed=seed),
        "prior": detector.sample(quarter, seed=seed),
    }
    return SampleQuality(
        {name: frechet_distance(target, judge.features(pixels)) for name, pixels in origins.items()},
        quarter,
        float((judge.classes(held_out) == labels[np.concatenate([real, other])]).mean()),
    )


def _shown(detector: TorchDetector, some: Pixels, images: Pixels, seed: int) -> dict[str, Pixels]:
    return {
        "real": some,
        "reconstructed": detector.decode(detector.encode(some).mean),
        "aggregate": detector.sample(SHOWN, like=images, seed=seed),
        "prior": detector.sample(SHOWN, seed=seed),
    }

"""The report of a VAE as a generative model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.reports.fit import strip, unit_facts
from vaeguard.reports.kinds import Part, ReportFigures, Verdict
from vaeguard.reports.report_file import heading
from vaeguard.reports.terminal import sparkline

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from vaeguard.evaluation.generative import GenerativeEvaluation, SampleQuality
    from vaeguard.reports.report_file import Report

BINS = 40
CORRELATED = 24
"""The most units whose correlations are drawn; these have the highest rate."""


def generative_report(evaluation: GenerativeEvaluation, command: str = "") -> Report:
    """The report of a generative evaluation; `command` is the command line."""
    bounds, record = evaluation.bounds, evaluation.record
    counts, edges = np.histogram(bounds.neg_iwae, BINS)
    return {
        **heading(
            "generative",
            f"{evaluation.data}: how well the VAE models these images",
            command=command,
            device=evaluation.device,
        ),
        "data": evaluation.data,
        "normal_classes": list(evaluation.classes),
        "images": {"normal": evaluation.images, "bounds": len(bounds.neg_elbo)},
        "samples": evaluation.samples,
        "seconds": evaluation.seconds,
        "notes": [note for note in (evaluation.note, _other_pixels(evaluation)) if note],
        "likelihood": record.model.likelihood,
        "pixels": bounds.pixels,
        "neg_elbo": asdict(_mean(bounds.neg_elbo)),
        "neg_iwae": asdict(_mean(bounds.neg_iwae)),
        "rate": asdict(_mean(bounds.rate)),
        "bits_per_dimension": bounds.bits_per_dimension,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "latents": _latents(evaluation),
        "quality": _quality(evaluation.quality),
        "fit": {key: value for key, value in record.to_dict().items() if key != "kind"},
        "pictures": {name: {"strip": strip(images)} for name, images in evaluation.shown.items()},
    }


def _other_pixels(evaluation: GenerativeEvaluation) -> str:
    """A note for a likelihood of other pixels than those of the images; empty for others."""
    likelihood = evaluation.record.model.likelihood_facts
    binarised = evaluation.record.training.binarise or not evaluation.grey
    return "" if likelihood.support == "binary" and binarised else likelihood.other_pixels


def _latents(evaluation: GenerativeEvaluation) -> Report:
    units = evaluation.units
    first = np.argsort(-units.rate, kind="stable")[:CORRELATED]
    active = np.flatnonzero(units.active)
    between = np.abs(evaluation.correlation[np.ix_(active, active)])[~np.eye(len(active), dtype=bool)]
    facts = unit_facts(units)
    if evaluation.information is not None:
        facts = [fact | {"information": float(evaluation.information[fact["unit"]])} for fact in facts]
    return {
        "units": facts,
        "active": len(active),
        "correlated": {"units": first.tolist(), "values": _rounded(evaluation.correlation[np.ix_(first, first)])},
        "mean_absolute_correlation": float(between.mean()) if len(between) else None,
        "information_gap": evaluation.information_gap,
    }


def _quality(quality: SampleQuality | None) -> Report | None:
    if quality is None:
        return None
    distances = [{"origin": name, "distance": value} for name, value in quality.distances.items()]
    return {"distances": distances, "images": quality.images, "accuracy": quality.accuracy}


def _mean(values: npt.NDArray[np.float64]) -> Mean:
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Mean(float(values.mean()), error)


def _rounded(values: npt.NDArray[np.float64]) -> list[list[float]]:
    rows: list[list[float]] = np.round(values, 3).tolist()
    return rows


class Mean(Part):
    """A mean over images, in nats."""

    mean: float
    standard_error: float | None


class Images(Part):
    """The number of images whose bounds were measured."""

    bounds: int


class Unit(Part):
    """A unit of the latent."""

    rate: float


class Latents(Part):
    """All units of the latent, and how many are active."""

    units: tuple[Unit, ...]
    active: int


class Distance(Part):
    """The distance of the images of an origin from real images."""

    origin: str
    distance: float


class Quality(Part):
    """The quality of samples."""

    distances: tuple[Distance, ...]


class Bins(Part):
    """A histogram of the bound."""

    edges: list[float]
    counts: list[int]


class Figures(ReportFigures):
    """The figures of a generative evaluation that its verdict and its lines take."""

    images: Images
    samples: int
    notes: tuple[str, ...]
    pixels: str
    neg_elbo: Mean
    neg_iwae: Mean
    bits_per_dimension: float
    histogram: Bins
    latents: Latents
    quality: Quality | None

    def verdict(self) -> Verdict:
        """Return how well the model describes normal images."""
        error = "" if self.neg_iwae.standard_error is None else f" ± {self.neg_iwae.standard_error:.2f}"
        dimension = "binary pixel" if self.pixels == "binarised" else "8-bit pixel and channel"
        sentence = (
            f"−log p(x) of {self.images.bounds:,} normal images is at most {self.neg_iwae.mean:.2f}{error} nats by the"
            f" importance-weighted bound over {self.samples:,} samples, {self.bits_per_dimension:.3f} bits per"
            f" {dimension}; the negative ELBO is {self.neg_elbo.mean:.2f}. {self.latents.active} of"
            f" {len(self.latents.units)} latent units are active."
        )
        if self.quality:
            distances = {row.origin: row.distance for row in self.quality.distances}
            sentence += (
                f" The Fréchet distance to real images is {distances['prior']:.1f} for samples from the prior,"
                f" {distances['aggregate']:.1f} for samples around real images and {distances['real']:.1f} for other"
                " real images."
            )
        tone = "fair" if self.notes else "plain"
        return Verdict("How well the VAE models normal images", sentence, self.notes, tone)

    def lines(self) -> Iterable[str]:
        """Yield the histogram of the bound and the rate of each unit."""
        low, high = self.histogram.edges[0], self.histogram.edges[-1]
        yield f"nats per image {low:.1f} {sparkline(self.histogram.counts)} {high:.1f}"
        yield f"KL divergence of each latent unit {sparkline(unit.rate for unit in self.latents.units)}"

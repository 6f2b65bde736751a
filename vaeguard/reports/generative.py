"""The report of a VAE as a generative model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vaeguard.reports.fit import strip, unit_facts
from vaeguard.reports.report_file import heading

if TYPE_CHECKING:
    import numpy.typing as npt

    from vaeguard.evaluation.generative import GenerativeEvaluation
    from vaeguard.reports.report_file import Report

BINS = 40
CORRELATED = 24
"""Correlations of so many units are drawn, those of the highest rate."""


def generative_report(evaluation: GenerativeEvaluation, command: str = "") -> Report:
    """The report of what `evaluate_generative` found; `command` is the command line."""
    found, units, record = evaluation.bounds, evaluation.units, evaluation.record
    first = np.argsort(-units.rate, kind="stable")[:CORRELATED]
    active = np.flatnonzero(units.active)
    between = np.abs(evaluation.correlation[np.ix_(active, active)])[~np.eye(len(active), dtype=bool)]
    counts, edges = np.histogram(found.neg_iwae, BINS)
    quality = evaluation.quality
    likelihood = record.model.likelihood_facts
    binarised = record.training.binarise or not evaluation.grey
    other_pixels = "" if likelihood.support == "binary" and binarised else likelihood.other_pixels
    facts = unit_facts(units)
    if evaluation.information is not None:
        facts = [fact | {"information": float(evaluation.information[fact["unit"]])} for fact in facts]
    return {
        **heading(
            "generative", f"{evaluation.data}: how well the VAE describes it", command=command, device=evaluation.device
        ),
        "data": evaluation.data,
        "normal_classes": list(evaluation.classes),
        "images": {"normal": evaluation.images, "bounds": len(found.neg_elbo)},
        "samples": evaluation.samples,
        "seconds": evaluation.seconds,
        "notes": [*([evaluation.note] if evaluation.note else []), *([other_pixels] if other_pixels else [])],
        "likelihood": record.model.likelihood,
        "pixels": found.pixels,
        "neg_elbo": _mean(found.neg_elbo),
        "neg_iwae": _mean(found.neg_iwae),
        "rate": _mean(found.rate),
        "bits_per_dimension": found.bits_per_dimension,
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        "latents": {
            "units": facts,
            "active": len(active),
            "correlated": {"units": first.tolist(), "values": _rounded(evaluation.correlation[np.ix_(first, first)])},
            "mean_absolute_correlation": float(between.mean()) if len(between) else None,
            "information_gap": evaluation.information_gap,
        },
        "quality": None
        if quality is None
        else {
            "distances": [{"origin": name, "distance": value} for name, value in quality.distances.items()],
            "images": quality.images,
            "accuracy": quality.accuracy,
        },
        "fit": {key: value for key, value in record.to_dict().items() if key != "kind"},
        "pictures": {name: {"strip": strip(images)} for name, images in evaluation.shown.items()},
    }


def _mean(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(values.mean()), "standard_error": error}


def _rounded(values: npt.NDArray[np.float64]) -> list[list[float]]:
    rows: list[list[float]] = np.round(values, 3).tolist()
    return rows

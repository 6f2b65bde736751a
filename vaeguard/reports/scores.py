"""The report of a table of scores: images without labels, most anomalous first."""

from __future__ import annotations

import contextlib
import heapq
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from vaeguard.data.source import pick
from vaeguard.engines.run_folder import calibration_images
from vaeguard.errors import RefusedError, as_objects
from vaeguard.reports.distributions import histogram
from vaeguard.reports.gallery import GROUP, Group, Sample, gallery
from vaeguard.reports.kinds import Part, ReportFigures, Verdict, percent
from vaeguard.reports.report_file import JSON_NAME, heading, write_report
from vaeguard.reports.terminal import SHOWN, Histogram, sparklines
from vaeguard.statistics.false_alarms import can_flag, expected_interval, fewest_calibration, way_to_flag
from vaeguard.statistics.metrics import Share, share_of
from vaeguard.storage.files import valid_text
from vaeguard.storage.tables import table_chunks
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.data.source import Source
    from vaeguard.engines.detector import Detector
    from vaeguard.evaluation.scoring import ScoreSummary
    from vaeguard.reports.report_file import Report

    Floats = npt.NDArray[np.floating]

P_BINS = 20
"""Fewer where the p-values can take fewer values."""
ROUNDED = 1e-5
"""Of a bin: more than float32 rounds, less than what parts two p-values."""
FINE = np.sinh(np.linspace(0, np.arcsinh(1e4), 8001))
"""Edges between which scores are counted while a table of any length goes by."""
ERRORS_SHOWN = 50
JUDGED = 30
"""Fewer images tell nothing of drift."""
ORDINARY = 0.8
"""At least this share of a batch should look normal, or it is said to differ as a whole."""
FAMILIAR = 0.6
"""More p-values above a half than this are more than normal images that the model never saw can have."""


def write_score_report(
    summary: ScoreSummary,
    detector: Detector,
    *,
    model: str | Path | None = None,
    command: str = "",
) -> Report:
    """Write `<table>.report.json` and `<table>.report.html` beside a table of scores, and return the report.

    The table is read once more, in constant memory, and of the images only those that are shown, while they are there.

    Parameters
    ----------
    summary : ScoreSummary
        What `score_files` returned.
    detector : Detector
        The one that scored.
    model : path or None
        Where the detector comes from: a run folder has images to compare the batch with.
    command : str
        The command line.

    Raises
    ------
    VaeguardError
        The files cannot be written.
    """
    calibration = detector.info.calibrated_on
    tally = _Tally(min(P_BINS, (calibration or P_BINS) + 1))
    for chunk in table_chunks(summary.output, ("path", "score", "p_value", "anomaly")):
        tally.add(chunk["path"], chunk["score"], chunk["p_value"], chunk["anomaly"])
    errors = summary.errors[:ERRORS_SHOWN]
    report = {
        **heading("scores", summary.output, command=command, device=detector.device),
        "images": summary.images,
        "fpr": summary.fpr,
        "threshold": tally.threshold,
        "anomalies": asdict(share_of(summary.anomalies, summary.images)),
        "note": summary.note,
        "seconds": summary.seconds,
        "histogram": _histogram(tally, detector, model),
        "p_values": {"edges": np.linspace(0, 1, len(tally.p_counts) + 1).tolist(), "counts": tally.p_counts.tolist()},
        "drift": asdict(drift(tally.upper_half, summary.images, calibration)),
        "errors": {"count": len(summary.errors), "shown": as_objects(errors)},
        "fit": detector.info.record.to_dict(),
        **_gallery(tally, summary.sources, detector),
    }
    write_report(f"{summary.output}.{JSON_NAME}", report)
    return report


class _Tally:
    """What a report needs of a table, row by row: counts, and the names of the images that tell most."""

    def __init__(self, p_bins: int) -> None:
        self.fine = np.zeros(len(FINE), np.int64)
        self.p_counts = np.zeros(p_bins, np.int64)
        self.upper_half = 0
        self.threshold: float | None = None
        self.highest: list[tuple[float, str]] = []
        self.lowest: list[tuple[float, str]] = []
        self.just_flagged: list[tuple[float, str]] = []
        self.just_passed: list[tuple[float, str]] = []

    def add(self, paths: list[str], score: Floats, p_value: Floats, anomaly: npt.NDArray[np.bool_]) -> None:
        """Count more rows."""
        self.fine += np.bincount(np.searchsorted(FINE, score, "right").clip(1) - 1, minlength=len(FINE))
        self.p_counts += count_p_values(p_value, len(self.p_counts))
        self.upper_half += int(np.count_nonzero(p_value > 0.5))
        if anomaly.any():
            lowest = float(score[anomaly].min())
            self.threshold = lowest if self.threshold is None else min(self.threshold, lowest)
        everything = np.ones(len(score), bool)
        half = GROUP // 2
        self.highest = _extreme(self.highest, paths, score, everything, GROUP)
        self.lowest = _extreme(self.lowest, paths, -score, everything, GROUP)
        self.just_flagged = _extreme(self.just_flagged, paths, -score, anomaly, half)
        self.just_passed = _extreme(self.just_passed, paths, score, ~anomaly, half)


def count_p_values(p_value: Floats, bins: int) -> npt.NDArray[np.int64]:
    """How many lie in each of so many parts of (0, 1].

    A p-value is k of n + 1; one on an edge belongs below it, also where it is rounded.
    """
    numbers = np.ceil(p_value * bins - ROUNDED).astype(np.int64).clip(1, bins) - 1
    return np.bincount(numbers, minlength=bins)


def _extreme(
    kept: list[tuple[float, str]], paths: list[str], key: Floats, among: npt.NDArray[np.bool_], count: int
) -> list[tuple[float, str]]:
    """The `count` highest keys of those kept so far and the rows `among` the new ones, with their names."""
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(-key[rows], kind="stable")[:count]]
    return heapq.nlargest(
        count, kept + [(float(key[row]), paths[row]) for row in rows.tolist()], key=lambda each: each[0]
    )


def drift(upper_half: int, images: int, calibration: int | None) -> Drift:
    """How much of a batch looks normal, and a warning where the batch as a whole does not.

    p-values of normal images are uniform and those of anomalies small, so that twice the share above one half
    estimates the share of normal images (Storey, "A direct approach to false discovery rates", 2002).

    Parameters
    ----------
    upper_half, images : int
        Images with a p-value above one half, and all.
    calibration : int or None
        How many images rank the score: as they are finitely many, the middle of the p-values is itself uncertain.
    """
    if not images:
        return Drift(None, None, None, None)
    found = share_of(upper_half, images)
    middle = middle_width(calibration)
    low = found.value - math.hypot(found.value - found.low, middle)
    high = found.value + math.hypot(found.high - found.value, middle)
    normal_share = min(1.0, 2 * found.value)
    warning = None
    if images >= JUDGED and 2 * high < ORDINARY:
        warning = (
            f"only about {100 * normal_share:.0f} % of these images look like the normal ones of the fit."
            " Unless so many are anomalous, something else has changed: camera, light, focus, size or the product; look"
            " at the images below, and fit on images like these if they are as they should be"
        )
    elif images >= JUDGED and low > FAMILIAR:
        warning = (
            "these images are more familiar to the model than normal images that it never saw: if it was fitted on"
            " these very images, the scores flatter"
        )
    return Drift(normal_share, max(0.0, min(1.0, 2 * low)), min(1.0, 2 * high), warning)


def middle_width(calibration: int | None) -> float:
    """Half of the 95 % interval of where the middle p-value lies, from so many images (Beta, as a normal)."""
    return 0.0 if calibration is None else 1.96 * 0.5 / math.sqrt(calibration + 2)


def _histogram(tally: _Tally, detector: Detector, model: str | Path | None) -> Report:
    """Of the batch, to the fineness that it was counted in, and of the calibration images of a run."""
    counted = np.flatnonzero(tally.fine)
    middles = np.append((FINE[1:] + FINE[:-1]) / 2, FINE[-1])
    kinds, weights = {"batch": middles[counted]}, {"batch": tally.fine[counted]}
    images = None
    with contextlib.suppress(RefusedError):  # it is only to compare with
        images = calibration_images(model) if model else None
    if images is not None and images.shape[1:] == detector.info.image_shape:
        kinds = {"calibration": detector.inspect(images).score, **kinds}
    return histogram(kinds, weights)


def _gallery(tally: _Tally, sources: Sequence[Source], detector: Detector) -> Report:
    chosen = {
        ("most_anomalous", "Most anomalous"): tally.highest,
        ("borderline", "Closest to the threshold, on both sides"): tally.just_flagged[::-1] + tally.just_passed,
        ("most_normal", "Most normal"): tally.lowest,
    }
    wanted = {name for each in chosen.values() for _, name in each}
    batches = list(pick(sources, wanted, detector.info.rule))
    paths = [valid_text(path) for batch in batches for path in batch.paths]
    if not paths:
        return {"gallery": [], "pictures": {}}
    images = np.concatenate([batch.images for batch in batches if len(batch.images)])
    inspection = detector.inspect(images, pictures=True)
    place = {path: row for row, path in enumerate(paths)}
    groups = tuple(
        Group(
            name, title, np.array([place[path] for _, path in each if path in place], np.int64), int(tally.fine.sum())
        )
        for (name, title), each in chosen.items()
        if each
    )
    rows = np.arange(len(images))
    sample = Sample(groups, rows, images if detector.info.view.pictures else None, inspection)
    facts: dict[str, Any] = {"path": paths, "score": inspection.score, "p_value": inspection.p_value}
    return gallery(sample, facts, inspection.terms)


class Calibration(Part):
    """How many images rank the score."""

    images: int


class Fit(Part):
    """What the model file says of the fit."""

    calibration: Calibration


class Drift(Part):
    """The share of images that look normal with its interval, and a warning if the batch as a whole differs."""

    normal_share: float | None
    low: float | None
    high: float | None
    warning: str | None


class Errors(Part):
    """Files that could not be read."""

    count: int


class Item(Part):
    """An image of the gallery; an infinite score is None."""

    path: str
    score: float | None


class GalleryGroup(Part):
    """Images that are shown together."""

    name: str
    items: tuple[Item, ...]


class Figures(ReportFigures):
    """The figures of a table of scores that its verdict and its lines take."""

    images: int
    fpr: float
    threshold: float | None
    anomalies: Share
    note: str | None
    histogram: Histogram
    drift: Drift
    errors: Errors
    gallery: tuple[GalleryGroup, ...]
    fit: Fit

    def verdict(self) -> Verdict:
        """Return how many images stand out, and whether more than normal images alone would give."""
        calibration, fpr = self.fit.calibration.images, self.fpr
        notes: tuple[str, ...]
        if not can_flag(calibration, fpr):
            sentence = (
                f"The score is calibrated on {counted(calibration, 'normal image')}, so its smallest p-value is"
                f" {1 / (calibration + 1):.2g}; to flag where p_value <= {fpr:g} takes {fewest_calibration(fpr):,} of"
                f" them.{self._unread()}"
            )
            notes = (f"to have images flagged, {way_to_flag(calibration)}",)  # the sentence says the rest of the note
            headline, tone = f"Nothing can be flagged at a false-alarm rate of {fpr:g}", "poor"
        else:
            low, high = self._flagged_of_normal_images()
            sentence = (
                f"{self.anomalies.count:,} of {self.images:,} images are flagged ({percent(self.anomalies.value)},"
                f" interval {percent(self.anomalies.low)} to {percent(self.anomalies.high)}) where p_value"
                f" <= {fpr:g}; of normal images alone it would be {f'{low:,} to {high:,}' if self.images else 'none'}."
                f"{self._unread()}"
            )
            notes = (self.note,) if self.note else ()
            headline, tone = self._headline(high)
        if not self.images:
            headline, tone = "Nothing could be read", "poor"
        elif self.drift.warning:
            headline, tone, notes = "This batch differs as a whole", "poor", (*notes, self.drift.warning)
        return Verdict(headline, sentence, notes, tone)

    def _headline(self, most: int) -> tuple[str, str]:
        """Headline and tone where of normal images alone at `most` so many would be flagged."""
        unread = "fair" if self.errors.count else "good"
        if not self.anomalies.count:
            return "Nothing stands out", unread
        if self.anomalies.count <= most:
            return "No more is flagged than normal images give", unread
        return f"{counted(self.anomalies.count, 'image')} to look at", "fair"

    def _unread(self) -> str:
        return f" {self.errors.count:,} could not be read." if self.errors.count else ""

    def _flagged_of_normal_images(self) -> tuple[int, int]:
        """How many of so many normal images would be flagged with 95 % probability, at least and at most."""
        if not self.images:
            return 0, 0
        low, high = expected_interval(self.images, self.fit.calibration.images, self.fpr)
        return round(low * self.images), round(high * self.images)

    def lines(self) -> Iterable[str]:
        """Yield the histogram and the most anomalous images."""
        yield from sparklines(self.histogram, self.threshold)
        for group in self.gallery:
            if group.name == "most_anomalous":
                for item in group.items[:SHOWN]:
                    score = "inf" if item.score is None else f"{item.score:.2f}"
                    yield f"  {score:>6}  {escape(item.path)}"

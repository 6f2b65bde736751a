"""The report of a table of scores: images without labels, most anomalous first."""

from __future__ import annotations

import contextlib
import heapq
import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from vaeguard.data.source import originals, pick
from vaeguard.engines.inspection import concatenate
from vaeguard.engines.run_folder import calibration_images
from vaeguard.errors import RefusedError, as_objects
from vaeguard.evaluation.scoring import inspect_originals
from vaeguard.reports.distributions import histogram
from vaeguard.reports.gallery import GROUP, Group, drawn_of, gallery
from vaeguard.reports.kinds import Part, ReportFigures, Verdict, percent
from vaeguard.reports.report_file import JSON_NAME, heading, write_report
from vaeguard.reports.terminal import SHOWN, Histogram, sparklines
from vaeguard.statistics.false_alarms import can_flag, expected_interval, fewest_calibration, way_to_flag
from vaeguard.statistics.metrics import Share, share_of
from vaeguard.storage.files import valid_text
from vaeguard.storage.tables import table_chunks
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.data.source import Source
    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import Inspection
    from vaeguard.evaluation.scoring import ScoreSummary
    from vaeguard.reports.gallery import Drawn
    from vaeguard.reports.report_file import Report

    Floats = npt.NDArray[np.floating]

P_BINS = 20
"""The most bins of p-values; there are fewer if p-values can take fewer values."""
ROUNDED = 1e-5
"""A share of a bin that is larger than rounding in float32 and smaller than the distance of two p-values."""
FINE = np.sinh(np.linspace(0, np.arcsinh(1e4), 8001))
"""The edges between which scores are counted, so that a table of any length is read in constant memory."""
ERRORS_SHOWN = 50
REVIEWED, AUDITED = 40, 20
"""The most flagged images to review, and the number of images drawn from the whole batch for an audit."""
REVIEW_SEED = 0
JUDGED = 30
"""The least images from which drift is judged."""
ORDINARY = 0.8
"""The least share of a batch that should look normal; with less, the batch differs as a whole."""
FAMILIAR = 0.6
"""The largest share of p-values above one half that normal images can have, unless the model was fitted on them."""


def write_score_report(
    summary: ScoreSummary,
    detector: Detector,
    *,
    model: str | Path | None = None,
    command: str = "",
) -> Report:
    """Write `<table>.report.json` and `<table>.report.html` beside a table of scores, and return the report.

    The table is read once more, in constant memory. Of the images, only those that are shown are read, if they still
    exist.

    Parameters
    ----------
    summary : ScoreSummary
        The summary that `score_files` returned.
    detector : Detector
        The detector of the scores.
    model : path or None
        The origin of the detector: a run folder has calibration images to compare the batch with.
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
        "left_out": summary.left_out,
        "seconds": summary.seconds,
        "histogram": _histogram(tally, detector, model),
        "p_values": {"edges": np.linspace(0, 1, len(tally.p_counts) + 1).tolist(), "counts": tally.p_counts.tolist()},
        "drift": asdict(drift(tally.upper_half, summary.images, calibration)),
        "errors": {"count": len(summary.errors), "shown": as_objects(errors)},
        "fit": detector.info.record.to_dict(),
        **_pictured(tally, summary.sources, detector),
    }
    write_report(f"{summary.output}.{JSON_NAME}", report)
    return report


class _Tally:
    """The facts of a table that a report needs, gathered row by row: counts, and the names of images to look at."""

    def __init__(self, p_bins: int) -> None:
        self.fine = np.zeros(len(FINE), np.int64)
        self.p_counts = np.zeros(p_bins, np.int64)
        self.upper_half = 0
        self.threshold: float | None = None
        self.highest: list[tuple[float, str]] = []
        self.lowest: list[tuple[float, str]] = []
        self.just_flagged: list[tuple[float, str]] = []
        self.just_passed: list[tuple[float, str]] = []
        self.drawn: list[tuple[float, str]] = []
        """Images drawn from all; what is confirmed among them may calibrate, since nothing was chosen by its score."""
        self.drawn_flagged: list[tuple[float, str]] = []
        self.flagged: set[str] = set()
        self.draw = np.random.default_rng(REVIEW_SEED)

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
        lot = self.draw.uniform(size=len(paths))
        self.drawn = _extreme(self.drawn, paths, lot, everything, AUDITED)
        self.drawn_flagged = _extreme(self.drawn_flagged, paths, lot, anomaly, REVIEWED)
        drawn = {path for _, path in (*self.drawn, *self.drawn_flagged)}
        self.flagged = (self.flagged | {paths[row] for row in np.flatnonzero(anomaly)}) & drawn


def count_p_values(p_value: Floats, bins: int) -> npt.NDArray[np.int64]:
    """The number of p-values in each of `bins` equal parts of (0, 1].

    A p-value is k / (n + 1). A value on an edge belongs to the part below, even if rounding has moved it above.
    """
    numbers = np.ceil(p_value * bins - ROUNDED).astype(np.int64).clip(1, bins) - 1
    return np.bincount(numbers, minlength=bins)


def _extreme(
    highest: list[tuple[float, str]], paths: list[str], key: Floats, among: npt.NDArray[np.bool_], count: int
) -> list[tuple[float, str]]:
    """The `count` highest keys, with their names, of the `highest` so far and the new rows in the mask `among`."""
    rows = np.flatnonzero(among)
    rows = rows[np.argsort(-key[rows], kind="stable")[:count]]
    return heapq.nlargest(
        count, highest + [(float(key[row]), paths[row]) for row in rows.tolist()], key=lambda pair: pair[0]
    )


def drift(upper_half: int, images: int, calibration: int | None) -> Drift:
    """The share of a batch that looks normal, and a warning if the batch as a whole differs.

    p-values of normal images are uniform and those of anomalies small, so that twice the share above one half
    estimates the share of normal images (Storey, "A direct approach to false discovery rates", 2002).

    Parameters
    ----------
    upper_half, images : int
        The number of images with a p-value above one half, and the number of all images.
    calibration : int or None
        The number of images that rank the score; the fewer they are, the less certain is the middle p-value.
    """
    if not images:
        return Drift(None, None, None, None)
    upper = share_of(upper_half, images)
    middle = middle_width(calibration)
    low = upper.value - math.hypot(upper.value - upper.low, middle)
    high = upper.value + math.hypot(upper.high - upper.value, middle)
    normal_share = min(1.0, 2 * upper.value)
    warning = None
    if images >= JUDGED and 2 * high < ORDINARY:
        warning = (
            f"only about {100 * normal_share:.0f} % of these images look like the normal images of the fit."
            " Unless most images really are anomalous, something else has changed: camera, light, focus, size"
            " or the product. Check the images below; if they are normal, fit again on images like these"
        )
    elif images >= JUDGED and low > FAMILIAR:
        warning = (
            "to the model, these images look more normal than normal images that it has never seen; if the model was"
            " fitted on these images, the scores are too low"
        )
    return Drift(normal_share, max(0.0, min(1.0, 2 * low)), min(1.0, 2 * high), warning)


def middle_width(calibration: int | None) -> float:
    """Half of the 95 % interval of the middle p-value of `calibration` images (a Beta, taken as a normal)."""
    return 0.0 if calibration is None else 1.96 * 0.5 / math.sqrt(calibration + 2)


def _histogram(tally: _Tally, detector: Detector, model: str | Path | None) -> Report:
    """The histogram of the batch, from its counts, and of the calibration images of a run."""
    counted = np.flatnonzero(tally.fine)
    middles = np.append((FINE[1:] + FINE[:-1]) / 2, FINE[-1])
    kinds, weights = {"batch": middles[counted]}, {"batch": tally.fine[counted]}
    if (calibration := _calibration_scores(detector, model)) is not None:
        kinds = {"calibration": calibration, **kinds}
    return histogram(kinds, weights)


def _calibration_scores(detector: Detector, model: str | Path | None) -> Floats | None:
    """The scores of the calibration images of a run, by models that had not seen them; None if they are unknown."""
    if detector.info.out_of_fold is not None:
        return detector.info.out_of_fold[:, 0]
    with contextlib.suppress(RefusedError):  # the report does without images to compare with
        images = calibration_images(model) if model else None
        if images is not None and images.shape[1:] == detector.info.image_shape:
            return detector.inspect(images).score
    return None


def _names_to_show(tally: _Tally) -> dict[tuple[str, str], list[str]]:
    """The names of the images of each group, by the name and the title of the group."""
    highest, lowest, flagged, passed = (
        [name for _, name in pairs]
        for pairs in (tally.highest, tally.lowest, tally.just_flagged[::-1], tally.just_passed)
    )
    # Where few images are flagged, those closest to the threshold are among the most anomalous anyway.
    borderline = flagged + passed if {*flagged, *passed} - {*highest} else []
    return {
        ("most_anomalous", "Most anomalous"): highest,
        ("borderline", "Closest to the threshold, on both sides"): borderline,
        ("most_normal", "Most normal"): [name for name in lowest if name not in {*highest, *borderline}],
    }


def _pictured(tally: _Tally, sources: Sequence[Source], detector: Detector) -> Report:
    """The gallery and the images to review, those that still exist, with their pictures unless they are vectors."""
    chosen = _names_to_show(tally)
    to_review = {name for _, name in (*tally.drawn_flagged, *tally.drawn)}
    names = to_review.union(*chosen.values())
    parts, paths, drawn = [], list[str](), {}
    if rule := detector.info.rule:
        for number, (original, inspection) in enumerate(inspect_originals(detector, originals(sources, names, rule))):
            paths.append(valid_text(original.name))
            parts.append(replace(inspection, restored=None, heatmap=None))
            drawn[number] = drawn_of(original, inspection, detector.info)
    else:
        for batch in pick(sources, names, None):
            if batch.paths:
                paths += map(valid_text, batch.paths)
                parts.append(detector.inspect(batch.images))
    if not paths:
        return {"gallery": [], "review": None, "pictures": {}}
    inspection = concatenate(parts)
    place = {path: row for row, path in enumerate(paths)}
    groups = tuple(
        Group(name, title, np.array([place[path] for path in names if path in place], np.int64), int(tally.fine.sum()))
        for (name, title), names in chosen.items()
        if names
    )
    facts: dict[str, Any] = {"path": paths, "score": inspection.score, "p_value": inspection.p_value}
    review = [row for row, path in enumerate(paths) if path in to_review]
    order = sorted(review, key=lambda row: (paths[row] not in tally.flagged, -inspection.score[row], paths[row]))
    shown = gallery(groups, facts, inspection.terms, drawn)
    return {**shown, "review": _review(tally, paths, order, inspection, drawn)}


def _review(
    tally: _Tally, paths: Sequence[str], rows: Sequence[int], inspection: Inspection, drawn: Mapping[int, Drawn]
) -> Report:
    """The flagged images to review, strangest first, and then the others of the audit."""
    audited = {name for _, name in tally.drawn}
    items = [
        {
            "path": paths[row],
            "flagged": paths[row] in tally.flagged,
            "audit": paths[row] in audited,
            "score": float(inspection.score[row]),
            "p_value": float(inspection.p_value[row]),
            "pictures": f"row-{row}" if row in drawn else None,
            "spots": [asdict(spot) for spot in drawn[row].spots] if row in drawn else [],
            "spots_found": drawn[row].found if row in drawn else 0,
        }
        for row in rows
    ]
    flagged = sum(item["flagged"] is True for item in items)
    return {"seed": REVIEW_SEED, "audited": len(tally.drawn), "flagged": flagged, "items": items}


class Calibration(Part):
    """The number of images that rank the score."""

    images: int


class Fit(Part):
    """The record of the fit in the model file."""

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
                f"The score is calibrated on {counted(calibration, 'normal image')}, so the lowest possible p-value is"
                f" {1 / (calibration + 1):.2g}; flagging images with p_value <= {fpr:g} needs"
                f" {fewest_calibration(fpr):,} calibration images.{self._unread()}"
            )
            notes = (f"to flag images, {way_to_flag(calibration)}",)
            headline, tone = f"No image can be flagged at a false-alarm rate of {fpr:g}", "poor"
        else:
            low, high = self._flagged_of_normal_images()
            sentence = (
                f"{percent(self.anomalies.value)} of {counted(self.images, 'image')} (95 % interval"
                f" {percent(self.anomalies.low)} to {percent(self.anomalies.high)})"
                f" {'has' if self.images == 1 else 'have'} p_value <= {fpr:g}; if all were normal,"
                f" {f'{low:,} to {high:,}' if self.images else 'none'} would be flagged.{self._unread()}"
            )
            notes = (self.note,) if self.note else ()
            headline, tone = self._headline(high)
        if not self.images:
            headline, tone = "No input could be read", "poor"
        elif self.drift.warning:
            headline, tone, notes = (
                "This batch as a whole looks different from the images of the fit",
                "poor",
                (*notes, self.drift.warning),
            )
        return Verdict(headline, sentence, notes, tone)

    def _headline(self, most: int) -> tuple[str, str]:
        """Headline and tone if `most` is the largest number of normal images that would be flagged."""
        unread = "fair" if self.errors.count else "good"
        if not self.anomalies.count:
            return "No image is flagged", unread
        if self.anomalies.count <= most:
            return "No more images are flagged than expected if all are normal", unread
        return f"{counted(self.anomalies.count, 'image')} to check", "fair"

    def _unread(self) -> str:
        return f" {counted(self.errors.count, 'file')} could not be read." if self.errors.count else ""

    def _flagged_of_normal_images(self) -> tuple[int, int]:
        """The 95 % interval of the number of flagged images if all images are normal."""
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

"""The report of several evaluations side by side: their figures, and the settings in which they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from rich.markup import escape
from rich.table import Table

from vaeguard.errors import RefusedError, UsageError
from vaeguard.reports import evaluation
from vaeguard.reports.kinds import Part, ReportFigures, Verdict, kind_of, typed
from vaeguard.reports.report_file import SCORES_NAME, heading, read_report, report_path
from vaeguard.storage.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from rich.console import RenderableType

    from vaeguard.reports.report_file import Report

ROUNDING = 1e-6
"""The largest difference between the ROC-AUC of a report and that of its table, if both are of one evaluation."""
ABREAST = 3
"""The most runs in one table: in 80 columns their names wrap, but no value does."""


class Curves(Part):
    """The curves of the combined score."""

    score: dict[str, list[float]]


class Compared(evaluation.Figures):
    """The figures and settings of an evaluation that are compared; `fit` is the record of its model file."""

    data: str
    fingerprint: str
    normal_classes: list[str]
    curves: Curves
    fit: dict[str, Any]

    def columns(self) -> dict[str, float]:
        """Return the figures by their names."""
        score = self.metrics[0]
        return {
            "ROC-AUC": score.roc_auc,
            "ROC-AUC, lower end": score.roc_auc_low,
            "ROC-AUC, upper end": score.roc_auc_high,
            "average precision": score.average_precision,
            "FPR at 95 % TPR": score.fpr_at_95_tpr,
            "caught": self.detection_rate.value,
            "false alarms": self.false_alarm_rate.value,
        }

    def settings(self) -> dict[str, Any]:
        """Return the settings that may differ between evaluations, one level deep."""
        settings = {"data": self.data, "fpr": self.fpr, "normal classes": self.normal_classes}
        for part in ("model", "training", "versions"):
            settings |= {f"{part}: {name}": value for name, value in self.fit.get(part, {}).items()}
        data = self.fit.get("data", {})
        return settings | {"fitted on": data.get("name"), "split": data.get("split", {}).get("sha256")}

    def same_images(self, other: Compared) -> bool:
        """Whether both may be of the same images; fingerprints cannot be compared if the models' image sizes differ."""
        shapes = [compared.fit.get("model", {}).get("image_shape") for compared in (self, other)]
        return self.fingerprint == other.fingerprint or shapes[0] != shapes[1]


def compare_reports(paths: Sequence[str | Path], command: str = "") -> Report:
    """The comparison of reports of evaluations.

    Raises
    ------
    UsageError
        There are fewer than two paths, a path has no report, or a report is of another kind.
    RefusedError
        A report is damaged or of another version.
    """
    if len(paths) < 2:
        raise UsageError("a comparison needs at least two reports; give their files or folders")
    reports = [read_report(path) for path in paths]
    for path, report in zip(paths, reports, strict=True):
        if kind_of(report) != "evaluation":
            raise UsageError(f"{str(path)!r} is a {kind_of(report)} report; give reports of evaluations")
    evaluations = [cast("Compared", typed(Compared, report)) for report in reports]
    places = [report_path(path) for path in paths]
    runs = [
        {
            "name": str(path),
            "path": str(place),
            "values": list(evaluation.columns().values()),
            "curve": evaluation.curves.score,
        }
        for path, place, evaluation in zip(paths, places, evaluations, strict=True)
    ]
    return {
        **heading("comparison", f"{len(runs)} evaluations side by side", command=command),
        "columns": list(evaluations[0].columns()),
        "runs": runs,
        "best_two": _best_two(places, evaluations),
        "differences": _differences([evaluation.settings() for evaluation in evaluations]),
    }


def _best_two(places: Sequence[Path], evaluations: Sequence[Compared]) -> dict[str, Any] | None:
    """The difference of the two highest ROC-AUCs on the same images; None if the images differ."""
    from vaeguard.statistics.metrics import auc_difference

    areas = [evaluation.metrics[0].roc_auc for evaluation in evaluations]
    best, second = sorted(range(len(areas)), key=lambda run: -areas[run])[:2]
    scores = _paired_scores(places[second], places[best])
    if scores is None or not evaluations[best].same_images(evaluations[second]):
        return None
    difference, low, high = auc_difference(*scores)
    if abs(difference - (areas[best] - areas[second])) > ROUNDING:  # the tables belong to other reports
        return None
    interval = {"difference": difference, "low": low, "high": high}
    return {"best": best, "second": second, "images": len(scores[0]), **interval}


def _paired_scores(*places: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]] | None:
    """The truth of each image, and its scores in both evaluations; None if the tables are of different images."""
    try:
        tables = [read_table(place.with_name(SCORES_NAME)) for place in places]
        one, other = ({name: table[name].to_numpy() for name in ("path", "normal", "score")} for table in tables)
    except (RefusedError, KeyError):  # the table was moved away, or is another program's
        return None
    if any(len(one[name]) != len(other[name]) or (one[name] != other[name]).any() for name in ("path", "normal")):
        return None
    if one["normal"].all() or not one["normal"].any():
        return None
    return ~one["normal"], one["score"], other["score"]


def _differences(settings: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The settings that are not the same in all reports."""
    names = list(dict.fromkeys(name for of_one in settings for name in of_one))
    values = {name: [of_one.get(name) for of_one in settings] for name in names}
    return {name: row for name, row in values.items() if any(value != row[0] for value in row)}


class Run(Part):
    """One of the compared reports, with its figures in the order of the columns."""

    name: str
    values: tuple[float, ...]


class BestTwo(Part):
    """The difference of the two best evaluations on the same images."""

    images: int
    difference: float
    low: float
    high: float


class Figures(ReportFigures):
    """The figures of a comparison that its verdict and its tables take."""

    columns: list[str]
    runs: tuple[Run, ...]
    best_two: BestTwo | None
    differences: dict[str, list[Any]]

    def verdict(self) -> Verdict:
        """Return the highest ROC-AUC, and whether its lead may be chance."""
        first, second = sorted(self.runs, key=lambda run: -run.values[0])[:2]
        (best, low, _), (next_best, _, high) = first.values[:3], second.values[:3]
        if pair := self.best_two:
            clear = (
                f"on the same {pair.images:,} images the two differ by {pair.difference:+.3f} (95 % interval"
                f" {pair.low:+.3f} to {pair.high:+.3f}), which {'is more than' if pair.low > 0 else 'may be'} chance"
            )
        else:
            clear = (
                "their intervals do not overlap"
                if low > high
                else "their intervals overlap, so the difference may be chance"
            )
        other = {"data", "normal classes"} & set(self.differences)
        notes = (
            ("the reports use different data or normal classes, so their figures cannot be compared",) if other else ()
        )
        sentence = f"The highest ROC-AUC is {best:.3f}, for {first.name}; the next is {next_best:.3f}: {clear}."
        return Verdict("Comparison", sentence, notes)

    def lines(self) -> Iterable[RenderableType]:
        """Yield tables of the figures, a few runs abreast."""
        for start in range(0, len(self.runs), ABREAST):
            runs = self.runs[start : start + ABREAST]
            table = Table(box=None, pad_edge=False, header_style="bold")
            table.add_column(overflow="fold")
            for run in runs:
                table.add_column(escape(run.name), justify="right", overflow="fold")
            for name, *values in zip(self.columns, *(run.values for run in runs), strict=True):
                table.add_row(escape(name), *("–" if value is None else f"{value:.3f}" for value in values))
            yield table

"""Several reports of one kind side by side: what differs between them, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.errors import RefusedError, UsageError
from vaeguard.reports.report_file import SCORES_NAME, heading, read_report, report_path
from vaeguard.storage.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaeguard.reports.report_file import Report

    Columns = dict[str, Any]


ROUNDING = 1e-6
"""Between a ROC-AUC in a report and the same from its table; more, and they are not of one evaluation."""


def compare_reports(paths: Sequence[str | Path], command: str = "") -> Report:
    """The comparison of reports, which are all evaluations, all fits or all benchmarks.

    Raises
    ------
    UsageError
        They are fewer than two, a path has none, or they are of different kinds or of one that is not compared.
    RefusedError
        A report is damaged or of another version.
    """
    if len(paths) < 2:
        raise UsageError("a comparison needs at least two reports; name their files or folders")
    reports = [read_report(path) for path in paths]
    kinds = list(dict.fromkeys(report["kind"] for report in reports))
    if len(kinds) > 1 or kinds[0] not in _COLUMNS:
        raise UsageError(
            f"reports of the kinds {', '.join(kinds)} cannot stand side by side; give evaluations, or fits, or"
            " benchmarks"
        )
    kind = kinds[0]
    columns = [_COLUMNS[kind](report) for report in reports]
    names = list(dict.fromkeys(name for each in columns for name in each))
    runs = [
        {
            "name": str(path),
            "path": str(report_path(path)),
            "values": [each.get(name) for name in names],
            **_drawn(report),
        }
        for path, report, each in zip(paths, reports, columns, strict=True)
    ]
    return {
        **heading("comparison", f"{len(runs)} {_PLURALS[kind]} side by side", command=command),
        "of": kind,
        "columns": names,
        "runs": runs,
        "classes": _classes(reports) if kind == "fit" else [],
        "best_two": _best_two(reports, runs) if kind == "evaluation" else None,
        "differences": _differences([_settings(report) for report in reports]),
    }


def _best_two(reports: Sequence[Report], runs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How far the two highest ROC-AUCs are apart, image by image; None where they are not of the same images."""
    from vaeguard.statistics.metrics import auc_difference

    best, second = sorted(range(len(runs)), key=lambda run: -runs[run]["values"][0])[:2]
    # Models of another size see the same images otherwise.
    shapes = [reports[run]["fit"].get("model", {}).get("image_shape") for run in (second, best)]
    known = [reports[run].get("fingerprint") for run in (second, best)]
    if shapes[0] == shapes[1] and (None in known or known[0] != known[1]):
        return None
    try:
        tables = [read_table(Path(runs[run]["path"]).with_name(SCORES_NAME)) for run in (second, best)]
        one, other = ({name: table[name].to_numpy() for name in ("path", "normal", "score")} for table in tables)
    except (RefusedError, KeyError):  # moved away since, or somebody else's
        return None
    if any(len(one[name]) != len(other[name]) or (one[name] != other[name]).any() for name in ("path", "normal")):
        return None
    if one["normal"].all() or not one["normal"].any():
        return None
    difference, low, high = auc_difference(~one["normal"], one["score"], other["score"])
    if abs(difference - (runs[best]["values"][0] - runs[second]["values"][0])) > ROUNDING:  # not of these reports
        return None
    found = {"difference": difference, "low": low, "high": high}
    return {"best": best, "second": second, "images": len(one["path"]), **found}


def _evaluation(report: Report) -> Columns:
    score = report["metrics"][0]
    return {
        "ROC-AUC": score["roc_auc"],
        "lower end": score["roc_auc_low"],
        "upper end": score["roc_auc_high"],
        "average precision": score["average_precision"],
        "FPR at 95 % TPR": score["fpr_at_95_tpr"],
        "caught": report["detection_rate"]["value"],
        "false alarms": report["false_alarm_rate"]["value"],
    }


def _fit(report: Report) -> Columns:
    best = report["best_epoch"]
    return {
        "validation loss": best["valid_loss"],
        "distortion": best["valid_distortion"],
        "rate": best["valid_rate"],
        "active units": best["active_units"],
        "best epoch": best["epoch"],
        "seconds": sum(row["seconds"] for row in report["history"]),
    }


def _classes(reports: list[Report]) -> list[dict[str, Any]]:
    """What became of each normal class in each fit; None where a fit has no such class."""
    tables = [{row["name"]: row for row in report.get("classes", [])} for report in reports]
    names = list(dict.fromkeys(name for table in tables for name in table))
    return [
        {"name": name}
        | {
            what: [table.get(name, {}).get(what) for table in tables]
            for what in ("distortion", "flagged", "calibration")
        }
        for name in names
    ]


def _benchmark(report: Report) -> Columns:
    rows = [row for row in report["means"] or report["rows"] if row["score"] in ("score", row["method"])]
    return {
        f"{row['data']}, {row['case'] or 'mean'}: {row['method']}": row["roc_auc"]["mean"]
        for row in rows
        if not row["kind"]
    }


def _drawn(report: Report) -> Columns:
    """What is drawn of each report."""
    if report["kind"] == "evaluation":
        return {"curve": report["curves"]["score"]}
    return {"history": report["history"]} if report["kind"] == "fit" else {}


def _settings(report: Report) -> dict[str, Any]:
    """What may differ between reports of a kind, one level deep."""
    if report["kind"] == "benchmark":
        return {**report["spec"], "command": report["command"]}
    fit, found = report, {}
    if report["kind"] == "evaluation":
        fit = report["fit"]
        found = {"data": report["data"], "fpr": report["fpr"], "normal classes": report["normal_classes"]}
    for part in ("model", "training", "versions"):
        found |= {f"{part}: {name}": value for name, value in fit.get(part, {}).items()}
    data = fit.get("data", {})
    return found | {"fitted on": data.get("name"), "split": data.get("split", {}).get("sha256")}


def _differences(settings: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The settings that are not the same in all reports."""
    names = list(dict.fromkeys(name for each in settings for name in each))
    found = {name: [each.get(name) for each in settings] for name in names}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


_PLURALS = {"evaluation": "evaluations", "fit": "fits", "benchmark": "benchmarks"}
_COLUMNS: dict[str, Callable[[Report], Columns]] = {"evaluation": _evaluation, "fit": _fit, "benchmark": _benchmark}

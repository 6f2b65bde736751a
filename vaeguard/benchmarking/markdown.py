"""The report as Markdown: wide tables with a row for each case and a column for each score."""

from __future__ import annotations

import hashlib
from typing import Any

from vaeguard.benchmarking.aggregate import OURS
from vaeguard.benchmarking.spec import BENCHMARKS

Content = dict[str, Any]

NEAR = 0.01
"""The combined score shall be no further below the best term than this."""


def markdown(report: Content) -> str:
    """The report, as `Report.to_dict` gives it, as Markdown text."""
    lines = [f"# {report['benchmark']}: {BENCHMARKS[report['benchmark']]}", ""]
    if report["trial"]:
        lines += [f"**A trial on at most {report['spec']['limit']} examples: these numbers are no result.**", ""]
    cells = report["cells"]
    if cells["finished"] < cells["planned"]:
        lines += [f"**Not complete: {cells['finished']} of {cells['planned']} cells.**", ""]
    lines += [report["protocol"], ""]
    lines += [report["notes"]["settings"], ""]
    for data in dict.fromkeys(row["data"] for row in report["rows"]):
        lines += _data(report, data)
    lines += _best(report) + _alarms(report) + _published(report) + _seconds(report) + _circumstances(report)
    return "\n".join(lines) + "\n"


def _data(report: Content, data: str) -> list[str]:
    """A table for each of our fits, the simple methods beside it; without a fit of ours, one of those alone."""
    rows = [row for row in report["rows"] + report["means"] if row["data"] == data]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    ours = [name for name in methods if name in OURS]
    lines = []
    for method in ours or [""]:
        # What labels bring by themselves belongs beside the fit that has them.
        shown = [method, *(m for m in methods if m not in OURS and (m != "classifier" or method == "guided"))]
        lines += [f"## {data}{', ' + method if method else ''}", "", *_wide(rows, shown)]
    return lines


def _wide(rows: list[Content], methods: list[str]) -> list[str]:
    columns = [(row["method"], row["score"]) for method in methods for row in rows if row["method"] == method]
    columns = list(dict.fromkeys(columns))
    table = []
    for case, kind in dict.fromkeys((row["case"], row["kind"]) for row in rows):
        found = {(r["method"], r["score"]): r["roc_auc"] for r in rows if (r["case"], r["kind"]) == (case, kind)}
        name = _text(kind) if kind else _case(case)
        table.append([name, *(_spread(found.get(column)) for column in columns)])
    heads = [_heading(method, score) for method, score in columns]
    return _table(["case", *heads], table)


def _heading(method: str, score: str) -> str:
    if method in OURS or method in (score, "classifier"):
        return score
    return f"{method}: {score}"


def _best(report: Content) -> list[str]:
    if not report["best_terms"]:
        return []
    table = [
        [
            _text(r["data"]),
            r["method"],
            _case(r["case"]),
            _three(r["combined"]),
            r["term"],
            _three(r["best"]),
            f"{r['difference']:+.3f}",
        ]
        for r in report["best_terms"]
    ]
    heads = ["data", "fit", "case", "combined score", "best term", "its ROC-AUC", "difference"]
    cases = [row["difference"] for row in report["best_terms"] if row["case"] is not None]
    near = sum(difference >= -NEAR for difference in cases)
    note = (
        "The best term is known only with hindsight, from the anomalies; the combined score is chosen without them."
        f" It is better than the best term, or at most {NEAR} worse, in {near} of {len(cases)} cases."
    )
    return ["## Combined score and best single term", "", *_table(heads, table), note, ""]


def _alarms(report: Content) -> list[str]:
    alarms = report["false_alarms"]
    if not alarms:
        return []
    heads = ["data", "case", "fit", "stated", "realised", "its 95 % interval", "stated is inside"]
    heads += ["expected, 95 %", "realised is inside"]
    possible = [row for row in alarms if row["expected_high"] > 0]
    cells, stated, expected = (sum(row[name] for row in possible) for name in ("cells", "stated_inside", "as_expected"))
    total = (
        f"The stated rate is inside the realised one's interval in {stated} of {cells} cells (fits times rates); the"
        f" realised rate is where exchangeable images put it in {expected} of {cells}."
        " Not counted: rates so low that the held-out images can flag nothing (expected 0)."
    )
    table = _table(heads, [_alarm(row) for row in alarms])
    return ["## False alarms on normal test images", "", *table, total, "", report["notes"]["false_alarms"], ""]


def _alarm(row: Content) -> list[str]:
    return [
        _text(row["data"]),
        _text(row["case"]),
        row["method"],
        f"{row['fpr']:g}",
        f"{row['realised']['mean']:.4f}",
        f"{row['low']:.4f}-{row['high']:.4f}",
        f"{row['stated_inside']} of {row['cells']}",
        f"{row['expected_low']:.4f}-{row['expected_high']:.4f}",
        f"{row['as_expected']} of {row['cells']}",
    ]


def _published(report: Content) -> list[str]:
    published = report["published"]
    if not published:
        return []
    cases = list(
        dict.fromkeys(row["case"] for row in report["rows"] if any(row["case"] in p["cases"] for p in published))
    )
    table = [
        [
            _text(row["data"]),
            _text(row["method"]),
            "" if row["mean"] is None else _three(row["mean"]),
            *(_three(row["cases"][case]) if case in row["cases"] else "" for case in cases),
            _text(row["protocol"]),
            _text(row["source"]) + ("" if row["verified"] else " (unverified: quoted from memory)"),
        ]
        for row in published
    ]
    heads = ["data", "method", "mean", *map(_text, cases), "protocol", "source"]
    note = "The protocols differ from ours and from each other, so no row is the same test as ours."
    return ["## Published by others", "", note, "", *_table(heads, table)]


def _seconds(report: Content) -> list[str]:
    table = [
        [
            _text(row["data"]),
            row["method"],
            f"{row['seconds']['fit']:.2f}",
            f"{row['seconds']['score']:.2f}",
            f"{row['train']}",
            f"{row['test']}",
        ]
        for row in report["seconds"]
    ]
    heads = ["data", "method", "fit, s", "scoring, s", "training examples", "test examples"]
    return ["## Time", "", *_table(heads, table)]


def _circumstances(report: Content) -> list[str]:
    lines = ["## How it was measured", ""]
    lines += [f"- command: `{report['command']}`"] if report["command"] else []
    for one in report["environments"]:
        versions = ", ".join(f"{name} {number}" for name, number in one["versions"].items())
        lines.append(f"- {one['date']}; {one['hardware']}; Python {one['python']}; {versions}")
    lines += [f"- fit ({name}): {_settings(fit)}" for name, fit in report["fits"].items()]
    lines += [f"- skipped: {_text(text)}" for text in report["skipped"]]
    lines += [f"- failed: {_text(name)}: {_text(why)}" for name, why in report["failures"].items()]
    lines += [f"- warned: {_text(text)}" for text in report["warnings"]]
    together = hashlib.sha256("".join(report["splits"].values()).encode()).hexdigest()
    return [*lines, f"- SHA-256 over the splits of all cells (each by itself in `report.json`): {together}"]


def _settings(fit: Content) -> str:
    shown = {**fit["model"], **fit["training"]}
    shown.pop("image_shape", None)
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    return [_line(heads), _line(["---"] * len(heads)), *map(_line, rows), ""]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(found: Content | None) -> str:
    if found is None:
        return ""
    return _three(found["mean"]) + ("" if found["std"] is None else f" ± {found['std']:.3f}")


def _case(case: str | None) -> str:
    return "**mean**" if case is None else _text(case)


def _three(value: float) -> str:
    return f"{value:.3f}"


def _text(text: str) -> str:
    """One line that breaks no table."""
    return " ".join(str(text).split()).replace("|", "\\|")

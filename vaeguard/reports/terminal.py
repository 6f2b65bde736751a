"""A report in a terminal: the verdict, a histogram in one line for each kind, and one small table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape
from rich.table import Table

from vaeguard.reports.verdicts import verdict
from vaeguard.restoration.reasons import why_look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console, RenderableType

    from vaeguard.reports.report_file import Report

BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = str.maketrans(BARS, " .:-=+*#%")
COLUMNS = 60
"""Bins of a histogram that are drawn, one letter each."""
TONES = {"good": "green", "fair": "yellow", "poor": "red", "plain": ""}
ABREAST = 3
"""So many runs stand side by side: in 80 columns their names wrap, and no value does."""
SHOWN = 3
"""So many terms, classes or runs are named."""


def show_report(report: Report, console: Console) -> None:
    """Print what `report` says, in about ten lines."""
    found = verdict(report)
    tone = TONES[found.tone]
    headline = f"[bold {tone}]{escape(found.headline)}[/]" if tone else f"[bold]{escape(found.headline)}[/]"
    console.print(f"{headline}: {escape(found.sentence)}", highlight=False)
    for note in found.notes:
        console.print(f"note: {escape(note)}", highlight=False)
    plain = not _can_encode(console.encoding, BARS)
    for part in _PARTS[report["kind"]](report):
        console.print(part.translate(PLAIN_BARS) if plain and isinstance(part, str) else part, highlight=False)


def _can_encode(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _evaluation(report: Report) -> Iterable[RenderableType]:
    yield from sparklines(report["histogram"], report["threshold"])
    terms = sorted(report["metrics"][1:], key=lambda row: -row["roc_auc"])
    named = ", ".join(f"{row['name']} {row['roc_auc']:.3f}" for row in terms)
    yield f"ROC-AUC of each term by itself: {named}"
    if pixels := report.get("pixels"):
        without = f" ({pixels['without']} anomalous images have none)" if pixels["without"] else ""
        yield (
            f"heatmaps against {pixels['masks']} masks{without}: ROC-AUC of the pixels {pixels['roc_auc']:.3f},"
            f" per-region overlap {pixels['pro']:.3f}"
        )
    yield _classes(report)


def _generative(report: Report) -> Iterable[RenderableType]:
    low, high = report["histogram"]["edges"][0], report["histogram"]["edges"][-1]
    yield f"nats per image {low:.1f} {sparkline(report['histogram']['counts'])} {high:.1f}"
    yield f"rate of each unit {sparkline(unit['rate'] for unit in report['latents']['units'])}"


def _classes(report: Report) -> RenderableType:
    table = _table("images", "flagged", "ROC-AUC")
    anomalous = sorted((row for row in report["classes"] if not row["normal"]), key=lambda row: row["roc_auc"])
    normal = sorted((row for row in report["classes"] if row["normal"]), key=lambda row: -row["flagged"])
    for rows, text in ((anomalous, "anomalous, hardest to tell"), (normal, "normal, most often flagged")):
        for row in rows[:SHOWN]:
            area = "" if row["roc_auc"] is None else f"{row['roc_auc']:.3f}"
            table.add_row(f"{escape(row['name'][:40])} ({text})", f"{row['images']:,}", f"{row['flagged']:.1%}", area)
    return table


def _fit(report: Report) -> Iterable[RenderableType]:
    losses = [row["valid_loss"] for row in report["history"]]
    # The first epochs dwarf all others.
    yield f"validation loss {sparkline(losses[min(2, len(losses) - 1) :])} {min(losses):.2f} at its best"
    if report.get("classes"):
        yield _fitted_classes(report)


def _fitted_classes(report: Report) -> RenderableType:
    table = _table("training", "draws", "distortion", "flagged")
    # A class may have no image among those that were held out.
    measured = [row for row in report["classes"] if row["distortion"] is not None]
    for row in sorted(measured, key=lambda row: -row["distortion"])[:SHOWN]:
        counts = f"{row['training']:,}", f"{row['draws']:,}"
        ranked = row["calibration"]
        table.add_row(
            f"{escape(row['name'][:40])} (hardest to restore)",
            *counts,
            f"{row['distortion']:.2f}",
            f"{round(row['flagged'] * ranked):,} of {ranked:,}" if ranked else "–",
        )
    return table


def _fit_of_denoiser(report: Report) -> Iterable[RenderableType]:
    yield f"loss {sparkline([row['direct_loss'] for row in report['history']])}"


def _benchmark(report: Report) -> Iterable[RenderableType]:
    table = _table("ROC-AUC", "avg. prec.")
    averaged = {(row["data"], row["method"]) for row in report["means"]}
    single = [row for row in report["rows"] if (row["data"], row["method"]) not in averaged and not row["kind"]]
    for row in report["means"] + single:
        if row["score"] not in ("score", row["method"]) and row["method"] != "classifier":
            continue
        precision = "" if row["average_precision"] is None else f"{row['average_precision']['mean']:.3f}"
        area, spread = row["roc_auc"], row["roc_auc"]["std"]
        name = f"{row['data']}, {row['case'] or 'mean'}: {row['method']}"
        name += "" if row["score"] in ("score", row["method"]) else f", {row['score']}"
        text = f"{area['mean']:.3f}" + ("" if spread is None else f" ± {spread:.3f}")
        table.add_row(escape(name), text, precision, style="bold" if row["score"] == "score" else None)
    yield table


def _scores(report: Report) -> Iterable[RenderableType]:
    yield from sparklines(report["histogram"], report["threshold"])
    most = next((group for group in report["gallery"] if group["name"] == "most_anomalous"), None)
    for item in (most["items"] if most else [])[:SHOWN]:
        score = "inf" if item["score"] is None else f"{item['score']:.2f}"
        yield f"  {score:>6}  {escape(item['path'])}"


def _scans(report: Report) -> Iterable[RenderableType]:
    for row in report["table"][: min(10, report["look_first"])]:
        yield f"look at {escape(row['path'])}, page {row['page']}: {escape(why_look(row))}"


def _comparison(report: Report) -> Iterable[RenderableType]:
    for start in range(0, len(report["runs"]), ABREAST):
        runs = report["runs"][start : start + ABREAST]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(overflow="fold")
        for run in runs:
            table.add_column(escape(run["name"]), justify="right", overflow="fold")
        for name, *values in zip(report["columns"], *(run["values"] for run in runs), strict=True):
            table.add_row(escape(name), *("–" if value is None else f"{value:.3f}" for value in values))
        yield table


def _tuning(report: Report) -> Iterable[RenderableType]:
    start, best = report["trials"][0], report["trials"][report["best"]]
    line = sparkline([trial["objective"] for trial in report["trials"]])
    yield f"objective of the trials {line} {start['objective']:.3f} at the start, {best['objective']:.3f} at its best"
    values = {name: (best["settings"][name], start["settings"][name]) for name in report["searched"]}
    yield "best settings: " + ", ".join(
        f"{name} {_value(now)}" + ("" if now == then else f" (was {_value(then)})")
        for name, (now, then) in values.items()
    )
    if report["importance"]:
        yield "importance: " + ", ".join(f"{name} {share:.0%}" for name, share in report["importance"].items())


def _table(*headings: str) -> Table:
    """A table with a column of names, and one of numbers for each heading."""
    table = Table("", box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _value(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def sparklines(found: Report, threshold: float | None) -> Iterable[str]:
    """One line for each kind of a histogram, all on the same axis, and a line that shows where the threshold is."""
    edges = found["edges"]
    width = max(map(len, found["counts"]))
    for kind, counts in found["counts"].items():
        yield f"{kind:<{width}} {sparkline(counts)} {sum(counts):,}"
    if threshold is not None:
        at = int(np.clip(np.searchsorted(edges, threshold, "right") - 1, 0, len(edges) - 2))
        yield f"{'':<{width}} {'':<{at}}^ threshold {threshold:.3g}"


def sparkline(values: Iterable[float | None]) -> str:
    """Values as bars of one letter each, at most `COLUMNS` of them; only zero has no bar."""
    found = np.array([np.nan if value is None else value for value in values], float)
    if len(found) > COLUMNS:
        found = np.array([part.mean() for part in np.array_split(found, COLUMNS)])
    finite = found[np.isfinite(found)]
    low, high = (min(finite.min(), 0.0), finite.max()) if len(finite) else (0.0, 0.0)
    if low == 0.0 and len(finite) and finite.min() > high / 2:
        low = 2 * finite.min() - high  # a curve far above zero is drawn by its changes
    scale = (high - low) or 1.0
    steps = np.ceil((np.nan_to_num(found, nan=low, posinf=high, neginf=low) - low) / scale * (len(BARS) - 1))
    return "".join(BARS[int(step)] for step in steps)


_PARTS: dict[str, Callable[[Report], Iterable[RenderableType]]] = {
    "evaluation": _evaluation,
    "generative": _generative,
    "fit": _fit,
    "benchmark": _benchmark,
    "scores": _scores,
    "scans": _scans,
    "denoiser": _fit_of_denoiser,
    "embedding": lambda _: (),
    "comparison": _comparison,
    "tuning": _tuning,
}

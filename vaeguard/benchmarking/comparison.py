"""Our fits, simple methods and published results in one table for each data set, with the separated ones marked."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.benchmarking.aggregate import is_of_examples
from vaeguard.benchmarking.protocols import OURS
from vaeguard.statistics.metrics import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaeguard.benchmarking.aggregate import Row, Spread
    from vaeguard.benchmarking.cells import Result
    from vaeguard.benchmarking.published import Published

    Table = dict[str, Any]


def comparison_of(
    rows: list[Row], means: list[Row], cells: list[Result], published: Sequence[Published]
) -> list[Table]:
    """A table for each data set: `data`, `cases` and `methods`.

    A method has a name, a part, a protocol, a mean, and in `cells` one entry for each case. `part` is `ours`, `simple`
    (on the same split) or `published`. An entry is None where there is no number. Its `low` and `high` are the
    outermost ends of the 95 % intervals over the seeds; it is `separated` where its `low` lies above the `high` of all
    others measured here (each comparison by itself).
    """
    tables = []
    for data in dict.fromkeys(row.data for row in rows):
        compared = [row for row in rows if row.data == data and _is_compared(row)]
        averages = {(row.method, row.score): row.roc_auc for row in means if row.data == data}
        cases = list(dict.fromkeys(row.case for row in compared))
        methods = _measured_methods(compared, averages, cases, [cell for cell in cells if cell["data"] == data])
        _mark(methods, len(cases))
        others = [_published(row, cases) for row in published if row.data == data]
        methods += [row for row in others if row["mean"] is not None or any(row["cells"])]
        tables.append({"data": data, "cases": cases, "methods": methods})
    return tables


def _is_compared(row: Row) -> bool:
    """Whether a row belongs into the table: our fits have their combined score there, other methods every score."""
    return is_of_examples(row) and (row.method not in OURS or row.score == "score")


def _measured_methods(
    rows: list[Row], means: dict[tuple[str, str], Spread], cases: list[str | None], cells: list[Result]
) -> list[Table]:
    """Every method with every score of the rows, our own methods first."""
    by_method: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_method.setdefault((row.method, row.score), []).append(row)
    keys = sorted(by_method, key=lambda key: key[0] not in OURS)
    return [_measured(by_method[key], means.get(key), cases, cells) for key in keys]


def _measured(rows: list[Row], mean: Spread | None, cases: list[str | None], cells: list[Result]) -> Table:
    """A method with one score, from its row for each measured case."""
    method, score = rows[0].method, rows[0].score
    entries: dict[str | None, Table] = {}
    for row in rows:
        of_case = [cell for cell in cells if (cell["case"], cell["method"]) == (row.case, method)]
        metrics = [cell["scores"][score] for cell in of_case if score in cell["scores"]]
        low = min(metric["roc_auc_low"] for metric in metrics)
        high = max(metric["roc_auc_high"] for metric in metrics)
        entries[row.case] = {"case": row.case, **_entry(row.roc_auc, low, high)}
    return {
        "name": method if score in ("score", method) else f"{method}, {score}",
        "part": "ours" if method in OURS else "simple",
        "protocol": "",
        "mean": mean and _mean_entry(mean, list(entries.values())),
        "cells": [entries.get(case) for case in cases],
    }


def _entry(spread: Spread, low: float, high: float) -> Table:
    return {**asdict(spread), "low": low, "high": high, "separated": False}


def _mean_entry(spread: Spread, entries: list[Table]) -> Table:
    """The mean over the cases, with the wider one of two intervals.

    One is the t-interval over the seeds. The other adds the half-widths of the cases' intervals in quadrature, as if
    the test images of the cases were independent.
    """
    from scipy.stats import t

    halves = [(entry["high"] - entry["low"]) / 2 for entry in entries]
    half = float(np.sqrt(np.square(halves).sum())) / len(halves)
    if spread.std is not None:
        count = len(spread.values)
        half = max(half, float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread.std / float(np.sqrt(count)))
    return _entry(spread, spread.mean - half, spread.mean + half)


def _mark(methods: list[Table], cases: int) -> None:
    """Mark the best entry of each column if its interval lies above those of all others."""
    columns = [[row["mean"] for row in methods], *([row["cells"][at] for row in methods] for at in range(cases))]
    for column in columns:
        entries = [entry for entry in column if entry]
        if len(entries) < 2:
            continue
        best = max(entries, key=lambda entry: float(entry["mean"]))
        best["separated"] = all(best["low"] > entry["high"] for entry in entries if entry is not best)


def _published(row: Published, cases: list[str | None]) -> Table:
    def entry(case: str | None, value: float | None) -> Table | None:
        bare: Table = {"std": None, "values": [], "low": None, "high": None, "separated": False}
        return None if value is None else {"case": case, "mean": value, **bare}

    name = row.method + ("" if row.verified else " (unverified)")
    protocol = f"{row.protocol}; {row.source}"
    return {"name": name, "part": "published", "protocol": protocol, "mean": entry(None, row.mean),
            "cells": [entry(case, row.cases.get(case or "")) for case in cases]}  # fmt: skip

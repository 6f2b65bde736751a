"""Ours, simple methods and published numbers in one table for each data set, and where intervals separate them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.benchmarking.aggregate import is_of_examples
from vaeguard.benchmarking.protocols import OURS
from vaeguard.statistics.metrics import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vaeguard.benchmarking.aggregate import Row, Spread
    from vaeguard.benchmarking.cells import Result
    from vaeguard.benchmarking.published import Published

    Table = dict[str, Any]


def comparison_of(
    rows: list[Row], means: list[Row], cells: list[Result], published: Iterable[Published]
) -> list[Table]:
    """For each data set `data`, `cases` and `methods`: name, part, protocol, mean, one entry of `cells` for each case.

    `part` is `ours`, `simple` (on the same split) or `published`. An entry is None where there is no number. Its `low`
    and `high` are the outermost ends of the 95 % intervals over the seeds; it is `separated`
    where its `low` lies above the `high` of all others measured here (each comparison by itself).
    """
    tables = []
    for data in dict.fromkeys(row.data for row in rows):
        # Of ours the combined score stands for the fit, of the others each score that they have.
        here = [row for row in rows if row.data == data and is_of_examples(row)]
        here = [row for row in here if row.method not in OURS or row.score == "score"]
        cases = list(dict.fromkeys(row.case for row in here))
        keys = sorted(dict.fromkeys((row.method, row.score) for row in here), key=lambda key: key[0] not in OURS)
        averages = {(row.method, row.score): row.roc_auc for row in means if row.data == data}
        of_data = [cell for cell in cells if cell["data"] == data]
        methods = [
            _measured([row for row in here if (row.method, row.score) == key], averages.get(key), cases, of_data)
            for key in keys
        ]
        _mark(methods, len(cases))
        others = [_published(row, cases) for row in published if row.data == data]
        methods += [row for row in others if row["mean"] is not None or any(row["cells"])]
        tables.append({"data": data, "cases": cases, "methods": methods})
    return tables


def _measured(rows: list[Row], mean: Spread | None, cases: list[str | None], cells: list[Result]) -> Table:
    """A method with one score, of which there is a row for each case that is measured."""
    method, score = rows[0].method, rows[0].score
    entries: dict[str | None, Table] = {}
    for row in rows:
        of_case = [cell for cell in cells if (cell["case"], cell["method"]) == (row.case, method)]
        metrics = [cell["scores"][score] for cell in of_case if score in cell["scores"]]
        low, high = min(each["roc_auc_low"] for each in metrics), max(each["roc_auc_high"] for each in metrics)
        entries[row.case] = {"case": row.case, **_entry(row.roc_auc, low, high)}
    return {
        "name": method if score in ("score", method) else f"{method}, {score}",
        "part": "ours" if method in OURS else "simple",
        "protocol": "",
        "mean": mean and _mean_entry(mean, list(entries.values())),
        "cells": [entries.get(case) for case in cases],
    }


def _entry(found: Spread, low: float, high: float) -> Table:
    return {**asdict(found), "low": low, "high": high, "separated": False}


def _mean_entry(found: Spread, entries: list[Table]) -> Table:
    """The mean over the cases; its interval is the wider one of what the seeds say and what the cases say.

    The seeds: the t-interval. The cases: the half-widths of their intervals, added in quadrature, as if their test
    images were independent.
    """
    from scipy.stats import t

    halves = [(entry["high"] - entry["low"]) / 2 for entry in entries]
    half = float(np.sqrt(np.square(halves).sum())) / len(halves)
    if found.std is not None:
        count = len(found.values)
        half = max(half, float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * found.std / float(np.sqrt(count)))
    return _entry(found, found.mean - half, found.mean + half)


def _mark(methods: list[Table], cases: int) -> None:
    """Say of the best entry of each column whether the intervals separate it from all others."""
    for entries in [[row["mean"] for row in methods], *([row["cells"][at] for row in methods] for at in range(cases))]:
        there = [entry for entry in entries if entry]
        if len(there) < 2:
            continue
        best = max(there, key=lambda entry: float(entry["mean"]))
        best["separated"] = all(best["low"] > entry["high"] for entry in there if entry is not best)


def _published(row: Published, cases: list[str | None]) -> Table:
    def entry(case: str | None, value: float | None) -> Table | None:
        bare: Table = {"std": None, "values": [], "low": None, "high": None, "separated": False}
        return None if value is None else {"case": case, "mean": value, **bare}

    name = row.method + ("" if row.verified else " (unverified)")
    protocol = f"{row.protocol}; {row.source}"
    return {"name": name, "part": "published", "protocol": protocol, "mean": entry(None, row.mean),
            "cells": [entry(case, row.cases.get(case or "")) for case in cases]}  # fmt: skip

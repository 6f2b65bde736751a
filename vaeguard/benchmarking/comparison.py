"""Ours, simple methods and published numbers in one table for each data set, and where intervals separate them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.benchmarking.aggregate import OURS, is_of_examples
from vaeguard.benchmarking.cells import file_name
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
        cases = list(dict.fromkeys(row.case for row in rows if row.data == data))
        methods = [_measured(key, data, cases, rows, means, cells) for key in _combined(rows, data)]
        _mark(methods, len(cases))
        others = [_published(each, cases) for each in published if each.data == data]
        methods += [each for each in others if _says_something(each)]
        tables.append({"data": data, "cases": cases, "methods": methods})
    return tables


def _combined(rows: list[Row], data: str) -> list[tuple[str, str]]:
    """Methods and scores to compare, of whole images: of ours the combined score, of the others each that they have."""
    found = [(row.method, row.score) for row in rows if row.data == data and is_of_examples(row)]
    chosen = [(method, score) for method, score in found if method not in OURS or score == "score"]
    return sorted(dict.fromkeys(chosen), key=lambda key: key[0] not in OURS)


def _measured(
    key: tuple[str, str], data: str, cases: list[str | None], rows: list[Row], means: list[Row], cells: list[Result]
) -> Table:
    method, score = key
    here = [row for row in rows if (row.data, row.method, row.score) == (data, *key) and row.kind is None]
    spreads = {row.case: row.roc_auc for row in here}
    mean = next((row.roc_auc for row in means if (row.data, row.method, row.score) == (data, *key)), None)
    of_method = [cell for cell in cells if (cell["data"], cell["method"]) == (data, method)]
    entries = [
        _entry(case, spreads[case], score, [cell for cell in of_method if cell["case"] == case])
        if case in spreads
        else None
        for case in cases
    ]
    return {
        "name": method if score in ("score", method) else f"{method}, {score}",
        "part": "ours" if method in OURS else "simple",
        "protocol": "",
        "mean": mean and _mean_entry(mean, entries),
        "cells": entries,
    }


def _entry(case: str | None, found: Spread, score: str, cells: list[Result]) -> Table:
    metrics = [cell["scores"][score] for cell in cells if score in cell["scores"]]
    low = min((each["roc_auc_low"] for each in metrics), default=None)
    high = max((each["roc_auc_high"] for each in metrics), default=None)
    files = [{"seed": cell["seed"], "file": f"cells/{file_name(cell, cell['digest'])}"} for cell in cells]
    return {"case": case, **asdict(found), "low": low, "high": high, "separated": False, "files": files}


def _mean_entry(found: Spread, entries: list[Table | None]) -> Table:
    """The mean over the cases; its interval is the wider one of what the seeds say and what the cases say.

    The seeds: the t-interval. The cases: the half-widths of their intervals, added in quadrature, as if their test
    images were independent.
    """
    from scipy.stats import t

    halves = [(entry["high"] - entry["low"]) / 2 for entry in entries if entry and entry["low"] is not None]
    half = float(np.sqrt(np.square(halves).sum())) / len(halves) if halves else None
    if half is not None and found.std is not None:
        count = len(found.values)
        half = max(half, float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * found.std / float(np.sqrt(count)))
    low, high = (None, None) if half is None else (found.mean - half, found.mean + half)
    return {**asdict(found), "low": low, "high": high, "separated": False, "files": []}


def _mark(methods: list[Table], cases: int) -> None:
    """Say of the best entry of each column whether the intervals separate it from all others."""
    for entries in [[row["mean"] for row in methods], *([row["cells"][at] for row in methods] for at in range(cases))]:
        there = [entry for entry in entries if entry]
        if len(there) < 2:
            continue
        best = max(there, key=lambda entry: float(entry["mean"]))
        highs = [entry["high"] for entry in there if entry is not best]
        if best["low"] is not None and None not in highs:
            best["separated"] = bool(best["low"] > max(highs))


def _published(row: Published, cases: list[str | None]) -> Table:
    def entry(case: str | None, value: float | None) -> Table | None:
        bare: Table = {"std": None, "values": [], "low": None, "high": None, "separated": False, "files": []}
        return None if value is None else {"case": case, "mean": value, **bare}

    each = [entry(case, row.cases.get(case or "")) for case in cases]
    name = row.method + ("" if row.verified else " (unverified)")
    protocol = f"{row.protocol}; {row.source}"
    return {"name": name, "part": "published", "protocol": protocol, "mean": entry(None, row.mean), "cells": each}


def _says_something(row: Table) -> bool:
    return row["mean"] is not None or any(row["cells"])

"""From cells to what a report says: means over seeds, means of the classes, best term, false alarms, seconds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.benchmarking.spec import FITS
from vaeguard.statistics.false_alarms import FalseAlarms, from_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from vaeguard.benchmarking.cells import Result

OURS = tuple(dict.fromkeys(name for names in FITS.values() for name in names))
"""Methods that are fits of our own; the others have one table column for each of their scores beside these."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of repetitions; no deviation for a single one."""

    mean: float
    std: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One score of one method on one case.

    Attributes
    ----------
    data, case, method, score : str
        What it is; `case` is `None` for the mean over the cases.
    kind : str or None
        The kind of anomaly, where it is measured by itself.
    roc_auc : Spread
        Over the seeds.
    average_precision : Spread or None
        Over the seeds; None for a kind.
    """

    data: str
    case: str | None
    method: str
    score: str
    roc_auc: Spread
    average_precision: Spread | None = None
    kind: str | None = None


def spread(values: Iterable[float]) -> Spread:
    """Mean and standard deviation of at least one value."""
    found = tuple(values)
    return Spread(float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else None, found)


def rows_of(cells: list[Result]) -> list[Row]:
    """One row for each case, method and score, in the order of the cells; kinds of anomalies after their case."""
    rows = []
    for (data, case, method), group in _grouped(cells, "data", "case", "method").items():
        for score in group[0]["scores"]:
            found = [cell["scores"][score] for cell in group]
            areas, precisions = (
                spread(metrics[name] for metrics in found) for name in ("roc_auc", "average_precision")
            )
            rows.append(Row(data, case, method, score, areas, precisions))
        # A small test part may lack a kind.
        for kind in sorted({kind for cell in group for kind in cell.get("kinds", {})}):
            found = [cell["kinds"][kind] for cell in group if kind in cell["kinds"]]
            rows += [
                Row(data, case, method, score, spread(areas[score] for areas in found), kind=kind) for score in found[0]
            ]
        if "pixels" in group[0]:
            names = {"roc_auc": "pixel ROC-AUC", "pro": "PRO to 0.3"}
            rows += [
                Row(data, case, method, shown, spread(cell["pixels"][name] for cell in group))
                for name, shown in names.items()
            ]
    return rows


def means_of(cells: list[Result], planned: Mapping[str, AbstractSet[str]]) -> list[Row]:
    """Mean over the cases of each method's scores, for the seeds of which every case that is `planned` is there."""
    means = []
    for (data, method), group in _grouped(cells, "data", "method").items():
        cases = planned[data]
        by_seed = _grouped(group, "seed").values()
        complete = [some for some in by_seed if {cell["case"] for cell in some} == cases]
        for score in group[0]["scores"] if complete and len(cases) > 1 else ():
            areas, precisions = (
                spread(float(np.mean([cell["scores"][score][name] for cell in some])) for some in complete)
                for name in ("roc_auc", "average_precision")
            )
            means.append(Row(data, None, method, score, areas, precisions))
    return means


def best_terms(rows: list[Row]) -> list[dict[str, Any]]:
    """For each of our fits and each case (None: the mean): the combined score against the term that turned out best."""
    found = []
    groups: dict[tuple[str, str, str | None], list[Row]] = {}
    for row in rows:
        if row.method in OURS and is_of_examples(row):
            groups.setdefault((row.data, row.method, row.case), []).append(row)
    for (data, method, case), group in groups.items():
        areas = {row.score: row.roc_auc.mean for row in group}
        combined = areas.pop("score")
        if areas:
            term = max(areas, key=lambda name: areas[name])
            found.append({"data": data, "method": method, "case": case, "term": term, "combined": combined})
            found[-1] |= {"best": areas[term], "difference": combined - areas[term]}
    return found


def alarms_of(cells: list[Result]) -> list[dict[str, Any]]:
    """Realised false alarms of each of our fits, case and stated rate.

    `low` and `high` are the Clopper-Pearson interval of the mean rate on one test part: the seeds share it.
    `stated_inside` and `as_expected` count the cells; see `vaeguard.statistics.false_alarms`.
    """
    found = []
    for (data, case, method), group in _grouped(cells, "data", "case", "method").items():
        measured = [cell["false_alarms"] for cell in group if "false_alarms" in cell]
        for alarms in zip(*measured, strict=True):
            each = [FalseAlarms(**one) for one in alarms]
            realised = spread(one.value for one in each)
            images, calibration = each[0].images, each[0].calibration
            typical = from_count(round(realised.mean * images), images, calibration, each[0].fpr)
            found.append(
                {
                    "data": data,
                    "case": case,
                    "method": method,
                    "fpr": each[0].fpr,
                    "realised": asdict(realised),
                    "images": images,
                    "low": typical.low,
                    "high": typical.high,
                    "expected_low": typical.expected_low,
                    "expected_high": typical.expected_high,
                    "cells": len(each),
                    "stated_inside": sum(one.stated_inside for one in each),
                    "as_expected": sum(one.as_expected for one in each),
                }
            )
    return found


def seconds_of(cells: list[Result]) -> list[dict[str, Any]]:
    """Mean seconds that each method takes to fit and to score, how many examples that was, and the most memory.

    Memory is that of the whole process; cells that were measured before it was looked at have none.
    """
    found = []
    for (data, method), group in _grouped(cells, "data", "method").items():
        seconds = {name: float(np.mean([cell["seconds"][name] for cell in group])) for name in ("fit", "score")}
        images = [cell["images"] for cell in group]
        memory = [cell["peak_memory_mb"] for cell in group if cell.get("peak_memory_mb") is not None]
        found.append(
            {
                "peak_memory_mb": max(memory) if memory else None,
                "data": data,
                "method": method,
                "seconds": seconds,
                "train": round(float(np.mean([one["train"] for one in images]))),
                "test": round(float(np.mean([one["normal"] + one["anomalous"] for one in images]))),
            }
        )
    return found


def is_of_examples(row: Row) -> bool:
    """Whether the figure is one of whole images or rows, not of pixels, and not of one kind of anomaly."""
    return row.kind is None and row.average_precision is not None


def _grouped(cells: list[Result], *names: str) -> dict[Any, list[Result]]:
    """Cells with equal values of `names` together, in the order of their first one; a single name gives bare keys."""
    groups: dict[Any, list[Result]] = {}
    for cell in cells:
        key = tuple(cell[name] for name in names)
        groups.setdefault(key if len(names) > 1 else key[0], []).append(cell)
    return groups

"""The figures of a report from its cells: means over seeds, means of the classes, best term, false alarms, seconds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.benchmarking.protocols import OURS
from vaeguard.statistics.false_alarms import FalseAlarms, from_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from vaeguard.benchmarking.cells import Result


PIXEL_FIGURES = {"roc_auc": "pixel ROC-AUC", "pro": "PRO to 0.3"}


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of repetitions; the deviation of a single one is None."""

    mean: float
    std: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One score of one method on one case.

    Attributes
    ----------
    data, case, method, score : str
        Names; `case` is `None` for the mean over the cases.
    kind : str or None
        The kind of anomaly, where each kind is measured by itself.
    roc_auc : Spread
        ROC-AUC over the seeds.
    average_precision : Spread or None
        Average precision over the seeds; None for a kind and for pixels.
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
    sample = tuple(values)
    return Spread(float(np.mean(sample)), float(np.std(sample, ddof=1)) if len(sample) > 1 else None, sample)


def rows_of(cells: list[Result]) -> list[Row]:
    """One row for each case, method and score, in the order of the cells; kinds of anomalies after their case."""
    rows: list[Row] = []
    for key, group in _grouped(cells, "data", "case", "method").items():
        rows += [_row(key, score, [[cell] for cell in group]) for score in group[0]["scores"]]
        rows += [*_rows_of_kinds(key, group), *_rows_of_pixels(key, group)]
    return rows


def _rows_of_kinds(key: tuple[str, str, str], group: list[Result]) -> Iterator[Row]:
    """The rows of each kind of anomaly; a small test part may lack a kind."""
    for kind in sorted({kind for cell in group for kind in cell.get("kinds", {})}):
        areas = [cell["kinds"][kind] for cell in group if kind in cell["kinds"]]
        yield from (Row(*key, score, spread(area[score] for area in areas), kind=kind) for score in areas[0])


def _rows_of_pixels(key: tuple[str, str, str], group: list[Result]) -> Iterator[Row]:
    """The rows of heatmaps against masks, if there are any."""
    for name, shown in PIXEL_FIGURES.items() if "pixels" in group[0] else ():
        yield Row(*key, shown, spread(cell["pixels"][name] for cell in group))


def means_of(cells: list[Result], planned: Mapping[str, AbstractSet[str]]) -> list[Row]:
    """The mean of each method's scores over the cases, from the seeds for which every `planned` case is finished."""
    means = []
    for (data, method), group in _grouped(cells, "data", "method").items():
        cases = planned[data]
        by_seed = _grouped(group, "seed").values()
        complete = [seed for seed in by_seed if {cell["case"] for cell in seed} == cases]
        if complete and len(cases) > 1:
            means += [_row((data, None, method), score, complete) for score in group[0]["scores"]]
    return means


def _row(key: tuple[str, str | None, str], score: str, repetitions: list[list[Result]]) -> Row:
    """The row of data, case and method; each repetition is the mean over its cells."""
    areas, precisions = (
        spread(float(np.mean([cell["scores"][score][name] for cell in cells])) for cells in repetitions)
        for name in ("roc_auc", "average_precision")
    )
    return Row(*key, score, areas, precisions)


def best_terms(rows: list[Row]) -> list[dict[str, Any]]:
    """For each of our fits and each case (None: the mean), the combined score against the best single term."""
    groups: dict[tuple[str, str, str | None], dict[str, float]] = {}
    for row in rows:
        if row.method in OURS and is_of_examples(row):
            groups.setdefault((row.data, row.method, row.case), {})[row.score] = row.roc_auc.mean
    comparisons = []
    for (data, method, case), areas in groups.items():
        combined = areas.pop("score")
        if areas:
            term = max(areas, key=areas.__getitem__)
            comparisons.append(
                {"data": data, "method": method, "case": case, "term": term, "combined": combined,
                 "best": areas[term], "difference": combined - areas[term]}
            )  # fmt: skip
    return comparisons


def alarms_of(cells: list[Result]) -> list[dict[str, Any]]:
    """Realised false alarms of each of our fits, case and stated rate.

    `low` and `high` are the Clopper-Pearson interval of the mean rate on one test part: the seeds share it.
    `stated_inside` and `as_expected` count the cells; see `vaeguard.statistics.false_alarms`.
    """
    rows = []
    for (data, case, method), group in _grouped(cells, "data", "case", "method").items():
        measured = [cell["false_alarms"] for cell in group if "false_alarms" in cell]
        for at_one_rate in zip(*measured, strict=True):
            alarms = [FalseAlarms(**fields) for fields in at_one_rate]
            rows.append({"data": data, "case": case, "method": method, **_alarms(alarms)})
    return rows


def _alarms(alarms: list[FalseAlarms]) -> dict[str, Any]:
    """The false alarms of all seeds at one stated rate."""
    first, realised = alarms[0], spread(alarm.value for alarm in alarms)
    typical = from_count(round(realised.mean * first.images), first.images, first.calibration, first.fpr)
    return {
        "fpr": first.fpr,
        "realised": asdict(realised),
        "images": first.images,
        **{name: getattr(typical, name) for name in ("low", "high", "expected_low", "expected_high")},
        "cells": len(alarms),
        **{name: sum(getattr(alarm, name) for alarm in alarms) for name in ("stated_inside", "as_expected")},
    }


def seconds_of(cells: list[Result]) -> list[dict[str, Any]]:
    """Mean seconds that each method takes to fit and to score, with the mean numbers of examples."""
    rows = []
    for (data, method), group in _grouped(cells, "data", "method").items():
        seconds = {name: float(np.mean([cell["seconds"][name] for cell in group])) for name in ("fit", "score")}
        train, normal, anomalous = (
            np.mean([cell["images"][name] for cell in group]) for name in ("train", "normal", "anomalous")
        )
        counts = {"train": round(float(train)), "test": round(float(normal + anomalous))}
        rows.append({"data": data, "method": method, "seconds": seconds, **counts})
    return rows


def is_of_examples(row: Row) -> bool:
    """Whether the figure is for whole images or table rows, not for pixels or for one kind of anomaly."""
    return row.kind is None and row.average_precision is not None


def _grouped(cells: list[Result], *names: str) -> dict[Any, list[Result]]:
    """Cells grouped by their values of `names`, in order of first appearance; a single name gives bare keys."""
    groups: dict[Any, list[Result]] = {}
    for cell in cells:
        key = tuple(cell[name] for name in names)
        groups.setdefault(key if len(names) > 1 else key[0], []).append(cell)
    return groups

"""The plan of a benchmark: opens the data of a spec and lays out the cells to measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from vaeguard.benchmarking.cells import Cell, Job
from vaeguard.benchmarking.methods import METHODS, Setup, measured
from vaeguard.benchmarking.protocols import OURS
from vaeguard.benchmarking.published import Published, published
from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.training import TrainSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaeguard.benchmarking.methods import Fits
    from vaeguard.benchmarking.protocols import BenchmarkSpec, Case
    from vaeguard.benchmarking.tasks import Task

FAULT = "fault"
"""The only key of the settings of a cell that cannot be measured; the value says why."""


@dataclass(frozen=True, eq=False)
class BenchmarkPlan:
    """Everything that a benchmark is going to measure.

    Attributes
    ----------
    jobs : tuple of Job
        The jobs in running order: seed by seed, so that a part of the run covers all classes alike.
    skipped : tuple of str
        One sentence on each data set that is missing.
    published : tuple of Published
        The results of others on this data.
    """

    jobs: tuple[Job, ...]
    skipped: tuple[str, ...]
    published: tuple[Published, ...]


def make_plan(spec: BenchmarkSpec, model: ModelSpec, training: TrainSpec) -> BenchmarkPlan:
    """Open the data and lay out the cells.

    Raises
    ------
    UsageError
        The data does not suit the benchmark, or no fit is possible. If only some fits are impossible, their jobs fail.
    VaeguardError
        None of the data is there.
    """
    changed = (model, replace(training, device=TrainSpec().device)) != (ModelSpec(), TrainSpec())
    if changed and spec.benchmark.fixed_settings:
        raise UsageError(f"`model` and `training` do not apply to benchmark {spec.name}; remove them")
    cases, skipped = _cases(spec)
    jobs = tuple(_jobs(spec, cases, model, training))
    faults = [job.settings.get(FAULT) for job in jobs if job.cell.method in (*OURS, "classifier")]
    if all(faults):
        raise UsageError(str(faults[0]))
    others = [row for name in dict.fromkeys(case.data for case in cases) for row in published(spec.name, name)]
    others = [_over(row, [case.name for case in cases if case.data == row.data], spec) for row in others]
    return BenchmarkPlan(jobs, tuple(skipped), tuple(others))


def _cases(spec: BenchmarkSpec) -> tuple[list[Case], list[str]]:
    """The cases, and a sentence on each missing item of the data."""
    cases: list[Case] = []
    skipped: list[str] = []
    known = spec.benchmark.data.split(",")
    for name in spec.data_names:
        if spec.benchmark.known_data_only and name not in known:
            raise UsageError(
                f"`data` has {name!r}, which benchmark {spec.name} does not know; choose from {', '.join(known)}"
            )
        try:
            cases += spec.benchmark.cases(spec, name)
        except (UsageError, RefusedError):
            raise
        except VaeguardError as error:
            skipped.append(f"{name!r} was skipped: {error}")
    if not cases:
        raise VaeguardError("; ".join(skipped) or "`data` is empty; name at least one item")
    return cases, skipped


def _over(row: Published, cases: list[str], spec: BenchmarkSpec) -> Published:
    """A published result with its mean over the cases that are measured here; None where it lacks one of them."""
    if row.mean is not None and (set(cases) == set(row.cases) or (not row.cases and spec.classes is None)):
        return row
    known = [row.cases[case] for case in cases if case in row.cases]
    return replace(row, mean=float(np.mean(known)) if known and len(known) == len(cases) else None)


def _jobs(spec: BenchmarkSpec, cases: list[Case], model: ModelSpec, training: TrainSpec) -> Iterator[Job]:
    fits: Fits = {}
    for seed in range(spec.repetitions):
        setup = Setup(model, replace(training, seed=seed), fits, spec.download)
        for case in cases:
            cells = [Cell(spec.name, case.data, case.name, method, seed) for method in _methods(spec, case, seed)]
            try:
                task = case.task(seed)
            except UsageError as error:
                yield from (_failing(cell, str(error)) for cell in cells)
                continue
            yield from (_job(cell, task, setup) for cell in cells)


def _methods(spec: BenchmarkSpec, case: Case, seed: int) -> Iterator[str]:
    yield from filter(case.takes, spec.fit_names)
    for name in filter(case.takes, spec.benchmark.baselines if spec.baselines else ()):
        repeated = seed == 0 or case.split_by_seed or METHODS[name].random
        # The classifier shows what labels alone bring, so it belongs beside the fit that has labels.
        if repeated and (name != "classifier" or "guided" in spec.fit_names):
            yield name


def _job(cell: Cell, task: Task, setup: Setup) -> Job:
    method = METHODS[cell.method]
    try:
        settings = {"task": task.sha256, **method.settings(task, setup)}
    except UsageError as error:
        return _failing(cell, str(error))
    return Job(cell, settings, lambda progress: measured(cell.method, task, setup, progress), method.cost)


def _failing(cell: Cell, fault: str) -> Job:
    """A job in the place of one that cannot be laid out: this job fails when it runs, and the others go on."""

    def fail(_: object) -> NoReturn:
        raise VaeguardError(fault)

    return Job(cell, {FAULT: fault}, fail, cost=1)

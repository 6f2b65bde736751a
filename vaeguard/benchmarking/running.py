"""Run a benchmark: cell by cell, each kept as soon as it is finished, so that a run can be stopped and goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.benchmarking.cells import CELLS, measure_cell, read_cell
from vaeguard.benchmarking.protocols import make_plan
from vaeguard.benchmarking.report import BenchmarkReport
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.reports.report_file import JSON_NAME
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.training import TrainSpec
from vaeguard.storage.files import locked

if TYPE_CHECKING:
    from vaeguard.benchmarking.cells import Job, Result
    from vaeguard.benchmarking.protocols import BenchmarkPlan
    from vaeguard.benchmarking.spec import BenchmarkSpec
    from vaeguard.progress import Progress

WRITE_SECONDS = 10.0
LOCK_NAME = ".benchmark.lock"


def benchmark(
    spec: BenchmarkSpec,
    output: str | Path,
    *,
    model: ModelSpec | None = None,
    training: TrainSpec | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> BenchmarkReport:
    """Measure every cell of a benchmark and write `report.json`, `.html` and `.md` into the folder `output`.

    Each finished cell is a file in `output/cells`. The same call again measures only what is not there yet: a cell is
    kept where settings, data, split and `cells.METHOD` are the same. A cell that fails is listed in
    the report, and the others go on. The report is written also when the run is interrupted. It is extended by more
    classes, pairs or tables, seeds or fits, but no cell of a report that is there is left out of the new one.

    Parameters
    ----------
    spec : BenchmarkSpec
        What to measure.
    output : path
        The report's folder.
    model, training : specs
        How our own method is fitted, the same for every case; `training.seed` is replaced by each seed in turn.
    command : str
        The command line, to be named in the report.
    progress : callable, optional
        Called with the work done, the work in all (in hundredths of a fit), a line of text.

    Returns
    -------
    BenchmarkReport

    Raises
    ------
    UsageError
        The data does not suit the benchmark, or `output` holds the report of another one, or one with cells that this
        one would not have: fewer are asked for, they were measured with other settings, or all their files are gone.
    VaeguardError
        None of the data is there, the folder cannot be written, or another process is writing it.
    """
    folder = Path(output)
    _check_folder(folder, spec)
    plan = make_plan(spec, model or ModelSpec(), training or TrainSpec())
    with locked(folder, LOCK_NAME, f"another process is measuring into {str(folder)!r}"):
        _check_nothing_is_lost(folder, plan)
        run = _Run(spec, plan, folder, command)
        try:
            run.measure(progress or (lambda *_: None))
        finally:
            run.report().write(folder)
        return run.report()


class _Run:
    """A benchmark on its way: what is finished and what failed."""

    def __init__(self, spec: BenchmarkSpec, plan: BenchmarkPlan, folder: Path, command: str) -> None:
        self.spec, self.plan, self.folder, self.command = spec, plan, folder, command
        kept = {job: read_cell(job, folder) for job in plan.jobs}
        self.found: dict[Job, Result] = {job: cell for job, cell in kept.items() if cell is not None}
        self.failures: dict[str, str] = {}

    def report(self) -> BenchmarkReport:
        """What is finished by now, in the order of the plan."""
        cells = [self.found[job] for job in self.plan.jobs if job in self.found]
        return BenchmarkReport(self.spec, self.plan, cells, dict(self.failures), self.command)

    def measure(self, progress: Progress) -> None:
        """Measure what is not there yet."""
        todo = [job for job in self.plan.jobs if job not in self.found]
        total, done = sum(job.cost for job in todo), 0
        written = time.monotonic()
        for number, job in enumerate(todo, 1):
            place = f"cell {number} of {len(todo)}, {job.cell}"
            self._measure_one(job, _within(progress, (done, job.cost, total), place))
            done += job.cost
            progress(done, total, place)
            if time.monotonic() - written > WRITE_SECONDS:
                self.report().write(self.folder)
                written = time.monotonic()

    def _measure_one(self, job: Job, progress: Progress) -> None:
        progress(0, 1, "")
        try:
            self.found[job] = measure_cell(job, self.folder, progress)
        except Exception as error:  # noqa: BLE001 -- whatever went wrong in one cell, hours of others must go on
            fact = str(error) if isinstance(error, VaeguardError) else f"{type(error).__name__}: {error}"
            self.failures[str(job.cell)] = fact


def _check_nothing_is_lost(folder: Path, plan: BenchmarkPlan) -> None:
    """Refuse to replace a report by one that lacks some of its cells: they took hours."""
    reported = _reported_cells(_report_in(folder))
    planned = {job.path(folder).name for job in plan.jobs}
    held = f"{str(folder)!r} holds a report of {len(reported)} cells"
    if reported and not any((folder / CELLS).glob("*.json")):
        raise UsageError(f"{held} that are gone; choose another folder with -o, or delete this one")
    if not (lost := sorted(reported - planned)):
        return
    missing = f" ({plan.skipped[0]})" if plan.skipped else ""
    why = f"{_settingless(lost[0])} is not among what this command measures{missing}"
    instead = "give at least the --data, --classes, --seeds, --fit and baselines of before"
    if changed := sorted({_settingless(name) for name in lost} & {_settingless(name) for name in planned}):
        why = f"{changed[0]} was measured with other settings or by another version"
        instead = "give the settings of before"
    raise UsageError(f"{held}, and {len(lost)} would be lost, since {why}; choose another folder with -o, or {instead}")


def _reported_cells(report: dict[str, Any]) -> set[str]:
    """Names of the files of all cells that a report covers."""
    rows = [row for table in report.get("comparison", ()) for row in table["methods"]]
    entries = [entry for row in rows for entry in row["cells"] if entry]
    return {Path(file["file"]).name for entry in entries for file in entry["files"]}


def _settingless(name: str) -> str:
    """The name of a cell's file without the digest of its settings."""
    return name.rpartition("-")[0]


def _within(progress: Progress, span: tuple[int, int, int], place: str) -> Progress:
    """The progress of a cell as a part of the whole; `span` is what was done before, the cell's cost, and the total."""
    before, cost, total = span

    def report(done: int, of: int, text: str) -> None:
        progress(before + cost * done // max(of, 1), total, f"{place}: {text}" if text else place)

    return report


def _check_folder(folder: Path, spec: BenchmarkSpec) -> None:
    """Refuse a folder that holds the report of another benchmark: it would be lost."""
    found = _report_in(folder)
    other = found.get("benchmark")
    if found and other != spec.name:
        raise UsageError(
            f"{str(folder)!r} holds the report of another benchmark ({other or 'unknown'});"
            " choose another folder with -o"
        )


def _report_in(folder: Path) -> dict[str, Any]:
    """The report that is there, or nothing."""
    try:
        found = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {"benchmark": None}

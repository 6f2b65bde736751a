"""Run a benchmark cell by cell; each cell is kept as soon as it is finished, so a stopped run can be continued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.benchmarking.cells import CELLS_NAME, CellFile, name_of
from vaeguard.benchmarking.plan import make_plan
from vaeguard.benchmarking.report import BenchmarkReport
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.reports.report_file import JSON_NAME
from vaeguard.settings.specs import fit_specs
from vaeguard.storage.files import locked
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaeguard.benchmarking.cells import Result
    from vaeguard.benchmarking.plan import BenchmarkPlan
    from vaeguard.benchmarking.protocols import BenchmarkSpec
    from vaeguard.progress import Progress
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec

LOCK_NAME = ".benchmark.lock"


def benchmark(
    spec: BenchmarkSpec,
    output: str | Path,
    *,
    model: ModelSpec | None = None,
    training: TrainSpec | None = None,
    command: str = "",
    progress: Progress | None = None,
    **settings: Any,
) -> BenchmarkReport:
    """Measure every cell of a benchmark and write `report.json` and `report.html` into the folder `output`.

    A cell is the measurement of one method on one case with one seed. Each finished cell is kept in
    `output/cells.jsonl`. The same call again measures only the missing cells: a cell is reused if its settings, data,
    split and version (`cells.METHOD`) are the same. If a cell fails, it is listed in the report, and the others are
    still measured. The report is written at the end, even if the run is interrupted. More classes, pairs, tables, seeds
    or fits extend the report; a run that would drop an earlier cell is refused.

    Parameters
    ----------
    spec : BenchmarkSpec
        The settings of the benchmark.
    output : path
        The report's folder.
    model, training : specs
        The settings of our own method, the same for every case; `training.seed` is replaced by each seed in turn.
    command : str
        The command line, which the report names.
    progress : callable, optional
        Called with the work done and all work, both in hundredths of a fit, and a line of text.
    **settings
        Single settings by name in place of those in `model` and `training`, as for `fit`.

    Returns
    -------
    BenchmarkReport

    Raises
    ------
    UsageError
        The data does not suit the benchmark, `output` contains the report of another benchmark, or the new report would
        lose cells: fewer are requested, they were measured with different settings, or their file is missing.
    VaeguardError
        None of the data was found, the folder cannot be written, or another process is writing to it.
    """
    folder = Path(output)
    _check_report(folder, spec)
    plan = make_plan(spec, *fit_specs(model, training, settings))
    with locked(folder, LOCK_NAME, f"another process is writing to {str(folder)!r}"):
        file, failures = CellFile(folder), dict[str, str]()
        _check_nothing_is_lost(folder, plan, file.cells)
        try:
            _measure(plan, file, failures, progress or (lambda *_: None))
        finally:
            cells = [cell for job in plan.jobs if (cell := file.cells.get(job.digest()))]
            report = BenchmarkReport(spec, plan, cells, failures, command)
            report.write(folder)
    return report


def _measure(plan: BenchmarkPlan, file: CellFile, failures: dict[str, str], progress: Progress) -> None:
    """Measure the missing cells, and note in `failures` why a cell failed."""
    todo = [job for job in plan.jobs if job.digest() not in file.cells]
    total, done = sum(job.cost for job in todo), 0
    for number, job in enumerate(todo, 1):
        place = f"measurement {number} of {len(todo)}, {job.cell}"
        progress(done, total, place)
        try:
            file.measure(job, _within(progress, (done, job.cost, total), place))
        except Exception as error:  # noqa: BLE001 -- one failed cell must not stop hours of other cells
            known = isinstance(error, VaeguardError)
            failures[str(job.cell)] = str(error) if known else f"{type(error).__name__}: {error}"
        done += job.cost
        progress(done, total, place)


def _within(progress: Progress, span: tuple[int, int, int], place: str) -> Progress:
    """The progress of a cell as a part of the whole; `span` is the cost before the cell, the cell's, and the total."""
    before, cost, total = span

    def report(done: int, of: int, text: str) -> None:
        progress(before + cost * done // max(of, 1), total, f"{place}: {text}" if text else place)

    return report


def _check_report(folder: Path, spec: BenchmarkSpec) -> None:
    """Refuse a folder with a report that would be lost: that of another benchmark, or one whose cells are gone."""
    try:
        report: Any = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    other = report.get("benchmark") if isinstance(report, dict) else None
    if other != spec.name:
        raise UsageError(
            f"{str(folder)!r} contains the report of a different benchmark ({other or 'unknown'}); choose a different"
            " `output`"
        )
    finished = report["cells"]["finished"]
    if finished and not (folder / CELLS_NAME).exists():
        raise UsageError(
            f"{str(folder)!r} contains a report of {finished} measurements, but {CELLS_NAME} is missing; choose a"
            " different `output`, or delete the report"
        )


def _check_nothing_is_lost(folder: Path, plan: BenchmarkPlan, finished: Mapping[str, Result]) -> None:
    """Refuse to replace a report by one that lacks some of its cells, which may have taken hours."""
    planned = {job.digest(): str(job.cell) for job in plan.jobs}
    lost = sorted(name_of(cell) for digest, cell in finished.items() if digest not in planned)
    if not lost:
        return
    missing = f" ({plan.skipped[0]})" if plan.skipped else ""
    reason = f"{lost[0]!r} is not among the planned measurements{missing}"
    advice = "include everything that the earlier run measured (`data`, `classes`, `seeds`, `fits` and `baselines`)"
    if changed := sorted(set(lost) & set(planned.values())):
        reason = f"{changed[0]!r} was measured with different settings or by a different version"
        advice = "use the earlier settings and version"
    raise UsageError(
        f"{str(folder)!r} contains {counted(len(finished), 'measurement')}, and this run would remove {len(lost)} of"
        f" them, because {reason}; choose a different `output`, or {advice}"
    )

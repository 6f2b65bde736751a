"""`denoise`: clean a folder tree of scans into a tree of the same shape, with a record of each page."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.workers import warm_up
from vaeguard.devices import cores
from vaeguard.errors import as_objects
from vaeguard.restoration.notes import Notes
from vaeguard.restoration.pipeline import open_pipeline
from vaeguard.restoration.places import find_scans
from vaeguard.restoration.reasons import left_pages, why_look, worth_a_look
from vaeguard.restoration.records import TABLE, put_aside, write_rows
from vaeguard.restoration.sharing import SCAN_FACTS, WAITING, spread_scans
from vaeguard.restoration.work import Work
from vaeguard.storage.files import drop_open
from vaeguard.storage.places import as_urls
from vaeguard.storage.plan import drop_other_plan
from vaeguard.storage.store import open_job
from vaeguard.storage.tables import read_table, write_errors
from vaeguard.wording import brief, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaeguard.progress import Progress
    from vaeguard.restoration.pipeline import Pipeline
    from vaeguard.restoration.places import Inputs, Places
    from vaeguard.restoration.sharing import SpreadScans
    from vaeguard.restoration.tree import CleanTree
    from vaeguard.restoration.work import Restored
    from vaeguard.settings.restoration import DenoiseOutputs, RestoreSettings

MOST_JOBS = 4
"""Default for the most files that are processed at a time."""


@dataclass(frozen=True)
class DenoiseSummary:
    """The result of one run of `denoise_scans`.

    Attributes
    ----------
    root : str
        The folder of the scans, to which the paths in `pages.csv` are relative.
    output : str
        The folder of clean scans.
    files, pages : int
        Number of clean scans in the folder, and of their pages.
    megapixels : float
        Megapixels that this run processed.
    resumed : int
        Files that an earlier run finished.
    errors : tuple of (path, reason)
        Scans that could not be restored; also in `pages.csv.errors.csv`.
    left : tuple of dict
        The reasons for which pages were left unchanged, each `reason` with its number of `pages`.
    look_first : tuple of dict
        At most ten pages that a person should check: pages on which something was put back, pages on which much was
        lightened or removed, and pages about which `denoise_scans` was not sure. The page with the largest such share
        comes first. `pages.csv` lists all pages in this order.
    seconds : float
        Wall time.
    device : str
        The device on which the denoisers ran.
    notes : tuple of str
        Whatever else a person should know, one sentence each.
    """

    root: str
    output: str
    files: int
    pages: int
    megapixels: float
    resumed: int
    errors: tuple[tuple[str, str], ...]
    left: tuple[dict[str, Any], ...]
    look_first: tuple[dict[str, Any], ...]
    seconds: float
    device: str
    notes: tuple[str, ...] = ()

    __repr__ = brief

    def to_dict(self) -> dict[str, object]:
        """Return the summary as plain values that JSON can hold."""
        return {
            **vars(self),
            "errors": as_objects(self.errors),
            "left": list(self.left),
            "look_first": list(self.look_first),
        }


def denoise_scans(
    scans: Inputs,
    output: str | Path | None = None,
    settings: RestoreSettings | None = None,
    *,
    outputs: DenoiseOutputs | None = None,
    model: str | Path | None = None,
    device: str = "auto",
    jobs: int | None = None,
    spread: SpreadScans | None = None,
    progress: Progress | None = None,
) -> DenoiseSummary:
    """Clean every scan in a folder, and write the clean files to a folder with the same structure.

    A record, `<file>.json`, is written next to each clean file. It contains digests of the scan and of the clean file,
    the settings, and what was done to each page. `pages.csv` lists all pages, starting with those that a person should
    check. A run can be interrupted at any moment; the same call continues it, and the result has the same bytes.

    Parameters
    ----------
    scans : path or sequence of paths
        A folder, which is searched recursively for JPEG, PNG, TIFF, JPEG 2000, BMP, WEBP and PDF files, or one such
        file. Several folders and files can be given; their paths are then relative to the folder that contains all of
        them.
    output : path or None
        The folder to write; None is `<scans>-clean`. It must not be a folder of scans, nor be inside one or contain
        one.
    settings : RestoreSettings or None
        The settings for restoring a page.
    outputs : DenoiseOutputs or None
        What is written besides the clean pages.
    model : path or None
        A denoiser of your own; or an anomaly model, whose reconstructions replace the pages that have exactly the size
        of its images; None takes the included denoisers.
    device : str
        `auto`, `cpu`, `cuda` or `tensorrt`.
    jobs : int or None
        The number of files that are processed at a time; None is one per core, at most 4.
    spread : SpreadScans or None
        Lets other processes restore the scans.
    progress : callable or None
        Called with the number of bytes of scans done, the number of all bytes, and a line of text; also during a page,
        by one worker at a time.

    Raises
    ------
    UsageError
        The folders cannot be used, or there is nothing to restore.
    VaeguardError
        Another job is writing to the same folder.
    """
    started = time.perf_counter()
    places = find_scans(scans, output)
    workers = count_workers(places, jobs)
    warm_up()  # it starts while the denoisers are loaded
    pipeline = open_pipeline(model, device, workers, settings, outputs)
    work = Work(places, pipeline, workers, progress)
    with open_job(places.target / TABLE, SCAN_FACTS, keep=True) as store:
        work.sweep()
        plan = work.plan(plan_facts(pipeline))
        drop_other_plan(store, plan)
        if spread:
            plan.enter(store)
            results = spread_scans(work, store, plan, spread)
        else:
            results = work.map(work.restore, WAITING)
        run = collect(work, results, work.meter.say)
        return finish(work, run, pipeline.restorer.device, started)


def plan_facts(pipeline: Pipeline) -> dict[str, Any]:
    """What the plan of a job says of a pipeline, for `gather_scans`."""
    return {
        "settings": asdict(pipeline.settings),
        "outputs": asdict(pipeline.outputs),
        "device": pipeline.restorer.device,
    }


def finish(tree: CleanTree, run: Run, device: str, started: float) -> DenoiseSummary:
    """Remove outdated files of earlier runs, write the tables, and sum up; `started` is a time of `perf_counter`."""
    places = tree.places
    run.notes.gone, stale = tree.settle()
    run.notes.edited += stale
    earlier = list(tree.finished_before())
    # If only some files of a tree are restored, the table still lists the pages of the others.
    rows = sorted(run.rows + [row for record in earlier for row in record["pages"]], key=worth_a_look)
    _write_tables(tree, rows, run)
    return DenoiseSummary(
        root=str(places.root),
        output=str(places.target),
        files=len(places.names) - len(run.errors) + len(earlier),
        pages=len(rows),
        megapixels=round(run.pixels / 1e6, 2),
        resumed=run.resumed + len(earlier),
        errors=tuple(run.errors),
        left=tuple(left_pages(rows)),
        look_first=tuple(row for row in rows[:10] if why_look(row)),
        seconds=time.perf_counter() - started,
        device=device,
        notes=tuple(run.notes.sentences(places, rows)),
    )


@dataclass
class Run:
    """The results of a run so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    pixels: int = 0
    resumed: int = 0
    notes: Notes = field(default_factory=Notes)


def collect(tree: CleanTree, results: Iterator[Restored | str], say: Callable[[str], None]) -> Run:
    """Collect the results of all scans, in the order of their names; if that fails, no unfinished file is left."""
    run = Run()
    try:
        for name, result in zip(tree.clean, results, strict=True):
            if isinstance(result, str):
                run.errors.append((as_urls(str(tree.places.root / name)), result))
            else:
                run.rows += result.pages
                run.pixels += result.pixels
                run.resumed += result.resumed
                run.notes.add(result)
            say(f"{counted(len(run.rows), 'page')}, {run.pixels / 1e6:,.1f} MP")
    except BaseException:
        if isinstance(results, Generator):
            results.close()
        # A thread inside a library call ends only with the process, and cannot clean up.
        drop_open(tree.places.target)
        raise
    return run


def _write_tables(tree: CleanTree, rows: list[dict[str, Any]], run: Run) -> None:
    """Write `pages.csv` and the list of scans that could not be restored."""
    table = tree.places.target / TABLE
    run.notes.aside = put_aside(table)
    write_rows(table, rows)
    listed = Path(f"{table}.errors.csv")
    own = {as_urls(str(tree.places.root / name)) for name in tree.clean}
    others = [] if tree.places.whole else _other_errors(listed, own)
    write_errors(listed, run.errors + others)


def count_workers(places: Places, jobs: int | None) -> int:
    """The number of scans that are processed at a time; `jobs` is as for `denoise_scans`."""
    return min(jobs or min(cores(), MOST_JOBS), len(places.names))


def _other_errors(listed: Path, paths: set[str]) -> list[tuple[str, str]]:
    """The errors that an earlier run listed, except those of the scans at `paths`."""
    if not listed.exists():
        return []
    table = read_table(listed)
    return [(path, reason) for path, reason in zip(table["path"], table["error"], strict=True) if path not in paths]

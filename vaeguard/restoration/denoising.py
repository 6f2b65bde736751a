"""`denoise`: a folder tree of scans in, the same tree out, clean, with what was done to each page beside it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.streams import map_ahead
from vaeguard.devices import cores
from vaeguard.errors import as_objects
from vaeguard.restoration.meter import Meter
from vaeguard.restoration.notes import grown, kept_in, notes_of
from vaeguard.restoration.places import find_scans
from vaeguard.restoration.reasons import left_pages, why_look, worth_a_look
from vaeguard.restoration.records import COLUMNS, MEASURES, TABLE, put_aside
from vaeguard.restoration.restorer import open_restorer
from vaeguard.restoration.work import Work
from vaeguard.settings.restoration import DenoiseOutputs, RestoreSettings
from vaeguard.storage.files import size_and_time, sweep_all
from vaeguard.storage.jobs import job_folder
from vaeguard.storage.tables import read_table, write_errors, write_table
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from vaeguard.progress import Progress
    from vaeguard.restoration.places import Inputs, Places
    from vaeguard.restoration.work import Restored

MOST_JOBS = 4
"""Files in work at a time, unless asked for otherwise."""
WAITING = 64
"""Files for each worker that may be finished before an earlier, longer one."""


@dataclass(frozen=True)
class DenoiseSummary:
    """What one run of `denoise_scans` did.

    Attributes
    ----------
    root : str
        The folder of the scans, from which the paths in `pages.csv` start.
    output : str
        The folder of clean scans.
    files, pages : int
        Scans in it, and pages in these.
    megapixels : float
        Looked at in this run.
    resumed : int
        Files that an earlier run had finished.
    errors : tuple of (path, reason)
        Scans that could not be restored; also in `pages.csv.errors.csv`.
    left : tuple of dict
        Why pages were left as they were: each `reason` with its number of `pages`.
    look_first : tuple of dict
        The pages of which something was put back, or much was lightened or removed, or that were left in doubt, what
        concerns most of a page first; at most ten. `pages.csv` goes on from there.
    seconds : float
        Wall time.
    device : str
        Where the denoisers ran.
    notes : tuple of str
        What else a person should know, a sentence each.
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
    progress: Progress | None = None,
) -> DenoiseSummary:
    """Restore every scan below a folder into a tree of the same shape.

    Each file gets `<file>.json` beside it: digests of what went in and came out, the settings, and what was done to
    each page. `pages.csv` lists all pages, those most worth a human look first. A run that was interrupted at whatever
    moment goes on where it stopped when it is started again, and the tree has the same bytes.

    Parameters
    ----------
    scans : path or sequence of paths
        A folder, searched recursively for JPEG, PNG, TIFF, BMP, WEBP and PDF, or one such file; or several of either,
        whose tree begins at the folder that holds them all.
    output : path or None
        The folder to write; None is `<scans>-clean`. It is never a folder of scans that is given, nor inside or around
        one.
    settings : RestoreSettings or None
        How pages are restored.
    outputs : DenoiseOutputs or None
        What is written beside them.
    model : path or None
        A denoiser of one's own, or an anomaly model for images of just its size, which gives its `restored`; None
        takes the denoisers that ship.
    device : str
        `auto`, `cpu`, `cuda` or `tensorrt`.
    jobs : int or None
        Files in work at a time; None takes one for each core, at most 4.
    progress : callable or None
        Called with bytes of scans done, bytes in all, a line of text; also within a page, by one worker at a time.

    Raises
    ------
    UsageError
        The folders cannot work, or there is nothing to restore.
    VaeguardError
        Another job is writing there.
    """
    started = time.perf_counter()
    job = prepare(scans, output, settings, outputs, model, device, jobs, progress)
    places, work = job.places, job.work
    root, target, names = places.root, places.target, places.names
    rows: list[dict[str, Any]] = []
    errors: list[tuple[str, str]] = []
    pixels = resumed = 0
    edited: list[str] = []
    kept: list[str] = []
    bare: list[str] = []
    larger: list[str] = []
    with job_folder(target / TABLE, keep=True), contextlib.ExitStack() as closed:
        # What killed runs left, also of earlier settings.
        sweep_all(target, [*names, *work.places(names), TABLE])
        results = closed.enter_context(contextlib.closing(_results(work, names, job.workers)))
        for result in results:
            rows += result.pages
            errors += [(str(root / result.name), result.error)] if result.error else []
            pixels += result.pixels
            resumed += result.resumed
            edited += [repr(str(target / work.places([result.name])[0]))] if result.edited else []
            kept += kept_in(result)
            larger += grown(result)
            bare += [] if result.pages or result.error else [repr(result.name)]
            work.meter.say(f"{counted(len(rows), 'page')}, {pixels / 1e6:,.1f} MP")
        gone, stale = work.settle(names, whole=places.whole)
        # Some files may be made anew in the tree of a folder: the tables go on to tell of the others.
        before = [] if places.whole else list(work.finished_before(names))
        rows += [row for record in before for row in record["pages"]]
        rows.sort(key=worth_a_look)
        aside = put_aside(target / TABLE)
        _write_rows(target / TABLE, rows)
        listed = target / f"{TABLE}.errors.csv"
        others = [] if places.whole else _other_errors(listed, {str(root / name) for name in names})
        write_errors(listed, errors + others)
    resumed += len(before)
    return DenoiseSummary(
        root=str(root),
        output=str(target),
        files=len(names) - len(errors) + len(before),
        pages=len(rows),
        megapixels=round(pixels / 1e6, 2),
        resumed=resumed,
        errors=tuple(errors),
        left=tuple(left_pages(rows)),
        look_first=tuple(row for row in rows[:10] if why_look(row)),
        seconds=time.perf_counter() - started,
        device=work.restorer.device,
        notes=tuple(notes_of(places, rows, gone, edited + stale, kept, bare, aside, larger)),
    )


@dataclass(frozen=True)
class Job:
    """A run that could begin: where, with what, and how many files at a time."""

    places: Places
    work: Work
    workers: int


def prepare(
    scans: Inputs,
    output: str | Path | None,
    settings: RestoreSettings | None,
    outputs: DenoiseOutputs | None,
    model: str | Path | None,
    device: str,
    jobs: int | None,
    progress: Progress | None,
) -> Job:
    """Find the scans and load what restores them; the arguments are those of `denoise_scans`."""
    settings, outputs = settings or RestoreSettings(), outputs or DenoiseOutputs()
    places = find_scans(scans, output)
    workers = min(jobs or min(cores(), MOST_JOBS), len(places.names))
    restorer = open_restorer(model, device, max(1, cores() // workers))
    restorer.check(settings, outputs)
    meter = Meter({name: size_and_time(str(places.root / name))[0] for name in places.names}, progress)
    return Job(places, Work(places.root, places.target, settings, outputs, restorer, meter), workers)


def _results(work: Work, names: list[str], workers: int) -> Generator[Restored]:
    """What became of each scan; where that ends early, no worker leaves a part of a file."""
    results = map_ahead(work.file, work.tasks(names), jobs=workers, ahead=WAITING * workers, stop=work.meter.stop)
    try:
        yield from results
    except BaseException:
        results.close()
        # Of a worker that still sits in a library and ends with the process.
        sweep_all(work.target, [*names, *work.places(names)])
        raise


def _other_errors(listed: Path, paths: set[str]) -> list[tuple[str, str]]:
    """What an earlier run listed of other scans than those at `paths`."""
    if not listed.exists():
        return []
    table = read_table(listed)
    return [(path, why) for path, why in zip(table["path"], table["error"], strict=True) if path not in paths]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS}
    for name in MEASURES:
        columns[name] = np.array(columns[name], np.float64)
    columns["page"] = np.array(columns["page"], np.int64)
    write_table(path, columns)

"""`denoise`: a folder tree of scans in, the same tree out, clean, with what was done to each page beside it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.devices import cores
from vaeguard.errors import as_objects
from vaeguard.restoration.notes import Notes
from vaeguard.restoration.pipeline import open_pipeline
from vaeguard.restoration.places import find_scans
from vaeguard.restoration.reasons import left_pages, why_look, worth_a_look
from vaeguard.restoration.records import TABLE, put_aside, write_rows
from vaeguard.restoration.work import Work
from vaeguard.storage.store import open_job
from vaeguard.storage.tables import read_table, write_errors
from vaeguard.wording import counted

if TYPE_CHECKING:
    from vaeguard.progress import Progress
    from vaeguard.restoration.places import Inputs, Places
    from vaeguard.settings.restoration import DenoiseOutputs, RestoreSettings

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
    places = find_scans(scans, output)
    workers = count_workers(places, jobs)
    pipeline = open_pipeline(model, device, workers, settings, outputs)
    work = Work(places, pipeline, workers, progress)
    with open_job(places.target / TABLE, keep=True):
        work.sweep()
        done = _restored(work)
        before = list(work.finished_before())
        # Some files may be made anew in the tree of a folder: the tables go on to tell of the others.
        rows = sorted(done.rows + [row for record in before for row in record["pages"]], key=worth_a_look)
        _write_tables(work, rows, done)
    return DenoiseSummary(
        root=str(places.root),
        output=str(places.target),
        files=len(places.names) - len(done.errors) + len(before),
        pages=len(rows),
        megapixels=round(done.pixels / 1e6, 2),
        resumed=done.resumed + len(before),
        errors=tuple(done.errors),
        left=tuple(left_pages(rows)),
        look_first=tuple(row for row in rows[:10] if why_look(row)),
        seconds=time.perf_counter() - started,
        device=pipeline.restorer.device,
        notes=tuple(done.notes.sentences(places, rows)),
    )


@dataclass
class _Done:
    """What a run has done so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    pixels: int = 0
    resumed: int = 0
    notes: Notes = field(default_factory=Notes)


def _restored(work: Work) -> _Done:
    """Restore every scan, and settle what earlier runs wrote; where that ends early, no part of a file is left."""
    done = _Done()
    with contextlib.closing(work.each(work.restore, WAITING)) as results:
        try:
            for name, result in zip(work.clean, results, strict=True):
                if isinstance(result, str):
                    done.errors.append((str(work.places.root / name), result))
                else:
                    done.rows += result.pages
                    done.pixels += result.pixels
                    done.resumed += result.resumed
                    done.notes.add(result)
                work.meter.say(f"{counted(len(done.rows), 'page')}, {done.pixels / 1e6:,.1f} MP")
        except BaseException:
            results.close()
            work.sweep()  # of a worker that still sits in a library and ends with the process
            raise
    done.notes.gone, stale = work.settle()
    done.notes.edited += stale
    return done


def _write_tables(work: Work, rows: list[dict[str, Any]], done: _Done) -> None:
    """Write `pages.csv` and the list of what could not be restored."""
    table = work.places.target / TABLE
    done.notes.aside = put_aside(table)
    write_rows(table, rows)
    listed = Path(f"{table}.errors.csv")
    others = [] if work.places.whole else _other_errors(listed, {str(work.places.root / name) for name in work.clean})
    write_errors(listed, done.errors + others)


def count_workers(places: Places, jobs: int | None) -> int:
    """How many scans are in work at a time; `jobs` is as for `denoise_scans`."""
    return min(jobs or min(cores(), MOST_JOBS), len(places.names))


def _other_errors(listed: Path, paths: set[str]) -> list[tuple[str, str]]:
    """What an earlier run listed of other scans than those at `paths`."""
    if not listed.exists():
        return []
    table = read_table(listed)
    return [(path, why) for path, why in zip(table["path"], table["error"], strict=True) if path not in paths]

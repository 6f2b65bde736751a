"""`denoise`: a folder tree of scans in, the same tree out, clean, with what was done to each page beside it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.devices import cores
from vaeguard.errors import UnreadableError, UsageError, as_objects
from vaeguard.files import size_and_time, sweep_all
from vaeguard.jobs import job_folder
from vaeguard.model_file import load
from vaeguard.reading.images import read_bytes
from vaeguard.reading.streams import map_ahead
from vaeguard.reporting.report_file import JSON_NAME
from vaeguard.restoration.denoiser import Denoiser, read_denoiser, shipped_denoiser
from vaeguard.restoration.places import find_scans
from vaeguard.restoration.records import COLUMNS, TABLE, put_aside
from vaeguard.restoration.scans import page_sizes
from vaeguard.restoration.spec import DenoiseOutputs, RestoreSettings
from vaeguard.restoration.work import Work
from vaeguard.runs import MODEL_NAME, ONNX_NAME
from vaeguard.tables import read_table, write_errors, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vaeguard.detector import Detector
    from vaeguard.progress import Progress
    from vaeguard.restoration.places import Inputs, Places

MOST_JOBS = 4
"""Files in work at a time, unless asked for otherwise."""
MUCH_LIGHTENED = 0.03
"""Where more of a page was as dark as a stain, it may have been a picture."""
NAMED = 3
"""Of many files or folders, so many are named in a sentence."""
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
    look_first : tuple of dict
        The pages of which something was put back, most of it first; at most ten. `pages.csv` goes on from there.
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
    look_first: tuple[dict[str, Any], ...]
    seconds: float
    device: str
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the summary as plain values that JSON can hold."""
        return {**vars(self), "errors": as_objects(self.errors), "look_first": list(self.look_first)}


@dataclass(frozen=True)
class ScanPlan:
    """What `denoise_scans` would do.

    Attributes
    ----------
    files, pages : int
        Scans to restore, and pages in these.
    megapixels : float
        In these pages.
    errors : tuple of (path, reason)
        What it would leave out.
    notes : tuple of str
        What else a person should know, a sentence each.
    finished : int
        Scans that an earlier run has restored in the same way.
    """

    files: int
    pages: int
    megapixels: float
    errors: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    finished: int = 0


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
        Called with bytes of scans done, bytes in all, a line of text.

    Raises
    ------
    UsageError
        The folders cannot work, or there is nothing to restore.
    VaeguardError
        Another job is writing there.
    """
    started = time.perf_counter()
    settings, outputs = settings or RestoreSettings(), outputs or DenoiseOutputs()
    places = find_scans(scans, output)
    root, target, names = places.root, places.target, places.names
    workers = min(jobs or min(cores(), MOST_JOBS), len(names))
    engines = _engines(model, device, max(1, cores() // workers))
    _check_settings(engines, settings, outputs)
    work = Work(root, target, settings, outputs, engines)
    done, total = 0, sum(size_and_time(str(root / name))[0] for name in names)
    rows: list[dict[str, Any]] = []
    errors: list[tuple[str, str]] = []
    pixels = resumed = 0
    edited: list[str] = []
    kept: list[str] = []
    bare: list[str] = []
    with job_folder(target / TABLE, keep=True):
        # What killed runs left, also of earlier settings, and of the report.
        sweep_all(target, [*names, *work.places(names), TABLE, JSON_NAME])
        tasks = work.tasks(names)
        for result in map_ahead(work.file, tasks, jobs=workers, ahead=WAITING * workers):
            rows += result.pages
            errors += [(str(root / result.name), result.error)] if result.error else []
            pixels += result.pixels
            resumed += result.resumed
            edited += [repr(str(target / work.places([result.name])[0]))] if result.edited else []
            kept += [repr(result.name)] if result.kept else []
            bare += [] if result.pages or result.error else [repr(result.name)]
            done += result.size
            if progress:
                progress(done, total, f"{len(rows):,} pages, {pixels / 1e6:,.1f} MP")
        gone, stale = work.settle(names, whole=places.whole)
        # Some files may be made anew in the tree of a folder: the tables go on to tell of the others.
        before = [] if places.whole else list(work.finished_before(names))
        rows += [row for record in before for row in record["pages"]]
        rows.sort(key=_worth)
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
        look_first=tuple(row for row in rows[:10] if row["reverted"]),
        seconds=time.perf_counter() - started,
        device=next(iter(engines.values())).device if isinstance(engines, dict) else engines.device,
        notes=tuple(_notes(places, rows, gone, edited + stale, kept, bare, aside)),
    )


def plan_scans(
    scans: Inputs,
    output: str | Path | None = None,
    settings: RestoreSettings | None = None,
    *,
    outputs: DenoiseOutputs | None = None,
    model: str | Path | None = None,
    device: str = "auto",
) -> ScanPlan:
    """Tell what `denoise_scans` would do with the same arguments; writes nothing.

    Raises
    ------
    UsageError
        As `denoise_scans`.
    """
    settings, outputs = settings or RestoreSettings(), outputs or DenoiseOutputs()
    places = find_scans(scans, output)
    root, names = places.root, places.names
    engines = _engines(model, device, 1)
    _check_settings(engines, settings, outputs)
    work = Work(root, places.target, settings, outputs, engines)
    pages = pixels = finished = 0
    errors: list[tuple[str, str]] = []
    for name, owner in work.tasks(names):
        try:
            work.check_place(name, owner)
            content = read_bytes(root / name)
            if work.has_finished(name, content):
                finished += 1
                continue
            sizes = page_sizes(content, name)
        except UnreadableError as error:
            errors.append((str(root / name), error.reason))
        else:
            pages += len(sizes)
            pixels += sum(math.prod(size) for size in sizes)
    return ScanPlan(
        files=len(names) - len(errors) - finished,
        pages=pages,
        megapixels=round(pixels / 1e6, 2),
        errors=tuple(errors),
        notes=tuple(_notes(places)),
        finished=finished,
    )


def _other_errors(listed: Path, paths: set[str]) -> list[tuple[str, str]]:
    """What an earlier run listed of other scans than those at `paths`."""
    if not listed.exists():
        return []
    table = read_table(listed)
    return [(path, why) for path, why in zip(table["path"], table["error"], strict=True) if path not in paths]


def _worth(row: dict[str, Any]) -> tuple[Any, ...]:
    """Smallest for the page that a person should look at first."""
    return -row["reverted"], -row.get("lightened", 0.0), -row["uncertainty"], row["path"], row["page"]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS}
    for name in COLUMNS[4:]:
        columns[name] = np.array(columns[name], np.float64)
    columns["page"] = np.array(columns["page"], np.int64)
    write_table(path, columns)


def _engines(model: str | Path | None, device: str, threads: int) -> dict[str, Denoiser] | Detector:
    """What restores: a denoiser for each kind of page, or an anomaly model for small images.

    A denoiser of one's own stands for the shipped one of its kind.
    """
    own = None
    if model is not None:
        path = Path(model)
        folder = path if path.is_dir() else path.parent if path.name == MODEL_NAME else None
        exported = folder / ONNX_NAME if folder else path
        if exported.suffix == ".onnx" and (exported.exists() or not folder):
            own = read_denoiser(exported, device, threads)
        if own is None:
            return load(model, device, threads)
    kinds = [kind for kind in ("document", "photo") if own is None or kind != own.kind]
    return {kind: shipped_denoiser(kind, device, threads) for kind in kinds} | ({own.kind: own} if own else {})


def _check_settings(
    engines: dict[str, Denoiser] | Detector, settings: RestoreSettings, outputs: DenoiseOutputs
) -> None:
    """Refuse, before anything is touched, settings that have no meaning for what restores."""
    if not isinstance(engines, dict):
        if engines.info.vectors:
            raise UsageError("-m names a model of vectors, and scans are pictures; name a denoiser, or leave it out")
        plain = RestoreSettings(strength=settings.strength)
        given = [name for name, value in vars(settings).items() if value != getattr(plain, name)]
        options = [f"--{'no-' if name == 'gate' else ''}{name}" for name in given]
        if options := options + ["--uncertainty"] * outputs.uncertainty:
            has, it = ("has", "it") if len(options) == 1 else ("have", "them")
            raise UsageError(f"{', '.join(options)} {has} no meaning with the anomaly model of -m; leave {it} out")
        return
    for kind, engine in engines.items():
        if settings.samples and settings.kind in ("auto", kind) and not engine.ladder:
            raise UsageError(
                f"--samples: the denoiser for a {kind} draws none, having no ladder VAE; leave it out, or fit a"
                " denoiser of your own and give it with -m and its --kind"
            )


def _notes(
    places: Places,
    rows: Sequence[dict[str, Any]] = (),
    gone: Sequence[str] = (),
    edited: Sequence[str] = (),
    kept: Sequence[str] = (),
    bare: Sequence[str] = (),
    aside: Path | None = None,
) -> Iterator[str]:
    """What a person should know of a run, a sentence each."""
    if kept:
        files = "1 PDF has" if len(kept) == 1 else f"{len(kept)} PDFs have"
        what = "pictures that stay as they are, being bilevel, CMYK, indexed, masked or of another depth than 8 bits"
        yield f"{files} {what}: {_some(kept)}"
    if bare:
        files = "1 PDF is copied, since it has" if len(bare) == 1 else f"{len(bare)} PDFs are copied, since they have"
        yield f"{files} no picture that is restored: {_some(bare)}"
    if unread := [f"page {row['page']} of {row['path']!r} ({row['note']})" for row in rows if "note" in row]:
        pages = "1 page was" if len(unread) == 1 else f"{len(unread)} pages were"
        yield f"{pages} left as before: {_some(unread)}; to try again, move the clean files away"
    if dark := [f"page {row['page']} of {row['path']!r}" for row in rows if row.get("lightened", 0.0) > MUCH_LIGHTENED]:
        pages = "1 page has" if len(dark) == 1 else f"{len(dark)} pages have"
        yield f"{pages} large dark areas that were taken for stains: {_some(dark)}; give --kind photo for pictures"
    if places.others:
        count = sum(number for _, number in places.others)
        kinds = [f"{number} {suffix or 'without a suffix'}" for suffix, number in places.others]
        files = "1 file is no scan and stays" if count == 1 else f"{count} files are no scans and stay"
        yield f"{files} behind: {_some(kinds)}"
    if skipped := places.skipped:
        folders = "1 folder was" if len(skipped) == 1 else f"{len(skipped)} folders were"
        yield f"{folders} left out, which this command has written: {_some(skipped)}"
    if gone:
        files = "1 clean file has" if len(gone) == 1 else f"{len(gone)} clean files have"
        yield f"{files} no scan any more: {_some(gone)}; delete what is not wanted"
    if edited:
        files = "1 clean file was" if len(edited) == 1 else f"{len(edited)} clean files were"
        stay = "stays" if len(edited) == 1 else "stay"
        yield f"{files} changed by hand and {stay}: {_some(edited)}; move away what is to be made again"
    if aside:
        yield f"{TABLE} had been edited, and was kept as {str(aside)!r}"


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more

"""`denoise`: a folder tree of scans in, the same tree out, clean, with what was done to each page beside it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.devices import cores
from vaeguard.errors import RefusedError, UnreadableError, UsageError, VaeguardError
from vaeguard.files import digest_of, size_and_time, write_bytes, write_text, writing
from vaeguard.jobs import job_folder
from vaeguard.model_file import load
from vaeguard.reading.folders import list_images
from vaeguard.reading.images import read_bytes
from vaeguard.reading.streams import map_ahead
from vaeguard.restoration.denoiser import Denoiser, read_denoiser, shipped_denoiser
from vaeguard.restoration.ocr import words_lost
from vaeguard.restoration.page import PageReport, RestoredPage, restore_page, restore_small
from vaeguard.restoration.records import CleanFile, beside, others
from vaeguard.restoration.scans import SCAN_SUFFIXES, encode_png, page_sizes, rewrite, written_name
from vaeguard.restoration.spec import DenoiseOutputs, RestoreSettings
from vaeguard.runs import MODEL_NAME, ONNX_NAME
from vaeguard.tables import write_errors, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaeguard.inspection import Detector
    from vaeguard.progress import Progress
    from vaeguard.restoration.scans import Page, Pixels

DENOISE_FORMAT = 1
"""Raised when the same settings come to give other pixels."""
TABLE = "pages.csv"
COLUMNS = ("path", "page", "kind", "action", "noise", "change", "reverted", "uncertainty")
MOST_JOBS = 4
"""Files in work at a time, unless asked for otherwise."""
NAMED = 3
"""Of many files or folders, so many are named in a sentence."""
WAITING = 64
"""Files for each worker that may be finished before an earlier, longer one."""


@dataclass(frozen=True)
class DenoiseSummary:
    """What one run of `denoise_scans` did.

    Attributes
    ----------
    output : str
        The folder of clean scans.
    files, pages : int
        Scans in it, and pages in these.
    megapixels : float
        Restored in this run.
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
        errors = [{"path": path, "error": reason} for path, reason in self.errors]
        return {**vars(self), "errors": errors, "look_first": list(self.look_first)}


@dataclass(frozen=True)
class ScanPlan:
    """What `denoise_scans` would do: files and pages, megapixels, and what cannot be read."""

    files: int
    pages: int
    megapixels: float
    errors: tuple[tuple[str, str], ...]


def denoise_scans(
    scans: str | Path,
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
    scans : path
        A folder, searched recursively for JPEG, PNG, TIFF, BMP, WEBP and PDF, or one such file.
    output : path or None
        The folder to write; None is `<scans>-clean`. It is never the folder of the scans, nor inside it or around it.
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
    target = Path(output) if output else default_output(scans)
    root, names, skipped = _listed(Path(scans), target)
    workers = min(jobs or min(cores(), MOST_JOBS), len(names))
    engines = _engines(model, device, max(1, cores() // workers))
    _check_settings(engines, settings, outputs)
    work = _Work(root, target, settings, outputs, engines)
    done, total = 0, sum(size_and_time(str(root / name))[0] for name in names)
    rows: list[dict[str, Any]] = []
    errors: list[tuple[str, str]] = []
    pixels = resumed = 0
    with job_folder(target / TABLE, keep=True):
        _sweep(target)
        tasks = work.tasks(names)
        for result in map_ahead(work.file, tasks, jobs=workers, ahead=WAITING * workers):
            rows += result.pages
            errors += [(str(root / result.name), result.error)] if result.error else []
            pixels += result.pixels
            resumed += result.resumed
            done += result.size
            if progress:
                progress(done, total, f"{len(rows):,} pages, {pixels / 1e6:,.1f} MP")
        gone, stale = work.settle(names, whole=Path(scans).is_dir())
        rows.sort(key=_worth)
        _write_rows(target / TABLE, rows)
        write_errors(target / f"{TABLE}.errors.csv", errors)
    return DenoiseSummary(
        output=str(target),
        files=len(names) - len(errors),
        pages=len(rows),
        megapixels=round(pixels / 1e6, 2),
        resumed=resumed,
        errors=tuple(errors),
        look_first=tuple(row for row in rows[:10] if row["reverted"]),
        seconds=time.perf_counter() - started,
        device=next(iter(engines.values())).device if isinstance(engines, dict) else engines.device,
        notes=tuple(_notes(rows, skipped, gone, stale)),
    )


def plan_scans(scans: str | Path, output: str | Path | None = None) -> ScanPlan:
    """Tell what `denoise_scans` would do; writes nothing.

    Raises
    ------
    UsageError
        As `denoise_scans`.
    """
    root, names, _ = _listed(Path(scans), Path(output) if output else default_output(scans))
    pages, pixels = 0, 0
    errors: list[tuple[str, str]] = []
    for name in names:
        try:
            sizes = page_sizes(read_bytes(root / name), name)
        except UnreadableError as error:
            errors.append((str(root / name), error.reason))
        else:
            pages += len(sizes)
            pixels += sum(math.prod(size) for size in sizes)
    return ScanPlan(len(names) - len(errors), pages, round(pixels / 1e6, 2), tuple(errors))


def default_output(scans: str | Path) -> Path:
    """`scans-clean` beside `scans`."""
    path = Path(scans).resolve() if str(scans) in (".", "..") else Path(scans)
    return path.with_name((path.name if path.is_dir() else path.stem) + "-clean")


@dataclass(frozen=True)
class _Result:
    """What became of one file."""

    name: str
    size: int
    pages: list[dict[str, Any]]
    pixels: int = 0
    resumed: bool = False
    error: str = ""


class _Work:
    """Restores files one by one, in whatever thread asks."""

    def __init__(
        self,
        root: Path,
        target: Path,
        settings: RestoreSettings,
        outputs: DenoiseOutputs,
        engines: dict[str, Denoiser] | Detector,
    ) -> None:
        self.root, self.target, self.settings, self.outputs = root, target, settings, outputs
        self.engines = engines
        used = engines.values() if isinstance(engines, dict) else (engines,)
        prints = sorted(each.fingerprint for each in used)
        self.how = {"format": DENOISE_FORMAT, **asdict(settings), **asdict(outputs), "models": prints}

    def tasks(self, names: list[str]) -> list[tuple[str, str]]:
        """Each name, and the earlier one that would be written to the same file, if there is one."""
        first: dict[str, str] = {}
        owners = [first.setdefault(self._place(name), name) for name in names]
        return [(name, "" if owner == name else owner) for name, owner in zip(names, owners, strict=True)]

    def file(self, task: tuple[str, str]) -> _Result:
        """Restore one file, or find it finished, or say why not."""
        name, owner = task
        size = 0
        if owner:
            return _Result(name, 0, [], error=f"it would be written to the same file as {owner!r}; rename one of them")
        place = self.target / self._place(name)
        try:
            content = read_bytes(self.root / name)
            size = len(content)
            before = hashlib.sha256(content).hexdigest()
            earlier = CleanFile(place)
            if self._is_finished(earlier, before):
                return _Result(name, size, earlier.record["pages"], resumed=True)
            if not earlier.remove():
                return _Result(name, size, [], error=f"{earlier.said()}; move it away to have it made again")
            return self._restored(content, name, place, before)
        except UnreadableError as error:
            reason = error.reason
        except RefusedError as error:
            reason = str(error)
        except MemoryError:
            reason = "there is not enough memory for it; try --jobs 1"
        earlier = CleanFile(place)
        return _Result(name, size, [], error=reason if earlier.remove() else f"{reason}; {earlier.said()}, and stays")

    def settle(self, names: list[str], *, whole: bool) -> tuple[list[str], list[str]]:
        """Remove what earlier settings wrote for these scans under other names.

        Returns the clean files without a scan, if the names are `whole`, all scans that there are; and those under
        other names that somebody changed. Both stay.
        """
        known, gone, stale = set(names), [], []
        for other in others(self.target, {self._place(name) for name in names}):
            source = str(other.record.get("source"))
            if source in known:
                # As long as the scan is under no other name, the earlier one is the only one.
                if beside(self.target / self._place(source), "json").exists() and not other.remove():
                    stale.append(repr(str(other.place)))
            elif whole and known.isdisjoint(map(str, Path(source).parents)):  # a folder that is closed is listed itself
                gone.append(repr(str(other.place)))
        return gone, stale

    def _place(self, name: str) -> str:
        return written_name(name, jpeg=self.outputs.jpeg)

    def _is_finished(self, earlier: CleanFile, before: str) -> bool:
        """Whether an earlier run has written this file and all beside it in the same way."""
        record = earlier.record
        return record.get("source_sha256") == before and record.get("settings") == self.how and earlier.whole

    def _restored(self, content: bytes, name: str, place: Path, before: str) -> _Result:
        rows: list[dict[str, Any]] = []
        pictures: list[Path] = []
        pixels = 0

        def picture(number: int, kind: str, values: Pixels) -> None:
            pictures.append(beside(place, f"page-{number}.{kind}.png"))
            write_bytes(pictures[-1], encode_png(values, []))

        def restore(page: Page) -> Pixels:
            nonlocal pixels
            found = self._restored_page(page)
            clean, row = found.pixels, _row(name, page.number, found.report)
            if self.outputs.ocr and clean is not page.pixels and (harm := _harm(page, clean)) is not None:
                clean = page.pixels
                row |= {"action": "reverted", "change": 0.0, "reverted": 1.0} | harm
            rows.append(row)
            pixels += page.pixels.shape[0] * page.pixels.shape[1]
            if self.outputs.residual and page.pixels.dtype != np.bool_:
                picture(page.number, "residual", page.pixels - clean)
            if found.uncertainty is not None:
                picture(page.number, "uncertainty", found.uncertainty)
            return clean

        try:
            with writing(place) as temporary:
                rewrite(content, name, temporary, restore, jpeg=self.outputs.jpeg)
        except BaseException:
            for path in pictures:  # no record names them yet
                path.unlink(missing_ok=True)
            raise
        record = {
            "source": name,
            "source_sha256": before,
            "written": {path.name: digest_of(path) for path in (place, *pictures)},
            "settings": self.how,
            "pages": rows,
        }
        write_text(beside(place, "json"), json.dumps(record, indent=1))
        return _Result(name, len(content), rows, pixels)

    def _restored_page(self, page: Page) -> RestoredPage:
        if page.pixels.dtype == np.bool_:
            return RestoredPage(page.pixels, PageReport("untouched", 0.0, 0.0, 0.0, 0.0))
        if not isinstance(self.engines, dict):
            return restore_small(page.pixels, self.engines, self.settings)
        wide = self.outputs.uncertainty
        return restore_page(page.pixels, self.engines.__getitem__, self.settings, dpi=page.dpi, uncertainty=wide)


def _harm(page: Page, clean: Pixels) -> dict[str, str] | None:
    """None where a page can still be read; otherwise what its row says of it, which may be nothing.

    Where tesseract fails on a page, nobody knows.

    Raises
    ------
    UsageError
        Tesseract is missing.
    """
    try:
        return {} if words_lost(page.pixels, clean, page.dpi) else None
    except UsageError:
        raise
    except VaeguardError as error:
        return {"note": str(error)}


def _row(name: str, number: int, report: PageReport) -> dict[str, Any]:
    action = "untouched" if report.kind == "untouched" else "restored"
    numbers = {key: round(value, 4) for key, value in vars(report).items() if key != "kind"}
    return {"path": name, "page": number, "kind": report.kind, "action": action, **numbers}


def _worth(row: dict[str, Any]) -> tuple[Any, ...]:
    """Smallest for the page that a person should look at first."""
    return -row["reverted"], -row["uncertainty"], row["path"], row["page"]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS}
    for name in COLUMNS[4:]:
        columns[name] = np.array(columns[name], np.float64)
    columns["page"] = np.array(columns["page"], np.int64)
    write_table(path, columns)


def _sweep(target: Path) -> None:
    """Remove what killed runs left under temporary names."""
    for path in target.rglob(".*-????????.*"):
        path.unlink(missing_ok=True)


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
                f"--samples: the denoiser for a {kind} has no ladder VAE; leave it out, or give --kind if there is none"
            )


def _notes(rows: list[dict[str, Any]], skipped: list[str], gone: list[str], stale: list[str]) -> Iterator[str]:
    """What a person should know of a run, a sentence each."""
    if unread := [f"page {row['page']} of {row['path']!r} ({row['note']})" for row in rows if "note" in row]:
        pages = "1 page was" if len(unread) == 1 else f"{len(unread)} pages were"
        yield f"{pages} left as before: {_some(unread)}; to try again, move the clean files away"
    if skipped:
        folders = "1 folder was" if len(skipped) == 1 else f"{len(skipped)} folders were"
        yield f"{folders} left out, which this command has written: {_some(skipped)}"
    if gone:
        files = "1 clean file has" if len(gone) == 1 else f"{len(gone)} clean files have"
        yield f"{files} no scan any more: {_some(gone)}; delete what is not wanted"
    if stale:
        one = len(stale) == 1
        files = "1 clean file stays, since it was" if one else f"{len(stale)} clean files stay, since they were"
        yield f"{files} changed by hand, beside what was written anew: {_some(stale)}; delete what is not wanted"


def _some(items: list[str]) -> str:
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def _listed(scans: Path, target: Path) -> tuple[Path, list[str], list[str]]:
    """The folder, the paths of its scans below it, sorted, and of clean trees there; the target is checked.

    Raises
    ------
    UsageError
        There are none, or the target is where the scans are, or holds other things.
    """
    if target.exists() and not target.is_dir():
        raise UsageError(f"-o {str(target)!r} is a file; give a folder")
    listed = list_images([scans], SCAN_SUFFIXES)
    folder = scans if scans.is_dir() else scans.parent
    place, clean = folder.resolve(), target.resolve()
    nested = scans.is_dir() and (place in clean.parents or clean in place.parents)
    if clean == place or nested:
        raise UsageError(
            f"-o {str(target)!r} is the folder of the scans, or inside it or around it, and these are never touched;"
            " choose a folder apart from it"
        )
    _check_ours(target)
    # A link among the scans may lead to the target.
    names = [str(Path(path).relative_to(folder)) for path in listed if clean not in Path(path).resolve().parents]
    names, skipped = _without_outputs(folder, names)
    if not names:
        raise UsageError(f"{str(scans)!r} holds nothing but clean scans; give the folder of the scans themselves")
    return folder, names, skipped


def _without_outputs(folder: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """The names that are in no clean tree below `folder`, and these trees: what is clean is no scan."""
    known = {Path(): False}
    skipped: list[str] = []

    def in_output(place: Path) -> bool:
        if place not in known:
            known[place] = in_output(place.parent) or _is_output(folder / place)
            if known[place] and not known[place.parent]:
                skipped.append(repr(str(folder / place)))
        return known[place]

    return [name for name in names if not in_output(Path(name).parent)], skipped


def _check_ours(target: Path) -> None:
    """Refuse to write into a folder that holds other things."""
    if target.is_dir() and any(target.iterdir()) and not _is_output(target):
        raise UsageError(f"-o {str(target)!r} holds other files; give a new or an empty folder")


def _is_output(folder: Path) -> bool:
    """Whether clean scans are written there, or have been."""
    if (folder / f"{TABLE}.job").exists():
        return True
    try:
        with (folder / TABLE).open(encoding="utf-8") as file:
            return file.readline().strip() == ",".join(COLUMNS)
    except (OSError, ValueError):
        return False

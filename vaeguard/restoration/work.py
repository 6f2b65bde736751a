"""Restores scans one by one, in any thread, and writes the clean file, its record and its pictures."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vaeguard.data.images import read_bytes
from vaeguard.data.streams import map_ahead
from vaeguard.data.workers import DiedError
from vaeguard.errors import RefusedError, UnreadableError, VaeguardError
from vaeguard.packages import own_version
from vaeguard.restoration.cleaned import SQUARE
from vaeguard.restoration.derived import write_copies
from vaeguard.restoration.formats.isolated import page_sizes, rewrite
from vaeguard.restoration.formats.picture import encode_png
from vaeguard.restoration.formats.scan_page import digest_of_pixels
from vaeguard.restoration.meter import Meter
from vaeguard.restoration.records import MEASURES, copy_names
from vaeguard.restoration.tree import CleanTree
from vaeguard.storage.files import path_from, size_and_time
from vaeguard.storage.store import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from vaeguard.progress import Progress
    from vaeguard.restoration.formats.scan_format import Rewritten
    from vaeguard.restoration.formats.scan_page import Page, Pixels
    from vaeguard.restoration.page import PageReport
    from vaeguard.restoration.pipeline import Pipeline
    from vaeguard.restoration.places import Places
    from vaeguard.storage.store import Draft, Part

_T = TypeVar("_T")
LONGEST_NAME = 255
"""The most bytes in a file name on most file systems."""
MOVE = "to have it written again, move it away"
"""The advice of messages about a clean file that somebody changed."""


@dataclass(frozen=True)
class Scan:
    """A scan as it was read, its SHA-256, and the output of an earlier run for this scan.

    `finished` is whether that run restored the scan in the same way, even if somebody changed the clean file since.
    """

    name: str
    content: bytes
    digest: str
    earlier: Part
    finished: bool


@dataclass(frozen=True)
class Restored:
    """The result for one file."""

    name: str
    place: Path
    """The clean file."""
    pages: list[dict[str, Any]]
    left: Sequence[tuple[int, str]] = ()
    """Pictures of a PDF that are left as they are: page and kind."""
    bytes: tuple[int, int] = (0, 0)
    """Sizes of the scan and of the clean file."""
    pixels: int = 0
    """Pixels that this run processed."""
    resumed: bool = False
    """Whether an earlier run had finished the file."""
    edited: bool = False
    """Whether somebody changed the clean file of an earlier, identical run; the changed file is kept."""


@dataclass
class _Pages:
    """The pages of a file while they are restored.

    Attributes
    ----------
    total, pixels : int
        Pixels of all pages, and of the finished pages.
    rows : list of dict
        Rows of `pages.csv`.
    squares : dict
        The squares that were put back, by page.
    originals : dict
        The digest of the original pixels, by page.
    """

    name: str
    total: int
    pixels: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    squares: dict[int, list[str]] = field(default_factory=dict)
    originals: dict[int, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """The facts of single pages that the record holds besides the rows."""
        put_back = {"put_back": {"square": SQUARE, "pages": self.squares}} if self.squares else {}
        return put_back | ({"pixels_sha256": self.originals} if self.originals else {})


class Work(CleanTree):
    """Processes the scans of a run one by one, in `workers` threads.

    Parameters
    ----------
    places : Places
        Where all scans of the run are, and where their clean files go.
    pipeline : Pipeline
        What restores pages.
    workers : int
        The number of threads.
    progress : callable or None
        As for `denoise_scans`.
    names : sequence of str or None
        The scans that this process takes; None takes all.
    """

    def __init__(
        self,
        places: Places,
        pipeline: Pipeline,
        workers: int,
        progress: Progress | None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(places, pipeline.settings, pipeline.outputs, pipeline.restorer.fingerprints)
        self.check_kept()
        self.pipeline, self.workers = pipeline, workers
        self.names = places.names if names is None else names
        self.meter = Meter({name: size_and_time(str(places.root / name))[0] for name in self.names}, progress)

    def map(self, process: Callable[[Scan], _T], ahead: int) -> Generator[_T | str]:
        """The result of `process` for each scan, or the reason why the scan is left out, in the order of the names.

        At most `ahead` scans per worker are started while an earlier, longer scan is still in progress.
        """
        tasks = [(name, self.owners[name]) for name in self.names]
        step, ahead = partial(self._attempt, process), ahead * self.workers
        return map_ahead(step, tasks, jobs=self.workers, ahead=ahead, stop=self.meter.stop)

    def restore(self, scan: Scan) -> Restored:
        """Restore a scan and write the clean file, unless an earlier run finished it.

        Raises
        ------
        UnreadableError
            The scan cannot be read, or somebody changed the clean file in the meantime.
        StoppedError
            The run was interrupted; no part of the clean file is written.
        """
        record, place = scan.earlier.record, scan.earlier.path
        if scan.finished:
            size, written = record["bytes"]
            edited = scan.earlier.retouched
            return Restored(
                scan.name, place, record["pages"], record["kept"], (size, written), resumed=True, edited=edited
            )
        pages = _Pages(scan.name, sum(height * width for height, width in page_sizes(scan.content, scan.name)))
        with self.store.put(self.clean[scan.name]) as part:
            temporary = part.file(place.name)
            result = self._rewrite(scan, temporary, partial(self._clean_page, pages, part))
            copies = write_copies(part, temporary, self.pipeline.outputs, self.meter.check)
            sizes = len(scan.content), temporary.stat().st_size
            record = {
                "root": path_from(self.places.target, self.places.root),
                "source": scan.name,
                "source_sha256": scan.digest,
                "vaeguard": own_version(),
                "written": part.digests(),
                "settings": self.key,
                "pages": pages.rows,
                "kept": result.left,
                "bytes": sizes,
                "codecs": result.codecs,
                **pages.facts(),
                **({"derived": copies} if copies else {}),
            }
            self.meter.check()  # the last chance to stop: from here on, files are renamed to their final names
            part.finish(record)
            # The earlier clean file stays until the new one is complete. Somebody may have changed it in the meantime.
            if not (current := self.store.part(self.clean[scan.name])).remove():
                raise UnreadableError(scan.name, f"{current.change()}; {MOVE}")
        return Restored(scan.name, place, pages.rows, result.left, sizes, pages.pixels)

    def _attempt(self, process: Callable[[Scan], _T], task: tuple[str, str]) -> _T | str:
        """The result of `process` for a scan, or the reason why the scan is left out."""
        name, owner = task
        self.meter.check()
        refusal = self._refusal(name, owner)
        result: _T | str = refusal or self._run_guarded(process, name)
        self.meter.tick(name, 1.0)
        return result

    def _run_guarded(self, process: Callable[[Scan], _T], name: str) -> _T | str:
        earlier = self.store.part(self.clean[name])
        try:
            scan = self._read(name, earlier)
            if earlier.changed and not scan.finished:
                return f"{earlier.change()}; {MOVE}"
            if foreign := self._foreign_copies(earlier):
                return f"{foreign[0]!r} already exists, and no record next to it shows where it came from; {MOVE}"
            try:
                return process(scan)
            except DiedError as error:
                if error.late:
                    raise
                return process(scan)  # an earlier scan may have harmed the process
        except UnreadableError as error:
            reason = error.reason
        except RefusedError as error:
            reason = str(error)
        except MemoryError as error:
            reason = str(error) or "it needs more memory than there is; set `jobs` to 1"
        except VaeguardError:  # a full disk or a missing program, which would stop every other file as well
            raise
        except Exception as error:  # noqa: BLE001 -- one strange file must not end a run of hours
            reason = (
                f"this is a bug in vaeguard ({type(error).__name__}: {error}); please report it, and leave this"
                " file out"
            )
        # If the scan is broken, the clean file may be the last copy, so it is kept.
        return reason + ("; the earlier clean file was kept" if earlier.path.exists() else "")

    def _foreign_copies(self, earlier: Part) -> list[str]:
        """The files that have the names of copies of a clean file, and are not."""
        names = copy_names(earlier.path.name, self.pipeline.outputs.derive).values()
        return [str(path) for path in map(earlier.path.with_name, names) if path.exists() and path not in earlier.files]

    def _read(self, name: str, earlier: Part) -> Scan:
        content = read_bytes(self.places.root / name)
        digest, record = hashlib.sha256(content).hexdigest(), earlier.record
        same = record.get("source_sha256") == digest and record.get("settings") == self.key
        return Scan(name, content, digest, earlier, same and (earlier.whole or earlier.retouched))

    def _refusal(self, name: str, owner: str) -> str:
        """Why the clean file of a scan cannot be written; `owner` is the first scan with a file of the same name."""
        if owner != name:
            return f"it would be written to the same file as {owner!r}; rename one of them"
        pictures = self.pipeline.outputs.residual or self.pipeline.outputs.uncertainty
        place = self.places.target / self.clean[name]
        others = [beside(place, "page-9999.uncertainty.png" if pictures else "json").name]
        others += copy_names(place.name, self.pipeline.outputs.derive).values()
        over = max(len(os.fsencode(other)) for other in others) - LONGEST_NAME
        return f"its name is {over} bytes too long for the files written next to it; shorten it" if over > 0 else ""

    def _rewrite(self, scan: Scan, temporary: Path, restore: Callable[[Page], Pixels]) -> Rewritten:
        """Write the clean file; without a given JPEG quality, no codec may damage a part of a PDF page."""
        jpeg, lossless = self.pipeline.outputs.jpeg, self.pipeline.outputs.exact
        return rewrite(scan.content, scan.name, temporary, restore, jpeg=jpeg, lossless=lossless)

    def _clean_page(self, pages: _Pages, part: Draft, page: Page) -> Pixels:
        """The clean pixels of the next page of a file; the facts of the page are added to `pages`."""
        area = page.pixels.shape[0] * page.pixels.shape[1]
        finished, total = pages.pixels, max(pages.total, 1)
        restored = self.pipeline.restore(
            page, lambda share: self.meter.tick(pages.name, min(1.0, (finished + share * area) / total))
        )
        clean, row = restored.pixels, _row(pages.name, page, restored.report)
        if harm := self.pipeline.harm(page, clean):
            clean = page.pixels
            row |= {"action": "reverted", "change": 0.0, "reverted": 1.0, "reason": harm}
        elif restored.report.squares:
            pages.squares[page.number] = list(restored.report.squares)
        pages.rows.append(row)
        pages.pixels += area
        if self.pipeline.outputs.residual and page.pixels.dtype != np.bool_:
            _write_picture(part, page, "residual", page.pixels - clean)
            pages.originals[page.number] = digest_of_pixels(page.pixels)
        if restored.uncertainty is not None:
            _write_picture(part, page, "uncertainty", restored.uncertainty)
        return clean


def _write_picture(part: Draft, page: Page, kind: str, values: Pixels) -> None:
    part.file(beside(part.path, f"page-{page.number}.{kind}.png").name).write_bytes(encode_png(values, []))


def _row(name: str, page: Page, report: PageReport) -> dict[str, Any]:
    """The row of a page in `pages.csv` and in the record."""
    region = {"region": list(report.region)} if report.region else {}
    return {
        "path": name,
        "page": page.number,
        "kind": report.kind,
        "action": report.action,
        **{measure: round(float(getattr(report, measure)), 4) for measure in MEASURES},
        "reason": report.reason,
        "size": list(page.pixels.shape[:2]),
        **region,
    }

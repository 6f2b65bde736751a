"""One scan at a time: restored and written with its record and pictures, or found finished, whatever thread asks."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vaeguard.data.images import read_bytes
from vaeguard.data.streams import map_ahead
from vaeguard.errors import RefusedError, UnreadableError, VaeguardError
from vaeguard.restoration.cleaned import SQUARE
from vaeguard.restoration.formats.picture import encode_png
from vaeguard.restoration.formats.scans import digest_of_pixels, page_sizes, rewrite, written_name
from vaeguard.restoration.meter import Meter
from vaeguard.restoration.nearness import keeps_squares
from vaeguard.restoration.records import MEASURES, TABLE, clean_store
from vaeguard.storage.files import path_from, size_and_time, sweep_all
from vaeguard.storage.store import beside

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from vaeguard.progress import Progress
    from vaeguard.restoration.formats.scan_page import Page, Pixels, Rewritten
    from vaeguard.restoration.page import PageReport
    from vaeguard.restoration.pipeline import Pipeline
    from vaeguard.restoration.places import Places
    from vaeguard.storage.store import Draft, Part

_T = TypeVar("_T")
LONGEST_NAME = 255
"""Bytes of a file's name, on most file systems."""
MOVE = "move it away to have it made again"
DENOISE_FORMAT = 7
"""Raised when the same settings come to give other pixels, or a record says other things."""


@dataclass(frozen=True)
class Scan:
    """A scan as it was read, its SHA-256, and what an earlier run wrote for it.

    `finished` tells whether that run has restored it in the same way, whatever somebody made of the clean file since.
    """

    name: str
    content: bytes
    digest: str
    earlier: Part
    finished: bool


@dataclass(frozen=True)
class Restored:
    """What became of one file."""

    name: str
    place: Path
    """The clean file."""
    pages: list[dict[str, Any]]
    left: Sequence[tuple[int, str]] = ()
    """Pictures of a PDF that stay as they are: page and kind."""
    bytes: tuple[int, int] = (0, 0)
    """Sizes of the scan and of the clean file."""
    pixels: int = 0
    """Pixels that were looked at in this run."""
    resumed: bool = False
    edited: bool = False
    """Whether somebody changed what an earlier run wrote in the same way; it stays."""


@dataclass
class _Pages:
    """The pages of a file while they are restored.

    Attributes
    ----------
    total, pixels : int
        Pixels of all pages, and of those that are done.
    rows : list of dict
        Of `pages.csv`.
    squares : dict
        By page, the squares that were put back.
    originals : dict
        By page, the digest of the pixels as they were.
    """

    name: str
    total: int
    pixels: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    squares: dict[int, list[str]] = field(default_factory=dict)
    originals: dict[int, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What the record says of single pages, where there is anything to say."""
        put_back = {"put_back": {"square": SQUARE, "pages": self.squares}} if self.squares else {}
        return put_back | ({"pixels_sha256": self.originals} if self.originals else {})


class Work:
    """Takes the scans of a run one by one, in `workers` threads.

    Attributes
    ----------
    clean : dict
        The name of each scan, and that of its clean file below the target.
    key : dict
        What the clean files depend on, beside the scans.
    """

    def __init__(self, places: Places, pipeline: Pipeline, workers: int, progress: Progress | None) -> None:
        self.places, self.pipeline, self.workers = places, pipeline, workers
        self.store = clean_store(places.target)
        self.meter = Meter({name: size_and_time(str(places.root / name))[0] for name in places.names}, progress)
        outputs = pipeline.outputs
        self.clean = {name: written_name(name, jpeg=outputs.jpeg) for name in places.names}
        settings = {**asdict(pipeline.settings), **asdict(outputs)}
        self.key = {"format": DENOISE_FORMAT, **settings, "models": pipeline.restorer.fingerprints}

    def each(self, do: Callable[[Scan], _T], ahead: int) -> Generator[_T | str]:
        """What `do` makes of each scan, or why the scan is left out, in the order of the names.

        For each worker at most `ahead` scans are taken before an earlier, longer one is done.
        """
        first: dict[str, str] = {}
        tasks = [(name, first.setdefault(place, name)) for name, place in self.clean.items()]
        step, ahead = partial(self._tried, do), ahead * self.workers
        return map_ahead(step, tasks, jobs=self.workers, ahead=ahead, stop=self.meter.stop)

    def sweep(self) -> None:
        """Remove what killed runs, also with other settings, left half written."""
        sweep_all(self.places.target, [*self.clean, *self.clean.values(), TABLE])

    def restore(self, scan: Scan) -> Restored:
        """Restore a scan and write the clean file, or find it finished.

        Raises
        ------
        UnreadableError
            The scan cannot be read, or somebody changed the clean file meanwhile.
        StoppedError
            The run was interrupted; nothing of the file is written.
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
            result = self._rewritten(scan, temporary, partial(self._page, pages, part))
            sizes = len(scan.content), temporary.stat().st_size
            record = {
                "root": path_from(self.places.target, self.places.root),
                "source": scan.name,
                "source_sha256": scan.digest,
                "vaeguard": version("vaeguard"),
                "written": part.digests(),
                "settings": self.key,
                "pages": pages.rows,
                "kept": result.left,
                "bytes": sizes,
                "codecs": result.codecs,
                **pages.facts(),
            }
            self.meter.check()  # the last time: from here on files take their names
            part.finish(record)
            # Only now: what was written before is worth more than nothing. It may have been changed while this worked.
            if not (now := self.store.part(self.clean[scan.name])).remove():
                raise UnreadableError(scan.name, f"{now.change()}; {MOVE}")
        return Restored(scan.name, place, pages.rows, result.left, sizes, pages.pixels)

    def settle(self) -> tuple[list[str], list[str]]:
        """Remove what earlier settings wrote for these scans under other names.

        Returns the clean files without a scan, if the names are all scans that there are; and those under other names
        that somebody changed. Both stay.
        """
        gone, stale = [], []
        for other in self.store.parts(without=set(self.clean.values())):
            source = str(other.record.get("source"))
            if source in self.clean:
                # As long as the scan is under no other name, the earlier one is the only one.
                now = self.store.part(self.clean[source])
                if now.record and now.path.exists() and not other.remove():
                    stale.append(repr(str(other.path)))
            # A folder that is closed is listed itself.
            elif other.path.exists() and self.places.whole and self.clean.keys().isdisjoint(_above(source)):
                gone.append(repr(str(other.path)))
        return gone, stale

    def finished_before(self) -> Iterator[dict[str, Any]]:
        """The records of what earlier runs wrote for other scans than these, where scans are named one by one."""
        for other in () if self.places.whole else self.store.parts(without=set(self.clean.values())):
            same_format = other.record["settings"].get("format") == DENOISE_FORMAT
            if same_format and other.record.get("source") not in self.clean and other.path.exists():
                yield other.record

    def _tried(self, do: Callable[[Scan], _T], task: tuple[str, str]) -> _T | str:
        """What `do` makes of a scan, or why it is left out."""
        name, owner = task
        self.meter.check()
        refusal = self._left_out(name, owner)
        result: _T | str = refusal or self._guarded(do, name)
        self.meter.tick(name, 1.0)
        return result

    def _guarded(self, do: Callable[[Scan], _T], name: str) -> _T | str:
        earlier = self.store.part(self.clean[name])
        try:
            scan = self._read(name, earlier)
            return do(scan) if scan.finished or not earlier.changed else f"{earlier.change()}; {MOVE}"
        except UnreadableError as error:
            reason = error.reason
        except RefusedError as error:
            reason = str(error)
        except MemoryError as error:
            reason = str(error) or "there is not enough memory for it; set `jobs` to 1"
        except VaeguardError:  # a full disk, a missing program: so it would be with every other file
            raise
        except Exception as error:  # noqa: BLE001 -- whatever is odd about one file, hours of others must go on
            reason = f"a fault in vaeguard ({type(error).__name__}: {error}); report it, and leave the file out"
        # If the scan is broken, the clean file may be the last copy, so it is kept.
        return reason + ("; the clean file that is there stays" if earlier.path.exists() else "")

    def _read(self, name: str, earlier: Part) -> Scan:
        content = read_bytes(self.places.root / name)
        digest, record = hashlib.sha256(content).hexdigest(), earlier.record
        same = record.get("source_sha256") == digest and record.get("settings") == self.key
        return Scan(name, content, digest, earlier, same and (earlier.whole or earlier.retouched))

    def _left_out(self, name: str, owner: str) -> str:
        """Why nothing can be written for a scan, `owner` being the first that is written to the same file."""
        if owner != name:
            return f"it would be written to the same file as {owner!r}; rename one of them"
        pictures = self.pipeline.outputs.residual or self.pipeline.outputs.uncertainty
        place = self.places.target / self.clean[name]
        longest = beside(place, "page-9999.uncertainty.png" if pictures else "json")
        over = len(os.fsencode(longest.name)) - LONGEST_NAME
        return f"its name is {over} bytes too long for what is written beside it; shorten it" if over > 0 else ""

    def _rewritten(self, scan: Scan, temporary: Path, restore: Callable[[Page], Pixels]) -> Rewritten:
        """Write the clean file; no page of a PDF in a codec that spoils a part of it, unless its quality is given."""
        jpeg, lossless = self.pipeline.outputs.jpeg, self.pipeline.outputs.exact
        latest: list[Pixels] = []

        def remembered(page: Page) -> Pixels:
            latest.clear()
            latest.append(restore(page))
            return latest[0]

        check = None if jpeg else lambda _, decoded: keeps_squares(latest[0], decoded)
        return rewrite(scan.content, scan.name, temporary, remembered, jpeg=jpeg, lossless=lossless, check=check)

    def _page(self, pages: _Pages, part: Draft, page: Page) -> Pixels:
        """The clean pixels of the next page of a file; what there is to say of it is noted in `pages`."""
        area = page.pixels.shape[0] * page.pixels.shape[1]
        before, total = pages.pixels, max(pages.total, 1)
        restored = self.pipeline.restore(
            page, lambda share: self.meter.tick(pages.name, min(1.0, (before + share * area) / total))
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


def _above(source: str) -> Iterator[str]:
    """The folders that a scan lies in."""
    return map(str, PurePath(source).parents)


def _write_picture(part: Draft, page: Page, kind: str, values: Pixels) -> None:
    part.file(beside(part.path, f"page-{page.number}.{kind}.png").name).write_bytes(encode_png(values, []))


def _row(name: str, page: Page, report: PageReport) -> dict[str, Any]:
    """What `pages.csv` and the record say of a page."""
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

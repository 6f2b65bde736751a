"""One scan at a time: restored, written with its record and pictures, or found finished, whatever thread asks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vaeguard.data.images import read_bytes
from vaeguard.errors import RefusedError, UnreadableError, UsageError, VaeguardError
from vaeguard.restoration.cleaned import SQUARE
from vaeguard.restoration.formats.picture import encode_png
from vaeguard.restoration.formats.scans import digest_of_pixels, page_sizes, rewrite, written_name
from vaeguard.restoration.nearness import keeps_squares
from vaeguard.restoration.ocr import words_lost
from vaeguard.restoration.page import PageReport, RestoredPage
from vaeguard.restoration.reasons import BILEVEL, FEWER_WORDS, action_on
from vaeguard.restoration.records import MEASURES, CleanFile, beside, others
from vaeguard.storage.files import digest_of, path_from, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vaeguard.restoration.formats.scan_page import Page, Pixels, Rewritten
    from vaeguard.restoration.meter import Meter
    from vaeguard.restoration.restorer import Restorer
    from vaeguard.settings.restoration import DenoiseOutputs, RestoreSettings

_T = TypeVar("_T")
LONGEST_NAME = 255
"""Bytes of a file's name, on most file systems."""
MOVE = "move it away to have it made again"
DENOISE_FORMAT = 7
"""Raised when the same settings come to give other pixels, or a record says other things."""
_BILEVEL = PageReport("untouched", 0.0, 0.0, 0.0, 0.0, reason=BILEVEL)


@dataclass(frozen=True)
class Restored:
    """What became of one file."""

    name: str
    pages: list[dict[str, Any]]
    pixels: int = 0
    kept: Sequence[tuple[int, str]] = ()
    """Pictures of a PDF that stay as they are: page and kind."""
    size: int = 0
    """Bytes of the scan."""
    written: int = 0
    """Bytes of the clean file."""
    resumed: bool = False
    edited: bool = False
    """Whether somebody changed what an earlier run wrote in the same way; it stays."""
    error: str = ""


@dataclass(frozen=True)
class Scan:
    """A scan as it was read, its SHA-256, and what an earlier run wrote for it.

    `finished` tells whether that run has restored it in the same way, whatever somebody made of the clean file since.
    """

    name: str
    content: bytes
    digest: str
    earlier: CleanFile
    finished: bool


@dataclass
class _Done:
    """What is known of a file while its pages are restored.

    Attributes
    ----------
    total, pixels : int
        Pixels of all its pages, and of those that are done.
    rows : list of dict
        Of `pages.csv`.
    written : dict
        Names of the files beside it, and where they lie until they are whole.
    squares : dict
        By page, the squares that were put back.
    originals : dict
        By page, the digest of the pixels as they were.
    """

    name: str
    total: int
    pixels: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    written: dict[str, Path] = field(default_factory=dict)
    squares: dict[int, list[str]] = field(default_factory=dict)
    originals: dict[int, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What the record says of single pages, where there is anything to say."""
        put_back = {"put_back": {"square": SQUARE, "pages": self.squares}} if self.squares else {}
        return put_back | ({"pixels_sha256": self.originals} if self.originals else {})


class Work:
    """Restores files one by one, in whatever thread asks."""

    def __init__(
        self,
        root: Path,
        target: Path,
        settings: RestoreSettings,
        outputs: DenoiseOutputs,
        restorer: Restorer,
        meter: Meter,
    ) -> None:
        self.root, self.target, self.settings, self.outputs = root, target, settings, outputs
        self.restorer, self.meter = restorer, meter
        models = restorer.fingerprints
        self.how = {"format": DENOISE_FORMAT, **asdict(settings), **asdict(outputs), "models": models}

    def tasks(self, names: list[str]) -> list[tuple[str, str]]:
        """Each name, and the earlier one that would be written to the same file, if there is one."""
        first: dict[str, str] = {}
        owners = [first.setdefault(place, name) for place, name in zip(self.places(names), names, strict=True)]
        return [(name, "" if owner == name else owner) for name, owner in zip(names, owners, strict=True)]

    def file(self, task: tuple[str, str]) -> Restored:
        """Restore one file, or find it finished, or say why not.

        Raises
        ------
        StoppedError
            The run was interrupted; nothing of the file is written.
        """
        self.meter.check()
        restored = self.tried(task, self._restored)
        self.meter.tick(task[0], 1.0)
        return Restored(task[0], [], error=restored) if isinstance(restored, str) else restored

    def tried(self, task: tuple[str, str], do: Callable[[Scan], _T]) -> _T | str:
        """What `do` makes of a scan, or why it is left out."""
        name, owner = task
        try:
            self.check_place(name, owner)
        except UnreadableError as error:
            return error.reason
        place = self.target / self._place(name)
        try:
            content, earlier = read_bytes(self.root / name), CleanFile(place)
            digest = hashlib.sha256(content).hexdigest()
            if (finished := self._is_done(earlier, digest)) or not earlier.changed:
                return do(Scan(name, content, digest, earlier, finished))
            return f"{earlier.said()}; {MOVE}"
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
        return reason + ("; the clean file that is there stays" if place.exists() else "")

    def places(self, names: list[str]) -> list[str]:
        """Where each is written, below the target."""
        return [self._place(name) for name in names]

    def check_place(self, name: str, owner: str) -> None:
        """Refuse a scan for which nothing can be written, `owner` being what `tasks` says of it.

        Raises
        ------
        UnreadableError
            Another one is written to the same file, or its name is too long.
        """
        if owner:
            raise UnreadableError(name, f"it would be written to the same file as {owner!r}; rename one of them")
        pictures = self.outputs.residual or self.outputs.uncertainty
        longest = beside(self.target / self._place(name), "page-9999.uncertainty.png" if pictures else "json")
        if (over := len(os.fsencode(longest.name)) - LONGEST_NAME) > 0:
            raise UnreadableError(name, f"its name is {over} bytes too long for what is written beside it; shorten it")

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
                now = CleanFile(self.target / self._place(source))
                if now.record and now.place.exists() and not other.remove():
                    stale.append(repr(str(other.place)))
            # A folder that is closed is listed itself.
            elif other.place.exists() and whole and known.isdisjoint(map(str, Path(source).parents)):
                gone.append(repr(str(other.place)))
        return gone, stale

    def finished_before(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """The records of what earlier runs wrote for other scans than these."""
        known = set(names)
        for other in others(self.target, {self._place(name) for name in names}):
            same_format = other.record["settings"].get("format") == DENOISE_FORMAT
            if same_format and other.record.get("source") not in known and other.place.exists():
                yield other.record

    def _place(self, name: str) -> str:
        return written_name(name, jpeg=self.outputs.jpeg)

    def _is_done(self, earlier: CleanFile, before: str) -> bool:
        """Whether an earlier run has done a scan with this digest in the same way; what somebody made of it is done."""
        same = earlier.record.get("source_sha256") == before and earlier.record.get("settings") == self.how
        return same and (earlier.whole or earlier.retouched)

    def _restored(self, scan: Scan) -> Restored:
        name, content, earlier = scan.name, scan.content, scan.earlier
        if scan.finished:
            record = earlier.record
            (size, written), edited = record["bytes"], earlier.retouched
            return Restored(name, record["pages"], 0, record["kept"], size, written, resumed=True, edited=edited)
        place = earlier.place
        done = _Done(name, sum(height * width for height, width in page_sizes(content, name)))
        with contextlib.ExitStack() as files:
            temporary = files.enter_context(writing(place))

            def picture(number: int, kind: str, values: Pixels) -> None:
                target = beside(place, f"page-{number}.{kind}.png")
                done.written[target.name] = files.enter_context(writing(target))
                done.written[target.name].write_bytes(encode_png(values, []))

            result = self._rewritten(scan, temporary, partial(self._page, done, picture))
            sizes = len(content), temporary.stat().st_size
            record = {
                "root": path_from(self.target, self.root),
                "source": name,
                "source_sha256": scan.digest,
                "vaeguard": version("vaeguard"),
                "written": {each: digest_of(path) for each, path in {place.name: temporary, **done.written}.items()},
                "settings": self.how,
                "pages": done.rows,
                "kept": result.left,
                "bytes": sizes,
                "codecs": result.codecs,
                **done.facts(),
            }
            self.meter.check()  # the last time: from here on files take their names
            # Of the new files the last opened takes its name first: the record before all that it tells of.
            files.enter_context(writing(beside(place, "json"))).write_text(json.dumps(record, indent=1), "utf-8")
            # Only now: what was written before is worth more than nothing. It may have been changed while this worked.
            if not (now := CleanFile(place)).remove():
                raise UnreadableError(name, f"{now.said()}; {MOVE}")
        return Restored(name, done.rows, done.pixels, result.left, *sizes)

    def _rewritten(self, scan: Scan, temporary: Path, restore: Callable[[Page], Pixels]) -> Rewritten:
        """Write the clean file; no page of a PDF in a codec that spoils a part of it, unless its quality is given."""
        jpeg, lossless = self.outputs.jpeg, self.outputs.exact
        latest: list[Pixels] = []

        def remembered(page: Page) -> Pixels:
            latest.clear()
            latest.append(restore(page))
            return latest[0]

        check = None if jpeg else lambda _, decoded: keeps_squares(latest[0], decoded)
        return rewrite(scan.content, scan.name, temporary, remembered, jpeg=jpeg, lossless=lossless, check=check)

    def _page(self, done: _Done, picture: Callable[[int, str, Pixels], None], page: Page) -> Pixels:
        """The clean pixels of the next page of a file; what there is to say of it is noted in `done`."""
        area = page.pixels.shape[0] * page.pixels.shape[1]
        before, total = done.pixels, max(done.total, 1)
        found = self._restored_page(
            page, lambda share: self.meter.tick(done.name, min(1.0, (before + share * area) / total))
        )
        clean, row = found.pixels, _row(done.name, page, found.report)
        if self.outputs.ocr and clean is not page.pixels and (harm := self._harm(page, clean)):
            clean = page.pixels
            row |= {"action": "reverted", "change": 0.0, "reverted": 1.0, "reason": harm}
        elif found.report.squares:
            done.squares[page.number] = list(found.report.squares)
        done.rows.append(row)
        done.pixels += area
        if self.outputs.residual and page.pixels.dtype != np.bool_:
            picture(page.number, "residual", page.pixels - clean)
            done.originals[page.number] = digest_of_pixels(page.pixels)
        if found.uncertainty is not None:
            picture(page.number, "uncertainty", found.uncertainty)
        return clean

    def _harm(self, page: Page, clean: Pixels) -> str:
        """Why a page must stay as it was by what tesseract reads, or nothing.

        Where tesseract fails on a page, nobody knows, so it stays.

        Raises
        ------
        UsageError
            Tesseract is missing.
        """
        before, after = page.upright(page.pixels), page.upright(clean)
        try:
            return FEWER_WORDS if words_lost(before, after, page.dpi, self.outputs.ocr_language) else ""
        except UsageError:
            raise
        except VaeguardError as error:
            return str(error)

    def judge(self, page: Page) -> PageReport:
        """Whether a page would be restored and as what, or why it would be left: what the run itself decides."""
        if page.pixels.dtype == np.bool_:
            return _BILEVEL
        return self.restorer.judge(page.pixels, self.settings)

    def _restored_page(self, page: Page, tick: Callable[[float], None]) -> RestoredPage:
        if page.pixels.dtype == np.bool_:
            return RestoredPage(page.pixels, _BILEVEL)
        return self.restorer.restore(page.pixels, self.settings, uncertainty=self.outputs.uncertainty, tick=tick)


def _row(name: str, page: Page, report: PageReport) -> dict[str, Any]:
    """What `pages.csv` and the record say of a page."""
    region = {"region": list(report.region)} if report.region else {}
    return {
        "path": name,
        "page": page.number,
        "kind": report.kind,
        "action": action_on(report),
        **{measure: round(float(getattr(report, measure)), 4) for measure in MEASURES},
        "reason": report.reason,
        "size": list(page.pixels.shape[:2]),
        **region,
    }

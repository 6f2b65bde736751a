"""A dry run of `denoise`: the pages are read and judged as in a run, and nothing is written."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import as_objects
from vaeguard.restoration.denoising import count_workers
from vaeguard.restoration.formats.isolated import scan_pages
from vaeguard.restoration.formats.scan_page import colours_of
from vaeguard.restoration.notes import Notes
from vaeguard.restoration.pipeline import open_pipeline
from vaeguard.restoration.places import find_scans
from vaeguard.restoration.work import Work
from vaeguard.settings.restoration import RestoreSettings
from vaeguard.storage.files import size_and_time
from vaeguard.wording import brief

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vaeguard.progress import Progress
    from vaeguard.restoration.formats.scan_page import Page
    from vaeguard.restoration.pipeline import Pipeline
    from vaeguard.restoration.places import Inputs
    from vaeguard.restoration.work import Scan
    from vaeguard.settings.restoration import DenoiseOutputs

AHEAD = 8
"""Files per worker that may be judged while an earlier file is still in progress."""
SAMPLE = (512, 768)
"""Height and width of the synthetic page on which the speed is measured."""
SAMPLE_NOISE = 10.0
"""Standard deviation of the noise on that page, in grey levels."""
WRITING = 3
"""Time to write a clean scan, read it again and compare it, in units of the time to read the scan."""


@dataclass(frozen=True)
class PlannedPage:
    """The plan for a page.

    Attributes
    ----------
    page : int
        Number of the page, from 1.
    width, height : int
        Size in pixels.
    kind, action, reason : str
        As in `pages.csv`; the plan cannot know what tesseract will read.
    """

    page: int
    width: int
    height: int
    kind: str
    action: str
    reason: str


@dataclass(frozen=True)
class PlannedScan:
    """The plan for a file.

    Attributes
    ----------
    path : str
        As in `pages.csv`.
    bytes : int
        Size of the file.
    pages : tuple of PlannedPage
        The pages; for a PDF, the pictures that would be restored.
    seconds : float
        Estimated time of one worker.
    finished : bool
        Whether an earlier run restored the file in the same way.
    """

    path: str
    bytes: int
    pages: tuple[PlannedPage, ...]
    seconds: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class ScanPlan:
    """What `denoise_scans` would do.

    Attributes
    ----------
    files, pages : int
        Scans to restore, and their pages.
    megapixels : float
        Megapixels of these pages.
    errors : tuple of (path, reason)
        Files that the run would leave out.
    notes : tuple of str
        Whatever else a person should know, one sentence each.
    finished : int
        Scans that an earlier run restored in the same way.
    seconds : float
        Estimated time of the run.
    scans : tuple of PlannedScan
        Every file that the tree would hold in the end.
    """

    files: int
    pages: int
    megapixels: float
    errors: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    finished: int
    seconds: float
    scans: tuple[PlannedScan, ...]

    __repr__ = brief

    def to_dict(self) -> dict[str, object]:
        """Return the plan as plain values that JSON can hold."""
        return {**vars(self), "errors": as_objects(self.errors), "scans": [asdict(scan) for scan in self.scans]}


def plan_scans(
    scans: Inputs,
    output: str | Path | None = None,
    settings: RestoreSettings | None = None,
    *,
    outputs: DenoiseOutputs | None = None,
    model: str | Path | None = None,
    device: str = "auto",
    jobs: int | None = None,
    progress: Progress | None = None,
) -> ScanPlan:
    """Plan what `denoise_scans` would do with the same arguments; read every page, and write nothing.

    Raises
    ------
    UsageError
        As for `denoise_scans`.
    """
    places = find_scans(scans, output)
    workers = count_workers(places, jobs)
    pipeline = open_pipeline(model, device, workers, settings, outputs)
    work = Work(places, pipeline, workers, progress)
    plans = work.map(partial(_plan_scan, pipeline, _Speeds(pipeline)), AHEAD)
    results = dict(zip(places.names, plans, strict=True))
    errors = [(str(places.root / name), result) for name, result in results.items() if isinstance(result, str)]
    planned = [result for result in results.values() if not isinstance(result, str)]
    planned += [
        _finished_scan(record, size_and_time(str(places.root / record["source"]))[0])
        for record in work.finished_before()
    ]
    new = [scan for scan in planned if not scan.finished]
    return ScanPlan(
        files=len(new),
        pages=sum(len(scan.pages) for scan in new),
        megapixels=round(sum(page.width * page.height for scan in new for page in scan.pages) / 1e6, 2),
        errors=tuple(errors),
        notes=tuple(Notes(bare=[repr(scan.path) for scan in new if not scan.pages]).sentences(places)),
        finished=len(planned) - len(new),
        seconds=sum(scan.seconds for scan in new) / workers,
        scans=tuple(sorted(planned, key=lambda scan: scan.path)),
    )


def _plan_scan(pipeline: Pipeline, speeds: _Speeds, scan: Scan) -> PlannedScan:
    """The plan for a scan."""
    if scan.finished:
        return _finished_scan(scan.earlier.record, len(scan.content))
    pages: list[PlannedPage] = []
    seconds, started = 0.0, time.perf_counter()
    for page in scan_pages(scan.content, scan.name):
        reading = time.perf_counter() - started
        report = pipeline.judge(page)
        height, width = page.pixels.shape[:2]
        pages.append(PlannedPage(page.number, width, height, report.kind, report.action, report.reason))
        seconds += time.perf_counter() - started + WRITING * reading
        if report.action == "restored":
            seconds += height * width / speeds.of(report.kind, page)
        started = time.perf_counter()
    return PlannedScan(scan.name, len(scan.content), tuple(pages), seconds)


def _finished_scan(record: Mapping[str, Any], size: int) -> PlannedScan:
    pages = [
        PlannedPage(row["page"], row["size"][1], row["size"][0], row["kind"], row["action"], row["reason"])
        for row in record["pages"]
    ]
    return PlannedScan(record["source"], size, tuple(pages), finished=True)


class _Speeds:
    """Pixels that a worker restores in a second, measured once for each kind of page, grey and in colour."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._speeds: dict[tuple[str, bool], float] = {}
        self._lock = threading.Lock()

    def of(self, kind: str, page: Page) -> float:
        """The speed for a page of this kind."""
        colours = colours_of(page.pixels)
        grey = all(np.array_equal(colours[..., 0], colours[..., other]) for other in range(1, colours.shape[2]))
        with self._lock:
            if (kind, grey) not in self._speeds:
                self._speeds[kind, grey] = self._measure(kind, grey=grey)
            return self._speeds[kind, grey]

    def _measure(self, kind: str, *, grey: bool) -> float:
        restorer, rng = self._pipeline.restorer, np.random.default_rng(0)
        if not restorer.any_size:
            return math.inf
        shape = SAMPLE if grey else (*SAMPLE, 3)
        sample = rng.normal(200, SAMPLE_NOISE, shape).clip(0, 255).astype(np.uint8)
        settings = RestoreSettings(kind=kind, noise=SAMPLE_NOISE, samples=self._pipeline.settings.samples)
        started = time.perf_counter()
        restorer.restore(sample, settings)
        return math.prod(SAMPLE) / (time.perf_counter() - started)

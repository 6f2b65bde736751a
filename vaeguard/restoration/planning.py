"""What `denoise` would do, from the pages themselves: they are judged as in a run, and nothing is written."""

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
from vaeguard.restoration.formats.scan_page import colours_of
from vaeguard.restoration.formats.scans import scan_pages
from vaeguard.restoration.notes import Notes
from vaeguard.restoration.pipeline import open_pipeline
from vaeguard.restoration.places import find_scans
from vaeguard.restoration.work import Work
from vaeguard.settings.restoration import RestoreSettings
from vaeguard.storage.files import size_and_time

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
"""Files for each worker that may be judged before an earlier one."""
SAMPLE, SAMPLE_NOISE = (512, 768), 10.0
"""Height and width of a made-up page by which the speed is measured, and the noise that it is cleaned of."""
WRITING = 3
"""Writing a clean scan, reading it again and comparing take so many times as long as reading the scan."""


@dataclass(frozen=True)
class PlannedPage:
    """What would be done to a page.

    Attributes
    ----------
    page : int
        From 1.
    width, height : int
        In pixels.
    kind, action, reason : str
        As in `pages.csv`; what tesseract will read is not known.
    """

    page: int
    width: int
    height: int
    kind: str
    action: str
    reason: str


@dataclass(frozen=True)
class PlannedScan:
    """What would be done to a file.

    Attributes
    ----------
    path : str
        As in `pages.csv`.
    bytes : int
        Its size.
    pages : tuple of PlannedPage
        Its pages; of a PDF the pictures that are restored.
    seconds : float
        About how long one worker would take.
    finished : bool
        Whether an earlier run has restored it in the same way.
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
        Scans to restore, and pages in these.
    megapixels : float
        In these pages.
    errors : tuple of (path, reason)
        Files that it would leave out.
    notes : tuple of str
        What else a person should know, a sentence each.
    finished : int
        Scans that an earlier run has restored in the same way.
    seconds : float
        About how long the run would take.
    scans : tuple of PlannedScan
        Each file that the tree would hold in the end.
    """

    files: int
    pages: int
    megapixels: float
    errors: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    finished: int
    seconds: float
    scans: tuple[PlannedScan, ...]

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
    """Tell what `denoise_scans` would do with the same arguments; reads every page, and writes nothing.

    Raises
    ------
    UsageError
        As `denoise_scans`.
    """
    places = find_scans(scans, output)
    workers = count_workers(places, jobs)
    pipeline = open_pipeline(model, device, workers, settings, outputs)
    work = Work(places, pipeline, workers, progress)
    results = zip(places.names, work.each(partial(_judged, pipeline, _Speeds(pipeline)), AHEAD), strict=True)
    found = dict(results)
    errors = [(str(places.root / name), result) for name, result in found.items() if isinstance(result, str)]
    planned = [result for result in found.values() if not isinstance(result, str)]
    planned += [
        _finished(record, size_and_time(str(places.root / record["source"]))[0]) for record in work.finished_before()
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


def _judged(pipeline: Pipeline, speeds: _Speeds, scan: Scan) -> PlannedScan:
    """What would become of a scan."""
    if scan.finished:
        return _finished(scan.earlier.record, len(scan.content))
    pages: list[PlannedPage] = []
    seconds, started = 0.0, time.perf_counter()
    for page in scan_pages(scan.content, scan.name):
        read = time.perf_counter() - started
        report = pipeline.judge(page)
        height, width = page.pixels.shape[:2]
        pages.append(PlannedPage(page.number, width, height, report.kind, report.action, report.reason))
        seconds += time.perf_counter() - started + WRITING * read
        if report.action == "restored":
            seconds += height * width / speeds.of(report.kind, page)
        started = time.perf_counter()
    return PlannedScan(scan.name, len(scan.content), tuple(pages), seconds)


def _finished(record: Mapping[str, Any], size: int) -> PlannedScan:
    pages = [
        PlannedPage(row["page"], row["size"][1], row["size"][0], row["kind"], row["action"], row["reason"])
        for row in record["pages"]
    ]
    return PlannedScan(record["source"], size, tuple(pages), finished=True)


class _Speeds:
    """How many pixels a worker restores in a second, measured once for each kind of page, grey and in colour."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._known: dict[tuple[str, bool], float] = {}
        self._lock = threading.Lock()

    def of(self, kind: str, page: Page) -> float:
        """The speed for a page of this kind."""
        colours = colours_of(page.pixels)
        grey = all(np.array_equal(colours[..., 0], colours[..., other]) for other in range(1, colours.shape[2]))
        with self._lock:
            if (kind, grey) not in self._known:
                self._known[kind, grey] = self._measured(kind, grey=grey)
            return self._known[kind, grey]

    def _measured(self, kind: str, *, grey: bool) -> float:
        restorer, rng = self._pipeline.restorer, np.random.default_rng(0)
        if not restorer.any_size:
            return math.inf
        shape = SAMPLE if grey else (*SAMPLE, 3)
        sample = rng.normal(200, SAMPLE_NOISE, shape).clip(0, 255).astype(np.uint8)
        settings = RestoreSettings(kind=kind, noise=SAMPLE_NOISE, samples=self._pipeline.settings.samples)
        started = time.perf_counter()
        restorer.restore(sample, settings)
        return math.prod(SAMPLE) / (time.perf_counter() - started)

"""Score images as they appear in a folder."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.decoding import HEADER, read_each
from vaeguard.data.folders import list_images
from vaeguard.data.inputs import expanded, is_container
from vaeguard.data.own_regions import region_path, regions_among
from vaeguard.data.regions import covered
from vaeguard.data.source import rows_of_a_shard
from vaeguard.errors import UsageError
from vaeguard.evaluation.drift import Drift, DriftMonitor
from vaeguard.evaluation.parts import table_columns
from vaeguard.evaluation.scoring import (
    SPOT_COLUMNS,
    ScoreSummary,
    check_spots,
    score_files,
    spots_table,
    watch_of,
)
from vaeguard.settings.evaluation import DRIFT_CHANCE, check_fpr
from vaeguard.statistics.appearance import appearance
from vaeguard.storage.files import size_and_time, valid_text
from vaeguard.storage.store import Store, beside, hidden_part, open_job
from vaeguard.storage.tables import check_table_path, columns_of, open_table, read_table, table_chunks, write_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaeguard.data.streams import ImageBatch
    from vaeguard.engines.detector import Detector

    Stamp = tuple[int, int]
    """Size and time of a file."""

POLL_SECONDS = 1.0
SETTLED_SECONDS = 1.0
"""A file is read once it has not changed for so many seconds."""
DAMAGED_SECONDS = 60.0
"""A file that cannot be read may still be written; it counts as damaged once it has not changed for so many seconds."""
GONE = (0, 0)
"""The stamp of a file that was deleted between two rounds."""


def watch_files(
    detector: Detector,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    report: Callable[[ScoreSummary], None] | None = None,
    rounds: int | None = None,
    drift_chance: float = DRIFT_CHANCE,
    **options: Any,
) -> None:
    """Score the images of folders and globs, and every image that appears there, into one growing table.

    Rows are in the order in which images appear; images that appear together are sorted. Each round with new images
    replaces the whole table. Containers are not watched. A file is read once it has not changed for a second. A file
    that is overwritten later is scored again and gets a new row. If many images are new, they are scored in rounds of a
    few thousand. A later watch continues the table if `<output>.watch.json` names the same model and rates. If an image
    cannot be read, it is tried again when it changes, and listed once it has not changed for a minute.

    Parameters
    ----------
    detector : Detector
        Any engine.
    inputs : paths
        Folders, globs, files; folders and globs may be empty at first.
    output : path
        The table.
    report : callable or None
        Called with the summary of each round that scored images or found damaged ones; its `flagged` lists the
        anomalous images, and its `drift` says what changed: p-values, brightness, sharpness or size of the images.
    rounds : int or None
        End after this many rounds, one per second; None continues until interrupted.
    drift_chance : float
        The chance of a false drift alarm in the whole watch, however long it is, if there is no drift: that is, if the
        images are exchangeable with the normal ones of the fit. Drift is also recorded in `<output>.drift.jsonl`.
    **options
        As for `score_files`.

    Raises
    ------
    UsageError
        A rate is out of range, heatmaps would be written among the images, or the existing table was not made by a
        watch with this model and these rates.
    VaeguardError
        Another job is writing the table.
    """
    check_table_path(output)
    options["fpr"] = detector.info.rate(options.get("fpr"))
    check_fpr(drift_chance, "drift_chance")
    if options.get("heatmaps"):
        options["heatmaps"].check(inputs)
        check_spots(output)
    name = f"part{Path(output).suffix}"
    with open_job(output, files=(name, f"{name}.errors.csv", spots_table(name).name)) as store:
        watch = _Watch(detector, Path(output), store.folder / name, options, drift_chance)
        for _ in count() if rounds is None else range(rounds):
            summary = watch.round(inputs)
            if report and (summary.images or summary.errors):
                report(summary)
            time.sleep(POLL_SECONDS)


class _Watch:
    """A table of scores that grows, and what its watch knows of the files."""

    def __init__(
        self, detector: Detector, output: Path, part: Path, options: dict[str, Any], drift_chance: float
    ) -> None:
        self.detector, self.output, self.part, self.options = detector, output, part, options
        self.settings = _settings(detector, options, drift_chance)
        self.rows, self.seen, self.errors = _earlier_rows(output, self.settings, table_columns(detector.info))
        self.monitor = DriftMonitor(detector.info, drift_chance)
        self.drift: list[Drift] = []
        """What has changed since the table was begun."""
        self.measured: dict[str, dict[str, float]] = {}
        """The properties of the images of a round."""
        if self.rows:
            self._go_on(watch_of(output).record)
        self.known: dict[str, Stamp] = {}
        """Stamps of files when they were read, or when this watch first saw a file of an earlier one."""
        self.future: dict[str, Stamp] = {}
        self.doubtful: dict[str, _Doubtful] = {}
        """Files that could not be read, but may still be written."""

    def round(self, inputs: Sequence[str | Path]) -> ScoreSummary:
        """Score what is new, and list what could not be read and changes no more."""
        # An interruption loses one round, so a round is no longer than a shard.
        most = rows_of_a_shard(math.prod(self.detector.info.image_shape))
        settled = _settled(inputs, self.future, looks=bool(self.detector.info.record.model.regions))
        self.known = {path: stamp for path, stamp in settled.items() if valid_text(path) in self.seen} | self.known
        fresh = [path for path, stamp in settled.items() if self.known.get(path) != stamp][:most]
        self.known |= {path: settled[path] for path in fresh}
        summary = ScoreSummary(0, 0, (), 0.0, str(self.output), self.settings["fpr"])
        if fresh:
            summary = replace(self._scored(fresh), output=str(self.output))
        return replace(summary, errors=self._damaged(settled))

    def _go_on(self, record: dict[str, Any]) -> None:
        """Take up the drift where an earlier watch left it; of rows after that, only the p-values are known."""
        try:
            self.drift = [Drift(**found) for found in record["drift"]]
            self.monitor.restore(record["monitor"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            path = beside(watch_of(self.output).path, "json")
            raise UsageError(
                f"{str(path)!r} is damaged, so this watch cannot be continued; choose a different table"
            ) from error
        rest = self.monitor.images
        for chunk in table_chunks(self.output, ("p_value",)):
            for p_value in chunk["p_value"][rest:]:
                self.drift += self.monitor.add(float(p_value), {})
            rest = max(0, rest - len(chunk["p_value"]))

    def _write_settings(self) -> None:
        """Write what a later watch needs, and the drift for people."""
        with Store(self.output.parent).put(watch_of(self.output).path.name) as part:
            if self.drift:
                rows = [drift.to_dict() for drift in self.drift]
                lines = "".join(f"{json.dumps(row)}\n" for row in rows)
                part.file(drift_table(self.output).name).write_text(lines, "utf-8")
            else:
                drift_table(self.output).unlink(missing_ok=True)  # of a table that was deleted
            facts = {"drift": [vars(drift) for drift in self.drift], "monitor": self.monitor.state()}
            part.finish({"written": part.digests(), **self.settings, **facts})

    def _observe(self, batch: ImageBatch) -> None:
        """Measure the images of a batch as the model sees them, and the sizes of their files."""
        if not self.detector.info.view.pictures:
            return
        images: Any = batch.images
        columns = appearance(covered(images, regions=self.detector.info.record.model.regions))
        sizes = {path: answer["size"] for path, answer, _ in read_each(HEADER, batch.paths) if isinstance(answer, dict)}
        for row, path in enumerate(batch.paths):
            size = {"size": float(math.prod(sizes[path]))} if path in sizes else {}
            self.measured[valid_text(path)] = {name: values[row] for name, values in columns.items()} | size

    def _scored(self, fresh: Sequence[str]) -> ScoreSummary:
        """Add the rows of these files to the table."""
        self.measured = {}
        summary = score_files(self.detector, (), self.part, listed=fresh, observe=self._observe, **self.options)
        beside(hidden_part(self.part), "json").unlink(missing_ok=True)  # no later round may go on with this table
        flagged: list[tuple[str, float]] = []
        drift: list[Drift] = []
        if summary.images:
            self._write_settings()  # before the table, so that it is known as that of a watch
            _append(self.output, self.rows, self.part, summary.images, table_columns(self.detector.info))
            if summary.spots:
                earlier, found = spots_table(self.output), Path(summary.spots)
                _append(earlier, _rows_of(earlier), found, _rows_of(found), SPOT_COLUMNS)
            for chunk in table_chunks(self.part, ("path", "p_value", "anomaly")):
                rows = np.flatnonzero(chunk["anomaly"])
                flagged += [(chunk["path"][row], float(chunk["p_value"][row])) for row in rows]
                for path, p_value in zip(chunk["path"], chunk["p_value"], strict=True):
                    drift += self.monitor.add(float(p_value), self.measured.get(path, {}))
            self.drift += drift
            self._write_settings()
        self.rows += summary.images
        self.seen.update(map(valid_text, fresh))
        unreadable = dict(summary.errors)
        now = time.monotonic()
        for path, reason in unreadable.items():
            self.doubtful[path] = _Doubtful(self.known[path], reason, now, grew=path in self.doubtful)
        for path in set(fresh) - set(unreadable):
            self.doubtful.pop(path, None)
            if self.errors.pop(valid_text(path), None):
                self._write_errors()
        return replace(summary, flagged=tuple(flagged), drift=tuple(drift))

    def _damaged(self, settled: dict[str, Stamp]) -> tuple[tuple[str, str], ...]:
        """List the doubtful files that have not changed for long; return those that were not listed before."""
        now = time.monotonic()
        listed = {
            path: doubt.reason
            for path, doubt in self.doubtful.items()
            if settled.get(path) == doubt.stamp and doubt.is_old(now)
        }
        self.doubtful = {path: doubt for path, doubt in self.doubtful.items() if path not in listed}
        named = {valid_text(path): reason for path, reason in listed.items()}
        added = tuple((path, reason) for path, reason in named.items() if path not in self.errors)
        if named:
            self.errors |= named
            self._write_errors()
        return added

    def _write_errors(self) -> None:
        write_errors(f"{self.output}.errors.csv", list(self.errors.items()))


@dataclass(frozen=True)
class _Doubtful:
    """A file that could not be read: its stamp then, the reason, the time (s), and whether the file grew before."""

    stamp: Stamp
    reason: str
    since: float
    grew: bool

    def is_old(self, now: float) -> bool:
        """Whether the file, if its stamp is still the same, has not changed for `DAMAGED_SECONDS`."""
        # A program that writes a file may set its time back.
        age = 0.0 if self.grew else (time.time_ns() - self.stamp[1]) / 1e9
        return max(age, now - self.since) >= DAMAGED_SECONDS


def drift_table(output: Path) -> Path:
    """Where the drift that the watch of `output` found lies, a line of JSON each; there is no file without any."""
    return beside(output, "drift.jsonl")


def _settings(detector: Detector, options: dict[str, Any], drift_chance: float) -> dict[str, Any]:
    # The fingerprint's last word is the model; a watch may continue on another device or with other threads.
    model = detector.fingerprint.split()[-1]
    return {"model": model, "fpr": options["fpr"], "drift_chance": drift_chance}


def _earlier_rows(
    output: Path, settings: dict[str, Any], columns: Sequence[str]
) -> tuple[int, set[str], dict[str, str]]:
    """The number of rows of an earlier watch, the images that it read, and the reasons for those it could not read."""
    listed = Path(f"{output}.errors.csv")
    settings_of_watch = watch_of(output)
    if (path := drift_table(output)).exists() and path not in settings_of_watch.files:
        raise UsageError(
            f"{str(path)!r} was not written by `vaeguard watch` and would be overwritten; choose a different table"
        )
    if not output.exists():
        if not settings_of_watch.record and (path := beside(settings_of_watch.path, "json")).exists():
            raise UsageError(
                f"{str(path)!r} was not written by `vaeguard watch` and would be overwritten; choose a different table"
            )
        return 0, set(), {}
    if {name: settings_of_watch.record.get(name) for name in settings} != settings:
        raise UsageError(
            f"{str(output)!r} was written by `vaeguard watch` with a different model or false-alarm rate; choose a"
            " different table"
        )
    if columns_of(output) != list(columns):  # new rows would have columns of other names
        raise UsageError(
            f"the columns of {str(output)!r} have changed since `vaeguard watch` wrote it; choose a different table"
        )
    paths = list(read_table(output)["path"])
    table = read_table(listed) if listed.exists() else {"path": [], "error": []}
    errors = dict(zip(table["path"], table["error"], strict=True))
    return len(paths), set(paths) - set(errors), errors


def _settled(inputs: Sequence[str | Path], future: dict[str, Stamp], *, looks: bool) -> dict[str, Stamp]:
    """The files that have not changed for `SETTLED_SECONDS`, sorted, with their stamps.

    The clock of a camera may be ahead of this machine's. A file with a time in the future counts if the round before
    saw the same stamp; `future` carries these stamps from round to round. If the model `looks` at regions of single
    images, an image changes with its region.
    """
    paths: set[str] = set()
    for item in inputs:
        try:
            paths.update(list_images(expanded(str(item))))
        except UsageError:  # the folder or glob is still empty
            continue
    now = time.time_ns()
    regions = {*regions_among([*paths])}
    images = [path for path in sorted(paths - regions) if not is_container(path)]
    stamps = {path: _stamp(path, region_path(path) if looks else "", regions) for path in images}
    stamps = {path: stamp for path, stamp in stamps.items() if stamp != GONE}
    settled = {
        path: stamp
        for path, stamp in stamps.items()
        if stamp[1] <= now - int(SETTLED_SECONDS * 1e9) or (stamp[1] > now and future.get(path) == stamp)
    }
    future.clear()
    future.update({path: stamp for path, stamp in stamps.items() if stamp[1] > now})
    return settled


def _stamp(path: str, region: str, regions: set[str]) -> Stamp:
    size, time = size_and_time(path)
    if region not in regions:
        return size, time
    more, later = size_and_time(region)
    return size + more, max(time, later)


def _append(output: Path, rows: int, part: Path, more: int, columns: Sequence[str]) -> None:
    with open_table(output, columns) as table:
        for path, length in ((output, rows), (part, more)):
            if length:
                table.append_table(path, length)


def _rows_of(table: Path) -> int:
    """The number of rows of a table of spots; none if there is no such table."""
    if columns_of(table) != [*SPOT_COLUMNS]:
        return 0
    return sum(len(chunk["path"]) for chunk in table_chunks(table, ("path",)))

"""Parts of a table of scores: each holds the rows of one piece of the images, and lies in the store of its job."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.source import pieces_of, read
from vaeguard.data.streams import ahead, fewer_if_large, map_ahead
from vaeguard.errors import VaeguardError
from vaeguard.packages import PACKAGES, installed
from vaeguard.statistics.false_alarms import flag
from vaeguard.storage.files import digest_of
from vaeguard.storage.plan import Plan, PlannedPiece
from vaeguard.storage.provenance import processor
from vaeguard.storage.store import Store, hidden_part
from vaeguard.storage.tables import open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.data.source import Piece, Source
    from vaeguard.data.streams import ImageBatch
    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import DetectorInfo, Inspection
    from vaeguard.progress import Progress

FIRST_COLUMNS = ("path", "score", "p_value", "anomaly")
PART_FORMAT = 4
"""Raised when the same settings give other rows than before."""
PART_FACTS = ("fpr", "images", "anomalies", "errors")
"""Keys of the manifest of a part, and of a table, which is the part of all images."""


@dataclass(frozen=True)
class ScorePart:
    """A finished part: its table, and the facts of its manifest."""

    table: Path
    images: int
    anomalies: int
    errors: list[tuple[str, str]]

    @classmethod
    def of(cls, table: Path, manifest: Mapping[str, Any]) -> ScorePart:
        """The part whose manifest this is."""
        return cls(table, manifest["images"], manifest["anomalies"], [*map(tuple, manifest["errors"])])


@dataclass
class ScoreParts:
    """Makes the parts of a job, and finds those that are finished.

    Attributes
    ----------
    detector : Detector
        Any engine.
    store : Store
        The store of the job.
    suffix : str
        The suffix of the tables.
    fpr : float
        The false-alarm rate by which images are flagged.
    jobs : int or None
        Threads that decode images.
    batch_size : int
        The number of images inspected at a time.
    observe : callable or None
        Called with each batch.
    """

    detector: Detector
    store: Store
    suffix: str
    fpr: float
    jobs: int | None
    batch_size: int
    observe: Callable[[ImageBatch], None] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table."""
        return table_columns(self.detector.info)

    def plan(self, sources: Sequence[Source], facts: Mapping[str, Any]) -> tuple[Plan, list[Piece]]:
        """The plan for `sources` and its pieces; `facts` are what else gathering must know."""
        versions = installed(PACKAGES)
        settings = json.dumps([PART_FORMAT, self.detector.fingerprint, self.columns, versions])
        pieces = pieces_of(sources, math.prod(self.detector.info.image_shape))
        planned = tuple(PlannedPiece(piece.key(settings), piece.name, piece.count) for piece in pieces)
        common = {
            "version": versions.get("vaeguard", ""),
            "model": self.detector.fingerprint,
            "false-alarm rate": self.fpr,
            "software": versions,
        }
        return Plan("scores", planned, common, {"columns": [*self.columns], **facts}), pieces

    def table(self, key: str) -> Path:
        """The table of a part."""
        return table_of_part(self.store, key, self.suffix)

    def finished(self, key: str) -> ScorePart | None:
        """The part `key` if it is finished."""
        return finished_part(self.store, key, self.suffix, self.fpr)

    def make(
        self, pieces: Sequence[tuple[Piece, str]], report: Callable[[int], None]
    ) -> Iterator[tuple[str, ScorePart]]:
        """Make the parts of these pieces with their keys, and yield each with its key.

        `report` is called with the number of images that are done.
        """
        # A thread reads ahead across parts, so that the engine never waits between two parts.
        values = self.batch_size * math.prod(self.detector.info.image_shape)
        parallel = fewer_if_large(self.detector.parallel, values)
        waiting = fewer_if_large(parallel + 1, values)
        batches = ahead(self._batches(pieces), waiting)
        inspected = map_ahead(self._inspect, batches, jobs=parallel, ahead=waiting)
        done = 0
        for piece, key in pieces:
            part = self._make(piece, key, inspected, partial(_report_more, report, done))
            done += part.images + len(part.errors)  # an uncounted source has promised none
            yield key, part

    def _batches(self, pieces: Sequence[tuple[Piece, str]]) -> Iterator[ImageBatch]:
        for piece, _ in pieces:
            yield from read(
                piece.source,
                piece.start,
                piece.stop,
                self.detector.info.image_shape,
                rule=self.detector.info.rule,
                batch_size=self.batch_size,
                jobs=self.jobs,
            )

    def _inspect(self, batch: ImageBatch) -> tuple[ImageBatch, Inspection]:
        return batch, self.detector.inspect(batch.images)

    def _make(
        self,
        piece: Piece,
        key: str,
        inspected: Iterator[tuple[ImageBatch, Inspection]],
        report: Callable[[int], None],
    ) -> ScorePart:
        errors: list[tuple[str, str]] = []
        anomalies, complete = 0, False
        path = self.table(key)
        with self.store.put(key) as part:
            with open_table(part.file(path.name), self.columns) as table:
                while not complete:
                    batch, inspection = next(inspected)
                    errors += batch.errors
                    if self.observe:
                        self.observe(batch)
                    columns = score_columns(batch.paths, inspection, self.fpr)
                    anomalies += int(np.count_nonzero(columns["anomaly"]))
                    table.write(columns)
                    report(table.rows + len(errors))
                    complete = batch.ends if piece.source.uncounted else table.rows + len(errors) >= piece.count
            facts = {"fpr": self.fpr, "images": table.rows, "anomalies": anomalies, "errors": errors}
            part.finish({"written": part.digests(), **facts, "processor": processor()})
        return ScorePart(path, table.rows, anomalies, errors)


def _report_more(report: Callable[[int], None], before: int, count: int) -> None:
    report(before + count)


def table_of_part(store: Store, key: str, suffix: str) -> Path:
    """The table of the part `key`."""
    return store.folder / f"{key}{suffix}"


def finished_part(store: Store, key: str, suffix: str, fpr: float) -> ScorePart | None:
    """The part `key` if it is finished, with images flagged at this rate."""
    manifest = store.get(key)
    if manifest is None or manifest["fpr"] != fpr:
        return None
    return ScorePart.of(table_of_part(store, key, suffix), manifest)


def finished_table(output: Path, key: str, fpr: float | None = None) -> Mapping[str, Any] | None:
    """The manifest of the table `output` if it is whole, of the plan with this key, and flagged at `fpr` if given."""
    part = Store(output.parent, ("key", *PART_FACTS)).part(hidden_part(output).name)
    same = part.record.get("key") == key and fpr in (None, part.record["fpr"])
    return part.record if same and part.whole else None


def join_parts(output: Path, columns: Sequence[str], parts: Sequence[ScorePart], key: str, fpr: float) -> ScorePart:
    """Write the table of all parts; `key` tells a later run what it was made of."""
    errors = [error for part in parts for error in part.errors]
    anomalies = sum(part.anomalies for part in parts)
    with open_table(output, columns) as table:
        for part in parts:
            table.append_table(part.table, part.images)
    facts = {"fpr": fpr, "images": table.rows, "anomalies": anomalies, "errors": errors}
    with Store(output.parent).put(hidden_part(output).name) as hidden:
        hidden.finish({"written": {output.name: digest_of(output)}, "key": key, **facts})
    return ScorePart(output, table.rows, anomalies, errors)


def table_columns(info: DetectorInfo) -> tuple[str, ...]:
    """The columns of `scores.csv`, in order."""
    return (*FIRST_COLUMNS, *info.term_names)


def score_columns(
    paths: Sequence[str], inspection: Inspection, fpr: float
) -> dict[str, Sequence[str] | npt.NDArray[Any]]:
    """Return the columns of `scores.csv` for inspected images.

    Raises
    ------
    VaeguardError
        A score is not a number.
    """
    check_numbers(inspection, paths)
    return {
        "path": paths,
        "score": inspection.score,
        "p_value": inspection.p_value,
        "anomaly": flag(inspection.p_value, fpr),
        **inspection.terms,
    }


def check_numbers(inspection: Inspection, paths: Sequence[str]) -> None:
    """Refuse scores that are not numbers.

    Raises
    ------
    VaeguardError
        A score is not a number.
    """
    bad = np.isnan(inspection.score) | np.isnan(inspection.p_value)
    if bad.any():
        first = paths[int(bad.argmax())]
        raise VaeguardError(
            f"the model computes no valid score for {first!r}, because its weights or its calibration are damaged;"
            " fit the model again"
        )


def report_images(progress: Progress | None, before: int, total: int, count: int) -> None:
    """Report so many images besides those that were done before."""
    done = before + count
    if progress:
        progress(done, max(done, total), f"{done:,} of {max(done, total):,} images")

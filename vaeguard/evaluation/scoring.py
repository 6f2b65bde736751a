"""Score image files into a table, or images in memory into an inspection, whichever engine runs below."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vaeguard.data.image_set import as_image_set
from vaeguard.data.inputs import find_sources
from vaeguard.data.source import pieces_of, read
from vaeguard.data.streams import ahead, map_ahead
from vaeguard.engines.inspection import concatenate
from vaeguard.errors import UsageError, VaeguardError, as_objects
from vaeguard.models.terms import TERMS
from vaeguard.settings.evaluation import DEFAULT_FPR, check_fpr
from vaeguard.statistics.false_alarms import flag, fpr_note
from vaeguard.storage.files import check_apart
from vaeguard.storage.store import open_job
from vaeguard.storage.tables import check_replaced, check_table_path, open_table, write_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.data.source import Piece, Source
    from vaeguard.data.streams import ImageBatch
    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import DetectorInfo, Inspection
    from vaeguard.progress import Progress
    from vaeguard.storage.store import Store

DEFAULT_BATCH_SIZE, BATCH_VALUES = 256, 2**21
FIRST_COLUMNS = ("path", "score", "p_value", "anomaly")
SHARD_FORMAT = 3
"""Raised when the same settings come to mean other rows."""
SHARD_FACTS = ("images", "anomalies", "errors")
"""What the manifest of a shard says."""


@dataclass(frozen=True)
class ScoreSummary:
    """What one run of `score_files` did.

    Attributes
    ----------
    images : int
        Rows of the table: images that could be read.
    anomalies : int
        Images flagged, `p_value <= fpr`.
    errors : tuple of (path, reason)
        Inputs that could not be read; also in `<output>.errors.csv`.
    seconds : float
        Wall time.
    output : str
        The table.
    fpr : float
        The false-alarm rate that was asked for.
    resumed : int
        Images of these whose rows an interrupted job had left.
    note : str or None
        Why nothing can be flagged at this rate, if so.
    sources : tuple of Source
        What was read, closed: the report picks the images that it shows from here.
    """

    images: int
    anomalies: int
    errors: tuple[tuple[str, str], ...]
    seconds: float
    output: str
    fpr: float
    resumed: int = 0
    note: str | None = None
    sources: tuple[Source, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, object]:
        """Return the summary as plain values that JSON can hold."""
        facts = {name: value for name, value in vars(self).items() if name != "sources"}
        return {**facts, "errors": as_objects(self.errors)}


class Drawings(Protocol):
    """What draws the flagged images of a job (`reports.heatmaps.HeatmapFolder`)."""

    @property
    def path(self) -> Path:
        """The folder of the pictures."""

    def check(self, inputs: Iterable[str | Path]) -> None:
        """Refuse a folder that lies among the images."""

    def begin(self, job: Path) -> None:
        """Note in the folder of the job where the pictures go."""

    def draw(self, detector: Detector, batch: ImageBatch, rows: npt.NDArray[np.int64]) -> None:
        """Draw these images of a batch."""


def score_files(
    detector: Detector,
    inputs: str | Path | Iterable[str | Path] = (),
    output: str | Path = "scores.csv",
    *,
    listed: Iterable[str] = (),
    fpr: float = DEFAULT_FPR,
    jobs: int | None = None,
    batch_size: int | None = None,
    heatmaps: Drawings | None = None,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score images into the table `output` (`.csv`, `.parquet` or `.jsonl`), one row per readable image.

    The columns are `path, score, p_value, anomaly` and the detector's terms; the rows are in sorted path order, those
    of a container in its own order, under its path and their name or number in it. Unreadable inputs are rows of
    `<output>.errors.csv` instead, which exists only if there are any. Memory grows by the names of the files only.

    The work is done in shards, kept in the folder `<output>.job` until the table is whole. A job that was interrupted
    at whatever moment goes on where it stopped when it is started again, and the table has the same bytes.

    Parameters
    ----------
    detector : Detector
        Any engine.
    inputs : paths
        Image files, folders of them, globs; `.npy`, `.npz` and IDX files of images; tar archives of image files;
        Parquet files with a column of them; names of data sets, of which the test images are scored.
    output : path
        The table; a previous one of scores is replaced once the new one is whole.
    listed : paths
        More image files. Here a missing one is an unreadable input, in `inputs` it is an error.
    fpr : float
        Flag where `p_value <= fpr`, in (0, 1).
    jobs : int or None
        Decoding threads; None chooses by the machine.
    batch_size : int or None
        Images inspected at a time; the scores do not depend on it. None takes 256, fewer of large images.
    heatmaps : HeatmapFolder or None
        Where each flagged image is drawn beside its restoration and heatmap.
    progress : callable or None
        Called with images done, images in all, a line of text.

    Raises
    ------
    UsageError
        `fpr` or the suffix of `output` cannot work, what is there is no table of scores, heatmaps are asked of a model
        of vectors, `output` is one of the inputs, or these name no image or none that the model takes.
    VaeguardError
        The detector gives no number for an image, the table cannot be written, or another job is writing it.
    """
    started = time.perf_counter()
    check_fpr(fpr)
    check_table_path(output)
    pictures = detector.info.view.pictures
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if heatmaps:
        if not pictures:
            raise UsageError("`heatmaps` are pictures, and the model takes vectors; leave them out")
        heatmaps.check(inputs)
    sources = find_sources(inputs, listed, vectors=not pictures)
    check_apart(output, (source.path for source in sources))
    _check_replaced(Path(output))
    values = math.prod(detector.info.image_shape)
    batch_size = batch_size or max(16, min(DEFAULT_BATCH_SIZE, BATCH_VALUES // values))
    with open_job(output, SHARD_FACTS, keep=bool(heatmaps)) as store:
        if heatmaps:
            heatmaps.begin(store.folder)
        work = _Work(detector, store, Path(output).suffix, fpr, jobs, batch_size, heatmaps)
        try:
            shards = work.run(pieces_of(sources, values), progress)
        finally:
            for source in sources:
                source.close()
        errors = tuple(error for shard in shards for error in shard.errors)
        _join(shards, output, table_columns(detector.info))
        write_errors(f"{output}.errors.csv", errors)
        Path(f"{output}.watch.json").unlink(missing_ok=True)  # of a watch whose table is gone
    return ScoreSummary(
        images=sum(shard.images for shard in shards),
        anomalies=sum(shard.anomalies for shard in shards),
        errors=errors,
        seconds=time.perf_counter() - started,
        output=str(output),
        fpr=fpr,
        resumed=work.resumed,
        note=fpr_note(detector.info.calibrated_on, fpr),
        sources=tuple(sources),
    )


def _join(shards: Sequence[_Shard], output: str | Path, columns: Sequence[str]) -> None:
    """Write the table of all shards."""
    with open_table(output, columns) as table:
        for shard in shards:
            table.append_table(shard.table, shard.images)


def _check_replaced(output: Path) -> None:
    if output.exists() and Path(f"{output}.watch.json").exists():
        raise UsageError(f"{str(output)!r} is the table of a watch; go on with that watch, or choose another table")
    begin = list(FIRST_COLUMNS)
    known = {*begin, *TERMS}.__contains__
    check_replaced(output, "a batch of scores", lambda columns: columns[: len(begin)] == begin, known)


@dataclass(frozen=True)
class _Shard:
    """A finished shard: its table, and what the manifest says of it."""

    table: Path
    images: int
    anomalies: int
    errors: list[tuple[str, str]]


@dataclass
class _Work:
    """Makes the shards of a job, or finds them where an interrupted one left them."""

    detector: Detector
    store: Store
    suffix: str
    fpr: float
    jobs: int | None
    batch_size: int
    heatmaps: Drawings | None
    resumed: int = 0

    def run(self, pieces: Sequence[Piece], progress: Progress | None) -> list[_Shard]:
        """The shards of `pieces`, in order."""
        columns = table_columns(self.detector.info)
        settings = json.dumps(
            [SHARD_FORMAT, self.detector.fingerprint, self.fpr, columns, str(self.heatmaps and self.heatmaps.path)]
        )
        keys = [piece.key(settings) for piece in pieces]
        shards = {key: shard for key in keys if (shard := self._finished(key))}
        missing = [(piece, key) for piece, key in zip(pieces, keys, strict=True) if key not in shards]
        total = sum(piece.count for piece in pieces)
        done = total - sum(piece.count for piece, _ in missing)
        self.resumed = sum(shards[key].images for key in keys if key in shards)
        # A thread reads ahead over the borders of shards, so that the engine never waits at one.
        parallel = self.detector.parallel
        batches = ahead(self._batches(missing), parallel + 1)
        inspected = map_ahead(self._inspected, batches, jobs=parallel, ahead=parallel + 1)
        for piece, key in missing:
            shards[key] = self._shard(piece, key, inspected, partial(_report, progress, done, total))
            done += piece.count
        return [shards[key] for key in keys]

    def _finished(self, key: str) -> _Shard | None:
        """The shard `key` that an earlier run finished, if there is one."""
        manifest = self.store.get(key)
        if manifest is None:
            return None
        shard = _Shard(self._table(key), manifest["images"], manifest["anomalies"], [*map(tuple, manifest["errors"])])
        # Where the folder of heatmaps is gone, they are drawn again.
        drawn = self.heatmaps is None or self.heatmaps.path.is_dir() or not shard.anomalies
        return shard if drawn else None

    def _table(self, key: str) -> Path:
        return self.store.folder / f"{key}{self.suffix}"

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

    def _inspected(self, batch: ImageBatch) -> tuple[ImageBatch, Inspection]:
        return batch, self.detector.inspect(batch.images)

    def _shard(
        self,
        piece: Piece,
        key: str,
        inspected: Iterator[tuple[ImageBatch, Inspection]],
        report: Callable[[int], None],
    ) -> _Shard:
        errors: list[tuple[str, str]] = []
        anomalies = 0
        path = self._table(key)
        with self.store.put(key) as part:
            with open_table(part.file(path.name), table_columns(self.detector.info)) as table:
                while table.rows + len(errors) < piece.count:
                    batch, inspection = next(inspected)
                    errors += batch.errors
                    columns = score_columns(batch.paths, inspection, self.fpr)
                    anomalies += int(np.count_nonzero(columns["anomaly"]))
                    if self.heatmaps:
                        self.heatmaps.draw(self.detector, batch, np.flatnonzero(columns["anomaly"]))
                    table.write(columns)
                    report(table.rows + len(errors))
            facts = {"images": table.rows, "anomalies": anomalies, "errors": errors}
            part.finish({"written": part.digests(), **facts})
        return _Shard(path, table.rows, anomalies, errors)


def score_set(
    detector: Detector,
    images: ImageSet | npt.ArrayLike,
    batch_size: int = DEFAULT_BATCH_SIZE,
    *,
    heatmaps: bool = False,
    progress: Progress | None = None,
) -> Inspection:
    """Inspect every image of a set in memory, batch by batch: scores and terms, and the heatmaps if asked for.

    Float pixels of an array are taken in 256 steps, as those of files are.

    Raises
    ------
    UsageError
        The set has no images.
    RefusedError
        As `vaeguard.from_array`, for an array.
    VaeguardError
        The detector gives no number for an image.
    """
    image_set = as_image_set(images)
    total = len(image_set.images)
    if not total:
        raise UsageError(f"data {image_set.name!r} has no images; give a set with at least one")
    parts = []
    for start in range(0, total, batch_size):
        stop = min(start + batch_size, total)
        found = detector.inspect(image_set.images[start:stop], pictures=heatmaps)
        parts.append(replace(found, restored=None))
        _check_numbers(parts[-1], image_set.paths[start:stop])
        _report(progress, 0, total, stop)
    return concatenate(parts)


def table_columns(info: DetectorInfo) -> tuple[str, ...]:
    """Name the columns of `scores.csv`, in order."""
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
    _check_numbers(inspection, paths)
    return {
        "path": paths,
        "score": inspection.score,
        "p_value": inspection.p_value,
        "anomaly": flag(inspection.p_value, fpr),
        **inspection.terms,
    }


def _report(progress: Progress | None, before: int, total: int, count: int) -> None:
    done = before + count
    if progress:
        progress(done, total, f"{done:,} of {total:,} images")


def _check_numbers(inspection: Inspection, paths: Sequence[str]) -> None:
    bad = np.isnan(inspection.score) | np.isnan(inspection.p_value)
    if bad.any():
        first = paths[int(bad.argmax())]
        raise VaeguardError(
            f"the model gives no number as the score of {first!r}: its weights or calibration are broken; fit it anew"
        )

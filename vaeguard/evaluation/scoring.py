"""Score image files into a table, or images in memory into an inspection, whichever engine runs below."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from vaeguard.data.image_set import as_image_set
from vaeguard.data.inputs import find_sources
from vaeguard.data.source import originals, pick, pieces_of, read
from vaeguard.data.streams import ahead, chunks, fewer_if_large, map_ahead
from vaeguard.engines.inspection import concatenate
from vaeguard.errors import UsageError, VaeguardError, as_objects
from vaeguard.models.terms import TERMS
from vaeguard.settings.evaluation import DEFAULT_FPR, check_fpr
from vaeguard.statistics.false_alarms import flag, fpr_note
from vaeguard.statistics.spots import Spot
from vaeguard.storage.files import check_apart, digest_of, valid_text
from vaeguard.storage.places import as_urls
from vaeguard.storage.provenance import PACKAGES, installed
from vaeguard.storage.store import Store, hidden_part, open_job
from vaeguard.storage.tables import (
    check_errors,
    check_replaced,
    check_table_path,
    columns_of,
    open_table,
    table_chunks,
    write_errors,
)
from vaeguard.wording import brief

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.data.source import Original, Piece, Source
    from vaeguard.data.streams import ImageBatch
    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import DetectorInfo, Inspection
    from vaeguard.evaluation.drift import Drift
    from vaeguard.progress import Progress
    from vaeguard.storage.store import Part

DEFAULT_BATCH_SIZE = 256
BATCH_VALUES = 2**21
"""The most values in a batch, so that a batch of large images has fewer of them."""
FIRST_COLUMNS = ("path", "score", "p_value", "anomaly")
SPOT_COLUMNS = ("path", *(item.name for item in fields(Spot)), "spots")
DRAWN = 256
"""Flagged images that are drawn together: a kill costs at most so many pictures."""
HELD = 2**26
"""The most bytes of images that are held in memory to be inspected with pictures."""
SHARD_FORMAT = 4
"""Raised when the same settings give other rows than before."""
SHARD_FACTS = ("fpr", "images", "anomalies", "errors")
"""Keys of the manifest of a shard, and of a table, which is the shard of all images."""
WATCH_FACTS = ("model", "fpr", "drift_chance")
"""Keys of the settings of a watch, which lie beside its table in `<output>.watch.json`."""


@dataclass(frozen=True)
class ScoreSummary:
    """What one run of `score_files` did.

    Attributes
    ----------
    images : int
        Number of images that could be read: the rows of the table.
    anomalies : int
        Number of images flagged, `p_value <= fpr`.
    errors : tuple of (path, reason)
        Inputs that could not be read; also in `<output>.errors.csv`.
    seconds : float
        Wall time.
    output : str
        The table.
    fpr : float
        The stated false-alarm rate.
    resumed : int
        Number of images whose rows an earlier or interrupted job had finished.
    note : str or None
        Why nothing can be flagged at this rate; None if something can.
    flagged : tuple of (path, p-value)
        Of a round of `watch_files`: the images that are flagged.
    spots : str or None
        With `heatmaps`, the table of the spots of the flagged images, see `Detector.spots`.
    drift : tuple of Drift
        Of a round of `watch_files`: what changed in the stream of images.
    left_out : str or None
        One sentence on files beside the images that look like images and are not read.
    sources : tuple of Source
        The sources that were read, closed; the report takes its images from them.
    """

    images: int
    anomalies: int
    errors: tuple[tuple[str, str], ...]
    seconds: float
    output: str
    fpr: float
    resumed: int = 0
    note: str | None = None
    flagged: tuple[tuple[str, float], ...] = field(default=(), repr=False)
    spots: str | None = None
    drift: tuple[Drift, ...] = field(default=(), repr=False)
    left_out: str | None = None
    sources: tuple[Source, ...] = field(default=(), repr=False)

    __repr__ = brief

    def to_dict(self) -> dict[str, object]:
        """Return the summary as plain values that JSON can hold."""
        facts = {name: value for name, value in vars(self).items() if name not in ("flagged", "drift", "sources")}
        return {**facts, "errors": as_objects(self.errors)}


class Drawings(Protocol):
    """What draws the flagged images of a job (`reports.heatmaps.HeatmapFolder`)."""

    @property
    def path(self) -> Path:
        """The folder of the pictures."""

    def check(self, inputs: Iterable[str | Path]) -> None:
        """Refuse a folder that lies among the images."""

    def begin(self, job: Path) -> None:
        """Write into the job's folder where the pictures are."""

    def draw(self, info: DetectorInfo, original: Original, inspection: Inspection, spots: Sequence[Spot]) -> None:
        """Draw one image, of which this is the inspection, with pictures."""


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
    observe: Callable[[ImageBatch], None] | None = None,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score images into the table `output` (`.csv`, `.parquet` or `.jsonl`), one row per readable image.

    The columns are `path, score, p_value, anomaly` and the detector's terms. The rows are in sorted path order. Images
    of a container keep the container's order; their path is that of the container and their name or number in it.
    Unreadable inputs are rows of `<output>.errors.csv`, which exists only if there are any. Memory grows only by the
    names of the files.

    The work is done in shards, which stay in the folder `<output>.job` until the table is whole. An interrupted job
    continues where it stopped when it is started again, and the table has the same bytes. A finished table of the same
    images, model and versions is only flagged anew: images are read again for heatmaps alone.

    Parameters
    ----------
    detector : Detector
        Any engine.
    inputs : paths
        Image files, folders of them, globs; `.npy`, `.npz` and IDX files of images; tar archives of image files;
        Parquet files with a column of images; names of data sets, whose test images are scored.
    output : path
        The table; an earlier table of scores is replaced once the new one is whole.
    listed : paths
        More image files. A missing file is an unreadable input here, but an error in `inputs`.
    fpr : float
        Flag where `p_value <= fpr`, in (0, 1).
    jobs : int or None
        Decoding threads; None chooses by the machine.
    batch_size : int or None
        Number of images inspected at a time; the scores do not depend on it. None takes 256, or fewer large images.
    heatmaps : HeatmapFolder or None
        The folder in which each flagged image is drawn beside its restoration and heatmap, and by itself with its heat
        and its spots. These are also listed in a table beside `output`, see `spots_table`.
    observe : callable or None
        Called with each batch of images that is scored, but not with those that an earlier job finished.
    progress : callable or None
        Called with the number of images done, the number of all images, and a line of text.

    Raises
    ------
    UsageError
        `fpr` is out of range, `output` has an unknown suffix, is an input or holds something else than scores,
        `heatmaps` is set for a model of vectors, or the inputs hold no image that the model takes.
    VaeguardError
        The detector gives no number for an image, the table cannot be written, or another job is writing it.
    """
    started = time.perf_counter()
    check_fpr(fpr)
    check_table_path(output)
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if heatmaps:
        _check_heatmaps(heatmaps, inputs, output, detector.info)
    sources = find_sources(inputs, listed, vectors=not detector.info.view.pictures)
    check_apart(as_urls(str(output)), (source.path for source in sources))
    _check_replaced(Path(output))
    check_errors(f"{output}.errors.csv")
    values = math.prod(detector.info.image_shape)
    batch_size = batch_size or max(detector.least, min(DEFAULT_BATCH_SIZE, BATCH_VALUES // values))
    flagged = f"flagged{Path(output).suffix}"  # by another rate than in the finished table
    with open_job(output, SHARD_FACTS, keep=bool(heatmaps), files=(flagged,)) as store:
        if heatmaps:
            heatmaps.begin(store.folder)
        work = _Work(detector, store, Path(output), fpr, jobs, batch_size, heatmaps, observe)
        with contextlib.ExitStack() as stack:
            for source in sources:
                stack.callback(source.close)
            whole = work.run(sources, progress)
        _update_beside(Path(output), whole.errors, drawn=bool(heatmaps))
    return ScoreSummary(
        images=whole.images,
        anomalies=whole.anomalies,
        errors=tuple(whole.errors),
        seconds=time.perf_counter() - started,
        output=str(output),
        fpr=fpr,
        resumed=work.resumed,
        note=fpr_note(detector.info.calibrated_on, fpr),
        spots=str(spots_table(output)) if heatmaps else None,
        left_out=sources[0].left_out,
        sources=tuple(sources),
    )


def _check_heatmaps(heatmaps: Drawings, inputs: Sequence[str | Path], output: str | Path, info: DetectorInfo) -> None:
    if not info.view.pictures:
        raise UsageError("`heatmaps` are pictures, and the model takes vectors; leave them out")
    heatmaps.check(inputs)
    check_spots(output)


def _update_beside(output: Path, errors: Sequence[tuple[str, str]], *, drawn: bool) -> None:
    """List the errors beside a new table, and remove what belonged to the table before it."""
    spots = spots_table(output)
    if not drawn and columns_of(spots) == [*SPOT_COLUMNS]:
        spots.unlink()
    write_errors(f"{output}.errors.csv", errors)
    # The settings of a watch are void once its table is gone.
    if (watch := watch_of(output)).record:
        watch.remove()


def spots_table(output: str | Path) -> Path:
    """Where the spots of the table `output` are listed: `scores.csv` has `spots.csv`, and `a.csv` has `a.spots.csv`."""
    output = Path(output)
    stem = output.stem.replace("scores", "spots") if "scores" in output.stem else f"{output.stem}.spots"
    return output.with_name(stem + output.suffix)


def check_spots(output: str | Path) -> None:
    """Refuse to write spots where something else lies.

    Raises
    ------
    UsageError
        The file is no table of spots, or a folder.
    """
    known = {*SPOT_COLUMNS}.__contains__
    check_replaced(spots_table(output), "spots", lambda columns: columns == [*SPOT_COLUMNS], known)


def watch_of(output: Path) -> Part:
    """The settings of the watch that writes `output`, if there is one."""
    return Store(output.parent, WATCH_FACTS).part(f"{output.name}.watch")


def _check_replaced(output: Path) -> None:
    if output.exists() and watch_of(output).record:
        raise UsageError(f"{str(output)!r} is the table of a watch; go on with that watch, or choose another table")
    first = list(FIRST_COLUMNS)
    known = {*first, *TERMS}.__contains__
    check_replaced(output, "a batch of scores", lambda columns: columns[: len(first)] == first, known)


@dataclass(frozen=True)
class _Shard:
    """A finished shard: its table, and the facts of its manifest."""

    table: Path
    images: int
    anomalies: int
    errors: list[tuple[str, str]]

    @classmethod
    def of(cls, table: Path, manifest: Mapping[str, Any]) -> _Shard:
        """The shard whose manifest this is."""
        return cls(table, manifest["images"], manifest["anomalies"], [*map(tuple, manifest["errors"])])


@dataclass
class _Work:
    """Makes the shards of a job, except those that an interrupted job has finished, and joins them to the table."""

    detector: Detector
    store: Store
    output: Path
    fpr: float
    jobs: int | None
    batch_size: int
    heatmaps: Drawings | None
    observe: Callable[[ImageBatch], None] | None = None
    resumed: int = 0

    def run(self, sources: Sequence[Source], progress: Progress | None) -> _Shard:
        """Write the table of all images of `sources`."""
        settings = json.dumps([SHARD_FORMAT, self.detector.fingerprint, self.columns, installed(PACKAGES)])
        pieces = pieces_of(sources, math.prod(self.detector.info.image_shape))
        keys = [piece.key(settings) for piece in pieces]
        key = hashlib.sha256("".join(keys).encode()).hexdigest()
        earlier = self._finished_table(key, sources)
        shards = [self._flagged_anew(earlier)] if earlier else self._shards(pieces, keys, progress)
        if self.heatmaps:
            self._draw(self.heatmaps, key, shards, sources, progress)
        return self._joined(shards, key)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table."""
        return table_columns(self.detector.info)

    def _joined(self, shards: Sequence[_Shard], key: str) -> _Shard:
        """The table of all shards; `key` tells a later run what it was made of."""
        errors = [error for shard in shards for error in shard.errors]
        anomalies = sum(shard.anomalies for shard in shards)
        with open_table(self.output, self.columns) as table:
            for shard in shards:
                table.append_table(shard.table, shard.images)
        facts = {"fpr": self.fpr, "images": table.rows, "anomalies": anomalies, "errors": errors}
        with Store(self.output.parent).put(hidden_part(self.output).name) as part:
            part.finish({"written": {self.output.name: digest_of(self.output)}, "key": key, **facts})
        return _Shard(self.output, table.rows, anomalies, errors)

    def _finished_table(self, key: str, sources: Sequence[Source]) -> Mapping[str, Any] | None:
        """The manifest of an earlier table of the same images; None if there is none."""
        part = Store(self.output.parent, ("key", *SHARD_FACTS)).part(hidden_part(self.output).name)
        if part.record.get("key") != key or not part.whole:
            return None
        # A file that could not be read may have become readable without a change, for example by its permissions.
        unreadable = {valid_text(path) for path, _ in _Shard.of(self.output, part.record).errors}
        readable = any(batch.paths for batch in pick(sources, unreadable, self.detector.info.rule))
        return None if readable else part.record

    def _flagged_anew(self, manifest: Mapping[str, Any]) -> _Shard:
        """The shard of an earlier table, whose manifest this is, flagged by the rate of this job."""
        earlier = _Shard.of(self.output, manifest)
        self.resumed = earlier.images
        if manifest["fpr"] == self.fpr:
            return earlier
        path, anomalies = self._table("flagged"), 0
        with open_table(path, self.columns) as table:
            for columns in table_chunks(self.output, self.columns):
                values = {name: np.asarray(columns[name], np.float32) for name in self.columns if name != "path"}
                anomaly = flag(values["p_value"], self.fpr)
                table.write({**values, "path": columns["path"], "anomaly": anomaly})
                anomalies += int(np.count_nonzero(anomaly))
        return _Shard(path, earlier.images, anomalies, earlier.errors)

    def _shards(self, pieces: Sequence[Piece], keys: Sequence[str], progress: Progress | None) -> list[_Shard]:
        """The shards of `pieces`, in order."""
        shards = {key: shard for key in keys if (shard := self._finished(key))}
        missing = [(piece, key) for piece, key in zip(pieces, keys, strict=True) if key not in shards]
        total = sum(piece.count for piece in pieces)  # uncounted sources add theirs when they are read
        done = total - sum(piece.count for piece, _ in missing)
        self.resumed = sum(shards[key].images for key in keys if key in shards)
        # A thread reads ahead across shards, so that the engine never waits between two shards.
        values = self.batch_size * math.prod(self.detector.info.image_shape)
        parallel = fewer_if_large(self.detector.parallel, values)
        waiting = fewer_if_large(parallel + 1, values)
        batches = ahead(self._batches(missing), waiting)
        inspected = map_ahead(self._inspect, batches, jobs=parallel, ahead=waiting)
        for piece, key in missing:
            shards[key] = self._make_shard(piece, key, inspected, partial(_report, progress, done, total))
            done += shards[key].images + len(shards[key].errors)
        return [shards[key] for key in keys]

    def _finished(self, key: str) -> _Shard | None:
        """The shard `key` of an interrupted job."""
        manifest = self.store.get(key)
        return None if manifest is None or manifest["fpr"] != self.fpr else _Shard.of(self._table(key), manifest)

    def _table(self, key: str) -> Path:
        return self.store.folder / f"{key}{self.output.suffix}"

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

    def _make_shard(
        self,
        piece: Piece,
        key: str,
        inspected: Iterator[tuple[ImageBatch, Inspection]],
        report: Callable[[int], None],
    ) -> _Shard:
        errors: list[tuple[str, str]] = []
        anomalies, complete = 0, False
        path = self._table(key)
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
            part.finish({"written": part.digests(), **facts})
        return _Shard(path, table.rows, anomalies, errors)

    def _draw(
        self,
        drawings: Drawings,
        key: str,
        shards: Sequence[_Shard],
        sources: Sequence[Source],
        progress: Progress | None,
    ) -> None:
        """Draw what is flagged, and write the table of its spots; `key` tells what the table was made of."""
        chunked = (chunk for shard in shards for chunk in table_chunks(shard.table, ("path", "anomaly")))
        flagged = [chunk["path"][row] for chunk in chunked for row in np.flatnonzero(chunk["anomaly"])]
        images = sum(shard.images for shard in shards)
        there = drawings.path.is_dir()  # otherwise what was drawn before is gone
        with open_table(spots_table(self.output), SPOT_COLUMNS) as table:
            for number, names in enumerate(chunks(flagged, DRAWN)):
                if progress:
                    progress(images, images, f"drawing {number * DRAWN:,} of {len(flagged):,} flagged images")
                if rows := self._drawn(drawings, key, names, sources, there=there):
                    table.append_table(*rows)

    def _drawn(
        self, drawings: Drawings, key: str, names: Sequence[str], sources: Sequence[Source], *, there: bool
    ) -> tuple[Path, int] | None:
        """The table of the spots of a few flagged images and its length; None if they have none.

        The images are drawn, unless an interrupted job has done so and its pictures are `there`.
        """
        key = hashlib.sha256(json.dumps([key, str(drawings.path), names]).encode()).hexdigest()[:40]
        store, path, rule = Store(self.store.folder, ("spots",)), self._table(key), self.detector.info.rule
        assert rule is not None
        manifest = store.get(key) if there else None
        if manifest is None:
            with store.put(key) as part:
                with open_table(part.file(path.name), SPOT_COLUMNS) as table:
                    again = originals(sources, set(names), rule)
                    for original, inspection in inspect_originals(self.detector, again, self.batch_size):
                        assert inspection.heatmap is not None
                        spots, found = self.detector.info.spots(inspection.heatmap[0], original.size)
                        drawings.draw(self.detector.info, original, inspection, spots)
                        table.write(spot_columns(original.name, spots, found))
                manifest = {"written": part.digests(), "spots": table.rows}
                part.finish(manifest)
        return (path, manifest["spots"]) if manifest["spots"] else None


def inspect_originals(
    detector: Detector, images: Iterable[Original], batch_size: int = DEFAULT_BATCH_SIZE
) -> Iterator[tuple[Original, Inspection]]:
    """Inspect images, with pictures, and yield each with its inspection; few of them are in memory at a time."""
    group: list[Original] = []
    for image in images:
        group.append(image)
        if len(group) == batch_size or sum(10 * each.pixels.nbytes + each.picture.nbytes for each in group) > HELD:
            yield from _inspected(detector, group)
            group = []
    yield from _inspected(detector, group)


def _inspected(detector: Detector, group: Sequence[Original]) -> Iterator[tuple[Original, Inspection]]:
    if group:
        inspection = detector.inspect(np.stack([each.pixels for each in group]), pictures=True)
        yield from ((image, inspection[row : row + 1]) for row, image in enumerate(group))


def spot_columns(path: str, spots: Sequence[Spot], found: int) -> dict[str, Sequence[str] | npt.NDArray[Any]]:
    """The columns of the table of spots for one image, in which `found` spots were found."""
    values = {item.name: np.array([getattr(spot, item.name) for spot in spots]) for item in fields(Spot)}
    return {"path": [path] * len(spots), **values, "spots": np.full(len(spots), found)}


def score_set(
    detector: Detector,
    images: ImageSet | npt.ArrayLike,
    batch_size: int = DEFAULT_BATCH_SIZE,
    *,
    heatmaps: bool = False,
    progress: Progress | None = None,
) -> Inspection:
    """Inspect every image of a set in memory, batch by batch: scores and terms, and with `heatmaps` also these.

    Float pixels of an array are rounded to the 256 levels that files have.

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
        inspection = detector.inspect(image_set.images[start:stop], pictures=heatmaps)
        parts.append(replace(inspection, restored=None))
        _check_numbers(parts[-1], image_set.paths[start:stop])
        _report(progress, 0, total, stop)
    return concatenate(parts)


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
        progress(done, max(done, total), f"{done:,} of {max(done, total):,} images")


def _check_numbers(inspection: Inspection, paths: Sequence[str]) -> None:
    bad = np.isnan(inspection.score) | np.isnan(inspection.p_value)
    if bad.any():
        first = paths[int(bad.argmax())]
        raise VaeguardError(
            f"the model gives no number as the score of {first!r}: its weights or calibration are broken; fit it anew"
        )

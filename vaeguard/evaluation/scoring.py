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
from vaeguard.data.source import originals, pick
from vaeguard.data.streams import chunks
from vaeguard.engines.inspection import concatenate
from vaeguard.errors import UsageError, as_objects
from vaeguard.evaluation.parts import (
    FIRST_COLUMNS,
    PART_FACTS,
    ScorePart,
    ScoreParts,
    check_numbers,
    finished_table,
    join_parts,
    report_images,
)
from vaeguard.models.terms import TERMS
from vaeguard.statistics.false_alarms import flag, fpr_note
from vaeguard.statistics.spots import Spot
from vaeguard.storage.files import check_apart, valid_text
from vaeguard.storage.places import as_urls
from vaeguard.storage.plan import drop_other_plan
from vaeguard.storage.store import Store, open_job
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
    from vaeguard.storage.plan import Plan
    from vaeguard.storage.store import Part

DEFAULT_BATCH_SIZE = 256
BATCH_VALUES = 2**21
"""The most values in a batch, so that a batch of large images has fewer of them."""
SPOT_COLUMNS = ("path", *(item.name for item in fields(Spot)), "spots")
DRAWN = 256
"""Flagged images that are drawn together: a kill costs at most so many pictures."""
HELD = 2**26
"""The most bytes of images that are held in memory to be inspected with pictures."""
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
        Why no image can be flagged at this rate; None if some can.
    flagged : tuple of (path, p-value)
        After a round of `watch_files`: the images of this round that are flagged.
    spots : str or None
        With `heatmaps`, the table of the spots of the flagged images, see `Detector.spots`.
    drift : tuple of Drift
        After a round of `watch_files`: what changed in the stream of images.
    left_out : str or None
        One sentence on files beside the images that look like images and are not read.
    sources : tuple of Source
        The sources that were read, which are closed now; the report takes its images from them.
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


class Spread(Protocol):
    """What has other processes make the parts of a job (`vaeguard.cluster`).

    Attributes
    ----------
    facts : dict
        What else stands in the plan of the job, for `gather_scores`.
    """

    facts: Mapping[str, Any]

    def __call__(
        self, parts: ScoreParts, missing: Sequence[tuple[Piece, str]], report: Callable[[int], None]
    ) -> Iterable[tuple[str, ScorePart]]:
        """Have the parts of the missing pieces made, each under its key, and yield them in any order.

        `report` is called with the number of images that are done.
        """


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
    fpr: float | None = None,
    jobs: int | None = None,
    batch_size: int | None = None,
    heatmaps: Drawings | None = None,
    observe: Callable[[ImageBatch], None] | None = None,
    spread: Spread | None = None,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Score images into the table `output` (`.csv`, `.parquet` or `.jsonl`), one row per readable image.

    The columns are `path, score, p_value, anomaly` and the detector's terms. The rows are in sorted path order. Images
    of a container (an archive or array file) keep its order; their path is that of the container, followed by their
    name or number in it. Unreadable inputs are rows of `<output>.errors.csv`, which exists only if there are any.
    Memory use grows only with the names of the files.

    Finished parts stay in the folder `<output>.job` until the table is complete. The same call continues an interrupted
    job, and the table has the same bytes. If a finished table of the same images, model and versions exists, the images
    are only flagged again; they are read again only for heatmaps.

    Parameters
    ----------
    detector : Detector
        Any engine.
    inputs : paths
        Image files, folders of them, globs; `.npy`, `.npz` and IDX files of images; tar archives of image files;
        Parquet files with a column of images; names of data sets, whose test images are scored.
    output : path
        The table; an earlier table of scores is replaced once the new one is complete.
    listed : paths
        More image files. A missing file is listed as unreadable if it is in `listed`, but is an error if it is in
        `inputs`.
    fpr : float or None
        The false-alarm rate, in (0, 1): images with `p_value <= fpr` are flagged. None takes the rate of the export,
        else 0.05.
    jobs : int or None
        Number of decoding threads; None depends on the machine.
    batch_size : int or None
        Number of images inspected at a time; the scores do not depend on it. None takes 256, or fewer large images.
    heatmaps : HeatmapFolder or None
        The folder for two pictures of each flagged image: one next to its restoration and heatmap, and one with its
        heatmap and spots drawn on it. The spots are also listed in a table next to `output`, see `spots_table`.
    observe : callable or None
        Called with each batch of images that is scored, but not with those that an earlier job finished.
    spread : Spread or None
        Lets other processes make the parts of the table; `observe` is then not called.
    progress : callable or None
        Called with the number of images done, the number of all images, and a line of text.

    Raises
    ------
    UsageError
        `fpr` is out of range, `output` has an unknown suffix, is an input or contains something other than scores,
        `heatmaps` is set for a model of vectors, or the inputs contain no image that the model takes.
    VaeguardError
        The detector gives no number for an image, the table cannot be written, or another job is writing it.
    """
    started, fpr = time.perf_counter(), detector.info.rate(fpr)
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if heatmaps:
        _check_heatmaps(heatmaps, inputs, output, detector.info)
    sources = open_sources(detector, inputs, output, listed)
    batch_size = batch_size or batch_size_for(detector)
    flagged = f"flagged{Path(output).suffix}"  # by another rate than in the finished table
    with open_job(output, PART_FACTS, keep=bool(heatmaps), files=(flagged,)) as store:
        if heatmaps:
            heatmaps.begin(store.folder)
        parts = ScoreParts(detector, store, Path(output).suffix, fpr, jobs, batch_size, observe)
        work = _Work(parts, Path(output), heatmaps, spread)
        with contextlib.ExitStack() as stack:
            for source in sources:
                stack.callback(source.close)
            whole = work.run(sources, progress)
        update_beside(Path(output), whole.errors, drawn=bool(heatmaps))
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


def open_sources(
    detector: Detector, inputs: Iterable[str | Path], output: str | Path, listed: Iterable[str]
) -> list[Source]:
    """The sources of a table, after all checks that need no work; the parameters are those of `score_files`.

    Raises
    ------
    UsageError
        As by `score_files`.
    """
    check_table_path(output)
    looks = bool(detector.info.record.model.regions)
    sources = find_sources(inputs, listed, vectors=not detector.info.view.pictures, looks=looks)
    check_apart(as_urls(str(output)), (source.path for source in sources))
    check_output(Path(output))
    return sources


def batch_size_for(detector: Detector) -> int:
    """The number of images that a detector inspects at a time: fewer if they are large."""
    values = math.prod(detector.info.image_shape)
    return max(detector.least, min(DEFAULT_BATCH_SIZE, BATCH_VALUES // values))


def _check_heatmaps(heatmaps: Drawings, inputs: Sequence[str | Path], output: str | Path, info: DetectorInfo) -> None:
    if not info.view.pictures:
        raise UsageError("`heatmaps` are pictures, but the model takes vectors; remove `heatmaps`")
    heatmaps.check(inputs)
    check_spots(output)


def update_beside(output: Path, errors: Sequence[tuple[str, str]], *, drawn: bool) -> None:
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


def check_output(output: Path) -> None:
    """Refuse to write a table of scores, or the list of its errors, where something else lies.

    Raises
    ------
    UsageError
        The table is that of a watch, or holds something else than scores; or the list is none.
    """
    if output.exists() and watch_of(output).record:
        raise UsageError(
            f"{str(output)!r} was written by `vaeguard watch`; continue that watch, or choose a different table"
        )
    first = list(FIRST_COLUMNS)
    known = {*first, *TERMS}.__contains__
    check_replaced(output, "scores", lambda columns: columns[: len(first)] == first, known)
    check_errors(f"{output}.errors.csv")


@dataclass
class _Work:
    """Makes the parts of a job, except those that an interrupted job has finished, and joins them to the table."""

    parts: ScoreParts
    output: Path
    heatmaps: Drawings | None
    spread: Spread | None
    resumed: int = 0

    def run(self, sources: Sequence[Source], progress: Progress | None) -> ScorePart:
        """Write the table of all images of `sources`."""
        facts = self.spread.facts if self.spread else {}
        plan, pieces = self.parts.plan(sources, {**facts, "left_out": sources[0].left_out})
        drop_other_plan(self.parts.store, plan)
        earlier = finished_table(self.output, plan.key)
        if earlier and not self._readable(earlier, sources):
            parts = [self._flagged_anew(earlier)]
        else:
            if self.spread:
                plan.enter(self.parts.store)
            parts = self._parts(plan, pieces, progress)
        if self.heatmaps:
            self._draw(self.heatmaps, plan.key, parts, sources, progress)
        return join_parts(self.output, self.parts.columns, parts, plan.key, self.parts.fpr)

    def _readable(self, earlier: Mapping[str, Any], sources: Sequence[Source]) -> bool:
        """Whether a file that could not be read has become readable without a change, such as by its permissions."""
        unreadable = {valid_text(path) for path, _ in earlier["errors"]}
        return any(batch.paths for batch in pick(sources, unreadable, self.parts.detector.info.rule))

    def _flagged_anew(self, manifest: Mapping[str, Any]) -> ScorePart:
        """The part of an earlier table, whose manifest this is, flagged by the rate of this job."""
        earlier = ScorePart.of(self.output, manifest)
        self.resumed = earlier.images
        if manifest["fpr"] == self.parts.fpr:
            return earlier
        path, anomalies = self.parts.table("flagged"), 0
        with open_table(path, self.parts.columns) as table:
            for columns in table_chunks(self.output, self.parts.columns):
                values = {name: np.asarray(columns[name], np.float32) for name in self.parts.columns if name != "path"}
                anomaly = flag(values["p_value"], self.parts.fpr)
                table.write({**values, "path": columns["path"], "anomaly": anomaly})
                anomalies += int(np.count_nonzero(anomaly))
        return ScorePart(path, earlier.images, anomalies, earlier.errors)

    def _parts(self, plan: Plan, pieces: Sequence[Piece], progress: Progress | None) -> list[ScorePart]:
        """The parts of `pieces`, in order."""
        keys = [piece.key for piece in plan.pieces]
        parts = {key: part for key in keys if (part := self.parts.finished(key))}
        missing = [(piece, key) for piece, key in zip(pieces, keys, strict=True) if key not in parts]
        done = plan.count - sum(piece.count for piece, _ in missing)
        self.resumed = sum(parts[key].images for key in keys if key in parts)
        report = partial(report_images, progress, done, plan.count)
        if missing:
            make = partial(self.spread, self.parts) if self.spread else self.parts.make
            parts.update(make(missing, report))
        return [parts[key] for key in keys]

    def _draw(
        self,
        drawings: Drawings,
        key: str,
        parts: Sequence[ScorePart],
        sources: Sequence[Source],
        progress: Progress | None,
    ) -> None:
        """Draw what is flagged, and write the table of its spots; `key` tells what the table was made of."""
        chunked = (chunk for part in parts for chunk in table_chunks(part.table, ("path", "anomaly")))
        flagged = [chunk["path"][row] for chunk in chunked for row in np.flatnonzero(chunk["anomaly"])]
        images = sum(part.images for part in parts)
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
        store, path = Store(self.parts.store.folder, ("spots",)), self.parts.table(key)
        detector = self.parts.detector
        rule = detector.info.rule
        assert rule is not None
        manifest = store.get(key) if there else None
        if manifest is None:
            with store.put(key) as part:
                with open_table(part.file(path.name), SPOT_COLUMNS) as table:
                    again = originals(sources, set(names), rule)
                    for original, inspection in inspect_originals(detector, again, self.parts.batch_size):
                        assert inspection.heatmap is not None
                        spots, found = detector.info.spots(inspection.heatmap[0], original.size)
                        drawings.draw(detector.info, original, inspection, spots)
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
    """Inspect every image of a set in memory, batch by batch: scores and terms, and optionally heatmaps.

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
        raise UsageError(f"data {image_set.name!r} has no images; use a set with at least one")
    parts = []
    for start in range(0, total, batch_size):
        stop = min(start + batch_size, total)
        inspection = detector.inspect(image_set.images[start:stop], pictures=heatmaps)
        parts.append(replace(inspection, restored=None))
        check_numbers(parts[-1], image_set.paths[start:stop])
        report_images(progress, 0, total, stop)
    return concatenate(parts)

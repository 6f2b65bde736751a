"""Join the parts that several processes scored: into one table, or for large jobs into a folder of Parquet files."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import UsageError, VaeguardError
from vaeguard.evaluation.parts import FIRST_COLUMNS, PART_FACTS, ScorePart, finished_part, finished_table, join_parts
from vaeguard.evaluation.scoring import ScoreSummary, check_output, update_beside
from vaeguard.storage.files import sweep, write_text
from vaeguard.storage.plan import read_plan
from vaeguard.storage.store import Store, hidden_part, is_job, job_folder, open_job
from vaeguard.storage.tables import PARTS, check_errors, columns_of, open_table, table_chunks, write_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaeguard.progress import Progress
    from vaeguard.storage.plan import Plan

MANIFEST = "_vaeguard.json"
"""The file of a folder of parts that is written last; readers of such folders pass over names with this beginning."""


@dataclass(frozen=True)
class Gathered:
    """A table that was joined.

    Attributes
    ----------
    summary : ScoreSummary
        As `score_files` returns it.
    facts : dict
        The facts of the plan: the model and the images, for a report; empty if the table was finished before.
    processors : tuple of str
        The kinds of processors on which the parts were made; between them, last digits may differ.
    """

    summary: ScoreSummary
    facts: dict[str, Any]
    processors: tuple[str, ...] = ()


def output_of(place: str | Path) -> Path:
    """What the job makes whose output or folder is `place`."""
    path = Path(place)
    return path.with_name(path.name.removesuffix(".job")) if path.name.endswith(".job") and is_job(path) else path


def gather_scores(place: str | Path, folder: str | Path | None = None, *, progress: Progress | None = None) -> Gathered:
    """Join the parts of a job when all of them are finished; neither the model nor the images are read.

    The table has the bytes that `score_files` writes, with `<output>.errors.csv` beside it. The parts are removed.

    Parameters
    ----------
    place : path
        The output of the job, or the folder `<output>.job`.
    folder : path or None
        A new folder for one Parquet file a part, instead of the table; only one part is in memory at a time.
    progress : callable or None
        Called with the number of parts done, the number of all parts, and a line of text.

    Raises
    ------
    UsageError
        There is no such job, or `folder` holds other files.
    VaeguardError
        Parts are missing, or a process still writes them.
    """
    started = time.perf_counter()
    output = output_of(place)
    store = Store(job_folder(output), PART_FACTS)
    plan = read_plan(store)
    if plan is None or plan.kind != "scores":
        return Gathered(_finished_before(output, place), {})
    if not folder and finished_table(
        output, plan.key, _fpr(plan)
    ):  # it was joined, and the removal of the parts killed
        with open_job(output, PART_FACTS):
            pass
        return Gathered(_finished_before(output, place), {})
    target = Path(folder) if folder else output
    check_parts_folder(target) if folder else check_output(output)
    parts = _all_parts(plan, store, output)
    processors = sorted({str(store.part(piece.key).record.get("processor")) for piece in plan.pieces})
    with open_job(output, PART_FACTS, keep=True):
        if folder:
            whole = _write_folder(target, plan, parts, progress)
        else:
            whole = join_parts(output, plan.facts["columns"], parts, plan.key, _fpr(plan))
            update_beside(output, whole.errors, drawn=False)
    summary = _summary(target, plan, whole, time.perf_counter() - started)
    return Gathered(summary, dict(plan.facts), tuple(processors))


def _fpr(plan: Plan) -> float:
    return float(plan.settings["false-alarm rate"])


def _all_parts(plan: Plan, store: Store, output: Path) -> list[ScorePart]:
    found = {piece.key: finished_part(store, piece.key, output.suffix, _fpr(plan)) for piece in plan.pieces}
    if missing := plan.missing({key for key, part in found.items() if part}):
        raise VaeguardError(
            f"{str(output)!r} is not complete: {missing}; run the command that started the job again, with `piece`"
            " for each unfinished share, or without `piece`"
        )
    return [part for part in found.values() if part]


def _summary(target: Path, plan: Plan, whole: ScorePart, seconds: float) -> ScoreSummary:
    return ScoreSummary(
        images=whole.images,
        anomalies=whole.anomalies,
        errors=tuple(whole.errors),
        seconds=seconds,
        output=str(target),
        fpr=_fpr(plan),
        resumed=whole.images,
        note=plan.facts.get("note"),
        left_out=plan.facts.get("left_out"),
    )


def _finished_before(output: Path, place: str | Path) -> ScoreSummary:
    """The summary of a table that was gathered before, since a scheduler may start the same command again."""
    part = Store(output.parent, ("key", *PART_FACTS)).part(hidden_part(output).name)
    if not part.whole:
        unplanned = is_job(job_folder(output))
        raise UsageError(
            (
                f"the job of {str(output)!r} was started without `piece`; to continue, run the command that started"
                " this job"
            )
            if unplanned
            else (
                f"there are no parts to combine at {str(place)!r}; give the output of the commands that were run with"
                " `piece`"
            )
        )
    whole = ScorePart.of(output, part.record)
    return ScoreSummary(
        whole.images, whole.anomalies, tuple(whole.errors), 0.0, str(output), part.record["fpr"], whole.images
    )


def check_parts_folder(folder: Path) -> None:
    """Refuse a folder for parts that holds other files.

    Raises
    ------
    UsageError
        It is a file, or holds other files.
    """
    if folder.is_dir():
        sweep(folder)
        whole = (folder / MANIFEST).exists()
        if any(path.name != MANIFEST and not _is_part(path, whole) for path in folder.iterdir()):
            raise UsageError(f"{str(folder)!r} contains other files; choose a new folder")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{str(folder)!r} is a file, but a table in parts needs a folder; choose a new folder")
    check_errors(f"{folder}.errors.csv")


def _is_part(path: Path, whole: bool) -> bool:
    """Whether a file is a part of a table of scores; other programs give their parts such names as well."""
    return path.match(PARTS) and (whole or columns_of(path)[: len(FIRST_COLUMNS)] == [*FIRST_COLUMNS])


def _write_folder(folder: Path, plan: Plan, parts: list[ScorePart], progress: Progress | None) -> ScorePart:
    """Write each part as a Parquet file, and at the end a manifest of all."""
    columns = plan.facts["columns"]
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"part-{number:06d}.parquet" for number in range(len(parts))]
    for path in [folder / MANIFEST, *(path for path in folder.glob(PARTS) if path.name not in set(names))]:
        path.unlink(missing_ok=True)
    for number, (name, part) in enumerate(zip(names, parts, strict=True), 1):
        with open_table(folder / name, columns) as table:
            for chunk in _chunks(part.table, columns):
                table.write(chunk)
        if progress:
            progress(number, len(parts), f"{number:,} of {len(parts):,} parts")
    errors = [error for part in parts for error in part.errors]
    whole = ScorePart(folder, sum(part.images for part in parts), sum(part.anomalies for part in parts), errors)
    write_errors(f"{folder}.errors.csv", errors)
    facts = {"images": whole.images, "anomalies": whole.anomalies, "errors": len(errors), "fpr": _fpr(plan)}
    write_text(folder / MANIFEST, json.dumps({**facts, "key": plan.key, "files": names}, indent=1))
    return whole


def _chunks(table: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a part, with numbers as they were computed."""
    for chunk in table_chunks(table, columns):
        anomaly = np.asarray(chunk["anomaly"], bool)
        numbers = {name: np.asarray(chunk[name], np.float32) for name in columns if name not in ("path", "anomaly")}
        yield {"path": chunk["path"], "anomaly": anomaly, **numbers}

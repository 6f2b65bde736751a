"""Score images as they appear in a folder."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.folders import list_images
from vaeguard.data.inputs import expanded, is_container
from vaeguard.data.source import rows_of_a_shard
from vaeguard.errors import UsageError
from vaeguard.evaluation.scoring import score_files, table_columns
from vaeguard.settings.evaluation import DEFAULT_FPR, check_fpr
from vaeguard.storage.files import size_and_time, valid_text
from vaeguard.storage.store import Store, open_job
from vaeguard.storage.tables import check_table_path, columns_of, open_table, read_table, write_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaeguard.engines.detector import Detector
    from vaeguard.evaluation.scoring import ScoreSummary

    Stamp = tuple[int, int]
    """Size and time of a file."""

POLL_SECONDS = 1.0
SETTLED_SECONDS = 1.0
"""A file counts as complete once it has not changed for so long."""
GONE = (0, 0)
"""The stamp of a file that went away between two looks."""


def watch_files(
    detector: Detector,
    inputs: Sequence[str | Path],
    output: str | Path,
    *,
    report: Callable[[ScoreSummary], None] | None = None,
    rounds: int | None = None,
    **options: Any,
) -> None:
    """Score the images of folders and globs, and then every one that appears, into one growing table.

    Rows are in the order in which images came, sorted among those that came together; whenever there are new ones, the
    table is replaced by a whole one. Containers are not watched. A file is read once it has not changed for a second;
    one that is overwritten while it is watched is scored again, in a row of its own. Many at once are scored in rounds
    of a few thousand, each of which is in the table when the next begins.
    A later watch of the same table goes on with it, if model and rate are the same, which `<output>.watch.json` tells.
    An image that could not be read is tried again when it changes.

    Parameters
    ----------
    detector : Detector
        Any engine.
    inputs : paths
        Folders, globs, files; they may be empty at first.
    output : path
        The table.
    report : callable or None
        Called after each round that scored something, with what `score_files` says of it.
    rounds : int or None
        End after so many looks, one a second; None goes on until interrupted.
    **options
        As for `score_files`.

    Raises
    ------
    UsageError
        The rate cannot work, heatmaps would lie among the images, or the table that is there was made otherwise, or by
        another model or rate.
    VaeguardError
        Another job is writing the table.
    """
    check_table_path(output)
    check_fpr(options.get("fpr", DEFAULT_FPR))
    if options.get("heatmaps"):
        options["heatmaps"].check(inputs)
    output = Path(output)
    # What an interruption loses is one round, so a round is no longer than a shard.
    most = rows_of_a_shard(math.prod(detector.info.image_shape))
    with open_job(output) as store:
        settings = _settings(detector, options)
        rows, seen, errors = _before(output, settings, table_columns(detector.info))
        known: dict[str, Stamp] = {}
        """How files were when they were read, or when they were first met again."""
        ahead_of_time: dict[str, Stamp] = {}
        part = store.folder / f"part{output.suffix}"
        for _ in count() if rounds is None else range(rounds):
            settled = _settled(inputs, ahead_of_time)
            known = {path: stamp for path, stamp in settled.items() if valid_text(path) in seen} | known
            fresh = [path for path, stamp in settled.items() if known.get(path) != stamp][:most]
            if fresh:
                known |= {path: settled[path] for path in fresh}
                summary = score_files(detector, (), part, listed=fresh, **options)
                if summary.images:
                    with Store(output.parent).put(_name(output)) as manifest:
                        manifest.finish(settings)
                    _append(output, rows, part, summary.images, detector)
                rows += summary.images
                seen.update(map(valid_text, fresh))
                for path in map(valid_text, fresh):
                    errors.pop(path, None)
                errors |= {valid_text(path): reason for path, reason in summary.errors}
                write_errors(f"{output}.errors.csv", list(errors.items()))
                if report:
                    report(replace(summary, output=str(output)))
            time.sleep(POLL_SECONDS)


def _settings(detector: Detector, options: dict[str, Any]) -> dict[str, Any]:
    # The model alone: a watch may go on on another device, or with another number of threads.
    return {"model": detector.fingerprint.split()[-1], "fpr": options.get("fpr", DEFAULT_FPR)}


def _name(output: Path) -> str:
    """The part whose manifest says what the table of a watch was made with."""
    return f"{output.name}.watch"


def _before(output: Path, settings: dict[str, Any], columns: Sequence[str]) -> tuple[int, set[str], dict[str, str]]:
    """Rows of an earlier watch's table, the images that it read, and those that it could not read, with the reasons."""
    listed = Path(f"{output}.errors.csv")
    if not output.exists():
        return 0, set(), {}
    if Store(output.parent).get(_name(output)) != settings:
        raise UsageError(
            f"{str(output)!r} is not of a watch with this model and false-alarm rate; choose another table"
        )
    if columns_of(output) != list(columns):  # rows of ours would stand under its names
        raise UsageError(f"the columns of {str(output)!r} were changed since a watch wrote it; choose another table")
    paths = list(read_table(output)["path"])
    table = read_table(listed) if listed.exists() else {"path": [], "error": []}
    errors = dict(zip(table["path"], table["error"], strict=True))
    return len(paths), set(paths) - set(errors), errors


def _settled(inputs: Sequence[str | Path], ahead_of_time: dict[str, Stamp]) -> dict[str, Stamp]:
    """The files that have not changed for a while, sorted, and how they are now.

    Where the clock of a camera is ahead of ours a file is of the future: it counts if the look before saw it as it is
    now, which `ahead_of_time` remembers.
    """
    paths: set[str] = set()
    for given in inputs:
        try:
            paths.update(list_images(expanded(str(given))))
        except UsageError:  # nothing there yet
            continue
    now = time.time_ns()
    stamps = {path: size_and_time(path) for path in sorted(paths) if not is_container(path)}
    stamps = {path: stamp for path, stamp in stamps.items() if stamp != GONE}
    future = {path: stamp for path, stamp in stamps.items() if stamp[1] > now}
    settled = {
        path: stamp
        for path, stamp in stamps.items()
        if stamp[1] <= now - int(SETTLED_SECONDS * 1e9) or (path in future and ahead_of_time.get(path) == stamp)
    }
    ahead_of_time.clear()
    ahead_of_time.update(future)
    return settled


def _append(output: Path, rows: int, part: Path, more: int, detector: Detector) -> None:
    with open_table(output, table_columns(detector.info)) as table:
        if rows:
            table.append_table(output, rows)
        table.append_table(part, more)

"""Score images as they appear in a folder."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.errors import UsageError
from vaeguard.files import size_and_time, write_text
from vaeguard.jobs import job_folder
from vaeguard.reading.containers import is_container
from vaeguard.reading.folders import list_images
from vaeguard.reading.inputs import expanded
from vaeguard.scoring import check_heatmaps, score_files, table_columns
from vaeguard.spec import DEFAULT_FPR, check_fpr
from vaeguard.tables import check_table_path, open_table, read_table, valid_text, write_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vaeguard.inspection import Detector
    from vaeguard.scoring import ScoreSummary

POLL_SECONDS = 1.0
SETTLED_SECONDS = 1.0
"""A file counts as complete once it has not changed for so long."""


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
    one that is overwritten while it is watched is scored again, in a row of its own.
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
        check_heatmaps(options["heatmaps"], inputs)
    output = Path(output)
    with job_folder(output) as folder:
        listed = _done(output, _settings(detector, options))
        rows, done, failed = len(listed), set(listed), dict[str, tuple[int, int]]()
        known: dict[str, tuple[int, int]] = {}
        """How files were when they were scored, or when they were first met again."""
        part = folder / f"part{output.suffix}"
        while rounds is None or rounds > 0:
            fresh = [
                path
                for path in _settled(inputs)
                if failed.get(path) != (now := size_and_time(path))
                and (valid_text(path) not in done or known.setdefault(path, now) != now)
            ]
            if fresh:
                known |= {path: size_and_time(path) for path in fresh}
                summary = score_files(detector, (), part, listed=fresh, **options)
                if summary.images:
                    _append(output, rows, part, summary.images, detector)
                rows += summary.images
                unread = dict(summary.errors)
                done.update(valid_text(path) for path in fresh if path not in unread)
                failed = {path: size_and_time(path) for path in (*failed, *unread) if valid_text(path) not in done}
                _list_errors(output, {**_errors(output), **unread}, done)
                if report:
                    report(replace(summary, output=str(output)))
            if rounds is not None:
                rounds -= 1
            time.sleep(POLL_SECONDS)


def _settings(detector: Detector, options: dict[str, Any]) -> str:
    # The model alone: a watch may go on with another engine, device or number of threads.
    return json.dumps({"model": detector.fingerprint.split()[-1], "fpr": options.get("fpr", DEFAULT_FPR)})


def _done(output: Path, settings: str) -> list[str]:
    """The images that the table of an earlier watch has; what it was made with stands beside it."""
    beside = Path(f"{output}.watch.json")
    if not output.exists():
        write_text(beside, settings)
        return []
    if not beside.exists() or beside.read_text(encoding="utf-8") != settings:
        raise UsageError(
            f"{str(output)!r} is not of a watch with this model and false-alarm rate; choose another table with -o"
        )
    return list(read_table(output)["path"])


def _settled(inputs: Sequence[str | Path]) -> list[str]:
    paths: set[str] = set()
    for given in inputs:
        try:
            paths.update(list_images(expanded(str(given))))
        except UsageError:  # nothing there yet
            continue
    latest = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    return sorted(path for path in paths if size_and_time(path)[1] <= latest and not is_container(path))


def _append(output: Path, rows: int, part: Path, more: int, detector: Detector) -> None:
    with open_table(output, table_columns(detector.info)) as table:
        if rows:
            table.append_table(output, rows)
        table.append_table(part, more)


def _errors(output: Path) -> dict[str, str]:
    listed = Path(f"{output}.errors.csv")
    if not listed.exists():
        return {}
    table = read_table(listed)
    return dict(zip(table["path"], table["error"], strict=True))


def _list_errors(output: Path, errors: dict[str, str], done: set[str]) -> None:
    left = [(path, reason) for path, reason in errors.items() if valid_text(path) not in done]
    write_errors(f"{output}.errors.csv", left)

"""Batch jobs that can be killed at any moment: the work is cut into shards, each written whole, and resumed.

A job on the table `scores.csv` keeps its shards in the folder `scores.csv.job` until the table is there. A shard is
called by the digest of everything that its rows depend on (the model, the settings, the images with their sizes and
times), so a resumed job takes exactly those that would come out the same, and computes the others.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from vaeguard.storage.files import digest_of, locked, sweep, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


_T = TypeVar("_T")


@dataclass(frozen=True)
class Shard:
    """What one finished shard holds: its table, and what its manifest says."""

    table: Path
    images: int
    anomalies: int
    errors: tuple[tuple[str, str], ...]


@contextlib.contextmanager
def job_folder(output: str | Path, *, keep: bool = False) -> Iterator[Path]:
    """The folder of the job that writes `output`, for this process alone; it goes when the job is done.

    If the job fails it stays as well where it holds finished shards, or with `keep`.

    Raises
    ------
    VaeguardError
        Another job is writing `output`, or the folder cannot be written.
    """
    folder = Path(f"{output}.job")
    with locked(folder, "lock", f"another job is writing {str(output)!r}"):
        done = False
        try:
            sweep(output)
            sweep(f"{output}.errors.csv")
            for left in folder.glob(".*"):
                left.unlink(missing_ok=True)
            yield folder
            done = True
        finally:
            if done or not (keep or any(folder.glob("[!.]*.json"))):  # nothing that a next try could use
                shutil.rmtree(folder, ignore_errors=True)


def read_shard(folder: Path, key: str, suffix: str) -> Shard | None:
    """The finished shard called `key`, or None."""
    table = folder / f"{key}{suffix}"
    try:
        manifest: dict[str, Any] = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        if manifest["sha256"] != digest_of(table):
            return None
        errors = tuple((path, reason) for path, reason in manifest["errors"])
        return Shard(table, manifest["images"], manifest["anomalies"], errors)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finish_shard(
    folder: Path, key: str, table: Path, images: int, anomalies: int, errors: Sequence[tuple[str, str]]
) -> Shard:
    """Write the manifest of a shard whose table is there: with it the shard is finished."""
    shard = Shard(table, images, anomalies, tuple(errors))
    manifest = {**asdict(shard), "table": table.name, "sha256": digest_of(table)}
    write_text(folder / f"{key}.json", json.dumps(manifest))
    return shard


def ahead(items: Iterator[_T], length: int) -> Iterator[_T]:
    """Take `items` in a thread of its own, at most `length` of them before they are asked for."""
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="vaeguard-ahead") as pool:
        try:
            waiting = deque(pool.submit(next, items, end) for _ in range(length))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield cast("_T", item)
        finally:
            pool.shutdown(cancel_futures=True)

"""What `score` reads, whatever it lies in: files one by one, arrays, tar archives, Parquet; row by row and in pieces.

A *source* is a run of images with a fixed order: many files, or one container. Only the names of files are kept.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.data.containers import (
    CONTAINER_ERRORS,
    Array,
    Source,
    Unreadable,
    errors_only,
    is_container,
    open_container,
    stamp_of,
)
from vaeguard.data.folders import list_images
from vaeguard.data.streams import ImageBatch, stream_images
from vaeguard.errors import UsageError
from vaeguard.storage.files import valid_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from vaeguard.data.images import ImageRule


class Files(Source):
    """Image files, one path each."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(paths[0], len(paths))
        self.paths = paths

    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Decode the files in threads."""
        assert rule is not None
        return stream_images(self.paths[start:stop], rule, batch_size=batch_size, jobs=jobs)

    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Decode these files."""
        assert rule is not None
        return stream_images([path for path in self.paths if valid_text(path) in names], rule)

    def stamp(self, start: int, stop: int) -> bytes:
        """Names, sizes and times of the files."""
        digest = hashlib.sha256()
        for path in self.paths[start:stop]:
            digest.update(stamp_of(path).encode("utf-8", "surrogateescape"))
        return digest.digest()


def find_sources(inputs: Iterable[str | Path], listed: Iterable[str] = (), *, vectors: bool = False) -> list[Source]:
    """Find everything to read, in sorted path order; what lies in a container keeps the container's order.

    Parameters
    ----------
    inputs : paths
        Image files, folders, globs (``*``, ``**``), `.npy`, `.npz`, IDX, tar and Parquet files.
    listed : paths
        More files, which may be missing: they are then unreadable, one by one.
    vectors : bool
        The model takes vectors, which only `.npy` and `.npz` hold.

    Raises
    ------
    UsageError
        An input does not exist, holds no image, or is none that the model takes.
    """
    given = [path for each in inputs for path in expanded(str(each))]
    listed = list(listed)
    paths = list_images(given) if given else []
    if listed:
        paths = sorted({*paths, *listed})
    if not paths:
        raise UsageError("there is nothing to score; name image files, folders or globs, or give a list of files")
    sources: list[Source] = []
    files: list[str] = []
    for path in paths:
        if not is_container(path):
            files.append(path)
            continue
        if files:
            sources.append(Files(files))
            files = []
        sources.append(open_container(path))
    if files:
        sources.append(Files(files))
    for source in sources:
        if not isinstance(source, Unreadable) and vectors != (isinstance(source, Array) and source.vectors):
            wanted, found = ("vectors", "images") if vectors else ("images", "vectors")
            raise UsageError(f"the model takes {wanted}, and {source.path!r} holds {found}; give what it was fitted on")
    return sources


def read_list(path: str) -> list[str]:
    """Read paths from a file, or from standard input for `-`: one a line, or separated by NUL.

    Raises
    ------
    UsageError
        The file cannot be read, or names nothing.
    """
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"the list of files {path!r} cannot be read ({error.strerror}); give a file with one path a line"
        ) from error
    content = content.removeprefix(codecs.BOM_UTF8)  # Windows writes it
    separator = b"\0" if b"\0" in content else b"\n"
    paths = [os.fsdecode(line.rstrip(b"\r")) for line in content.split(separator) if line.strip()]
    if not paths:
        raise UsageError(f"the list of files {path!r} names no file; give one with one path a line")
    return paths


def expanded(path: str) -> list[str]:
    """The paths that a glob matches, or the path itself.

    Raises
    ------
    UsageError
        Nothing matches.
    """
    if os.path.lexists(path) or not glob.has_magic(path):
        return [path]
    found = glob.glob(path, recursive=True)  # noqa: PTH207  (pathlib's needs the fixed part apart)
    if not found:
        raise UsageError(f"nothing matches {path!r}; check the pattern")
    return found


def read(
    source: Source,
    start: int,
    stop: int,
    shape: tuple[int, int, int],
    *,
    rule: ImageRule | None,
    batch_size: int,
    jobs: int | None,
) -> Iterator[ImageBatch]:
    """Yield the images `start` to `stop` of `source`, each an image of `shape` or an error.

    Where a container breaks off, the rest of these are errors, and what comes after them is tried. Of files each is
    read by itself, so that nothing but a fault of the machine ends them, and that is raised.
    """
    broken = () if isinstance(source, Files) else CONTAINER_ERRORS
    done, reason = 0, "the container has fewer images than it promises"
    try:
        for batch in source.batches(start, stop, rule, batch_size, jobs):
            done += len(batch.paths) + len(batch.errors)
            yield batch
    except broken as error:
        source.close()
        reason = " ".join(str(error).split()) or type(error).__name__
    if start + done < stop:
        errors = [(f"{source.path}/{row:05d}", reason) for row in range(start + done, stop)]
        yield errors_only(shape, rule, errors)


def pick(sources: Iterable[Source], names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
    """Read a few images again, found by their names; those that cannot be read any more are left out."""
    for source in sources:
        with contextlib.suppress(*CONTAINER_ERRORS):
            yield from source.pick(names, rule)
        source.close()

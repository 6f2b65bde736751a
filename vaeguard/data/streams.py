"""Files decoded in threads, a little ahead of the reader: constant memory for any number of images."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice, repeat, takewhile
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from vaeguard.data.decoding import PIXELS, read_each
from vaeguard.data.images import ImageRule, check_file_rule
from vaeguard.devices import cores
from vaeguard.errors import UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    import numpy.typing as npt

    from vaeguard.data.decoding import File

    Bytes = npt.NDArray[np.uint8]

_SMALL_FILE = 4096
"""Bytes; opening a smaller file costs more than decoding it, and threads would wait for each other."""
PATIENCE = 2.0
"""Seconds to wait for a thread that was asked to stop."""
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class ImageBatch:
    """Consecutive images of a stream.

    Attributes
    ----------
    paths : list of str
        Names of the readable images.
    images : uint8 (n, C, H, W) or float32 (n, 1, 1, F)
        Pixels or vectors, one for each of `paths`.
    errors : list of (path, reason)
        The images that could not be read.
    """

    paths: list[str]
    images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    errors: list[tuple[str, str]] = field(default_factory=list)


def stream_images(
    files: Iterable[File], rule: ImageRule, *, batch_size: int = 256, jobs: int | None = None
) -> Iterator[ImageBatch]:
    """Decode files in threads, a few batches ahead of the reader, and yield them in input order.

    `files` are paths, or pairs of a name and the bytes of the file, or the error instead of the bytes. Memory does not
    grow with their number. Files that cannot be read are in the `errors` of their batch.

    Raises
    ------
    UsageError
        `rule` leaves the size or the channels open, so that images could not form a batch.
    """
    if rule.size is None or rule.channels is None:
        raise UsageError("a stream of images needs a size and a number of channels; give both in its ImageRule")
    check_file_rule(rule)
    rest = iter(files)
    first = list(islice(rest, 32))
    return _stream(chain(first, rest), rule, max(1, batch_size), jobs or default_jobs(first))


def default_jobs(files: Sequence[File]) -> int:
    """Return the number of threads to decode such files: one if they are tiny, else one a core, at most 16."""
    sizes = sorted(filter(None, map(_size, files)))
    if sizes and sizes[len(sizes) // 2] < _SMALL_FILE:
        return 1
    return min(cores(), 16)


def map_ahead(
    function: Callable[[_T], _R],
    items: Iterable[_T],
    *,
    jobs: int,
    ahead: int,
    stop: Callable[[], None] | None = None,
) -> Generator[_R]:
    """Map in `jobs` threads: results come in input order, and at most `ahead` items are taken before they are needed.

    If the caller ends early, `stop` asks the threads to end soon, and threads are waited for no longer than `PATIENCE`.
    Without `stop`, all threads are waited for.
    """
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="vaeguard-images")
    rest = iter(items)
    waiting: deque[Future[_R]] = deque()
    try:
        waiting.extend(pool.submit(function, item) for item in islice(rest, ahead))
        while waiting:
            result = waiting[0].result()
            waiting.popleft()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
    finally:
        if stop and waiting:  # the caller ends early
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            wait([future for future in waiting if not future.cancelled()], PATIENCE)
        else:
            pool.shutdown(cancel_futures=True)


def _stream(files: Iterable[File], rule: ImageRule, batch_size: int, jobs: int) -> Iterator[ImageBatch]:
    # Batches are decoded in parts, so that all threads work on the batch that is needed next.
    part_size = max(1, min(32, -(-batch_size // jobs)))
    parts_per_batch = -(-batch_size // part_size)
    parts = (
        batch[start : start + part_size]
        for batch in chunks(files, batch_size)
        for start in range(0, len(batch), part_size)
    )
    decoded = map_ahead(lambda part: _decode_part(part, rule), parts, jobs=jobs, ahead=2 * max(parts_per_batch, jobs))
    for group in chunks(decoded, parts_per_batch):
        yield ImageBatch(
            [path for part in group for path in part.paths],
            np.concatenate([part.images for part in group]),
            [error for part in group for error in part.errors],
        )


def chunks(items: Iterable[_T], length: int) -> Iterator[list[_T]]:
    """Split any iterable into lists of `length`; the last may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, length)):
        yield chunk


def _decode_part(files: list[File], rule: ImageRule) -> ImageBatch:
    assert rule.size is not None
    assert rule.channels is not None
    images = np.empty((len(files), rule.channels, *rule.size), np.uint8)
    batch = ImageBatch([], images)

    def place(shape: tuple[int, ...]) -> Bytes:
        return images[len(batch.paths) : len(batch.paths) + shape[0]]

    for name, answer, _ in read_each(PIXELS, files, rule, place):
        if isinstance(answer, UnreadableError):
            batch.errors.append((name, answer.reason))
        else:
            batch.paths.append(name)
    return ImageBatch(batch.paths, images[: len(batch.paths)], batch.errors)


def ahead(items: Iterator[_T], length: int) -> Generator[_T]:
    """Iterate over `items` in a thread, at most `length` items ahead of the reader."""
    end = object()
    with closing(map_ahead(lambda _: next(items, end), repeat(None), jobs=1, ahead=length)) as taken:
        yield from takewhile(lambda item: item is not end, cast("Iterator[_T]", taken))


def _size(file: File) -> int:
    if not isinstance(file, str):
        return len(file[1]) if isinstance(file[1], bytes) else 0
    try:
        return os.path.getsize(file)  # noqa: PTH202  (names need not be valid paths)
    except (OSError, ValueError):
        return 0

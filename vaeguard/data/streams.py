"""Files decoded in threads, a little ahead of the reader: constant memory for any number of images."""

from __future__ import annotations

import math
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice, repeat, takewhile
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import numpy as np

from vaeguard.data.decoding import MOST_SENT, PIXELS, length_of, read_each
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
SAMPLED = 32
"""The number of files by whose sizes the number of threads is chosen."""
MOST_AHEAD = 256 * 2**20
"""Bytes of files that may wait for threads."""
MOST_VALUES = 2**27
"""The most values of decoded images that wait for their turn, unless one image has more."""
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
    ends : bool
        Whether an uncounted source ends with this batch.
    """

    paths: list[str]
    images: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    errors: list[tuple[str, str]] = field(default_factory=list)
    ends: bool = False


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
        raise UsageError("a stream of images needs a size and a number of channels; set both in its ImageRule")
    check_file_rule(rule)
    first, files = first_of(files)
    return _stream(files, rule, max(1, batch_size), jobs or default_jobs(first))


def first_of(files: Iterable[File]) -> tuple[list[File], Iterator[File]]:
    """A few of the first files, without taking much memory, and all files."""
    rest = iter(files)
    first: list[File] = []
    while len(first) < SAMPLED and sum(map(length_of, first)) < MOST_SENT and (file := next(rest, None)):
        first.append(file)
    return first, _rejoined(deque(first), rest)


def _rejoined(first: deque[File], rest: Iterator[File]) -> Iterator[File]:
    while first:
        yield first.popleft()  # and no longer in memory
    yield from rest


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
    size_of: Callable[[_T], int] = lambda _: 0,
) -> Generator[_R]:
    """Map in `jobs` threads: results come in input order, and at most `ahead` items are taken before they are needed.

    Fewer are taken if they have more than `MOST_AHEAD` bytes by `size_of`. An error of `items` is raised after the
    results of the items before it.
    If the caller ends early, `stop` asks the threads to end soon, and threads are waited for no longer than `PATIENCE`.
    Without `stop`, all threads are waited for.
    """
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="vaeguard-images")
    rest = iter(items)
    waiting: deque[Future[_R]] = deque()
    sizes: deque[int] = deque()
    failures: list[Exception] = []

    def fill() -> None:
        while len(waiting) < ahead and sum(sizes) <= MOST_AHEAD and not failures:
            try:
                item = next(rest)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 -- raised after the results of the items before
                failures.append(error)
            else:
                sizes.append(size_of(item))
                waiting.append(pool.submit(function, item))

    try:
        fill()
        while waiting:
            result = waiting[0].result()
            waiting.popleft()
            sizes.popleft()
            fill()
            yield result
        for error in failures:
            raise error
    finally:
        if stop and waiting:  # the caller ends early
            stop()
            pool.shutdown(wait=False, cancel_futures=True)
            wait([future for future in waiting if not future.cancelled()], PATIENCE)
        else:
            pool.shutdown(cancel_futures=True)


def _stream(files: Iterable[File], rule: ImageRule, batch_size: int, jobs: int) -> Iterator[ImageBatch]:
    assert rule.size is not None
    values = math.prod(rule.decoded_shape)
    jobs, batch_size = fewer_if_large(jobs, values), fewer_if_large(batch_size, values)
    # Batches are decoded in parts, so that all threads work on the batch that is needed next.
    part_size = max(1, min(32, -(-batch_size // jobs)))
    parts = parts_of(files, part_size, batch_size)
    ahead = fewer_if_large(2 * max(-(-batch_size // part_size), jobs), part_size * values)
    decoded = map_ahead(
        lambda part: _decode_part(part, rule),
        parts,
        jobs=jobs,
        ahead=ahead,
        stop=lambda: None,  # a file that hangs keeps its thread until it is given up
        size_of=size_of_part,
    )
    group: list[ImageBatch] = []
    try:
        for part, is_last in decoded:
            group.append(part)
            if is_last:
                yield _joined(group)
                group = []
    except Exception:  # a container breaks off
        if group:
            yield _joined(group)
        raise
    if group:
        yield _joined(group)


class Part(NamedTuple):
    """Consecutive files, no larger than a message, and whether they end a batch."""

    files: list[File]
    is_last: bool


def size_of_part(part: Part) -> int:
    """The bytes that the files of a part take in memory."""
    return sum(map(length_of, part.files))


def parts_of(files: Iterable[File], part_size: int, batch_size: int = 0) -> Iterator[Part]:
    """Split files into parts of at most `part_size` files, which do not reach across the end of a batch."""
    part: list[File] = []
    number = 0
    try:
        for file in files:  # enumerate would keep a large file in memory until the next one has come
            number += 1
            part.append(file)
            del file
            is_last = bool(batch_size) and number % batch_size == 0
            if is_last or len(part) == part_size or sum(map(length_of, part)) > MOST_SENT:
                yield Part(part, is_last)
                part = []
    except Exception:  # a container breaks off
        if part:
            yield Part(part, is_last=True)
        raise
    if part:
        yield Part(part, is_last=True)


def fewer_if_large(most: int, values: int) -> int:
    """So many images or batches, of `values` numbers each, at a time: fewer than `most` if they are large."""
    return max(1, min(most, MOST_VALUES // max(values, 1)))


def _joined(parts: list[ImageBatch]) -> ImageBatch:
    if len(parts) == 1:
        return parts[0]
    return ImageBatch(
        [path for part in parts for path in part.paths],
        np.concatenate([part.images for part in parts]),
        [error for part in parts for error in part.errors],
    )


def chunks(items: Iterable[_T], length: int) -> Iterator[list[_T]]:
    """Split any iterable into lists of `length`; the last may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, length)):
        yield chunk


def _decode_part(part: Part, rule: ImageRule) -> tuple[ImageBatch, bool]:
    images = np.empty((len(part.files), *rule.decoded_shape), np.uint8)
    batch = ImageBatch([], images)

    def place(shape: tuple[int, ...]) -> Bytes:
        return images[len(batch.paths) : len(batch.paths) + shape[0]]

    for name, answer, _ in read_each(PIXELS, part.files, rule, place):
        if isinstance(answer, UnreadableError):
            batch.errors.append((name, answer.reason))
        else:
            batch.paths.append(name)
    return ImageBatch(batch.paths, images[: len(batch.paths)], batch.errors), part.is_last


def ahead(items: Iterator[_T], length: int) -> Generator[_T]:
    """Iterate over `items` in a thread, at most `length` items ahead of the reader."""
    end = object()
    # The thread ends by itself; it may be waiting for a file that hangs.
    taking = map_ahead(lambda _: next(items, end), repeat(None), jobs=1, ahead=length, stop=lambda: None)
    with closing(taking) as taken:
        yield from takewhile(lambda item: item is not end, cast("Iterator[_T]", taken))


def _size(file: File) -> int:
    if not isinstance(file, str):
        return length_of(file)
    try:
        return os.path.getsize(file)  # noqa: PTH202  (names need not be valid paths)
    except (OSError, ValueError):
        return 0

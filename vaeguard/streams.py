"""Files decoded in threads, a little ahead of the reader: constant memory for any number of images."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vaeguard.errors import UnreadableError, UsageError
from vaeguard.images import ImageRule, check_file_rule, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

_SMALL_FILE = 4096  # bytes; below, opening costs more than decoding, and threads only wait for each other's Python
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class ImageBatch:
    """Consecutive images of a stream: uint8 (n, C, H, W), one for each of `paths`; unreadable files are `errors`."""

    paths: list[str]
    images: Bytes
    errors: list[tuple[str, str]] = field(default_factory=list)


def stream_images(
    paths: Iterable[str], rule: ImageRule, *, batch_size: int = 256, jobs: int | None = None
) -> Iterator[ImageBatch]:
    """Decode files in threads, a few batches ahead of the reader, and yield them in input order.

    Memory stays constant however many paths there are. Files that cannot be read are in their batch's `errors`.

    Raises
    ------
    UsageError
        `rule` leaves the size or the channels open, so that images could not form a batch.
    """
    if rule.size is None or rule.channels is None:
        raise UsageError("a stream of images needs a size and a number of channels; give both in its ImageRule")
    check_file_rule(rule)
    rest = iter(paths)
    first = list(islice(rest, 32))
    return _stream(chain(first, rest), rule, max(1, batch_size), jobs or default_jobs(first))


def default_jobs(paths: Sequence[str]) -> int:
    """Return the number of threads to decode files like `paths`: one if they are tiny, else one a core, at most 16."""
    sizes = sorted(filter(None, map(_size, paths)))
    if sizes and sizes[len(sizes) // 2] < _SMALL_FILE:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)


def map_ahead(function: Callable[[_T], _R], items: Iterable[_T], *, jobs: int, ahead: int) -> Iterator[_R]:
    """Like `map` in `jobs` threads: results in input order, at most `ahead` items taken before they are asked for."""
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="vaeguard-images")
    rest = iter(items)
    try:
        waiting = deque(pool.submit(function, item) for item in islice(rest, ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(rest, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _stream(paths: Iterable[str], rule: ImageRule, batch_size: int, jobs: int) -> Iterator[ImageBatch]:
    # A batch is decoded in parts, so that all threads work on the batch that is needed first.
    part_size = max(1, min(32, -(-batch_size // jobs)))
    parts_per_batch = -(-batch_size // part_size)
    parts = (
        batch[start : start + part_size]
        for batch in chunks(paths, batch_size)
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


def _decode_part(paths: list[str], rule: ImageRule) -> ImageBatch:
    assert rule.size is not None
    assert rule.channels is not None
    images = np.empty((len(paths), rule.channels, *rule.size), np.uint8)
    batch = ImageBatch([], images)
    for path in paths:
        try:
            images[len(batch.paths)] = decode(path, rule)
        except UnreadableError as error:
            batch.errors.append((path, error.reason))
        else:
            batch.paths.append(path)
    return ImageBatch(batch.paths, images[: len(batch.paths)], batch.errors)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)  # noqa: PTH202  (names need not be valid paths)
    except (OSError, ValueError):
        return 0

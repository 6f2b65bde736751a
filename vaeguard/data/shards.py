"""Images that stay in their tar archives and Parquet files, for sets that would not fit on the disk when decoded.

A random sample is decoded once and can be looked up by row number: it holds the images that judge a fit. All others are
decoded anew in every epoch, in a random order of pieces of files, and mixed in a buffer.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from vaeguard.data.cache import cache_folder, nameless_file
from vaeguard.data.source import SHARD_ROWS, pick, read
from vaeguard.errors import VaeguardError
from vaeguard.storage.files import valid_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from vaeguard.data.images import ImageRule
    from vaeguard.data.source import Encoded
    from vaeguard.data.streams import ImageBatch
    from vaeguard.progress import Progress

    Bytes = npt.NDArray[np.uint8]
    Rows = npt.NDArray[np.int64]

HELD = 250_000
"""The most images that can be looked up: 100,000 each to stop the training and to calibrate, and some to cluster."""
LEAST, LEAST_BYTES = 1000, 2**28
"""The least images that can be looked up, and so many bytes of them, however little the cache may hold."""
SHARE_OF_DISK = 0.5
"""So much of the free disk decoded images may take."""
WHOLE = 2**16
"""A file of at most so many images is read as a whole, since tar archives can be read from their beginning only."""
READ = 256
"""Images that are decoded and put into the buffer at a time."""


class Limits(NamedTuple):
    """The most bytes of decoded images in the cache (None: half of the free disk), and of a buffer that mixes them."""

    cached: int | None = None
    buffered: int = 2**30

    @property
    def most(self) -> int:
        """The most bytes of decoded images in the cache; what it holds already counts as free."""
        if self.cached is not None:
            return self.cached
        folder = cache_folder()
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        held = sum(path.stat().st_size for path in folder.glob("vaeguard-*.npy")) if folder.exists() else 0
        return int(SHARE_OF_DISK * (shutil.disk_usage(existing).free + held))


class Some(NamedTuple):
    """Images with their row numbers, and their pseudo-classes if there are any."""

    rows: Rows
    images: Bytes
    pseudo: Rows | None

    def at(self, index: Any) -> Some:
        """The images at these positions."""
        return Some(self.rows[index], self.images[index], None if self.pseudo is None else self.pseudo[index])

    def room(self, count: int) -> Some:
        """Arrays for `count` images such as these."""
        return Some(*(None if part is None else np.empty((count, *part.shape[1:]), part.dtype) for part in self))  # type: ignore[arg-type]

    def put(self, index: Any, some: Some) -> None:
        """Replace the images at these positions."""
        for own, new in zip(self, some, strict=True):
            if own is not None and new is not None:
                own[index] = new


class Names(Sequence[str]):
    """The names of the images of all sources, without a list of them."""

    def __init__(self, sources: Sequence[Encoded]) -> None:
        self._sources = sources
        self.starts = [0, *accumulate(source.count for source in sources)]

    def __len__(self) -> int:
        return self.starts[-1]

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[str, ...]: ...
    def __getitem__(self, row: int | slice) -> str | tuple[str, ...]:
        if isinstance(row, slice):
            return tuple(self[at] for at in range(*row.indices(len(self))))
        row = range(len(self))[row]
        number = bisect_right(self.starts, row) - 1
        return self._sources[number].names[row - self.starts[number]]


class Shards:
    """The images of `sources`, by `rule`, as an array from which only some rows can be taken.

    Attributes
    ----------
    shape : (N, C, H, W)
        The shape of all images.
    held : int64
        The rows that can be taken, in order.
    errors : dict of str
        Why images of the sample, and those that were read since, cannot be read, by their names.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, sources: Sequence[Encoded], rule: ImageRule, limits: Limits, jobs: int | None, progress: Progress | None
    ) -> None:
        self.sources, self.rule, self.limits, self.jobs = sources, rule, limits, jobs
        self.names = Names(sources)
        self.shape = (len(self.names), *rule.decoded_shape)
        self._image = self.shape[1:]
        self.errors: dict[str, str] = {}
        self.held, self._values = self._sample(progress)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Bytes:
        """The images of `rows`, one number or an array of numbers, which must be among those held."""
        places = np.searchsorted(self.held, rows)
        assert np.array_equal(self.held[places], rows)
        return np.asarray(self._values[places])

    def fingerprint(self) -> str:
        """SHA-256 (hex) over names, sizes and times of the files, and what decides about pixels and their order."""
        digest = hashlib.sha256(repr((self.rule, self.limits.buffered, self.shape)).encode())
        for source in self.sources:
            digest.update(source.stamp(0, source.count))
        return digest.hexdigest()

    def stream(
        self, rows: Rows, count: int, size: int, seed: int, pseudo: Callable[[Bytes], Rows] | None = None
    ) -> Iterator[Some]:
        """Yield `count` images of `rows` (in order) in batches of `size`; `pseudo` gives their pseudo-classes.

        Files are read in random order and their images mixed in a buffer. Each image comes once before any comes twice.
        Images that cannot be read are left out.
        """
        draw, waiting, left = np.random.default_rng(seed), [], count
        for some in self._passes(rows, draw, pseudo):
            waiting.append(some)
            while sum(len(part.rows) for part in waiting) >= (now := min(size, left)):
                whole = _joined(waiting)
                yield whole.at(slice(now))
                waiting, left = [whole.at(slice(now, None))], left - now
                if not left:
                    return

    def _passes(self, rows: Rows, draw: np.random.Generator, pseudo: Callable[[Bytes], Rows] | None) -> Iterator[Some]:
        """All images of `rows` again and again, each time in another order."""
        room = int(max(READ, min(len(rows), self.limits.buffered // math.prod(self._image))))
        while True:
            found = 0
            for some in _mixed(self._once(rows, draw, pseudo), room, draw):
                found += len(some.rows)
                yield some
            if not found:
                raise VaeguardError(f"none of the training images in {self.sources[0].place!r} can be read any more")

    def _once(self, rows: Rows, draw: np.random.Generator, pseudo: Callable[[Bytes], Rows] | None) -> Iterator[Some]:
        """All images of `rows`, by pieces of files in random order."""
        pieces = self._pieces()
        for number in draw.permutation(len(pieces)).tolist():
            for some in self._read(pieces[number], rows):
                yield some._replace(pseudo=pseudo(some.images) if pseudo else None)

    def _pieces(self) -> list[tuple[int, Encoded, int, int]]:
        """Pieces of files that are read at a time: the row of the first image of the file, the file, start and stop."""
        pieces: list[tuple[int, Encoded, int, int]] = []
        for source, first in zip(self.sources, self.names.starts, strict=False):
            step = source.count if source.count <= WHOLE else SHARD_ROWS
            cuts = [*range(0, source.count, max(step, 1)), source.count]
            pieces += [(first, source, start, stop) for start, stop in pairwise(cuts)]
        return pieces

    def _read(self, piece: tuple[int, Encoded, int, int], rows: Rows) -> Iterator[Some]:
        """The readable images of a piece that are among `rows`."""
        first, source, done, stop = piece
        begin, end = np.searchsorted(rows, (first + done, first + stop))
        if begin == end:
            return
        batches = read(source, done, stop, self._image, rule=self.rule, batch_size=READ, jobs=self.jobs)
        try:
            for batch in batches:
                self.errors |= dict(batch.errors)
                numbers = first + done + _readable(batch, source, done)
                done += len(batch.paths) + len(batch.errors)
                kept = np.isin(numbers, rows[begin:end])
                if kept.any():
                    yield Some(numbers[kept], batch.images[kept], None)  # type: ignore[arg-type]
        finally:
            source.close()

    def _sample(self, progress: Progress | None) -> tuple[Rows, Bytes]:
        """A random sample of the rows that can be read, and their images, in a nameless file."""
        room = max(self.limits.most // 4, LEAST_BYTES) // math.prod(self._image)
        most = min(HELD, max(LEAST, room), len(self))
        rows = np.sort(np.random.default_rng(0).choice(len(self), most, replace=False))
        held: list[Rows] = []
        with nameless_file() as file:
            for source, (first, last) in zip(self.sources, pairwise(self.names.starts), strict=True):
                own = rows[(rows >= first) & (rows < last)]
                names = source.names
                wanted = {valid_text(names[row - first]): int(row) for row in own}
                for batch in pick([source], wanted.keys(), self.rule):
                    file.write(np.ascontiguousarray(batch.images).data)
                    held.append(np.array([wanted[valid_text(path)] for path in batch.paths], np.int64))
                    self.errors |= dict(batch.errors)
                if progress:
                    progress(last, len(self), "images of a sample")
            found = np.concatenate(held) if held else np.empty(0, np.int64)
            if not len(found):
                raise VaeguardError(f"none of a sample of {most} images in {self.sources[0].place!r} can be read")
            file.flush()
            values = np.memmap(file, np.uint8, "r", shape=(len(found), *self._image))
        order = np.argsort(found, kind="stable")
        return found[order], values if np.array_equal(order, np.arange(len(order))) else values[order]


def in_shards(images: Any) -> Shards | None:
    """The images, if they stay in their files; None for an array."""
    return images if isinstance(images, Shards) else None


def _readable(batch: ImageBatch, source: Encoded, start: int) -> Rows:
    """The positions of the readable images of a batch, which lists readable and unreadable images apart, in order."""
    if not batch.errors:
        return np.arange(len(batch.paths))
    names = source.names[start : start + len(batch.paths) + len(batch.errors)]
    position, places = 0, []
    for path in batch.paths:
        while valid_text(names[position]) != valid_text(path):
            position += 1
        places.append(position)
        position += 1
    return np.array(places, np.int64)


def _mixed(parts: Iterator[Some], room: int, draw: np.random.Generator) -> Iterator[Some]:
    """The images of `parts` in random order: each waits in a buffer of `room` images until another one replaces it."""
    buffer, filled = None, 0
    for part in parts:
        buffer = buffer or part.room(room)
        fresh = min(room - filled, len(part.rows))
        buffer.put(slice(filled, filled + fresh), part.at(slice(fresh)))
        filled += fresh
        if rest := len(part.rows) - fresh:
            slots = draw.permutation(room)[:rest]
            yield buffer.at(slots)
            buffer.put(slots, part.at(slice(fresh, None)))
    if buffer:
        order = draw.permutation(filled)
        yield from (buffer.at(order[start : start + READ]) for start in range(0, filled, READ))


def _joined(parts: Sequence[Some]) -> Some:
    rows, images = (np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "images"))
    pseudo = [part.pseudo for part in parts if part.pseudo is not None]
    return Some(rows, images, np.concatenate(pseudo) if pseudo else None)

"""Sources: images in a fixed order, read in the same way from any container, and cut into pieces."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import lzma
import tarfile
import tokenize
import zipfile
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.decoding import PICTURE, PIXELS, read_one
from vaeguard.data.streams import ImageBatch, stream_images
from vaeguard.errors import UnreadableError, VaeguardError
from vaeguard.storage.files import digest_of, size_and_time
from vaeguard.storage.places import as_urls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    import numpy.typing as npt

    from vaeguard.data.decoding import File
    from vaeguard.data.images import ImageRule

    ClassLabels = tuple[npt.NDArray[np.int64], tuple[str, ...]]
    """The class of each image as an index into the names of the classes, and these names."""

CONTAINER_ERRORS = (
    *(OSError, ValueError, EOFError, KeyError, SyntaxError, NotImplementedError, RuntimeError, MemoryError, TypeError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, tarfile.TarError, lzma.LZMAError, VaeguardError),
)
"""The errors that the readers of damaged containers were seen to raise."""
DAMAGED = "it is damaged or cannot be read ({}); copy the file again"
"""Why a container cannot be read, from the message of its reader."""
SHARD_ROWS = 4096
"""The most images in a shard: a kill costs at most one shard of work."""
SHARD_VALUES = 2**26
"""The most pixels, over all channels, in a shard of large images."""


@dataclass(frozen=True, eq=False)
class Original:
    """An image of a source, as its file has it.

    Attributes
    ----------
    name : str
        Its name.
    pixels : uint8 (C, H, W)
        Its pixels by the rule of a model.
    picture : uint8 (c, h, w)
        The image as people look at it: upright, in its own colours, of at most `MOST_SIDE` pixels a side.
    size : (height, width)
        Its own size in pixels, upright.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    picture: npt.NDArray[np.uint8]
    size: tuple[int, int]


class Source(ABC):
    """Images in a fixed order.

    Attributes
    ----------
    path : str
        The container that holds the images; for image files, the first file.
    count : int
        The number of images, unreadable ones included.
    uncounted : bool
        Whether nobody knows the number before all images were read; `count` is 0 then, and all of it is one piece.
    left_out : str or None
        One sentence on files beside the images that are not read.
    regions : sequence of str
        The paths of the regions of single images that were found beside them.
    """

    uncounted = False
    left_out: str | None = None
    regions: Sequence[str] = ()
    broken_by: tuple[type[BaseException], ...] = CONTAINER_ERRORS
    """The errors of reading after which the remaining images cannot be read."""

    def __init__(self, path: str, count: int) -> None:
        self.path, self.count = path, count

    @property
    def names(self) -> Sequence[str]:
        """The identity of each image, unreadable ones included: its path, or a name such as `images.npy/00017`."""
        return tuple(f"{self.path}/{row:05d}" for row in range(self.count))

    def labels(self) -> ClassLabels | None:
        """The class of each image, unreadable ones included, where classes are known."""
        return None

    @abstractmethod
    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Yield the images `start` to `stop`, decoded by `rule`, in batches; with no rule they are vectors."""

    @abstractmethod
    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Yield the images whose names, as a table holds them, are among `names`, in the order of the source."""

    @abstractmethod
    def originals(self, names: AbstractSet[str], rule: ImageRule) -> Iterator[Original]:
        """Yield the images whose names are among `names`, as `pick` does, one by one and as their files have them."""

    def span(self, start: int, stop: int) -> str:
        """What people call the images `start` to `stop`."""
        if self.uncounted:
            return repr(self.path)
        return f"images {start:,} to {stop - 1:,} of {self.path!r}"

    def alone(self, start: int, stop: int) -> tuple[Source, int, int]:
        """A source to be sent to another process, and where these images are in it; it need not know their names."""
        return self, start, stop

    def stamp(self, start: int, stop: int) -> bytes:
        """Bytes that change when the images `start` to `stop` change, judged by names, sizes and times."""
        return f"{stamp_of(self.path)} {start} {stop}".encode("utf-8", "surrogateescape")

    def close(self) -> None:  # noqa: B027  (most sources have nothing open)
        """Close the files that `batches` leaves open for the next call."""


class Unreadable(Source):
    """A container that cannot be opened: one row among the errors."""

    def __init__(self, path: str, error: VaeguardError) -> None:
        super().__init__(path, 1)
        self.error = error
        self.reason = error.reason if isinstance(error, UnreadableError) else str(error)

    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Yield nothing but the error."""
        del start, stop, batch_size, jobs
        shape = rule.decoded_shape if rule else (1, 1, 1)
        yield _errors_only(shape, rule, [(self.path, self.reason)])

    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Yield nothing."""
        del names, rule
        return iter(())

    def originals(self, names: AbstractSet[str], rule: ImageRule) -> Iterator[Original]:
        """Yield nothing."""
        del names, rule
        return iter(())


class Encoded(Source):
    """Image files, in a container or each by itself; the container stays open from one call of `batches` to the next.

    Attributes
    ----------
    place : str
        The container, or the folder of the files, for messages.
    part : str
        The part of the container that is read, where there are several.
    looks : bool
        Whether the regions of single images are read with them.
    """

    part = ""
    looks = False
    _stop: int | None = None
    """The number of the file before which reading ends; None reads to the end."""

    def __init__(self, path: str, count: int) -> None:
        super().__init__(path, count)
        self.place = path
        self._stack = contextlib.ExitStack()
        self._next = 0
        self._rest: Iterator[File] | None = None

    def alone(self, start: int, stop: int) -> tuple[Encoded, int, int]:
        """The same files, of which none after these is read."""
        lean = copy.copy(self)
        lean._stop = stop  # noqa: SLF001  (it is of this class)
        return lean, start, stop

    @abstractmethod
    def open(self, stack: contextlib.ExitStack, start: int) -> Iterator[File]:
        """Yield the files from number `start` on; `stack` closes the container."""

    @abstractmethod
    def open_some(self, stack: contextlib.ExitStack, names: AbstractSet[str]) -> Iterator[File]:
        """Yield the files whose names, as a table holds them, are among `names`; the first of files of equal names."""

    def files(self) -> Iterator[File]:
        """Yield all files."""
        with contextlib.ExitStack() as stack:
            yield from self.open(stack, 0)

    def digests(self, jobs: int | None) -> Iterator[bytes]:
        """Yield digests that cover all bytes of the images."""
        del jobs
        yield f"{self.part}\0{digest_of(Path(self.path))}".encode("utf-8", "surrogateescape")

    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Decode the files in threads."""
        assert rule is not None
        self.looks = bool(rule.regions)
        if self._rest is None or self._next != start:
            self._stack.close()
            self._rest = self.open(self._stack, start)
        self._next = stop
        return stream_images(islice(self._rest, stop - start), rule, batch_size=batch_size, jobs=jobs)

    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Read and decode these files only."""
        assert rule is not None
        self.looks = bool(rule.regions)
        with contextlib.ExitStack() as stack:
            yield from stream_images(self.open_some(stack, names), rule)

    def originals(self, names: AbstractSet[str], rule: ImageRule) -> Iterator[Original]:
        """Read and decode these files only."""
        self.looks = bool(rule.regions)
        with contextlib.ExitStack() as stack:
            for file in self.open_some(stack, names):
                with contextlib.suppress(UnreadableError):  # it has changed since
                    yield _original(file, rule)

    def close(self) -> None:
        """Close the container."""
        if self._rest and self._next == self.count:
            with contextlib.suppress(*self.broken_by):
                next(self._rest, None)  # the process that has read all of it says so, and can serve another call
        self._stack.close()
        self._rest = None


@dataclass(frozen=True)
class Piece:
    """The images `start` to `stop` of a source, whose scores make up one shard."""

    source: Source
    start: int
    stop: int

    @property
    def count(self) -> int:
        """Number of images."""
        return self.stop - self.start

    @property
    def name(self) -> str:
        """What people call the piece."""
        return self.source.span(self.start, self.stop)

    def alone(self) -> Piece:
        """The same images without the rest of their source, to be sent to another process."""
        return Piece(*self.source.alone(self.start, self.stop))

    def key(self, settings: str) -> str:
        """The name of the shard with the scores of this piece under `settings`."""
        return hashlib.sha256(settings.encode() + b"\0" + self.source.stamp(self.start, self.stop)).hexdigest()[:40]


def rows_of_a_shard(values: int) -> int:
    """Number of images, of `values` numbers each, that one shard holds."""
    return max(16, min(SHARD_ROWS, SHARD_VALUES // values))


def pieces_of(sources: Iterable[Source], values: int) -> list[Piece]:
    """Cut sources, whose images have `values` numbers each, into pieces, which are the same on every call."""
    rows = rows_of_a_shard(values)
    return [
        Piece(source, start, min(start + rows, source.count))
        for source in sources
        for start in range(0, 1 if source.uncounted else source.count, rows)
    ]


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

    If a container breaks off, the remaining images up to `stop` are errors, and the next call tries again. An uncounted
    source is read to its end, which the last batch states.
    """
    done, reason = 0, "the container has fewer images than announced"
    try:
        for batch in source.batches(start, stop, rule, batch_size, jobs):
            done += len(batch.paths) + len(batch.errors)
            yield batch
    except source.broken_by as error:
        source.close()
        reason = error.reason if isinstance(error, UnreadableError) else one_line(error)
    if source.uncounted:
        yield replace(_errors_only(shape, rule, []), ends=True)
    elif start + done < stop:
        errors = [(f"{source.path}/{row:05d}", reason) for row in range(start + done, stop)]
        yield _errors_only(shape, rule, errors)


def pick(sources: Iterable[Source], names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
    """Read a few images again by their names; images that can no longer be read are left out."""
    for source in sources:
        with contextlib.suppress(*CONTAINER_ERRORS):
            yield from source.pick(names, rule)
        source.close()


def originals(sources: Iterable[Source], names: AbstractSet[str], rule: ImageRule) -> Iterator[Original]:
    """Read a few images again by their names, as `pick` does, one by one and as their files have them."""
    for source in sources:
        with contextlib.suppress(*CONTAINER_ERRORS):
            yield from source.originals(names, rule)
        source.close()


def _original(file: File, rule: ImageRule) -> Original:
    _, pixels = read_one(PIXELS, file, rule)
    facts, picture = read_one(PICTURE, file, replace(rule, size=None, channels=None, regions=False))
    height, width = facts["size"]
    return Original(file if isinstance(file, str) else file[0], pixels[0], picture[0], (height, width))


def row_of(name: str) -> int:
    """The number of the row that a name ends in."""
    return int(name.rpartition("/")[2])


def stamp_of(path: str) -> str:
    """Text that changes when a file changes, judged by name, size and time."""
    return "".join(f"{part}\0" for part in (as_urls(path), *size_and_time(path)))


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn the errors of a reader on a damaged container into one error that names the container.

    Raises
    ------
    UnreadableError
        The container is damaged.
    """
    try:
        yield
    except VaeguardError:
        raise
    except CONTAINER_ERRORS as error:
        raise UnreadableError(path, DAMAGED.format(one_line(error))) from error


def one_line(error: BaseException) -> str:
    """The message of an error in one line, or else its type."""
    return " ".join(str(error).split()) or type(error).__name__


def _errors_only(shape: tuple[int, ...], rule: ImageRule | None, errors: list[tuple[str, str]]) -> ImageBatch:
    """A batch without images of `shape`, (C, H, W), and with these errors."""
    images = np.empty((0, *shape), np.uint8) if rule else np.empty((0, *shape), np.float32)
    return ImageBatch([], images, errors)

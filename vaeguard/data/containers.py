"""Files of many images: arrays, tar archives, Parquet; each a *source*, read row by row and in pieces."""

from __future__ import annotations

import contextlib
import lzma
import tarfile
import zipfile
from abc import ABC, abstractmethod
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.images import SUFFIXES
from vaeguard.data.named_sets import is_idx, read_idx
from vaeguard.data.packed import ARRAY_ERRORS, as_batch, check_many, image_key, to_rule
from vaeguard.data.streams import ImageBatch, stream_images
from vaeguard.errors import RefusedError, UnreadableError, VaeguardError
from vaeguard.storage.files import size_and_time, valid_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    import numpy.typing as npt

    from vaeguard.data.images import ImageRule
    from vaeguard.data.streams import File

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz")
IMAGE_COLUMNS = ("image", "img", "picture", "bytes", "content", "jpg", "png")
"""Columns of a Parquet file that may hold image files, the first present one is read."""
CONTAINER_ERRORS = (*ARRAY_ERRORS, VaeguardError, tarfile.TarError, lzma.LZMAError)


class Source(ABC):
    """Images in a fixed order.

    Attributes
    ----------
    path : str
        Where they lie; of files the first one.
    count : int
        How many.
    """

    def __init__(self, path: str, count: int) -> None:
        self.path, self.count = path, count

    @abstractmethod
    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Yield the images `start` to `stop`, decoded by `rule`, in batches; with no rule they are vectors."""

    @abstractmethod
    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Yield those of the images whose names, as a table holds them, are among `names`, in the source's order."""

    def stamp(self, start: int, stop: int) -> bytes:
        """Bytes that change when the images `start` to `stop` do, told by names, sizes and times."""
        return f"{stamp_of(self.path)} {start} {stop}".encode("utf-8", "surrogateescape")

    def close(self) -> None:  # noqa: B027  (most have nothing open)
        """Close what stays open from one call of `batches` to the next, so that nothing is read twice."""


class Unreadable(Source):
    """A container that cannot be opened: one row among the errors."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, 1)
        self.reason = reason

    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Yield nothing but the error."""
        del start, stop, batch_size, jobs
        shape = (rule.channels or 1, *(rule.size or (1, 1))) if rule else (1, 1, 1)
        yield errors_only(shape, rule, [(self.path, self.reason)])

    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Yield nothing."""
        del names, rule
        return iter(())


class Array(Source):
    """The images of an `.npy`, `.npz` or IDX file, read as they are asked for: a mapped file would count as memory."""

    def __init__(self, path: str) -> None:
        with _rows_of(Path(path)) as rows:
            check_many((len(rows), *rows.shape[1:]), path)  # all of it, of which a part may look like images
            self.vectors = _nothing_like(rows[:1], path).dtype == np.float32
            super().__init__(path, len(rows))
        self._stack = contextlib.ExitStack()
        self._rows: _Rows | npt.NDArray[Any] | None = None

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
        self._rows = None

    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Slice the array; its names are the path and the row's number."""
        del jobs
        if self._rows is None:
            self._rows = self._stack.enter_context(_rows_of(Path(self.path)))
        for at in range(start, stop, batch_size):
            end = min(at + batch_size, stop)
            rows = self._rows[at:end]
            if len(rows) < end - at:
                raise RefusedError(f"{self.path!r} is cut short; copy it again")
            names, images, errors = self._checked([f"{self.path}/{row:05d}" for row in range(at, end)], rows)
            yield ImageBatch(names, to_rule(images, rule) if rule else images, errors)

    def _checked(
        self, names: list[str], rows: npt.NDArray[Any]
    ) -> tuple[list[str], npt.NDArray[Any], list[tuple[str, str]]]:
        """The rows as images or vectors; where values are refused, only the rows that hold them are errors."""
        with contextlib.suppress(RefusedError):
            return names, as_batch(rows, self.path), []
        good, kept, errors = [_nothing_like(rows, self.path)], [], []
        for number, name in enumerate(names):
            try:
                good.append(as_batch(rows[number : number + 1], name))
            except RefusedError as error:
                errors.append((name, str(error)))
            else:
                kept.append(name)
        return kept, np.concatenate(good), errors

    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Slice single rows, told by their numbers."""
        before = f"{valid_text(self.path)}/"
        for row in sorted(_row_of(name) for name in names if name.startswith(before)):
            yield from self.batches(row, row + 1, rule, 1, None)


def _nothing_like(rows: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """No images at all of the shape and type that these rows become, whatever their values are."""
    return as_batch(np.zeros_like(rows[:1]), name)[:0]


class _Rows:
    """Rows of an array that lies in an open file from `offset` on."""

    def __init__(self, file: IO[bytes], offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file, self._offset, self.shape, self.dtype = file, offset, shape, dtype
        self._size = dtype.itemsize * int(np.prod(shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        target = self._offset + start * self._size
        # A compressed file is read up to there; by itself it would take 16 MB at a time.
        while isinstance(self._file, zipfile.ZipExtFile) and (gap := target - self._file.tell()) > 0:
            self._file.read(min(gap, 2**20))
        self._file.seek(target)
        content = self._file.read((stop - start) * self._size)
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])


@contextlib.contextmanager
def _rows_of(path: Path) -> Iterator[_Rows | npt.NDArray[Any]]:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            yield _numpy_rows(file, path)
    elif path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive, path)) as file:
            yield _numpy_rows(file, path)
    else:
        array = read_idx(path)
        if not isinstance(array, np.memmap):
            yield array
            return
        with path.open("rb") as file:
            yield _Rows(file, array.offset, array.shape, array.dtype)


def _member(archive: zipfile.ZipFile, path: Path) -> str:
    """Name of the array of images in an `.npz`, of several parts the one to test on."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    key = image_key(names, "test") or image_key(names, "train")
    if key is None:
        raise RefusedError(
            f"{str(path)!r} has no array of images (its arrays: {', '.join(names) or 'none'}); name it 'images'"
        )
    return f"{key}.npy"


def _numpy_rows(file: IO[bytes], path: Path) -> _Rows | npt.NDArray[Any]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or not shape:
        raise RefusedError(f"{str(path)!r} holds Python objects or a single number; save plain arrays of numbers")
    if fortran:
        # Each image is scattered over the whole file, so that it cannot be read in parts.
        array: npt.NDArray[Any] = np.frombuffer(file.read(), dtype).reshape(shape, order="F")
        return array
    return _Rows(file, file.tell(), shape, dtype)


class Sequential(Source):
    """A container whose image files are read one after the other; it stays open from piece to piece."""

    def __init__(self, path: str, count: int) -> None:
        super().__init__(path, count)
        self._stack = contextlib.ExitStack()
        self._next = 0
        self._rest: Iterator[File] | None = None

    @abstractmethod
    def open(self, stack: contextlib.ExitStack, start: int) -> Iterator[File]:
        """Names and contents from number `start` on; `stack` closes what is opened."""

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
        self._rest = None

    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Decode the files in threads."""
        assert rule is not None
        if self._rest is None or self._next != start:
            self._stack.close()
            self._rest = self.open(self._stack, start)
        self._next = stop
        return stream_images(islice(self._rest, stop - start), rule, batch_size=batch_size, jobs=jobs)

    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Read and decode these only."""
        assert rule is not None
        wanted = {name for name in names if name.startswith(f"{valid_text(self.path)}/")}
        with contextlib.ExitStack() as stack:
            yield from stream_images(self.open_some(stack, wanted), rule)

    @abstractmethod
    def open_some(self, stack: contextlib.ExitStack, names: AbstractSet[str]) -> Iterator[File]:
        """Names and contents of the files with these names, all of this container; the first of equal names."""


class Tar(Sequential):
    """The image files in a tar archive, compressed or not, in the archive's order."""

    def __init__(self, path: str) -> None:
        with tarfile.open(path) as archive:
            super().__init__(path, sum(1 for _ in _members(archive)))
        if not self.count:
            raise RefusedError(f"{path!r} holds no image file ({', '.join(SUFFIXES)})")

    def open(self, stack: contextlib.ExitStack, start: int) -> Iterator[File]:
        """Paths of the archive and its member, and the member's bytes."""
        archive = stack.enter_context(tarfile.open(self.path))  # noqa: SIM115  (the stack closes it)
        members = islice(_members(archive), start, None)
        return ((f"{self.path}/{member.name}", _content(archive, member)) for member in members)

    def open_some(self, stack: contextlib.ExitStack, names: AbstractSet[str]) -> Iterator[File]:
        """Go through the headers, and read the contents of these members only."""
        missing = set(names)
        archive = stack.enter_context(tarfile.open(self.path))  # noqa: SIM115  (the stack closes it)
        members = _members(archive)
        while missing and (member := next(members, None)):
            name = f"{self.path}/{member.name}"
            if valid_text(name) in missing:
                missing.discard(valid_text(name))
                yield name, _content(archive, member)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | UnreadableError:
    if not member.isfile():  # what it leads to may lie anywhere in the archive, or outside
        return UnreadableError(
            member.name, "it is a link in the archive; pack the file itself (tar -h --hard-dereference)"
        )
    file = archive.extractfile(member)
    return file.read() if file else b""


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # or all of them would be kept
        name = member.name.lower().rpartition("/")[2]
        if (
            (member.isfile() or member.islnk() or member.issym())
            and name.endswith(SUFFIXES)
            and not name.startswith(".")
        ):
            yield member
    # To Python a broken header is the end of an archive; its end is a block of zeros.
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it breaks off after {archive.offset} bytes")


class Parquet(Sequential):
    """A column of image files in a Parquet file: bytes, or the field `bytes` of a struct as Hugging Face writes it."""

    def __init__(self, path: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                schema, count = file.schema_arrow, file.metadata.num_rows
        except pa.ArrowException as error:
            raise RefusedError(f"{path!r} is damaged or no Parquet file ({error})") from error
        held = {field.name: _field_of_bytes(field.type) for field in schema}
        self.column = next((name for name in IMAGE_COLUMNS if held.get(name)), None)
        if self.column is None or not count:
            raise RefusedError(
                f"{path!r} has no column of image files (its columns: {', '.join(held)}); name it {IMAGE_COLUMNS[0]!r}"
            )
        super().__init__(path, count)

    def open(self, stack: contextlib.ExitStack, start: int) -> Iterator[File]:
        """The path with the number of the row, and the cell's bytes."""
        import pyarrow.parquet as pq

        # With a buffer a column is read bit by bit, not a whole row group at once.
        file = stack.enter_context(pq.ParquetFile(self.path, buffer_size=2**20))
        group = first = 0
        while first + file.metadata.row_group(group).num_rows <= start:
            first += file.metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, file.num_row_groups))
        cells = (
            cell
            for batch in file.iter_batches(64, row_groups=groups, columns=[self.column])
            for cell in batch.column(0)
        )
        for number, cell in enumerate(cells, first):
            if number >= start:
                value = cell.as_py()
                yield f"{self.path}/{number:05d}", (value.get("bytes") if isinstance(value, dict) else value) or b""

    def open_some(self, stack: contextlib.ExitStack, names: AbstractSet[str]) -> Iterator[File]:
        """Read from the row group of each."""
        for row in sorted(map(_row_of, names)):
            yield next(self.open(stack, row))


def _row_of(name: str) -> int:
    """The number of the row that a name ends in."""
    return int(name.rpartition("/")[2])


def _field_of_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _field_of_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_container(path: str) -> bool:
    """Whether a path is a file of many images, told by its name."""
    lower = path.lower()
    return lower.endswith((".npz", ".npy", ".parquet", *TAR_SUFFIXES)) or is_idx(Path(path))


def open_container(path: str) -> Source:
    """The images of a file of many; one that cannot be opened is `Unreadable`."""
    kind = Tar if path.lower().endswith(TAR_SUFFIXES) else Parquet if path.lower().endswith(".parquet") else Array
    try:
        return kind(path)
    except UnreadableError as error:
        return Unreadable(path, error.reason)
    except VaeguardError as error:
        return Unreadable(path, str(error))
    except CONTAINER_ERRORS as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        return Unreadable(path, f"it is damaged or cannot be read ({detail}); copy the file again")


def errors_only(shape: tuple[int, ...], rule: ImageRule | None, errors: list[tuple[str, str]]) -> ImageBatch:
    """A batch of no images of `shape`, (C, H, W), but these errors."""
    images = np.empty((0, *shape), np.uint8) if rule else np.empty((0, *shape), np.float32)
    return ImageBatch([], images, errors)


def stamp_of(path: str) -> str:
    """Text that changes when a file does, told by name, size and time."""
    return "".join(f"{part}\0" for part in (path, *size_and_time(path)))

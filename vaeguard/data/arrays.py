"""Arrays of images and tables of vectors: the accepted shapes and types; `.npy`, `.npz` and IDX as sources."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
import warnings
import zipfile
from abc import abstractmethod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from vaeguard.data.cache import nameless_file
from vaeguard.data.decoding import MOST_SENT
from vaeguard.data.idx import read_idx_images, read_idx_pair
from vaeguard.data.images import ImageRule, reduced, shape_array
from vaeguard.data.limits import MAX_BYTES, MAX_MEMORY, MOST_SIDE
from vaeguard.data.source import Original, Source, row_of
from vaeguard.data.streams import ImageBatch
from vaeguard.errors import RefusedError
from vaeguard.storage.files import valid_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    import numpy.typing as npt

    from vaeguard.data.source import ClassLabels

    Bytes = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]
    Order = Literal["C", "F"]

MAX_HEADER = 2**16
"""Bytes of the header of an array."""
MOST_MISSING = 100
"""A header that promises so many times the bytes that follow is wrong; otherwise each missing row is an error."""
LEAST_STEPS = 32
"""A column must span this many steps of float32, or rounding hides its differences."""
NAMED_COLUMNS = 5
LEAST_SIDE = 8
"""An array (H, W, 3) with at least this height and width is one image in colour, not a stack of thin ones."""
_IMAGE_KEYS = ("images", "x", "data", "arr_0")
_LABEL_KEYS = ("labels", "y", "targets", "target", "arr_1")


class Array(Source):
    """Rows of an array, read from the file on demand: a mapped file would count as memory.

    Attributes
    ----------
    split : str or None
        The part of an archive to read; None takes the test part if there is one.
    vectors : bool
        Whether the rows are those of a table.
    """

    def __init__(self, path: str, split: str | None = None) -> None:
        self.split = split
        with contextlib.ExitStack() as stack:
            rows = self.open(stack, Path(path))
            first = rows[:1]
            if len(first) < min(1, len(rows)):
                raise _cut_short(path)
            batch = _arranged(np.broadcast_to(first, rows.shape), path)
            super().__init__(path, len(rows))
        self.vectors = len(rows.shape) == 2
        self._none = np.empty((0, *batch.shape[1:]), np.float32 if self.vectors else np.uint8)
        self._stack = contextlib.ExitStack()
        self._rows: Rows | npt.NDArray[Any] | None = None

    @abstractmethod
    def open(self, stack: contextlib.ExitStack, path: Path) -> Rows | npt.NDArray[Any]:
        """The rows, to be read a few at a time; `stack` closes the files that are opened."""

    @abstractmethod
    def whole(self) -> npt.NDArray[Any]:
        """The array, mapped if the file allows it."""

    def pixels(self, rule: ImageRule) -> npt.NDArray[Any]:
        """All images, uint8 (N, C, H, W), or vectors, float32 (N, 1, 1, F).

        Raises
        ------
        RefusedError
            Values are out of range, or a table comes with a rule for images.
        """
        array = self.whole()
        batch = as_batch(array, self.path)
        if not self.vectors:
            return to_rule(batch, rule)
        if rule != ImageRule():
            raise RefusedError(
                f"{self.path!r} contains a table, but the model, `size` or `channels` needs images; give images"
            )
        warn_of_rounding(array, self.path)
        return batch

    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Slice the array."""
        del jobs
        if self._rows is None:
            self._rows = self.open(self._stack, Path(self.path))
        row_bytes = self._rows.dtype.itemsize * math.prod(self._rows.shape[1:])
        step = max(1, min(batch_size, MOST_SENT // max(1, row_bytes)))
        for at in range(start, stop, step):
            end = min(at + step, stop)
            rows = self._rows[at:end]
            every = [f"{self.path}/{row:05d}" for row in range(at, end)]
            names, images, errors = self._checked(every[: len(rows)], rows)
            errors += [(name, str(_cut_short(self.path))) for name in every[len(rows) :]]
            yield ImageBatch(names, to_rule(images, rule) if rule else images, errors)

    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Slice single rows."""
        before = f"{valid_text(self.path)}/"
        for row in sorted(row_of(name) for name in names if name.startswith(before)):
            yield from self.batches(row, row + 1, rule, 1, None)

    def originals(self, names: AbstractSet[str], rule: ImageRule) -> Iterator[Original]:
        """Slice single rows."""
        for batch in self.pick(names, None):
            for name, image in zip(batch.paths, batch.images, strict=True):
                pixels = image.astype(np.uint8, copy=False)
                yield Original(name, to_rule(pixels[None], rule)[0], reduced(pixels, MOST_SIDE), image.shape[1:])

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
        self._rows = None

    def _checked(
        self, names: list[str], rows: npt.NDArray[Any]
    ) -> tuple[list[str], npt.NDArray[Any], list[tuple[str, str]]]:
        """The rows as images or vectors; only rows with refused values are errors."""
        with contextlib.suppress(RefusedError):
            return names, as_batch(rows, self.path), []
        good, readable, errors = [self._none], [], []
        for number, name in enumerate(names):
            try:
                good.append(as_batch(rows[number : number + 1], name))
            except RefusedError as error:
                errors.append((name, str(error)))
            else:
                readable.append(name)
        return readable, np.concatenate(good), errors


class Npy(Array):
    """The array of an `.npy` file, without labels."""

    def open(self, stack: contextlib.ExitStack, path: Path) -> Rows | npt.NDArray[Any]:
        """Read the header."""
        return _numpy_rows(stack.enter_context(path.open("rb")), path, path.stat().st_size)

    def whole(self) -> npt.NDArray[Any]:
        """Map the file."""
        return np.lib.format.open_memmap(self.path, mode="r")


class Npz(Array):
    """An array of an `.npz` archive: that of a split, or of all images; labels are the array named like it."""

    def open(self, stack: contextlib.ExitStack, path: Path) -> Rows | npt.NDArray[Any]:
        """Read the header of the array."""
        archive = stack.enter_context(zipfile.ZipFile(path))
        self._key = self._key_of_images(path, _arrays_in(archive))
        member = archive.getinfo(f"{self._key}.npy")
        return _numpy_rows(stack.enter_context(archive.open(member)), path, member.file_size)

    def whole(self) -> npt.NDArray[Any]:
        """Read the array into memory."""
        with zipfile.ZipFile(self.path) as archive:
            return _member(archive, self._key, self.path)

    def labels(self) -> ClassLabels | None:
        """Number the classes over the labels of both splits, so that both number them alike."""
        split = self.split or "test"
        with zipfile.ZipFile(self.path) as archive:
            names = _arrays_in(archive)
            keys = {part: _split_key(names, part, ("y", "labels", "targets")) for part in ("train", "test")}
            key = keys[split] or _key(names, _LABEL_KEYS)
            if key is None:
                return None
            values = np.ravel(_member(archive, key, self.path))
            both = [values]
            if keys[split]:
                both = [np.ravel(_member(archive, key, self.path)) for key in keys.values() if key]
        return check_labels(self.path, number_classes(values, np.concatenate(both)), self.count)

    def _key_of_images(self, path: Path, names: Sequence[str]) -> str:
        splits = (self.split,) if self.split else ("test", "train")
        keys = (_split_key(names, split, ("x", "images", "data")) or _key(names, _IMAGE_KEYS) for split in splits)
        if key := next(filter(None, keys), None):
            return key
        arrays = ", ".join(names) or "none"
        if self.split:
            raise RefusedError(
                f"{str(path)!r} has no images for {self.split!r} (its arrays: {arrays}); "
                f"name them 'images' and 'labels', or 'x_{self.split}' and 'y_{self.split}'"
            )
        raise RefusedError(f"{str(path)!r} has no array of images (its arrays: {arrays}); name it 'images'")


class Idx(Array):
    """The images of an IDX file, with the labels beside it."""

    def open(self, stack: contextlib.ExitStack, path: Path) -> Rows | npt.NDArray[Any]:
        """Read the header, or all of a compressed file."""
        array = read_idx_images(path)
        if not isinstance(array, np.memmap):
            return array
        return Rows(stack.enter_context(path.open("rb")), array.offset, array.shape, array.dtype)

    def whole(self) -> npt.NDArray[Any]:
        """Map the file."""
        return read_idx_images(Path(self.path))

    def labels(self) -> ClassLabels | None:
        """Read the file beside it."""
        values = read_idx_pair(Path(self.path))[1]
        return None if values is None else number_classes(values, values)


READERS: dict[str, Callable[[str, str | None], Source]] = {
    r"\.npy": Npy,
    r"\.npz": Npz,
    r"[-.]idx\d(-ubyte)?(\.gz)?": Idx,
}
"""The source of a file by the ending of its name (a regular expression)."""


class Rows:
    """Rows of an array that lies in an open file from `offset` on."""

    def __init__(self, file: IO[bytes], offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file, self._offset, self.shape, self.dtype = file, offset, shape, dtype
        self._size = dtype.itemsize * int(np.prod(shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        target = self._offset + start * self._size
        # A compressed file is skipped in small steps; its own seek would read 16 MB at a time.
        while isinstance(self._file, zipfile.ZipExtFile) and (gap := target - self._file.tell()) > 0:
            self._file.read(min(gap, 2**20))
        self._file.seek(target)
        content = self._file.read((stop - start) * self._size)
        if len(content) < (stop - start) * self._size:  # a file that is cut short may end within a row
            content = content[: len(content) // self._size * self._size]
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])


def _arrays_in(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays in an `.npz` archive."""
    return [name.removesuffix(".npy") for name in archive.namelist()]


def _numpy_rows(file: IO[bytes], path: Path, size: int) -> Rows | npt.NDArray[Any]:
    """The rows of an array in the format of NumPy, of `size` bytes with its header."""
    shape, fortran, dtype = _numpy_header(file, str(path), size)
    if not shape:
        raise RefusedError(f"{str(path)!r} contains a single number; save plain arrays of numbers")
    if dtype.itemsize * math.prod(shape[1:]) > MAX_BYTES:
        raise RefusedError(
            f"{str(path)!r} contains images of shape {shape[1:]} and type {dtype}, each larger than the limit of"
            f" {MAX_BYTES // 2**20} MB; shrink them"
        )
    if not fortran:
        return Rows(file, file.tell(), shape, dtype)
    # Each image is scattered over the whole file, so the file cannot be read in parts.
    return _in_memory(file, shape, dtype, "F")


def _numpy_header(file: IO[bytes], path: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, the order and the type of an array in a file of `size` bytes; a large header is not read."""
    width = 2 if np.lib.format.read_magic(file) == (1, 0) else 4
    packed = file.read(width)
    length = int.from_bytes(packed, "little")
    if length > MAX_HEADER:
        raise ValueError(f"its header has {length} bytes")
    read = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(io.BytesIO(packed + file.read(length)))
    if dtype.hasobject:
        raise RefusedError(f"{path!r} contains Python objects; save plain arrays of numbers")
    expected, present = dtype.itemsize * math.prod(shape), size - file.tell()
    if min(shape, default=0) < 0 or expected > MOST_MISSING * max(present, 0):
        raise RefusedError(
            f"{path!r} is damaged or cut short: its header announces {expected} bytes, but only {present} follow; "
            "copy it again"
        )
    return shape, fortran, dtype


def _in_memory(
    file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], order: Literal["C", "F"]
) -> npt.NDArray[Any]:
    """The array that follows in a file; a large one is unpacked to a nameless file, and mapped."""
    size = dtype.itemsize * math.prod(shape)
    array: npt.NDArray[Any]
    if size <= MAX_MEMORY // 4:
        array = np.frombuffer(file.read(size), dtype).reshape(shape, order=order)
        return array
    with nameless_file() as unpacked:
        shutil.copyfileobj(file, unpacked, 2**20)
        unpacked.flush()
        array = np.memmap(unpacked, dtype, "r", shape=shape, order=order)
    return array


def _member(archive: zipfile.ZipFile, key: str, path: str) -> npt.NDArray[Any]:
    """An array of an `.npz` archive."""
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as file:
        shape, fortran, dtype = _numpy_header(file, path, member.file_size)
        return _in_memory(file, shape, dtype, "F" if fortran else "C")


def _cut_short(path: str) -> RefusedError:
    return RefusedError(f"{path!r} is cut short; copy it again")


def _split_key(arrays: Sequence[str], split: str, stems: Sequence[str]) -> str | None:
    return _key(arrays, [name for stem in stems for name in (f"{stem}_{split}", f"{split}_{stem}")])


def _key(arrays: Sequence[str], names: Sequence[str]) -> str | None:
    present = {str(name).lower(): str(name) for name in arrays}
    return next((present[name] for name in names if name in present), None)


def number_classes(values: npt.NDArray[Any], all_values: npt.NDArray[Any]) -> ClassLabels:
    """Turn label values into indices; small whole numbers are their own indices, so that train and test agree.

    Raises
    ------
    RefusedError
        The values are neither whole numbers nor text.
    """
    values, all_values = _plain(np.ravel(values)), _plain(np.ravel(all_values))
    if values.dtype.kind == "f" and not (np.isfinite(all_values).all() and np.array_equal(values, np.floor(values))):
        raise RefusedError("the labels include fractions or non-finite numbers; use whole numbers or names")
    if values.dtype.kind not in "iufbU":
        raise RefusedError(f"the labels have type {values.dtype}; use whole numbers or names")
    if values.dtype.kind != "U":
        values, all_values = values.astype(np.int64), all_values.astype(np.int64)
        if all_values.size and all_values.min() >= 0 and all_values.max() < 1000:
            return values, tuple(map(str, range(int(all_values.max()) + 1)))
    unique = np.unique(all_values)
    return np.searchsorted(unique, values).astype(np.int64), tuple(map(str, unique))


def check_labels(name: str, classes: ClassLabels, count: int) -> ClassLabels:
    """Refuse labels unless there is one for each of `count` images.

    Raises
    ------
    RefusedError
        There are fewer or more labels.
    """
    if len(classes[0]) != count:
        raise RefusedError(f"{name!r} has {len(classes[0])} labels for {count} images; give one label for each")
    return classes


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert an array of Python strings, as in a data frame, to an array of text; other arrays stay the same."""
    names = values.dtype == object and all(isinstance(value, str) for value in values)
    return values.astype(str) if names else values


def as_batch(array: npt.NDArray[Any], name: str = "array") -> npt.NDArray[Any]:
    """Images as uint8 (N, C, H, W); the rows of a table of floats (N, F) as vectors, float32 (N, 1, 1, F).

    Raises
    ------
    RefusedError
        The shape, type or range is not supported; the message calls the array `name`.
    """
    batch = _arranged(array, name)
    return _to_float32(batch, name) if array.ndim == 2 else _to_uint8(batch, name)


def _arranged(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """The array as (N, C, H, W), or (N, 1, 1, F) for a table; refuses other shapes and types."""
    if not array.size:
        raise RefusedError(f"{name!r} is empty, of shape {array.shape}; give at least one image or row")
    if array.ndim == 2:
        if array.dtype.kind != "f":
            raise RefusedError(
                f"{name!r} contains {array.dtype} values of shape {array.shape}; images have three or four axes, and "
                "a table has floats of shape (N, F); save a table of whole numbers as float32"
            )
        return array[:, None, None, :]
    images = _channels_first(array, name)
    if images.dtype != np.uint8 and images.dtype.kind not in "fb":
        raise RefusedError(
            f"{name!r} contains {images.dtype} values; save the images as uint8, or as floats from 0 to 1"
        )
    return images


def _channels_first(images: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    shape = images.shape
    if len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) >= LEAST_SIDE:
        raise RefusedError(
            f"{name!r} contains an array of shape {shape}, which looks like one image in colour; save it as (1,"
            " H, W, C)"
        )
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] > 4 and images.shape[3] <= 4:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] > 4:
        raise RefusedError(
            f"{name!r} contains an array of shape {shape}; images have shape (N, H, W), (N, C, H, W) "
            "or (N, H, W, C) with 1 to 4 channels"
        )
    return images


def _to_float32(table: npt.NDArray[Any], name: str) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(table, np.float32)
    if not np.isfinite(vectors).all():
        raise RefusedError(
            f"{name!r} contains NaN, infinity or numbers too large for float32; replace these numbers or remove their"
            " rows"
        )
    return vectors


def _to_uint8(images: npt.NDArray[Any], name: str) -> Bytes:
    if images.dtype == np.uint8:
        return images
    pixels = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), 256):
        part = np.asarray(images[start : start + 256], np.float64)
        if not (part.min() >= 0 and part.max() <= 1):  # false for NaN too
            raise RefusedError(f"{name!r} contains floats outside 0 to 1 (or NaN); scale the images to 0..1")
        pixels[start : start + 256] = np.round(part * 255)
    return pixels


def to_rule(images: Bytes, rule: ImageRule) -> Bytes:
    """Bring uint8 images (N, C, H, W) to the shape of `rule`; images of this shape are returned unchanged."""
    channels, *size = images.shape[1:]
    wanted = (rule.channels or channels, *(rule.size or size))
    if wanted == images.shape[1:]:
        return images
    pixels = np.empty((len(images), *wanted), np.uint8)
    for number, image in enumerate(images):
        pixels[number] = shape_array(image, rule)
    return pixels


def warn_of_rounding(table: npt.NDArray[Any], name: str = "array") -> None:
    """Warn of the columns of a table (N, F) whose differences are lost in float32.

    A time in seconds since 1970 is such a column, since float32 numbers of that size lie 128 apart.
    """
    if table.dtype != np.float64 or table.size == 0:
        return
    low, high = table.min(axis=0), table.max(axis=0)
    furthest = np.maximum(-low, high)
    with np.errstate(over="ignore", invalid="ignore"):
        resolved = (high - low) >= LEAST_STEPS * np.spacing(furthest.astype(np.float32))
    constant = (high - low) <= LEAST_STEPS * np.spacing(furthest)  # apart from rounding
    lost = np.flatnonzero(~(resolved | constant))
    if lost.size:
        columns = ", ".join(map(str, lost[:NAMED_COLUMNS])) + (" and more" if lost.size > NAMED_COLUMNS else "")
        warnings.warn(
            f"{name!r}: differences within column {columns} are lost, because they are too small for numbers so"
            " far from zero "
            "(float32 keeps seven digits); subtract the column's mean first, as scikit-learn's StandardScaler does",
            stacklevel=3,
        )

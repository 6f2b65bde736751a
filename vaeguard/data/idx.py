"""IDX files, the format of MNIST: finding them, and reading images with the labels beside them."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.limits import MAX_MEMORY
from vaeguard.errors import RefusedError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    Pair = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64] | None]

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4"}
_GZIP_MOST = 1040
"""The largest compression ratio of deflate; a header that promises more data is damaged."""


def read_idx(path: Path) -> npt.NDArray[Any]:
    """Read an IDX file, compressed by gzip or not, and check that its length agrees with its header.

    Raises
    ------
    RefusedError
        The file is damaged, cut short or no IDX file.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            dtype, shape = _header(file.read(4), file.read, path)
            offset, expected = 4 + 4 * len(shape), math.prod(shape) * dtype.itemsize
            content = _unpacked(file.read, expected, path) if packed else b""
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, first_line(error)) from error
    except OSError as error:
        raise VaeguardError(f"cannot read {str(path)!r}: {error.strerror}; check the file") from error
    present = len(content) if packed else path.stat().st_size - offset
    if present != expected:
        many = "more" if present > expected else f"{present}"
        raise damaged(path, f"its header announces {expected} bytes of data, but there are {many}")
    if packed or expected == 0:
        return np.frombuffer(content, dtype).reshape(shape)
    return np.memmap(path, dtype, "r", offset=offset, shape=shape)


def read_idx_images(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of images, memory-mapped unless compressed.

    Raises
    ------
    RefusedError
        The file is damaged, cut short or holds no images.
    """
    images = read_idx(path)
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or images.size == 0:
        raise RefusedError(
            f"{str(path)!r} contains {images.dtype} values of shape {images.shape}, not uint8 images; give the"
            " file with the images"
        )
    return images


def read_idx_pair(path: Path) -> Pair:
    """Read an IDX file of images, and the file of labels beside it if there is one.

    Raises
    ------
    RefusedError
        A file is damaged or cut short, or the two do not belong together.
    """
    images = read_idx_images(path)
    labels_path = _labels_beside(path)
    if labels_path is None:
        return images, None
    labels = read_idx(labels_path)
    if labels.shape != images.shape[:1]:
        raise RefusedError(
            f"{str(labels_path)!r} has labels of shape {labels.shape} for the {len(images)} images in {str(path)!r}; "
            "download both files again"
        )
    return images, labels.astype(np.int64)


def idx_files(prefix: str = "", test: str = "t10k") -> dict[str, tuple[str, ...]]:
    """The names of the files of images and labels, by split."""
    return {
        split: (f"{prefix}{part}-images-idx3-ubyte", f"{prefix}{part}-labels-idx1-ubyte")
        for split, part in (("train", "train"), ("test", test))
    }


def find_idx(folder: Path, split: str) -> Path | None:
    """Return the images file of `split` if the folder holds MNIST-like IDX files."""
    path = packed_or_plain(folder / idx_files()[split][0])
    return path if path.is_file() else None


def packed_or_plain(plain: Path) -> Path:
    """The path `plain`, or the same with `.gz` after it if only that file exists."""
    packed = plain.with_name(plain.name + ".gz")
    return packed if packed.is_file() and not plain.is_file() else plain


def damaged(path: Path, fact: str) -> RefusedError:
    """The error for a file of a data set that breaks the rules of its format."""
    return RefusedError(f"{str(path)!r} is damaged or of the wrong kind ({fact}); download it again")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or else its type."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _header(start: bytes, read: Callable[[int], bytes], path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES or not 1 <= start[3] <= 4:
        raise damaged(path, "it does not start like an IDX file of integers")
    lengths = read(4 * start[3])
    if len(lengths) < 4 * start[3]:
        raise damaged(path, "its header is cut short")
    return np.dtype(_TYPES[start[2]]), struct.unpack(f">{start[3]}I", lengths)


def _unpacked(read: Callable[[int], bytes], expected: int, path: Path) -> bytes:
    """The data behind the header of a packed file, at most one byte more than expected; empty if it must be damaged."""
    if expected > path.stat().st_size * _GZIP_MOST:
        return b""
    if expected > MAX_MEMORY // 2:
        raise RefusedError(
            f"{str(path)!r} is compressed and contains {expected / 2**30:.1f} GB of data, too much to unpack in"
            " memory; unpack it first, for example with gunzip"
        )
    return read(expected + 1)


def _labels_beside(path: Path) -> Path | None:
    name = re.sub(r"images([-.])idx[34]", r"labels\1idx1", path.name)
    if name == path.name:
        return None
    labels = packed_or_plain(path.with_name(name.removesuffix(".gz")))
    return labels if labels.is_file() else None

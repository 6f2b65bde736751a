"""The data sets known by name, the layouts in which they are found on disk, and their file formats."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import RefusedError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]
    Pair = tuple[Bytes, Labels | None]

_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4"}
_GZIP_MOST = 1040  # deflate cannot shrink more than this; a header that promises more is damaged
_DIGITS = tuple("0123456789")
_FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_BALANCED = (*"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt",)
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class NamedSet:
    """A known data set: its classes, where it lies below the data folder, and how it is read and downloaded.

    Attributes
    ----------
    class_names : tuple of str
        Names of the classes, in the order of the labels.
    folders : tuple of str
        Folders below the data folder that may hold it, torchvision's layout among them.
    files : dict of tuple of str
        Names of the files that each split needs, by split; an IDX file may have `.gz` after it.
    read : callable
        Takes the folder and the split, returns uint8 images (N, H, W) or (N, C, H, W) and labels.
    torchvision : str
        The class of `torchvision.datasets` that downloads it; empty if none can do so safely.
    """

    class_names: tuple[str, ...]
    folders: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    read: Callable[[Path, str], Pair]
    torchvision: str = ""


def _idx_files(prefix: str = "", test: str = "t10k") -> dict[str, tuple[str, ...]]:
    return {
        split: (f"{prefix}{part}-images-idx3-ubyte", f"{prefix}{part}-labels-idx1-ubyte")
        for split, part in (("train", "train"), ("test", test))
    }


def _idx_reader(files: Mapping[str, tuple[str, ...]], *, transposed: bool = False) -> Callable[[Path, str], Pair]:
    def read(folder: Path, split: str) -> Pair:
        images, labels = read_idx_pair(_present(folder / files[split][0]))
        return (np.ascontiguousarray(images.swapaxes(1, 2)) if transposed else images), labels

    return read


def read_cifar10(folder: Path, split: str) -> Pair:
    """Read the binary version of CIFAR-10: records of one label byte and 3 x 32 x 32 pixels."""
    parts = [np.fromfile(folder / name, np.uint8) for name in _CIFAR10_FILES[split]]
    for name, part in zip(_CIFAR10_FILES[split], parts, strict=True):
        if part.size == 0 or part.size % 3073:
            raise _damaged(folder / name, f"{part.size} bytes are no whole number of records of 3073 bytes")
    records = np.concatenate(parts).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def read_svhn(folder: Path, split: str) -> Pair:
    """Read SVHN's MATLAB file; its label 10 stands for the digit 0."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = folder / _SVHN_FILES[split][0]
    try:
        content = loadmat(path, variable_names=["X", "y"])
        images, labels = np.asarray(content["X"]), np.asarray(content["y"])
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError, zlib.error) as error:
        raise _damaged(path, _first_line(error)) from error
    if images.dtype != np.uint8 or images.ndim != 4 or labels.size != images.shape[3]:
        raise _damaged(path, f"X has shape {images.shape} and y {labels.shape}")
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels.ravel().astype(np.int64) % 10


_MNIST_FILES = _idx_files()
_EMNIST_FILES = _idx_files("emnist-balanced-", "test")
_CIFAR10_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_SVHN_FILES = {split: (f"{split}_32x32.mat",) for split in ("train", "test")}

NAMED_SETS = {
    "mnist": NamedSet(_DIGITS, ("mnist", "MNIST/raw", "MNIST"), _MNIST_FILES, _idx_reader(_MNIST_FILES), "MNIST"),
    "fashion-mnist": NamedSet(
        _FASHION,
        ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
        _MNIST_FILES,
        _idx_reader(_MNIST_FILES),
        "FashionMNIST",
    ),
    "kmnist": NamedSet(_KANA, ("kmnist", "KMNIST/raw", "KMNIST"), _MNIST_FILES, _idx_reader(_MNIST_FILES), "KMNIST"),
    "emnist": NamedSet(
        _BALANCED,
        ("emnist", "EMNIST/raw", "EMNIST"),
        _EMNIST_FILES,
        _idx_reader(_EMNIST_FILES, transposed=True),  # the files hold each letter mirrored at its diagonal
        "EMNIST",
    ),
    "cifar10": NamedSet(
        _CIFAR10,
        ("cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"),
        _CIFAR10_FILES,
        read_cifar10,
    ),
    "svhn": NamedSet(_DIGITS, ("svhn", "SVHN", "."), _SVHN_FILES, read_svhn, "SVHN"),
}
"""Every set that is read from the data folder, by name; `digits` comes with scikit-learn and needs no files."""

NAMES = ("digits", *NAMED_SETS)


def find_sets(data_dir: str | Path | None = None) -> list[str]:
    """Return the names of the sets of which at least one split lies in the data folder."""
    folder = data_folder(data_dir)
    return [name for name in NAMED_SETS if any(_find(name, split, folder) for split in ("train", "test"))]


def data_folder(data_dir: str | Path | None) -> Path:
    """Return `data_dir`, else $VAEGUARD_DATA, else `data`."""
    return Path(data_dir or os.environ.get("VAEGUARD_DATA") or "data")


def read_named(name: str, split: str, data_dir: str | Path | None, *, download: bool) -> tuple[Bytes, Labels]:
    """Read a set by name: uint8 images (N, H, W) or (N, C, H, W), and labels into its class names.

    Raises
    ------
    VaeguardError
        The set is not there, or cannot be downloaded.
    RefusedError
        Its files are damaged.
    """
    if name == "digits":
        return _read_digits(split)
    folder = data_folder(data_dir)
    found = _find(name, split, folder)
    if found is None and download:
        _download(name, split, folder)
        found = _find(name, split, folder)
    if found is None:
        raise _missing(name, split, folder)
    try:
        images, labels = NAMED_SETS[name].read(found, split)
    except OSError as error:
        raise VaeguardError(f"cannot read {name!r} in {str(found)!r}: {error.strerror}; check its files") from error
    classes = len(NAMED_SETS[name].class_names)
    if labels is None or labels.size != len(images) or labels.min() < 0 or labels.max() >= classes:
        raise _damaged(found, f"it has not one label from 0 to {classes - 1} for each image")
    return images, labels


def read_idx_pair(path: Path) -> Pair:
    """Read an IDX file of images, memory-mapped unless compressed, and the labels file beside it if there is one.

    Raises
    ------
    RefusedError
        A file is damaged or cut short, or the two do not belong together.
    """
    images = read_idx(path)
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or images.size == 0:
        raise RefusedError(
            f"{str(path)!r} holds {images.dtype} of shape {images.shape}, not uint8 images; give the file of the images"
        )
    labels_path = _labels_beside(path)
    if labels_path is None:
        return images, None
    labels = read_idx(labels_path)
    if labels.shape != images.shape[:1]:
        raise RefusedError(
            f"{str(labels_path)!r} has labels of shape {labels.shape} for the {len(images)} images in {str(path)!r}; "
            "get both files again"
        )
    return images, labels.astype(np.int64)


def read_idx(path: Path) -> npt.NDArray[Any]:
    """Read an IDX file, compressed by gzip or not, after checking that its length is what its header says.

    Raises
    ------
    RefusedError
        The file is damaged, cut short or no IDX file.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            dtype, shape = _idx_header(file.read(4), file.read, path)
            offset, expected = 4 + 4 * len(shape), math.prod(shape) * dtype.itemsize
            size = path.stat().st_size
            content = file.read(expected + 1) if packed and expected <= size * _GZIP_MOST else b""
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, _first_line(error)) from error
    except OSError as error:
        raise VaeguardError(f"cannot read {str(path)!r}: {error.strerror}; check the file") from error
    found = len(content) if packed else size - offset
    if found != expected:
        many = "more" if found > expected else f"{found}"
        raise _damaged(path, f"its header promises {expected} bytes of data, but there are {many}")
    if packed or expected == 0:
        return np.frombuffer(content, dtype).reshape(shape)
    return np.memmap(path, dtype, "r", offset=offset, shape=shape)


def is_idx(path: Path) -> bool:
    """Tell by its name whether a file is IDX: `...-idx3-ubyte`, `....idx3-ubyte.gz`."""
    return re.search(r"[-.]idx\d(-ubyte)?(\.gz)?$", path.name) is not None


def find_idx(folder: Path, split: str) -> Path | None:
    """Return the images file of `split` if the folder holds MNIST-like IDX files."""
    path = _present(folder / _MNIST_FILES[split][0])
    return path if path.is_file() else None


def _idx_header(start: bytes, read: Callable[[int], bytes], path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _IDX_TYPES or not 1 <= start[3] <= 4:
        raise _damaged(path, "it does not begin like an IDX file of integers")
    lengths = read(4 * start[3])
    if len(lengths) < 4 * start[3]:
        raise _damaged(path, "its header is cut short")
    return np.dtype(_IDX_TYPES[start[2]]), struct.unpack(f">{start[3]}I", lengths)


def _labels_beside(path: Path) -> Path | None:
    name = re.sub(r"images([-.])idx[34]", r"labels\1idx1", path.name)
    if name == path.name:
        return None
    plain = path.with_name(name.removesuffix(".gz"))
    labels = _present(plain)
    return labels if labels.is_file() else None


def _present(plain: Path) -> Path:
    packed = plain.with_name(plain.name + ".gz")
    return packed if packed.is_file() and not plain.is_file() else plain


def _find(name: str, split: str, folder: Path) -> Path | None:
    known = NAMED_SETS[name]
    for place in known.folders:
        if all(_present(folder / place / file).is_file() for file in known.files[split]):
            return folder / place
    return None


def _read_digits(split: str) -> tuple[Bytes, Labels]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)
    labels = digits.target.astype(np.int64)
    # The third, sixth, ... image of each class is for testing: the same split everywhere, without a random generator.
    test = np.zeros(len(labels), bool)
    for label in range(10):
        test[np.flatnonzero(labels == label)[2::3]] = True
    chosen = test if split == "test" else ~test
    return images[chosen], labels[chosen]


def _download(name: str, split: str, folder: Path) -> None:
    known = NAMED_SETS[name]
    if not known.torchvision:
        raise _missing(name, split, folder)
    from torchvision import datasets

    options: dict[str, object] = {"train": split == "train"}
    root = folder
    if name == "emnist":
        options["split"] = "balanced"
    if name == "svhn":
        options, root = {"split": split}, folder / "svhn"
    try:
        getattr(datasets, known.torchvision)(root=str(root), download=True, **options)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise VaeguardError(
            f"cannot download {name!r} into {str(folder)!r} ({_first_line(error)}); "
            "check the network, or put its files there as data/README.md says"
        ) from error


def _missing(name: str, split: str, folder: Path) -> VaeguardError:
    known = NAMED_SETS[name]
    places = ", ".join(str(folder / place) for place in known.folders)
    if name == "cifar10":
        found = "only its pickled version is there, and pickles are never read: " if _pickled(folder) else ""
        advice = f"{found}get the binary version, cifar-10-binary.tar.gz, and unpack it into {str(folder)!r}"
    else:
        advice = "set `download` to fetch it, or `data_dir` to its folder"
    sets = ", ".join(["digits", *find_sets(folder)])
    return VaeguardError(
        f"the {split} part of data set {name!r} is in none of {places} (looked for {known.files[split][0]}); {advice}; "
        f"sets that are there: {sets}"
    )


def _pickled(folder: Path) -> bool:
    return any((folder / place / "cifar-10-batches-py").is_dir() for place in (".", "cifar10"))


def _damaged(path: Path, fact: str) -> RefusedError:
    return RefusedError(f"{str(path)!r} is damaged or of the wrong kind ({fact}); get it again")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__

"""The data sets known by name: their layouts on disk, reading and fetching."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.arrays import Array
from vaeguard.data.idx import damaged, first_line, idx_files, packed_or_plain, read_idx_pair
from vaeguard.errors import VaeguardError

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from vaeguard.data.source import ClassLabels

    Bytes = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]
    Pair = tuple[Bytes, Labels | None]

_DIGITS = tuple("0123456789")
_FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")
_KANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_BALANCED = (*"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt",)
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class NamedSet:
    """A known data set: its classes, its folders and files, and the ways to read and download it.

    Attributes
    ----------
    class_names : tuple of str
        The names of the classes, in the order of the labels.
    folders : tuple of str
        The folders below the data folder that may hold the set, torchvision's layout among them.
    files : dict of tuple of str
        The names of the files that each split needs, by split; an IDX file may have `.gz` after its name.
    read : callable
        Takes the folder and the split, returns uint8 images (N, H, W) or (N, C, H, W) and labels.
    torchvision : str
        The class of `torchvision.datasets` that downloads the set; empty if none can do so safely.
    """

    class_names: tuple[str, ...]
    folders: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    read: Callable[[Path, str], Pair]
    torchvision: str = ""


def _idx_reader(files: Mapping[str, tuple[str, ...]], *, transposed: bool = False) -> Callable[[Path, str], Pair]:
    def read(folder: Path, split: str) -> Pair:
        images, labels = read_idx_pair(packed_or_plain(folder / files[split][0]))
        return (np.ascontiguousarray(images.swapaxes(1, 2)) if transposed else images), labels

    return read


def read_cifar10(folder: Path, split: str) -> Pair:
    """Read the binary version of CIFAR-10: records of one label byte and 3 x 32 x 32 pixels."""
    parts = [np.fromfile(folder / name, np.uint8) for name in _CIFAR10_FILES[split]]
    for name, part in zip(_CIFAR10_FILES[split], parts, strict=True):
        if part.size == 0 or part.size % 3073:
            raise damaged(folder / name, f"{part.size} bytes are not a multiple of the record size of 3073 bytes")
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
        raise damaged(path, first_line(error)) from error
    if images.dtype != np.uint8 or images.ndim != 4 or labels.size != images.shape[3]:
        raise damaged(path, f"X has shape {images.shape} and y {labels.shape}")
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), labels.ravel().astype(np.int64) % 10


_MNIST_FILES = idx_files()
_EMNIST_FILES = idx_files("emnist-balanced-", "test")
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
"""The sets that are read from the data folder, by name; `digits` comes with scikit-learn and needs no files."""

NAMES = ("digits", *NAMED_SETS)


class NamedSource(Array):
    """A part of a set known by name."""

    def __init__(self, name: str, split: str, data_dir: str | Path | None = None, *, download: bool = False) -> None:
        self._array, self._labels = read_named(name, split, data_dir, download=download)
        self._class_names = NAMED_SETS[name].class_names if name in NAMED_SETS else tuple("0123456789")
        super().__init__(f"{name}/{split}", split)

    def open(self, stack: contextlib.ExitStack, path: Path) -> npt.NDArray[Any]:
        """Return the array."""
        del stack, path
        return self._array

    def whole(self) -> npt.NDArray[Any]:
        """Return the array."""
        return self._array

    def labels(self) -> ClassLabels:
        """Return the labels of the set."""
        return self._labels, self._class_names

    def stamp(self, start: int, stop: int) -> bytes:
        """The pixels."""
        return np.ascontiguousarray(self._array[start:stop]).tobytes()


def find_sets(data_dir: str | Path | None = None) -> list[str]:
    """Return the names of the sets with at least one split in the data folder."""
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
        The set is missing, or cannot be downloaded.
    RefusedError
        The files are damaged.
    """
    if name == "digits":
        return _read_digits(split)
    folder = data_folder(data_dir)
    place = _find(name, split, folder)
    if place is None and download:
        _download(name, split, folder)
        place = _find(name, split, folder)
    if place is None:
        raise _missing(name, split, folder)
    try:
        images, labels = NAMED_SETS[name].read(place, split)
    except OSError as error:
        raise VaeguardError(f"cannot read {name!r} in {str(place)!r}: {error.strerror}; check its files") from error
    classes = len(NAMED_SETS[name].class_names)
    if labels is None or labels.size != len(images) or labels.min() < 0 or labels.max() >= classes:
        raise damaged(place, f"it needs a label from 0 to {classes - 1} for each image")
    return images, labels


def _find(name: str, split: str, folder: Path) -> Path | None:
    known = NAMED_SETS[name]
    for place in known.folders:
        if all(packed_or_plain(folder / place / file).is_file() for file in known.files[split]):
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
            f"cannot download {name!r} into {str(folder)!r} ({first_line(error)}); "
            "check your internet connection, or put the files of this data set there as described in data/README.md"
        ) from error


def _missing(name: str, split: str, folder: Path) -> VaeguardError:
    known = NAMED_SETS[name]
    places = ", ".join(str(folder / place) for place in known.folders)
    if name == "cifar10":
        fact = "only its pickled version was found, which is never read for safety; " if _pickled(folder) else ""
        advice = f"{fact}download the binary version, cifar-10-binary.tar.gz, and unpack it into {str(folder)!r}"
    else:
        advice = "add `download` to download it, or set `data_dir` to the folder that contains it"
    sets = ", ".join(["digits", *find_sets(folder)])
    return VaeguardError(
        f"the {split} part of data set {name!r} was not found in {places} (looked for"
        f" {known.files[split][0]}); {advice}; available data sets: {sets}"
    )


def _pickled(folder: Path) -> bool:
    return any((folder / place / "cifar-10-batches-py").is_dir() for place in (".", "cifar10"))

"""Image sets: images of one shape with their names and labels, the form in which data is passed on."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.arrays import as_batch, check_labels, number_classes, warn_of_rounding
from vaeguard.data.cache import digest_array, take
from vaeguard.data.images import write_png
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.wording import brief

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from vaeguard.data.source import ClassLabels

    Pixels = npt.NDArray[Any]
    Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one shape, or vectors of one length, with their names and labels.

    Attributes
    ----------
    name : str
        The name of the data set, folder or file.
    images : uint8 (N, C, H, W) or float32 (N, 1, 1, F)
        Pixels, which may be a read-only memory map; or vectors of F finite features in any units.
    labels : int64 (N,) or None
        Index into `class_names`; None for a flat folder.
    class_names : tuple of str
        Empty where `labels` is None.
    paths : sequence of str
        A name for each image: the path of its file, or a name such as `mnist/test/00017`.
    fingerprint : str
        SHA-256 (hex) over the content.
    errors : tuple of (path, reason)
        Inputs that could not be read; they are not among the images.
    note : str or None
        A remark on how the images were read, in one sentence.
    named : bool
        Whether `name` is the name of a known data set and the images are those of that set.
    left_out : str or None
        One sentence on files beside the images that look like images and are not read.
    pixel_range : (black, white) or None
        The range of pixels with which files of 16 bits were read.
    source : str or None
        The absolute path that was opened; None for a named set or an array.
    regions : bool
        Whether the last channel of the images holds their regions, see `own_regions`.
    """

    name: str
    images: Pixels
    labels: Labels | None
    class_names: tuple[str, ...]
    paths: Sequence[str]
    fingerprint: str
    errors: tuple[tuple[str, str], ...] = ()
    note: str | None = None
    named: bool = False
    left_out: str | None = None
    pixel_range: tuple[int, ...] | None = None
    source: str | None = None
    regions: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return brief(self, name=self.name, images=self.images, class_names=self.class_names, errors=len(self.errors))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of an image, without the channel of its region."""
        channels, height, width = self.images.shape[1:]
        return channels - self.regions, height, width

    @property
    def vectors(self) -> bool:
        """Whether these are vectors (tables, embeddings) instead of images."""
        return self.images.dtype != np.uint8

    @property
    def what(self) -> str:
        """The word for the content in messages: `images` or `vectors`."""
        return "vectors" if self.vectors else "images"

    def select(self, indices: npt.ArrayLike) -> ImageSet:
        """Return the images at `indices` (integers, or a boolean mask), in that order; mapped arrays stay on disk."""
        chosen = np.asarray(indices)
        rows = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64).reshape(-1)
        return replace(
            self,
            images=take(self.images, rows),
            labels=None if self.labels is None else self.labels[rows],
            paths=tuple(self.paths[row] for row in rows.tolist()),
            fingerprint=digest_array(rows.view(np.uint8), self.fingerprint),
        )


def write_images(image_set: ImageSet, folder: str | Path) -> None:
    """Write every image as PNG: `folder/<class>/<number>.png`, or `folder/<number>.png` without labels.

    The folder appears when it is complete.

    Raises
    ------
    UsageError
        The folder exists and is not empty, the images have 2 channels, they are vectors, or two classes would be one
        folder.
    VaeguardError
        The folder cannot be written.
    """
    folder = Path(folder)
    if image_set.vectors:
        raise UsageError(f"{image_set.name!r} contains vectors, which cannot be written as PNG; give images")
    if image_set.images.shape[1] == 2:
        raise UsageError("images with 2 channels cannot be written as PNG; give images with 1, 3 or 4 channels")
    names = _class_folders(image_set.class_names)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{str(folder)!r} exists and is not an empty folder; choose a different folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)) / "images"
        try:
            _write_all(image_set, names, temporary)
            if folder.is_dir():
                folder.rmdir()
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary.parent, ignore_errors=True)
    except OSError as error:
        raise VaeguardError(f"cannot write {str(folder)!r}: {error.strerror}; choose a different folder") from error


def _class_folders(class_names: Sequence[str]) -> list[str]:
    """The name of each class's folder: no path, and not hidden."""
    names = [name.replace("/", "-").lstrip(".") or "class" for name in class_names]
    classes: dict[str, str] = {}
    for folder, name in zip(names, class_names, strict=True):
        if folder in classes:
            raise UsageError(
                f"the classes {classes[folder]!r} and {name!r} would share the folder {folder!r}; rename one of them"
            )
        classes[folder] = name
    return names


def _write_all(image_set: ImageSet, names: Sequence[str], folder: Path) -> None:
    for name in names or [""]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(image_set.images):
        name = "" if image_set.labels is None else names[image_set.labels[number]]
        write_png(folder / name / f"{number:05d}.png", image)


def digests_of(images: Iterable[Pixels]) -> npt.NDArray[np.uint64]:
    """64 bits of BLAKE2b over the pixels of each image, shape (N,): equal for equal images, hardly ever otherwise."""
    digests = (hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(digests), np.uint64)


def fingerprint_of(images: Pixels, labels: Labels | None, class_names: tuple[str, ...]) -> str:
    """SHA-256 (hex) over pixels or features, labels and class names."""
    return digest_array(images, class_names, "" if labels is None else digest_array(labels.view(np.uint8)))


def from_array(images: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> ImageSet:
    """Wrap an array and its labels (N,).

    Images are (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 or floats in [0, 1]; vectors (the rows of a table,
    embeddings) are floats of shape (N, F) in any units.

    Raises
    ------
    RefusedError
        The shape or type is not supported, a vector contains NaN or infinity, or the number of labels is wrong.
    UsageError
        `images` is a name, which `vaeguard.open_images` opens.
    """
    if isinstance(images, (str, os.PathLike)):
        raise UsageError(f"{str(images)!r} is a name, not an array; open it with vaeguard.open_images")
    array = np.asarray(images)
    batch = as_batch(array)
    if array.ndim == 2:
        warn_of_rounding(array)
    return from_batch(batch, labels)


def as_image_set(images: ImageSet | npt.ArrayLike, labels: npt.ArrayLike | None = None) -> ImageSet:
    """Return an image set unchanged, and wrap an array by `from_array`.

    Raises
    ------
    RefusedError
        As `from_array`.
    UsageError
        As `from_array`, or labels are given for an image set, which holds its own.
    """
    if not isinstance(images, ImageSet):
        return from_array(images, labels)
    if labels is not None:
        raise UsageError(
            "labels can only be given with an array of images; an ImageSet has its own, set with dataclasses.replace"
        )
    return images


def new_image_set(
    name: str, images: Pixels, classes: ClassLabels | None, paths: Sequence[str], **facts: Any
) -> ImageSet:
    """Make an image set with the fingerprint of its images and classes."""
    labels, class_names = classes or (None, ())
    # The fingerprint covers pixels, labels and order, not files: a set is recognised in any container.
    return ImageSet(name, images, labels, class_names, paths, fingerprint_of(images, labels, class_names), **facts)


def from_batch(batch: npt.NDArray[Any], labels: npt.ArrayLike | None = None) -> ImageSet:
    """Wrap a batch that `as_batch` returned, and its labels (N,).

    Raises
    ------
    RefusedError
        The labels do not fit.
    """
    values = None if labels is None else np.asarray(labels)
    classes = None if values is None else check_labels("array", number_classes(values, values), len(batch))
    paths = tuple(f"array/{number:05d}" for number in range(len(batch)))
    return new_image_set("array", batch, classes, paths)

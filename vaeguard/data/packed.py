"""Images, or the rows of a table, packed in one file or array: IDX pairs, `.npz`, `.npy`, named sets, arrays."""

from __future__ import annotations

import os
import tokenize
import warnings
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.image_set import ImageSet, fingerprint_of
from vaeguard.data.images import ImageRule, shape_array
from vaeguard.data.named_sets import NAMED_SETS, read_idx_pair, read_named
from vaeguard.errors import RefusedError, UsageError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]

LEAST_STEPS = 32
"""So many steps of its type a column spans, or rounding hides what it says."""
NAMED_COLUMNS = 5
LEAST_SIDE = 8
"""Of an array (H, W, 3) that must be one image in colour, and not images that are 3 pixels wide."""
_IMAGE_KEYS = ("images", "x", "data", "arr_0")
_LABEL_KEYS = ("labels", "y", "targets", "target", "arr_1")
ARRAY_ERRORS = (
    *(OSError, ValueError, EOFError, KeyError, SyntaxError, NotImplementedError, RuntimeError, MemoryError),
    *(TypeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def open_named(name: str, split: str, rule: ImageRule, data_dir: str | Path | None, *, download: bool) -> ImageSet:
    """Open the part `split` of a named set."""
    images, labels = read_named(name, split, data_dir, download=download)
    class_names = NAMED_SETS[name].class_names if name in NAMED_SETS else tuple("0123456789")
    return _packed(name, f"{name}/{split}", images, labels, class_names, rule)


def open_idx(path: Path, rule: ImageRule) -> ImageSet:
    """Open an IDX file of images with the labels that lie beside it."""
    images, values = read_idx_pair(path)
    labels, class_names = _number_classes(values, values)
    return _packed(path.resolve().parent.name or path.name, str(path), images, labels, class_names, rule)


def open_arrays(path: Path, split: str, rule: ImageRule) -> ImageSet:
    """Open an `.npy` of images or of a table of floats (N, F), or an `.npz` of these and labels."""
    try:
        if path.suffix.lower() == ".npy":
            return _packed(path.stem, str(path), np.lib.format.open_memmap(path, mode="r"), None, (), rule)
        if not zipfile.is_zipfile(path):
            raise RefusedError(f"{str(path)!r} is damaged or no .npz archive; write it again with numpy.savez")
        with np.load(path, allow_pickle=False) as archive:
            images, values, all_values = _arrays_of(archive, path, split)
    except ARRAY_ERRORS as error:
        if isinstance(error, VaeguardError):  # a UsageError is a ValueError too
            raise
        pickled = "allow_pickle" in str(error) or "pickle" in str(error)
        fact = "it holds Python objects, which are never read" if pickled else f"damaged or of the wrong kind: {error}"
        raise RefusedError(f"cannot read {str(path)!r} ({fact}); save plain arrays with numpy.savez") from error
    labels, class_names = _number_classes(values, all_values)
    return _packed(path.stem, str(path), images, labels, class_names, rule)


def _arrays_of(archive: Any, path: Path, split: str) -> tuple[Any, Any, Any]:
    """Return the images and labels of `split`, and the labels of both splits, from which the classes follow."""
    images = image_key(archive.files, split)
    if images is None:
        raise RefusedError(
            f"{str(path)!r} has no images for {split!r} (its arrays: {', '.join(archive.files) or 'none'}); "
            f"name them 'images' and 'labels', or 'x_{split}' and 'y_{split}'"
        )
    labels = _split_key(archive.files, split, ("y", "labels", "targets"))
    if labels is None:
        labels = _key(archive.files, _LABEL_KEYS)
        return archive[images], None if labels is None else archive[labels], None if labels is None else archive[labels]
    other = _split_key(archive.files, "test" if split == "train" else "train", ("y", "labels", "targets"))
    values = np.ravel(archive[labels])
    return archive[images], values, values if other is None else np.append(values, np.ravel(archive[other]))


def _split_key(arrays: Sequence[str], split: str, stems: Sequence[str]) -> str | None:
    return _key(arrays, [name for stem in stems for name in (f"{stem}_{split}", f"{split}_{stem}")])


def image_key(arrays: Sequence[str], split: str) -> str | None:
    """Which of the names of an archive's arrays is that of the images of `split`, or of all where none is."""
    return _split_key(arrays, split, ("x", "images", "data")) or _key(arrays, _IMAGE_KEYS)


def _key(arrays: Sequence[str], names: Sequence[str]) -> str | None:
    present = {str(name).lower(): str(name) for name in arrays}
    return next((present[name] for name in names if name in present), None)


def _number_classes(values: Any, all_values: Any) -> tuple[Labels | None, tuple[str, ...]]:
    """Turn label values into indices; small whole numbers keep theirs, so that train and test agree."""
    if values is None:
        return None, ()
    values, all_values = _plain(np.ravel(values)), _plain(np.ravel(all_values))
    if values.dtype.kind == "f" and not (np.isfinite(all_values).all() and np.array_equal(values, np.floor(values))):
        raise RefusedError("the labels are fractions or not finite; give whole numbers or names")
    if values.dtype.kind not in "iufbU":
        raise RefusedError(f"the labels have type {values.dtype}; give whole numbers or names")
    if values.dtype.kind != "U":
        values, all_values = values.astype(np.int64), all_values.astype(np.int64)
        if all_values.size and all_values.min() >= 0 and all_values.max() < 1000:
            return values, tuple(map(str, range(int(all_values.max()) + 1)))
    unique = np.unique(all_values)
    return np.searchsorted(unique, values).astype(np.int64), tuple(map(str, unique))


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Names that are Python objects, as in a data frame, as an array of text."""
    names = values.dtype == object and all(isinstance(value, str) for value in values)
    return values.astype(str) if names else values


def _packed(
    name: str, prefix: str, images: npt.NDArray[Any], labels: Labels | None, names: tuple[str, ...], rule: ImageRule
) -> ImageSet:
    if images.ndim == 2:
        if rule != ImageRule():
            raise RefusedError(
                f"{prefix!r} holds a table, and the model, `size` or `channels` ask for images; give images"
            )
        vectors = as_batch(images, prefix)
        warn_of_rounding(images, prefix)
        return _image_set(name, prefix, vectors, labels, names)
    pixels = to_rule(_to_uint8(_channels_first(images, prefix), prefix), rule)
    return _image_set(name, prefix, pixels, labels, names)


def _image_set(
    name: str, prefix: str, pixels: npt.NDArray[Any], labels: Labels | None, names: tuple[str, ...]
) -> ImageSet:
    if labels is not None and len(labels) != len(pixels):
        raise RefusedError(f"{prefix!r} has {len(labels)} labels for {len(pixels)} images; give one for each")
    fingerprint = fingerprint_of(pixels, labels, names)
    paths = tuple(f"{prefix}/{number:05d}" for number in range(len(pixels)))
    return ImageSet(name, pixels, labels, names, paths, fingerprint)


def as_batch(array: npt.NDArray[Any], name: str = "array") -> npt.NDArray[Any]:
    """Images as uint8 (N, C, H, W); the rows of a table of floats (N, F) as vectors, float32 (N, 1, 1, F).

    Raises
    ------
    RefusedError
        Shape, type or range is another one; the message calls the array `name`.
    """
    if not array.size:
        raise RefusedError(f"{name!r} is empty, of shape {array.shape}; give at least one image or row")
    if array.ndim == 2:
        return _vectors(array, name)
    return _to_uint8(_channels_first(array, name), name)


def _vectors(table: npt.NDArray[Any], name: str) -> npt.NDArray[np.float32]:
    if table.dtype.kind != "f":
        raise RefusedError(
            f"{name!r} holds {table.dtype} of shape {table.shape}; vectors are floats of shape (N, F), "
            "images have three or four axes"
        )
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(table, np.float32)
    if not np.isfinite(vectors).all():
        raise RefusedError(
            f"{name!r} holds NaN, infinity or numbers too large for float32; fill these in or leave their rows out"
        )
    return vectors[:, None, None, :]


def warn_of_rounding(table: npt.NDArray[Any], name: str = "array") -> None:
    """Warn of the columns of a table (N, F) whose differences are lost when vectors become float32.

    A time in seconds since 1970 is such a column: numbers so large lie 128 apart there.
    """
    if table.dtype != np.float64 or table.size == 0:
        return
    low, high = table.min(axis=0), table.max(axis=0)
    furthest = np.maximum(-low, high)
    with np.errstate(over="ignore", invalid="ignore"):
        kept = (high - low) >= LEAST_STEPS * np.spacing(furthest.astype(np.float32))
    rounding = (high - low) <= LEAST_STEPS * np.spacing(furthest)  # of a column that is constant
    lost = np.flatnonzero(~(kept | rounding))
    if lost.size:
        columns = ", ".join(map(str, lost[:NAMED_COLUMNS])) + (" and more" if lost.size > NAMED_COLUMNS else "")
        warnings.warn(
            f"{name!r}: differences within column {columns} are lost, being too small for numbers so far from zero "
            "(float32 keeps seven digits); subtract the column's mean first, as scikit-learn's StandardScaler does",
            stacklevel=3,
        )


def check_many(shape: tuple[int, ...], name: str) -> None:
    """Refuse the shape of one image in colour, whose rows would be taken for images.

    Raises
    ------
    RefusedError
        It is (H, W, 3) or (H, W, 4).
    """
    if len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) >= LEAST_SIDE:
        raise RefusedError(
            f"{name!r} holds an array of shape {shape}, which looks like one image in colour; save it as (1, H, W, C)"
        )


def _channels_first(images: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    shape = images.shape
    check_many(shape, name)
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] > 4 and images.shape[3] <= 4:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] > 4 or images.size == 0:
        raise RefusedError(
            f"{name!r} holds an array of shape {shape}; images have shape (N, H, W), (N, C, H, W) "
            "or (N, H, W, C) with 1 to 4 channels"
        )
    return images


def _to_uint8(images: npt.NDArray[Any], name: str) -> Bytes:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "fb":
        raise RefusedError(f"{name!r} holds {images.dtype}; save the images as uint8, or as floats from 0 to 1")
    pixels = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), 256):
        part = np.asarray(images[start : start + 256], np.float64)
        if not (part.min() >= 0 and part.max() <= 1):  # false for NaN too
            raise RefusedError(f"{name!r} holds floats outside 0 to 1 (or NaN); scale the images to 0..1")
        pixels[start : start + 256] = np.round(part * 255)
    return pixels


def to_rule(images: Bytes, rule: ImageRule) -> Bytes:
    """Bring uint8 images (N, C, H, W) to the shape of `rule`; those that have it stay as they are."""
    channels, *size = images.shape[1:]
    wanted = (rule.channels or channels, *(rule.size or size))
    if wanted == images.shape[1:]:
        return images
    pixels = np.empty((len(images), *wanted), np.uint8)
    for number, image in enumerate(images):
        pixels[number] = shape_array(image, rule)
    return pixels


def from_array(images: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> ImageSet:
    """Wrap an array and its labels (N,).

    Images are (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 or floats in [0, 1]; vectors (the rows of a table,
    embeddings) are floats of shape (N, F) in any units.

    Raises
    ------
    RefusedError
        The shape or type is another one, a vector holds NaN or infinity, or the labels do not fit.
    UsageError
        It is a name, which `vaeguard.open_images` opens.
    """
    if isinstance(images, (str, os.PathLike)):
        raise UsageError(f"{str(images)!r} is a name, not an array; open it with vaeguard.open_images")
    array = np.asarray(images)
    batch = as_batch(array)
    if array.ndim == 2:
        warn_of_rounding(array)
    return from_batch(batch, labels)


def as_image_set(images: ImageSet | npt.ArrayLike, labels: npt.ArrayLike | None = None) -> ImageSet:
    """An image set as it is; an array as `from_array` wraps it.

    Raises
    ------
    RefusedError
        As `from_array`.
    UsageError
        As `from_array`, or an image set comes with labels besides its own.
    """
    if not isinstance(images, ImageSet):
        return from_array(images, labels)
    if labels is not None:
        raise UsageError(
            "labels go with an array of images, and an ImageSet holds its own; put them there with dataclasses.replace"
        )
    return images


def from_batch(batch: npt.NDArray[Any], labels: npt.ArrayLike | None = None) -> ImageSet:
    """Wrap what `as_batch` returned, and its labels (N,).

    Raises
    ------
    RefusedError
        The labels do not fit.
    """
    values = None if labels is None else np.asarray(labels)
    numbers, class_names = _number_classes(values, values)
    return _image_set("array", "array", batch, numbers, class_names)

"""Where images come from: a named set, a folder, an IDX pair, `.npz` or `.npy`; all become one `ImageSet`."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vaeguard.cache import Progress, decode_folder, digest_array, take
from vaeguard.errors import RefusedError, UnreadableError, UsageError, VaeguardError
from vaeguard.images import (
    SUFFIXES,
    ImageBatch,
    ImageRule,
    chunks,
    default_jobs,
    map_ahead,
    read_header,
    shape_array,
    stream_images,
    write_png,
)
from vaeguard.named_sets import NAMED_SETS, NAMES, find_idx, find_sets, is_idx, read_idx_pair, read_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]
    Header = tuple[tuple[int, int], int]

__all__ = ["ImageBatch", "ImageSet", "find_sets", "list_images", "open_images", "stream_images", "write_images"]

FOLDER_SIDE = 128
"""Images of a folder are scaled down to this longest side, in pixels, unless a size is asked for."""

_IMAGE_KEYS = ("images", "x", "data", "arr_0")
_LABEL_KEYS = ("labels", "y", "targets", "target", "arr_1")
_ARRAY_ERRORS = (
    *(OSError, ValueError, EOFError, KeyError, SyntaxError, NotImplementedError, RuntimeError, MemoryError),
    *(TypeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one shape, with what is known of them.

    Attributes
    ----------
    name : str
        The data set's name, or the folder's or file's.
    images : uint8 (N, C, H, W)
        Pixels; may be a read-only memory map.
    labels : int64 (N,) or None
        Index into `class_names`; None for a flat folder.
    class_names : tuple of str
        Empty where `labels` is None.
    paths : sequence of str
        Identity of each image: its file, or like `mnist/test/00017`.
    fingerprint : str
        SHA-256 (hex) over the content.
    errors : tuple of (path, reason)
        Inputs that could not be read; they are not among the images.
    """

    name: str
    images: Bytes
    labels: Labels | None
    class_names: tuple[str, ...]
    paths: Sequence[str]
    fingerprint: str
    errors: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.images)

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


def open_images(
    data: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    rule: ImageRule | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Open a data set: its name, a folder, an IDX file of images, an `.npz` or an `.npy`.

    `split` chooses the part of a named set, of a folder with `train` and `test` in it, and of an `.npz` with both.
    Named sets win over folders of the same name; write `./mnist` for the folder. Folders are decoded once into the
    cache. `progress(done, total)` counts files.

    Raises
    ------
    UsageError
        There is no such data, or a folder's images do not fit together.
    VaeguardError
        A named set is not there, a download failed, or no image of a folder can be read.
    RefusedError
        A packed file is damaged or holds something else than images.
    """
    if split not in ("train", "test"):
        raise UsageError(f"split is {split!r}; it must be 'train' or 'test'")
    rule = rule or ImageRule()
    if str(data) in NAMES:
        return _open_named(str(data), split, rule, data_dir, download=download)
    path = Path(data)
    if path.is_dir():
        packed = find_idx(path, split)
        return _open_idx(packed, rule) if packed else _open_folder(path, split, rule, jobs, progress)
    if not path.is_file():
        raise _no_such_data(str(data))
    if path.suffix.lower() in (".npz", ".npy"):
        return _open_arrays(path, split, rule)
    if is_idx(path):
        return _open_idx(path, rule)
    raise UsageError(
        f"{str(path)!r} is no data set; give a folder of images, an IDX file of images, an .npz, an .npy "
        f"or one of {_names()}"
    )


def list_images(inputs: Sequence[str | Path]) -> list[str]:
    """Return the sorted paths of all images in files and folders (searched recursively), each path once.

    A named file is listed whatever its suffix. In folders only the suffixes of `SUFFIXES` count, and hidden files
    do not; a folder that may not be opened is listed itself, so that it is reported and not skipped.

    Raises
    ------
    UsageError
        A path does not exist, or no image is found.
    """
    found: set[str] = set()
    for given in inputs:
        path = str(given)
        if not os.path.lexists(path):
            raise UsageError(f"there is no file or folder {path!r}; check the path")
        is_folder = Path(path).is_dir()
        found.update((str(Path(path, name)) for name in _walk(path)) if is_folder else [path])
    if not found:
        raise UsageError(
            f"no images in {', '.join(repr(str(given)) for given in inputs) or 'no inputs'}; {_suffixes()}"
        )
    return sorted(found)


def write_images(image_set: ImageSet, folder: str | Path) -> None:
    """Write every image as PNG: `folder/<class>/<number>.png`, or `folder/<number>.png` without labels.

    The folder appears when it is complete.

    Raises
    ------
    UsageError
        The folder exists and is not empty, or the images have 2 channels.
    VaeguardError
        The folder cannot be written.
    """
    folder = Path(folder)
    if image_set.images.shape[1] == 2:
        raise UsageError("images with 2 channels cannot be written as PNG; give images with 1, 3 or 4 channels")
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{str(folder)!r} exists and is not an empty folder; choose another place with -o")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)) / "images"
        try:
            _write_all(image_set, temporary)
            if folder.is_dir():
                folder.rmdir()
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary.parent, ignore_errors=True)
    except OSError as error:
        raise VaeguardError(f"cannot write {str(folder)!r}: {error.strerror}; choose another place with -o") from error


def _write_all(image_set: ImageSet, folder: Path) -> None:
    names = [name.replace("/", "-").lstrip(".") or "class" for name in image_set.class_names]
    for name in names or [""]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(image_set.images):
        name = "" if image_set.labels is None else names[image_set.labels[number]]
        write_png(folder / name / f"{number:05d}.png", image)


def _open_named(name: str, split: str, rule: ImageRule, data_dir: str | Path | None, *, download: bool) -> ImageSet:
    images, labels = read_named(name, split, data_dir, download=download)
    class_names = NAMED_SETS[name].class_names if name in NAMED_SETS else tuple("0123456789")
    return _packed(name, f"{name}/{split}", images, labels, class_names, rule)


def _open_idx(path: Path, rule: ImageRule) -> ImageSet:
    images, values = read_idx_pair(path)
    labels, class_names = _number_classes(values, values)
    return _packed(path.resolve().parent.name or path.name, str(path), images, labels, class_names, rule)


def _open_arrays(path: Path, split: str, rule: ImageRule) -> ImageSet:
    try:
        if path.suffix.lower() == ".npy":
            return _packed(path.stem, str(path), np.lib.format.open_memmap(path, mode="r"), None, (), rule)
        if not zipfile.is_zipfile(path):
            raise RefusedError(f"{str(path)!r} is damaged or no .npz archive; write it again with numpy.savez")
        with np.load(path, allow_pickle=False) as archive:
            images, values, all_values = _arrays_of(archive, path, split)
    except _ARRAY_ERRORS as error:
        if isinstance(error, VaeguardError):  # a UsageError is a ValueError too
            raise
        pickled = "allow_pickle" in str(error) or "pickle" in str(error)
        fact = "it holds Python objects, which are never read" if pickled else f"damaged or of the wrong kind: {error}"
        raise RefusedError(f"cannot read {str(path)!r} ({fact}); save plain arrays with numpy.savez") from error
    labels, class_names = _number_classes(values, all_values)
    return _packed(path.stem, str(path), images, labels, class_names, rule)


def _arrays_of(archive: Any, path: Path, split: str) -> tuple[Any, Any, Any]:
    """Return the images and labels of `split`, and the labels of both splits, from which the classes follow."""
    images = _split_key(archive, split, ("x", "images", "data")) or _key(archive, _IMAGE_KEYS)
    if images is None:
        raise RefusedError(
            f"{str(path)!r} has no images for {split!r} (its arrays: {', '.join(archive.files) or 'none'}); "
            f"name them 'images' and 'labels', or 'x_{split}' and 'y_{split}'"
        )
    labels = _split_key(archive, split, ("y", "labels", "targets"))
    if labels is None:
        labels = _key(archive, _LABEL_KEYS)
        return archive[images], None if labels is None else archive[labels], None if labels is None else archive[labels]
    other = _split_key(archive, "test" if split == "train" else "train", ("y", "labels", "targets"))
    values = np.ravel(archive[labels])
    return archive[images], values, values if other is None else np.append(values, np.ravel(archive[other]))


def _split_key(archive: Any, split: str, stems: Sequence[str]) -> str | None:
    return _key(archive, [name for stem in stems for name in (f"{stem}_{split}", f"{split}_{stem}")])


def _key(archive: Any, names: Sequence[str]) -> str | None:
    present = {str(name).lower(): str(name) for name in archive.files}
    return next((present[name] for name in names if name in present), None)


def _number_classes(values: Any, all_values: Any) -> tuple[Labels | None, tuple[str, ...]]:
    """Turn label values into indices; small whole numbers keep theirs, so that train and test agree."""
    if values is None:
        return None, ()
    values, all_values = np.ravel(values), np.ravel(all_values)
    if values.dtype.kind == "f" and not np.array_equal(values, np.floor(values)):
        raise RefusedError("the labels are fractions; give whole numbers or names")
    if values.dtype.kind not in "iufbU":
        raise RefusedError(f"the labels have type {values.dtype}; give whole numbers or names")
    if values.dtype.kind != "U":
        values, all_values = values.astype(np.int64), all_values.astype(np.int64)
        if all_values.size and all_values.min() >= 0 and all_values.max() < 1000:
            return values, tuple(map(str, range(int(all_values.max()) + 1)))
    unique = np.unique(all_values)
    return np.searchsorted(unique, values).astype(np.int64), tuple(map(str, unique))


def _packed(
    name: str, prefix: str, images: npt.NDArray[Any], labels: Labels | None, names: tuple[str, ...], rule: ImageRule
) -> ImageSet:
    if labels is not None and len(labels) != len(images):
        raise RefusedError(f"{prefix!r} has {len(labels)} labels for {len(images)} images; give one for each")
    pixels = _to_rule(_to_uint8(_channels_first(images, prefix), prefix), rule)
    fingerprint = digest_array(pixels, names, "" if labels is None else digest_array(labels.view(np.uint8)))
    paths = tuple(f"{prefix}/{number:05d}" for number in range(len(pixels)))
    return ImageSet(name, pixels, labels, names, paths, fingerprint)


def _channels_first(images: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    shape = images.shape
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


def _to_rule(images: Bytes, rule: ImageRule) -> Bytes:
    channels, *size = images.shape[1:]
    wanted = (rule.channels or channels, *(rule.size or size))
    if wanted == images.shape[1:]:
        return images
    pixels = np.empty((len(images), *wanted), np.uint8)
    for number, image in enumerate(images):
        pixels[number] = shape_array(image, rule)
    return pixels


def _open_folder(path: Path, split: str, rule: ImageRule, jobs: int | None, progress: Progress | None) -> ImageSet:
    halves = {part: path / part for part in ("train", "test")}
    if all(half.is_dir() for half in halves.values()):
        root, other = halves[split], halves["test" if split == "train" else "train"]
        names = _walk(root)
        # Both parts number their classes alike, also where training has only the normal one.
        class_names = sorted({*_classes(root, names), *_classes(other, _walk(other))})
    else:
        root, names = path, _walk(path)
        class_names = _classes(root, names)
    if not names:
        raise UsageError(f"no images in folder {str(root)!r}; {_suffixes()}")
    resolve = partial(_common_rule, root, names, rule, jobs)
    decoded = decode_folder(root, names, rule, resolve, jobs=jobs, progress=progress)
    readable = [name for name in names if name not in decoded.errors]
    labels = None
    if class_names:
        index = {name: number for number, name in enumerate(class_names)}
        labels = np.array([index[name.partition(os.sep)[0]] for name in readable], np.int64)
    errors = tuple((str(root / name), reason) for name, reason in decoded.errors.items())
    paths = tuple(str(root / name) for name in readable)
    return ImageSet(
        path.resolve().name or str(path), decoded.images, labels, tuple(class_names), paths, decoded.key, errors
    )


def _classes(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the names of the immediate sub-folders that hold images; empty for a flat folder."""
    classes = sorted({name.partition(os.sep)[0] for name in names if os.sep in name})
    loose = next((name for name in names if os.sep not in name and _is_image(name)), None)
    if classes and loose:
        raise UsageError(
            f"folder {str(folder)!r} holds images itself (such as {loose!r}) and in sub-folders (such as "
            f"{classes[0]!r}); move every image into a class sub-folder, or all of them into one folder"
        )
    if loose is None and not classes and names:
        raise UsageError(f"no sub-folder of {str(folder)!r} can be opened; check the permissions")
    return classes


def _walk(folder: str | Path) -> list[str]:
    """Return the sorted relative paths of the images below a folder, and of sub-folders that cannot be opened.

    Links are followed; each folder is seen once, so that loops end.
    """
    found: list[str] = []
    closed: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, onerror=closed.append, followlinks=True):
        identity = _identity(place)
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = os.path.relpath(place, folder)
        prefix = "" if inside == "." else inside + os.sep
        found += [prefix + name for name in files if _is_image(name)]
    return sorted(found + [os.path.relpath(error.filename, folder) for error in closed])


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _identity(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError:  # it vanished meanwhile
        return (-1, -1)
    return (status.st_dev, status.st_ino)


def _common_rule(
    root: Path, names: Sequence[str], rule: ImageRule, jobs: int | None, unreadable: set[str]
) -> ImageRule:
    """Fill in the size and channels that the rule leaves open, from the headers of all files."""
    if rule.size and rule.channels:
        return rule
    paths = [str(root / name) for name in names if name not in unreadable]
    jobs = jobs or default_jobs(paths[:32])
    parts = map_ahead(lambda part: [_header(path) for path in part], chunks(paths, 64), jobs=jobs, ahead=2 * jobs)
    headers = [header for part in parts for header in part if header]
    if not headers:
        return ImageRule(rule.size or (1, 1), rule.channels or 1)  # every file will be an error
    channels = rule.channels or max(channels for _, channels in headers)
    return ImageRule(rule.size or _common_size(root, headers), channels)


def _header(path: str) -> Header | None:
    try:
        return read_header(path)
    except UnreadableError:
        return None


def _common_size(root: Path, headers: Sequence[Header]) -> tuple[int, int]:
    sizes = Counter(size for size, _ in headers)
    if len(sizes) > 1:
        listed = ", ".join(f"{height}x{width} ({count} files)" for (height, width), count in sizes.most_common(3))
        more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
        raise UsageError(
            f"images in {str(root)!r} have different sizes (height x width): {listed}{more}; "
            "choose one for all with --size, such as --size 64"
        )
    (size,) = sizes
    scale = min(1.0, FOLDER_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _no_such_data(data: str) -> UsageError:
    close = difflib.get_close_matches(data, NAMES, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"no data set, folder or file {data!r}; {hint}known names are {_names()}")


def _names() -> str:
    return ", ".join(NAMES)


def _suffixes() -> str:
    return f"files ending in {', '.join(SUFFIXES)} are read"

"""Folders of image files: which files count, which classes they have, and the one shape they are brought to."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.cache import decode_folder
from vaeguard.data.image_set import ImageSet, fingerprint_of
from vaeguard.data.images import SUFFIXES, ImageRule, read_header
from vaeguard.data.streams import chunks, default_jobs, map_ahead
from vaeguard.errors import UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vaeguard.progress import Progress

    Bytes = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]
    Header = tuple[tuple[int, int], int]

_RUN = {"model.safetensors", "report.json"}
"""Files of a folder that `fit` wrote."""
FOLDER_SIDE = 128
"""Images of a folder are scaled down to this longest side, in pixels, unless a size is asked for."""


def list_images(inputs: Sequence[str | Path], suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Return the sorted paths of all images in files and folders (searched recursively), each path once.

    A named file is listed whatever its suffix. In folders only those with one of `suffixes` count, and hidden files
    do not; a folder that may not be opened is listed itself, so that it is reported and not skipped.

    Raises
    ------
    UsageError
        A path does not exist, or no image is found.
    """
    found: list[str] = []
    for given in inputs:
        path = str(given)
        if not os.path.lexists(path):
            raise UsageError(f"there is no file or folder {path!r}; check the path")
        if Path(path).is_dir():
            root = "" if str(Path(path)) == "." else str(Path(path))
            found.extend(os.path.join(root, name) for name in _walk(path, suffixes))  # noqa: PTH118  (a million of them)
        else:
            found.append(path)
    if not found:
        raise UsageError(
            f"no images in {', '.join(repr(str(given)) for given in inputs) or 'no inputs'}; "
            f"files ending in {', '.join(suffixes)} are read"
        )
    # One input has no path twice; a set of millions is not made without need.
    return sorted(found if len(inputs) == 1 else set(found))


def open_folder(path: Path, split: str, rule: ImageRule, jobs: int | None, progress: Progress | None) -> ImageSet:
    """Decode a folder, flat or with class sub-folders, or its half `split` where it has `train` and `test`."""
    halves = {part: path / part for part in ("train", "test")}
    if all(half.is_dir() for half in halves.values()):
        root, other = halves[split], halves["test" if split == "train" else "train"]
        names = _walk(root)
        # Both parts number their classes alike, also where training has only the normal one.
        own, others = _classes(root, names), _classes(other, _walk(other))
        if bool(own) != bool(others) and names:
            flat, sorted_ = (root, other) if others else (other, root)
            raise UsageError(
                f"{str(flat)!r} is flat, but {str(sorted_)!r} has class sub-folders; sort both alike, such as"
                f" {str(flat / 'good')!r}"
            )
        class_names = sorted({*own, *others})
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
    # Of pixels, labels and order, not of the files: the same set is known again whatever it is packed in.
    fingerprint = fingerprint_of(decoded.images, labels, tuple(class_names))
    errors = tuple((str(root / name), reason) for name, reason in decoded.errors.items())
    paths = tuple(str(root / name) for name in readable)
    name = path.resolve().name or str(path)
    note = None if rule.size else _shrunk(root, readable[0], decoded.images)
    return ImageSet(name, decoded.images, labels, tuple(class_names), paths, fingerprint, errors, note)


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


def _walk(folder: str | Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Return the sorted relative paths of the images below a folder, and of sub-folders that cannot be opened.

    Links to folders are followed; each folder is seen once, so that loops end, and under its own name where it has one.
    Run folders of our own are left out.
    """
    found: list[str] = []
    closed: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    waiting = [str(folder)]
    while waiting:
        links: list[str] = []
        for place, folders, files in chain.from_iterable(os.walk(start, onerror=closed.append) for start in waiting):
            identity = _identity(place)
            if identity in seen:
                folders.clear()
                continue
            seen.add(identity)
            if _RUN.issubset(files) and place != str(folder):  # its pictures are none of the data
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = os.path.relpath(place, folder)
            prefix = "" if inside == "." else inside + os.sep
            found += [prefix + name for name in files if _is_image(name, suffixes)]
            links += [path for name in folders if os.path.islink(path := os.path.join(place, name))]  # noqa: PTH114, PTH118
        waiting = links
    return sorted(found + [os.path.relpath(error.filename, folder) for error in closed])


def _is_image(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    return name.lower().endswith(suffixes) and not name.startswith(".")


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
            f"images in {str(root)!r} have different sizes (height x width): {listed}{more}; set `size` to scale all to"
            " one"
        )
    (size,) = sizes
    scale = min(1.0, FOLDER_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrunk(root: Path, name: str, images: Bytes) -> str | None:
    """Say that images of a folder were scaled down though nobody asked for it, or None; all have the size of one."""
    # Told by the result, since nothing is scaled when the cache has it already.
    height, width = images.shape[2:]
    header = _header(str(root / name)) if max(height, width) == FOLDER_SIDE else None
    if header is None or header[0] == (height, width):
        return None
    own = "x".join(map(str, header[0]))
    return (
        f"the images in {str(root)!r} have {own} pixels (height x width) and were scaled down to {height}x{width}; set"
        " `size` for another size, and for small defects use the preset patches as well"
    )


def _suffixes() -> str:
    return f"files ending in {', '.join(SUFFIXES)} are read"

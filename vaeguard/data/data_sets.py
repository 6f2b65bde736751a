"""Data sets: the images of all sources become one `ImageSet`."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vaeguard.data.arrays import Array, Idx
from vaeguard.data.cache import decode_files
from vaeguard.data.folders import Files, sorted_once
from vaeguard.data.image_set import new_image_set
from vaeguard.data.images import SUFFIXES, ImageRule, read_header
from vaeguard.data.inputs import (
    expanded,
    is_container,
    is_named,
    open_folder,
    open_paths,
    paths_in,
    without_ending,
)
from vaeguard.data.named_sets import NAMES, NamedSource
from vaeguard.data.source import Encoded, Unreadable, reading
from vaeguard.data.streams import chunks, default_jobs, map_ahead
from vaeguard.errors import RefusedError, UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.data.source import ClassLabels, Source
    from vaeguard.data.streams import File
    from vaeguard.progress import Progress

    Size = tuple[int, int]

SHEETS = (".csv", ".tsv", ".xlsx")
"""Endings of tables that are not read."""
LONGEST_SIDE = 128
"""Image files are scaled down to this longest side, in pixels, unless a size is asked for."""


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
    """Open a data set: its name, a folder, an image file, a glob of these, an array, a tar archive, a Parquet file.

    `split` chooses the part of a named set, of a folder or tar archive with `train` and `test` in it, of an `.npz` with
    both, and of a folder of Parquet files whose names begin with these. Named sets win over folders of the same name;
    write `./mnist` for the folder. Image files are decoded once into the cache, by `jobs` threads (None: as many as the
    machine has use for); `progress(done, total, text)` counts them. `rule` sets the size and channels of the images
    (None: unchanged, and all have to agree). Named sets lie in `data_dir` (None: `$VAEGUARD_DATA`, else `data/`), or
    are fetched into it with `download`.

    Classes are the sub-folders of a folder or of a tar archive, the labels beside an IDX file or in an `.npz`, and the
    column `label` or `class` of a Parquet file.

    Raises
    ------
    UsageError
        There is no such data, or its images have different sizes.
    VaeguardError
        A named set is missing, a download failed, or no image can be read.
    RefusedError
        A container is damaged or does not hold images.
    """
    if split not in ("train", "test"):
        raise UsageError(f"`split` is {split!r}; it must be 'train' or 'test'")
    rule = rule or ImageRule()
    if not is_named(data):
        return _image_set(str(data), sources_of(data, split), rule, jobs, progress)
    source = NamedSource(str(data), split, data_dir, download=download)
    note = f"this is the named set {data}; for the folder of that name give './{data}'" if Path(data).is_dir() else None
    return new_image_set(str(data), source.pixels(rule), source.labels(), source.names, note=note, named=True)


def open_packed(
    data: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    data_dir: str | Path | None = None,
    download: bool = False,
) -> ImageSet:
    """Open a set in one file or array, as `open_images` does, but with images in their original size.

    Raises
    ------
    UsageError
        The set is a folder of image files; otherwise as `open_images`.
    VaeguardError, RefusedError
        As `open_images`.
    """
    if is_named(data):
        return open_images(data, split=split, data_dir=data_dir, download=download)
    sources = sources_of(data, split)
    if any(isinstance(source, Files) for source in sources):
        raise UsageError(
            f"{str(data)!r} is a folder of files already; give a named set, an IDX file, an .npz, an .npy, "
            "a tar archive or a Parquet file"
        )
    rule = ImageRule()
    if encoded := [source for source in sources if isinstance(source, Encoded)]:
        shrunk, size = _common_rule(encoded, rule, str(data), None)
        rule = ImageRule(size, shrunk.channels)
    return _image_set(str(data), sources, rule)


def data_of_fit(name: str, *, named: bool) -> str:
    """The named set that a model was fitted on: `name`, if the fit says that its data were a `named` set.

    Raises
    ------
    UsageError
        The model was fitted on other data, which cannot be opened by name.
    """
    if name not in NAMES or not named:
        raise UsageError(f"`data` is missing, and the model was fitted on {name!r}, which is no named set; give `data`")
    return name


def sources_of(data: str | Path, split: str) -> list[Source]:
    """Find the images of a data set that is not a named set.

    Raises
    ------
    UsageError
        There is no such data.
    """
    path = Path(data)
    if path.is_dir():
        return open_folder(path, split)
    paths = expanded(str(data))
    if not os.path.lexists(paths[0]):
        raise _no_such_data(str(data))
    if len(paths) == 1 and not is_container(paths[0]) and not paths[0].lower().endswith(SUFFIXES):
        raise _no_data_set(path)
    return open_paths(sorted_once(chain.from_iterable(map(paths_in, paths))), split)


def _image_set(
    data: str, sources: list[Source], rule: ImageRule, jobs: int | None = None, progress: Progress | None = None
) -> ImageSet:
    """Read all images of the sources, which are either all arrays or all image files."""
    broken = [source for source in sources if isinstance(source, Unreadable)]
    sources = [source for source in sources if not isinstance(source, Unreadable)]
    if not sources:
        raise broken[0].error
    names = tuple(chain.from_iterable(source.names for source in sources))
    with reading(sources[0].path):
        classes = _joined_labels([source.labels() for source in sources])
    images, unreadable, note = _read(data, sources, rule, jobs, progress)
    if unreadable:
        rows = np.delete(np.arange(len(names)), list(unreadable))
        classes = classes and (classes[0][rows], classes[1])
    errors = [(source.path, source.reason) for source in broken]
    errors += [(names[row], reason) for row, reason in unreadable.items()]
    paths = tuple(name for row, name in enumerate(names) if row not in unreadable)
    return new_image_set(_name_of(data, sources[0]), images, classes, paths, errors=tuple(errors), note=note)


def _read(
    data: str, sources: list[Source], rule: ImageRule, jobs: int | None, progress: Progress | None
) -> tuple[npt.NDArray[Any], dict[int, str], str | None]:
    """The readable images, the reason for each unreadable one by its number, and a note on the reading."""
    arrays = [source for source in sources if isinstance(source, Array)]
    encoded = [source for source in sources if isinstance(source, Encoded)]
    if arrays and encoded:
        raise UsageError(f"{data!r} holds both arrays and image files; give either")
    if arrays:
        with reading(arrays[0].path):
            return _joined(data, [array.pixels(rule) for array in arrays]), {}, None
    place = encoded[0].place if len(encoded) == 1 else data
    resolve = partial(_common_rule, encoded, rule, place, jobs)
    decoded = decode_files(encoded, rule, resolve, place, jobs=jobs, progress=progress)
    return decoded.images, decoded.errors, _shrunk(place, decoded.size, decoded.images.shape[2:])


def _name_of(data: str, source: Source) -> str:
    """The name of a folder, or of a file without its ending; for an IDX file or a glob, the name of its folder."""
    path = Path(data)
    if path.is_dir():
        return path.resolve().name or data
    if isinstance(source, Idx) or not os.path.lexists(data):
        return Path(source.path).resolve().parent.name or path.name
    return without_ending(path.name)


def _joined(data: str, parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    shapes = sorted({part.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise RefusedError(f"the arrays of {data!r} have different shapes, such as {shapes[0]} and {shapes[1]}")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _joined_labels(parts: Sequence[ClassLabels | None]) -> ClassLabels | None:
    """Give a class the same number in all parts; None unless all parts have labels."""
    known = [part for part in parts if part]
    if len(known) < len(parts):
        return None
    if len(known) == 1:
        return known[0]
    names = sorted({name for _, names in known for name in names}, key=lambda name: (len(name) * name.isdigit(), name))
    numbers = {name: number for number, name in enumerate(names)}
    tables = [np.array([numbers[name] for name in names], np.int64) for _, names in known]
    return np.concatenate([table[labels] for table, (labels, _) in zip(tables, known, strict=True)]), tuple(names)


def _common_rule(
    sources: Sequence[Encoded], rule: ImageRule, place: str, jobs: int | None
) -> tuple[ImageRule, Size | None]:
    """Fill in the open size and channels of the rule from the headers of all files; also return the files' size."""
    if rule.size and rule.channels:
        return rule, None
    headers = _headers(sources, jobs)
    if not headers:
        return ImageRule(rule.size or (1, 1), rule.channels or 1), None  # no file can be read, so any size will do
    channels = rule.channels or max(channels for _, channels in headers)
    if rule.size:
        return ImageRule(rule.size, channels), None
    size = _common_size(place, Counter(size for size, _ in headers))
    scale = min(1.0, LONGEST_SIDE / max(size))
    return ImageRule((max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), channels), size


def _headers(sources: Sequence[Encoded], jobs: int | None) -> list[tuple[Size, int]]:
    """The size and the channels of each file that can be read."""
    files = chain.from_iterable(source.files() for source in sources)
    first = list(islice(files, 32))
    jobs = jobs or default_jobs(first)
    parts = map_ahead(lambda part: [*map(_header, part)], chunks(chain(first, files), 64), jobs=jobs, ahead=2 * jobs)
    return [header for part in parts for header in part if header]


def _header(file: File) -> tuple[Size, int] | None:
    name, content = (file, None) if isinstance(file, str) else file
    try:
        return None if isinstance(content, UnreadableError) else read_header(name, content)
    except UnreadableError:
        return None


def _common_size(place: str, sizes: Counter[Size]) -> Size:
    if len(sizes) > 1:
        listed = ", ".join(f"{height}x{width} ({count} files)" for (height, width), count in sizes.most_common(3))
        more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
        raise UsageError(
            f"images in {place!r} have different sizes (height x width): {listed}{more}; set `size` to scale all to one"
        )
    (size,) = sizes
    return size


def _shrunk(place: str, size: Size | None, decoded: tuple[int, ...]) -> str | None:
    """A note that images were scaled down though nobody asked for it; None if they were not."""
    if size is None or size == decoded:
        return None
    original, scaled = ("x".join(map(str, sides)) for sides in (size, decoded))
    return (
        f"the images in {place!r} have {original} pixels (height x width) and were scaled down to {scaled}; set"
        " `size` for another size, and for small defects use the preset patches as well"
    )


def _no_such_data(data: str) -> UsageError:
    close = difflib.get_close_matches(data, NAMES, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"no data set, folder or file {data!r}; {hint}known names are {', '.join(NAMES)}")


def _no_data_set(path: Path) -> UsageError:
    if path.suffix.lower() in SHEETS:
        return UsageError(f"{str(path)!r}: tables are read as .npz or .npy of floats, x and labels y; save it as one")
    return UsageError(
        f"{str(path)!r} is no data set; give images or a folder of them, an IDX file of images, an .npz, an .npy, a tar"
        f" archive, a Parquet file or one of {', '.join(NAMES)}"
    )

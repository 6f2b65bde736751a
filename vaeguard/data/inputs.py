"""The inputs of all commands: files, folders, globs, containers and named sets become sources."""

from __future__ import annotations

import codecs
import glob
import os
import re
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.data import archives, arrays, objects
from vaeguard.data.folders import Files, Folder, class_labels, image_folder, no_images, paths_of, sorted_once, walk
from vaeguard.data.idx import find_idx
from vaeguard.data.images import SUFFIXES
from vaeguard.data.named_sets import NAMES, NamedSource
from vaeguard.data.own_regions import regions_among
from vaeguard.data.source import Encoded, Unreadable, reading
from vaeguard.data.unread import left_out, unused_regions, without_masks
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.storage.places import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vaeguard.data.source import Source

READERS = {**arrays.READERS, **archives.READERS}
"""The source of a container by the ending of its name (a regular expression)."""
UNUSED = ("this model looks at whole images", "they are not read from buckets")
"""Why regions of single images are not used, by a model that does not look at regions, and by one that does."""
_ENDINGS = {re.compile(f"({ending})$", re.IGNORECASE): reader for ending, reader in READERS.items()}


def find_sources(
    inputs: Iterable[str | Path], listed: Iterable[str] = (), *, vectors: bool = False, looks: bool = False
) -> list[Source]:
    """Find everything to score, in sorted path order; the images of a container keep the container's order.

    Parameters
    ----------
    inputs : paths
        Image files, folders, globs (``*``, ``**``), `.npy`, `.npz`, IDX, tar and Parquet files, or URLs of these. The
        name of a set means its test images, if there is no such path.
    listed : paths
        More files; each missing one is listed as unreadable.
    vectors : bool
        Whether the model takes vectors, which only `.npy` and `.npz` hold.
    looks : bool
        Whether the model looks at the regions of single images.

    Raises
    ------
    UsageError
        An input does not exist, holds no image, or is not of the kind that the model takes.
    """
    inputs = list(inputs)
    named = sorted({name for name in inputs if is_named(name) and not os.path.lexists(name)})
    given = [path for pattern in inputs if pattern not in named for path in expanded(str(pattern))]
    folders = [*map(read_folder, given)]
    paths = [*chain.from_iterable(folder.paths for folder in folders)]
    if given and not paths:
        raise no_images(given, left_out=left_out(folders))
    paths = sorted_once([*paths, *listed])
    if not paths and not named:
        raise UsageError("there is nothing to score; give image files, folders or globs, or a list of files")
    sources = [*(NamedSource(str(name), "test") for name in named), *open_beside_regions(paths, folders)]
    for source in sources:
        _check_kind(source, vectors=vectors)
    _, unused = settle_regions(sources, looks)
    sources[0].left_out = "; ".join(filter(None, (left_out(folders), unused))) or None
    return sources


def open_beside_regions(paths: Sequence[str], folders: Iterable[Folder], split: str | None = None) -> list[Source]:
    """The sources of `paths`, as of `open_paths`; regions of single images, and those of `folders`, lie beside them."""
    regions = {*regions_among(paths)}
    sources = open_paths([path for path in paths if path not in regions] if regions else paths, split)
    if files := next((source for source in sources if isinstance(source, Files)), None):
        files.regions = sorted({*regions, *chain.from_iterable(folder.regions for folder in folders)})
    return sources


def settle_regions(sources: Sequence[Source], looks: bool | None) -> tuple[bool, str | None]:
    """Whether the regions of single images are read, and a clause on those that are not.

    `looks` says whether they are to be read; None says if there are any, not in a bucket.
    """
    found = [path for source in sources for path in source.regions]
    near = [path for path in found if not is_url(path)]
    looks = bool(near) if looks is None else looks
    for source in sources:
        if isinstance(source, Encoded):
            source.looks = looks
    return looks, unused_regions([path for path in found if not looks or is_url(path)], UNUSED[looks])


def _check_kind(source: Source, *, vectors: bool) -> None:
    """Refuse images for a model of vectors, and vectors for a model of images."""
    if not isinstance(source, Unreadable) and vectors != bool(getattr(source, "vectors", False)):
        wanted, held = ("vectors", "images") if vectors else ("images", "vectors")
        raise UsageError(
            f"the model takes {wanted}, but {source.path!r} contains {held}; give the kind of data that the"
            " model was fitted on"
        )


def is_named(data: str | Path) -> bool:
    """Whether `data` is the name of a set, which wins over a folder of the same name; a `Path` is always a path."""
    return isinstance(data, str) and data in NAMES


def read_list(path: str) -> list[str]:
    """Read paths from a file, or from standard input for `-`: one a line, or separated by NUL.

    Raises
    ------
    UsageError
        The file cannot be read, or names nothing.
    """
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"the list of files {path!r} cannot be read ({error.strerror}); give a file with one path per line"
        ) from error
    content = content.removeprefix(codecs.BOM_UTF8)  # editors on Windows write this mark
    separator = b"\0" if b"\0" in content else b"\n"
    paths = [os.fsdecode(line.rstrip(b"\r")) for line in content.split(separator) if line.strip()]
    if not paths:
        raise UsageError(f"the list of files {path!r} is empty; give a file with one path per line")
    return paths


def expanded(path: str) -> list[str]:
    """The paths that a glob matches, or the path itself.

    Raises
    ------
    UsageError
        Nothing matches.
    """
    if os.path.lexists(path) or not glob.has_magic(path):
        return [path]
    matches = objects.matches(path) if is_url(path) else glob.glob(path, recursive=True)  # noqa: PTH207  (a fixed part)
    if not matches:
        raise UsageError(f"no file matches {path!r}; check the pattern")
    return matches


def is_container(path: str) -> bool:
    """Whether a path is a file of many images, judged by its name."""
    return not path.lower().endswith(SUFFIXES) and any(ending.search(path) for ending in _ENDINGS)


def without_ending(name: str) -> str:
    """The name of a file without the ending that states its format."""
    return next((ending.sub("", name) for ending in _ENDINGS if ending.search(name)), Path(name).stem)


def open_container(path: str, split: str | None = None) -> Source:
    """The images of a container; a container that cannot be opened is `Unreadable`."""
    reader = next(reader for ending, reader in _ENDINGS.items() if ending.search(path))
    try:
        with reading(path):
            return reader(path, split)
    except VaeguardError as error:
        return Unreadable(path, error)


def open_paths(paths: Iterable[str], split: str | None = None) -> list[Source]:
    """Sources of the paths: each container is one source, and each run of files between containers is one."""
    sources: list[Source] = []
    for (container, remote), group in groupby(paths, lambda path: (is_container(path), is_url(path))):
        run = list(group)
        if not container:
            sources.append(Files(run))
        elif remote:
            sources += [objects.Fetched(path, partial(open_container, split=split)) for path in run]
        else:
            sources += [open_container(path, split) for path in run]
    return sources


def read_folder(path: str) -> Folder:
    """The path of a file; for a folder, its IDX file to test on, or else all images, or else all Parquet files."""
    if is_url(path):
        return _as_read(objects.listed(path, (*SUFFIXES, ".parquet"), is_file=named_as_file(path)))
    if not Path(path).is_dir():
        return Folder("", paths_of(path))
    if packed := find_idx(Path(path), "test") or find_idx(Path(path), "train"):
        return Folder("", [str(packed)])
    return _as_read(walk(Path(path), (*SUFFIXES, ".parquet")))


def named_as_file(path: str) -> bool:
    """Whether a path ends like an image file or a container."""
    return is_container(path) or path.lower().endswith(SUFFIXES)


def _as_read(folder: Folder) -> Folder:
    """A folder of images and Parquet files with its images, or else with its Parquet files."""
    images = [name for name in folder.names if not name.lower().endswith(".parquet")]
    if not images:
        return folder
    tables = Counter({".parquet": len(folder.names) - len(images)})
    return without_masks(replace(folder, names=images, others=tables + Counter(folder.others)))


def open_folder(path: Path, split: str) -> list[Source]:
    """The IDX file of a split; or else the images of a folder and their classes; or else its Parquet files.

    Raises
    ------
    UsageError
        The folder has none of these, or the classes are ambiguous.
    """
    if packed := find_idx(path, split):
        return [open_container(str(packed), split)]
    own, other = image_folder(path, split)
    if own.names:
        own = without_masks(own)
        files = Files(own.paths, class_labels(own, other), place=own.path)
        files.left_out, files.regions = left_out([own]), own.regions
        return [files]
    tables = walk(path, (".parquet",)).paths
    halves = {part: [table for table in tables if Path(table).name.startswith(part)] for part in ("train", "test")}
    if tables:
        return open_paths(halves[split] if all(halves.values()) else tables, split)
    raise no_images([own.path], left_out=left_out([own]))

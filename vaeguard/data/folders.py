"""Image files: finding them in folders, the classes of sub-folders, and files as a source."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.decoding import fetched
from vaeguard.data.images import SUFFIXES, read_bytes, reduced
from vaeguard.data.limits import MOST_SIDE
from vaeguard.data.own_regions import region_path
from vaeguard.data.source import Encoded, Original, originals, stamp_of
from vaeguard.data.streams import chunks, default_jobs, map_ahead
from vaeguard.errors import UnreadableError, UsageError
from vaeguard.storage import places
from vaeguard.storage.files import size_and_time, valid_text

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from vaeguard.data.decoding import File
    from vaeguard.data.image_set import ImageSet
    from vaeguard.data.images import ImageRule
    from vaeguard.data.source import ClassLabels

_NAMED = (
    ".gif .heic .heif .avif .jxl .jxr .wdp .hdp .psd .psb .xcf .kra .qoi .ico .dng .raw .arw .cr2 .cr3 .crw "
    ".nef .nrw .orf .pef .raf .rw2 .srw .x3f .exr .hdr .svg .svgz .pdf .eps .ai .djvu .pbm .pgm .ppm .pnm .pfm "
    ".pam .tga .dds .pcx .sgi .fits .dcm .dicom .nii .nrrd .mha .czi .lif .nd2 .oib .ndpi .svs .jls .jng .mng "
    ".apng .flif .bpg .icns .cur .emf .wmf .jpm .jph "
    ".npy .npz .parquet .tar .tgz .tbz2 .txz .zip"
)
UNREAD = tuple(_NAMED.split())
"""Suffixes of images that are not read, and of containers, which are read only where they are named. A note counts the
files with one of them; any other file is ignored."""
RUN = {"model.safetensors", "report.json"}
"""The files by which a run folder is recognised."""


@dataclass(frozen=True)
class Folder:
    """A folder, perhaps in an archive.

    Attributes
    ----------
    path : str
        The folder.
    names : sequence of str
        The paths of the image files below it, relative to the folder.
    others : dict of int
        The number of files that look like images but are not read, by suffix.
    links : sequence of str
        Links that are not followed, since they lead to a folder that is read already.
    masks : sequence of str
        Masks that lie beside images and are left out, relative to the folder.
    regions : sequence of str
        The paths of the regions of single images, which are no images themselves.
    """

    path: str
    names: Sequence[str]
    others: Mapping[str, int] = field(default_factory=dict)
    links: Sequence[str] = ()
    masks: Sequence[str] = ()
    regions: Sequence[str] = ()

    @property
    def paths(self) -> list[str]:
        """The image files."""
        if places.is_url(self.path):
            return [f"{self.path}/{name}" for name in self.names]
        root = "" if self.path == "." else self.path
        return [os.path.join(root, name) for name in self.names]  # noqa: PTH118  (a million of them)


class Files(Encoded):
    """Image files, one path each."""

    broken_by = ()  # each file is read by itself, so a broken file does not end the reading

    def __init__(self, paths: Sequence[str], labels: ClassLabels | None = None, place: str | None = None) -> None:
        super().__init__(paths[0], len(paths))
        self.paths, self._labels = paths, labels
        self.place = place or os.path.dirname(paths[0]) or "."  # noqa: PTH120

    @property
    def names(self) -> Sequence[str]:
        """The paths."""
        return self.paths

    def labels(self) -> ClassLabels | None:
        """The classes that were given."""
        return self._labels

    def open(self, stack: contextlib.ExitStack, start: int) -> Iterator[File]:
        """Yield the paths, or objects of a bucket with their contents."""
        return _contents(stack, islice(self.paths, start, None))

    def open_some(self, stack: contextlib.ExitStack, names: AbstractSet[str]) -> Iterator[File]:
        """Yield some of the paths, or objects."""
        return _contents(stack, (path for path in self.paths if valid_text(path) in names))

    def digests(self, jobs: int | None) -> Iterator[bytes]:
        """Yield the digest of each file, or of the reason why the file cannot be read."""
        jobs = jobs or default_jobs(self.paths[:32])
        paths = chain.from_iterable(map(self._read_with, self.paths))
        parts = map_ahead(lambda part: [*map(_digest, part)], chunks(paths, 64), jobs=jobs, ahead=2 * jobs)
        return chain.from_iterable(parts)

    def span(self, start: int, stop: int) -> str:
        """The first and the last path."""
        first, last = self.paths[start], self.paths[stop - 1]
        return repr(first) if first == last else f"{first!r} to {last!r}"

    def alone(self, start: int, stop: int) -> tuple[Files, int, int]:
        """Some of the paths."""
        return Files(self.paths[start:stop]), 0, stop - start

    def stamp(self, start: int, stop: int) -> bytes:
        """Names, sizes and times of the files."""
        digest = hashlib.sha256()
        for path in chain.from_iterable(map(self._read_with, self.paths[start:stop])):
            digest.update(stamp_of(path).encode("utf-8", "surrogateescape"))
        return digest.digest()

    def _read_with(self, path: str) -> tuple[str, ...]:
        """An image file, and the file of its region if there is one."""
        region = region_path(path) if self.looks else ""
        return (path, region) if region and os.path.lexists(region) else (path,)


def _contents(stack: contextlib.ExitStack, paths: Iterator[str]) -> Iterator[File]:
    """Paths, or, if the first of them is a URL, objects that are fetched ahead, many at a time."""
    first = next(paths, None)
    if first is None:
        return iter(())
    every = chain([first], paths)
    if not places.is_url(first):
        return every
    size_of = lambda url: size_and_time(url)[0]  # noqa: E731
    fetching = map_ahead(
        fetched, every, jobs=places.CONNECTIONS, ahead=2 * places.CONNECTIONS, stop=lambda: None, size_of=size_of
    )
    return stack.enter_context(closing(fetching))


def _digest(path: str) -> bytes:
    try:
        return hashlib.sha256(read_bytes(path)).digest()
    except UnreadableError as error:
        return hashlib.sha256(b"unreadable: " + os.fsencode(error.reason)).digest()


def originals_of(image_set: ImageSet, rows: Sequence[int], rule: ImageRule) -> Iterator[Original]:
    """Some images of a set as their files have them, in any order; or as the set has them if they are in no files."""
    names = {image_set.paths[row]: row for row in rows}
    files = [name for name in names if os.path.isfile(name)]  # noqa: PTH113  (names need not be valid paths)
    for original in originals([Files(files)] if files else [], {valid_text(name) for name in files}, rule):
        names.pop(original.name)
        yield original
    for name, row in names.items():
        pixels = image_set.images[row].astype(np.uint8, copy=False)
        yield Original(name, pixels, reduced(pixels, MOST_SIDE), pixels.shape[1:])


def list_images(inputs: Sequence[str | Path], suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Return the sorted paths of all images in files and folders (searched recursively), each path once.

    A named file is listed whatever its suffix. In folders, only files with one of `suffixes` count, and hidden files do
    not. A folder that may not be opened is listed itself, so that it is reported and not skipped.

    Raises
    ------
    UsageError
        A path does not exist, or no image is found.
    """
    paths = [path for given in inputs for path in paths_of(given, suffixes)]
    if not paths:
        raise no_images(inputs, suffixes)
    return sorted_once(paths)


def sorted_once(paths: Iterable[str]) -> list[str]:
    """Paths in order, each once."""
    return [path for path, _ in groupby(sorted(paths))]  # a set of millions of paths would take more memory


def paths_of(given: str | Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """The files with one of `suffixes` in a folder, or the named file.

    Raises
    ------
    UsageError
        There is no such file or folder.
    """
    if not os.path.lexists(given):
        raise UsageError(f"{str(given)!r} does not exist; check the path")
    return walk(Path(given), suffixes).paths if Path(given).is_dir() else [str(given)]


def no_images(
    inputs: Sequence[str | Path], suffixes: tuple[str, ...] = SUFFIXES, left_out: str | None = None
) -> UsageError:
    """The error for inputs without an image; `left_out` is a sentence on files that are not read."""
    places = ", ".join(repr(str(given)) for given in inputs) or "no inputs"
    why = f" ({left_out})" if left_out else ""
    return UsageError(f"there are no images in {places}{why}; supported files end in {', '.join(suffixes)}")


def image_folder(path: Path, split: str) -> tuple[Folder, Folder | None]:
    """A folder of images and None; or, if it has sub-folders `train` and `test`, that of `split` and the other."""
    halves = {part: path / part for part in ("train", "test")}
    if not all(half.is_dir() for half in halves.values()):
        return walk(path), None
    return walk(halves[split]), walk(halves["test" if split == "train" else "train"])


def class_labels(own: Folder, other: Folder | None = None) -> ClassLabels | None:
    """Number the sub-folders of a folder as classes, the same in both halves of a split; None for a flat folder.

    Raises
    ------
    UsageError
        Images lie beside sub-folders of images, or only one of the halves is flat.
    """
    classes = _classes(own)
    if other:
        others = _classes(other)
        if bool(classes) != bool(others) and own.names:
            flat, sorted_ = (own, other) if others else (other, own)
            raise UsageError(
                f"{flat.path!r} has no class sub-folders, but {sorted_.path!r} does; move the images of the former"
                f" into a class sub-folder, such as {str(Path(flat.path) / 'good')!r}"
            )
        classes = sorted({*classes, *others})
    if not classes:
        return None
    index = {name: number for number, name in enumerate(classes)}
    return np.array([index.get(_top(name), -1) for name in own.names], np.int64), tuple(classes)


def _classes(folder: Folder) -> list[str]:
    """Return the names of the immediate sub-folders that hold images; empty for a flat folder."""
    classes = sorted({top for name in folder.names if (top := _top(name)) != name})
    loose = next((name for name in folder.names if _top(name) == name and is_image(name)), None)
    if classes and loose:
        raise UsageError(
            f"folder {folder.path!r} contains images (such as {loose!r}) as well as sub-folders of images (such as "
            f"{classes[0]!r}); put every image into a class sub-folder, or all of them into one folder"
        )
    if loose is None and not classes and folder.names:
        raise UsageError(f"cannot open any sub-folder of {folder.path!r}; check the permissions")
    return classes


def _top(name: str) -> str:
    """The first part of a relative path; archives write "/" on every system."""
    return name.replace(os.sep, "/").partition("/")[0]


def walk(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Folder:
    """List the images below a folder, sorted, and sub-folders that cannot be opened.

    Links to folders are followed. Each folder is visited once, so that loops end; real paths come before links. Run
    folders are left out, since their pictures are no data.
    """
    names: list[str] = []
    others: Counter[str] = Counter()
    closed: list[OSError] = []
    again: list[str] = []
    for place, files in _visited(str(folder), closed, again):
        inside = os.path.relpath(place, folder)
        prefix = "" if inside == "." else inside + os.sep
        names += [prefix + name for name in files if is_image(name, suffixes)]
        others.update(os.path.splitext(name)[1].lower() for name in files if is_unread(name, suffixes))  # noqa: PTH122
    names += [os.path.relpath(error.filename, folder) for error in closed]
    return Folder(str(folder), sorted(names), others, again)


def _visited(folder: str, closed: list[OSError], again: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Visit a folder and all below it: yield the path and the files of each.

    The errors of folders that cannot be opened are added to `closed`, links to folders that were visited before to
    `again`.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        links: list[str] = []
        for place, folders, files in chain.from_iterable(os.walk(start, onerror=closed.append) for start in waiting):
            identity = _identity(place)
            if identity in seen:
                again += [place] if place in waiting else []
                folders.clear()
                continue
            seen.add(identity)
            if RUN.issubset(files) and place != folder:
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [path for name in folders if os.path.islink(path := os.path.join(place, name))]  # noqa: PTH114, PTH118
            yield place, files
        waiting = links


def is_image(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    """Whether the name of a file in a folder is that of an image."""
    return name.lower().endswith(suffixes) and not name.startswith(".")


def is_unread(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether the name is that of an image of a format that is not read."""
    return is_image(name, UNREAD) and not is_image(name, suffixes)


def _identity(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError:  # the folder has vanished meanwhile
        return (-1, -1)
    return (status.st_dev, status.st_ino)

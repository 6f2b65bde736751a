"""Outputs in buckets: made in a local folder, and published object by object as each file of them is whole.

A part of a job is published when it is finished, its manifest last, so that a job that was killed goes on from there,
on any machine. What marks a whole result as finished is published after everything else.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError, VaeguardError
from vaeguard.storage import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

LAST = ("model.safetensors", "report.json")
"""Files that tell that a folder is finished."""
_open: list[Mirror] = []
"""The outputs that this process writes."""


class Mirror:
    """The local copy of an output.

    Attributes
    ----------
    url : str
        The folder that holds the output.
    owned : callable
        Whether a file belongs to the output, by its path relative to that folder.
    """

    def __init__(self, url: str, owned: Callable[[str], bool]) -> None:
        self.url, self.owned = url, owned
        self.folder = places.local_path(url)
        self._same: dict[str, tuple[int, int]] = {}
        self._begun = time.monotonic()
        self._times: dict[str, float] = {}
        self._lock = threading.Lock()

    def take(self, objects: Sequence[places.Object]) -> None:
        """Copy what is there already.

        Raises
        ------
        VaeguardError
            An object cannot be read.
        """
        for url, reason in places.copy_all(objects).items():
            raise VaeguardError(f"{url!r}: {reason}")
        for entry in objects:
            path = places.local_path(entry.url)
            self._same[self._name(path)] = _state(path)

    def publish(self, paths: Iterable[Path], pause: float = 0.0) -> None:
        """Make files objects, in this order, unless they are that already, or the `pause` is not over."""
        for path in paths:
            name, state = self._name(path), _state(path)
            if self._same.get(name) != state and time.monotonic() - self._times.get(name, self._begun) >= pause:
                places.put(_with_urls(path), f"{self.url}/{name}")
                with self._lock:
                    self._same[name], self._times[name] = _state(path), time.monotonic()

    def settle(self) -> None:
        """Publish every whole file that was not published yet, and remove the objects whose files are gone."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and self.owned(self._name(path))]
        self.publish(sorted(filter(_is_whole, files), key=_order))
        there = {self._name(path) for path in files}
        gone = sorted((name for name in self._same if name not in there), key=_order_of_removal)
        places.remove(f"{self.url}/{name}" for name in gone)
        for folder in {name.rpartition("/")[0] for name in gone if "/" in name}:
            if not (self.folder / folder).exists():
                places.remove_folder(f"{self.url}/{folder}")
        for name in gone:
            del self._same[name]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _is_whole(path: Path) -> bool:
    """Whether a file has its final name, and is no lock."""
    from vaeguard.storage.files import TEMPORARY

    return TEMPORARY not in path.name and path.name != "lock" and path.suffix != ".lock"


def _order(path: Path) -> tuple[bool, bool, str]:
    """What tells that something is finished comes last: models, reports, and hidden manifests."""
    return path.name.startswith("."), path.name in LAST, str(path)


def _order_of_removal(name: str) -> tuple[bool, bool, str]:
    """In the folder of a job manifests go first, and the mark by which the folder is known goes last.

    Elsewhere a manifest goes after its file, since a file without a manifest counts as somebody's.
    """
    job, manifest = ".job/" in name, name.endswith(".json")
    return name.endswith(".vaeguard-job"), manifest != job, name


def _with_urls(path: Path) -> Path:
    """A file, whose text names places as users know them if it is a report."""
    if path.name.endswith(("report.json", "report.html")):
        text = path.read_text(encoding="utf-8")
        if (named := places.as_urls(text)) != text:
            path.write_text(named, encoding="utf-8")
    return path


def publish(paths: Iterable[Path], pause: float = 0.0) -> None:
    """Publish whole files, in this order, if they belong to an output in a bucket.

    With a `pause`, a file waits until so many seconds have passed since it was published, or since the command began.

    Raises
    ------
    VaeguardError
        They cannot be written.
    """
    if not _open:
        return
    for path in paths:
        for mirror in _open:
            if mirror.folder in path.parents and path.exists():
                mirror.publish([path], pause)


def adopt(paths: Iterable[Path]) -> None:
    """Copy what other processes have published of an output in a bucket that this process writes.

    Raises
    ------
    VaeguardError
        It cannot be read.
    """
    for path in paths:
        for mirror in _open:
            if mirror.folder in path.parents and (there := places.find(places.as_urls(str(path)))):
                mirror.take([there])


@contextlib.contextmanager
def adding_to(folder: str) -> Iterator[str]:
    """A local path for a `folder` in a bucket, to which finished parts are added; else `folder` itself.

    Objects that are there are neither copied nor removed. The local files are removed at the end, since one worker may
    add the parts of a whole job.
    """
    if not places.is_url(folder):
        yield folder
        return
    mirror = Mirror(folder, lambda _: True)
    mirror.folder.mkdir(parents=True, exist_ok=True)
    _open.append(mirror)
    try:
        with places.naming_urls():
            yield str(mirror.folder)
    finally:
        _open.remove(mirror)
        shutil.rmtree(mirror.folder, ignore_errors=True)


def is_published(path: Path) -> bool:
    """Whether a path belongs to an output in a bucket."""
    return any(mirror.folder in path.absolute().parents for mirror in _open)


@contextlib.contextmanager
def published(output: str, beside: Callable[[str], bool] | None = None) -> Iterator[str]:
    """A local path for `output`: for a URL that of a copy, whose files are published; else `output` itself.

    `output` is a folder; or, with `beside`, a file, and `beside` tells by their names which other files in its folder
    are part of the output. What is there already is copied first. If the block fails, what is whole is published all
    the same, as it would stay in a local folder.

    Raises
    ------
    UsageError
        The URL names no object.
    VaeguardError
        The place cannot be read or written.
    """
    if not places.is_url(output):
        yield output
        return
    folder, _, name = output.rstrip("/").rpartition("/")
    if not places.is_url(f"{folder}/") or not name or folder.endswith(":/"):
        raise UsageError(f"{output!r} names a whole bucket; add a name, such as {output.rstrip('/') + '/output'!r}")
    owns = beside or name.__eq__
    mirror = Mirror(folder, lambda path: owns(path.partition("/")[0]))
    mirror.folder.mkdir(parents=True, exist_ok=True)
    mirror.take(_present(f"{folder}/{name}", beside))
    _open.append(mirror)
    try:
        with places.naming_urls():
            yield str(mirror.folder / name)
    except BaseException:
        with contextlib.suppress(VaeguardError):
            mirror.settle()
        raise
    else:
        mirror.settle()
    finally:
        _open.remove(mirror)


def _present(url: str, beside: Callable[[str], bool] | None) -> list[places.Object]:
    """The objects of an output that are there: those below a folder, or a file and what belongs to it."""
    if beside is None:
        return places.walk(url)
    folder = url.rpartition("/")[0]
    files = [entry for entry in places.walk(folder, deep=False) if beside(places.name_of(entry.url))]
    return files + places.walk(f"{url}.job")

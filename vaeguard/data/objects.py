"""Objects of buckets as folders, and containers that are fetched when their turn comes."""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import glob
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

from vaeguard.data.folders import RUN, Folder, is_image, is_unread
from vaeguard.data.source import Source, Unreadable, read
from vaeguard.data.streams import ImageBatch
from vaeguard.errors import UnreadableError, UsageError
from vaeguard.storage import places
from vaeguard.storage.files import valid_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

    from vaeguard.data.images import ImageRule
    from vaeguard.data.source import Original

AT_ONCE = (".npy", ".npz")
"""Endings of containers that are fetched before anything else, since only their headers tell what they hold."""


def listed(url: str, suffixes: tuple[str, ...], *, is_file: bool) -> Folder:
    """The object at a URL, or what `walk` finds in a folder, by one listing; with `is_file`, the object comes first.

    Raises
    ------
    UsageError
        There is nothing.
    UnreadableError
        The place cannot be listed.
    """
    if is_file and places.find(url):
        return Folder("", [url])
    found = places.objects_at(url)
    if [entry.url for entry in found] == [url]:
        return Folder("", [url])
    names = [entry.url[len(url.rstrip("/")) + 1 :] for entry in found]
    read_here = [name for name in _outside_runs(names) if not name.startswith(".") and "/." not in name]
    others = Counter(_suffix(name) for name in read_here if is_unread(_base(name), suffixes))
    return Folder(url.rstrip("/"), sorted(name for name in read_here if is_image(_base(name), suffixes)), others)


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _outside_runs(names: Sequence[str]) -> Iterator[str]:
    """The names that lie in no run folder below, whose pictures are no data."""
    folders = {name.rpartition("/")[0] for name in names if _base(name) in RUN}
    present = set(names) if folders else set()
    runs = tuple(f"{folder}/" for folder in folders if folder and all(f"{folder}/{name}" in present for name in RUN))
    return (name for name in names if not runs or not name.startswith(runs))


def matches(pattern: str) -> list[str]:
    """The objects whose URLs match a glob, by one listing of what lies below its fixed part; or the one of that name.

    Raises
    ------
    UnreadableError
        The place cannot be listed.
    """
    match = re.compile(_expression(pattern)).fullmatch
    matching = [entry.url for entry in places.walk(_fixed(pattern)) if match(entry.url)]
    return matching or [entry.url for entry in [places.find(pattern)] if entry]


def _fixed(url: str) -> str:
    """The folders of a URL before those that a glob leaves open; all of it without a glob."""
    magic = re.search(r"[*?[]", url)
    fixed = (url[: magic.start()].rpartition("/")[0] if magic else url).rstrip("/")
    if not places.is_url(fixed):
        raise UsageError(f"{url!r} has no bucket name; add one")
    return fixed


def _expression(pattern: str) -> str:
    """A glob as a regular expression: `*` stays within a folder, and `**` does not."""
    parts = pattern.split("/")
    return "".join(_of_part(part, last=number == len(parts) - 1) for number, part in enumerate(parts))


def _of_part(part: str, *, last: bool) -> str:
    if part == "**":
        return ".*" if last else "(?:.*/)?"
    end = "" if last else "/"
    if not glob.has_magic(part):
        return re.escape(part) + end
    inner = fnmatch.translate(part).replace(".*", "[^/]*")
    return f"(?!\\.){inner.removesuffix(chr(92) + 'Z').removesuffix(chr(92) + 'z')}{end}"


@contextlib.contextmanager
def staged(url: str, endings: Callable[[str], bool]) -> Iterator[tuple[str, dict[str, str]]]:
    """The local path of a copy of what lies at a URL or matches a glob, removed afterwards, and what could not be read.

    Files are copied if `endings` says so of their names; others are empty there, as are those that could not be read,
    for each of which the reason is given by its path.

    Raises
    ------
    UsageError
        There is nothing.
    UnreadableError
        The place cannot be listed.
    """
    fixed = _fixed(url)
    single = places.find(fixed) if fixed == url.rstrip("/") and endings(fixed) else None
    objects = [single] if single else places.walk(fixed)
    if not objects:
        raise UsageError(f"nothing exists at {url!r}; check the address")
    local = partial(places.local_path, below=places.STAGED)
    root = local(fixed)
    try:
        wanted = [entry for entry in objects if endings(entry.url)]
        failures = {str(local(path)): reason for path, reason in places.copy_all(wanted, places.STAGED).items()}
        if single and failures:
            raise UnreadableError(single.url, failures[str(root)])
        for entry in objects:
            path = local(entry.url)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        with places.naming_urls():
            yield str(root) + url.rstrip("/")[len(fixed) :], failures
    finally:
        shutil.rmtree(root, ignore_errors=True) if root.is_dir() else root.unlink(missing_ok=True)


class NamesAsUrls(Sequence[str]):
    """The names of images that were copied, as URLs, without a list of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        return NamesAsUrls(self._names[row]) if isinstance(row, slice) else places.as_urls(self._names[row])


class Fetched(Source):
    """A container in a bucket, which is copied to a temporary file when it is read, and removed when it was read.

    Nobody knows how many images it holds before it was read, so the whole of it is one piece.

    Attributes
    ----------
    vectors : bool
        Whether its rows are those of a table.
    """

    uncounted = True
    broken_by = ()  # what reads the copy lists the errors of a broken container

    def __init__(self, url: str, open_container: Callable[[str], Source]) -> None:
        super().__init__(url, 0)
        self._open_container = open_container
        self._stack = contextlib.ExitStack()
        self._open: Source | None = None
        if url.lower().endswith(AT_ONCE):
            self._open = self._stack.enter_context(self._copy())
        self.vectors = bool(getattr(self._open, "vectors", False))

    def alone(self, start: int, stop: int) -> tuple[Fetched, int, int]:
        """The container without a copy, since the other process makes its own."""
        lean = copy.copy(self)
        lean._open, lean._stack = None, contextlib.ExitStack()  # noqa: SLF001  (it is of this class)
        return lean, start, stop

    def close(self) -> None:
        """Remove the copy."""
        self._open = None
        self._stack.close()

    def batches(
        self, start: int, stop: int, rule: ImageRule | None, batch_size: int, jobs: int | None
    ) -> Iterator[ImageBatch]:
        """Fetch the container, and read all of it; the last batch says that it is the last."""
        del start, stop
        with self._copy() as source:
            shape = rule.decoded_shape if rule else (1, 1, 1)
            for batch in read(source, 0, source.count, shape, rule=rule, batch_size=batch_size, jobs=jobs):
                errors = [(self._ours(path), self._ours(reason)) for path, reason in batch.errors]
                yield ImageBatch([*map(self._ours, batch.paths)], batch.images, errors)

    def pick(self, names: AbstractSet[str], rule: ImageRule | None) -> Iterator[ImageBatch]:
        """Fetch the container again if it holds one of the images."""
        if any(name.startswith(f"{valid_text(self.path)}/") for name in names):
            with self._copy() as source:
                for batch in source.pick({self._theirs(name) for name in names}, rule):
                    yield replace(batch, paths=[*map(self._ours, batch.paths)])

    def originals(self, names: AbstractSet[str], rule: ImageRule) -> Iterator[Original]:
        """Fetch the container again if it holds one of the images."""
        if any(name.startswith(f"{valid_text(self.path)}/") for name in names):
            with self._copy() as source:
                for original in source.originals({self._theirs(name) for name in names}, rule):
                    yield replace(original, name=self._ours(original.name))

    @contextlib.contextmanager
    def _copy(self) -> Iterator[Source]:
        """The container, copied and opened; one that cannot be fetched is a source of one error."""
        if self._open:
            yield self._open
            return
        with tempfile.TemporaryDirectory(dir=places.copies()) as folder:
            local = Path(folder) / places.name_of(self.path)
            self._place = str(local)
            try:
                places.fetch(self.path, local)
            except UnreadableError as error:
                yield Unreadable(str(local), error)
                return
            source = self._open_container(str(local))
            try:
                yield source
            finally:
                source.close()

    def _ours(self, text: str) -> str:
        return text.replace(self._place, self.path)

    def _theirs(self, name: str) -> str:
        return self._place + name.removeprefix(valid_text(self.path))

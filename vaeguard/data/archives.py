"""Tar archives and Parquet files of image files, which other processes open."""

from __future__ import annotations

import contextlib
import os
from contextlib import closing
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from vaeguard.data.folders import Folder, class_labels
from vaeguard.data.images import SUFFIXES
from vaeguard.data.own_regions import named_as_regions
from vaeguard.data.source import Encoded, row_of
from vaeguard.data.workers import DiedError, borrowed
from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.storage.files import valid_text

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from vaeguard.data.channel import Values
    from vaeguard.data.decoding import File
    from vaeguard.data.source import ClassLabels, Source

_THERE = "vaeguard.data.container_files"
_OTHER = {"train": "test", "test": "train"}


class Tar(Encoded):
    """The image files in a tar archive, compressed or not, in the archive's order.

    For a split, the archive is read like the folder that was packed. That is the deepest folder that holds all members;
    its sub-folders are the classes, or `train` and `test`. If all members lie directly in one folder, that folder is
    their class. Regions of single images are no images.
    """

    def __init__(self, path: str, split: str | None = None) -> None:
        found = [name for answer, _ in _asked(path, "tar_members") for name in answer.get("names", ())]
        self._masks = named_as_regions(found)
        self.regions = [f"{path}/{name}" for name in self._masks]
        members = [name for name in found if name not in set(self._masks)] if self._masks else found
        if not members:
            raise RefusedError(f"{path!r} contains no image file ({', '.join(SUFFIXES)})")
        self._other: Folder | None = None
        if split:
            self.part = _packed_folder(members)
            own, other = (_below(path, f"{self.part}{half}/", members) for half in (split, _OTHER[split]))
            if own.names and other.names:
                self.part, self._other = f"{self.part}{split}/", other
        self._members = [member for member in members if member.startswith(self.part)]
        super().__init__(path, len(self._members))

    @property
    def names(self) -> Sequence[str]:
        """Paths of the archive and its members."""
        return tuple(f"{self.path}/{member}" for member in self._members)

    def labels(self) -> ClassLabels | None:
        """The sub-folder of each member."""
        return class_labels(_below(self.path, self.part, self._members), self._other)

    def alone(self, start: int, stop: int) -> tuple[Encoded, int, int]:
        """The archive without the names of its members."""
        lean, start, stop = super().alone(start, stop)
        vars(lean).update(_members=[], _other=None)
        return lean, start, stop

    @property
    def _which(self) -> dict[str, Any]:
        """The members that are images of this part."""
        return {"part": self.part, "masks": self._masks, "looks": self.looks}

    def open(self, stack: contextlib.ExitStack, start: int) -> Iterator[File]:
        """Read the members."""
        return stack.enter_context(closing(_files(self.path, "tar_files", start, self._stop, **self._which)))

    def open_some(self, stack: contextlib.ExitStack, names: AbstractSet[str]) -> Iterator[File]:
        """Go through the headers, and read the contents of these members only."""
        before = f"{self.path}/"
        wanted = [name for name in self._members if valid_text(before + name) in names]
        return stack.enter_context(closing(_files(self.path, "tar_files", 0, None, **self._which, names=wanted)))


def _packed_folder(members: Sequence[str]) -> str:
    """The folder that holds all members, with a slash after it; the folder above if it has no sub-folders."""
    common = os.path.commonprefix([min(members), max(members)]).rpartition("/")[0]  # noqa: RUF071  (cut at a slash)
    folder = f"{common}/" if common else ""
    if common in ("", ".") or any("/" in member[len(folder) :] for member in members):
        return folder
    return folder[: common.rfind("/") + 1]


def _below(path: str, part: str, members: Sequence[str]) -> Folder:
    names = [member[len(part) :] for member in members if member.startswith(part)]
    return Folder(f"{path}/{part}".rstrip("/"), names)


class Parquet(Encoded):
    """A column of image files in a Parquet file: bytes, or the field `bytes` of a struct as Hugging Face writes it.

    Labels are in the column `label` or `class`, if there is one.
    """

    def __init__(self, path: str, split: str | None = None) -> None:
        del split  # a file is one part
        ((answer, _),) = _asked(path, "parquet_facts", name=path)
        facts = answer["result"]
        self.part, self._label = str(facts["column"]), facts["label"]
        super().__init__(path, int(facts["count"]))

    def labels(self) -> ClassLabels | None:
        """Read the column of labels."""
        if self._label is None:
            return None
        (_, labels), (answer, _) = _asked(self.path, "parquet_labels", column=self._label)
        assert labels is not None
        return labels, tuple(map(str, answer["result"]))

    def open(self, stack: contextlib.ExitStack, start: int) -> Iterator[File]:
        """Read the cells."""
        return stack.enter_context(closing(_files(self.path, "parquet_files", start, self._stop, column=self.part)))

    def open_some(self, stack: contextlib.ExitStack, names: AbstractSet[str]) -> Iterator[File]:
        """Read the row group of each cell."""
        before = f"{valid_text(self.path)}/"
        rows = sorted(row_of(name) for name in names if name.startswith(before))
        return stack.enter_context(closing(_files(self.path, "parquet_files", 0, None, column=self.part, rows=rows)))


def _asked(path: str, function: str, **arguments: Any) -> Iterator[tuple[dict[str, Any], Values | None]]:
    """The answers of a function of `container_files`, the last of which is its result."""
    with borrowed() as worker:
        worker.call(path, f"{_THERE}:{function}", {"path": os.path.join(os.getcwd(), path), **arguments})  # noqa: PTH109, PTH118
        sent = arguments.get("start", 0)
        try:
            while worker.busy:
                answer, values = worker.receive()
                sent += len(answer.get("names", ()))
                yield answer, values
        finally:
            # The reader stops at the last file. A process that has sent it only has to say so, and can then be kept.
            if worker.busy and sent == arguments.get("stop"):
                with contextlib.suppress(DiedError):
                    worker.receive()


def _files(path: str, function: str, start: int, stop: int | None, **arguments: Any) -> Generator[File]:
    """The files `start` to `stop` of a container; if the process ends, another one tries once to go on."""
    done, tried = start, -1
    while True:
        try:
            for answer, values in _asked(path, function, start=done, stop=stop, singly=tried >= 0, **arguments):
                for file in _unpacked(path, answer, values):
                    yield file
                    done += 1
                    del file
                del values
        except DiedError as error:
            if error.late or tried == done or "names" in arguments or "rows" in arguments:
                raise
            tried = done
        else:
            return


def _unpacked(path: str, answer: dict[str, Any], values: Values | None) -> Iterator[File]:
    """The files of one answer, whose bytes are not copied."""
    begin = 0
    for name, sizes, reason in zip(*(answer.get(key, ()) for key in ("names", "sizes", "reasons")), strict=True):
        assert values is not None
        full, ends = f"{path}/{name}", [*accumulate(sizes, initial=begin)]
        parts = [values[start:end].data for start, end in pairwise(ends)]
        yield (full, UnreadableError(full, reason)) if reason else (full, *parts)  # type: ignore[misc]
        begin = ends[-1]


READERS: dict[str, Callable[[str, str | None], Source]] = {
    r"\.(tar(\.(gz|bz2|xz))?|tgz|txz)": Tar,
    r"\.parquet": Parquet,
}
"""The source of a file by the ending of its name (a regular expression)."""

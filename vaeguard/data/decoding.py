"""Image files read one by one in other processes, which a broken or hostile file cannot leave."""

from __future__ import annotations

import os
import time
from itertools import chain
from typing import TYPE_CHECKING, Any

from vaeguard.data.channel import as_array
from vaeguard.data.images import read_bytes
from vaeguard.data.limits import MAX_SECONDS
from vaeguard.data.workers import DiedError, borrowed
from vaeguard.errors import UnreadableError
from vaeguard.storage import places

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vaeguard.data.channel import Place, Values
    from vaeguard.data.images import ImageRule
    from vaeguard.data.workers import Worker

    File = (
        str
        | tuple[str, bytes | memoryview | UnreadableError]
        | tuple[str, bytes | memoryview, bytes | memoryview]  # with the file of its region
    )
    Answer = tuple[str, dict[str, Any] | UnreadableError, Values | None]

TRIES = 2
"""A file that ends its process so many times is given up."""
MOST_SENT = 64 * 2**20
"""Bytes of files that are sent to a process at a time, or one larger file."""
PIXELS = "vaeguard.data.decoder:pixels"
PICTURE = "vaeguard.data.decoder:picture"
HEADER = "vaeguard.data.decoder:header"
_FUNCTION = "vaeguard.data.decoder:read_files"


def read_each(
    what: str, files: Iterable[File], rule: ImageRule | None = None, place: Place | None = None
) -> Iterator[Answer]:
    """Yield the name of each file, what a process reads from it, or why it cannot be read, and arrays.

    Parameters
    ----------
    what : str
        The function that reads a file there: its module and name, separated by a colon. It is called with the path or
        name of the file, its bytes or None for a path, and the rule; it returns plain values and perhaps an array.
    files : iterable
        Paths, or pairs of a name and the bytes of the file, or the error instead of the bytes; or a name, the bytes of
        the file and those of its region, for a rule with `regions`.
    rule : ImageRule or None
        What that function needs.
    place : callable or None
        Takes the shape of the arrays of the next files, joined, and returns where they go; None makes a new array.
    """
    for group in _requests(files):
        if isinstance(group[0], tuple) and isinstance(group[0][1], UnreadableError):
            yield from ((_name(file), file[1], None) for file in group)  # type: ignore[misc]
        else:
            yield from _read_group(what, group, rule, place)


def read_one(what: str, file: File, rule: ImageRule | None = None) -> tuple[dict[str, Any], Any]:
    """What `read_each` yields for one file: plain values and its array.

    Raises
    ------
    UnreadableError
        The file cannot be read.
    """
    ((_, answer, values),) = read_each(what, [file], rule)
    if isinstance(answer, UnreadableError):
        raise answer
    return answer, values


def _read_group(what: str, group: list[File], rule: ImageRule | None, place: Place | None) -> Iterator[Answer]:
    """The answers for files of one kind; after the end of a process the remaining files are read one by one."""
    done = tries = 0
    singly = False
    while done < len(group):
        asked = time.monotonic()
        try:
            with borrowed() as worker:
                _call(worker, what, group[done:], rule, singly=singly)
                while done < len(group):
                    answers, values = worker.receive(place)
                    for answer in answers["answers"]:
                        name = _name(group[done])
                        yield name, UnreadableError(name, answer["reason"]) if "reason" in answer else answer, values
                        done += 1
                    tries, asked = 0, time.monotonic()
                worker.receive()
        except DiedError as error:
            late = error.late and time.monotonic() - asked > MAX_SECONDS / 2  # else it only kept answers waiting
            tries += singly
            singly = True
            if done < len(group) and (tries == TRIES or late):
                yield _name(group[done]), UnreadableError(_name(group[done]), error.reason), None
                done, tries = done + 1, 0


def _call(worker: Worker, what: str, files: list[File], rule: ImageRule | None, *, singly: bool) -> None:
    arguments: dict[str, Any] = {"what": what, "sizes": None, "rule": rule and vars(rule)}
    contents = [[as_array(part) for part in file[1:]] for file in files if isinstance(file, tuple)]  # type: ignore[arg-type]
    if contents:
        sizes = [[*map(len, parts)] for parts in contents]
        arguments |= {"files": [_name(file) for file in files], "sizes": sizes}
    else:
        here = os.getcwd()  # noqa: PTH109  (the process may have another one)
        arguments["files"] = [os.path.join(here, _name(file)) for file in files]  # noqa: PTH118
    worker.call(_name(files[0]), _FUNCTION, {**arguments, "singly": singly}, *chain.from_iterable(contents))


def _requests(files: Iterable[File]) -> Iterator[list[File]]:
    """Groups of files of one kind: paths, contents that fit into one message, or errors."""
    group: list[File] = []
    size = 0
    for given in files:
        file = fetched(given) if isinstance(given, str) and places.is_url(given) else given
        if group and (_kind(file) != _kind(group[0]) or size + length_of(file) > MOST_SENT):
            yield group
            group, size = [], 0
        group.append(file)
        size += length_of(file)
    if group:
        yield group


def fetched(url: str) -> File:
    """A URL with the content of its object, or with the reason why it cannot be read; other processes fetch nothing."""
    try:
        return url, read_bytes(url)
    except UnreadableError as error:
        return url, error


def length_of(file: File) -> int:
    """The bytes that a file takes in memory: none if it is a path."""
    return 0 if isinstance(file, str) or isinstance(file[1], UnreadableError) else sum(map(len, file[1:]))  # type: ignore[arg-type]


def _kind(file: File) -> int:
    return 0 if isinstance(file, str) else 1 if isinstance(file[1], UnreadableError) else 2


def _name(file: File) -> str:
    return file if isinstance(file, str) else file[0]

"""Which images show the same thing, from a table beside them."""

from __future__ import annotations

import csv
import os
from pathlib import PurePath
from typing import TYPE_CHECKING

from vaeguard.data.images import read_bytes
from vaeguard.errors import RefusedError, UnreadableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATHS = ("path", "image", "file")
"""Columns that may name the images, the first present one is read."""


def read_groups(table: str, paths: Sequence[str]) -> list[str]:
    """Read the group of each image from a CSV file with the columns `path` and `group`.

    Parameters
    ----------
    table : str
        The file. A path in it is the end of that of one image: `a.png`, or `good/a.png` where there are others.
    paths : sequence of str
        Of the images, as `ImageSet.paths`.

    Returns
    -------
    list of str
        For `vaeguard.fit(..., groups=...)`; an image that the table does not name, or gives no group, is one by itself.

    Raises
    ------
    RefusedError
        The file cannot be read, or is no such table.
    UsageError
        It is missing, or names an image that is not there, several at once, or one twice.
    """
    groups = [f"{path} alone" for path in paths]
    named: set[int] = set()
    ends: dict[int, dict[tuple[str, ...], list[int]]] = {}
    for name, group in _rows(table):
        parts = PurePath(name).parts
        if len(parts) not in ends:
            ends[len(parts)] = _by_end(paths, len(parts))
        found = ends[len(parts)].get(parts, [])
        if len(found) != 1 or found[0] in named:
            fact = "is named twice" if len(found) == 1 else f"is the end of {len(found) or 'no'} images' paths"
            raise UsageError(
                f"{name!r} in the table of groups {table!r} {fact}; name each image once, with as many folders as it"
                " takes"
            )
        named.add(found[0])
        if group:
            groups[found[0]] = group
    return groups


def _rows(table: str) -> list[tuple[str, str]]:
    try:
        rows: list[Mapping[str, str]] = list(
            csv.DictReader(read_bytes(table).decode("utf-8-sig").splitlines(), strict=True)
        )
    except UnreadableError as error:
        missing = not os.path.exists(table)  # noqa: PTH110  (names need not be valid paths)
        raise (UsageError if missing else RefusedError)(
            f"cannot read the table of groups {table!r}: {error.reason}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RefusedError(
            f"the table of groups {table!r} is no CSV file ({error}); give one with the columns path and group"
        ) from error
    column = next((name for name in PATHS if rows and name in rows[0]), None)
    if column is None or "group" not in rows[0]:
        raise RefusedError(
            f"the table of groups {table!r} has no rows with the columns path and group; name these in its first line"
        )
    return [(row[column] or "", (row["group"] or "").strip()) for row in rows]


def _by_end(paths: Sequence[str], count: int) -> dict[tuple[str, ...], list[int]]:
    """Numbers of the paths by their last `count` parts."""
    found: dict[tuple[str, ...], list[int]] = {}
    for number, path in enumerate(paths):
        found.setdefault(PurePath(path).parts[-count:], []).append(number)
    return found

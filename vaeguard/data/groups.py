"""Groups of images that show the same thing, read from a table."""

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
"""Columns that may name the images; the first present one is read."""


def read_groups(table: str, paths: Sequence[str]) -> list[str]:
    """Read the group of each image from a CSV file with the columns `path` and `group`.

    Parameters
    ----------
    table : str
        The file. A path in the file is the end of the path of one image: `a.png`, or `good/a.png` where another image
        is called `a.png` too.
    paths : sequence of str
        The paths of the images, as in `ImageSet.paths`.

    Returns
    -------
    list of str
        For `vaeguard.fit(..., groups=...)`; an image without a group in the table is a group by itself.

    Raises
    ------
    RefusedError
        The file cannot be read, or is no such table.
    UsageError
        The file is missing, or a path in it fits no image, several images, or an image named before.
    """
    groups = [f"{path} alone" for path in paths]
    named: set[int] = set()
    ends: dict[int, dict[tuple[str, ...], list[int]]] = {}
    for name, group in _rows(table):
        parts = PurePath(name).parts
        if len(parts) not in ends:
            ends[len(parts)] = _by_end(paths, len(parts))
        rows = ends[len(parts)].get(parts, [])
        if len(rows) != 1 or rows[0] in named:
            fact = "is listed twice" if len(rows) == 1 else f"matches {len(rows) or 'no'} images"
            raise UsageError(
                f"{name!r} in the table of groups {table!r} {fact}; list each image once, with enough folders to"
                " identify it"
            )
        named.add(rows[0])
        if group:
            groups[rows[0]] = group
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
            f"the table of groups {table!r} is not a CSV file ({error}); use one with the columns path and group"
        ) from error
    column = next((name for name in PATHS if rows and name in rows[0]), None)
    if column is None or "group" not in rows[0]:
        raise RefusedError(
            f"the table of groups {table!r} has no rows with the columns path and group; its first line must"
            " name these columns"
        )
    return [(row[column] or "", (row["group"] or "").strip()) for row in rows]


def _by_end(paths: Sequence[str], count: int) -> dict[tuple[str, ...], list[int]]:
    """Numbers of the paths by their last `count` parts."""
    rows: dict[tuple[str, ...], list[int]] = {}
    for number, path in enumerate(paths):
        rows.setdefault(PurePath(path).parts[-count:], []).append(number)
    return rows

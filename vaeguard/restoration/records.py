"""What `denoise` wrote for each scan, as the record beside it says, and whether somebody changed it since."""

from __future__ import annotations

import json
import re
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.storage.files import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet


TABLE = "pages.csv"
COLUMNS = (
    *("path", "page", "kind", "action", "noise", "change", "reverted", "uncertainty", "lightened", "removed"),
    "reason",
)
MEASURES = tuple(name for name in COLUMNS if name not in ("path", "page", "kind", "action", "reason"))
"""The columns of floating-point numbers, called as in `PageReport`."""


def columns_of(table: Path) -> list[str]:
    """The names of the columns of a table, also as a spreadsheet saves it; none if there is no table."""
    try:
        with table.open(encoding="utf-8-sig") as file:
            return [name.strip(' "') for name in re.split("[,;\t]", file.readline().strip())]
    except (OSError, ValueError):
        return []


def put_aside(table: Path) -> Path | None:
    """Rename a table that has other columns than it was written with, since somebody works with it; its new name."""
    if columns_of(table) in ([], list(COLUMNS)):
        return None
    names = (f"{table.stem}-edited-{number}" for number in count(1))
    aside = next(free for name in names if not (free := table.with_stem(name)).exists())
    table.rename(aside)
    return aside


def beside(path: Path, suffix: str) -> Path:
    """The file that lies beside a clean one, such as `page.png.json`."""
    return path.with_name(f"{path.name}.{suffix}")


class CleanFile:
    """The file that is written for a scan, and what lies beside it.

    Files only ever appear whole, and their record before any of them and until all are gone: what differs from its
    record, or lies there without one, is somebody's, and may hold hours of work.

    Attributes
    ----------
    place : Path
        Where it is written.
    record : dict
        What an earlier run said of it; empty if there is none.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.record = _record_of(place)

    @cached_property
    def changed(self) -> list[Path]:
        """The files that are there, and not as they were written; without a record nobody can tell."""
        if not self.record:
            return [self.place] if self.place.exists() else []
        return [path for path, found, written in self._digests if found not in (written, None)]

    @property
    def retouched(self) -> bool:
        """Whether the clean file itself is there, readable, and not as it was written."""
        return any(path == self.place and found not in (written, None, "") for path, found, written in self._digests)

    @property
    def missing(self) -> list[Path]:
        """The files of the record that are gone."""
        return [path for path, found, _ in self._digests if found is None]

    @property
    def whole(self) -> bool:
        """Whether an earlier run wrote it, and all of it is there as it was written."""
        return bool(self.record) and all(found == written for _, found, written in self._digests)

    def said(self) -> str:
        """What there is to say where somebody changed a file."""
        what = (
            "was changed since it was written"
            if self.record
            else "lies there, and no record beside it tells whose it is"
        )
        return f"{str(self.changed[0])!r} {what}"

    def remove(self) -> bool:
        """Remove what was written, the record last; False, and nothing is removed, if somebody changed a part."""
        if self.changed:
            return False
        for path in (*(path for path, _, _ in self._digests), beside(self.place, "json")):
            path.unlink(missing_ok=True)
        return True

    @cached_property
    def _digests(self) -> list[tuple[Path, str | None, str]]:
        """Each file of the record with its digest, None if it is gone, and the one that it was written with."""
        written = self.record.get("written", {})
        paths = [self.place.with_name(Path(name).name) for name in written]
        return [(path, _digest(path), digest) for path, digest in zip(paths, written.values(), strict=True)]


def others(target: Path, places: AbstractSet[str]) -> Iterator[CleanFile]:
    """The clean files below `target`, in sorted order, that are none of `places`, which are relative to it."""
    for path in sorted(target.rglob("*.json")):
        place = path.with_suffix("")
        if str(place.relative_to(target)) not in places and (found := CleanFile(place)).record:
            yield found


def _record_of(place: Path) -> dict[str, Any]:
    try:
        record = json.loads(beside(place, "json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = isinstance(record, dict) and {"written", "pages", "settings"} <= set(record)
    return record if known and isinstance(record["written"], dict) else {}


def _digest(path: Path) -> str | None:
    try:
        return digest_of(path)
    except FileNotFoundError:
        return None
    except OSError:  # nobody can tell whether it was changed, so it counts as changed
        return ""

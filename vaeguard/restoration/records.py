"""The records of `denoise`: the table of all pages, and a JSON file beside each clean file."""

from __future__ import annotations

import re
from itertools import count
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.restoration.reasons import why_look
from vaeguard.storage.files import digest_of
from vaeguard.storage.store import MANIFEST_FACTS, Store, hidden_part
from vaeguard.storage.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


TABLE = "pages.csv"
PDF = ".pdf"
_COPY = re.compile(r"(?P<clean>.+)\.(?:bilevel|deskewed)(?:\.[^.]+)?")
"""The names of copies of the clean file `clean`."""
COLUMNS = (
    *("path", "page", "kind", "action", "noise", "change", "reverted", "uncertainty", "lightened", "removed"),
    *("reason", "look"),
)
MEASURES = tuple(name for name in COLUMNS if name not in ("path", "page", "kind", "action", "reason", "look"))
"""The columns of floating-point numbers; `PageReport` has the same names."""


def copy_names(clean: str, kinds: Sequence[str]) -> dict[str, str]:
    """The names of the copies of a clean file, by their kind, such as `page.png.bilevel.tif`."""
    suffix = PurePath(clean).suffix
    suffixes = {"bilevel": suffix if suffix.lower() == PDF else ".tif", "deskewed": suffix}
    return {kind: f"{clean}.{kind}{suffixes[kind]}" for kind in kinds}


def is_copy(path: Path) -> bool:
    """Whether a file is a copy that `denoise` wrote beside a clean file, as the record there says."""
    match = _COPY.fullmatch(path.name)
    return match is not None and path.name in clean_store(path.parent).part(match["clean"]).record.get("written", ())


def columns_of(table: Path) -> list[str]:
    """The column names of a table, even if a spreadsheet saved it; none if there is no table."""
    try:
        with table.open(encoding="utf-8-sig") as file:
            return [name.strip(' "') for name in re.split("[,;\t]", file.readline().strip())]
    except (OSError, ValueError):
        return []


def put_aside(table: Path) -> Path | None:
    """Rename a table that somebody changed, so that it is not overwritten; return its new name."""
    if not table.exists() or Store(table.parent, MANIFEST_FACTS).part(hidden_part(table).name).whole:
        return None
    names = (f"{table.stem}-edited-{number}" for number in count(1))
    aside = next(free for name in names if not (free := table.with_stem(name)).exists())
    table.rename(aside)
    return aside


def clean_store(target: Path) -> Store:
    """The store of the clean files below `target`, each with its record."""
    return Store(target, ("written", "pages", "settings"))


def write_rows(table: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `pages.csv`, and hidden beside it its digest, by which `put_aside` tells whether somebody changed it."""
    rows = [{**row, "look": why_look(row)} for row in rows]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in COLUMNS}
    columns |= {name: np.array(columns[name], np.float64) for name in MEASURES}
    columns["page"] = np.array(columns["page"], np.int64)
    write_table(table, columns)
    with Store(table.parent).put(hidden_part(table).name) as hidden:
        hidden.finish({"written": {table.name: digest_of(table)}})

"""What the benchmarks share: where data and results lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.storage.files import write_text
from vaeguard.storage.provenance import environment

if TYPE_CHECKING:
    import numpy.typing as npt

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, title: str, rows: list[dict[str, Any]], notes: list[str], **settings: Any) -> None:
    """Write `rows` into `results/<program>.json` and print them; `name` is `<program>` or `<program>/<table>`."""
    about = environment()
    place, table = _place(name)
    tables = _tables(place) | {table: {"title": title, "rows": rows, "notes": notes, "settings": settings, **about}}
    write_text(place, json.dumps(tables, indent=2) + "\n")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"# {title}", "", _line(columns), _line(["---"] * len(columns))]
    lines += [_line([_cell(row.get(column, "")) for column in columns]) for row in rows]
    versions = ", ".join(f"{key} {value}" for key, value in about["versions"].items())
    lines += [
        "",
        *notes,
        "",
        f"{about['date']}; {about['hardware']}; Python {about['python']}; {versions}; {settings}.",
    ]
    print("\n".join(lines))


def _place(name: str) -> tuple[Path, str]:
    """The file of a result and its table in that file."""
    program, _, table = name.partition("/")
    return RESULTS / f"{program}.json", table or program


def _tables(place: Path) -> dict[str, Any]:
    tables: dict[str, Any] = json.loads(place.read_text()) if place.is_file() else {}
    return tables


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rows_before(name: str, key: str) -> dict[str, dict[str, Any]]:
    """The rows that an earlier run of a program wrote, by their `key`: what takes long is not measured again."""
    place, table = _place(name)
    rows = _tables(place).get(table, {"rows": []})["rows"]
    return {row[key]: row for row in rows}


def spread(values: npt.ArrayLike, digits: int = 3) -> str:
    """Mean ± standard deviation over seeds; of a single one the value."""
    found = np.asarray(values, float)
    mean = f"{found.mean():.{digits}f}"
    return f"{mean} ± {found.std(ddof=1):.{digits}f}" if len(found) > 1 else mean


def data_dir() -> Path:
    """The folder of the data sets: $VAEGUARD_DATA, else shared/data beside the checkout, else data/."""
    checkout = Path(__file__).resolve().parent.parent
    shared = checkout.parent / "shared" / "data"
    given = os.environ.get("VAEGUARD_DATA")
    return Path(given) if given else shared if shared.is_dir() else checkout / "data"

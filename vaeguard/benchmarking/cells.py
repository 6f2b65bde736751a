"""Cells, the smallest pieces of a benchmark: each is measured once and kept in one file with the others."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from vaeguard.storage.files import sweep, write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vaeguard.progress import Progress

    Result = dict[str, Any]


CELLS_NAME = "cells.jsonl"
"""The file of the finished cells, beside the report."""
METHOD = 3
"""A version, raised whenever the same settings come to mean something else: no report mixes old and new results."""


@dataclass(frozen=True)
class Cell:
    """One measurement: the benchmark, the data, a case of the data, the method and the seed.

    `case` is the class, pair, table or defect set that is measured.
    """

    benchmark: str
    data: str
    case: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.data}, {self.case}, {self.method}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Job:
    """The measurement of a cell.

    Attributes
    ----------
    cell : Cell
        The cell.
    settings : dict
        Everything that the result depends on, as JSON can hold it: specs, the hashes of data and split.
    measure : callable
        Measures the cell and returns the result, as JSON can hold it.
    cost : int
        The rough time that the job takes, in hundredths of a fit; progress is estimated from it.
    """

    cell: Cell
    settings: dict[str, Any]
    measure: Callable[[Progress], Result]
    cost: int = 100

    def digest(self) -> str:
        """SHA-256 (hex) over the cell and its settings: a result with the same digest need not be measured again."""
        content = json.dumps({"method": METHOD, "cell": asdict(self.cell), "settings": self.settings}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


class CellFile:
    """The finished cells of a report: one line of JSON a cell, in the order in which they were measured.

    The file is written anew after each cell, so it is whole at any moment and a killed run loses one cell at most.
    Only one process may write the file. A damaged line is left out, and its cell is measured again.

    Attributes
    ----------
    cells : dict
        Each cell by the digest of its settings.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / CELLS_NAME
        sweep(folder)
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.is_file() else []
        by_line = {line: cell for line in lines if (cell := _cell_of(line))}
        self.cells: dict[str, Result] = {cell["digest"]: cell for cell in by_line.values()}
        self._text = "".join(f"{line}\n" for line in by_line)

    def measure(self, job: Job, progress: Progress) -> Result:
        """Measure a cell and keep it.

        Raises
        ------
        VaeguardError
            The measurement failed, or the file cannot be written.
        """
        cell = {**asdict(job.cell), "digest": job.digest(), "settings": job.settings, **job.measure(progress)}
        text = f"{self._text}{json.dumps(cell)}\n"
        write_text(self.path, text)
        self._text = text
        self.cells[cell["digest"]] = cell
        return cell


def name_of(cell: Result) -> str:
    """The name of a cell that was read, equal to the `str` of its `Cell`."""
    return str(Cell(**{field.name: cell[field.name] for field in fields(Cell)}))


def _cell_of(line: str) -> Result | None:
    """The cell that a line of the file holds; None for a damaged line."""
    try:
        cell = json.loads(line)
        return cell if cell["digest"] and name_of(cell) else None
    except (ValueError, TypeError, KeyError):
        return None

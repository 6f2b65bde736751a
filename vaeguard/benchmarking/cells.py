"""Cells: the smallest pieces of a benchmark, each measured once and kept as one file."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vaeguard.storage.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vaeguard.progress import Progress

    Result = dict[str, Any]


CELLS = "cells"
"""Folder of the finished cells, in that of the report."""
METHOD = 3
"""Raised whenever the same settings come to mean something else, so that no report mixes the old with the new."""


@dataclass(frozen=True)
class Cell:
    """One measurement: which benchmark, which data, which case of it, by which method, with which seed.

    `case` is the class, pair, table or defect set that takes its turn.
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
    """How a cell is measured.

    Attributes
    ----------
    cell : Cell
        What is measured.
    settings : dict
        Everything that the result depends on, as JSON can hold it: specs, the hashes of data and split.
    measure : callable
        Does the work and returns what it found, as JSON can hold it.
    cost : int
        Rough time it takes, in hundredths of a fit; only the time left is estimated from it.
    """

    cell: Cell
    settings: dict[str, Any]
    measure: Callable[[Progress], Result]
    cost: int = 100

    def digest(self) -> str:
        """SHA-256 (hex) over the cell and its settings: a result with the same digest need not be measured again."""
        content = json.dumps({"method": METHOD, "cell": asdict(self.cell), "settings": self.settings}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def path(self, report: Path) -> Path:
        """The cell's file below the report's folder; with other settings it has another name."""
        return report / CELLS / file_name(asdict(self.cell), self.digest())


def file_name(cell: Mapping[str, Any], digest: str) -> str:
    """Name of the file of a cell, given as a dict that may hold more than the cell's own keys."""
    name = "-".join(str(cell[key]) for key in ("data", "case", "method", "seed"))
    return f"{re.sub(r'[^A-Za-z0-9-]', '_', name)[:150]}-{digest[:8]}.json"


def read_cell(job: Job, report: Path) -> Result | None:
    """What was found before with the very same settings, or None."""
    try:
        found = json.loads(job.path(report).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("digest") == job.digest() else None


def measure_cell(job: Job, report: Path, progress: Progress) -> Result:
    """Measure a cell and write its file, whole.

    Raises
    ------
    VaeguardError
        The measurement failed, or the file cannot be written.
    """
    result = {**asdict(job.cell), "digest": job.digest(), "settings": job.settings, **job.measure(progress)}
    write_text(job.path(report), json.dumps(result, indent=2) + "\n")
    return result

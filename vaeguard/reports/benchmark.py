"""The verdict and the terminal lines of a benchmark's report; the benchmark builds the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from vaeguard.reports.kinds import Part, ReportFigures, Verdict
from vaeguard.reports.terminal import table_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

SENTENCES = 4
"""The most data sets that a verdict names."""
PARTS = {"simple": "best other method on the same split", "published": "best published, by its own protocol"}
LABELLED = ("guided", "classifier")
"""The methods that know the classes of the normal examples; no other method knows them, measured or published."""


class Mean(Part):
    """A mean, and the standard deviation over the seeds where there are several."""

    mean: float
    std: float | None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" + ("" if self.std is None else f" ± {self.std:.3f}")


class Row(Part):
    """One score of one method on one case, or over all."""

    data: str
    case: str | None
    method: str
    score: str
    kind: str | None
    roc_auc: Mean
    average_precision: Mean | None

    @property
    def is_main(self) -> bool:
        """Whether the score stands for the method."""
        return self.score in ("score", self.method)

    def cells(self) -> tuple[str, str, str]:
        """Return name, ROC-AUC and average precision."""
        name = f"{self.data}, {self.case or 'mean'}: {self.method}" + ("" if self.is_main else f", {self.score}")
        precision = "" if self.average_precision is None else f"{self.average_precision.mean:.3f}"
        return escape(name), str(self.roc_auc), precision


class Method(Part):
    """A row of the table that compares methods."""

    name: str
    part: str
    mean: Mean | None
    cells: tuple[Mean | None, ...]

    @property
    def overall(self) -> Mean | None:
        """The mean over the cases, or the figure of the only case; None if there is no number."""
        return self.mean or (self.cells[0] if len(self.cells) == 1 else None)

    @property
    def has_labels(self) -> bool:
        """Whether the method knows the classes of the normal examples."""
        return self.name.partition(",")[0] in LABELLED


class MethodTable(Part):
    """All methods on a data set."""

    data: str
    methods: tuple[Method, ...]

    def sentence(self) -> str:
        """Compare each of our fits with the best method that knows no more than the fit."""
        ours = [(row, row.overall) for row in self.methods if row.part == "ours"]
        sentences = [self._beside_others(row, overall) for row, overall in ours if overall]
        return " ".join(sentences) or f"{self.data}: none of our methods has been measured on every case yet."

    def _beside_others(self, ours: Method, overall: Mean) -> str:
        others = []
        for part, what in PARTS.items():
            if part == "published" and ours.has_labels:
                continue
            rows = [row for row in self.methods if row.part == part and (ours.has_labels or not row.has_labels)]
            areas = [(row.overall.mean, row.name) for row in rows if row.overall]
            if areas:
                area, name = max(areas, key=lambda pair: pair[0])
                others.append(f"{what} {area:.3f}, {name}")
        beside = f" ({'; '.join(others)})" if others else ""
        return f"{self.data}, {ours.name}: ROC-AUC {overall}{beside}."


class Cells(Part):
    """The numbers of planned and of finished cells."""

    planned: int
    finished: int


class Spec(Part):
    """The setting of a benchmark that makes it a trial."""

    limit: int | None


class Figures(ReportFigures):
    """The figures of a benchmark that its verdict and its table take."""

    trial: bool
    spec: Spec
    cells: Cells
    rows: tuple[Row, ...]
    means: tuple[Row, ...]
    comparison: tuple[MethodTable, ...]

    def verdict(self) -> Verdict:
        """Return a comparison of our fits with other methods."""
        notes = (
            (f"a trial on at most {self.spec.limit} examples: do not use these numbers as results",)
            if self.trial
            else ()
        )
        sentence = " ".join(table.sentence() for table in self.comparison[:SENTENCES])
        return Verdict(f"{self.cells.finished:,} of {self.cells.planned:,} measurements done", sentence, notes)

    def lines(self) -> Iterable[RenderableType]:
        """Yield a table of the methods, each by its mean over the cases where there is one."""
        table = table_of("ROC-AUC", "avg. prec.")
        averaged = {(row.data, row.method) for row in self.means}
        single = [row for row in self.rows if (row.data, row.method) not in averaged and not row.kind]
        for row in (*self.means, *single):
            if row.is_main or row.method == "classifier":
                table.add_row(*row.cells(), style="bold" if row.score == "score" else None)
        yield table

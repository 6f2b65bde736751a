"""A benchmark's report: `report.json` with every number, and `report.html` to read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vaeguard.benchmarking.aggregate import alarms_of, best_terms, means_of, rows_of, seconds_of
from vaeguard.benchmarking.comparison import comparison_of
from vaeguard.reports.report_file import JSON_NAME, heading, write_report
from vaeguard.settings.training import PLACES
from vaeguard.wording import brief

if TYPE_CHECKING:
    from pathlib import Path

    from vaeguard.benchmarking.aggregate import Row
    from vaeguard.benchmarking.cells import Result
    from vaeguard.benchmarking.plan import BenchmarkPlan
    from vaeguard.benchmarking.protocols import BenchmarkSpec

VARIED = ("seed", "classes", *PLACES)
"""Settings of a fit that differ from cell to cell by plan, or say where it ran."""

SETTINGS_NOTE = (
    "All cases use the same settings, which are not tuned for this data. The weights of the score's terms are"
    " constants. They were chosen once with letters of notMNIST held out one at a time and, for tables, on 20 sets of"
    " ADBench; so notMNIST in the benchmark ood and lympho in the benchmark tables, which is also in ADBench, are not"
    " independent sets. The terms themselves were developed with test figures of MNIST 7 and 9 and Fashion-MNIST 0 and"
    " 6 in view. ROC-AUC, mean ± std over seeds."
)
ALARMS_NOTE = (
    "Realised: the share of normal test images whose p-value is at most the stated rate, as the mean over the seeds,"
    " with the Clopper-Pearson interval for one test part. This interval takes the threshold as given and judges these"
    " particular detectors. Expected: the range of rates (beta-binomial) of a split-conformal threshold, which itself"
    " comes from finitely many held-out images; this range judges the method, and a sound method lies inside it in 95"
    " % of the measurements."
)


@dataclass(frozen=True, eq=False)
class BenchmarkReport:
    """The result of a benchmark.

    Attributes
    ----------
    spec : BenchmarkSpec
        The settings of the benchmark.
    plan : BenchmarkPlan
        The planned cells (each of one method, case and seed), the missing data, and the published results.
    cells : list of dict
        The finished cells, in the order of the plan.
    failures : dict of str
        The reason for each failure, by the name of the cell.
    command : str
        The command line.
    """

    spec: BenchmarkSpec
    plan: BenchmarkPlan
    cells: list[Result]
    failures: dict[str, str]
    command: str = ""

    def __repr__(self) -> str:
        planned = len(self.plan.jobs)
        return brief(self, name=self.spec.name, planned=planned, finished=len(self.cells), failed=len(self.failures))

    @property
    def trial(self) -> bool:
        """Whether only a part of the data was used, so that the numbers must not be quoted."""
        return self.spec.limit is not None

    @cached_property
    def rows(self) -> list[Row]:
        """One row for each case, method and score."""
        return rows_of(self.cells)

    @cached_property
    def means(self) -> list[Row]:
        """The means over the cases."""
        planned: dict[str, set[str]] = {}
        for job in self.plan.jobs:
            planned.setdefault(job.cell.data, set()).add(job.cell.case)
        return means_of(self.cells, planned)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that JSON can hold."""
        data = f", {self.spec.data}" if self.spec.data else ""
        return {
            **heading("benchmark", f"{self.spec.name}{data}: {self.spec.benchmark.about}", command=self.command),
            "benchmark": self.spec.name,
            "trial": self.trial,
            "protocol": self.spec.benchmark.protocol,
            "spec": {**asdict(self.spec), "data_dir": None},
            "cells": {"planned": len(self.plan.jobs), "finished": len(self.cells), "failed": len(self.failures)},
            "failures": self.failures,
            "skipped": list(self.plan.skipped),
            "rows": [asdict(row) for row in self.rows],
            "means": [asdict(row) for row in self.means],
            "comparison": comparison_of(self.rows, self.means, self.cells, self.plan.published),
            "best_terms": best_terms([*self.rows, *self.means]),
            "false_alarms": alarms_of(self.cells),
            "seconds": seconds_of(self.cells),
            "published": [asdict(row) for row in self.plan.published],
            "splits": self._splits(),
            "fits": self._fits(),
            "notes": {
                "settings": SETTINGS_NOTE,
                "false_alarms": f"{ALARMS_NOTE} {self.spec.benchmark.alarms_note}".rstrip(),
            },
            "warnings": sorted({text for cell in self.cells for text in cell["warnings"]}),
            "environments": self._environments(),
        }

    def write(self, folder: Path) -> None:
        """Write `report.json` and `report.html` into `folder`; each file appears only when it is complete.

        Raises
        ------
        VaeguardError
            They cannot be written.
        """
        write_report(folder / JSON_NAME, self.to_dict())

    def _splits(self) -> dict[str, str]:
        """The hash of the split by data, case and seed."""
        return {f"{cell['data']}, {cell['case']}, seed {cell['seed']}": cell["split_sha256"] for cell in self.cells}

    def _fits(self) -> dict[str, Any]:
        """The settings of the fits by data and method, every open choice settled; hardware may change a choice."""
        by_method: dict[str, list[Any]] = {}
        for cell in self.cells:
            if "spec" in cell:
                spec = {
                    part: {name: value for name, value in settings.items() if name not in VARIED}
                    for part, settings in cell["spec"].items()
                }
                known = by_method.setdefault(f"{cell['data']}, {cell['method']}", [])
                if spec not in known:
                    known.append(spec)
        return {
            name + (f" ({number})" if number > 1 else ""): spec
            for name, specs in by_method.items()
            for number, spec in enumerate(specs, 1)
        }

    def _environments(self) -> list[dict[str, Any]]:
        """Every combination of hardware, versions and date that cells were measured with."""
        environments: list[dict[str, Any]] = []
        for cell in self.cells:
            if cell["environment"] not in environments:
                environments.append(cell["environment"])
        return environments

"""The files that a search writes: its report, a table of the trials, and the best settings as TOML."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.devices import pick_device
from vaeguard.reports.report_file import JSON_NAME, heading, write_report
from vaeguard.storage.files import write_text
from vaeguard.storage.tables import write_table
from vaeguard.tuning.study import best_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vaeguard.reports.report_file import Report
    from vaeguard.tuning.plan import SearchPlan
    from vaeguard.tuning.study import Trial
    from vaeguard.tuning.trials import Compared

BEST_NAME, TABLE_NAME = "best.toml", "trials.csv"


@dataclass(frozen=True)
class Outcome:
    """The result of the trials of a search.

    Attributes
    ----------
    plan : SearchPlan
        The plan of the search.
    trials : tuple of Trial
        All finished trials.
    settings : mapping
        The best settings that differ from the defaults, for `model` and for `training`.
    importance : mapping or None
        The share of each setting in the variation of the objective.
    """

    plan: SearchPlan
    trials: tuple[Trial, ...]
    settings: Mapping[str, Mapping[str, Any]]
    importance: Mapping[str, float] | None

    @property
    def best(self) -> Trial:
        """The trial with the highest objective."""
        return best_of(self.trials)

    def write(self, folder: Path | None, compared: Compared, command: str) -> Report:
        """Write all files into `folder` unless it is None, and return the report."""
        report = self._report(compared, command)
        if folder:
            write_text(folder / BEST_NAME, self.toml())
            write_table(folder / TABLE_NAME, self._columns())
            write_report(folder / JSON_NAME, report)
        return report

    def toml(self) -> str:
        """The settings that differ from the defaults, as TOML; TOML writes their values as JSON does."""
        name = json.dumps(self.plan.image_set.name)
        lines = [
            f"# The best settings of a search on {name}, found in trial {self.best.number}.",
            f"# Its mean ROC-AUC against pseudo-anomalies of normal images: {self.best.objective:.4f}.",
        ]
        written = self.settings["training"].get("kl_warmup", 0)
        tried = self.best.settings.get("kl_warmup", written)
        if tried != written:
            lines.append(
                f"# kl_warmup was scaled to the epochs of a fit on all normal images: {written} of"
                f" {self.plan.final_epochs} is the same share as {tried} of {self.plan.space.epochs} in the trial."
            )
        for table, values in self.settings.items():
            lines += ["", f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        return "\n".join(lines) + "\n"

    def _columns(self) -> dict[str, Any]:
        """One row per trial; a figure that a trial lacks is not-a-number."""
        kinds, trials = self.plan.kinds, self.trials
        figures = dict.fromkeys(name for trial in trials for name in trial.figures)
        rows = [
            {
                "trial": trial.number,
                "objective": trial.objective,
                **{f"roc_auc_{kind}": trial.roc_auc.get(kind) for kind in kinds},
                **{name: trial.settings[name] for name in self.plan.space.base},
                **{name: trial.figures.get(name) for name in figures},
                "seconds": trial.seconds,
                "error": trial.error,
            }
            for trial in trials
        ]
        return {name: _column([row[name] for row in rows]) for name in rows[0]}

    def _report(self, compared: Compared, command: str) -> Report:
        plan = self.plan
        name, device = plan.image_set.name, pick_device(plan.space.training.device)
        classes = [] if plan.image_set.labels is None else sorted({*plan.image_set.labels[plan.fitted].tolist()})
        normal = [plan.image_set.class_names[number] for number in classes]
        title = f"{name}: search of {len(self.trials)} trials" + (f", normal {', '.join(normal)}" if normal else "")
        return {
            **heading("tuning", title, command=command, device=device),
            "data": name,
            "fingerprint": plan.image_set.fingerprint,
            "normal_classes": normal,
            "images": {"fitted": len(plan.fitted), "judging": len(plan.judging), "compared": len(plan.compared)},
            "kinds": list(plan.kinds),
            "searched": plan.space.scales(),
            "trials": [asdict(trial) for trial in self.trials],
            "best": self.best.number,
            "settings": self.settings,
            "importance": self.importance,
            "comparison": None if compared.comparison is None else asdict(compared.comparison),
            "comparisons": compared.times,
            "comparison_error": compared.error,
            "seconds": sum(trial.seconds for trial in self.trials),
        }


def _column(values: list[Any]) -> Any:
    """Numbers as an array, with not-a-number for None; text without change."""
    if None in values:
        return np.array(values, float)
    return values if isinstance(values[0], str) else np.array(values)

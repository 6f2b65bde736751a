"""The report of a search."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vaeguard.devices import pick_device
from vaeguard.reports.report_file import heading
from vaeguard.tuning.study import best_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vaeguard.reports.report_file import Report
    from vaeguard.tuning.study import Trial
    from vaeguard.tuning.trials import Compared, SearchPlan


def tuning_report(
    plan: SearchPlan,
    trials: Sequence[Trial],
    compared: Compared,
    settings: Mapping[str, Mapping[str, Any]],
    importance: Mapping[str, float] | None,
    command: str = "",
) -> Report:
    """The report of a search: its `trials`, and what was `compared` at the end.

    `settings` are those of the best trial that are not the defaults, `importance` the share of each in the objective.
    """
    name = plan.image_set.name
    classes = [] if plan.image_set.labels is None else sorted({*plan.image_set.labels[plan.fitted].tolist()})
    normal = [plan.image_set.class_names[number] for number in classes]
    title = f"{name}: search of {len(trials)} trials" + (f", normal {', '.join(normal)}" if normal else "")
    return {
        **heading("tuning", title, command=command, device=pick_device(plan.space.training.device)),
        "data": name,
        "fingerprint": plan.image_set.fingerprint,
        "normal_classes": normal,
        "images": {"fitted": len(plan.fitted), "judging": len(plan.judging), "compared": len(plan.compared)},
        "kinds": list(plan.kinds),
        "searched": plan.space.scales(),
        "trials": [asdict(trial) for trial in trials],
        "best": best_of(trials).number,
        "settings": settings,
        "importance": importance,
        "comparison": None if compared.comparison is None else asdict(compared.comparison),
        "comparisons": compared.times,
        "comparison_error": compared.error,
        "seconds": sum(trial.seconds for trial in trials),
    }

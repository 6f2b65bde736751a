"""A search of settings with its report, from opening the data, in one call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.groups import read_groups
from vaeguard.reports.report_file import JSON_NAME, check_place
from vaeguard.tuning.search import tune
from vaeguard.tuning.study import check_optuna
from vaeguard.workflows.opening import open_to_fit
from vaeguard.workflows.outcome import Outcome

if TYPE_CHECKING:
    from vaeguard.workflows.opening import Data
    from vaeguard.workflows.outcome import Reporter


def tune_into(
    data: Data, folder: str | None, reporter: Reporter, *, groups: str | None = None, **tune_settings: Any
) -> Outcome:
    """Search the settings of a fit on `data` with `vaeguard.tune`, and write into `folder`; None is `tuning/<data>`.

    Raises
    ------
    UsageError, VaeguardError
        As for `vaeguard.tune`.
    """
    check_optuna()
    if folder:
        check_place(Path(folder) / JSON_NAME, "tuning")
    images, model = open_to_fit(data, tune_settings, reporter)
    image_groups = read_groups(groups, images.paths) if groups else None
    target = Path(folder) if folder else Path("tuning") / images.name
    reporter.say(f"Data: {images.name}, {len(images.images):,} {images.what}; folder of the search: {target}")
    with reporter.progress("tuning") as progress, reporter.going_on(f"finished trials are in {target}"):
        result = tune(
            images,
            groups=image_groups,
            folder=target,
            command=reporter.command,
            progress=progress,
            **{**tune_settings, "model": model},
        )
    return Outcome(str(target), result, result.report, images.errors, left_out=images.left_out)

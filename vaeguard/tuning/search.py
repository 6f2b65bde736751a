"""`tune`: search settings on normal images alone, and say on others of them whether the best are really better."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.image_set import as_image_set
from vaeguard.errors import UsageError
from vaeguard.reports.report_file import JSON_NAME, check_place
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.specs import changed, without_places
from vaeguard.settings.training import TrainSpec
from vaeguard.tuning.plan import fingerprint_of, make_plan
from vaeguard.tuning.report import BEST_NAME, TABLE_NAME, Outcome
from vaeguard.tuning.search_space import DEFAULT_TRIALS
from vaeguard.tuning.study import (
    JOURNAL_NAME,
    Trial,
    ask,
    best_of,
    check_optuna,
    close_killed,
    finished,
    importance,
    open_study,
    stop,
    tell,
)
from vaeguard.tuning.trials import (
    FAILURES,
    REFITS,
    Compared,
    Comparison,
    compare,
    measured,
    why_failed,
    within,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import optuna

    from vaeguard.data.image_set import ImageSet
    from vaeguard.progress import Progress
    from vaeguard.reports.report_file import Report
    from vaeguard.tuning.plan import SearchPlan

COMPARED = "compared"
"""User attribute of the study: the last comparison at the end, of which trial, and how many were made."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """What a search found.

    Attributes
    ----------
    trials : tuple of Trial
        All that are finished; the first has the settings that the search started from.
    best : Trial
        The one with the highest objective.
    model, training : specs
        The settings of the best, to be given to `fit`; of all normal images, which may mean fewer epochs than a trial
        had, so that `kl_warmup` is the same share of them.
    comparison : Comparison or None
        Whether they are really better; None where nothing beat the first trial, or a fit of the comparison failed.
    report : dict
        All of it, as `docs/report-format.md` says.
    """

    trials: tuple[Trial, ...]
    best: Trial
    model: ModelSpec
    training: TrainSpec
    comparison: Comparison | None
    report: Report


def tune(
    images: ImageSet | npt.NDArray[Any],
    labels: npt.ArrayLike | None = None,
    *,
    groups: npt.ArrayLike | None = None,
    normal_classes: str | int | Sequence[str | int] | None = None,
    model: ModelSpec | None = None,
    training: TrainSpec | None = None,
    trials: int = DEFAULT_TRIALS,
    seconds: float | None = None,
    folder: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Tuning:
    """Search the settings of a fit by normal images alone.

    The normal images are divided once. Trials are fitted on the first part. Their objective is the ROC-AUC of telling
    the second part from pseudo-anomalies made of it, mean over their kinds; unlike an ELBO it compares across
    likelihoods. The third part is touched only at the end, to compare the best settings with those that the search
    started from, which are the first trial. Settings are drawn by a tree-structured Parzen estimator (Bergstra et al.,
    NeurIPS 2011).

    Parameters
    ----------
    images, labels, groups, normal_classes
        As for `fit`. Images of other classes are not looked at.
    model, training : specs
        Where the search starts; what it does not search stays so.
    trials : int
        How many, those that `folder` holds already included.
    seconds : float, optional
        Start no trial that would probably end later than that. The first one is always made, and the comparison at the
        end, which takes as long as six trials, is not counted.
    folder : path, optional
        Where to keep the trials and write `best.toml`, `trials.csv` and the report. A search that was interrupted, or
        had fewer trials, goes on there.
    command : str
        The command line, to be named in the report.
    progress : callable, optional
        Called with fits done, fits in all, a line of text.

    Returns
    -------
    Tuning

    Raises
    ------
    UsageError
        As `fit` for the settings at the start; fewer than 40 normal images, or than 5 of a class; or the folder holds
        another search.
    RefusedError
        The journal of the trials is damaged.
    VaeguardError
        Optuna is missing, the first trial fails, another process is at it, or the folder cannot be written.
    """
    check_optuna()
    if trials < 1:
        raise UsageError(f"`trials` is {trials}; it must be at least 1")
    home = Path(folder) if folder else None
    if home:
        _check_folder(home)
    image_set = as_image_set(images, labels)
    plan = make_plan(image_set, groups, normal_classes, model or ModelSpec(), training or TrainSpec())
    show = progress or (lambda *_: None)
    with open_study(home, fingerprint_of(plan)) as study:
        before = len(finished(study))
        _search(plan, study, trials, seconds, show)
        measured_trials = tuple(finished(study))
        best, made = best_of(measured_trials), len(measured_trials) - before
        best_model, best_training = plan.space.specs(best.settings, plan.final_epochs)
        settings = {"model": changed(best_model), "training": without_places(changed(best_training))}
        outcome = Outcome(plan, measured_trials, settings, importance(study))
        compared = _compared_before(study, best)
        report = outcome.write(home, compared, command)
        if best.number and not compared.comparison:
            # The outcome is written by now, whatever happens to the fits that are still to come.
            compared = _compare(plan, study, best, lambda done, of, text: show(made + done, made + of, text))
            report = outcome.write(home, compared, command)
    return Tuning(measured_trials, best, best_model, best_training, compared.comparison, report)


def _check_folder(folder: Path) -> None:
    """Refuse a folder with files of something else than a search."""
    check_place(folder / JSON_NAME, "tuning")
    foreign = [name for name in (BEST_NAME, TABLE_NAME) if (folder / name).exists()]
    if foreign and not (folder / JOURNAL_NAME).exists():
        raise UsageError(f"{str(folder / foreign[0])!r} is of no search and would be lost; choose another folder")


def _search(plan: SearchPlan, study: optuna.Study, trials: int, seconds: float | None, progress: Progress) -> None:
    """Make trials until there are as many as wanted, or until the next would probably not end in time."""
    started = time.monotonic()
    close_killed(study, plan.space)
    done = finished(study)
    before, total = len(done), trials - len(done) + 2 * REFITS
    while len(done) < trials and (not done or _in_time(done, time.monotonic() - started, seconds)):
        text = f"trial {len(done) + 1} of {trials}" + (f", best {best_of(done).objective:.3f}" if done else "")
        trial = ask(study, plan.space, plan.seed)
        settings = plan.space.settings(trial.params)
        try:
            result = measured(plan, settings, len(done), within(progress, len(done) - before, total, text))
        except BaseException:
            stop(study, trial)
            raise
        tell(study, trial, result)
        done = finished(study)


def _in_time(done: Sequence[Trial], elapsed: float, seconds: float | None) -> bool:
    return seconds is None or elapsed + sum(trial.seconds for trial in done) / len(done) <= seconds


def _compared_before(study: optuna.Study, best: Trial) -> Compared:
    """What the study keeps of comparisons, so that one is made once for each best trial."""
    last = study.user_attrs.get(COMPARED)
    if last is None:
        return Compared(None, 0)
    comparison = Comparison(**last["comparison"]) if best.number and last["trial"] == best.number else None
    return Compared(comparison, last["times"])


def _compare(plan: SearchPlan, study: optuna.Study, best: Trial, progress: Progress) -> Compared:
    """Compare the best settings with those at the start; if that fails, the next start of the search tries again."""
    before = _compared_before(study, best).times
    try:
        comparison = compare(plan, best.settings, progress)
    except FAILURES as error:
        return Compared(None, before, why_failed(error))
    study.set_user_attr(COMPARED, {"trial": best.number, "comparison": asdict(comparison), "times": before + 1})
    return Compared(comparison, before + 1)

"""`tune`: search settings on normal images, and test on other normal images whether the best settings are better."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.image_set import as_image_set
from vaeguard.errors import UsageError
from vaeguard.reports.report_file import JSON_NAME, check_place
from vaeguard.settings.specs import changed, fit_specs, without_places
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
from vaeguard.wording import brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import optuna

    from vaeguard.data.image_set import ImageSet
    from vaeguard.progress import Progress
    from vaeguard.reports.report_file import Report
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec
    from vaeguard.tuning.plan import SearchPlan

COMPARED = "compared"
"""User attribute of the study: the last comparison, the number of its trial, and the number of comparisons."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """The result of a search.

    Attributes
    ----------
    trials : tuple of Trial
        All finished trials; the first has the settings at the start of the search.
    best : Trial
        The trial with the highest objective.
    model, training : specs
        The settings of the best trial, for a `fit` on all normal images. Such a fit may have fewer epochs than a trial,
        so `kl_warmup` is scaled to keep its share of the epochs.
    comparison : Comparison or None
        Whether the best settings are really better; None if no trial beat the first, or a fit of the comparison failed.
    report : dict
        The report that `docs/reference/report-format.md` describes.
    """

    trials: tuple[Trial, ...]
    best: Trial
    model: ModelSpec
    training: TrainSpec
    comparison: Comparison | None
    report: Report

    def __repr__(self) -> str:
        return brief(self, trials=len(self.trials), best=self.best.number, objective=self.best.objective)


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
    **settings: Any,
) -> Tuning:
    """Search the settings of a fit on normal images only.

    The normal images are divided once into three parts. The trials are fitted on the first part. Their objective is the
    ROC-AUC of the second part against pseudo-anomalies made from it, averaged over the kinds of pseudo-anomaly; unlike
    the ELBO, it can be compared between likelihoods. The third part is used only at the end, to compare the best
    settings with those of the first trial, from which the search started. A tree-structured Parzen estimator (Bergstra
    et al., NeurIPS 2011) draws the settings.

    Parameters
    ----------
    images, labels, groups, normal_classes
        As for `fit`. Images of other classes are not used.
    model, training : specs
        The settings at the start; those that are not searched stay the same.
    trials : int
        The total number of trials, including those that `folder` already contains.
    seconds : float, optional
        Start no trial that would probably end after this time. The first trial always runs, and the time of the final
        comparison, which takes as long as six trials, does not count.
    folder : path, optional
        The folder for the trials, `best.toml`, `trials.csv` and the report. An interrupted search, or one with fewer
        trials, is resumed from this folder.
    command : str
        The command line that the report names.
    progress : callable, optional
        Called with the number of fits done, the number of all fits, and a line of text.
    **settings
        Single settings by name in place of those in `model` and `training`, as for `fit`.

    Returns
    -------
    Tuning

    Raises
    ------
    UsageError
        `fit` refuses the settings at the start, there are fewer than 40 normal images or fewer than 5 of a normal
        class, or the folder contains a different search.
    RefusedError
        The journal of the trials is damaged.
    VaeguardError
        Optuna is missing, the first trial fails, another search is writing to the folder, or the folder cannot be
        written to.
    """
    check_optuna()
    if trials < 1:
        raise UsageError(f"`trials` is {trials}; it must be at least 1")
    directory = Path(folder) if folder else None
    if directory:
        _check_folder(directory)
    image_set = as_image_set(images, labels)
    plan = make_plan(image_set, groups, normal_classes, *fit_specs(model, training, settings))
    show = progress or (lambda *_: None)
    with open_study(directory, fingerprint_of(plan)) as study:
        before = len(finished(study))
        _search(plan, study, trials, seconds, show)
        measured_trials = tuple(finished(study))
        best, made = best_of(measured_trials), len(measured_trials) - before
        best_model, best_training = plan.space.specs(best.settings, plan.final_epochs)
        settings = {"model": changed(best_model), "training": without_places(changed(best_training))}
        outcome = Outcome(plan, measured_trials, settings, importance(study))
        compared = _compared_before(study, best)
        report = outcome.write(directory, compared, command)
        if best.number and not compared.comparison:
            # The outcome is already written, so it survives if the fits of the comparison are interrupted.
            compared = _compare(plan, study, best, lambda done, of, text: show(made + done, made + of, text))
            report = outcome.write(directory, compared, command)
    return Tuning(measured_trials, best, best_model, best_training, compared.comparison, report)


def _check_folder(folder: Path) -> None:
    """Refuse a folder whose files do not belong to a search."""
    check_place(folder / JSON_NAME, "tuning")
    foreign = [name for name in (BEST_NAME, TABLE_NAME) if (folder / name).exists()]
    if foreign and not (folder / JOURNAL_NAME).exists():
        raise UsageError(
            f"{str(folder / foreign[0])!r} does not belong to a search and would be overwritten; choose a"
            " different folder"
        )


def _search(plan: SearchPlan, study: optuna.Study, trials: int, seconds: float | None, progress: Progress) -> None:
    """Make trials until there are enough, or until the next trial would probably end too late."""
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
    """The earlier comparison of the `best` trial in the study, so that each best trial is compared only once."""
    last = study.user_attrs.get(COMPARED)
    if last is None:
        return Compared(None, 0)
    comparison = Comparison(**last["comparison"]) if best.number and last["trial"] == best.number else None
    return Compared(comparison, last["times"])


def _compare(plan: SearchPlan, study: optuna.Study, best: Trial, progress: Progress) -> Compared:
    """Compare the best settings with those at the start; after a failure, the next run of the search tries again."""
    times = _compared_before(study, best).times
    try:
        comparison = compare(plan, best.settings, progress)
    except FAILURES as error:
        return Compared(None, times, why_failed(error))
    study.set_user_attr(COMPARED, {"trial": best.number, "comparison": asdict(comparison), "times": times + 1})
    return Compared(comparison, times + 1)

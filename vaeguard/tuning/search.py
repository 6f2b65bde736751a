"""`tune`: search settings on normal images alone, and say on others of them whether the best are really better."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.image_set import as_image_set
from vaeguard.data.split import MIN_NORMAL, MIN_PER_CLASS, Split, normal_numbers, split_normal
from vaeguard.errors import UsageError
from vaeguard.reports.report_file import JSON_NAME, check_place, write_report
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.specs import changed, to_dict, without_places
from vaeguard.settings.training import TrainSpec
from vaeguard.storage.files import write_text
from vaeguard.storage.tables import write_table
from vaeguard.training.fitting import epochs_of
from vaeguard.tuning.report import tuning_report
from vaeguard.tuning.search_space import DEFAULT_TRIALS, search_space
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
    SearchPlan,
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

METHOD = 1
"""Raised when the objective is measured otherwise, so that trials do not compare."""
HELD_OUT, MOST_IMAGES, MOST_BYTES = 0.2, 2000, 2**28
"""Share of the normal images that judges the trials, and of those for the end; at most so many of each."""
LEAST_NORMAL, LEAST_PER_CLASS = 2 * MIN_NORMAL, MIN_PER_CLASS + 2
"""Of so many at least half, and of so few in a class all but two, are left to fit on, which is what `fit` needs."""
COMPARED = "compared"
"""User attribute of the study: the last comparison at the end, of which trial, and how many were made."""
BEST_NAME, TABLE_NAME = "best.toml", "trials.csv"


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
        check_place(home / JSON_NAME, "tuning")
        foreign = [name for name in (BEST_NAME, TABLE_NAME) if (home / name).exists()]
        if foreign and not (home / JOURNAL_NAME).exists():
            raise UsageError(f"{str(home / foreign[0])!r} is of no search and would be lost; choose another folder")
    image_set = as_image_set(images, labels)
    plan = _plan(image_set, groups, normal_classes, model or ModelSpec(), training or TrainSpec())
    show = progress or (lambda *_: None)
    with open_study(home, _fingerprint(plan), _settings(ModelSpec(), TrainSpec())) as study:
        before = len(finished(study))
        _search(plan, study, trials, seconds, show)
        found, shares = finished(study), importance(study)
        best, made = best_of(found), len(found) - before
        best_model, best_training = plan.space.specs(best.settings, plan.final_epochs)
        settings = {"model": changed(best_model), "training": without_places(changed(best_training))}
        compared = _kept(study, best)

        def written(compared: Compared) -> Report:
            report = tuning_report(plan, found, compared, settings, shares, command)
            if home:
                write_text(home / BEST_NAME, _toml(settings, best, plan))
                write_table(home / TABLE_NAME, _columns(plan, found))
                write_report(home / JSON_NAME, report)
            return report

        report = written(compared)
        if best.number and not compared.comparison:
            # What was found is written by now, whatever happens to the fits that are still to come.
            compared = _compare(plan, study, best, lambda done, of, text: show(made + done, made + of, text))
            report = written(compared)
    return Tuning(tuple(found), best, best_model, best_training, compared.comparison, report)


def _plan(
    image_set: ImageSet,
    groups: npt.ArrayLike | None,
    normal_classes: str | int | Sequence[str | int] | None,
    model: ModelSpec,
    training: TrainSpec,
) -> SearchPlan:
    normal = normal_numbers(image_set, normal_classes)
    count = _count_normal(image_set, normal)
    most = min(MOST_IMAGES, MOST_BYTES // image_set.images[:1].nbytes)
    share = min(HELD_OUT, most / max(1, count))
    split = split_normal(image_set, normal, validation=share, calibration=share, seed=training.seed, groups=groups)
    fitted_set = image_set.select(split.training)
    members = None if groups is None else np.asarray(groups)[split.training]
    channels, height, width = image_set.images.shape[1:]
    names = tuple(image_set.class_names[k] for k in normal)
    resolved = model.resolved((channels, height, width), names, vectors=image_set.vectors)
    # Both divide their images once more: a trial those that it is fitted on, a fit with the best settings all of them.
    epochs, final_epochs = (
        _epochs(each, normal, resolved, training, its_groups)
        for each, its_groups in ((fitted_set, members), (image_set, groups))
    )
    space = search_space(model, training, resolved, epochs)
    return SearchPlan(
        image_set,
        fitted=split.training,
        judging=split.validation,
        compared=split.calibration,
        fitted_set=fitted_set,
        normal_classes=normal_classes,
        groups=members,
        space=space,
        final_epochs=final_epochs,
    )


def _count_normal(image_set: ImageSet, normal: Sequence[int]) -> int:
    """How many normal images there are, after checking that a part of them is enough for a fit."""
    if image_set.labels is None:
        count = len(image_set)
    else:
        sizes = {image_set.class_names[k]: int((image_set.labels == k).sum()) for k in normal}
        count = sum(sizes.values())
        for name, size in sizes.items():
            if size < LEAST_PER_CLASS:
                raise UsageError(
                    f"class {name!r} of {image_set.name!r} has {size} images, and a search needs {LEAST_PER_CLASS} of"
                    " each normal class; leave it out of `normal_classes`"
                )
    if count < LEAST_NORMAL:
        raise UsageError(
            f"{image_set.name!r} has {count} normal images, and a search, which holds two parts of them out, needs at"
            f" least {LEAST_NORMAL}, better hundreds; give more, or fit without a search"
        )
    return count


def _epochs(
    image_set: ImageSet,
    normal: tuple[int, ...],
    model: ModelSpec,
    training: TrainSpec,
    groups: npt.ArrayLike | None,
) -> int:
    """How many epochs a fit on the normal images of a set has at most."""
    shares = {"validation": training.validation, "calibration": training.calibration}
    split = split_normal(image_set, normal, **shares, seed=training.seed, groups=groups)
    return epochs_of(model, training, len(split.training))


def _fingerprint(plan: SearchPlan) -> dict[str, Any]:
    """What a search that goes on must agree with; the keys are the words of the refusal."""
    from optuna.distributions import distribution_to_json

    split = Split(plan.fitted, plan.judging, plan.compared)
    ranges = {name: distribution_to_json(each) for name, each in plan.space.ranges.items()}
    return {
        "data, normal classes or seed": [plan.image_set.fingerprint, split.digest()],
        **_settings(plan.space.model, plan.space.training),
        "version of the search": [METHOD, ranges],
    }


def _settings(model: ModelSpec, training: TrainSpec) -> dict[str, dict[str, Any]]:
    return {"model settings": to_dict(model), "training settings": without_places(to_dict(training))}


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
            found = measured(plan, settings, len(done), within(progress, len(done) - before, total, text))
        except BaseException:
            stop(study, trial)
            raise
        tell(study, trial, found)
        done = finished(study)


def _in_time(done: Sequence[Trial], elapsed: float, seconds: float | None) -> bool:
    return seconds is None or elapsed + sum(trial.seconds for trial in done) / len(done) <= seconds


def _kept(study: optuna.Study, best: Trial) -> Compared:
    """What the study keeps of comparisons, so that one is made once for each best trial."""
    kept = study.user_attrs.get(COMPARED)
    if kept is None:
        return Compared(None, 0)
    comparison = Comparison(**kept["comparison"]) if best.number and kept["trial"] == best.number else None
    return Compared(comparison, kept.get("times", 1))


def _compare(plan: SearchPlan, study: optuna.Study, best: Trial, progress: Progress) -> Compared:
    """Compare the best settings with those at the start; if that fails, the next start of the search tries again."""
    before = _kept(study, best).times
    try:
        found = compare(plan, best.settings, progress)
    except FAILURES as error:
        return Compared(None, before, why_failed(error))
    study.set_user_attr(COMPARED, {"trial": best.number, "comparison": asdict(found), "times": before + 1})
    return Compared(found, before + 1)


def _toml(settings: dict[str, dict[str, Any]], best: Trial, plan: SearchPlan) -> str:
    """The settings that are not the defaults, as TOML, in which values are written as in JSON."""
    name = json.dumps(plan.image_set.name)
    lines = [
        f"# The best settings of a search on {name}: those of trial {best.number}.",
        f"# Its mean ROC-AUC against pseudo-anomalies of normal images: {best.objective:.4f}.",
    ]
    written = settings["training"].get("kl_warmup", 0)
    tried = best.settings.get("kl_warmup", written)
    if tried != written:
        lines.append(
            f"# kl_warmup is the same share of the epochs of a fit on all normal images, {written} of"
            f" {plan.final_epochs}, as of those of the trial, {tried} of {plan.space.epochs}."
        )
    for table, values in settings.items():
        lines += ["", f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _columns(plan: SearchPlan, trials: Sequence[Trial]) -> dict[str, Any]:
    """One row per trial; what a trial has not is not a number."""
    columns: dict[str, list[Any]] = {
        "trial": [trial.number for trial in trials],
        "objective": [trial.objective for trial in trials],
    }
    columns |= {f"roc_auc_{kind}": [trial.roc_auc.get(kind) for trial in trials] for kind in plan.kinds}
    columns |= {name: [trial.settings[name] for trial in trials] for name in plan.space.base}
    figures = dict.fromkeys(name for trial in trials for name in trial.figures)
    columns |= {name: [trial.figures.get(name) for trial in trials] for name in figures}
    columns["seconds"] = [trial.seconds for trial in trials]
    columns["error"] = [trial.error for trial in trials]
    return {
        name: np.array(values, float) if None in values else values if isinstance(values[0], str) else np.array(values)
        for name, values in columns.items()
    }

"""The trials of a search in an Optuna journal: plain lines of JSON, of which a killed process loses one at most."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.packages import install_line
from vaeguard.storage.files import locked, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import optuna

    from vaeguard.tuning.search_space import SearchSpace

STUDY_NAME, JOURNAL_NAME = "tuning", "study.journal"
FINGERPRINT = "fingerprint"
"""User attribute of the study: what must be the same for the search to be resumed."""
RESULT = "found"
"""User attribute of a finished trial: its result."""
STOPPED = "stopped"
"""User attribute of a trial that an exception in this process, such as Ctrl-C, interrupted."""
CHANCE = 0.5
"""ROC-AUC at chance level, which the sampler gets for a failed trial: it would learn nothing from a failure."""
MOST_KILLS = 2
"""A trial that was killed this often counts as failed, since the machine can probably not run it."""
LEAST_MEASURED = 10
"""Fewest measured trials from which the importance of the settings is estimated."""


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Attributes
    ----------
    number : int
        In the order in which the trials finished; trial 0 has the settings at the start of the search.
    settings : dict
        The searched settings by name.
    objective : float or None
        Mean of `roc_auc`; None if the fit failed.
    roc_auc : dict of float
        ROC-AUC of each kind of pseudo-anomaly against the normal images from which it was made.
    figures : dict of float
        The means of `neg_elbo` (nats; comparable only under one likelihood) and of `recon_error` over the normal images
        that judge the trials; and the number, `class_accuracy` and `active_units` of the best epoch.
    seconds : float
        Wall time of the trial.
    error : str
        Why the trial failed; empty if it did not.
    """

    number: int
    settings: dict[str, Any]
    objective: float | None
    roc_auc: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""


def check_optuna() -> None:
    """Check that Optuna is installed, and silence its log.

    Raises
    ------
    VaeguardError
        Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise VaeguardError(f"the search needs Optuna; run: {install_line('tune')}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@contextlib.contextmanager
def open_study(folder: Path | None, fingerprint: Mapping[str, Any]) -> Iterator[optuna.Study]:
    """The study in `folder`, locked for this process, or one in memory; a new study gets the `fingerprint`.

    Optuna's heartbeats, which close the trials of killed processes, need a database and take seconds to notice that a
    process died. The lock shows that at once, so a search is resumed without a wait and with the same history.

    Raises
    ------
    UsageError
        The folder holds a search with another fingerprint.
    RefusedError
        The journal is damaged.
    VaeguardError
        Another search is writing to the folder, or the folder cannot be written to.
    """
    import optuna

    if folder is None:
        yield optuna.create_study(direction="maximize")
        return
    with locked(folder, ".study.lock", f"another search is writing to {str(folder)!r}"):
        sweep(folder)
        study = _read_study(folder / JOURNAL_NAME)
        _check_fingerprint(study, fingerprint, folder)
        _clear(study)
        yield study


def _read_study(journal: Path) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    # A killed process leaves Optuna's own lock, and an incomplete last line, to which the next line would be appended.
    if journal.is_file():
        Path(f"{journal}.lock").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError), journal.open("rb+") as file:
        content = file.read()
        os.truncate(file.fileno(), content.rfind(b"\n") + 1)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        if optuna.get_all_study_names(storage):
            return optuna.load_study(storage=storage, study_name=STUDY_NAME)
        return optuna.create_study(storage=storage, study_name=STUDY_NAME, direction="maximize")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(
            f"{str(journal)!r} is damaged ({error}); delete it and start the search again, or choose a different folder"
        ) from error


def _check_fingerprint(study: optuna.Study, fingerprint: Mapping[str, Any], folder: Path) -> None:
    known = study.user_attrs.get(FINGERPRINT)
    if known is None:
        study.set_user_attr(FINGERPRINT, dict(fingerprint))
        return
    differing = [name for name, value in fingerprint.items() if known.get(name) != value]
    if differing:
        raise UsageError(
            f"{str(folder)!r} contains a search that differs in {' and '.join(differing)}; choose a different folder"
        )


def _clear(study: optuna.Study) -> None:
    """Close the trials of a killed process; a trial that was not measured is drawn again, from the same history."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if RESULT in trial.user_attrs:
            _close(study, trial.number, trial.user_attrs[RESULT]["objective"])
        else:
            study.tell(trial.number, state=TrialState.FAIL)


def _close(study: optuna.Study, number: int, objective: float | None) -> None:
    study.tell(number, CHANCE if objective is None else objective)


def stop(study: optuna.Study, trial: optuna.Trial) -> None:
    """Close a trial that an exception in this process interrupted; its settings are not to blame."""
    from optuna.trial import TrialState

    trial.set_user_attr(STOPPED, True)
    study.tell(trial, state=TrialState.FAIL)


def close_killed(study: optuna.Study, space: SearchSpace) -> None:
    """Close the next trial as failed if every attempt was killed, since it would be drawn again and again.

    The first trial is never closed, since the best settings are compared with it.
    """
    import optuna

    trials, done = study.get_trials(deepcopy=False), len(finished(study))
    last = max((number for number, trial in enumerate(trials) if RESULT in trial.user_attrs), default=len(trials))
    killed = [
        trial
        for trial in trials[last + 1 :]
        if trial.state == optuna.trial.TrialState.FAIL
        and STOPPED not in trial.user_attrs
        and trial.params.keys() == space.ranges.keys()  # otherwise the process was killed while it drew the settings
    ]
    if len(killed) < MOST_KILLS:
        return
    params = killed[-1].params
    error = f"the process was killed {len(killed)} times during this trial, perhaps because memory ran out"
    failed = Trial(done, space.settings(params), None, error=error)
    study.add_trial(
        optuna.trial.create_trial(
            params=params, distributions=space.ranges, value=CHANCE, user_attrs={RESULT: asdict(failed)}
        )
    )


def finished(study: optuna.Study) -> list[Trial]:
    """The trials that were measured or failed, in order."""
    results = [trial.user_attrs[RESULT] for trial in study.get_trials(deepcopy=False) if RESULT in trial.user_attrs]
    return [Trial(**{**values, "number": number}) for number, values in enumerate(results)]


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest objective; the earliest of equal ones."""
    return max(trials, key=lambda trial: -1.0 if trial.objective is None else trial.objective)


def ask(study: optuna.Study, space: SearchSpace, seed: int) -> optuna.Trial:
    """Start the next trial: the first has the settings of `space.base`, and the sampler draws those of later trials.

    The same history and `seed` give the same settings, even if the process was killed in between.
    """
    import optuna

    done = len(finished(study))
    if not done and not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
        study.enqueue_trial(space.base)
    study.sampler = optuna.samplers.TPESampler(seed=(seed + 1_000_003 * done) % 2**32)
    return study.ask(space.ranges)


def tell(study: optuna.Study, trial: optuna.Trial, result: Trial) -> None:
    """Record the result of a trial, and close it."""
    trial.set_user_attr(RESULT, asdict(result))
    _close(study, trial.number, result.objective)


def importance(study: optuna.Study) -> dict[str, float] | None:
    """The share of each setting in the variation of the objective, greatest first; None for too few trials.

    The shares add up to 1. Their source is functional ANOVA (Hutter et al., ICML 2014).
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    trials = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if trial.user_attrs.get(RESULT, {}).get("objective") is not None
    ]
    if len(trials) < LEAST_MEASURED or len({trial.value for trial in trials}) == 1:
        return None
    measured = optuna.create_study(direction="maximize")
    measured.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = get_param_importances(measured, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in shares.items()}

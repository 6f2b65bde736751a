"""The trials of a search, kept by Optuna in a journal: plain lines of JSON, of which a kill can cost one."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.storage.files import locked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import optuna

    from vaeguard.tuning.search_space import SearchSpace

STUDY_NAME, JOURNAL_NAME = "tuning", "study.journal"
FINGERPRINT, FOUND, STOPPED = "fingerprint", "found", "stopped"
"""User attributes of the study, of its finished trials, and of those that were interrupted from the keyboard."""
CHANCE = 0.5
"""ROC-AUC by chance: the sampler, which would not learn from a failure, is told this of a trial that failed."""
CUTS = 2
"""A trial that was killed so often is taken to be what the machine cannot bear, and has failed."""
IMPORTANT_FROM = 10
"""From so many measured trials on it is said which setting mattered."""


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Attributes
    ----------
    number : int
        In the order in which they finished; 0 are the settings that the search started from.
    settings : dict
        The searched settings by name.
    objective : float or None
        Mean of `roc_auc`; None where the fit failed.
    roc_auc : dict of float
        For each kind of pseudo-anomaly, of telling it from the normal images that it was made of.
    figures : dict of float
        What else is worth knowing: means of `neg_elbo` (nats; comparable only under one likelihood) and `recon_error`
        over the normal images that judge, and of the best epoch its number, `class_accuracy` and `active_units`.
    seconds : float
        That it took.
    error : str
        Why it failed, if it did.
    """

    number: int
    settings: dict[str, Any]
    objective: float | None
    roc_auc: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""


def check_optuna() -> None:
    """Make sure that Optuna is there, and silent.

    Raises
    ------
    VaeguardError
        It is not.
    """
    try:
        import optuna
    except ImportError as error:
        raise VaeguardError("the search needs Optuna: pip install 'vaeguard[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@contextlib.contextmanager
def open_study(folder: Path | None, fingerprint: Mapping[str, Any]) -> Iterator[optuna.Study]:
    """The study in `folder`, for this process alone, or one in memory; a new one gets the `fingerprint`.

    Optuna's heartbeats, by which it fails the trials of killed processes, need a database, and some seconds to tell
    that a process died. The lock tells that at once, so a search goes on without a wait, with the same history.

    Raises
    ------
    UsageError
        The folder holds a search whose fingerprint is another.
    RefusedError
        Its journal is damaged.
    VaeguardError
        Another process is at it, or the folder cannot be written.
    """
    import optuna

    if folder is None:
        yield optuna.create_study(direction="maximize")
        return
    with locked(folder, ".study.lock", f"another search is writing {str(folder)!r}"):
        study = _read_study(folder / JOURNAL_NAME)
        _check_fingerprint(study, fingerprint, folder)
        _clear(study)
        yield study


def _read_study(journal: Path) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    # What a killed process left: a lock of its own, and a last line that is not whole, which the next would run into.
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
            f"{str(journal)!r} is damaged ({error}); delete it and search anew, or choose another folder"
        ) from error


def _check_fingerprint(study: optuna.Study, fingerprint: Mapping[str, Any], folder: Path) -> None:
    known = study.user_attrs.get(FINGERPRINT)
    if known is None:
        study.set_user_attr(FINGERPRINT, dict(fingerprint))
        return
    other = [name for name, value in fingerprint.items() if known.get(name) != value]
    if other:
        raise UsageError(f"{str(folder)!r} holds a search of which {' and '.join(other)} differ; choose another folder")


def _clear(study: optuna.Study) -> None:
    """Close the trials that a kill cut off; what was not measured is drawn again, as the history is the same."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if FOUND in trial.user_attrs:
            _close(study, trial.number, trial.user_attrs[FOUND]["objective"])
        else:
            study.tell(trial.number, state=TrialState.FAIL)


def _close(study: optuna.Study, number: int, objective: float | None) -> None:
    study.tell(number, CHANCE if objective is None else objective)


def stop(study: optuna.Study, trial: optuna.Trial) -> None:
    """Close a trial that was interrupted from within this process, which says nothing against its settings."""
    from optuna.trial import TrialState

    trial.set_user_attr(STOPPED, True)
    study.tell(trial, state=TrialState.FAIL)


def close_killed(study: optuna.Study, space: SearchSpace) -> None:
    """Close the next trial as failed if it was killed every time: it would be drawn again and again.

    The first trial is not closed, since all others are compared with it.
    """
    import optuna

    trials, done = study.get_trials(deepcopy=False), len(finished(study))
    last = max((number for number, trial in enumerate(trials) if FOUND in trial.user_attrs), default=len(trials))
    killed = [
        trial
        for trial in trials[last + 1 :]
        if trial.state == optuna.trial.TrialState.FAIL
        and STOPPED not in trial.user_attrs
        and trial.params.keys() == space.ranges.keys()  # otherwise it was killed while it was drawn
    ]
    if len(killed) < CUTS:
        return
    params = killed[-1].params
    error = f"the process was killed {len(killed)} times during this trial, perhaps for want of memory"
    found = Trial(done, space.settings(params), None, error=error)
    study.add_trial(
        optuna.trial.create_trial(
            params=params, distributions=space.ranges, value=CHANCE, user_attrs={FOUND: asdict(found)}
        )
    )


def finished(study: optuna.Study) -> list[Trial]:
    """The trials that were measured, or whose fit failed, in their order."""
    found = [trial.user_attrs[FOUND] for trial in study.get_trials(deepcopy=False) if FOUND in trial.user_attrs]
    return [Trial(**{**values, "number": number}) for number, values in enumerate(found)]


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest objective, the earliest of several."""
    return max(trials, key=lambda trial: -1.0 if trial.objective is None else trial.objective)


def ask(study: optuna.Study, space: SearchSpace, seed: int) -> optuna.Trial:
    """Start the next trial: the first has the settings of `space.base`, later ones follow from those before.

    The same history and `seed` give the same settings, whether the process was killed in between or not.
    """
    import optuna

    done = len(finished(study))
    if not done and not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
        study.enqueue_trial(space.base)
    study.sampler = optuna.samplers.TPESampler(seed=(seed + 1_000_003 * done) % 2**32)
    return study.ask(space.ranges)


def tell(study: optuna.Study, trial: optuna.Trial, found: Trial) -> None:
    """Keep what a trial came to."""
    trial.set_user_attr(FOUND, asdict(found))
    _close(study, trial.number, found.objective)


def importance(study: optuna.Study) -> dict[str, float] | None:
    """How much each setting moved the objective, shares that add up to 1, the greatest first; None for few trials.

    By functional ANOVA (Hutter et al., ICML 2014).
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    trials = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if trial.user_attrs.get(FOUND, {}).get("objective") is not None
    ]
    if len(trials) < IMPORTANT_FROM or len({trial.value for trial in trials}) == 1:
        return None
    measured = optuna.create_study(direction="maximize")
    measured.add_trials(trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = get_param_importances(measured, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in shares.items()}

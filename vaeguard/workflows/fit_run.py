"""From data to a run folder with its report: a fit, or a fit of a denoiser."""

from __future__ import annotations

import contextlib
import shlex
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.data_sets import open_images
from vaeguard.data.groups import read_groups
from vaeguard.data.images import ImageRule
from vaeguard.data.inputs import is_named
from vaeguard.engines.run_folder import new_folder
from vaeguard.errors import LostError, UsageError, VaeguardError
from vaeguard.reports.report_file import read_report
from vaeguard.settings.evaluation import DEFAULT_FPR
from vaeguard.statistics.false_alarms import fpr_note
from vaeguard.storage.places import as_urls, check_supported
from vaeguard.storage.published import is_published
from vaeguard.workflows.buckets import publishing
from vaeguard.workflows.opening import open_to_fit
from vaeguard.workflows.outcome import NAMED, FitRun, Outcome, Reporter
from vaeguard.workflows.runs import new_run, point_latest, prepare_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaeguard.data.image_set import ImageSet
    from vaeguard.settings.restoration import DenoiserSpec
    from vaeguard.workflows.opening import Data

RESUMED = "to continue, add `resume` and {run}"
"""How an interrupted fit is resumed; `run` stands for the parameter with its value."""
USUAL_NORMAL = {"good", "ok", "okay", "normal", "pass", "passed", "free", "defect-free", "no-defect", "sound"}
"""Usual names of folders of normal images."""


def fit_run(
    data: Data, run: str | None, reporter: Reporter, *, groups: str | None = None, settings: FitRun | None = None,
    **fit_settings: Any,
) -> Outcome | None:  # fmt: skip
    """Fit a model on `data` into the folder `run`, to which `runs/latest` then points.

    Several processes may fit together, those of torchrun or `settings.processes` on this machine. The first one returns
    the outcome. The others are silent, and end or return None.

    Parameters
    ----------
    data : Data
        The data to fit on.
    run : path or None
        The run folder; None is `runs/<data>-<model>-<time>`.
    reporter : Reporter
        Receives messages and progress.
    groups : path or None
        A table of groups for `read_groups`.
    settings : FitRun or None
        Settings of the run, apart from those of the fit.
    **fit_settings
        As for `vaeguard.fit`.

    Raises
    ------
    UsageError, VaeguardError
        As by `vaeguard.fit`.
    """
    from vaeguard.models.shares import is_first
    from vaeguard.training.processes import joined

    settings = settings or FitRun()
    with joined(settings.processes):
        if is_first():
            return _fit_first(data, run, reporter, groups, settings, fit_settings)
        _fit_other(data, groups, settings, fit_settings)
    return None


def _open(
    data: Data, groups: str | None, settings: FitRun, reporter: Reporter, fit_settings: dict[str, Any]
) -> tuple[ImageSet, dict[str, Any]]:
    """The images, and the settings of the fit as they are settled by these."""
    from vaeguard.training.processes import one_a_machine

    with one_a_machine():
        images, model = open_to_fit(data, fit_settings, reporter, settings)
    image_groups = read_groups(groups, images.paths) if groups else None
    return images, {**fit_settings, "model": model, "groups": image_groups, "finish": settings.finish}


def _fit_other(data: Data, groups: str | None, settings: FitRun, fit_settings: dict[str, Any]) -> None:
    """Fit in a process that is not the first one, and end it after the training."""
    from vaeguard.workflows.fit import fit

    images, fit_settings = _open(data, groups, settings, Reporter(), fit_settings)
    fit(images, download=data.download, **fit_settings)


@publishing("run")
def _fit_first(
    data: Data, run: str | None, reporter: Reporter, groups: str | None, settings: FitRun, fit_settings: dict[str, Any]
) -> Outcome:
    from vaeguard.training.loop import TrainingWarning
    from vaeguard.workflows.fit import fit

    check_supported([settings.tensorboard], "TensorBoard")
    resume = fit_settings.get("resume", False)
    folder = _named_run(run, resume=resume)
    with no_empty_run(folder):
        if folder:
            prepare_run(folder, resume=resume)
        images, fit_settings = _open(data, groups, settings, reporter, fit_settings)
    folder = folder or new_run(images, fit_settings["model"])
    _say_start(folder, reporter, resume=resume)
    _say_data(images, folder, reporter, all_classes=fit_settings.get("normal_classes") is None)
    started = time.monotonic()
    how = f"{RESUMED}; to save the model without more epochs, also add `run.finish=True`"
    with no_empty_run(folder, how), reporter.progress("fitting") as progress, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "posterior collapse", TrainingWarning)  # the report gives the same advice
        detector = fit(
            images, run=folder, tensorboard=settings.tensorboard, download=data.download, command=reporter.command,
            progress=progress, **fit_settings,
        )  # fmt: skip
    seconds = time.monotonic() - started
    try:
        if not is_published(folder):
            point_latest(folder)
    except VaeguardError as error:  # the run itself is safe
        reporter.say(f"note: {error}")
    if settings.tensorboard:
        reporter.say(f"To see the TensorBoard logs, run: tensorboard --logdir {settings.tensorboard}")
    if note := fpr_note(detector.info.calibrated_on, DEFAULT_FPR):
        reporter.say(f"note: {note}")
    later = _found_later(images)
    reporter.left_out(later)
    return Outcome(str(folder), detector, read_report(folder), [*images.errors, *later], seconds, images.left_out)


def _found_later(images: ImageSet) -> list[tuple[str, str]]:
    """Images that turned out unreadable only when an epoch came to them."""
    from vaeguard.data.shards import in_shards

    shards, known = in_shards(images.images), {path for path, _ in images.errors}
    found = ((as_urls(path), reason) for path, reason in shards.errors.items()) if shards else ()
    return [(path, reason) for path, reason in found if path not in known]


def _named_run(run: str | None, *, resume: bool) -> Path | None:
    if resume and not run:
        raise UsageError("`resume` needs `run`, the folder of the interrupted fit")
    return Path(run) if run else None


def _say_start(run: Path, reporter: Reporter, *, resume: bool) -> None:
    if resume and not any(run.glob("checkpoint.*")):
        reporter.say(f"No checkpoint in {str(run)!r}; the fit starts from the beginning")


@contextlib.contextmanager
def no_empty_run(run: Path | None, how: str = RESUMED) -> Iterator[None]:
    """Remove the empty folder of a fit that could not start, and say `how` an interrupted fit is resumed.

    `run` is None for a fit without a folder yet.
    """
    try:
        yield
    except BaseException as error:
        resumable = run is not None and any(run.glob("checkpoint.*"))
        if run:
            how = how.format(run=f"`run={run}`")
            with contextlib.suppress(OSError):
                run.rmdir()  # fails unless the folder is empty
        if isinstance(error, KeyboardInterrupt):
            epoch = f" at {error}" if str(error) else ""
            advice = f". {how[0].upper()}{how[1:]}" if resumable else ""
            raise KeyboardInterrupt(f"Interrupted{epoch}{advice}") from None
        if resumable and isinstance(error, LostError):
            error.args = (f"{error}; {how}",)
        raise


def _say_data(images: ImageSet, run: Path, reporter: Reporter, *, all_classes: bool) -> None:
    depth, height, width = images.image_shape
    size = width if images.vectors else f"{height}x{width}x{depth}"
    reporter.say(f"Data: {images.name}, {len(images.images):,} {images.what} of {size}; run folder: {run}")
    classes = [] if images.labels is None else [images.class_names[k] for k in sorted(set(images.labels.tolist()))]
    if all_classes and len(classes) > 1:
        reporter.say(_all_normal(classes))


def _all_normal(classes: list[str]) -> str:
    """The message if all classes are taken as normal, a warning if the names of some suggest otherwise."""
    usual = [name for name in classes if name.casefold().replace("_", "-").replace(" ", "-") in USUAL_NORMAL]
    others = [name for name in classes if name not in usual]
    if usual and others:
        return (
            f"warning: all {len(classes)} classes count as normal, including {_listed(others)}; if only"
            f" {_listed(usual)} should, add `normal_classes` {shlex.quote(','.join(usual))}"
        )
    return f"Normal classes: all {len(classes)} ({_listed(classes)}); to choose some of them, add `normal_classes`"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def fit_denoiser_run(
    sources: dict[str, Any], run: str | None, spec: DenoiserSpec, reporter: Reporter, *, resume: bool = False
) -> Outcome:
    """Fit a denoiser into the folder `run`, which is `runs/denoiser-ladder-<time>` by default.

    Parameters
    ----------
    sources : dict
        Parameters of `denoiser_source`: `noisy`, `clean`, `degrade` and `adapt`; with `degrade`, `clean` may name a
        data set.
    run, spec, reporter, resume
        As for `fit_run` and `fit_denoiser`.

    Raises
    ------
    UsageError, VaeguardError
        As by `denoiser_source` and `fit_denoiser`.
    """
    from vaeguard.restoration.networks.training_data import denoiser_source
    from vaeguard.workflows.fit_denoiser import fit_denoiser

    named_folder = _named_run(run, resume=resume)
    if sources["degrade"] and sources["clean"] and _is_set(sources["clean"]):
        sources = {**sources, "clean": _grey_images(sources["clean"], reporter)}
    folder = named_folder or new_folder("denoiser-ladder")
    with no_empty_run(folder), reporter.progress("fitting") as progress:
        prepare_run(folder, resume=resume, kind="denoiser")
        _say_start(folder, reporter, resume=resume)
        source = denoiser_source(**sources, spec=spec)
        reporter.left_out(source.errors)
        images = f"{source.images:,} training images, {source.held_out:,} held out"
        reporter.say(f"Data: {images}; kind of denoiser: {source.kind}; run folder: {folder}")
        fitted = fit_denoiser(source, folder, spec, resume=resume, command=reporter.command, progress=progress)
    return Outcome(str(folder), fitted, read_report(folder), fitted.errors, fitted.seconds)


def _is_set(data: str) -> bool:
    return is_named(data) or not Path(data).is_dir()


def _grey_images(data: str, reporter: Reporter) -> list[Any]:
    images = open_images(data, rule=ImageRule(channels=1))
    reporter.left_out(images.errors)
    return [image[0] for image in images.images]

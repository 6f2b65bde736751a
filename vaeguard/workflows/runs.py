"""Run folders before and after a fit: a new folder, the checks before writing, and the latest run."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.engines.run_folder import CHECKPOINT_NAME, LATEST, MODEL_NAME, followed, new_folder
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.reports.report_file import JSON_NAME, check_place
from vaeguard.storage.files import locked, sweep, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vaeguard.data.image_set import ImageSet
    from vaeguard.settings.model import ModelSpec


def new_run(image_set: ImageSet, model: ModelSpec, runs: Path = Path("runs")) -> Path:
    """Create and return a new folder `runs/<data>-<model>-<time>`.

    Raises
    ------
    VaeguardError
        `runs` cannot be written.
    """
    return new_folder(name_of(image_set, model), runs)


def name_of(image_set: ImageSet, model: ModelSpec) -> str:
    """The name of a run, `<data>-<model>`, to which the time is added."""
    _, height, width = image_set.images.shape[1:]
    return f"{image_set.name}-{'features' if model.features else model.kind_for(height, width)}"


def prepare_run(run: Path, *, resume: bool, kind: str = "fit") -> None:
    """Check, before any work, that `run` can be written to and holds nothing that would be lost.

    `kind` is the kind of the report that will be written.

    Raises
    ------
    UsageError
        The folder holds a finished or interrupted fit, a report of another kind, or other files.
    VaeguardError
        The folder cannot be written.
    """
    check_place(run / JSON_NAME, kind)
    # The checkpoint is removed last: a model beside a checkpoint is that of a fit that did not write all files.
    begun = (run / CHECKPOINT_NAME).exists()
    if (run / MODEL_NAME).exists() and not begun:
        raise UsageError(f"{str(run)!r} contains a finished model; choose a different folder, or delete this one")
    if begun and not resume:
        raise UsageError(
            f"{str(run)!r} contains an interrupted fit; to continue it, add `resume`, or choose a different folder"
        )
    held = next(run.glob("[!.]*"), None)
    if held and not begun and not (run / JSON_NAME).exists():
        raise UsageError(f"{str(run)!r} contains other files, such as {held.name!r}; choose a new or an empty folder")
    try:
        run.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise VaeguardError(f"cannot write to {str(run)!r}: {error.strerror}; choose a different folder") from error


@contextlib.contextmanager
def writing_run(run: Path | None, *, resume: bool, kind: str = "fit") -> Iterator[None]:
    """Lock `run`, if any, for this process after `prepare_run`.

    Raises
    ------
    UsageError, VaeguardError
        As by `prepare_run`, or another process is writing the folder.
    """
    if run is None:
        yield
        return
    with locked(run, ".fit.lock", f"another fit is writing to {str(run)!r}"):
        prepare_run(run, resume=resume, kind=kind)
        sweep(run)
        yield


def point_latest(run: Path, runs: Path = Path("runs")) -> None:
    """Let `runs/latest` point at `run`: a link, or a file with its name where links cannot be made, as on Windows.

    It is replaced by a rename, so it always points at a run.

    Raises
    ------
    VaeguardError
        Something else is called `latest`, or `runs` cannot be written.
    """
    latest = runs / LATEST
    if os.path.lexists(latest) and not latest.is_symlink() and followed(str(latest)) == str(latest):
        raise VaeguardError(f"{str(latest)!r} is not a link and was not changed; use the path of the run, {str(run)!r}")
    try:
        runs.mkdir(exist_ok=True)
        target = run.name if run.resolve().parent == runs.resolve() else str(run.resolve())
        if not _link(latest, target):
            write_text(latest, f"{target}\n")
    except OSError as error:
        raise VaeguardError(
            f"the link {str(latest)!r} cannot be written ({error.strerror}); use the path of the run, {str(run)!r}"
        ) from error


def _link(latest: Path, target: str) -> bool:
    """Replace `latest` by a link to `target`; return False where links cannot be made."""
    fresh = latest.with_name(f".{LATEST}-{secrets.token_hex(4)}")
    try:
        fresh.symlink_to(target, target_is_directory=True)
    except (OSError, NotImplementedError):
        return False
    try:
        fresh.replace(latest)
    finally:
        fresh.unlink(missing_ok=True)
    return True


def latest_run(runs: Path = Path("runs")) -> Path:
    """The run that `runs/latest` points at.

    Raises
    ------
    UsageError
        There is no run yet.
    """
    latest = runs / LATEST
    if not latest.exists():
        raise UsageError(f"there is no run at {str(latest)!r} yet; fit a model first, or give one as `model`")
    return Path(followed(str(latest)))

"""Run folders: where a fit leaves its model, history and pictures, and which run is the latest."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.files import locked, write_bytes
from vaeguard.split import spread_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.reading.image_set import ImageSet
    from vaeguard.spec import ModelSpec
    from vaeguard.split import Split
    from vaeguard.torch_detector import TorchDetector

MODEL_NAME = "model.safetensors"
ONNX_NAME = "model.onnx"
"""In the run of a denoiser."""
CHECKPOINT_NAME = "checkpoint.safetensors"
IMAGES_NAME = "calibration.npz"
PICTURED = 12
LOOKED_AT = 256
"""So many calibration images say what each unit of the latent does."""
KEPT_IMAGES, KEPT_BYTES = 256, 2**23
"""So many of the images that ranked the score stay in the run folder, for comparing engines."""


def new_run(image_set: ImageSet, model: ModelSpec, runs: Path = Path("runs")) -> Path:
    """Create and return a folder `runs/<data>-<model>-<time>` that nobody else has.

    Raises
    ------
    VaeguardError
        `runs` cannot be written.
    """
    _, height, width = image_set.images.shape[1:]
    return new_folder(f"{image_set.name}-{model.kind_for(height, width)}", runs)


def new_folder(name: str, runs: Path = Path("runs")) -> Path:
    """Create and return a folder `runs/<name>-<time>` that nobody else has.

    Raises
    ------
    VaeguardError
        `runs` cannot be written.
    """
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for free in (stem, *(f"{stem}-{number}" for number in range(2, 1000))):
        try:
            (runs / free).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise VaeguardError(
                f"cannot write into {str(runs)!r}: {error.strerror}; choose another run folder"
            ) from error
        return runs / free
    raise VaeguardError(f"{str(runs)!r} is full of runs of this second; choose another run folder")


def prepare_run(run: Path, *, resume: bool, kind: str = "fit") -> None:
    """Make sure, before any work, that `run` can be written to and holds nothing that would be lost.

    `kind` is that of the report which will be written.

    Raises
    ------
    UsageError
        A finished or interrupted fit is there already, the report of something else, or other files.
    VaeguardError
        The folder cannot be written.
    """
    from vaeguard.reporting.report_file import JSON_NAME, check_place

    check_place(run / JSON_NAME, kind)
    # The checkpoint goes last: beside it, a model is one of a fit that did not come to write all.
    begun = (run / CHECKPOINT_NAME).exists()
    if (run / MODEL_NAME).exists() and not begun:
        raise UsageError(f"{str(run)!r} holds a finished model; choose another folder, or delete this one")
    if begun and not resume:
        raise UsageError(
            f"{str(run)!r} holds an interrupted fit; set `resume` to go on with it, or choose another folder"
        )
    held = next(run.glob("[!.]*"), None)
    if held and not begun and not (run / JSON_NAME).exists():
        raise UsageError(f"{str(run)!r} holds other files, such as {held.name!r}; choose a new or an empty folder")
    try:
        run.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise VaeguardError(f"cannot write into {str(run)!r}: {error.strerror}; choose another folder") from error


@contextlib.contextmanager
def writing_run(run: Path | None, *, resume: bool, kind: str = "fit") -> Iterator[None]:
    """Hold `run`, if any, for this process alone, prepared by `prepare_run`.

    Raises
    ------
    UsageError, VaeguardError
        As by `prepare_run`, or another process is writing it.
    """
    if run is None:
        yield
        return
    with locked(run, ".fit.lock", f"another fit is writing {str(run)!r}"):
        prepare_run(run, resume=resume, kind=kind)
        yield


def write_history(run: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write one row per epoch to `history.csv`."""
    from vaeguard.tables import write_table

    write_table(run / "history.csv", {name: np.array([row[name] for row in history]) for name in history[0]})


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit leaves beside its detector.

    Attributes
    ----------
    image_set : ImageSet
        The data.
    split : Split
        Its parts.
    history : sequence of dict
        One row per epoch.
    restored : dict of uint8 (n, C, H, W)
        The first validation images as restored after some epochs.
    scores : float32 (rows,)
        Of the calibration images.
    command : str
        The command line.
    diverged : str
        How the training went wrong, if it did.
    """

    image_set: ImageSet
    split: Split
    history: Sequence[Mapping[str, float]]
    restored: Mapping[int, npt.NDArray[np.uint8]]
    scores: npt.NDArray[np.float32]
    command: str = ""
    diverged: str = ""


def write_run(run: Path, detector: TorchDetector, fitted: Fitted) -> None:
    """Write the history, the model, and then pictures and report: whatever goes wrong there, the fit is not lost.

    Vectors have no picture of their reconstructions.
    """
    from vaeguard.latents import latent_units
    from vaeguard.model_file import save
    from vaeguard.pictures import draw_reconstructions, pick_examples
    from vaeguard.reporting.fit import fit_report
    from vaeguard.reporting.report_file import JSON_NAME, write_report

    image_set, calibration = fitted.image_set, fitted.split.calibration
    write_history(run, fitted.history)
    write_bytes(run / IMAGES_NAME, _packed(image_set.images, calibration, detector.info.fitted_on))
    save(detector, run)
    if not image_set.vectors:
        examples = calibration[pick_examples(fitted.scores, PICTURED)]
        shown, paths = image_set.images[examples], [image_set.paths[row] for row in examples]
        inspection, hottest = detector.inspect(shown, pictures=True), detector.info.heatmap_scale
        draw_reconstructions(run / "reconstructions.png", shown, inspection, range(len(examples)), paths, hottest)
    looked_at = calibration[spread_out(len(calibration), LOOKED_AT)]
    units = latent_units(detector.graph, image_set.images[looked_at])
    record = detector.info.record
    report = fit_report(record, fitted.history, units, _by_epoch(detector, fitted), fitted.command, fitted.diverged)
    write_report(run / JSON_NAME, report)
    (run / CHECKPOINT_NAME).unlink(missing_ok=True)


def _by_epoch(detector: TorchDetector, fitted: Fitted) -> dict[str, npt.NDArray[np.uint8]]:
    """The same validation images as they are, after some epochs, and as the weights that are kept restore them."""
    if not fitted.restored:
        return {}
    validation = fitted.split.validation
    rows = validation[spread_out(len(validation), len(next(iter(fitted.restored.values()))))]
    shown = fitted.image_set.images[rows]
    kept = detector.inspect(shown, pictures=True).restored
    assert kept is not None
    best = int(detector.info.record["best_epoch"]["epoch"])
    after = {str(epoch): images for epoch, images in fitted.restored.items() if epoch != best}
    return {"input": shown, **after, f"{best} (kept)": kept}


def _packed(images: npt.NDArray[Any], rows: npt.NDArray[np.int64], fitted_on: npt.NDArray[np.uint64] | None) -> bytes:
    """Some of the rows of `images`, and the digests of those that were fitted on, as the bytes of an `.npz`."""
    some = rows[spread_out(len(rows), max(1, min(KEPT_IMAGES, KEPT_BYTES // images[:1].nbytes)))]
    file = io.BytesIO()
    known: dict[str, Any] = {} if fitted_on is None else {"fitted_on": fitted_on}
    np.savez_compressed(file, images=images[some], **known)
    return file.getvalue()


def calibration_images(model: str | Path) -> npt.NDArray[Any] | None:
    """Images that the score of a run was calibrated on, (N, C, H, W), or None where the folder has none.

    Raises
    ------
    RefusedError
        The file of them is damaged.
    """
    path = Path(model) if Path(model).is_dir() else Path(model).parent
    return _kept(path / IMAGES_NAME, "images")


def fitted_on(model: Path) -> npt.NDArray[np.uint64] | None:
    """Digests of the images that the run of a model file was fitted on, or None where the folder does not tell."""
    with contextlib.suppress(RefusedError):
        return _kept(model.parent / IMAGES_NAME, "fitted_on")
    return None


def _kept(path: Path, name: str) -> npt.NDArray[Any] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found: npt.NDArray[Any] = archive[name]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RefusedError(f"{str(path)!r} is damaged; delete it") from error
    return found


def point_latest(run: Path, runs: Path = Path("runs")) -> None:
    """Let `runs/latest` point at `run`, by a rename, so that it always points somewhere.

    Raises
    ------
    VaeguardError
        The file system has no links, or `runs` cannot be written.
    """
    latest, fresh = runs / "latest", runs / f".latest-{os.getpid()}"
    try:
        runs.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        inside = run.resolve().parent == runs.resolve()
        fresh.symlink_to(run.name if inside else run.resolve(), target_is_directory=True)
        fresh.replace(latest)
    except OSError as error:
        raise VaeguardError(
            f"the link {str(latest)!r} cannot be written ({error.strerror}); name the run {str(run)!r} itself"
        ) from error


def latest_run(runs: Path = Path("runs")) -> Path:
    """The run that `runs/latest` points at.

    Raises
    ------
    UsageError
        There is none yet.
    """
    latest = runs / "latest"
    if not latest.exists():
        raise UsageError(f"there is no run at {str(latest)!r} yet; fit a model, or name one")
    return latest

"""Fit a detector and write its run folder: model, history, pictures and report."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.split import spread_out
from vaeguard.engines.model_file import save
from vaeguard.engines.run_folder import CHECKPOINT_NAME, IMAGES_NAME, write_history
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.evaluation.latents import latent_units
from vaeguard.models.shares import is_first
from vaeguard.reports.fit import fit_report
from vaeguard.reports.pictures import draw_reconstructions, inspect_reduced, pick_examples
from vaeguard.reports.report_file import JSON_NAME, write_report
from vaeguard.reports.tensorboard import prepare_log, tensorboard_log
from vaeguard.settings.specs import fit_specs
from vaeguard.storage.files import write_bytes
from vaeguard.training.fitting import fit_detector
from vaeguard.training.plan import plan_fit
from vaeguard.workflows.runs import name_of, writing_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.inspection import DetectorInfo
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.progress import Progress
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec
    from vaeguard.training.fitting import Fitted
    from vaeguard.training.plan import FitPlan

PICTURED = 12
"""So many reconstructions are drawn."""
LATENT_IMAGES, LATENT_PLACED = 256, 16
"""The units of the latent are measured on so many calibration images; where images have many places, on the second."""
STORED_IMAGES = 256
"""So many calibration images are stored in the run folder, for comparing engines."""
STORED_BYTES = 2**23
"""The most bytes of these images; of large images, fewer are stored."""


def fit(
    images: ImageSet | npt.NDArray[Any],
    labels: npt.ArrayLike | None = None,
    *,
    groups: npt.ArrayLike | None = None,
    normal_classes: str | int | Sequence[str | int] | None = None,
    roi: str | Path | npt.ArrayLike | None = None,
    model: ModelSpec | None = None,
    training: TrainSpec | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    finish: bool = False,
    tensorboard: str | Path | None = None,
    download: bool = False,
    command: str = "",
    progress: Progress | None = None,
    **settings: Any,
) -> TorchDetector:
    """Fit a VAE on normal images or vectors, and calibrate its anomaly score on images that it has not seen.

    For photographs, the model learns features of a pretrained network; for smaller images, or with a setting for
    pixels, it learns pixels; see `ModelSpec.features`.

    >>> from vaeguard.progress import progress_bar
    >>> with progress_bar("fitting") as bar:  # doctest: +SKIP
    ...     detector = vaeguard.fit(images, normal_classes="0-8", epochs=10, latent=16, progress=bar)

    Parameters
    ----------
    images : ImageSet or ndarray
        From `vaeguard.open_images`, or an array as `vaeguard.from_array` takes it.
    labels : array of int or str, shape (N,), optional
        Classes of an array's images.
    groups : array of int or str, shape (N,), optional
        Images of the same object (such as one part under several exposures) have the same group, and the split keeps
        each group together. P-values are valid only if the calibration images are independent of the training images.
    normal_classes : str, int or sequence of these, optional
        `"0-8"`, `"good,ok"` or names; images of other classes are ignored. None takes all classes.
    roi : path or array, optional
        The region of all images that the model looks at, see `regions.read_region`; pixels outside do not change any
        result.
    model, training : ModelSpec, TrainSpec
        Settings of the model and of the training.
    run : path, optional
        Run folder for model, history, report and pictures.
    resume : bool
        Continue from the checkpoint in `run`, if there is one.
    finish : bool
        Run no more epochs: calibrate and save the model of the checkpoint in `run`. The record says how many of the
        planned epochs were finished. Needs `resume`.
    tensorboard : path, optional
        Folder of TensorBoard logs. A sub-folder with the name of the run gets the settings, the history of every epoch,
        reconstructions and samples after some epochs, and latent vectors at the end. Needs `pip install
        'vaeguard[tensorboard]'`.
    download : bool
        Download the weights of the network that `features` names, if they are not on this machine.
    command : str
        The command line, for the report.
    progress : callable, optional
        Called with the number of steps done, the number of all steps, and a line of text; `progress.progress_bar` shows
        them.
    **settings
        Single settings by name, such as `epochs=10` or `likelihood="gaussian"`, in place of those in `model` and
        `training`. `help(vaeguard.ModelSpec)` and `help(vaeguard.TrainSpec)` list them.

    Returns
    -------
    TorchDetector

    Raises
    ------
    UsageError
        There are too few normal images or groups, a class or setting is unknown, a setting does not suit the data, or
        the run folder or log is in use.
    VaeguardError
        The training diverged, weights cannot be downloaded, or the run folder or log cannot be written.
    """
    specs = fit_specs(model, training, settings)
    plan = plan_fit(images, labels, groups, normal_classes, *specs, roi, download=download)
    if finish and not ((run or not is_first()) and resume):
        raise UsageError("`finish` ends an interrupted fit; also give `resume`, and the folder of this fit as `run`")
    plan = replace(plan, finish=finish)
    return fit_planned(plan, run, resume=resume, tensorboard=tensorboard, command=command, progress=progress)


def fit_planned(
    plan: FitPlan, run: str | Path | None, *, resume: bool = False, tensorboard: str | Path | None = None,
    command: str = "", progress: Progress | None = None,
) -> TorchDetector:  # fmt: skip
    """Fit as `fit` does, after every open choice is settled.

    Raises
    ------
    UsageError, VaeguardError
        As by `fit`.
    """
    folder = Path(run) if run else None
    with writing_run(folder, resume=resume):
        monitor = None
        if tensorboard:
            name = name_of(plan.image_set, plan.model)
            monitor = partial(tensorboard_log, prepare_log(Path(tensorboard), folder, name, resume=resume))
        write = partial(write_run, folder, command=command) if folder else None
        fitted = fit_detector(plan, folder, resume=resume, monitor=monitor, write=write, progress=progress)
    if fitted.diverged:
        best = fitted.detector.info.record.epoch
        kept = f"the weights of epoch {best} were calibrated and kept in {str(folder)!r}"
        raise VaeguardError(f"{fitted.diverged}; {kept}") from fitted.diverged
    return fitted.detector


def write_run(run: Path, fitted: Fitted, command: str = "") -> None:
    """Write history and model, then pictures and report, so that an error in the latter does not lose the fit.

    A model of vectors has no pictures.
    """
    detector, image_set, calibration = fitted.detector, fitted.image_set, fitted.split.calibration
    write_history(run, fitted.history)
    write_bytes(run / IMAGES_NAME, _packed(image_set.images, calibration, detector.info))
    save(detector, run)
    if detector.info.view.pictures:
        examples = calibration[pick_examples(fitted.scores, PICTURED)]
        paths = [image_set.paths[row] for row in examples]
        shown, inspection = inspect_reduced(detector, image_set.images, examples)
        scale = detector.info.heatmap_scale
        draw_reconstructions(run / "reconstructions.png", shown, inspection, range(len(examples)), paths, scale)
    measured = LATENT_IMAGES if detector.info.view.whole else LATENT_PLACED
    units = latent_units(detector.graph, *detector.tiling.spread(image_set.images, calibration, measured))
    diverged = str(fitted.diverged or "")
    report = fit_report(detector.info.record, fitted.history, units, _restored_by_epoch(fitted), command, diverged)
    write_report(run / JSON_NAME, {**report, "source": image_set.source})
    (run / CHECKPOINT_NAME).unlink(missing_ok=True)


def _restored_by_epoch(fitted: Fitted) -> dict[str, npt.NDArray[np.uint8]]:
    """Validation images, and their restorations after some epochs and by the final weights."""
    if not fitted.restored:
        return {}
    validation = fitted.split.validation
    rows = validation[spread_out(len(validation), len(next(iter(fitted.restored.values()))))]
    shown = fitted.image_set.images[rows]
    final = fitted.detector.inspect(shown, pictures=True).restored
    assert final is not None
    best = fitted.detector.info.record.epoch
    after = {str(epoch): images for epoch, images in fitted.restored.items() if epoch != best}
    return {"input": shown, **after, f"{best} (kept)": final}


def _packed(images: npt.NDArray[Any], rows: npt.NDArray[np.int64], info: DetectorInfo) -> bytes:
    """Some of the rows of `images`, and what is known of the images fitted on, as the bytes of an `.npz` file."""
    chosen = rows[spread_out(len(rows), max(1, min(STORED_IMAGES, STORED_BYTES // images[rows[:1]].nbytes)))]
    file = io.BytesIO()
    arrays = {"images": images[chosen], "fitted_on": info.fitted_on, "out_of_fold": info.out_of_fold}
    known: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    np.savez_compressed(file, **known)
    return file.getvalue()

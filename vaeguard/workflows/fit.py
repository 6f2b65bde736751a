"""Fit a detector and write its run folder: model, history, pictures and report."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.split import spread_out
from vaeguard.engines.model_file import save
from vaeguard.engines.run_folder import CHECKPOINT_NAME, IMAGES_NAME, write_history
from vaeguard.errors import VaeguardError
from vaeguard.evaluation.latents import latent_units
from vaeguard.reports.fit import fit_report
from vaeguard.reports.pictures import draw_reconstructions, pick_examples
from vaeguard.reports.report_file import JSON_NAME, write_report
from vaeguard.reports.tensorboard import prepare_log, tensorboard_log
from vaeguard.storage.files import write_bytes
from vaeguard.training.fitting import fit_detector, plan_fit
from vaeguard.workflows.runs import writing_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.progress import Progress
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec
    from vaeguard.training.fitting import Fitted

PICTURED = 12
LOOKED_AT = 256
"""So many calibration images say what each unit of the latent does."""
KEPT_IMAGES, KEPT_BYTES = 256, 2**23
"""So many of the images that ranked the score stay in the run folder, for comparing engines."""


def fit(
    images: ImageSet | npt.NDArray[Any],
    labels: npt.ArrayLike | None = None,
    *,
    groups: npt.ArrayLike | None = None,
    normal_classes: str | int | Sequence[str | int] | None = None,
    model: ModelSpec | None = None,
    training: TrainSpec | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    tensorboard: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> TorchDetector:
    """Fit a VAE on normal images or vectors and calibrate its anomaly score on others of them.

    Parameters
    ----------
    images : ImageSet or ndarray
        From `vaeguard.open_images`, or an array as `vaeguard.from_array` takes it.
    labels : array of int or str, shape (N,), optional
        Classes of an array's images.
    groups : array of int or str, shape (N,), optional
        Images of the same thing (one part under several exposures) have the same group, and no group is on two sides
        of the split: p-values are honest only if the images that rank the score are strangers to those trained on.
    normal_classes : str, int or sequence of these, optional
        `"0-8"`, `"good,ok"` or names. Images of other classes are not looked at. Default: all.
    model, training : specs
        What to fit and how.
    run : path, optional
        Run folder to write model, history, report and pictures to.
    resume : bool
        Go on from the checkpoint in `run`, if there is one.
    tensorboard : path, optional
        Folder of TensorBoard logs: a sub-folder with the name of the run gets settings, the history of every epoch,
        restorations and samples of many, and latents at the end. Needs `pip install 'vaeguard[tensorboard]'`.
    command : str
        The command line, to be named in the report.
    progress : callable, optional
        Called with steps done, steps in all, a line of text.

    Returns
    -------
    TorchDetector

    Raises
    ------
    UsageError
        Too few normal images or groups, an unknown class, a spec that does not suit the data, a run folder or log in
        use.
    VaeguardError
        Training diverged, or the run folder or log cannot be written.
    """
    plan = plan_fit(images, labels, groups, normal_classes, model, training)
    folder = Path(run) if run else None
    with writing_run(folder, resume=resume):
        monitor = None
        if tensorboard:
            name = f"{plan.image_set.name}-{plan.model.kind}"
            monitor = partial(tensorboard_log, prepare_log(Path(tensorboard), folder, name, resume=resume))
        write = partial(write_run, folder, command=command) if folder else None
        fitted = fit_detector(plan, folder, resume=resume, monitor=monitor, write=write, progress=progress)
    if fitted.diverged:
        best = fitted.detector.info.record.epoch
        kept = f"the weights of epoch {best} are kept, calibrated, in {str(folder)!r}"
        raise VaeguardError(f"{fitted.diverged}; {kept}") from fitted.diverged
    return fitted.detector


def write_run(run: Path, fitted: Fitted, command: str = "") -> None:
    """Write the history, the model, and then pictures and report: whatever goes wrong there, the fit is not lost.

    Vectors have no picture of their reconstructions.
    """
    detector, image_set, calibration = fitted.detector, fitted.image_set, fitted.split.calibration
    write_history(run, fitted.history)
    write_bytes(run / IMAGES_NAME, _packed(image_set.images, calibration, detector.info.fitted_on))
    save(detector, run)
    if detector.info.view.pictures:
        examples = calibration[pick_examples(fitted.scores, PICTURED)]
        shown, paths = image_set.images[examples], [image_set.paths[row] for row in examples]
        inspection, hottest = detector.inspect(shown, pictures=True), detector.info.heatmap_scale
        draw_reconstructions(run / "reconstructions.png", shown, inspection, range(len(examples)), paths, hottest)
    looked_at = calibration[spread_out(len(calibration), LOOKED_AT)]
    units = latent_units(detector.graph, image_set.images[looked_at])
    diverged = str(fitted.diverged or "")
    report = fit_report(detector.info.record, fitted.history, units, _by_epoch(fitted), command, diverged)
    write_report(run / JSON_NAME, report)
    (run / CHECKPOINT_NAME).unlink(missing_ok=True)


def _by_epoch(fitted: Fitted) -> dict[str, npt.NDArray[np.uint8]]:
    """The same validation images as they are, after some epochs, and as the weights that are kept restore them."""
    if not fitted.restored:
        return {}
    validation = fitted.split.validation
    rows = validation[spread_out(len(validation), len(next(iter(fitted.restored.values()))))]
    shown = fitted.image_set.images[rows]
    kept = fitted.detector.inspect(shown, pictures=True).restored
    assert kept is not None
    best = fitted.detector.info.record.epoch
    after = {str(epoch): images for epoch, images in fitted.restored.items() if epoch != best}
    return {"input": shown, **after, f"{best} (kept)": kept}


def _packed(images: npt.NDArray[Any], rows: npt.NDArray[np.int64], fitted_on: npt.NDArray[np.uint64] | None) -> bytes:
    """Some of the rows of `images`, and the digests of those that were fitted on, as the bytes of an `.npz`."""
    some = rows[spread_out(len(rows), max(1, min(KEPT_IMAGES, KEPT_BYTES // images[:1].nbytes)))]
    file = io.BytesIO()
    known: dict[str, Any] = {} if fitted_on is None else {"fitted_on": fitted_on}
    np.savez_compressed(file, images=images[some], **known)
    return file.getvalue()

"""Fit a denoiser to a user's own scans and write its run folder."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.devices import pick_device, torch_settings
from vaeguard.engines.model_file import write_tensors
from vaeguard.engines.run_folder import MODEL_NAME, ONNX_NAME, write_history
from vaeguard.errors import VaeguardError, as_objects
from vaeguard.reports.denoiser import denoiser_report
from vaeguard.reports.report_file import JSON_NAME, write_report
from vaeguard.restoration.denoiser import SHIPPED
from vaeguard.restoration.networks.exporting import DenoiserNetworks, read_estimator, write_denoiser
from vaeguard.restoration.networks.fitting import CHECKPOINTS, train_networks
from vaeguard.settings.restoration import DenoiserSpec
from vaeguard.storage.provenance import environment
from vaeguard.training.loop import DivergedError
from vaeguard.wording import brief
from vaeguard.workflows.runs import writing_run

if TYPE_CHECKING:
    from vaeguard.progress import Progress
    from vaeguard.restoration.networks.fitting import TrainedNetworks
    from vaeguard.restoration.networks.training_data import DenoiserSource


@dataclass(frozen=True)
class FittedDenoiser:
    """The result of `fit_denoiser`.

    Attributes
    ----------
    run : str
        The folder with `model.onnx`, which `denoise_scans` takes as `model`.
    kind : str
        `photo` or `document`.
    mode : str
        `pairs`, `degrade` or `adapt`.
    images : int
        Number of training images.
    held_out : int
        Number of images held out for the figures below.
    before, after : float
        Mean squared error on held-out patches as a PSNR in dB, of the input and of the output. Without clean images,
        `before` follows from the measured noise, and `after` is Stein's estimate.
    neg_elbo : float
        Negative ELBO of the ladder VAE after training, nats per pixel; with clean images, that of a second noisy view.
    errors : tuple of (path, reason)
        Files that could not be used.
    seconds : float
        Wall time, since the last start if the fit was resumed.
    """

    run: str
    kind: str
    mode: str
    images: int
    held_out: int
    before: float
    after: float
    neg_elbo: float
    errors: tuple[tuple[str, str], ...]
    seconds: float

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {**asdict(self), "errors": as_objects(self.errors)}


def fit_denoiser(
    source: DenoiserSource,
    run: str | Path,
    spec: DenoiserSpec | None = None,
    *,
    resume: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> FittedDenoiser:
    """Fit a denoiser to a user's own scans: a direct network for one pass, and a ladder VAE for samples.

    Both networks start from the included weights, if there are any, unless `spec` sets `from_scratch`. The interval of
    the uncertainty is measured on held-out images. Without clean images, it is measured against restorations with new
    grain, which shows how consistent the network is, but not how close it comes to the clean image.

    Parameters
    ----------
    source : DenoiserSource
        The training data, from `denoiser_source`.
    run : path
        The run folder, for `model.safetensors`, `model.onnx`, `history.csv`, `report.json`, `report.html`.
    spec : DenoiserSpec or None
        Shape and training.
    resume : bool
        Continue from the checkpoints in `run`, if there are any; the result has the same bits as an uninterrupted fit.
    command : str
        The command line, for the report.
    progress : callable or None
        Called with the number of steps done, the number of all steps, and a line of text.

    Raises
    ------
    UsageError
        The run folder is in use, or its checkpoint belongs to different settings or data.
    VaeguardError
        Training diverged, or the folder cannot be written.
    """
    started = time.perf_counter()
    spec, run = spec or DenoiserSpec(), Path(run)
    device = pick_device(spec.device)
    with writing_run(run, resume=resume, kind="denoiser"), torch_settings(spec.seed, device, spec.threads):
        try:
            trained = train_networks(source, spec, device, run, progress)
        except DivergedError as error:
            _remove_checkpoints(run)  # a resumed fit would diverge again
            raise VaeguardError(f"training diverged: {error}; lower `learning_rate`") from error
        before, after = source.judge(trained.direct)
        fitted = FittedDenoiser(
            run=str(run),
            kind=source.kind,
            mode=source.mode,
            images=source.images,
            held_out=source.held_out,
            before=before,
            after=after,
            neg_elbo=trained.history[-1]["neg_elbo"],
            errors=tuple(source.errors),
            seconds=time.perf_counter() - started,
        )
        _write(run, fitted, trained, spec, source.grain, command)
    return fitted


def _write(
    run: Path,
    fitted: FittedDenoiser,
    trained: TrainedNetworks,
    spec: DenoiserSpec,
    grain: tuple[float, float] | None,
    command: str,
) -> None:
    """Write the run folder; the weights come last and mark it as finished, and only then the checkpoints go."""
    device = pick_device(spec.device)
    direct, ladder = trained.direct.cpu(), trained.ladder.cpu()
    shapes = {"width": direct.width, "depth": direct.depth, "ladder_width": ladder.width, "latent": ladder.latent}
    card = {"kind": fitted.kind, "mode": fitted.mode, "images": fitted.images, "spec": asdict(spec) | shapes}
    facts = {**fitted.to_dict(), **card, **environment(device)}
    tensors = {f"direct.{name}": tensor for name, tensor in direct.state_dict().items()}
    tensors |= {f"ladder.{name}": tensor for name, tensor in ladder.state_dict().items()}
    write_history(run, trained.history)
    # The estimator does not know the grain of a particular collection.
    estimator = None if grain else read_estimator(SHIPPED / f"{fitted.kind}.onnx")
    # The card depends on nothing but the fit: a repeated fit gives the same files, and finished scans stay finished.
    networks = DenoiserNetworks(
        direct=direct,
        kind=fitted.kind,
        interval=trained.interval,
        card=card,
        ladder=ladder,
        grain=grain,
        estimator=estimator,
    )
    write_denoiser(networks, run / ONNX_NAME)
    history, interval = trained.history, trained.interval
    report = denoiser_report(run.name, facts, history, interval, command=command, device=device)
    write_report(run / JSON_NAME, report)
    write_tensors(run / MODEL_NAME, tensors, {"kind": "denoiser", "interval": interval, "denoiser": card})
    _remove_checkpoints(run)


def _remove_checkpoints(run: Path) -> None:
    for name in CHECKPOINTS:
        (run / name).unlink(missing_ok=True)

"""Fit a denoiser to one's own scans and write its run folder."""

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
from vaeguard.workflows.runs import writing_run

if TYPE_CHECKING:
    from vaeguard.progress import Progress
    from vaeguard.restoration.networks.fitting import TrainedNetworks
    from vaeguard.restoration.networks.training_data import DenoiserSource


@dataclass(frozen=True)
class FittedDenoiser:
    """What `fit_denoiser` made.

    Attributes
    ----------
    run : str
        The folder with `model.onnx`, which `denoise_scans` takes as `model`.
    kind : str
        `photo` or `document`.
    mode : str
        `pairs`, `degrade` or `adapt`.
    images : int
        Trained on.
    held_out : int
        Images that were kept apart to judge by.
    before, after : float
        Mean squared error on held-out patches as a PSNR in dB, of what goes in and of what comes out. Without clean
        images `before` follows from the measured noise, and `after` is Stein's estimate.
    neg_elbo : float
        Of the ladder VAE at the end of training, nats per pixel; with clean images that of a second noisy view.
    errors : tuple of (path, reason)
        Files that could not be used.
    seconds : float
        Wall time, since it was gone on with if it was.
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
    """Fit a denoiser to one's own scans: a direct network for one pass, and beside it a ladder VAE for samples.

    Both start from the weights that ship, where there are any and nothing else is asked for. The interval behind the
    stated uncertainty is measured on images held out; without clean ones against what is restored with fresh grain,
    which tells how well the network knows itself, and not how well it knows the scene.

    Parameters
    ----------
    source : DenoiserSource
        What to train on; `denoiser_source` finds it.
    run : path
        The folder to write: `model.safetensors`, `model.onnx`, `history.csv`, `report.json`, `report.html`.
    spec : DenoiserSpec or None
        Shape and training.
    resume : bool
        Go on from the checkpoints in `run`, if there are any, to the same bits.
    command : str
        The command line, to be named in the report.
    progress : callable or None
        Called with steps done, steps in all, a line of text.

    Raises
    ------
    UsageError
        The run folder is in use, or its checkpoint is of other settings or data.
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
            _forget(run)  # the same would follow from it
            raise VaeguardError(f"training diverged: {error}; lower `learning_rate`") from error
        before, after = source.judge(trained.direct)
        found = FittedDenoiser(
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
        _write(run, found, spec, device, trained, source.grain, command)
    return found


def _write(
    run: Path,
    found: FittedDenoiser,
    spec: DenoiserSpec,
    device: str,
    trained: TrainedNetworks,
    grain: tuple[float, float] | None,
    command: str,
) -> None:
    """Write the run, last the weights, which say that it is finished; until then checkpoints hold what took long."""
    direct, ladder = trained.direct.cpu(), trained.ladder.cpu()
    shapes = {"width": direct.width, "depth": direct.depth, "ladder_width": ladder.width, "latent": ladder.latent}
    how = {"kind": found.kind, "mode": found.mode, "images": found.images, "spec": asdict(spec) | shapes}
    facts = {**found.to_dict(), **how, **environment(device)}
    tensors = {f"direct.{name}": each for name, each in direct.state_dict().items()}
    tensors |= {f"ladder.{name}": each for name, each in ladder.state_dict().items()}
    write_history(run, trained.history)
    # A collection's own grain is measured otherwise.
    estimator = None if grain else read_estimator(SHIPPED / f"{found.kind}.onnx")
    # Nothing in it changes from one fit to the same again, so that finished scans stay finished.
    networks = DenoiserNetworks(
        direct=direct,
        kind=found.kind,
        interval=trained.interval,
        card=how,
        ladder=ladder,
        grain=grain,
        estimator=estimator,
    )
    write_denoiser(networks, run / ONNX_NAME)
    history, interval = trained.history, trained.interval
    report = denoiser_report(run.name, facts, history, interval, command=command, device=device)
    write_report(run / JSON_NAME, report)
    write_tensors(run / MODEL_NAME, tensors, {"kind": "denoiser", "interval": interval, "denoiser": facts})
    _forget(run)


def _forget(run: Path) -> None:
    for name in CHECKPOINTS:
        (run / name).unlink(missing_ok=True)

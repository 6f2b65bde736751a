"""Train the networks of a denoiser: the direct one, and the ladder VAE beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaeguard.devices import has_bf16
from vaeguard.engines.run_folder import CHECKPOINT_NAME
from vaeguard.restoration.denoiser import SHIPPED
from vaeguard.restoration.networks.direct import DirectDenoiser
from vaeguard.restoration.networks.exporting import read_networks
from vaeguard.restoration.networks.ladder import LadderVAE
from vaeguard.restoration.networks.training import (
    LEARNING_RATE,
    SPREAD_STEPS,
    fit_spread,
    interval_of,
    paired_elbo_loss,
    seen_elbo_loss,
    supervised_loss,
    train_network,
    unsupervised_loss,
)
from vaeguard.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from vaeguard.progress import Progress
    from vaeguard.restoration.networks.training import Loss
    from vaeguard.restoration.networks.training_data import DenoiserSource
    from vaeguard.settings.restoration import DenoiserSpec

FINE_TUNING_RATE = 3e-4
"""The default learning rate if training starts from shipped weights."""
CHECKPOINTS = (CHECKPOINT_NAME, "checkpoint-ladder.safetensors")
"""The checkpoints of the direct network, and of the ladder VAE that is trained after it."""


@dataclass(frozen=True)
class TrainedNetworks:
    """The networks of a denoiser, one row per epoch of their history, and the interval of their expected errors."""

    direct: DirectDenoiser
    ladder: LadderVAE
    history: list[dict[str, float]]
    interval: float


def train_networks(
    source: DenoiserSource, spec: DenoiserSpec, device: str, run: Path, progress: Progress | None
) -> TrainedNetworks:
    """Train the networks of a denoiser on `device`, with checkpoints in the folder `run`.

    Both networks start from shipped weights, if there are any, unless `spec.from_scratch` is set. An interrupted
    training can be resumed and ends with the same bits.

    Raises
    ------
    DivergedError
        Training diverged.
    UsageError
        A checkpoint is of other settings or data.
    """
    shipped = (None, None) if spec.from_scratch else read_networks(SHIPPED / f"{source.kind}.onnx")
    direct = shipped[0] or DirectDenoiser(spec.width, spec.depth)
    ladder = shipped[1] or LadderVAE(spec.ladder_width, spec.latent)
    direct.requires_grad_().to(device)
    ladder.requires_grad_().to(device)
    bf16 = has_bf16(device)
    rates = [spec.learning_rate or (FINE_TUNING_RATE if net else LEARNING_RATE) for net in shipped]
    environment = {"device": device, "threads": torch.get_num_threads(), "bf16": bf16}
    settings = {"denoiser": asdict(spec) | environment, "data": {"fingerprint": source.fingerprint}}
    checkpoints = [Checkpoint(run / name, settings) for name in CHECKPOINTS]
    losses = _losses(source, direct, ladder, bf16=bf16)
    spread_steps = min(SPREAD_STEPS, spec.steps)

    def stage(name: str, before: int) -> Progress | None:
        total = 2 * spec.steps + spread_steps
        return progress and (lambda done, _, text: progress(before + done, total, f"{name} {text}".strip()))

    direct, squares = train_network(
        direct,
        losses[0],
        source.learn(0),
        spec.steps,
        rate=rates[0],
        progress=stage("direct network:", 0),
        checkpoint=checkpoints[0],
    )
    ladder, nats = train_network(
        ladder,
        losses[1],
        source.learn(1),
        spec.steps,
        rate=rates[1],
        progress=stage("ladder VAE:", spec.steps),
        checkpoint=checkpoints[1],
    )
    truths = source.with_truth(direct, source.learn(2))
    fit_spread(direct, truths, spread_steps, progress=stage("expected errors", 2 * spec.steps))
    interval = interval_of(direct, source.with_truth(direct, source.judged(3)))
    return TrainedNetworks(direct.eval(), ladder.eval(), _history(spec.steps, squares, nats), interval)


def _losses(source: DenoiserSource, direct: DirectDenoiser, ladder: LadderVAE, *, bf16: bool) -> tuple[Loss, Loss]:
    """The losses of the two networks: against clean images, or for images with grain alone."""
    if source.grain:
        return unsupervised_loss(direct, bf16=bf16), seen_elbo_loss(ladder, source.grain[0], bf16=bf16)
    by_noise = source.kind == "photo"
    return supervised_loss(direct, by_noise=by_noise, bf16=bf16), paired_elbo_loss(ladder, bf16=bf16)


def _history(steps: int, squares: list[float], nats: list[float]) -> list[dict[str, float]]:
    ends = np.linspace(0, steps, len(squares) + 1)[1:]
    rows = zip(ends, squares, nats, strict=True)
    return [{"step": round(step), "direct_loss": square, "neg_elbo": nat} for step, square, nat in rows]

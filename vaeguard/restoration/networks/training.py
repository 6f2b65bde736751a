"""Training a direct denoiser or a ladder VAE on batches of patches, with or without clean ones."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from torch import nn

from vaeguard.restoration.networks.ladder import pixel_distortion
from vaeguard.training.loop import State, Task, copy_weights, train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from vaeguard.progress import Progress
    from vaeguard.restoration.networks.batches import Batch
    from vaeguard.restoration.networks.direct import DirectDenoiser
    from vaeguard.restoration.networks.ladder import LadderOutput, LadderVAE
    from vaeguard.training.checkpoint import Checkpoint

    Loss = Callable[..., Tensor]

Net = TypeVar("Net", bound=nn.Module)

LEARNING_RATE = 1e-3
LAST_RATE_SHARE = 0.002
"""The learning rate of the last step, as a share of the largest."""
WARM_UP = 500
"""The most steps until the learning rate is at its largest."""
SPREAD_RATE = 1e-2
"""The learning rate at the start of fitting expected errors."""
SPREAD_STEPS = 1500
"""The default number of steps for fitting expected errors."""
AVERAGE = 0.999
"""The decay of the running average of the weights, which is the result of a training."""
COVERAGE = 0.9
"""The share of clean pixels in the interval of expected errors."""
RECORRUPTION = (0.3, 1.0)
"""The range of the share of the grain that is added once more."""
PROBE = 0.1
"""The step from which the divergence of a denoiser is estimated, as a share of the grain."""
LEAST_DEVIATION = 4 / 255
"""The least deviation of the likelihood of a ladder VAE, since no image is known more precisely."""
FREE_NATS = (0.06, 0.04, 0.03)
"""The rates per pixel that cost nothing, on each scale of a ladder VAE, finest first."""
HISTORY = 100
"""The most rows in the history of a training."""


@dataclass
class NetworkTask(Task):
    """The training of a network on endless batches; an epoch is a hundredth of all steps.

    Parameters
    ----------
    loss_of : callable
        The loss of a batch.
    stream : iterator
        Batches: tuples of tensors, as `loss_of` takes them.
    steps : int
        The number of steps.
    rate : callable
        The learning rate of a step, counted from 0 over all epochs.
    averaged : bool
        Whether the result is a running average of the weights, instead of the weights at the end.
    """

    loss_of: Loss
    stream: Iterator[tuple[Tensor, ...]]
    steps: int
    rate: Callable[[int], float]
    averaged: bool = True
    gradient_norm: float | None = 1.0

    def __post_init__(self) -> None:
        self.epochs = min(HISTORY, self.steps)
        self._losses: list[float] = []

    def steps_before(self, epoch: int) -> int:
        """The number of steps in all epochs before `epoch`; the first epochs may have one step more than the others."""
        return epoch * (self.steps // self.epochs) + min(epoch, self.steps % self.epochs)

    def batches(self, state: State) -> Iterator[tuple[Tensor, ...]]:
        """The next batches of the stream."""
        self._losses = []
        epoch = len(state.history)
        return itertools.islice(self.stream, self.steps_before(epoch + 1) - self.steps_before(epoch))

    def learning_rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step of an epoch."""
        return self.rate(self.steps_before(epoch) + step)

    def loss(self, state: State, batch: tuple[Tensor, ...], step: int) -> Tensor:  # noqa: ARG002
        """The loss of a batch, on the device of the network."""
        loss = self.loss_of(*(values.to(state.device) for values in batch))
        self._losses.append(loss.item())
        return loss

    def divergence(self, epoch: int, step: int, loss: float) -> str:
        """The error message for a loss that is not finite."""
        return f"the loss is {loss} after {self.steps_before(epoch) + step + 1} steps"

    def finish_step(self, state: State, step: int) -> None:
        """Update the running average."""
        if not self.averaged:
            return
        done = self.steps_before(len(state.history)) + step + 1
        for name, parameter in state.net.named_parameters():
            state.weights[name].lerp_(parameter.detach(), 1 - min(AVERAGE, done / (done + 50)))

    def finish_epoch(self, state: State) -> dict[str, float]:  # noqa: ARG002
        """The row of history: the mean loss."""
        return {"loss": float(np.mean(self._losses))}


def train_network(
    net: Net,
    loss_of: Loss,
    batches: Iterator[tuple[Tensor, ...]],
    steps: int,
    *,
    rate: float = LEARNING_RATE,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Net, list[float]]:
    """Train `net` for `steps` steps of AdamW with a cosine schedule; the running average of its weights is the result.

    Parameters
    ----------
    net : Module
        The network; trained in place, on its device.
    loss_of : callable
        The loss of a batch, such as `supervised_loss(net)`.
    batches : iterator
        Tuples of tensors, as `loss_of` takes them.
    steps : int
        The number of steps.
    rate : float
        The largest learning rate.
    progress : callable or None
        Called with steps done, steps in all, a line of text.
    checkpoint : Checkpoint or None
        Written every few seconds and at the end; training resumes from an existing one and ends with the same bits.

    Returns
    -------
    net : Module
        The network with the average as its weights, which need no gradients any more.
    losses : list of float
        The mean loss of each hundredth of the training.

    Raises
    ------
    DivergedError
        The loss is no longer finite.
    UsageError
        The checkpoint is of other settings or data.
    """
    optimizer = torch.optim.AdamW(net.parameters(), rate, betas=(0.9, 0.98), weight_decay=1e-4)
    state = State(net, optimizer, copy_weights(net))
    task = NetworkTask(loss_of, batches, steps, partial(_cosine, rate, steps))
    if checkpoint:
        checkpoint.read(state)
    done = task.steps_before(len(state.history))
    for step in range(done if done < steps else 0):
        next(batches)  # skips the batches before the checkpoint
        if progress:
            progress(step + 1, steps, "skipping the batches before the checkpoint")
    train(state, task, save=checkpoint.write if checkpoint else None, progress=progress)
    if checkpoint:
        checkpoint.write(state)
    net.load_state_dict(state.weights)
    return net.requires_grad_(requires_grad=False), [row["loss"] for row in state.history]


def _cosine(largest: float, steps: int, done: int) -> float:
    """The learning rate after `done` steps: a warm-up, then half a cosine."""
    step = done + 1
    share = 0.5 * (1 + math.cos(math.pi * step / steps)) * (1 - LAST_RATE_SHARE) + LAST_RATE_SHARE
    return largest * min(1, step / min(WARM_UP, steps // 10 + 1)) * share


def supervised_loss(net: DirectDenoiser, *, by_noise: bool, bf16: bool = False) -> Loss:
    """Squared error against the clean image, for batches of (clean, noisy, noise).

    Parameters
    ----------
    net : DirectDenoiser
        The network in training.
    by_noise : bool
        Weigh errors by the strength of the noise, so that weak noise is learned as well as strong noise.
    bf16 : bool
        Multiply in bfloat16.
    """

    def loss(clean: Tensor, noisy: Tensor, noise: Tensor) -> Tensor:
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=bf16):
            restored, _ = net(noisy, noise)
        errors = (restored.float() - clean).square().mean((1, 2, 3))
        weighed: Tensor = errors / (noise.flatten() + 0.02) if by_noise else errors
        return 10 * weighed.mean()

    return loss


def unsupervised_loss(net: DirectDenoiser, *, bf16: bool = False) -> Loss:
    """Squared error against another noisy image, for batches of (seen, grain, noise) without clean images.

    This is recorrupted-to-recorrupted (Pang et al., 2021). The input is the seen image plus a share s of fresh grain,
    and the target is the seen image minus 1/s of the same grain. The noise of input and target is independent, so the
    optimal output is the clean image, for grain of any width. The network takes the strength of the noise in its input,
    and learns many strengths, down to nearly that of the images.

    Parameters
    ----------
    net : DirectDenoiser
        The network in training.
    bf16 : bool
        Multiply in bfloat16.
    """

    def loss(seen: Tensor, grain: Tensor, noise: Tensor) -> Tensor:
        share = torch.empty_like(noise).uniform_(*RECORRUPTION)
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=bf16):
            restored, _ = net(seen + share * grain, noise * (1 + share.square()).sqrt())
        errors = (restored.float() - (seen - grain / share)).square().mean((1, 2, 3))
        # Weights fall with the noise of the target, which is stronger the smaller the share is.
        weights = (share.square() / (1 + share.square()) / (noise + 0.02)).flatten()
        weighed: Tensor = weights * errors
        return 10 * weighed.mean()

    return loss


def stein_estimate(net: DirectDenoiser, seen: Tensor, grain: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of each restored image, estimated without the clean one, shape (N,).

    The divergence is probed with fresh grain of the same kind, which gives the right term for grain of any covariance
    (Stein, 1981; Monte Carlo form: Ramani et al., 2008). float32 is needed, since differences are small.
    """
    restored, _ = net(torch.cat([seen, seen + PROBE * grain]), torch.cat([noise, noise]))
    first, second = restored.chunk(2)
    misfit = (first - seen).square().mean((1, 2, 3))
    divergence = (grain * (second - first)).mean((1, 2, 3)) / PROBE
    estimate: Tensor = misfit - grain.square().mean((1, 2, 3)) + 2 * divergence
    return estimate


def paired_elbo_loss(ladder: LadderVAE, *, bf16: bool = False) -> Loss:
    """Negative ELBO in nats per pixel, for batches of (clean, noisy, noise).

    The bound is for a second noisy view of the clean image, in expectation over its noise. The latents come from one
    view and explain another, which gives a bound as well, with less variance.

    Parameters
    ----------
    ladder : LadderVAE
        The network in training.
    bf16 : bool
        Multiply in bfloat16.
    """

    def loss(clean: Tensor, noisy: Tensor, noise: Tensor) -> Tensor:
        nats = _neg_elbo(_draw(ladder, noisy, noise, bf16=bf16), clean, noise)
        # The noise of the second view has this expected cost, whatever image is restored.
        cost_of_noise = 0.5 * noise.square() / (noise.square() + LEAST_DEVIATION**2)
        return (nats + cost_of_noise.flatten()).mean()

    return loss


def seen_elbo_loss(ladder: LadderVAE, grain_width: float, *, bf16: bool = False) -> Loss:
    """Negative ELBO of the seen image in nats per pixel, for batches of (seen, grain, noise).

    The likelihood is that of the grain, as in DivNoising (Prakash et al., 2021): information about grain in the latents
    costs more than it saves, so the latents leave grain out.

    Parameters
    ----------
    ladder : LadderVAE
        The network in training.
    grain_width : float
        The width of the images' grain, in pixels.
    bf16 : bool
        Multiply in bfloat16.
    """

    def loss(seen: Tensor, grain: Tensor, noise: Tensor) -> Tensor:
        deviation = grain.std((1, 2, 3), keepdim=True)
        return _neg_elbo(_draw(ladder, seen, noise, bf16=bf16), seen, deviation, grain_width).mean()

    return loss


def _draw(ladder: LadderVAE, seen: Tensor, noise: Tensor, *, bf16: bool) -> LadderOutput:
    """The output of the ladder VAE for a batch, from a sample of the posterior."""
    shapes = ladder.latent_shapes(len(seen), *seen.shape[2:])
    latent_noise = [torch.randn(shape, device=seen.device) for shape in shapes]
    with torch.autocast(seen.device.type, torch.bfloat16, enabled=bf16):
        output: LadderOutput = ladder(seen, noise, latent_noise)
    return output


def _neg_elbo(output: LadderOutput, target: Tensor, deviation: Tensor, grain_width: float = 0) -> Tensor:
    """Nats per pixel of each image, for grain of `deviation` around the restored image."""
    deviation = (deviation.square() + LEAST_DEVIATION**2).sqrt()
    nats = pixel_distortion(output.restored.float(), target, deviation, grain_width).mean((1, 2, 3))
    rates = [level.sum((1, 2)) / target[0].numel() for level in output.kl]
    # Without free bits (Kingma et al., 2016), one scale would take all information and the others would collapse.
    cost = [rate + (free - rate.mean()).clamp(min=0) for rate, free in zip(rates, FREE_NATS, strict=True)]
    per_pixel: Tensor = nats + torch.stack(cost).sum(0)
    return per_pixel


def fit_spread(
    net: DirectDenoiser, batches: Iterator[Batch], steps: int = SPREAD_STEPS, *, progress: Progress | None = None
) -> None:
    """Fit the expected error of each pixel by the Gaussian negative log-likelihood; restored images do not change."""
    net.requires_grad_(requires_grad=False)
    first = 0 if net.spread.weight.any() else 1
    device = next(net.parameters()).device
    if first:  # fresh weights begin at the mean error, not at 1
        error, _ = _error_and_variance(net, *(values.to(device) for values in next(batches)))
        torch.nn.init.constant_(cast("Tensor", net.spread.bias), float(error.mean().log()))
    net.spread.requires_grad_(requires_grad=True)

    def loss(clean: Tensor, noisy: Tensor, noise: Tensor) -> Tensor:
        error, log_variance = _error_and_variance(net, clean, noisy, noise)
        return 0.5 * (log_variance + error * torch.exp(-log_variance)).mean()

    def rate(done: int) -> float:
        return SPREAD_RATE * (1 - (first + done) / steps)

    if steps > first:
        optimizer = torch.optim.Adam(net.spread.parameters(), SPREAD_RATE)
        report = progress and (lambda done, _, __: progress(first + done, steps, ""))
        task = NetworkTask(loss, batches, steps - first, rate, averaged=False)
        train(State(net, optimizer, {}), task, progress=report)
    net.requires_grad_(requires_grad=False)


def _error_and_variance(net: DirectDenoiser, clean: Tensor, noisy: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The squared error of each pixel, and the logarithm of its expectation by the network."""
    restored, log_variance = net(noisy, noise)
    return (restored.detach().clamp(0, 1) - clean).square(), log_variance


def interval_of(net: DirectDenoiser, batches: Iterator[Batch], count: int = 50) -> float:
    """The factor from the spread to half of an interval with nine of ten clean pixels, on `count` held-out batches."""
    device = next(net.parameters()).device
    ratios = []
    with torch.no_grad():
        for _ in range(count):
            clean, noisy, noise = (values.to(device) for values in next(batches))
            restored, log_variance = net(noisy, noise)
            ratio = (restored.clamp(0, 1) - clean).abs() / torch.exp(0.5 * log_variance)
            ratios.append(ratio.cpu().numpy().ravel())
    return float(np.quantile(np.concatenate(ratios), COVERAGE))

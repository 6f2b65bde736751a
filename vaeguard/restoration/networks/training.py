"""Train a direct denoiser or a ladder VAE on batches of patches, with or without clean ones."""

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

LEARNING_RATE, LAST_RATE_SHARE, WARM_UP = 1e-3, 0.002, 500
SPREAD_RATE, SPREAD_STEPS = 1e-2, 1500
AVERAGE = 0.999
"""The decay of the running average of the weights, which is the result of a training."""
COVERAGE = 0.9
RECORRUPTION = (0.3, 1.0)
"""The range of the share of the grain that is added once more."""
PROBE = 0.1
"""How far the divergence of a denoiser is probed, as a share of the grain."""
LEAST_DEVIATION = 4 / 255
"""The least deviation of a ladder's likelihood, since no image is known better."""
FREE_NATS = (0.06, 0.04, 0.03)
"""Rates per pixel that cost nothing, on each scale of a ladder VAE, finest first."""
HISTORY = 100
"""Rows of a training's history."""


@dataclass
class NetworkTask(Task):
    """A network and endless batches, of which an epoch is a hundredth of the training; a running average is kept.

    Parameters
    ----------
    loss_of : callable
        The loss of a batch.
    stream : iterator
        Tuples of tensors, as `loss_of` takes them.
    steps : int
        Of training.
    rate : callable
        The learning rate of a step of all, counted from 0.
    averaged : bool
        Whether a running average is kept, instead of the weights at the end.
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
        """How many steps the epochs before `epoch` have; the first ones have one more if they are not alike."""
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
        """Move the running average."""
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
        Trained in place, on the device where it is.
    loss_of : callable
        The loss of a batch, such as `supervised_loss(net)`.
    batches : iterator
        Tuples of tensors, as `loss_of` takes them.
    steps : int
        Of training.
    rate : float
        The largest learning rate.
    progress : callable or None
        Called with steps done, steps in all, the loss.
    checkpoint : Checkpoint or None
        Written every few seconds and at the end; where there is one already, training goes on from it to the same bits.

    Returns
    -------
    net : Module
        With the average as its weights, not to be trained further.
    losses : list of float
        Means over each hundredth of the training.

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
        next(batches)  # those of then, so that what follows is the same
        if progress:
            progress(step + 1, steps, "drawing again what was learned from")
    train(state, task, save=checkpoint.write if checkpoint else None, progress=progress)
    if checkpoint:
        checkpoint.write(state)
    net.load_state_dict(state.weights)
    return net.requires_grad_(requires_grad=False), [row["loss"] for row in state.history]


def _cosine(largest: float, steps: int, done: int) -> float:
    """The learning rate after so many steps that are done: a warm-up, then half a cosine."""
    step = done + 1
    share = 0.5 * (1 + math.cos(math.pi * step / steps)) * (1 - LAST_RATE_SHARE) + LAST_RATE_SHARE
    return largest * min(1, step / min(WARM_UP, steps // 10 + 1)) * share


def supervised_loss(net: DirectDenoiser, *, by_noise: bool, bf16: bool = False) -> Loss:
    """Squared error against the clean image, for batches of (clean, noisy, noise).

    Parameters
    ----------
    net : DirectDenoiser
        What is trained.
    by_noise : bool
        Weigh errors by the strength of the noise, so that weak noise is learned as well as strong.
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

    Recorrupted-to-recorrupted (Pang et al., 2021): what is seen with more of such grain, a share s of it, goes in, and
    what is seen less 1/s of the same grain is to come out. The noise of the two is independent, so that the best that
    can be learned is the clean image, for grain of any width. The network is given the strength of the noise that goes
    in, and learns many strengths down to nearly that of the images.

    Parameters
    ----------
    net : DirectDenoiser
        What is trained.
    bf16 : bool
        Multiply in bfloat16.
    """

    def loss(seen: Tensor, grain: Tensor, noise: Tensor) -> Tensor:
        share = torch.empty_like(noise).uniform_(*RECORRUPTION)
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=bf16):
            restored, _ = net(seen + share * grain, noise * (1 + share.square()).sqrt())
        errors = (restored.float() - (seen - grain / share)).square().mean((1, 2, 3))
        # By the noise of the target, of which there is the more the less goes in.
        weights = (share.square() / (1 + share.square()) / (noise + 0.02)).flatten()
        weighed: Tensor = weights * errors
        return 10 * weighed.mean()

    return loss


def stein_estimate(net: DirectDenoiser, seen: Tensor, grain: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of each restored image, estimated without the clean one, shape (N,).

    The divergence is probed with grain like that of the images, which for grain of any width gives the term that its
    covariance asks for (Stein, 1981; Monte Carlo form: Ramani et al., 2008). In float32, since differences are small.
    """
    restored, _ = net(torch.cat([seen, seen + PROBE * grain]), torch.cat([noise, noise]))
    first, second = restored.chunk(2)
    misfit = (first - seen).square().mean((1, 2, 3))
    divergence = (grain * (second - first)).mean((1, 2, 3)) / PROBE
    estimate: Tensor = misfit - grain.square().mean((1, 2, 3)) + 2 * divergence
    return estimate


def paired_elbo_loss(ladder: LadderVAE, *, bf16: bool = False) -> Loss:
    """Negative ELBO in nats per pixel, for batches of (clean, noisy, noise).

    The bound is that of a second noisy view of the clean image, in expectation over its noise: the latents come from
    one view and explain another, which is a bound as well, with less variance.

    Parameters
    ----------
    ladder : LadderVAE
        What is trained.
    bf16 : bool
        Multiply in bfloat16.
    """

    def loss(clean: Tensor, noisy: Tensor, noise: Tensor) -> Tensor:
        nats = _neg_elbo(_draw(ladder, noisy, noise, bf16=bf16), clean, noise)
        # What the second view's own noise costs on average, whatever is restored.
        of_its_noise = 0.5 * noise.square() / (noise.square() + LEAST_DEVIATION**2)
        return (nats + of_its_noise.flatten()).mean()

    return loss


def seen_elbo_loss(ladder: LadderVAE, grain_width: float, *, bf16: bool = False) -> Loss:
    """Negative ELBO in nats per pixel, for batches of (seen, grain, noise): what is seen is itself to be explained.

    The likelihood is that of the grain, so that latents pay for what they tell of it and leave it out, as in DivNoising
    (Prakash et al., 2021).

    Parameters
    ----------
    ladder : LadderVAE
        What is trained.
    grain_width : float
        Of the images' grain, in pixels.
    bf16 : bool
        Multiply in bfloat16.
    """

    def loss(seen: Tensor, grain: Tensor, noise: Tensor) -> Tensor:
        deviation = grain.std((1, 2, 3), keepdim=True)
        return _neg_elbo(_draw(ladder, seen, noise, bf16=bf16), seen, deviation, grain_width).mean()

    return loss


def _draw(ladder: LadderVAE, seen: Tensor, noise: Tensor, *, bf16: bool) -> LadderOutput:
    """What the ladder VAE makes of a batch by a sample of the posterior."""
    shapes = ladder.latent_shapes(len(seen), *seen.shape[2:])
    latent_noise = [torch.randn(shape, device=seen.device) for shape in shapes]
    with torch.autocast(seen.device.type, torch.bfloat16, enabled=bf16):
        output: LadderOutput = ladder(seen, noise, latent_noise)
    return output


def _neg_elbo(output: LadderOutput, target: Tensor, deviation: Tensor, grain_width: float = 0) -> Tensor:
    """Nats per pixel of each image, for grain of a deviation around what is restored."""
    deviation = (deviation.square() + LEAST_DEVIATION**2).sqrt()
    nats = pixel_distortion(output.restored.float(), target, deviation, grain_width).mean((1, 2, 3))
    rates = [level.sum((1, 2)) / target[0].numel() for level in output.kl]
    # Without some rate that costs nothing, one scale takes all and the others die (free bits: Kingma et al., 2016).
    cost = [rate + (free - rate.mean()).clamp(min=0) for rate, free in zip(rates, FREE_NATS, strict=True)]
    per_pixel: Tensor = nats + torch.stack(cost).sum(0)
    return per_pixel


def fit_spread(
    net: DirectDenoiser, batches: Iterator[Batch], steps: int = SPREAD_STEPS, *, progress: Progress | None = None
) -> None:
    """Fit the expected error of each pixel by the Gaussian negative log-likelihood; what it restores stays."""
    net.requires_grad_(requires_grad=False)
    first = 0 if net.spread.weight.any() else 1
    device = next(net.parameters()).device
    if first:  # a fresh one begins at the mean error, not at 1
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
    """The squared error of each pixel, and the logarithm of what the network expects it to be."""
    restored, log_variance = net(noisy, noise)
    return (restored.detach().clamp(0, 1) - clean).square(), log_variance


def interval_of(net: DirectDenoiser, batches: Iterator[Batch], count: int = 50) -> float:
    """So many times the spread on either side hold nine of ten clean pixels, measured on `count` held-out batches."""
    device = next(net.parameters()).device
    ratios = []
    with torch.no_grad():
        for _ in range(count):
            clean, noisy, noise = (values.to(device) for values in next(batches))
            restored, log_variance = net(noisy, noise)
            ratio = (restored.clamp(0, 1) - clean).abs() / torch.exp(0.5 * log_variance)
            ratios.append(ratio.cpu().numpy().ravel())
    return float(np.quantile(np.concatenate(ratios), COVERAGE))

"""The training loop: normal images in, the weights with the best validation loss out."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.data.split import spread_out
from vaeguard.errors import VaeguardError
from vaeguard.models.graph import from_unit, to_unit
from vaeguard.models.objective import ACTIVE_VARIANCE, Losses, losses, objective
from vaeguard.models.patches import local_contrast, random_windows
from vaeguard.training.advice import collapse
from vaeguard.training.augment import add_noise, augment
from vaeguard.training.balance import balanced_draws, balanced_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.models.vae import VAE
    from vaeguard.progress import Progress
    from vaeguard.settings.training import TrainSpec

EPOCHS, STEPS = 15, (2000, 6000)
"""By default so many epochs, but at least and at most so many steps.

On MNIST and Fashion-MNIST the validation losses of normal images still fall well after 2,000 steps."""


SHOWN = 8
"""So many validation images are restored after some of the epochs, to look at."""


VALIDATED = 256
"""Validation images at a time."""


class DivergedError(VaeguardError):
    """The loss is not finite any more."""


class TrainingWarning(UserWarning):
    """Training ended, but its result deserves a second look; the message says what to try."""


@dataclass(frozen=True)
class Examples:
    """Some rows of a batch of images.

    `images` is uint8 (N, C, H, W), possibly a memory map, or float32; `labels` int64 (N,) or None; `rows` the ones that
    count; `pseudo` int64 (rows, PSEUDO_HEADS) are their pseudo-classes.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None
    rows: npt.NDArray[np.int64]
    pseudo: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class State:
    """Everything that changes during training; a checkpoint holds all of it."""

    vae: VAE
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    noise: torch.Generator
    best_weights: dict[str, Tensor]
    best_loss: float = math.inf
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    restored: dict[int, Tensor] = field(default_factory=dict)
    """The first validation images as restored after some epochs, uint8 (n, C, H, W)."""


def start(vae: VAE, spec: TrainSpec) -> State:
    """A fresh state for `vae`, which is moved to `spec.device`, `cpu` or `cuda`."""
    vae.to(spec.device)
    if vae.spec.kind == "conv":
        # Convolutions run faster with channels last, on CPU and on CUDA.
        vae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    return State(
        vae=vae,
        optimizer=optimizer,
        order=torch.Generator().manual_seed(spec.seed),
        noise=torch.Generator(spec.device).manual_seed(spec.seed),
        best_weights=_copy(vae),
    )


def epochs_for(spec: TrainSpec, images: int) -> int:
    """How many epochs `spec` means for so many training images."""
    if spec.epochs:
        return spec.epochs
    steps = max(1, images // spec.batch_size)
    return int(np.clip(round(np.clip(EPOCHS * steps, *STEPS) / steps), 5, 400))


def train(
    state: State,
    training: Examples,
    validation: Examples,
    spec: TrainSpec,
    *,
    after_epoch: Callable[[State], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Train `state.vae` until the last epoch or until `spec.patience` epochs brought nothing; keep the best weights.

    Starts after the last epoch in `state.history`. The same seed, data and thread count give the same bits.

    Raises
    ------
    DivergedError
        The loss is not finite; `state.best_weights` still holds the best weights before.
    """
    batches = Batches(training, state.vae, state.noise.device)
    held_out = Batches(validation, state.vae, state.noise.device)
    epochs = epochs_for(spec, len(training))
    for epoch in range(len(state.history), epochs):
        if epoch - max(state.best_epoch, spec.kl_warmup) > spec.patience:
            break
        started = time.perf_counter()
        row = _train_epoch(state, batches, spec, epoch, epochs, progress)
        row |= _validate(state, held_out, spec)
        row["seconds"] = time.perf_counter() - started
        state.history.append(row)
        if _is_shown(epoch + 1, state.vae):
            state.restored[epoch + 1] = _restored(state, held_out)
        # While the rate's weight still grows, nothing is best yet but the latest.
        if row["valid_loss"] < state.best_loss or epoch < spec.kl_warmup:
            state.best_loss, state.best_epoch, state.best_weights = row["valid_loss"], epoch, _copy(state.vae)
        if after_epoch:
            after_epoch(state)
    _warn_of_collapse(state, spec)


class Batches:
    """Batches of float images in [0, 1], labels and pseudo-classes on the device.

    A model of patches gets one random patch per row, with its surroundings.

    On CUDA the images live in device memory if they take less than half of it; otherwise rows are gathered from the
    array (or memory map) batch by batch.
    """

    def __init__(self, examples: Examples, vae: VAE, device: torch.device) -> None:
        self.examples, self.device = examples, device
        self.whole, self.side = vae.spec.view.whole, vae.spec.vae_shape[-1]
        self.channels_last = vae.spec.kind == "conv"
        self.labels = None
        if examples.labels is not None:
            self.labels = torch.from_numpy(examples.labels[examples.rows]).to(device)
        self.pseudo = None if examples.pseudo is None else torch.from_numpy(examples.pseudo).to(device)
        self.resident = None
        size = len(examples) * examples.images[:1].nbytes
        # Of patches only their windows are gathered; rows may stand here many times.
        if self.whole and device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] // 2:
            self.resident = torch.from_numpy(np.ascontiguousarray(examples.images[examples.rows])).to(device)

    def __call__(
        self, order: Tensor, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
        """Yield the examples in `order` by batches of `size`; `generator` draws where their patches lie."""
        for rows in torch.split(order, size):
            image = self._gather(rows) if self.whole else self._patches(rows, generator)
            if self.channels_last:
                image = image.contiguous(memory_format=torch.channels_last)
            picked = rows.to(self.device)
            labels, pseudo = (None if some is None else some[picked] for some in (self.labels, self.pseudo))
            yield to_unit(image), labels, pseudo

    def _patches(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        windows = random_windows(self.examples.images, self.examples.rows[rows.numpy()], self.side, generator)
        return windows.to(self.device)

    def _gather(self, rows: Tensor) -> Tensor:
        if self.resident is not None:
            return self.resident[rows.to(self.device)]
        picked = self.examples.images[self.examples.rows[rows.numpy()]]
        return torch.from_numpy(picked).to(self.device, non_blocking=True)


def _train_epoch(
    state: State, batches: Batches, spec: TrainSpec, epoch: int, epochs: int, progress: Progress | None
) -> dict[str, float]:
    state.vae.train()
    order = _order(batches, spec, state.order)
    if len(order) % spec.batch_size == 1 and len(order) > 1:
        order = order[:-1]  # a last batch of one image has no batch statistics
    steps = math.ceil(len(order) / spec.batch_size)
    totals = _Means()
    for step, (image, *classes) in enumerate(batches(order, spec.batch_size, state.noise)):
        position = epoch + step / steps
        rate = _learning_rate(spec, position / epochs)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        beta = spec.beta * min(1.0, position / spec.kl_warmup) if spec.kl_warmup else spec.beta
        target = _as_seen(state.vae, augment(image, spec, state.noise))
        loss, found = _forward(state.vae, target, classes, spec, beta, state.noise)
        value = loss.item()
        if not math.isfinite(value):
            bounded = state.vae.family.bounded or not state.vae.spec.view.unit
            other = "" if bounded else ", or `model.likelihood` to 'bernoulli'"
            raise DivergedError(
                f"training diverged in epoch {epoch + 1}, step {step + 1} (loss {value}); set `training.learning_rate`"
                f" to {spec.learning_rate / 10:g}{other}"
            )
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        totals.add(found, value)
        if progress:
            valid = f", validation {state.history[-1]['valid_loss']:.2f}" if state.history else ""
            text = f"epoch {epoch + 1}/{epochs}, loss {value:.2f}{valid}"
            progress(epoch * steps + step + 1, epochs * steps, text)
    means = totals.means()
    return {"epoch": epoch + 1, "learning_rate": rate, "beta": beta, **means}


def _order(batches: Batches, spec: TrainSpec, generator: torch.Generator) -> Tensor:
    """The examples of an epoch: each once, or as many draws in which every class comes equally often."""
    if not spec.balance:
        return torch.randperm(len(batches.examples), generator=generator)
    assert batches.labels is not None
    return balanced_draws(batches.labels.cpu(), generator)


def _as_seen(vae: VAE, image: Tensor) -> Tensor:
    """Images as they are; of patches with their surroundings the local contrast."""
    return image if vae.spec.view.whole else local_contrast(image)[0]


def _forward(
    vae: VAE, target: Tensor, classes: list[Tensor | None], spec: TrainSpec, beta: float, generator: torch.Generator,
    weights: Tensor | None = None,
) -> tuple[Tensor, Losses]:  # fmt: skip
    if spec.binarise:
        target = torch.bernoulli(target, generator=generator)
    else:
        target = vae.family.for_training(target, generator)
    noise = torch.randn((len(target), vae.spec.latent_size), generator=generator, device=target.device)
    image = add_noise(target, spec.input_noise, generator)
    with torch.autocast(target.device.type, torch.bfloat16, enabled=bool(spec.bf16)):
        found = losses(vae, image, target, noise, *classes)
    return objective(found, spec, beta, target[0].numel(), weights), found


@torch.no_grad()
def _held_out(state: State, batches: Batches, spec: TrainSpec) -> Iterator[tuple[Tensor, Losses, Tensor | None]]:
    """The loss, losses and weights of each batch of validation images; the same noise every time: epochs compare."""
    state.vae.eval()
    generator = torch.Generator(state.noise.device).manual_seed(spec.seed + 1)
    rows = torch.arange(len(batches.examples))
    # The best epoch is judged by what is learned from: draws in which every class counts alike.
    weights = balanced_weights(batches.labels) if spec.balance and batches.labels is not None else None
    of_batches = itertools.repeat(None) if weights is None else torch.split(weights, VALIDATED)
    for (image, *classes), some in zip(batches(rows, VALIDATED, generator), of_batches, strict=False):
        target = _as_seen(state.vae, image)
        yield *_forward(state.vae, target, classes, spec, spec.beta, generator, some), some


def validation_losses(state: State, validation: Examples, spec: TrainSpec) -> dict[str, npt.NDArray[np.float64]]:
    """What the means of an epoch are made of: values of each validation example, shape (rows,), by name.

    `distortion` and `rate` in nats, and where guided `class_accuracy`, 0 or 1; with no weights, whatever `spec` says.
    """
    found = [each for _, each, _ in _held_out(state, Batches(validation, state.vae, state.noise.device), spec)]
    values = {"distortion": [each.distortion for each in found], "rate": [each.kl.sum(1) for each in found]}
    if found[0].correct is not None:
        values["class_accuracy"] = [each.correct for each in found if each.correct is not None]
    return {name: torch.cat(parts).double().cpu().numpy() for name, parts in values.items()}


def _validate(state: State, batches: Batches, spec: TrainSpec) -> dict[str, float]:
    totals, means = _Means(), []
    for loss, found, weights in _held_out(state, batches, spec):
        totals.add(found, loss.item(), weights)
        means.append(found.posterior_mean.float())
    row = {f"valid_{name}": value for name, value in totals.means().items()}
    if not math.isfinite(row["valid_loss"]):
        raise DivergedError(
            "training diverged (the validation loss is not finite); set `training.learning_rate` to a tenth"
        )
    latents = torch.cat(means)
    row["active_units"] = int((latents.var(0, correction=0) > ACTIVE_VARIANCE).sum())
    return row


def _is_shown(epoch: int, vae: VAE) -> bool:
    """Whether reconstructions are kept after `epoch`: 1, 2, 4, 8, ...; vectors and patches are no pictures."""
    return vae.spec.view.whole_pictures and epoch & (epoch - 1) == 0


@torch.no_grad()
def _restored(state: State, batches: Batches) -> Tensor:
    rows = torch.from_numpy(spread_out(len(batches.examples), SHOWN))
    image, _, _ = next(batches(rows, len(rows), state.noise))
    return from_unit(state.vae.likelihood(state.vae.posterior(image).mean).mean).cpu()


class _Means:
    """Means over an epoch, weighted by batch size, or by the weights of the examples."""

    def __init__(self) -> None:
        self.sums: dict[str, float | Tensor] = {}
        self.count: float | Tensor = 0

    def add(self, found: Losses, loss: float, weights: Tensor | None = None) -> None:
        # Sums stay on the device: one transfer an epoch instead of one a step.
        n = len(found.distortion) if weights is None else weights.sum()
        self.count = self.count + n
        each = {
            "distortion": found.distortion,
            "rate": found.kl.sum(1),
            "class_accuracy": found.correct,
            "pseudo_loss": found.pseudo_loss,
        }
        values: dict[str, float | Tensor] = {"loss": loss * n}
        for name, one in each.items():
            if one is not None:
                values[name] = (one.detach() if weights is None else one.detach() * weights).sum()
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        count = float(self.count)
        return {name: float(value) / count for name, value in self.sums.items()}


def _learning_rate(spec: TrainSpec, done: float) -> float:
    if spec.schedule == "cosine":
        return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return spec.learning_rate


def _copy(vae: VAE) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in vae.state_dict().items()}


def _warn_of_collapse(state: State, spec: TrainSpec) -> None:
    if not state.vae.spec.autoencoder:
        sentence = collapse(state.history[state.best_epoch], state.vae.spec.latent_size, spec.beta)
        if sentence:
            warnings.warn(sentence, TrainingWarning, stacklevel=3)

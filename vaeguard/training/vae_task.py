"""The training of a VAE on normal images: its batches, its loss and its validation."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch

from vaeguard.data.own_regions import LOOK_HERE
from vaeguard.data.shards import in_shards
from vaeguard.data.split import spread_out
from vaeguard.models.graph import from_unit, to_unit
from vaeguard.models.objective import ACTIVE_VARIANCE, Losses, losses, objective
from vaeguard.models.patches import local_contrast, random_windows
from vaeguard.models.shares import BatchShare, Draws, batch_share, from_first
from vaeguard.training.advice import collapse
from vaeguard.training.augment import add_noise, augment
from vaeguard.training.balance import balanced_draws, balanced_weights
from vaeguard.training.loop import DivergedError, State, Task, TrainingWarning, copy_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor, nn

    from vaeguard.models.vae import VAE
    from vaeguard.settings.training import TrainSpec

EPOCHS = 15
"""The default number of epochs."""
STEPS = (2000, 6000)
"""The least and the most steps of a fit with the default number of epochs.

On MNIST and Fashion-MNIST the validation losses of normal images still fall well after 2,000 steps."""
STREAMED_STEPS = 2000
"""The most steps of an epoch of images that are read from their files."""
SHOWN = 8
"""Validation images whose reconstructions are shown for some epochs."""
VALIDATED = 256
"""Validation images at a time."""


@dataclass(frozen=True)
class Examples:
    """Some rows of a batch of images.

    Attributes
    ----------
    images : uint8 or float32 (N, C, H, W)
        All images, possibly a memory map.
    labels : int64 (N,) or None
        The labels of all images.
    rows : int64 (n,)
        The rows of the examples.
    pseudo : int64 (n, PSEUDO_HEADS) or None
        The pseudo-classes of the examples.
    origins : int64 (n,) or None
        The row of the data set from which each example comes, if `rows` are not these.
    region : bool (H, W) or None
        The pixels that count; None if all do.
    regions : uint8 (N, H, W) or None
        The regions of all images, white where pixels count; None if they have none.
    classes_of : callable or None
        Gives the pseudo-classes of images that stay in their files, which have none before they are read.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None
    rows: npt.NDArray[np.int64]
    pseudo: npt.NDArray[np.int64] | None = None
    origins: npt.NDArray[np.int64] | None = None
    region: npt.NDArray[np.bool_] | None = None
    regions: npt.NDArray[np.uint8] | None = None
    classes_of: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_regions(self) -> bool:
        """Whether some pixels do not count."""
        return self.region is not None or self.regions is not None

    def counted(
        self, rows: npt.NDArray[np.int64], y: npt.NDArray[np.int64], x: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Whether single pixels of all images count, by their images, rows and columns, each (n,)."""
        own = np.ones(len(rows), bool) if self.regions is None else self.regions[rows, y, x] >= LOOK_HERE
        return own if self.region is None else own & self.region[y, x]

    @property
    def sources(self) -> npt.NDArray[np.int64]:
        """The row of the data set from which each example comes."""
        return self.rows if self.origins is None else self.origins


def epochs_for(spec: TrainSpec, images: int) -> int:
    """The number of epochs that `spec` means for `images` training images."""
    if spec.epochs:
        return spec.epochs
    steps = max(1, images // spec.images_per_step)
    return int(np.clip(round(np.clip(EPOCHS * steps, *STEPS) / steps), 5, 400))


def images_an_epoch(images: Any, count: int, spec: TrainSpec) -> int:
    """How many of `count` training images an epoch has: all, but of images that stay in their files at most so many."""
    return min(count, STREAMED_STEPS * spec.images_per_step) if in_shards(images) else count


class Batch(NamedTuple):
    """Float images in [0, 1], (N, C, H, W), with the labels and pseudo-classes that they may have.

    Images, labels and pseudo-classes are those of a `share` of the batch, weights those of the whole batch.
    """

    images: Tensor
    labels: Tensor | None = None
    pseudo: Tensor | None = None
    weights: Tensor | None = None
    share: BatchShare | None = None

    def draws(self, generator: torch.Generator) -> Draws:
        """Random numbers for these images."""
        return Draws(generator, self.share)


class Batches:
    """Batches of examples on the device.

    A model of patches gets one random patch per row, with its surroundings. Of several processes each gets its share of
    a batch, or the `whole` batch.

    On CUDA the images live in device memory if they take less than half of it; otherwise rows are gathered from the
    array (or memory map) batch by batch.
    """

    def __init__(self, examples: Examples, vae: VAE, device: torch.device) -> None:
        self.examples, self.device, self.whole = examples, device, False
        self.windows, self.side = vae.spec.view.windows, vae.spec.vae_shape[-1]
        self.tiles = vae.spec.tiles if vae.spec.tile else None
        self.channels_last = vae.spec.kind == "conv"
        self.labels = None
        if examples.labels is not None:
            self.labels = torch.from_numpy(examples.labels[examples.rows]).to(device)
        self.pseudo = None if examples.pseudo is None else torch.from_numpy(examples.pseudo).to(device)
        self.resident = None
        size = len(examples) * math.prod(examples.images.shape[1:]) * examples.images.dtype.itemsize
        # A model of patches reads small windows of images, and its rows repeat, so the size above would mislead.
        held = not self.windows and not in_shards(examples.images)
        if held and device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] // 2:
            self.resident = torch.from_numpy(np.ascontiguousarray(examples.images[examples.rows])).to(device)

    def __call__(self, order: Tensor, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield this process's share of the examples in `order`, by batches of `size` examples.

        `generator` draws the positions of patches.
        """
        for whole in torch.split(order, size):
            share = BatchShare(0, len(whole), len(whole)) if self.whole else batch_share(len(whole))
            rows = share.of(whole)
            images = self._patches(rows, Draws(generator, share)) if self.windows else self._gather(rows)
            yield self._batch(images, rows, None if self.pseudo is None else self.pseudo[rows.to(self.device)], share)

    def stream(self, count: int, size: int, seed: int) -> Iterator[Batch]:
        """Yield this process's share of `count` examples, which stay in their files, by batches of `size` examples."""
        examples: Any = self.examples
        for some in examples.images.stream(examples.rows, count, size, seed, examples.classes_of):
            share = batch_share(len(some.rows))
            own = some.at(slice(share.first, share.last))
            rows = torch.from_numpy(np.searchsorted(examples.rows, own.rows))
            images, pseudo = (None if part is None else torch.from_numpy(part).to(self.device) for part in own[1:])
            assert images is not None
            yield self._batch(images, rows, pseudo, share)

    def _batch(self, images: Tensor, rows: Tensor, pseudo: Tensor | None, share: BatchShare) -> Batch:
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        labels = None if self.labels is None else self.labels[rows.to(self.device)]
        return Batch(to_unit(images), labels, pseudo, share=share)

    def _patches(self, rows: Tensor, draws: Draws) -> Tensor:
        chosen = self.examples.rows[rows.numpy()]
        inside = self.examples.counted if self.examples.has_regions else None
        windows = random_windows(self.examples.images, chosen, self.side, draws, self.tiles, inside)
        return windows.to(self.device)

    def _gather(self, rows: Tensor) -> Tensor:
        if self.resident is not None:
            return self.resident[rows.to(self.device)]
        picked = self.examples.images[self.examples.rows[rows.numpy()]]
        return torch.from_numpy(picked).to(self.device, non_blocking=True)


class VAETask(Task):
    """A VAE and the normal images that it learns; the weights with the best validation loss are kept.

    Parameters
    ----------
    vae : VAE
        The model; moved to `spec.device`, `cpu` or `cuda`.
    spec : TrainSpec
        The settings, with every choice settled.
    training, validation : Examples
        The examples to learn from, and the examples that choose the best epoch.

    Attributes
    ----------
    net : Module
        Everything that is trained.
    checks : list of (VAE, Batches)
        What is validated, and on what.
    keeps_last : bool
        Whether the weights after the last epoch are kept, however they are validated.
    """

    keeps_last: ClassVar[bool] = False

    def __init__(self, vae: VAE, spec: TrainSpec, training: Examples, validation: Examples) -> None:
        self.net: nn.Module = vae.to(spec.device)
        self.vae, self.spec = vae, spec
        if vae.spec.kind == "conv":
            # Convolutions run faster with channels last, on CPU and on CUDA.
            vae.to(memory_format=torch.channels_last)
        device = torch.device(spec.device)
        self.training, self.validation = (Batches(examples, vae, device) for examples in (training, validation))
        self.checks = [(vae, self.validation)]
        count = images_an_epoch(training.images, len(training), spec)
        self.epochs = epochs_for(spec, count)
        # A last batch of one image would have no batch statistics, so that image is left out.
        single = count > 1 and count % spec.images_per_step == 1
        self.examples = count - single
        self.epoch_steps = math.ceil(self.examples / spec.images_per_step)
        self.steps = self.epochs * self.epoch_steps
        self.means = _Means()

    def start(self) -> State:
        """A fresh state."""
        spec = self.spec
        return State(
            net=self.net,
            optimizer=torch.optim.AdamW(
                self.net.parameters(), spec.step_size, weight_decay=spec.weight_decay, fused=True
            ),
            weights=copy_weights(self.net),
            generators={
                "order": torch.Generator().manual_seed(spec.seed),
                "noise": torch.Generator(spec.device).manual_seed(spec.seed),
            },
        )

    def steps_before(self, epoch: int) -> int:
        """The number of steps in all epochs before `epoch`."""
        return epoch * self.epoch_steps

    def batches(self, state: State) -> Iterator[Batch]:
        """Each example once, or as many draws in which every class comes equally often."""
        self.means = _Means()
        if in_shards(self.training.examples.images):
            seed = int(torch.randint(2**62, (), generator=state.generators["order"]))
            return self.training.stream(self.examples, self.spec.images_per_step, seed)
        if self.spec.balance:
            assert self.training.labels is not None
            order = balanced_draws(self.training.labels.cpu(), state.generators["order"])
        else:
            order = torch.randperm(len(self.training.examples), generator=state.generators["order"])
        return self.training(order[: self.examples], self.spec.images_per_step, state.generators["noise"])

    def learning_rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step of an epoch."""
        if self.spec.schedule == "cosine":
            share = self._position(epoch, step) / self.epochs
            return self.spec.step_size * 0.5 * (1 + math.cos(math.pi * share))
        return self.spec.step_size

    def loss(self, state: State, batch: Batch, step: int) -> Tensor:
        """The objective, with the weight that the warm-up gives the rate."""
        noise = state.generators["noise"]
        target = _as_seen(self.vae, augment(batch.images, self.spec, batch.draws(noise)))
        beta = self._beta(len(state.history), step)
        loss, terms = forward(self.vae, batch._replace(images=target), self.spec, beta, noise)
        self.means.add(terms, loss.item())
        return loss

    def divergence(self, epoch: int, step: int, loss: float) -> str:
        """The error message for a loss that is not finite."""
        bounded = self.vae.family.bounded or not self.vae.spec.view.unit
        other = "" if bounded else ", or `model.likelihood` to 'bernoulli'"
        return (
            f"training diverged in epoch {epoch + 1}, step {step + 1} (loss {loss}); set `training.learning_rate`"
            f" to {self.spec.step_size / 10:g}{other}"
        )

    def finish_epoch(self, state: State) -> dict[str, float]:
        """The row of history: means over training and validation images."""
        epoch, last = len(state.history), self.epoch_steps - 1
        row = {"epoch": epoch + 1, "learning_rate": self.learning_rate(epoch, last), "beta": self._beta(epoch, last)}
        row |= self.means.means() | self._validate()
        # Other processors may round differently, and all processes must decide alike.
        row = dict(json.loads(from_first(lambda: json.dumps(row).encode())))
        if _is_shown(epoch + 1, self.vae):
            state.restored[epoch + 1] = self._restored(state)
        # During the warm-up of the rate, losses of different epochs cannot be compared, so the latest weights are kept.
        if row["valid_loss"] < state.best_loss or epoch < self.spec.kl_warmup or self.keeps_last:
            state.best_loss, state.best_epoch, state.weights = row["valid_loss"], epoch, copy_weights(self.net)
        return row

    def is_finished(self, state: State) -> bool:
        """Whether the last `spec.patience` epochs brought no better weights."""
        return len(state.history) - max(state.best_epoch, self.spec.kl_warmup) > self.spec.patience

    def text(self, state: State, loss: float) -> str:
        """The line of progress after a step."""
        valid = f", validation {state.history[-1]['valid_loss']:.2f}" if state.history else ""
        return f"epoch {len(state.history) + 1}/{self.epochs}, loss {loss:.2f}{valid}"

    def warn_of_collapse(self, state: State) -> None:
        """Warn if the latent of the best weights says nothing."""
        if not self.vae.spec.autoencoder:
            sentence = collapse(state.history[state.best_epoch], self.vae.spec.latent_size, self.spec.beta)
            if sentence:
                warnings.warn(sentence, TrainingWarning, stacklevel=3)

    def _position(self, epoch: int, step: int) -> float:
        return epoch + step / self.epoch_steps

    def _beta(self, epoch: int, step: int) -> float:
        warmup = self.spec.kl_warmup
        return self.spec.beta * min(1.0, self._position(epoch, step) / warmup) if warmup else self.spec.beta

    def _validate(self) -> dict[str, float]:
        means, active = _Means(), []
        for vae, validation in self.checks:
            latents = []
            for loss, terms, weights in _held_out(vae, validation, self.spec):
                means.add(terms, loss.item(), weights)
                latents.append(terms.posterior_mean.float())
            active.append(int((torch.cat(latents).var(0, correction=0) > ACTIVE_VARIANCE).sum()))
        row = {f"valid_{name}": value for name, value in means.means().items()}
        if not math.isfinite(row["valid_loss"]):
            raise DivergedError(
                "training diverged (the validation loss is not finite); set `training.learning_rate`"
                f" to {self.spec.step_size / 10:g}"
            )
        row["active_units"] = round(sum(active) / len(active))
        return row

    @torch.no_grad()
    def _restored(self, state: State) -> Tensor:
        rows = torch.from_numpy(spread_out(len(self.validation.examples), SHOWN))
        batch = next(self.validation(rows, len(rows), state.generators["noise"]))
        restored = from_unit(self.vae.likelihood(self.vae.posterior(batch.images).mean).mean)
        assert batch.share is not None
        return batch.share.gathered(restored).cpu()


def _as_seen(vae: VAE, images: Tensor) -> Tensor:
    """The examples as the VAE sees them: patches by their local contrast, all others unchanged."""
    return local_contrast(images)[0] if vae.spec.view.windows else images


def forward(vae: VAE, batch: Batch, spec: TrainSpec, beta: float, generator: torch.Generator) -> tuple[Tensor, Losses]:
    """The loss of a whole batch from images as the VAE sees them, and its terms."""
    target, draws = batch.images, batch.draws(generator)
    target = draws.bernoulli(target) if spec.binarise else vae.family.for_training(target, draws)
    noise = draws.normal(len(target), vae.spec.latent_size)
    image = add_noise(target, spec.input_noise, draws)
    with torch.autocast(target.device.type, torch.bfloat16, enabled=bool(spec.bf16)):
        terms = losses(vae, image, target, noise, batch.labels, batch.pseudo)
    if batch.share:
        terms = batch.share.losses(terms)
    return objective(terms, spec, beta, math.prod(target.shape[1:]), batch.weights), terms


@torch.no_grad()
def _held_out(vae: VAE, batches: Batches, spec: TrainSpec) -> Iterator[tuple[Tensor, Losses, Tensor | None]]:
    """The loss, its terms and the weights of each batch of validation images, with the same noise every time."""
    vae.eval()
    generator = torch.Generator(batches.device).manual_seed(spec.seed + 1)
    rows = torch.arange(len(batches.examples))
    # Validation weighs classes in the proportion in which training draws them.
    weights = balanced_weights(batches.labels) if spec.balance and batches.labels is not None else None
    by_batch = itertools.repeat(None) if weights is None else torch.split(weights, VALIDATED)
    for batch, batch_weights in zip(batches(rows, VALIDATED, generator), by_batch, strict=False):
        seen = batch._replace(images=_as_seen(vae, batch.images), weights=batch_weights)
        yield *forward(vae, seen, spec, spec.beta, generator), batch_weights


def validation_losses(checks: Sequence[tuple[VAE, Examples]], spec: TrainSpec) -> dict[str, npt.NDArray[np.float64]]:
    """The values whose means are in the history: one for each validation example, shape (rows,), by name.

    `checks` are one or more VAEs, each with the examples that it is to describe. `distortion` and `rate` are in nats; a
    guided fit adds `class_accuracy`, 0 or 1. Classes have no weights here.
    """
    parts = [
        terms
        for vae, examples in checks
        for _, terms, _ in _held_out(vae, Batches(examples, vae, next(vae.parameters()).device), spec)
    ]
    values = {"distortion": [terms.distortion for terms in parts], "rate": [terms.kl.sum(1) for terms in parts]}
    if parts[0].correct is not None:
        values["class_accuracy"] = [terms.correct for terms in parts if terms.correct is not None]
    return {name: torch.cat(tensors).double().cpu().numpy() for name, tensors in values.items()}


def _is_shown(epoch: int, vae: VAE) -> bool:
    """Whether reconstructions are kept after `epoch`: 1, 2, 4, 8, ..., but never for vectors or patches."""
    return vae.spec.view.whole_pictures and epoch & (epoch - 1) == 0


class _Means:
    """Means over an epoch, weighted by batch size, or by the weights of the examples."""

    def __init__(self) -> None:
        self.sums: dict[str, float | Tensor] = {}
        self.count: float | Tensor = 0

    def add(self, terms: Losses, loss: float, weights: Tensor | None = None) -> None:
        # Sums stay on the device, so that no step waits for a transfer.
        n = len(terms.distortion) if weights is None else weights.sum()
        self.count = self.count + n
        by_name = {
            "distortion": terms.distortion,
            "rate": terms.kl.sum(1),
            "class_accuracy": terms.correct,
            "pseudo_loss": terms.pseudo_loss,
        }
        sums: dict[str, float | Tensor] = {"loss": loss * n}
        for name, values in by_name.items():
            if values is not None:
                sums[name] = (values.detach() if weights is None else values.detach() * weights).sum()
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        count = float(self.count)
        return {name: float(value) / count for name, value in self.sums.items()}

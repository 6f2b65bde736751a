"""The training loop of every network: epochs of steps, one row of history for each, and a checkpoint now and then."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from vaeguard.errors import VaeguardError
from vaeguard.models.shares import add_up_gradients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn

    from vaeguard.progress import Progress

CHECKPOINT_SECONDS = 5.0
"""The least seconds between two checkpoints: a kill costs about so much training, and the epoch that it cuts off."""


class DivergedError(VaeguardError):
    """The loss is no longer finite."""


class TrainingWarning(UserWarning):
    """The training ended, but the model should be checked; the message says what to try."""


@dataclass
class State:
    """Everything that changes during training; a checkpoint holds all of it.

    Attributes
    ----------
    net : Module
        The network in training.
    optimizer : Optimizer
        The optimizer of the network's parameters.
    weights : dict of Tensor
        The result of the training: the best weights so far, or the running average of all.
    generators : dict of Generator
        The random generators besides torch's own.
    history : list of dict
        One row per epoch.
    best_loss, best_epoch : float, int
        The least validation loss and its epoch, counted from 0, where epochs are validated.
    restored : dict of Tensor
        The first validation images as restored after some epochs, uint8 (n, C, H, W).
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    weights: dict[str, Tensor]
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    restored: dict[int, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.net.parameters()).device


class Task(ABC):
    """All that differs between two trainings: network, data, schedule and loss. Epochs and steps are counted from 0.

    Attributes
    ----------
    epochs, steps : int
        The most epochs and steps of the training.
    gradient_norm : float or None
        Longer gradients are cut to this length.
    """

    epochs: int
    steps: int
    gradient_norm: float | None = None

    @abstractmethod
    def steps_before(self, epoch: int) -> int:
        """The number of steps in all epochs before `epoch`."""

    @abstractmethod
    def batches(self, state: State) -> Iterable[Any]:
        """The batches of the next epoch, one for each step."""

    @abstractmethod
    def learning_rate(self, epoch: int, step: int) -> float:
        """The learning rate of a step of an epoch."""

    @abstractmethod
    def loss(self, state: State, batch: Any, step: int) -> Tensor:
        """The loss of the batch of a step of the next epoch."""

    @abstractmethod
    def divergence(self, epoch: int, step: int, loss: float) -> str:
        """The error message for a loss that is not finite."""

    @abstractmethod
    def finish_epoch(self, state: State) -> dict[str, float]:
        """The row of history of the epoch that ends; also updates `state.weights` where the epoch is better."""

    def finish_step(self, state: State, step: int) -> None:  # noqa: B027 -- most tasks have nothing to do here
        """Act on the weights after a step of the next epoch."""

    def is_finished(self, state: State) -> bool:  # noqa: ARG002
        """Whether training may end before its last epoch."""
        return False

    def text(self, state: State, loss: float) -> str:  # noqa: ARG002
        """The line of progress after a step."""
        return f"loss {loss:.4f}"


def train(
    state: State,
    task: Task,
    *,
    save: Callable[[State], None] | None = None,
    after_epoch: Callable[[State], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Train `state.net` from the last epoch in `state.history` on.

    The same seed, data and thread count give the same bits.

    Parameters
    ----------
    state : State
        Fresh, or read from a checkpoint.
    task : Task
        The network, data, schedule and loss.
    save : callable or None
        Writes a checkpoint; called after an epoch if the last checkpoint is some seconds old.
    after_epoch : callable or None
        Called after every epoch.
    progress : callable or None
        Called after every step, with steps done, steps in all, a line of text.

    Raises
    ------
    DivergedError
        The loss is not finite; `state.weights` still holds the result of the epochs before.
    KeyboardInterrupt
        Ctrl-C; the message names the epoch.
    """
    written = time.monotonic()
    while len(state.history) < task.epochs and not task.is_finished(state):
        started = time.perf_counter()
        try:
            _train_epoch(state, task, progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"epoch {len(state.history) + 1}") from None
        state.history.append(task.finish_epoch(state) | {"seconds": time.perf_counter() - started})
        if save and time.monotonic() - written > CHECKPOINT_SECONDS:
            save(state)
            written = time.monotonic()
        if after_epoch:
            after_epoch(state)


def _train_epoch(state: State, task: Task, progress: Progress | None) -> None:
    state.net.train()
    epoch = len(state.history)
    before = task.steps_before(epoch)
    for step, batch in enumerate(task.batches(state)):
        for group in state.optimizer.param_groups:
            group["lr"] = task.learning_rate(epoch, step)
        loss = task.loss(state, batch, step)
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(task.divergence(epoch, step, value))
        state.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        # Parameters that are not trained may hold gradients of an earlier training, which must not count.
        trained = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
        add_up_gradients(trained)
        if task.gradient_norm:
            torch.nn.utils.clip_grad_norm_(trained, task.gradient_norm)
        state.optimizer.step()
        task.finish_step(state, step)
        if progress:
            progress(before + step + 1, task.steps, task.text(state, value))


def copy_weights(net: nn.Module) -> dict[str, Tensor]:
    """A copy of the present weights of `net`."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}

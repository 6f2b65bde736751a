"""Checkpoints: a killed training can be resumed and ends with the same bits."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from vaeguard.engines.model_file import read_tensors, write_tensors
from vaeguard.errors import UsageError
from vaeguard.storage.published import publish

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from vaeguard.training.loop import State


FORMAT = 2
"""The version of the format, raised when the content of a checkpoint changes."""
PUBLISHED_SECONDS = 60.0
"""A checkpoint of a run in a bucket is published no more often: a training does not wait for an upload every second."""


@dataclass(frozen=True)
class _Header:
    """What a checkpoint holds besides tensors; the fields are those of `State`, after the settings that guard it."""

    settings: dict[str, dict[str, Any]]
    best_loss: float
    best_epoch: int
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Checkpoint:
    """The file that keeps the state of a training, and the settings that guard its continuation.

    Parameters
    ----------
    path : Path
        The file.
    settings : dict of dict
        Specs and data fingerprint, by groups; the settings of a denoiser have a group `denoiser`.
    """

    path: Path
    settings: dict[str, dict[str, Any]]

    def write(self, state: State) -> None:
        """Write all of `state`; the file is whole at any moment."""
        tensors = {f"net.{name}": value for name, value in state.net.state_dict().items()}
        tensors |= {f"weights.{name}": value for name, value in state.weights.items()}
        tensors |= {f"generator.{name}": generator.get_state() for name, generator in state.generators.items()}
        tensors |= {f"restored.{epoch}": images for epoch, images in state.restored.items()}
        tensors |= {"rng": _rng_state(state.device)} | _optimizer_tensors(state)
        header = _Header(self._guards, state.best_loss, state.best_epoch, state.history)
        write_tensors(self.path, tensors, {"kind": self._kind, **vars(header)})
        publish([self.path], PUBLISHED_SECONDS)

    def read(self, state: State) -> None:
        """Set `state` to the content of the file, if there is a file.

        Raises
        ------
        UsageError
            The checkpoint is of a training with other settings or other data; the message names them.
        RefusedError
            The file is damaged.
        """
        if not self.path.exists():
            return
        tensors, record = read_tensors(self.path)
        if record.get("kind") != self._kind:
            raise UsageError(
                f"cannot resume from {str(self.path)!r}: it is a {record.get('kind')}; choose a different folder"
            )
        header = _Header(**{field.name: record[field.name] for field in fields(_Header)})
        self._check_settings(header.settings)
        state.net.load_state_dict(_under(tensors, "net."))
        for name, value in _under(tensors, "weights.").items():
            state.weights[name].copy_(value)
        for name, generator in state.generators.items():
            generator.set_state(tensors[f"generator.{name}"])
        _set_rng_state(state.device, tensors["rng"])
        _set_optimizer(state, _under(tensors, "optimizer."))
        state.best_loss, state.best_epoch, state.history = header.best_loss, header.best_epoch, header.history
        state.restored = {int(epoch): images for epoch, images in _under(tensors, "restored.").items()}

    @property
    def _kind(self) -> str:
        return "checkpoint of a denoiser" if "denoiser" in self.settings else "checkpoint"

    @property
    def _guards(self) -> dict[str, dict[str, Any]]:
        return {"checkpoint": {"format": FORMAT}, **self.settings}

    def _check_settings(self, written: dict[str, dict[str, Any]]) -> None:
        wanted = json.loads(json.dumps(self._guards))  # lists for tuples, as in the file
        differ = [
            f"{key} (was {written.get(group, {}).get(key)!r}, now {value!r})"
            for group, values in wanted.items()
            for key, value in values.items()
            if written.get(group, {}).get(key) != value
        ]
        if differ:
            raise UsageError(
                f"cannot resume from {str(self.path)!r}, because the fit has changed: {'; '.join(differ)}; use the"
                " original settings, data and version, or choose a different folder"
            )


def _rng_state(device: torch.device) -> Tensor:
    """The state of torch's own generator of the device, from which dropout draws."""
    return torch.cuda.get_rng_state() if device.type == "cuda" else torch.get_rng_state()


def _set_rng_state(device: torch.device, rng_state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(rng_state)
    else:
        torch.set_rng_state(rng_state)


def _optimizer_tensors(state: State) -> dict[str, Tensor]:
    moments = state.optimizer.state_dict()["state"].items()
    return {f"optimizer.{index}.{name}": value for index, values in moments for name, value in values.items()}


def _set_optimizer(state: State, tensors: dict[str, Tensor]) -> None:
    whole, parameters = state.optimizer.state_dict(), list(state.net.parameters())
    for place, value in tensors.items():
        index, name = int(place.split(".")[0]), place.split(".")[1]
        # The fused optimizer needs moments with the memory layout of their parameter.
        alike = torch.empty_like(parameters[index]).copy_(value) if value.ndim else value
        whole["state"].setdefault(index, {})[name] = alike
    state.optimizer.load_state_dict(whole)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

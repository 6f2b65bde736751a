"""Checkpoints: a killed training goes on where it stopped and ends with the same bits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from vaeguard.engines.model_file import read_tensors, write_tensors
from vaeguard.errors import UsageError
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.restoration import DenoiserSpec
from vaeguard.settings.specs import to_dict
from vaeguard.settings.training import TrainSpec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from vaeguard.training.loop import State

CHECKPOINT_SECONDS = 5.0
"""Seconds of training that a kill can cost, beside the epoch that it interrupts."""
FIT, NETWORK = "checkpoint", "checkpoint of a denoiser"


def write_checkpoint(path: Path, state: State, settings: dict[str, Any]) -> None:
    """Write all of `state` to `path`; `settings` (specs, data fingerprint) guard against a wrong continuation."""
    tensors = {f"vae.{name}": value for name, value in state.vae.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    tensors |= {"order": state.order.get_state(), "noise": state.noise.get_state()}
    tensors |= {"dropout": _chance(state.noise.device)}  # which draws from torch's own generator
    tensors |= {f"restored.{epoch}": images for epoch, images in state.restored.items()}
    tensors |= _of_optimizer(state.optimizer)
    progress = {"best_loss": state.best_loss, "best_epoch": state.best_epoch, "history": state.history}
    write_tensors(path, tensors, {"kind": FIT, "settings": settings, **progress})


def read_checkpoint(path: Path, state: State, settings: dict[str, Any]) -> None:
    """Set `state` to what `path` holds.

    Raises
    ------
    UsageError
        The checkpoint is of a run with other settings or other data; the message names them.
    RefusedError
        The file is damaged.
    """
    tensors, record = _read(path, FIT, settings)
    state.vae.load_state_dict(_under(tensors, "vae."))
    device = state.noise.device
    state.best_weights = {name: value.to(device) for name, value in _under(tensors, "best.").items()}
    state.order.set_state(tensors["order"])
    state.noise.set_state(tensors["noise"])
    _set_chance(device, tensors["dropout"])
    _set_optimizer(state.optimizer, state.vae, tensors)
    state.best_loss, state.best_epoch = record["best_loss"], record["best_epoch"]
    state.history = record["history"]
    state.restored = {int(epoch): images for epoch, images in _under(tensors, "restored.").items()}


@dataclass(frozen=True)
class NetworkCheckpoint:
    """Where the training of one network of a denoiser is kept, and the settings that guard its continuation."""

    path: Path
    settings: dict[str, Any]

    def write(self, net: nn.Module, average: nn.Module, optimizer: Optimizer, losses: list[float]) -> None:
        """Write a training after as many steps as there are `losses`."""
        tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
        tensors |= {"chance": _chance(_device(net)), **_of_optimizer(optimizer)}
        write_tensors(self.path, tensors, {"kind": NETWORK, "settings": self.settings, "losses": losses})

    def read(self, net: nn.Module, average: nn.Module, optimizer: Optimizer) -> list[float]:
        """Set a training to what was written, if anything was, and return its losses.

        Raises
        ------
        UsageError
            It is of a training with other settings or other data; the message names them.
        RefusedError
            The file is damaged.
        """
        if not self.path.exists():
            return []
        tensors, record = _read(self.path, NETWORK, self.settings)
        net.load_state_dict(_under(tensors, "net."))
        average.load_state_dict(_under(tensors, "average."))
        _set_chance(_device(net), tensors["chance"])
        _set_optimizer(optimizer, net, tensors)
        losses: list[float] = record["losses"]
        return losses


def _device(net: nn.Module) -> torch.device:
    return next(net.parameters()).device


def _chance(device: torch.device) -> Tensor:
    """The state of torch's own generator of the device."""
    return torch.cuda.get_rng_state() if device.type == "cuda" else torch.get_rng_state()


def _set_chance(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def _of_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    states = optimizer.state_dict()["state"].items()
    return {f"optimizer.{index}.{name}": value for index, values in states for name, value in values.items()}


def _set_optimizer(optimizer: Optimizer, net: nn.Module, tensors: dict[str, Tensor]) -> None:
    state, parameters = optimizer.state_dict(), list(net.parameters())
    for name, value in _under(tensors, "optimizer.").items():
        index, key = int(name.split(".")[0]), name.split(".")[1]
        # The fused optimizer walks through memory: its moments must lie as the parameter does.
        alike = torch.empty_like(parameters[index]).copy_(value) if value.ndim else value
        state["state"].setdefault(index, {})[key] = alike
    optimizer.load_state_dict(state)


def _read(path: Path, kind: str, settings: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, record = read_tensors(path)
    if record.get("kind") != kind:
        raise UsageError(f"cannot resume from {str(path)!r}: it is a {record.get('kind')}; fit into another folder")
    _check_settings(path, record.get("settings", {}), settings)
    return tensors, record


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _check_settings(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    # A setting that is younger than the checkpoint had no say in it, and its default leaves things as they were.
    known = {"model": to_dict(ModelSpec()), "training": to_dict(TrainSpec()), "denoiser": asdict(DenoiserSpec())}
    wanted, known = json.loads(json.dumps([wanted, known]))  # lists for tuples, as in the file
    had = {group: known.get(group, {}) | found.get(group, {}) for group in wanted}
    differ = [
        f"{key} (was {had[group].get(key)!r}, now {value!r})"
        for group, values in wanted.items()
        for key, value in values.items()
        if had[group].get(key) != value
    ]
    if differ:
        raise UsageError(
            f"cannot resume from {str(path)!r}: {'; '.join(differ)} differ;"
            " give the settings and data of then, or fit into another folder"
        )

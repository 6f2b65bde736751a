"""Checkpoints: a killed training goes on where it stopped and ends with the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vaeguard.errors import UsageError
from vaeguard.model_file import read_tensors, write_tensors
from vaeguard.spec import ModelSpec, TrainSpec, to_dict

if TYPE_CHECKING:
    from pathlib import Path

    from vaeguard.training import State


def write_checkpoint(path: Path, state: State, settings: dict[str, Any]) -> None:
    """Write all of `state` to `path`; `settings` (specs, data fingerprint) guard against a wrong continuation."""
    tensors = {f"vae.{name}": value for name, value in state.vae.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in state.best_weights.items()}
    tensors |= {"order": state.order.get_state(), "noise": state.noise.get_state(), "dropout": _dropout_state(state)}
    tensors |= {f"restored.{epoch}": images for epoch, images in state.restored.items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    progress = {"best_loss": state.best_loss, "best_epoch": state.best_epoch, "history": state.history}
    write_tensors(path, tensors, {"kind": "checkpoint", "settings": settings, **progress})


def read_checkpoint(path: Path, state: State, settings: dict[str, Any]) -> None:
    """Set `state` to what `path` holds.

    Raises
    ------
    UsageError
        The checkpoint is of a run with other settings or other data; the message names them.
    RefusedError
        The file is damaged.
    """
    tensors, record = read_tensors(path)
    _check_settings(path, record.get("settings", {}), settings)
    state.vae.load_state_dict(_under(tensors, "vae."))
    device = state.noise.device
    state.best_weights = {name: value.to(device) for name, value in _under(tensors, "best.").items()}
    state.order.set_state(tensors["order"])
    state.noise.set_state(tensors["noise"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["dropout"])
    else:
        torch.set_rng_state(tensors["dropout"])
    optimizer, parameters = state.optimizer.state_dict(), list(state.vae.parameters())
    for name, value in _under(tensors, "optimizer.").items():
        index, key = int(name.split(".")[0]), name.split(".")[1]
        # The fused optimizer walks through memory: its moments must lie as the parameter does.
        alike = torch.empty_like(parameters[index]).copy_(value) if value.ndim else value
        optimizer["state"].setdefault(index, {})[key] = alike
    state.optimizer.load_state_dict(optimizer)
    state.best_loss, state.best_epoch = record["best_loss"], record["best_epoch"]
    state.history = record["history"]
    state.restored = {int(epoch): images for epoch, images in _under(tensors, "restored.").items()}


def _dropout_state(state: State) -> torch.Tensor:
    """Dropout draws from torch's own generator of the device."""
    return torch.cuda.get_rng_state() if state.noise.device.type == "cuda" else torch.get_rng_state()


def _under(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _check_settings(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    # A setting that is younger than the checkpoint had no say in it, and its default leaves things as they were.
    known = {"model": to_dict(ModelSpec()), "training": to_dict(TrainSpec())}
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

"""Devices for the arithmetic, and their settings."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = ("auto", "cpu", "cuda")
ENGINE_DEVICES = (*DEVICES, "tensorrt")
"""The devices, with the one that runs only exported models."""


def has_bf16(device: str) -> bool:
    """Whether `device` multiplies bfloat16 matrices natively, which is faster than float32."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def check_device(device: str) -> None:
    """Refuse an unknown device.

    Raises
    ------
    UsageError
        `device` is none of `ENGINE_DEVICES`.
    """
    if device not in ENGINE_DEVICES:
        raise UsageError(f"`device` is {device!r}; choose from {', '.join(ENGINE_DEVICES)}")


def instead(device: str) -> str:
    """The end of a message that suggests another device, if `device` failed."""
    return "" if device == "cpu" else ", or set `device` to 'cpu'"


def pick_device(device: str) -> str:
    """Resolve `auto`, `cpu` or `cuda` to a device of this machine.

    Raises
    ------
    UsageError
        `device` is unknown, or it is `cuda`, which cannot be used.
    """
    import torch

    check_device(device)
    if device == "tensorrt":
        raise UsageError(
            "`device` is 'tensorrt', which works with exported models only; export the model, or choose a different"
            " device"
        )
    usable = torch.cuda.is_available()
    if device == "cuda" and not usable:
        raise UsageError(
            "`device` is 'cuda', but PyTorch finds no usable CUDA device; run `vaeguard doctor`, or set `device` to"
            " 'cpu'"
        )
    return "cuda" if usable and device != "cpu" else "cpu"


@contextlib.contextmanager
def torch_settings(seed: int, device: str, threads: int | None) -> Iterator[None]:
    """Set seed and threads for a fit on `device`, and restore those of the caller afterwards."""
    import torch

    before = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.enable_grad(), torch.random.fork_rng(devices):
        torch.set_num_threads(threads or before)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def cores() -> int:
    """The number of cores that the process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_out_of_memory(error: Exception) -> bool:
    """Whether an engine's error means that memory ran out; each engine words it differently."""
    text = str(error).lower()
    signs = ("out of memory", "failed to allocate", "can't allocate", "bad allocation", "bad_alloc", "alloc_failed")
    return any(sign in text for sign in signs)

"""Where the arithmetic runs."""

from __future__ import annotations

from vaeguard.errors import UsageError


def pick_device(device: str) -> str:
    """Settle `auto`, `cpu` or `cuda` to the device that is really there.

    Raises
    ------
    UsageError
        `cuda` was asked for and cannot be used.
    """
    import torch

    usable = torch.cuda.is_available()
    if device == "cuda" and not usable:
        raise UsageError("--device cuda: no usable CUDA device; run `vaeguard doctor`, or use --device cpu")
    return "cuda" if usable and device != "cpu" else "cpu"

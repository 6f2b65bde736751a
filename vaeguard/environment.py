"""Where and with what something was measured."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("vaeguard", "torch", "numpy", "scikit-learn", "scipy", "pillow")


def environment(device: str = "cpu") -> dict[str, Any]:
    """Hardware, versions and date, as JSON can hold them; `device` is `cpu` or `cuda`."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": _gpu() if device == "cuda" else f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

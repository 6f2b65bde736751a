"""Where and with what something was measured."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGES = ("vaeguard", "torch", "onnxruntime", "onnxruntime-gpu", "numpy", "scikit-learn", "scipy", "pillow")


def environment(device: str = "cpu") -> dict[str, Any]:
    """Hardware, versions and date, as JSON can hold them; `device` is `cpu`, `cuda` or `tensorrt`."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": _gpu() if device in ("cuda", "tensorrt") else f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": installed(PACKAGES),
    }


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of `packages` that are installed."""
    versions = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _gpu() -> str:
    """Name of the GPU, by torch if it is there already, else by NVIDIA's tool: torch takes seconds to load."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return str(sys.modules["torch"].cuda.get_device_name())
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "an NVIDIA GPU"
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else "an NVIDIA GPU"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

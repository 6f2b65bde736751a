"""The hardware and software on which a figure was measured."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vaeguard.packages import PACKAGES, installed


def environment(device: str = "cpu") -> dict[str, Any]:
    """Hardware, versions and date as plain values for JSON; `device` is `cpu`, `cuda` or `tensorrt`."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": _gpu() if device in ("cuda", "tensorrt") else f"{processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": installed(PACKAGES),
    }


def _gpu() -> str:
    """The name of the GPU, from torch if torch is loaded, otherwise from `nvidia-smi`: loading torch takes seconds."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return str(sys.modules["torch"].cuda.get_device_name())
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return "an NVIDIA GPU"
    return result.stdout.splitlines()[0].strip() if result.stdout.strip() else "an NVIDIA GPU"


@functools.cache
def processor() -> str:
    """The name of the processor, on whose family the last digits of a result depend."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

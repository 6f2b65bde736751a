"""The packages around this one: their versions, and what to install where one is missing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FULL, LIGHT = "vaeguard", "vaeguard-runtime"
"""The two distributions of the same modules: with all that training needs, and without."""
PACKAGES = (FULL, "torch", "onnxruntime", "onnxruntime-gpu", "numpy", "scikit-learn", "scipy", "pillow")


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The version of each of the `packages` that is installed; that of vaeguard whichever way it was installed."""
    names = {name: (FULL, LIGHT) if name == FULL else (name,) for name in packages}
    found = {name: next(filter(None, map(_version, distributions)), "") for name, distributions in names.items()}
    return {name: number for name, number in found.items() if number}


def own_version() -> str:
    """The version of vaeguard, empty in a checkout that is not installed."""
    return installed((FULL,)).get(FULL, "")


def is_light() -> bool:
    """Whether only the distribution without training is installed."""
    return not has(FULL) and has(LIGHT)


def install_line(extra: str = "") -> str:
    """The command that installs an extra; without one, all that training needs."""
    if is_light():
        return f"pip install '{LIGHT}[{extra or 'fit'}]'"
    return f"pip install '{FULL}[{extra}]'" if extra else f"pip install {FULL}"


def has(distribution: str) -> bool:
    """Whether a distribution is installed."""
    return bool(_version(distribution))


def _version(distribution: str) -> str:
    """The version of a distribution, empty if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""

"""Choices of options and their defaults, for the command line."""

from vaeguard.devices import DEVICES, ENGINE_DEVICES
from vaeguard.settings.evaluation import BOUND_IMAGES, IMPORTANCE_SAMPLES, PROJECTIONS
from vaeguard.settings.presets import PRESETS
from vaeguard.settings.restoration import DEGRADATIONS

__all__ = [
    "BOUND_IMAGES",
    "DEGRADATIONS",
    "DEVICES",
    "ENGINE_DEVICES",
    "IMPORTANCE_SAMPLES",
    "PRESETS",
    "PROJECTIONS",
]

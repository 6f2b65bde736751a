"""What can be chosen, and what is chosen by default."""

from vaeguard.devices import DEVICES, ENGINE_DEVICES
from vaeguard.settings.evaluation import BOUND_IMAGES, DEFAULT_FPR, IMPORTANCE_SAMPLES, PROJECTIONS
from vaeguard.settings.presets import PRESETS
from vaeguard.settings.restoration import DEGRADATIONS

__all__ = [
    "BOUND_IMAGES",
    "DEFAULT_FPR",
    "DEGRADATIONS",
    "DEVICES",
    "ENGINE_DEVICES",
    "IMPORTANCE_SAMPLES",
    "PRESETS",
    "PROJECTIONS",
]

"""What can be chosen, and what is chosen by default."""

from vaeguard.benchmarking.spec import BENCHMARKS
from vaeguard.presets import PRESETS
from vaeguard.restoration.spec import DEGRADATIONS
from vaeguard.spec import BOUND_IMAGES, DEFAULT_FPR, DEVICES, ENGINE_DEVICES, IMPORTANCE_SAMPLES, PROJECTIONS
from vaeguard.tuning.search_space import DEFAULT_TRIALS

__all__ = [
    "BENCHMARKS",
    "BOUND_IMAGES",
    "DEFAULT_FPR",
    "DEFAULT_TRIALS",
    "DEGRADATIONS",
    "DEVICES",
    "ENGINE_DEVICES",
    "IMPORTANCE_SAMPLES",
    "PRESETS",
    "PROJECTIONS",
]

"""Settings of jobs on a cluster, with the only defaults."""

from __future__ import annotations

from dataclasses import dataclass

from vaeguard.errors import UsageError
from vaeguard.settings.checks import check_positive, settle_types
from vaeguard.settings.field import setting
from vaeguard.wording import brief_settings


@dataclass(frozen=True)
class ClusterSettings:
    """What one task takes of a node, and how long a job waits for one.

    Attributes
    ----------
    cpus : int
        Cores of a task: its threads decode and compute.
    gpus : float or None
        GPUs of a task, or a part of one that several tasks share; None is one where the device is a GPU, else none.
    patience : float
        Seconds to wait while no node can take a task, before the job stops.

    Raises
    ------
    UsageError
        A value cannot work.
    """

    cpus: int = setting(1, "Number of CPU cores for each task on the cluster.")
    gpus: float | None = setting(
        None,
        "Number of GPUs for each task on the cluster; with a fraction, such as 0.5, several tasks share a GPU.",
        unset="1 if the model runs on GPUs, otherwise 0",
    )
    patience: float = setting(60.0, "Seconds to wait for a free node before the command gives up.")

    __repr__ = brief_settings

    def __post_init__(self) -> None:
        settle_types(self)
        check_positive("cpus", self.cpus)
        check_positive("patience", self.patience)
        if self.gpus is not None and self.gpus < 0:
            raise UsageError(f"`gpus` is {self.gpus:g}; it must be 0 or more")

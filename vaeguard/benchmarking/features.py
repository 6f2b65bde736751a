"""The features of a task's images: what our model of features sees, for other methods on the very same cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.models.cells import Cells
from vaeguard.models.graph import to_unit
from vaeguard.models.pretrained import pretrained

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from vaeguard.benchmarking.tasks import ImageTask

    Floats = npt.NDArray[np.float32]
    Halves = npt.NDArray[np.float16]

BLOCK = 8


@dataclass(frozen=True, eq=False)
class Features:
    """The features of every cell of the normal training images and of the test images, (n, P, F) each.

    Half precision suffices, and 300 images of 640 pixels a side are already a gigabyte of it.
    """

    cells: Cells
    train: Halves
    test: Halves

    def judged(self, scorer: Callable[[Halves], Floats]) -> tuple[Floats, Floats]:
        """The score (N,) and the heatmap (N, H, W) of each test image from the scores of its cells, (n, P)."""
        blocks = [self.test[at : at + BLOCK] for at in range(0, len(self.test), BLOCK)]
        values = [torch.from_numpy(scorer(block)).flatten() for block in blocks]
        strongest, heatmaps = (
            torch.cat([judge(block) for block in values]).numpy()
            for judge in (self.cells.strongest, self.cells.heatmap)
        )
        return strongest, heatmaps


@lru_cache(maxsize=1)
def features_of(task: ImageTask, name: str, *, download: bool = False) -> Features:
    """The features of a task by the backbone `name`; those of the last task are kept for the next method."""
    shape: tuple[int, int, int] = task.test.shape[1:]
    cells = Cells(shape, pretrained(name, shape, download=download)).eval()
    return Features(cells, _features(cells, task.train.images[task.normal_rows]), _features(cells, task.test))


@torch.no_grad()
def _features(cells: Cells, images: npt.NDArray[Any]) -> Halves:
    blocks = (torch.from_numpy(images[at : at + BLOCK]) for at in range(0, len(images), BLOCK))
    return np.concatenate([cells.features(to_unit(block)).flatten(1, 2).half().numpy() for block in blocks])

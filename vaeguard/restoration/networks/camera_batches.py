"""Batches to train the estimator of noise on: clean photographs taken again by simulated cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vaeguard.restoration.networks.batches import DULL, WIDE_GRAIN, WIDE_GRAIN_SHARE, PatchSpec, draw_grain
from vaeguard.restoration.networks.camera import CameraShot, camera_shot
from vaeguard.restoration.noise import CELL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor

    Levels = npt.NDArray[np.uint8]

SHOT = 192
"""The side of the part of a photograph that one shot takes, in pixels."""
SHOTS = PatchSpec(size=96, batch=8, steps_per_page=3, pages=240)
PLAIN_SHARE = 0.45
"""The share of patches with plain Gaussian noise."""
CLIPPED_SHARE = 0.6
"""The share of the patches with plain noise that are clipped and rounded."""
STORED_SHARE = 0.5
"""The share of the patches with plain noise that are made from stored pictures."""
ESTIMATED = (0.4, 60.0)
"""The range of the deviation of plain noise, in levels of 0 to 255, drawn evenly by its logarithm."""


def estimator_batches(
    photos: Sequence[Levels], seed: int, spec: PatchSpec = SHOTS, *, grey: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Patches of photographs, with and without noise of many kinds, and the deviation of the noise.

    Parameters
    ----------
    photos : sequence of ndarray
        uint8, shape (H, W, 3), both sides at least 192.
    seed : int
        The seed of everything random.
    spec : PatchSpec
        The drawing of patches.
    grey : bool
        Draw patches of one plane.

    Yields
    ------
    noisy : Tensor
        Shape (N, 3 or 1, size, size), 0 to 1.
    noise : Tensor
        Deviations in levels of 0 to 255, shape (N, 2 or 1, size / 8, size / 8).
    """
    draw = _Shots(photos, seed, spec, grey=grey)
    low, high = np.log(ESTIMATED)
    while True:
        patches = draw.patches()
        plain = draw.chosen(PLAIN_SHARE)
        deviation = torch.exp(low + (high - low) * draw.uniform())
        base = torch.where(draw.chosen(STORED_SHARE), patches.stored, patches.clean)
        noisy = torch.where(plain, draw.with_grain(base, deviation), patches.noisy)
        noise = torch.where(plain, deviation.expand_as(patches.noise), patches.noise)
        yield noisy / 255, torch.nn.functional.avg_pool2d(noise, CELL)


@dataclass(frozen=True)
class _Patches:
    """Patches of some shots, float32 (N, C, size, size) in levels of 0 to 255."""

    clean: Tensor
    noisy: Tensor
    stored: Tensor
    noise: Tensor


class _Shots:
    """A pool of shots that is renewed step by step, and the random generators that draw patches from it."""

    def __init__(self, photos: Sequence[Levels], seed: int, spec: PatchSpec, *, grey: bool) -> None:
        self.photos, self.spec, self.grey = photos, spec, grey
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        weights = np.sqrt([float(photo.size) for photo in photos])
        self.weights = weights / weights.sum()
        self.pool = [self._shot() for _ in range(spec.pages)]
        self.step = 0

    def patches(self) -> _Patches:
        """A batch of patches, turned and mirrored at random."""
        self.step += 1
        if self.step % self.spec.steps_per_page == 0:
            self.pool[self.rng.integers(len(self.pool))] = self._shot()
        cut = [self._patch() for _ in range(self.spec.batch)]
        stacks = (np.ascontiguousarray(np.stack(parts)) for parts in zip(*cut, strict=True))
        return _Patches(*(torch.from_numpy(stack).float() for stack in stacks))

    def chosen(self, share: float) -> Tensor:
        """A mask that chooses each patch of a batch with the probability `share`: shape (N, 1, 1, 1)."""
        return self.uniform() < share

    def uniform(self) -> Tensor:
        """A random number from 0 to 1 for each patch of a batch: shape (N, 1, 1, 1)."""
        return torch.rand(self.spec.batch, 1, 1, 1, generator=self.generator)

    def with_grain(self, base: Tensor, deviation: Tensor) -> Tensor:
        """`base` with Gaussian noise; some noise is wider than a pixel, and many patches are clipped and rounded."""
        if self.rng.random() < WIDE_GRAIN_SHARE:
            grain = draw_grain(base.shape, self.rng.uniform(*WIDE_GRAIN), self.generator)
        else:
            grain = torch.randn(base.shape, generator=self.generator)
        noisy = base + deviation * grain
        return torch.where(self.chosen(CLIPPED_SHARE), noisy.round().clamp(0, 255), noisy)

    def _shot(self) -> CameraShot:
        for _ in range(6):
            photo = self.photos[int(self.rng.choice(len(self.weights), p=self.weights))]
            row, column = (int(self.rng.integers(side - SHOT + 1)) for side in photo.shape[:2])
            part = photo[row : row + SHOT, column : column + SHOT]
            if part.std() > DULL:
                break
        return camera_shot(part, self.rng, grey=self.grey)

    def _patch(self) -> list[npt.NDArray[np.generic]]:
        size = self.spec.size
        shot = self.pool[self.rng.integers(len(self.pool))]
        row, column = (CELL * int(self.rng.integers((SHOT - size) // CELL + 1)) for _ in range(2))
        turn, mirrored = int(self.rng.integers(4)), self.rng.random() < 0.5
        levels = [plane.transpose(2, 0, 1) for plane in (shot.clean, shot.noisy, shot.stored)]
        planes: list[npt.NDArray[Any]] = [*levels, shot.noise]
        cut = [plane[:, row : row + size, column : column + size] for plane in planes]
        turned = [np.rot90(plane, turn, (1, 2)) for plane in cut]
        return [plane[..., ::-1] for plane in turned] if mirrored else turned

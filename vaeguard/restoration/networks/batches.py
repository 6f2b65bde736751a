"""Batches to train denoisers on: clean patches, worn ones, and the strength of the noise.

Worn patches are made from clean photographs or pages, or cut from pairs of noisy and clean scans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from vaeguard.restoration.networks.degrade import degrade_document, degrade_photo
from vaeguard.restoration.noise import finest_noise, grain_kernel, grain_of, print_noise
from vaeguard.restoration.paper import divided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor

    Floats = npt.NDArray[np.float32]
    Levels = npt.NDArray[np.uint8]
    Batch = tuple[Tensor, Tensor, Tensor]

LARGEST_NOISE = 55 / 255
WIDE_GRAIN_SHARE = 0.2
"""The share of patches whose grain is wider than a pixel."""
WIDE_GRAIN = (0.35, 0.9)
"""The range of the width of such grain, in pixels."""
DULL = 8
"""The deviation, in levels of 0 to 255, below which a patch has little detail to learn from."""


@dataclass(frozen=True)
class PatchSpec:
    """The drawing of training patches.

    Attributes
    ----------
    size : int
        Side of a patch in pixels.
    batch : int
        Patches in a batch.
    steps_per_page : int
        Batches after which one page of the pool is replaced.
    pages : int
        Pages in the pool.
    """

    size: int = 96
    batch: int = 8
    steps_per_page: int = 4
    pages: int = 48


def photo_batches(
    photos: Sequence[Levels],
    seed: int,
    spec: PatchSpec | None = None,
    *,
    noise: float | None = None,
    worn: bool = False,
) -> Iterator[Batch]:
    """Patches of grey photographs with Gaussian noise of any strength, a fifth of them with grain wider than a pixel.

    Parameters
    ----------
    photos : sequence of ndarray
        uint8, shape (H, W), each at least as large as a patch.
    seed : int
        The seed of everything random.
    spec : PatchSpec or None
        The drawing of patches.
    noise : float or None
        The deviation, 0 to 1, of white noise that is added instead.
    worn : bool
        Wear the patches by `degrade_photo` instead.

    Yields
    ------
    clean, noisy : Tensor
        Shape (N, 1, size, size), 0 to 1; noisy values may lie beyond.
    noise : Tensor
        Standard deviation, shape (N, 1, 1, 1).
    """
    spec = spec or PatchSpec()
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    draw = _Drawer([photos], spec, rng)
    one = (spec.batch, 1, 1, 1)
    while True:
        (levels,), _ = draw.patches()
        clean = levels / 255
        contrast = torch.from_numpy(rng.uniform(0.6, 1.1, one).astype(np.float32))
        level = torch.from_numpy(rng.uniform(0, 1, one).astype(np.float32))
        changed = (clean * contrast + level * (1 - contrast).clamp(min=0)).clamp(0, 1)
        clean = torch.where(torch.from_numpy(rng.random(one) < 0.5), changed, clean)
        if worn:
            degraded, noises = zip(*(degrade_photo(photo, rng) for photo in clean[:, 0].numpy()), strict=True)
            yield clean, torch.from_numpy(np.stack(degraded))[:, None], torch.tensor(noises).view(one)
            continue
        if noise is None:
            deviation = torch.from_numpy(rng.uniform(0, LARGEST_NOISE, one).astype(np.float32))
        else:
            deviation = torch.full(one, noise)
        fine = torch.randn(clean.shape, generator=generator)
        wide = torch.from_numpy(rng.random(one) < (WIDE_GRAIN_SHARE if noise is None else 0))
        grain = torch.where(wide, draw_grain(clean.shape, rng.uniform(*WIDE_GRAIN), generator), fine)
        yield clean, clean + deviation * grain, deviation


def pair_batches(
    pairs: Sequence[tuple[Floats, Floats, float]], seed: int, spec: PatchSpec | None = None
) -> Iterator[Batch]:
    """Patches cut from pairs of a noisy and a clean image.

    Parameters
    ----------
    pairs : sequence of (noisy, clean, noise)
        Two images, float32, of shape (H, W) and at least as large as a patch; and the deviation of the noise, 0 to 1.
    seed : int
        The seed of everything random.
    spec : PatchSpec or None
        The drawing of patches.

    Yields
    ------
    clean, noisy, noise : Tensor
        As `photo_batches`.
    """
    spec = spec or PatchSpec()
    draw = _Drawer(
        list(zip(*((noisy, clean) for noisy, clean, _ in pairs), strict=True)), spec, np.random.default_rng(seed)
    )
    noises = torch.tensor([noise for _, _, noise in pairs])
    while True:
        (noisy, clean), chosen = draw.patches()
        yield clean, noisy, noises[chosen].view(-1, 1, 1, 1)


def seen_batches(
    images: Sequence[Floats], seed: int, spec: PatchSpec | None = None, *, grain: tuple[float, float] | None = None
) -> Iterator[Batch]:
    """Patches of noisy images without clean ones, and fresh grain of the same kind.

    Parameters
    ----------
    images : sequence of ndarray
        float32, shape (H, W), 0 to 1, each at least as large as a patch.
    seed : int
        The seed of everything random.
    spec : PatchSpec or None
        The drawing of patches.
    grain : (float, float) or None
        The result of `grain_of` for the collection; None measures these images.

    Yields
    ------
    seen : Tensor
        Shape (N, 1, size, size).
    grain : Tensor
        Fresh grain with the width and the deviation of the images' own grain, in the same shape.
    noise : Tensor
        The deviation of the grain, shape (N, 1, 1, 1).
    """
    spec = spec or PatchSpec()
    generator = torch.Generator().manual_seed(seed)
    draw = _Drawer([images], spec, np.random.default_rng(seed))
    width, ratio = grain or grain_of(images)
    deviations = torch.tensor([ratio * finest_noise(image) for image in images])
    while True:
        (seen,), chosen = draw.patches()
        noise = deviations[chosen].view(-1, 1, 1, 1)
        yield seen, noise * draw_grain(seen.shape, width, generator), noise


def page_batches(
    render: Callable[[np.random.Generator], Floats], seed: int, spec: PatchSpec | None = None
) -> Iterator[Batch]:
    """Patches of worn pages, divided by their paper, and of the same pages clean.

    Parameters
    ----------
    render : callable
        Draws a clean page, shape (H, W), 1 paper to 0 ink.
    seed : int
        The seed of everything random.
    spec : PatchSpec or None
        The drawing of patches.

    Yields
    ------
    clean, worn, noise : Tensor
        As `photo_batches`.
    """
    spec = spec or PatchSpec()
    rng = np.random.default_rng(seed)
    pool = [page_pair(render, rng) for _ in range(spec.pages)]
    step = 0
    while True:
        step += 1
        if step % spec.steps_per_page == 0:
            pool[rng.integers(len(pool))] = page_pair(render, rng)
        chosen = []
        for _ in range(spec.batch):
            worn, clean, noise = pool[rng.integers(len(pool))]
            row, column = (rng.integers(side - spec.size + 1) for side in clean.shape)
            place = slice(row, row + spec.size), slice(column, column + spec.size)
            turn = -1 if rng.random() < 0.5 else 1
            chosen.append((clean[place][::turn], worn[place][::turn], np.float32(noise)))
        cleans, worns, noises = (torch.from_numpy(np.stack(patches).copy()) for patches in zip(*chosen, strict=True))
        yield cleans[:, None], worns[:, None], noises.view(-1, 1, 1, 1)


def page_pair(
    render: Callable[[np.random.Generator], Floats], rng: np.random.Generator
) -> tuple[Floats, Floats, float]:
    """A worn page divided by its paper, the clean page, and the noise level; one page in ten is not worn."""
    clean, back = render(rng), render(rng)
    worn, target = (clean, clean) if rng.random() < 0.1 else degrade_document(clean, rng, other=back)
    flat = divided(worn)
    return flat, target, print_noise(flat)


class _Drawer:
    """Cuts the same patches from one or several lists of images, and turns and mirrors them at random.

    Large images are drawn more often, in proportion to their side, and patches with some detail are preferred.
    """

    def __init__(self, lists: Sequence[Sequence[npt.NDArray[Any]]], spec: PatchSpec, rng: np.random.Generator) -> None:
        self.lists, self.spec, self.rng = lists, spec, rng
        weights = np.sqrt([float(image.size) for image in lists[0]])
        self.weights = weights / weights.sum()

    def patches(self) -> tuple[list[Tensor], list[int]]:
        """A batch of patches from each list, float32 (N, 1, size, size), and the number of the image of each patch."""
        chosen, cut = [], []
        for _ in range(self.spec.batch):
            number, patches = self._patch()
            chosen.append(number)
            cut.append(patches)
        stacks = [np.stack(patches).astype(np.float32) for patches in zip(*cut, strict=True)]
        return [torch.from_numpy(stack)[:, None] for stack in stacks], chosen

    def _patch(self) -> tuple[int, list[npt.NDArray[Any]]]:
        size = self.spec.size
        for _ in range(6):
            number = int(self.rng.choice(len(self.weights), p=self.weights))
            row, column = (self.rng.integers(side - size + 1) for side in self.lists[0][number].shape)
            patches = [images[number][row : row + size, column : column + size] for images in self.lists]
            last = patches[-1]
            if last.std() > (DULL if last.dtype == np.uint8 else DULL / 255):
                break
        turn = int(self.rng.integers(8))
        turned = [np.rot90(patch, turn % 4) for patch in patches]
        return number, [patch[:, ::-1] for patch in turned] if turn >= 4 else turned


def draw_grain(shape: torch.Size, width: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of deviation 1, `width` pixels wide, of `shape` (N, C, H, W); its planes are independent."""
    kernel = torch.from_numpy(grain_kernel(width))
    beyond = len(kernel) - 1
    grain = torch.randn(shape[0] * shape[1], 1, shape[2] + beyond, shape[3] + beyond, generator=generator)
    return F.conv2d(F.conv2d(grain, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).view(shape)

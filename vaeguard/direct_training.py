"""Fit a direct denoiser on pairs of clean and worn images: first what it restores, then how sure it is of it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F

from vaeguard.degrade import degrade_document
from vaeguard.noise import print_noise
from vaeguard.paper import BRIGHTEST, bright_blocks, interpolated, paper_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from vaeguard.direct import DirectDenoiser
    from vaeguard.progress import Progress

    Floats = npt.NDArray[np.float32]
    Batch = tuple[Tensor, Tensor, Tensor]

LEARNING_RATE, LAST_RATE_SHARE, WARM_UP = 1e-3, 0.002, 500
SPREAD_RATE, SPREAD_STEPS = 1e-2, 1500
AVERAGE = 0.999
"""The weights that are kept are a running average of those that are trained."""
LARGEST_NOISE = 55 / 255
WIDE_GRAIN_SHARE = 0.2
COVERAGE, OF_PATCHES = 0.9, 0.75


@dataclass(frozen=True)
class PatchSpec:
    """How training patches are drawn: side in pixels, patches a step, steps for which a page is used."""

    size: int = 96
    batch: int = 8
    steps_per_page: int = 4
    pages: int = 48


def photo_batches(photos: Sequence[npt.NDArray[np.uint8]], seed: int, spec: PatchSpec | None = None) -> Iterator[Batch]:
    """Patches of grey photographs with Gaussian noise of any strength, a fifth of them with grain wider than a pixel.

    Parameters
    ----------
    photos : sequence of ndarray
        uint8, shape (H, W), each at least as large as a patch.
    seed : int
        For all chance.
    spec : PatchSpec or None
        How patches are drawn.

    Yields
    ------
    clean, noisy : Tensor
        Shape (N, 1, size, size), 0 to 1; the noisy one goes beyond.
    noise : Tensor
        Standard deviation, shape (N, 1, 1, 1).
    """
    spec = spec or PatchSpec()
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    weights = np.sqrt([float(photo.size) for photo in photos])
    weights /= weights.sum()
    one = (spec.batch, 1, 1, 1)
    while True:
        patches = np.stack([_photo_patch(photos, weights, spec.size, rng) for _ in range(spec.batch)])
        clean = torch.from_numpy(patches.astype(np.float32) / 255)[:, None]
        contrast = torch.from_numpy(rng.uniform(0.6, 1.1, one).astype(np.float32))
        level = torch.from_numpy(rng.uniform(0, 1, one).astype(np.float32))
        changed = (clean * contrast + level * (1 - contrast).clamp(min=0)).clamp(0, 1)
        clean = torch.where(torch.from_numpy(rng.random(one) < 0.5), changed, clean)
        noise = torch.from_numpy(rng.uniform(0, LARGEST_NOISE, one).astype(np.float32))
        fine = torch.randn(clean.shape, generator=generator)
        wide = torch.from_numpy(rng.random(one) < WIDE_GRAIN_SHARE)
        grain = torch.where(wide, _wide_grain(clean.shape, rng.uniform(0.35, 0.9), generator), fine)
        yield clean, clean + noise * grain, noise


def page_batches(
    render: Callable[[np.random.Generator], tuple[Floats, int]], seed: int, spec: PatchSpec | None = None
) -> Iterator[Batch]:
    """Patches of worn pages, divided by their paper, and of the clean pages below.

    Parameters
    ----------
    render : callable
        Draws a clean page, shape (H, W), 1 paper to 0 ink, and tells the height of its letters in pixels.
    seed : int
        For all chance.
    spec : PatchSpec or None
        How patches are drawn.

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
        cleans, worns, noises = (torch.from_numpy(np.stack(each).copy()) for each in zip(*chosen, strict=True))
        yield cleans[:, None], worns[:, None], noises.view(-1, 1, 1, 1)


def page_pair(
    render: Callable[[np.random.Generator], tuple[Floats, int]], rng: np.random.Generator
) -> tuple[Floats, Floats, float]:
    """A worn page divided by its paper, the clean one, and the noise level; one in ten is not worn at all."""
    clean, letters = render(rng)
    back, _ = render(rng)
    worn = clean if rng.random() < 0.1 else degrade_document(clean, rng, other=back)
    block = max(2, round(letters * rng.uniform(0.2, 0.45)))
    paper = interpolated(paper_map(bright_blocks(worn, block)), block, 0, *clean.shape)
    divided = np.clip(worn / paper, 0, BRIGHTEST).astype(np.float32)
    return divided, clean, print_noise(divided)


def fit_denoiser(
    net: DirectDenoiser,
    batches: Iterator[Batch],
    steps: int,
    *,
    by_noise: bool,
    bf16: bool = False,
    progress: Progress | None = None,
) -> DirectDenoiser:
    """Fit `net` on `batches` for `steps` steps of AdamW with a cosine schedule, then its `spread`; returns the average.

    Parameters
    ----------
    net : DirectDenoiser
        Trained in place; the running average of its weights is what is returned.
    batches : iterator
        Of (clean, noisy, noise).
    steps : int
        Of training; `SPREAD_STEPS` more for the spread.
    by_noise : bool
        Weigh errors by the strength of the noise, so that weak noise is learned as well as strong.
    bf16 : bool
        Multiply in bfloat16.
    progress : callable or None
        Called with steps done, steps in all, the loss.
    """
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    average = copy.deepcopy(net).requires_grad_(requires_grad=False)
    for step in range(1, steps + 1):
        rate = 0.5 * (1 + math.cos(math.pi * step / steps)) * (1 - LAST_RATE_SHARE) + LAST_RATE_SHARE
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, step / WARM_UP) * rate
        clean, noisy, noise = next(batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            restored, _ = net(noisy, noise)
        errors = (restored.float() - clean).square().mean((1, 2, 3))
        loss = 10 * (errors / (noise.flatten() + 0.02) if by_noise else errors).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        for kept, trained in zip(average.parameters(), net.parameters(), strict=True):
            kept.lerp_(trained.detach(), 1 - min(AVERAGE, step / (step + 50)))
        if progress:
            progress(step, steps, f"loss {loss.item():.4f}")
    return fit_spread(average, batches)


def fit_spread(net: DirectDenoiser, batches: Iterator[Batch]) -> DirectDenoiser:
    """Fit the expected error of each pixel by the Gaussian negative log-likelihood; what it restores stays."""
    net.requires_grad_(requires_grad=False)
    net.spread.requires_grad_(requires_grad=True)
    optimizer = torch.optim.Adam(net.spread.parameters(), SPREAD_RATE)
    for step in range(SPREAD_STEPS):
        for group in optimizer.param_groups:
            group["lr"] = SPREAD_RATE * (1 - step / SPREAD_STEPS)
        clean, noisy, noise = next(batches)
        restored, log_variance = net(noisy, noise)
        error = (restored.detach().clamp(0, 1) - clean).square()
        if step == 0:  # begin at the mean error, not at 1
            torch.nn.init.constant_(cast("Tensor", net.spread.bias), float(error.mean().log()))
            continue
        loss = 0.5 * (log_variance + error * torch.exp(-log_variance)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.spread.parameters(), 1.0)
        optimizer.step()
    return net.requires_grad_(requires_grad=False)


def interval_of(net: DirectDenoiser, batches: Iterator[Batch], count: int = 50) -> float:
    """So many times the spread on either side hold nine of ten clean pixels, in three of four patches.

    Measured on `count` batches. Patches differ; a multiple that held nine of ten pixels of all together would promise
    too much where there is detail.
    """
    multiples: list[float] = []
    with torch.no_grad():
        for _ in range(count):
            clean, noisy, noise = next(batches)
            restored, log_variance = net(noisy, noise)
            ratio = (restored.clamp(0, 1) - clean).abs() / torch.exp(0.5 * log_variance)
            multiples += ratio.flatten(1).quantile(COVERAGE, dim=1).tolist()
    return float(np.quantile(multiples, OF_PATCHES))


def _photo_patch(
    photos: Sequence[npt.NDArray[np.uint8]], weights: npt.NDArray[np.float64], size: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """A patch with some detail, turned and mirrored at random."""
    for _ in range(6):
        photo = photos[rng.choice(len(photos), p=weights)]
        row, column = (rng.integers(side - size + 1) for side in photo.shape)
        patch = photo[row : row + size, column : column + size]
        if patch.std() > 8:
            break
    turn = int(rng.integers(8))
    turned: npt.NDArray[np.uint8] = np.rot90(patch, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned


def _wide_grain(shape: torch.Size, width: float, generator: torch.Generator) -> Tensor:
    """Gaussian noise of deviation 1, smoothed over `width` pixels."""
    offsets = torch.arange(-2, 3).float()
    kernel = torch.exp(-offsets.square() / (2 * width**2))
    kernel = kernel / kernel.norm()
    grain = torch.randn(*shape[:2], shape[2] + 4, shape[3] + 4, generator=generator)
    return F.conv2d(F.conv2d(grain, kernel.view(1, 1, 1, 5)), kernel.view(1, 1, 5, 1))

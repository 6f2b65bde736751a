"""Augmentation of image batches on the device, every image moved by its own random amount."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.models.shares import Draws
    from vaeguard.settings.training import TrainSpec


WARP_DEGREES = 10.0
"""The largest rotation of a warp of strength 1, in degrees."""
WARP_SCALE = 0.1
WARP_SHEAR = 0.1
WARP_SHIFT = 0.035
"""The largest shift of a warp of strength 1, as a share of the image's size."""
WARP_BEND = 0.05
"""The largest displacement by the smooth bend of a warp of strength 1, as a share of the image's size."""
WARP_KNOTS = 4
"""Random displacements along each side of the image, between which the bend is interpolated."""


def augment(image: Tensor, spec: TrainSpec, draws: Draws) -> Tensor:
    """Warp, shift, rotate, mirror and roughen `image`, float32 (N, C, H, W) in [0, 1], as `spec` asks; range kept."""
    if spec.augment_warp:
        image = _warp(image, spec.augment_warp, draws)
    if spec.augment_shift or spec.augment_rotate:
        image = _move(image, spec.augment_shift, spec.augment_rotate, draws)
    if spec.augment_flip:
        mirrored = draws.uniform(len(image), 1, 1, 1) < 0.5
        image = torch.where(mirrored, image.flip(3), image)
    return add_noise(image, spec.augment_noise, draws)


def add_noise(image: Tensor, sigma: float, draws: Draws) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma` (pixels 0 to 1) and clip to [0, 1]."""
    if not sigma:
        return image
    noise = draws.normal(*image.shape)
    return (image + sigma * noise).clamp(0, 1)


def _move(image: Tensor, pixels: int, degrees: float, draws: Draws) -> Tensor:
    n, _, height, width = image.shape
    uniform = 2 * draws.uniform(3, n, axis=1) - 1
    angle = uniform[0] * math.radians(degrees)
    # Shifts by whole pixels do not blur the image.
    x, y = (torch.round(uniform[i] * (pixels + 0.49)).clamp(-pixels, pixels) for i in (1, 2))
    cos, sin = angle.cos(), angle.sin()
    rows = [
        torch.stack([cos, -sin * height / width, 2 * x / width], 1),
        torch.stack([sin * width / height, cos, 2 * y / height], 1),
    ]
    return _resampled(image, torch.stack(rows, 1))


def _warp(image: Tensor, strength: float, draws: Draws) -> Tensor:
    """Deform every image by its own affine map and its own smooth bend (Simard et al., 2003), in one resampling."""
    n, _, height, width = image.shape

    def uniform(*shape: int, axis: int = 0) -> Tensor:
        return strength * (2 * draws.uniform(*shape, axis=axis) - 1)

    angle = math.radians(WARP_DEGREES) * uniform(n)
    stretch, shear = 1 + WARP_SCALE * uniform(2, n, axis=1), WARP_SHEAR * uniform(n)
    shift = 2 * WARP_SHIFT * uniform(2, n, axis=1)
    cos, sin = angle.cos(), angle.sin()
    tall = height / width
    rows = [
        torch.stack([cos * stretch[0], (shear - sin) * tall * stretch[1], shift[0]], 1),
        torch.stack([sin / tall * stretch[0], cos * stretch[1], shift[1]], 1),
    ]
    knots = 2 * WARP_BEND * uniform(n, 2, WARP_KNOTS, WARP_KNOTS)
    bend = F.interpolate(knots, (height, width), mode="bicubic", align_corners=True)
    return _resampled(image, torch.stack(rows, 1), bend.permute(0, 2, 3, 1))


def _resampled(image: Tensor, affine: Tensor, bend: Tensor | float = 0.0) -> Tensor:
    """Images at the places of their affine maps, (N, 2, 3), moved on by `bend`, (N, H, W, 2)."""
    if not len(image):  # the share of one of several processes, which torch refuses
        return image
    grid = F.affine_grid(affine, list(image.shape), align_corners=False) + bend
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False).clamp(0, 1)

"""What a fit learns if nobody says it: features of a network for photographs, pixels for small images."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from vaeguard.settings.views import PHOTO_CHANNELS

if TYPE_CHECKING:
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec

DEFAULT_FEATURES = "efficientnet-lite0"
PHOTO_SIDE = 96
"""Images whose sides all have so many pixels are photographs; features of smaller ones describe mostly their border."""
LONGEST_PIXELS = 128
"""The longest side, in pixels, to which files are scaled down where pixels are learned."""
FOR_PIXELS = {
    "model": ("kind", "patch", "width", "likelihood", "prior", "guided", "pseudo_classes", "autoencoder"),
    "training": (
        "guide_weight", "input_noise", "binarise", "augment_warp", "augment_shift", "augment_rotate", "augment_noise",
        "augment_flip", "balance",
    ),
}  # fmt: skip
"""Settings that have a meaning only for pixels and patches of them, so whoever sets one asks for these."""


def asks_for_pixels(model: ModelSpec, training: TrainSpec) -> str | None:
    """The name of a setting, such as `model.patch`, that asks for pixels or patches of them; None if none does."""
    if model.features is not None:
        return None if model.features else "model.features"
    for section, spec in (("model", model), ("training", training)):
        defaults = {item.name: item.default for item in fields(spec)}
        for name in FOR_PIXELS[section]:
            # Whoever is against classes or augmentation does not ask for pixels.
            if getattr(spec, name) not in (defaults[name], False, None):
                return f"{section}.{name}"
    return None


def is_photograph(height: int, width: int) -> bool:
    """Whether images of this size in pixels are taken for photographs."""
    return min(height, width) >= PHOTO_SIDE


def default_size(size: tuple[int, int], longest: int | None = None) -> tuple[int, int]:
    """The (height, width) in pixels that files of this size get if nobody asks for one; the shape is kept.

    They are scaled down to `longest`; None leaves photographs as they are, and is `LONGEST_PIXELS` for others.
    """
    if longest is None:
        longest = max(size) if is_photograph(*size) else LONGEST_PIXELS
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def with_features(
    model: ModelSpec, training: TrainSpec, image_shape: tuple[int, int, int], *, vectors: bool = False
) -> ModelSpec:
    """Settle `model.features` for images of `image_shape` (C, H, W), or for vectors: a network, or pixels ("")."""
    if model.features is not None:
        return model
    channels, height, width = image_shape
    suits = not vectors and channels in PHOTO_CHANNELS and is_photograph(height, width)
    return replace(model, features=DEFAULT_FEATURES if suits and not asks_for_pixels(model, training) else "")

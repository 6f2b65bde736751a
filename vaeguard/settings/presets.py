"""Named settings: the classic VAEs, reproduced exactly, and a model of patches that finds small defects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vaeguard.errors import UsageError
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.training import TrainSpec
from vaeguard.wording import brief


@dataclass(frozen=True)
class Preset:
    """A named pair of specs; `about` names the reference that they reproduce, or their purpose."""

    model: ModelSpec
    training: TrainSpec
    about: str

    __repr__ = brief


def _classic(about: str, *, epochs: int, reduction: str = "sum", **model: Any) -> Preset:
    spec = ModelSpec(guided=False, pseudo_classes=0, **model)
    return Preset(spec, TrainSpec(epochs=epochs, schedule="constant", reduction=reduction, bf16=False), about)


PRESETS = {
    "mlp-400-400-20": _classic(
        "layers of 784-400-400-20 units, summed binary cross-entropy + KL", epochs=10, kind="mlp", latent=20
    ),
    "mlp-128-2": _classic(
        "layers of 784-128-2 units, summed binary cross-entropy + KL; the two-dimensional latent space can be plotted",
        epochs=20, kind="mlp", hidden=(128,), latent=2,
    ),
    "mlp-400-20-mse": _classic(
        "layers of 784-400-20 units, summed squared error + KL",
        epochs=10, kind="mlp", hidden=(400,), latent=20, likelihood="gaussian",
    ),
    "conv-128": _classic(
        "four convolutions of 64-128-256-512 channels, 128 latent units, summed squared error + KL",
        epochs=30, kind="conv", width=64, latent=128, likelihood="gaussian",
    ),
    "conv-128-mean": _classic(
        "as conv-128, but with squared error and KL averaged over pixels and latent units",
        epochs=30, reduction="mean", kind="conv", width=64, latent=128, likelihood="gaussian",
    ),
    "mlp-per-class": _classic(
        "layers of 784-400-400-20 units, with a learned prior mean for each class: a simple conditional VAE",
        epochs=20, kind="mlp", latent=20, prior="per-class",
    ),
    "mlp-200-200-50": Preset(
        ModelSpec(
            kind="mlp", hidden=(200, 200), latent=50, activation="tanh", likelihood="bernoulli", guided=False,
            pseudo_classes=0,
        ),
        TrainSpec(epochs=400, batch_size=100, kl_warmup=50, patience=400, binarise=True, bf16=False),
        "layers of 784-200-200-50 units, for pixels randomly set to black or white, which gives a normalised likelihood"
        " (Burda et al., 2016)",
    ),
    "patches": Preset(
        ModelSpec(kind="mlp", hidden=(256, 128), latent=16, activation="gelu", patch=16),
        TrainSpec(batch_size=256),
        "patches of 16x16 pixels, layers of 256-128-16 units, a learned standard deviation for each pixel; for small"
        " defects on textured surfaces",
    ),
}  # fmt: skip


def preset(name: str) -> Preset:
    """Return the preset called `name`.

    Raises
    ------
    UsageError
        There is no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]

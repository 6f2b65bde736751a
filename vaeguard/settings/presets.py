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
    "mlp-400-400-20": _classic("784-400-400-20, summed binary cross-entropy + KL", epochs=10, kind="mlp", latent=20),
    "mlp-128-2": _classic(
        "784-128-2, summed binary cross-entropy + KL; the two-dimensional latent space can be plotted",
        epochs=20, kind="mlp", hidden=(128,), latent=2,
    ),
    "mlp-400-20-mse": _classic(
        "784-400-20, summed squared error + KL", epochs=10, kind="mlp", hidden=(400,), latent=20, likelihood="gaussian"
    ),
    "conv-128": _classic(
        "four convolutions 64-128-256-512, latent 128, summed squared error + KL",
        epochs=30, kind="conv", width=64, latent=128, likelihood="gaussian",
    ),
    "conv-128-mean": _classic(
        "as conv-128, but with squared error and KL averaged over pixels and latent units",
        epochs=30, reduction="mean", kind="conv", width=64, latent=128, likelihood="gaussian",
    ),
    "mlp-per-class": _classic(
        "784-400-400-20 with a learned prior mean per class, a simple conditional VAE",
        epochs=20, kind="mlp", latent=20, prior="per-class",
    ),
    "mlp-200-200-50": Preset(
        ModelSpec(
            kind="mlp", hidden=(200, 200), latent=50, activation="tanh", likelihood="bernoulli", guided=False,
            pseudo_classes=0,
        ),
        TrainSpec(epochs=400, batch_size=100, kl_warmup=50, patience=400, binarise=True, bf16=False),
        "784-200-200-50 on pixels randomly set to black or white (Burda et al., 2016), with a normalised likelihood",
    ),
    "patches": Preset(
        ModelSpec(kind="mlp", hidden=(256, 128), latent=16, activation="gelu", patch=16),
        TrainSpec(batch_size=256),
        "16x16 patches, 256-128-16, learned sigma, for small defects on textured surfaces",
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

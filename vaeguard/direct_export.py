"""Write a direct denoiser as one ONNX file for images of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vaeguard.direct import GRID, DirectDenoiser
from vaeguard.exporting import sealed, translated
from vaeguard.files import write_bytes
from vaeguard.sessions import FORMAT

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def write_denoiser(net: DirectDenoiser, path: str | Path, kind: str, *, interval: float, card: dict[str, Any]) -> None:
    """Write `net` as an `.onnx` file that `vaeguard denoise -m` takes; see `denoiser_bytes`."""
    write_bytes(path, denoiser_bytes(net, kind, interval=interval, card=card))


class _WithSpread(nn.Module):
    """The denoiser with its expected error as a standard deviation."""

    def __init__(self, net: DirectDenoiser) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        restored, log_variance = self.net(image, noise)
        return restored, torch.exp(0.5 * log_variance)


def denoiser_bytes(net: DirectDenoiser, kind: str, *, interval: float, card: dict[str, Any]) -> bytes:
    """The sealed ONNX file of `net`.

    Inputs are `image`, float32 (N, 1, H, W) in [0, 1] with H and W multiples of 4, and `noise`, its standard deviation,
    (N, 1, 1, 1); outputs are `restored` and `spread`, the expected error, both (N, 1, H, W).

    Parameters
    ----------
    net : DirectDenoiser
        On the CPU.
    kind : str
        What it was trained for: `photo` or `document`.
    interval : float
        So many times `spread` on either side hold nine of ten clean pixels, measured on held-out images.
    card : dict
        Where the weights come from.
    """
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    model = translated(
        _WithSpread(net),
        {"image": torch.zeros(2, 1, 8 * GRID, 9 * GRID), "noise": torch.zeros(2, 1, 1, 1)},
        ("restored", "spread"),
        ({0: batch, 2: GRID * height, 3: GRID * width}, {0: batch}),
    )
    settings = {"kind": kind, "halo": net.halo, "grid": GRID, "interval": interval}
    return sealed(model, {"format": FORMAT, "denoiser": settings, "card": card})

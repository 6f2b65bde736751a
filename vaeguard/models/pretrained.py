"""The backbone that a name stands for: of a package, of torchvision, or an ONNX file."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError
from vaeguard.models.backbones import LITE0, Lite0, Torchvision

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.models.backbones import Backbone

ONNX = ".onnx"
"""How the name of a network ends that comes from a file."""


def pretrained(features: str, shape: tuple[int, int, int], *, download: bool = False) -> Backbone:
    """The backbone with its weights for images of a shape; `features` is its name, or the path of an ONNX file.

    Raises
    ------
    UsageError, RefusedError, VaeguardError
        As by `backbone` and `Backbone.read_pretrained`, and by `onnx_network.read_network`.
    """
    if features.endswith(ONNX):
        from vaeguard.models.onnx_network import read_network

        return read_network(features, shape[1:])
    network = backbone(features)
    network.read_pretrained(download=download)
    return network


def backbone(name: str, file: Tensor | None = None) -> Backbone:
    """The backbone called `name`, with fresh weights, or from the bytes of its ONNX `file`, uint8 (n,).

    Raises
    ------
    UsageError
        There is no such backbone, or none of its maps is fine enough.
    ValueError
        The file cannot serve, or the name does not go with it.
    """
    if name.endswith(ONNX) != (file is not None):
        raise ValueError(f"the network {name!r} comes {'without its' if file is None else 'with a'} file")
    if file is not None:
        from vaeguard.models.onnx_network import OnnxNetwork

        return OnnxNetwork(name, file.numpy().tobytes())
    if name == LITE0:
        return Lite0()
    import torchvision
    from torchvision.models import list_models

    known = list_models(module=torchvision.models)
    if name not in known:
        close = ", ".join(difflib.get_close_matches(name, [LITE0, *known], 3)) or f"{LITE0}, resnet18"
        raise UsageError(
            f"`features` is {name!r}, which is not a network of torchvision; choose a different one, such as {close}"
        )
    return Torchvision(name)

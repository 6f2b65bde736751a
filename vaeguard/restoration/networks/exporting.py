"""Write a direct denoiser, and the ladder VAE beside it, as one ONNX file for images of any size; read them back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnx.compose import add_prefix
from torch import nn

from vaeguard.engines.onnx_writing import sealed, translated
from vaeguard.engines.sessions import FORMAT, METADATA, Session
from vaeguard.errors import RefusedError
from vaeguard.restoration.networks.direct import GRID, ColourDenoiser, DirectDenoiser
from vaeguard.restoration.networks.estimator import NoiseEstimator
from vaeguard.restoration.networks.ladder import LadderVAE
from vaeguard.settings.restoration import ESTIMATES, STRIDES
from vaeguard.storage.files import read_sealed, write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


SIDES = (64, 72)
"""Of the images that the export is tried with."""
PARITY = 1e-4


def write_denoiser(
    direct: DirectDenoiser | ColourDenoiser,
    path: str | Path,
    kind: str,
    *,
    interval: float,
    card: dict[str, Any],
    ladder: LadderVAE | None = None,
    grain: tuple[float, float] | None = None,
    estimator: NoiseEstimator | None = None,
) -> None:
    """Write an `.onnx` file that `denoise_scans` takes as `model`, once it is found to say what PyTorch says.

    The parameters are those of `denoiser_bytes`.

    Raises
    ------
    RefusedError
        ONNX Runtime and PyTorch differ; nothing is written.
    """
    content = denoiser_bytes(
        direct, kind, interval=interval, card=card, ladder=ladder, grain=grain, estimator=estimator
    )
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, direct.planes, *SIDES, generator=generator)
    noise = 0.2 * torch.rand(1, direct.levels, *(side // 2 for side in SIDES), generator=generator)
    feeds = {"image": image.numpy(), "noise": noise.numpy()}
    with torch.no_grad():
        restored, log_variance = direct(image, noise)
        expected = {"restored": restored, "spread": torch.exp(0.5 * log_variance)}
        if estimator is not None:
            expected |= dict(zip(ESTIMATES, estimator(image), strict=True))
        if ladder is not None:
            generator = torch.Generator().manual_seed(1)
            chance = [torch.randn(shape, generator=generator) for shape in ladder.chance_shapes(1, *SIDES)]
            expected["sample"] = ladder(image, noise, chance).restored
            feeds |= {f"chance_{stride}": each.numpy() for stride, each in zip(STRIDES, chance, strict=True)}
    found = Session(content, str(path), "cpu", 1).run(list(expected), feeds)
    for (name, said), exported in zip(expected.items(), found, strict=True):
        error = float((said - torch.from_numpy(exported)).abs().max())
        if not error <= PARITY:  # nor if it is not a number
            raise RefusedError(f"the exported {name} is {error:.1e} away from PyTorch's; update torch and onnxscript")
    write_bytes(path, content)


class _Direct(nn.Module):
    """The direct denoiser with its expected error as a standard deviation."""

    def __init__(self, net: DirectDenoiser | ColourDenoiser) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        restored, log_variance = self.net(image, noise)
        return restored, torch.exp(0.5 * log_variance)


class _Estimator(nn.Module):
    """The estimator of noise, under a name of its own."""

    def __init__(self, net: NoiseEstimator) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        log_deviation, log_precision = self.net(image)
        return log_deviation, log_precision


class _Sampler(nn.Module):
    """One sample of the ladder VAE, and its rate."""

    def __init__(self, net: LadderVAE) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, noise: Tensor, *chance: Tensor) -> tuple[Tensor, Tensor]:
        found = self.net(image, noise, chance)
        return found.restored, found.rate()


def denoiser_bytes(
    direct: DirectDenoiser | ColourDenoiser,
    kind: str,
    *,
    interval: float,
    card: dict[str, Any],
    ladder: LadderVAE | None = None,
    grain: tuple[float, float] | None = None,
    estimator: NoiseEstimator | None = None,
) -> bytes:
    """The sealed ONNX file of a direct denoiser and, if there are any, its ladder VAE and its estimator of noise.

    Inputs are `image`, float32 (N, planes, H, W) in [0, 1] with H and W multiples of `grid`, and `noise`, its standard
    deviation, (N, 1, H / 2, W / 2), in colour (N, 2, H / 2, W / 2); outputs are `restored`, (N, planes, H, W), and
    `spread`, the expected error of the planes' mean, (N, 1, H, W). With an estimator `log_deviation` and
    `log_precision` say how strong the noise of `image` is, as `NoiseEstimator` does. With a ladder
    VAE the inputs `chance_2`, `chance_4` and `chance_8` are standard normal noise for its latents, s standing for the
    number, (N, C, H / s, W / s); further outputs are `sample`, drawn from the posterior by them, (N, 1, H, W), and `kl`
    in nats, (N,).

    Parameters
    ----------
    direct : DirectDenoiser or ColourDenoiser
        On the CPU.
    kind : str
        What it was trained for: `photo` or `document`.
    interval : float
        So many times `spread` on either side hold nine of ten clean pixels, measured on held-out images.
    card : dict
        Where the weights come from.
    ladder : LadderVAE or None
        Trained on the same images, on the CPU.
    grain : (float, float) or None
        What `grain_of` says of the collection that it was adapted to.
    estimator : NoiseEstimator or None
        Of the noise of images of so many planes, on the CPU.
    """
    grid = STRIDES[-1] if ladder else GRID
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    image, half = torch.zeros(2, direct.planes, *SIDES), (side // 2 for side in SIDES)
    inputs = {"image": image, "noise": torch.zeros(2, direct.levels, *half)}
    dynamic: tuple[Any, ...] = tuple({0: batch, 2: part * height, 3: part * width} for part in (grid, grid // 2))
    settings: dict[str, Any] = {"kind": kind, "halo": direct.halo, "grid": grid, "interval": interval}
    if grain:
        settings["grain"] = list(grain)
    settings["direct"] = {"width": direct.width, "depth": direct.depth}
    settings |= {"planes": direct.planes, "noise_map": True}
    model = _prefixed("direct.", translated(_Direct(direct), inputs, ("restored", "spread"), dynamic))
    if estimator is not None:
        settings["estimator"] = {"planes": estimator.planes}
        estimates = translated(_Estimator(estimator), {"image": image}, ESTIMATES, dynamic[:1])
        part = _prefixed("estimator.", estimates).graph
        model.graph.node.extend(part.node)
        model.graph.initializer.extend(part.initializer)
        model.graph.output.extend(part.output)
    if ladder is not None:
        shapes = ladder.chance_shapes(2, *SIDES)
        inputs |= {f"chance_{stride}": torch.zeros(shape) for stride, shape in zip(STRIDES, shapes, strict=True)}
        finer = [grid // stride for stride in STRIDES]
        dynamic = *dynamic, tuple({0: batch, 2: times * height, 3: times * width} for times in finer)
        settings["ladder"] = {"width": ladder.width, "latent": list(ladder.latent), "halo": ladder.halo}
        sampler = _prefixed("ladder.", translated(_Sampler(ladder), inputs, ("sample", "kl"), dynamic)).graph
        model.graph.node.extend(sampler.node)
        model.graph.initializer.extend(sampler.initializer)
        model.graph.input.extend(sampler.input[2:])
        model.graph.output.extend(sampler.output)
    return sealed(onnx_ir.from_proto(model), {"format": FORMAT, "denoiser": settings, "card": card})


def _prefixed(prefix: str, model: Any) -> onnx.ModelProto:
    """`model` with a prefix to all names inside, so that another can stand beside it."""
    proto = onnx_ir.to_proto(model)
    return add_prefix(proto, prefix, rename_inputs=False, rename_outputs=False)


def read_networks(path: str | Path) -> tuple[DirectDenoiser, LadderVAE | None]:
    """The direct denoiser, which is grey, and the ladder VAE, if there is one, of a file of `write_denoiser`.

    Raises
    ------
    UsageError
        There is no such file.
    RefusedError
        It is damaged, or no denoiser.
    """
    model, record = _opened(path)
    settings = record["denoiser"]
    direct = DirectDenoiser(**settings["direct"])
    ladder = LadderVAE(settings["ladder"]["width"], settings["ladder"]["latent"]) if "ladder" in settings else None
    _fill(direct, "direct.net" if settings.get("planes", 1) == 1 else "direct.net.grey", model, path)
    if ladder:
        _fill(ladder, "ladder.net", model, path)
    return direct, ladder


def read_estimator(path: str | Path) -> NoiseEstimator | None:
    """The estimator of noise of a file of `write_denoiser`, if it holds one.

    Raises
    ------
    UsageError
        There is no such file.
    RefusedError
        It is damaged, or no denoiser.
    """
    model, record = _opened(path)
    if "estimator" not in record["denoiser"]:
        return None
    estimator = NoiseEstimator(**record["denoiser"]["estimator"])
    _fill(estimator, "estimator.net", model, path)
    return estimator


def _opened(path: str | Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The graph of a denoiser's file, and its record."""
    model = onnx.load_from_string(read_sealed(path))
    record = json.loads(next(entry.value for entry in model.metadata_props if entry.key == METADATA))
    if "denoiser" not in record:
        raise RefusedError(f"{str(path)!r} finds anomalies, and is no denoiser; give a denoiser")
    return model, record


def _fill(net: nn.Module, name: str, model: onnx.ModelProto, path: str | Path) -> None:
    """Give `net` the weights that the file has below `name`."""
    weights = {entry.name: entry for entry in model.graph.initializer}
    for part, parameter in net.state_dict().items():
        entry = weights.get(f"{name}.{part}")
        if entry is None:  # the exporter keeps one of several that are equal
            raise RefusedError(f"{str(path)!r} has no weights {name}.{part}; train from scratch")
        parameter.copy_(torch.from_numpy(numpy_helper.to_array(entry).copy()))

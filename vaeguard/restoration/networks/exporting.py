"""Writing and reading the networks of a denoiser as one ONNX file for images of any size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnx.compose import add_prefix
from torch import nn

from vaeguard.engines.onnx_writing import publish, sealed, translated
from vaeguard.engines.parity import TOLERANCE, Parity, session_errors
from vaeguard.engines.sessions import FORMAT, METADATA
from vaeguard.errors import RefusedError
from vaeguard.restoration.denoiser import DIRECT_OUTPUTS, SAMPLES, latent_input
from vaeguard.restoration.denoiser_record import (
    DenoiserRecord,
    DirectRecord,
    EstimatorRecord,
    LadderRecord,
    read_denoiser_record,
)
from vaeguard.restoration.networks.direct import GRID, ColourDenoiser, DirectDenoiser
from vaeguard.restoration.networks.estimator import NoiseEstimator
from vaeguard.restoration.networks.ladder import LadderVAE
from vaeguard.settings.restoration import ESTIMATES, STRIDES
from vaeguard.storage.files import read_sealed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Floats = npt.NDArray[np.float32]

SIDES = (64, 72)
"""The height and width of the images with which an export is tested."""


@dataclass(frozen=True, kw_only=True)
class DenoiserNetworks:
    """The networks of a denoiser, on the CPU, and the facts about them in the file.

    Attributes
    ----------
    direct : DirectDenoiser or ColourDenoiser
        The direct denoiser.
    kind : str
        The kind of page that the networks were trained for: `photo`, `colour` or `document`.
    interval : float
        The factor from `spread` to half of an interval with nine of ten clean pixels, measured on held-out images.
    card : dict
        The origin of the weights.
    ladder : LadderVAE or None
        A ladder VAE, trained on the same images.
    grain : (float, float) or None
        The result of `grain_of` for the collection that the networks were adapted to.
    estimator : NoiseEstimator or None
        An estimator of noise for as many planes as the direct denoiser has.
    """

    direct: DirectDenoiser | ColourDenoiser
    kind: str
    interval: float
    card: dict[str, Any]
    ladder: LadderVAE | None = None
    grain: tuple[float, float] | None = None
    estimator: NoiseEstimator | None = None

    @property
    def grid(self) -> int:
        """Height and width are multiples of this."""
        return STRIDES[-1] if self.ladder else GRID

    @property
    def record(self) -> DenoiserRecord:
        """The record of the networks in the file."""
        direct, ladder, estimator = self.direct, self.ladder, self.estimator
        return DenoiserRecord(
            kind=self.kind,
            halo=direct.halo,
            grid=self.grid,
            interval=self.interval,
            direct=DirectRecord(direct.width, direct.depth),
            card=self.card,
            planes=direct.planes,
            noise_map=True,
            grain=self.grain,
            estimator=EstimatorRecord(estimator.planes) if estimator else None,
            ladder=LadderRecord(ladder.width, ladder.latent, ladder.halo) if ladder else None,
        )


def write_denoiser(networks: DenoiserNetworks, path: str | Path) -> Parity:
    """Write an `.onnx` file that `denoise_scans` takes as `model`, after comparing its outputs with PyTorch.

    Raises
    ------
    RefusedError
        ONNX Runtime and PyTorch differ; nothing is written.
    """
    target, feeds = Path(path), _random_feeds(networks)
    expected = _outputs_of_torch(networks, feeds)

    def compare(written: Mapping[Path, bytes]) -> Parity:
        errors = session_errors(written[target], {name: values.numpy() for name, values in feeds.items()}, expected)
        parity = Parity(1, 1, TOLERANCE["cpu"], {}).plus(errors)
        parity.check(str(target), "update torch and onnxscript")
        return parity

    return publish({target: denoiser_bytes(networks)}, compare)


def _random_feeds(networks: DenoiserNetworks) -> dict[str, Tensor]:
    """One random image with the other inputs of the file."""
    direct, ladder = networks.direct, networks.ladder
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, direct.planes, *SIDES, generator=generator)
    noise = 0.2 * torch.rand(1, direct.levels, *(side // 2 for side in SIDES), generator=generator)
    shapes = zip(STRIDES, ladder.latent_shapes(1, *SIDES), strict=True) if ladder else ()
    latent_noise = {latent_input(stride): torch.randn(shape, generator=generator) for stride, shape in shapes}
    return {"image": image, "noise": noise, **latent_noise}


@torch.no_grad()
def _outputs_of_torch(networks: DenoiserNetworks, feeds: Mapping[str, Tensor]) -> dict[str, Floats]:
    """The expected outputs of the file, by name."""
    image, noise, *latent_noise = feeds.values()
    outputs = dict(zip(DIRECT_OUTPUTS, _Direct(networks.direct)(image, noise), strict=True))
    if networks.estimator:
        outputs |= zip(ESTIMATES, networks.estimator(image), strict=True)
    if networks.ladder:
        # The rate is left out: it sums terms that nearly cancel after little training, and no page depends on it.
        outputs[SAMPLES[0]] = _Sampler(networks.ladder)(image, noise, *latent_noise)[0]
    return {name: values.numpy() for name, values in outputs.items()}


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

    # The names of the parameters are those of the inputs in the file, and determine the order of its nodes.
    def forward(self, image: Tensor, noise: Tensor, *chance: Tensor) -> tuple[Tensor, Tensor]:
        output = self.net(image, noise, chance)
        return output.restored, output.rate()


def denoiser_bytes(networks: DenoiserNetworks) -> bytes:
    """The sealed ONNX file of a direct denoiser and, if there are any, its ladder VAE and its estimator of noise.

    Inputs are `image`, float32 (N, planes, H, W) in [0, 1] with H and W multiples of `grid`, and the standard deviation
    `noise` of its noise, (N, 1, H / 2, W / 2), in colour (N, 2, H / 2, W / 2). Outputs are `restored`,
    (N, planes, H, W), and `spread`, the expected error of the mean of the planes, (N, 1, H, W).

    With an estimator, further outputs are `log_deviation` and `log_precision`, those of `NoiseEstimator`. With a ladder
    VAE, further inputs are `chance_2`, `chance_4` and `chance_8`, standard normal noise for its latents,
    (N, C, H / s, W / s) for the number s in the name; further outputs are `sample`, a sample of the posterior from this
    noise, (N, 1, H, W), and `kl` in nats, (N,).
    """
    direct, grid = networks.direct, networks.grid
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    inputs = {"image": torch.zeros(2, direct.planes, *SIDES)}
    inputs |= {"noise": torch.zeros(2, direct.levels, *(side // 2 for side in SIDES))}
    dynamic: tuple[Any, ...] = tuple({0: batch, 2: part * height, 3: part * width} for part in (grid, grid // 2))
    model = _prefixed("direct.", translated(_Direct(direct), inputs, DIRECT_OUTPUTS, dynamic))
    if networks.estimator:
        image = {"image": inputs["image"]}
        _add(model, "estimator.", translated(_Estimator(networks.estimator), image, ESTIMATES, dynamic[:1]))
    if networks.ladder:
        shapes = networks.ladder.latent_shapes(2, *SIDES)
        inputs |= {latent_input(stride): torch.zeros(shape) for stride, shape in zip(STRIDES, shapes, strict=True)}
        finer = [grid // stride for stride in STRIDES]
        dynamic = *dynamic, tuple({0: batch, 2: times * height, 3: times * width} for times in finer)
        _add(model, "ladder.", translated(_Sampler(networks.ladder), inputs, SAMPLES, dynamic))
    record = {"format": FORMAT, **networks.record.to_dict()}
    return sealed(onnx_ir.from_proto(model), record)


def _add(model: onnx.ModelProto, prefix: str, addition: Any) -> None:
    """Add another model to `model`; the two share inputs of the same name."""
    graph = _prefixed(prefix, addition).graph
    known = {value.name for value in model.graph.input}
    model.graph.node.extend(graph.node)
    model.graph.initializer.extend(graph.initializer)
    model.graph.input.extend(value for value in graph.input if value.name not in known)
    model.graph.output.extend(graph.output)


def _prefixed(prefix: str, model: Any) -> onnx.ModelProto:
    """`model` with a prefix to all inner names, so that it can be joined with another model."""
    proto = onnx_ir.to_proto(model)
    return add_prefix(proto, prefix, rename_inputs=False, rename_outputs=False)


def read_networks(path: str | Path) -> tuple[DirectDenoiser, LadderVAE | None]:
    """The grey direct denoiser and the ladder VAE, if there is one, in a file of `write_denoiser`.

    Raises
    ------
    UsageError
        There is no such file.
    RefusedError
        The file is damaged, or not a denoiser.
    """
    model, record = _opened(path)
    direct = DirectDenoiser(record.direct.width, record.direct.depth)
    ladder = LadderVAE(record.ladder.width, record.ladder.latent) if record.ladder else None
    _fill(direct, "direct.net" if record.planes == 1 else "direct.net.grey", model, path)
    if ladder:
        _fill(ladder, "ladder.net", model, path)
    return direct, ladder


def read_estimator(path: str | Path) -> NoiseEstimator | None:
    """The estimator of noise in a file of `write_denoiser`, if there is one.

    Raises
    ------
    UsageError
        There is no such file.
    RefusedError
        The file is damaged, or not a denoiser.
    """
    model, record = _opened(path)
    if record.estimator is None:
        return None
    estimator = NoiseEstimator(record.estimator.planes)
    _fill(estimator, "estimator.net", model, path)
    return estimator


def _opened(path: str | Path) -> tuple[onnx.ModelProto, DenoiserRecord]:
    """The graph of a denoiser's file, and its record."""
    model = onnx.load_from_string(read_sealed(path))
    record = json.loads(next(entry.value for entry in model.metadata_props if entry.key == METADATA))
    return model, read_denoiser_record(record, str(path))


def _fill(net: nn.Module, name: str, model: onnx.ModelProto, path: str | Path) -> None:
    """Set the weights of `net` to those in the file whose names begin with `name`."""
    weights = {entry.name: entry for entry in model.graph.initializer}
    for part, parameter in net.state_dict().items():
        entry = weights.get(f"{name}.{part}")
        if entry is None:  # the exporter keeps only one of several equal weights
            raise RefusedError(f"{str(path)!r} lacks the weights {name}.{part}; train from scratch")
        parameter.copy_(torch.from_numpy(numpy_helper.to_array(entry).copy()))

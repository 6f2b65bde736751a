"""A denoiser as one ONNX file for images of any size: its networks are written to it, and read from it."""

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
"""Of the images that the export is tried with."""


@dataclass(frozen=True, kw_only=True)
class DenoiserNetworks:
    """The networks of a denoiser, on the CPU, and what its file says of them.

    Attributes
    ----------
    direct : DirectDenoiser or ColourDenoiser
        One pass from a noisy image to a clean one.
    kind : str
        What it was trained for: `photo`, `colour` or `document`.
    interval : float
        So many times `spread` on either side hold nine of ten clean pixels, measured on held-out images.
    card : dict
        Where the weights come from.
    ladder : LadderVAE or None
        Trained on the same images.
    grain : (float, float) or None
        What `grain_of` says of the collection that it was adapted to.
    estimator : NoiseEstimator or None
        Of the noise of images of so many planes.
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

    def settings(self) -> dict[str, Any]:
        """What the file says of its networks."""
        direct = self.direct
        settings: dict[str, Any] = {
            "kind": self.kind,
            "halo": direct.halo,
            "grid": self.grid,
            "interval": self.interval,
            **({"grain": list(self.grain)} if self.grain else {}),
            "direct": {"width": direct.width, "depth": direct.depth},
            "planes": direct.planes,
            "noise_map": True,
        }
        if self.estimator:
            settings["estimator"] = {"planes": self.estimator.planes}
        if self.ladder:
            ladder = self.ladder
            settings["ladder"] = {"width": ladder.width, "latent": list(ladder.latent), "halo": ladder.halo}
        return settings


def write_denoiser(networks: DenoiserNetworks, path: str | Path) -> Parity:
    """Write an `.onnx` file that `denoise_scans` takes as `model`, once it repeats what PyTorch says.

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
    """One random image with all that the file takes beside it."""
    direct, ladder = networks.direct, networks.ladder
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, direct.planes, *SIDES, generator=generator)
    noise = 0.2 * torch.rand(1, direct.levels, *(side // 2 for side in SIDES), generator=generator)
    shapes = zip(STRIDES, ladder.latent_shapes(1, *SIDES), strict=True) if ladder else ()
    latent_noise = {latent_input(stride): torch.randn(shape, generator=generator) for stride, shape in shapes}
    return {"image": image, "noise": noise, **latent_noise}


@torch.no_grad()
def _outputs_of_torch(networks: DenoiserNetworks, feeds: Mapping[str, Tensor]) -> dict[str, Floats]:
    """What the file is to repeat, by the names of its outputs."""
    image, noise, *latent_noise = feeds.values()
    outputs = dict(zip(DIRECT_OUTPUTS, _Direct(networks.direct)(image, noise), strict=True))
    if networks.estimator:
        outputs |= zip(ESTIMATES, networks.estimator(image), strict=True)
    if networks.ladder:
        outputs |= zip(SAMPLES, _Sampler(networks.ladder)(image, noise, *latent_noise), strict=True)
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

    # The order of the nodes in the file depends on the names here, which are those of its inputs.
    def forward(self, image: Tensor, noise: Tensor, *chance: Tensor) -> tuple[Tensor, Tensor]:
        output = self.net(image, noise, chance)
        return output.restored, output.rate()


def denoiser_bytes(networks: DenoiserNetworks) -> bytes:
    """The sealed ONNX file of a direct denoiser and, if there are any, its ladder VAE and its estimator of noise.

    Inputs are `image`, float32 (N, planes, H, W) in [0, 1] with H and W multiples of `grid`, and `noise`, its standard
    deviation, (N, 1, H / 2, W / 2), in colour (N, 2, H / 2, W / 2); outputs are `restored`, (N, planes, H, W), and
    `spread`, the expected error of the planes' mean, (N, 1, H, W). With an estimator `log_deviation` and
    `log_precision` say how strong the noise of `image` is, as `NoiseEstimator` does. With a ladder
    VAE the inputs `chance_2`, `chance_4` and `chance_8` are standard normal noise for its latents, s standing for the
    number, (N, C, H / s, W / s); further outputs are `sample`, drawn from the posterior by them, (N, 1, H, W), and `kl`
    in nats, (N,).
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
    record = {"format": FORMAT, "denoiser": networks.settings(), "card": networks.card}
    return sealed(onnx_ir.from_proto(model), record)


def _add(model: onnx.ModelProto, prefix: str, addition: Any) -> None:
    """Put another model beside `model`, over the same inputs and its own."""
    graph = _prefixed(prefix, addition).graph
    known = {value.name for value in model.graph.input}
    model.graph.node.extend(graph.node)
    model.graph.initializer.extend(graph.initializer)
    model.graph.input.extend(value for value in graph.input if value.name not in known)
    model.graph.output.extend(graph.output)


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

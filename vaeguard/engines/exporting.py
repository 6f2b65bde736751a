"""`export`: the whole inference graph as one ONNX file, written only if it agrees with PyTorch."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from vaeguard.engines.exported_parts import part_bytes, part_errors, part_paths
from vaeguard.engines.generation import check_whole
from vaeguard.engines.onnx_detector import FIRST, IMAGE, OnnxDetector, output_names
from vaeguard.engines.onnx_writing import OPSET, publish, sealed, translated
from vaeguard.engines.record import OnnxRecord
from vaeguard.engines.sessions import FORMAT, Session
from vaeguard.engines.verifying import answers_of, of_torch, verify
from vaeguard.errors import UsageError
from vaeguard.settings.evaluation import DEFAULT_FPR, check_fpr
from vaeguard.storage.files import SEAL_MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import Images
    from vaeguard.engines.parity import Parity
    from vaeguard.engines.record import ModelRecord
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.models.graph import InferenceGraph

RATE = "fpr"
"""Name of the optional input: the false-alarm rate."""


def export(
    detector: Detector,
    path: str | Path,
    *,
    images: Images | None = None,
    pixels: Literal["uint8", "float32"] = "uint8",
    fpr: float = DEFAULT_FPR,
    fp16: bool = False,
    tolerance: float | None = None,
    parts: bool = False,
) -> Parity:
    """Write `detector` as an ONNX file, which is kept only if it agrees with PyTorch.

    The input is `image`, shape (N, C, H, W) with any N; the outputs are `score`, `p_value`, `anomaly`, the terms,
    `restored` and `heatmap`. The optional input `fpr` is the false-alarm rate for `anomaly`. The input and outputs of a
    model with tiles are those of one tile; if the model has a region, the input `first`, int64 (N, 2), holds the first
    row and column of each tile in its image.

    Parameters
    ----------
    detector : Detector
        A fitted model on the CPU, not an exported file.
    path : path
        The file, ending in `.onnx`; it appears whole or not at all.
    images : ndarray, optional
        Images on which the engines are compared, as `Detector.inspect` takes them, preferably the calibration images;
        images of noise are always added.
    pixels : str
        Type of the input: uint8 in 0..255, or float32 in [0, 1]. Vectors are float32.
    fpr : float
        The default of the input `fpr`, in (0, 1).
    fp16 : bool
        Compute the VAE in float16, for GPUs; terms and calibration stay in float32.
    tolerance : float or None
        The largest relative error allowed; None takes 1e-4, or 2e-2 with `fp16`.
    parts : bool
        Also write `model-encoder.onnx` (`image` to `mean` and `logvar` of the posterior, each float32 (N, L); an
        autoencoder has no `logvar`) and `model-decoder.onnx` (`latent`, float32 (N, L), to `restored`) beside
        `model.onnx`. No file appears unless all three agree with PyTorch. Only `model.onnx` is checked for giving the
        same bits in any batch.

    Returns
    -------
    Parity
        The result of the comparison.

    Raises
    ------
    UsageError
        A parameter cannot work, `parts` is set for a model of patches, or a file that is no model of vaeguard would be
        replaced.
    RefusedError
        The file does not agree with PyTorch; nothing is written.
    VaeguardError
        The model cannot be expressed in ONNX, or the file cannot be written.
    """
    check_fpr(fpr)
    detector = of_torch(detector)
    if pixels not in ("uint8", "float32"):
        raise UsageError(f"`pixels` is {pixels!r}; it must be 'uint8' or 'float32'")
    path = Path(path)
    targets = part_paths(path) if parts else {}
    _check_targets(path, *targets.values())
    if targets:
        check_whole(detector.graph)
    graph = _in_half(detector.graph) if fp16 else detector.graph
    settings: dict[str, Any] = {
        "pixels": pixels if detector.info.view.pictures else "float32",
        "fp16": fp16,
        "fpr": fpr,
        "opset": OPSET,
        **answers_of(detector),
    }
    files = {path: onnx_bytes(graph, detector, settings)}
    files |= {target: part_bytes(part, graph, _record(detector, settings)) for part, target in targets.items()}

    def compare_files(written: Mapping[Path, bytes]) -> Parity:
        parity = verify(OnnxDetector(Session(written[path], str(path), "cpu")), detector, images, tolerance)
        for part, target in targets.items():
            parity = parity.plus(part_errors(part, written[target], detector, images, settings["pixels"]))
        parity.check(str(path))
        return parity

    return publish(files, compare_files)


def _check_targets(*paths: Path) -> None:
    """Refuse to replace a file that is no model, and a name without the suffix of exported models."""
    if paths[0].suffix != ".onnx":
        raise UsageError(f"{str(paths[0])!r} does not end in .onnx, as an exported model must; add this suffix")
    for path in paths:
        if path.is_dir() or (path.exists() and path.stat().st_size and SEAL_MARK not in path.read_bytes()):
            raise UsageError(
                f"{str(path)!r} is not a model that vaeguard wrote, and would be overwritten; choose a different path"
            )


def onnx_bytes(graph: InferenceGraph, detector: TorchDetector, settings: dict[str, Any]) -> bytes:
    """The sealed ONNX file of `graph`, that of `detector` or its copy in float16: weights, calibration and record.

    Raises
    ------
    VaeguardError
        The model cannot be expressed in ONNX.
    """
    import onnx_ir

    model = _translated(graph, detector, settings["pixels"])
    rate = model.graph.inputs[1]
    # ONNX makes an input optional if an initializer has its name.
    rate.const_value = onnx_ir.tensor(np.float32(settings["fpr"]), name=RATE)
    model.graph.initializers[RATE] = rate
    return sealed(model, _record(detector, settings).to_dict())


def _record(detector: TorchDetector, settings: dict[str, Any]) -> ModelRecord:
    return replace(detector.info.record, format=FORMAT, terms=detector.info.term_names, onnx=OnnxRecord(**settings))


class _Exported(nn.Module):
    """The graph, with the decision at a false-alarm rate as a further output."""

    def __init__(self, graph: InferenceGraph) -> None:
        super().__init__()
        self.inference = graph

    def forward(self, image: Tensor, fpr: Tensor, first: Tensor | None = None) -> dict[str, Tensor]:
        results: dict[str, Tensor] = self.inference(image, first)
        score, p_value = results.pop("score"), results.pop("p_value")
        return {"score": score, "p_value": p_value, "anomaly": p_value <= fpr, **results}


def _translated(graph: InferenceGraph, detector: TorchDetector, pixels: str) -> Any:
    """The graph as an `onnx_ir.Model`, for any number of images."""
    example = torch.zeros(2, *detector.info.graph_shape, dtype=getattr(torch, pixels))
    inputs, batch = {IMAGE: example, RATE: torch.tensor(0.05)}, {0: torch.export.Dim("batch")}
    dynamic: tuple[dict[int, Any], ...] = (batch, {})
    if detector.info.takes_first:
        inputs, dynamic = inputs | {FIRST: torch.zeros(2, 2, dtype=torch.int64)}, (batch, {}, batch)
    return translated(_Exported(graph), inputs, output_names(detector.info), dynamic)


class _Half(nn.Module):
    """A part of the network in float16, between float32 values."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part.half()

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.part(values.half()).float()
        return result


def _in_half(graph: InferenceGraph) -> InferenceGraph:
    graph = copy.deepcopy(graph)
    vae = graph.vae
    vae.stages = nn.ModuleList(_Half(stage) for stage in vae.stages)
    for name in ("decoder", "posterior_mean", "posterior_logvar", "class_head", "pseudo_head"):
        part = getattr(vae, name)
        if part is not None:
            setattr(vae, name, _Half(part))
    return graph

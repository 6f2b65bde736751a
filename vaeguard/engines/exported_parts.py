"""The encoder and the decoder of a model as separate ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from vaeguard.engines.detector import as_images
from vaeguard.engines.generation import decode, encode, sample_latents
from vaeguard.engines.onnx_detector import IMAGE, as_pixels
from vaeguard.engines.onnx_writing import sealed, translated
from vaeguard.engines.parity import BATCHES, RANDOM_IMAGES, session_errors, with_noise

if TYPE_CHECKING:
    from torch import Tensor

    from vaeguard.engines.inspection import Floats, Images
    from vaeguard.engines.record import ModelRecord
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.models.graph import InferenceGraph

PARTS = ("encoder", "decoder")
LATENT = "latent"


def part_paths(path: str | Path) -> dict[str, Path]:
    """Paths of the parts of the model exported to `path`, by name: `model-encoder.onnx` beside `model.onnx`."""
    path = Path(path)
    return {part: path.with_name(f"{path.stem}-{part}{path.suffix}") for part in PARTS}


def part_bytes(part: str, graph: InferenceGraph, record: ModelRecord) -> bytes:
    """The sealed ONNX file of one of the `PARTS` of `graph`; `record` is that of the whole model.

    Raises
    ------
    VaeguardError
        The part cannot be expressed in ONNX.
    """
    spec = graph.vae.spec
    assert record.onnx is not None
    batch: tuple[dict[int, Any]] = ({0: torch.export.Dim("batch")},)
    if part == "encoder":
        image = torch.zeros(2, *spec.with_region(spec.shape), dtype=getattr(torch, record.onnx.pixels))
        names = ("mean",) if spec.autoencoder else ("mean", "logvar")
        model = translated(_Encoder(graph), {IMAGE: image}, names, batch)
    else:
        model = translated(_Decoder(graph), {LATENT: torch.zeros(2, spec.latent_size)}, ("restored",), batch)
    return sealed(model, {**record.to_dict(), "part": part})


class _Encoder(nn.Module):
    def __init__(self, graph: InferenceGraph) -> None:
        super().__init__()
        self.inference = graph

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        mean, logvar = self.inference.encode(image)
        return (mean,) if logvar is None else (mean, logvar)


class _Decoder(nn.Module):
    def __init__(self, graph: InferenceGraph) -> None:
        super().__init__()
        self.inference = graph

    def forward(self, latent: Tensor) -> Tensor:
        return self.inference.decode(latent)


def part_errors(
    part: str, content: bytes, detector: TorchDetector, images: Images | None, pixels: str
) -> dict[str, float]:
    """Largest relative error of each output of a part against `generation.encode` and `decode`.

    The encoder is compared on `images`, if any, and on noise; the decoder on their latents and on samples of the
    prior. Both run in batches of 1, 7, 64 and 256.

    Parameters
    ----------
    part : str
        One of `PARTS`.
    content : bytes
        Content of the file, as `part_bytes` returns it.
    detector : TorchDetector
        The model, on the CPU.
    images : ndarray or None
        (N, C, H, W), as the model takes them.
    pixels : str
        Type of the encoder's input.
    """
    examples = as_images(with_noise(images, detector.info)[0], detector.info)
    encoding = encode(detector.graph, examples)
    expected = {"mean": encoding.mean} | ({} if encoding.logvar is None else {"logvar": encoding.logvar})
    feeds = {IMAGE: as_pixels(examples, np.dtype(pixels))}
    if part == "decoder":
        latents = _latents(detector.graph, encoding.mean)
        feeds, expected = {LATENT: latents}, {"restored": decode(detector.graph, latents)}
    # A batch is no larger than a block of the model, since the activations of large images take much memory.
    sizes = [min(size, detector.block) for size in BATCHES]
    errors = session_errors(content, feeds, expected, sizes)
    return {f"{part} {output}": error for output, error in errors.items()}


def _latents(graph: InferenceGraph, means: Floats) -> Floats:
    """`means`, and samples of the prior if the model has one."""
    return means if graph.vae.spec.autoencoder else np.concatenate([means, sample_latents(graph, RANDOM_IMAGES)])

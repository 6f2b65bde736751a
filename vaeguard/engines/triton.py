"""A model repository for NVIDIA Triton Inference Server around an exported model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.engines.onnx_detector import FIRST, IMAGE, OnnxDetector, output_names
from vaeguard.engines.sessions import Session
from vaeguard.errors import UsageError
from vaeguard.storage.files import read_sealed, write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "vaeguard"
QUEUE_MICROSECONDS = 500
"""The longest time that a request waits for others to join its batch."""
TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def write_triton(model: str | Path, folder: str | Path) -> Path:
    """Write a model repository that serves the exported `model`: `<folder>/vaeguard/1/model.onnx` and `config.pbtxt`.

    The server collects requests into batches, and warms the model up before the first request. The false-alarm rate is
    that of the export.

    Returns
    -------
    Path
        The folder of the model in the repository.

    Raises
    ------
    RefusedError
        `model` is damaged or no exported model.
    UsageError
        The repository holds a model `vaeguard` already.
    VaeguardError
        The folder cannot be written.
    """
    content = read_sealed(model)
    detector = OnnxDetector(Session(content, str(model), "cpu", threads=1))
    home = Path(folder) / NAME
    if home.exists():
        raise UsageError(f"{str(home)!r} already exists; choose a different folder, or delete this one")
    write_bytes(home / "1" / "model.onnx", content)
    write_text(home / "config.pbtxt", _config(detector))
    return home


def _config(detector: OnnxDetector) -> str:
    """The text of `config.pbtxt`, in protobuf's text format (Triton's `model_config.proto`)."""
    shape = detector.info.graph_shape
    onnx = detector.info.record.onnx
    assert onnx is not None
    kind = TYPES[onnx.pixels]
    pictures = {"restored": shape, "heatmap": shape[1:]}
    outputs = ",\n".join(
        _output(name, "TYPE_BOOL" if name == "anomaly" else "TYPE_FP32", pictures.get(name))
        for name in output_names(detector.info)
    )
    # The block is smaller for large images, and 1 for a model of patches, whose patches of one image fill a batch.
    most = detector.block
    inputs = {IMAGE: (kind, shape)} | ({FIRST: ("TYPE_INT64", (2,))} if detector.info.takes_first else {})
    taken = ",\n".join(
        f'  {{ name: "{name}" data_type: {of} dims: [ {_dims(dims)} ] }}' for name, (of, dims) in inputs.items()
    )
    warm_up = "\n".join(_warm_up(size, inputs) for size in (1, most)[: 1 + (most > 1)])
    return f"""\
name: "{NAME}"
backend: "onnxruntime"
max_batch_size: {most}
input [
{taken}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_MICROSECONDS} }}
{warm_up}
"""


def _output(name: str, kind: str, shape: tuple[int, ...] | None) -> str:
    # Triton needs a dimension besides the batch; the reshape removes it from outputs of one number per image.
    dims = f"dims: [ {_dims(shape)} ]" if shape else "dims: [ 1 ] reshape: { shape: [ ] }"
    return f'  {{ name: "{name}" data_type: {kind} {dims} }}'


def _warm_up(size: int, inputs: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    values = " ".join(
        f'inputs {{ key: "{name}" value: {{ data_type: {kind} dims: [ {_dims(shape)} ] zero_data: true }} }}'
        for name, (kind, shape) in inputs.items()
    )
    return f'model_warmup [ {{ name: "batch of {size}" batch_size: {size} {values} }} ]'


def _dims(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))

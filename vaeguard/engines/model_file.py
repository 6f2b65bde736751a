"""Model files: one sealed `model.safetensors` with weights, calibration and the JSON record; no pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.engines.record import parse_record, read_record
from vaeguard.engines.run_folder import CHECKPOINT_NAME, MODEL_NAME, fitted_on, local_model
from vaeguard.errors import RefusedError, UsageError
from vaeguard.storage.files import UNSEALED, read_sealed, seal, write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import DetectorInfo
    from vaeguard.engines.record import ModelRecord
    from vaeguard.engines.torch_detector import TorchDetector
    from vaeguard.models.graph import InferenceGraph

FORMAT = 6
NETWORK = "places.backbone.file"
"""The bytes of a network that came from an ONNX file."""
LONGEST_HEADER = 100_000_000
"""The most bytes of a header, the limit of the format."""


def save(detector: TorchDetector, path: str | Path) -> Path:
    """Write `detector` to a file ending in `.safetensors`, or as `model.safetensors` into the folder `path`.

    Returns the path of the file, which appears whole or not at all.
    """
    path = Path(path)
    target = path if path.suffix == ".safetensors" else path / MODEL_NAME
    write_tensors(target, detector.graph.state_dict(), detector.info.record.to_dict())
    return target


def load(path: str | Path, device: str = "auto", threads: int | None = None) -> Detector:
    """Read a detector from a run folder, its `model.safetensors`, or an exported `.onnx` file, which needs no torch.

    Parameters
    ----------
    path : path
        Path or URL of the run folder or file.
    device : str
        `auto`, `cpu` or `cuda`; for an `.onnx` file also `tensorrt`.
    threads : int or None
        Threads of one inspection by an `.onnx` file on the CPU; None takes all cores. With 1, `score_files` inspects
        one batch on each core, which is faster.

    Raises
    ------
    RefusedError
        The model is damaged, has a different format, or is not a model of vaeguard.
    UsageError
        There is no model, or `device` cannot be used.
    """
    with local_model(path) as copy:
        return _load(copy, device, threads)


def _load(path: Path, device: str, threads: int | None) -> Detector:
    if path.suffix == ".onnx":
        from vaeguard.engines.onnx_detector import read_onnx

        detector = read_onnx(path, device, threads)
        beside = path.with_name(MODEL_NAME)
        # A file beside the model of the same data lies in the run that it came from.
        if _record_of(beside).get("data") == asdict(detector.info.record.data):
            detector.info = _with_images(detector.info, beside)
        return detector
    return read_model(path, device)


def read_model(path: str | Path, device: str = "auto") -> TorchDetector:
    """Read the detector that PyTorch runs; see `load`."""
    from vaeguard.devices import pick_device
    from vaeguard.engines.torch_detector import TorchDetector

    target = find_model(path)
    tensors, values = read_tensors(target)
    record = read_record(values, str(target))
    _check_tensors(tensors, record, str(target))
    graph = _graph_of(tensors, record)
    graph.load_state_dict(tensors)
    detector = TorchDetector(graph, record, pick_device(device))
    detector.info = _with_images(detector.info, target)
    return detector


def _with_images(info: DetectorInfo, model: Path) -> DetectorInfo:
    """`info` with what the run folder of a model file knows of the images fitted on."""
    known = fitted_on(model)
    table, digests = known.get("out_of_fold"), known.get("fitted_on")
    if digests is None or (table is not None and table.shape != (len(digests), 2 + len(info.term_names))):
        table = None
    return replace(info, fitted_on=digests, out_of_fold=table)


def _graph_of(tensors: Mapping[str, Tensor], record: ModelRecord) -> InferenceGraph:
    """The graph of a model, without its weights."""
    from vaeguard.models.graph import InferenceGraph
    from vaeguard.models.pretrained import backbone
    from vaeguard.models.vae import VAE

    centres = len(tensors["reference.latents.centres"]) if record.model.view.whole else 1
    network = None
    if record.backbone:
        network = backbone(record.backbone.name, tensors.get(NETWORK))
        if network.channels != record.backbone.channels:
            raise ValueError(f"the feature maps of {network.name!r} have {network.channels} channels")
        if network.sha256 not in ("", record.backbone.sha256):
            raise ValueError(f"{network.name!r} is not the network that the model was fitted with")
        network.sha256 = record.backbone.sha256
    return InferenceGraph(VAE(record.model), record.calibration.images, centres, network)


def _check_tensors(tensors: Mapping[str, Tensor], record: ModelRecord, name: str) -> None:
    """Refuse tensors that are not those of the graph in the record, before any memory is taken for the graph.

    Raises
    ------
    RefusedError
        The record describes no graph, or a tensor is missing, of another shape or type, or not finite.
    """
    import torch

    try:
        with torch.device("meta"):  # shapes without values
            expected = _graph_of(tensors, record).state_dict()
        for key in sorted(expected.keys() | tensors.keys()):
            _check_tensor(key, tensors.get(key), expected.get(key))
    except Exception as error:  # a graph of impossible settings fails in many ways
        reason = str(error).partition("\n")[0]
        raise RefusedError(
            f"the model file {name!r} does not work with this version of vaeguard ({reason:.200}); fit the model again"
        ) from error


def _check_tensor(name: str, tensor: Tensor | None, like: Tensor | None) -> None:
    import torch

    if tensor is None or like is None:
        raise ValueError(f"the tensor {name} is {'missing' if tensor is None else 'unknown'}")
    # The caller may compute in float64, but files hold float32.
    dtype = torch.float32 if like.is_floating_point() else like.dtype
    if tensor.shape != like.shape or tensor.dtype != dtype:
        raise ValueError(
            f"the tensor {name} is {tensor.dtype} {tuple(tensor.shape)} instead of {dtype} {tuple(like.shape)}"
        )
    # Unused knots of a tail are infinite.
    if tensor.isnan().any() or (not name.endswith(".knots") and tensor.isinf().any()):
        raise ValueError(f"the tensor {name} contains values that are not finite")


def find_model(path: str | Path) -> Path:
    """The model file at `path`: the path itself, or `model.safetensors` in a run folder.

    Raises
    ------
    UsageError
        There is no model.
    RefusedError
        The name is not that of a model file.
    """
    path = Path(path)
    target = path / MODEL_NAME if path.is_dir() else path
    if not target.is_file():
        unfinished = path.is_dir() and (path / CHECKPOINT_NAME).exists()
        hint = "finish the interrupted fit" if unfinished else "fit one"
        raise UsageError(f"there is no model at {str(target)!r}; {hint}, or name another run folder")
    if target.suffix != ".safetensors":
        raise RefusedError(f"{str(target)!r} is not a model; give a run folder, a .safetensors file or an .onnx file")
    return target


def _record_of(model: Path) -> dict[str, Any]:
    """The unchecked record in the header of a model file; empty if there is none."""
    try:
        with model.open("rb") as file:
            length = file.read(8)
            header = file.read(min(int.from_bytes(length, "little"), LONGEST_HEADER))
        return _record_in(length + header, str(model))
    except (OSError, RefusedError):
        return {}


def _record_in(content: bytes, name: str) -> dict[str, Any]:
    """The record in the header of a model file; the content after the header is not needed."""
    metadata = parse_record(content[8 : 8 + int.from_bytes(content[:8], "little")], name).get("__metadata__")
    text = metadata.get("vaeguard") if isinstance(metadata, dict) else None
    return parse_record(text if isinstance(text, str) else "", name)


def write_tensors(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors and a JSON record as one sealed safetensors file."""
    from safetensors.torch import save as to_bytes

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"vaeguard": json.dumps({"format": FORMAT, **record}), "seal": UNSEALED}
    write_bytes(path, seal(_in_order(to_bytes(plain, metadata=header))))


def _in_order(content: bytes) -> bytes:
    """Sort the metadata of a file, which safetensors shuffles, so that the same model has the same bytes."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `write_tensors` after checking its digest.

    Raises
    ------
    RefusedError
        The file is damaged, no file of vaeguard, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    content = read_sealed(path)
    try:
        tensors = from_bytes(content)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RefusedError(f"{str(path)!r} cannot be read as a model file; give the model file of a run") from error
    record = _record_in(content, str(path))
    if record.get("format") != FORMAT:
        raise RefusedError(
            f"{str(path)!r} has format {record.get('format')!r:.20}, but this version of vaeguard reads only format"
            f" {FORMAT}; update vaeguard, or fit the model again"
        )
    return tensors, record

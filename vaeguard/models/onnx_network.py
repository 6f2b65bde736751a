"""Networks in ONNX files as backbones: their nodes, run one by one by PyTorch.

The bytes of the network travel in the model file, so it is there wherever the model is. A file is untrusted: a node is
run only if its operator is in a table, and a first pass without values bounds the memory that the network takes.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vaeguard.errors import RefusedError, UsageError
from vaeguard.models.backbones import PROBE, SCALES, Backbone
from vaeguard.models.onnx_operators import OPERATORS

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue with which most networks are trained."""
MOST_VALUES = 1024 * PROBE**2
"""The most values of a result for an image of `PROBE` pixels a side: 1,024 channels at full size."""


class _Node(NamedTuple):
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[str, Any]


class OnnxNetwork(Backbone):
    """A network from the bytes of an ONNX file that `network_bytes` made.

    Raises
    ------
    ValueError
        The bytes are no such network, or it uses an operator that is not known.
    """

    file: Tensor

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__()
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

        try:
            model = onnx.load_from_string(content)
        except DecodeError as error:
            raise ValueError("it is not an ONNX file") from error
        self.name, self.sha256 = name, hashlib.sha256(content).hexdigest()
        facts = {entry.key: entry.value for entry in model.metadata_props}
        self.licence = facts.get("licence") or facts.get("license") or "that of the file"
        self.mean, self.deviation = (
            _triple(facts[key]) if key in facts else usual for key, usual in zip(("mean", "std"), IMAGENET, strict=True)
        )
        self.register_buffer("file", torch.frombuffer(bytearray(content), dtype=torch.uint8), persistent=True)
        self.read_graph(model)
        maps = self.probe(PROBE, PROBE)
        if any(result.ndim != 4 for result in maps):
            raise ValueError("an output is not a feature map")
        self.channels = tuple(result.shape[1] for result in maps)

    def read_graph(self, model: onnx.ModelProto) -> None:
        """Read nodes and constants."""
        self.numbers: dict[str, Any] = {}
        self._constants: dict[str, str] = {}
        for tensor in model.graph.initializer:
            self._keep(tensor.name, tensor)
        self.image, self.maps = _image_of(model).name, [output.name for output in model.graph.output]
        self.nodes = [node for node in map(self._read, model.graph.node) if node.operator != "Constant"]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps of normalised `image` (N, 3, H, W)."""
        return self.run(image)

    def probe(self, height: int, width: int) -> list[Tensor]:
        """The maps of an image of this size without their values.

        Raises
        ------
        ValueError
            The network does not take such an image, or takes too much memory.
        """
        most = MOST_VALUES * max(1, -(-height * width // PROBE**2))
        try:
            return copy.deepcopy(self).to("meta").run(torch.zeros(1, 3, height, width, device="meta"), most)
        except (ValueError, RuntimeError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(str(error).partition("\n")[0]) from error

    def run(self, image: Tensor, most: int | None = None) -> list[Tensor]:
        """Maps of normalised `image`; `most` bounds the values of any result."""
        values: dict[str, Any] = {"": None, self.image: image, **self.numbers}
        values |= {name: getattr(self, buffer) for name, buffer in self._constants.items()}
        for node in self.nodes:
            result = OPERATORS[node.operator](node.settings, *(values[name] for name in node.inputs))
            results = result if isinstance(result, tuple) else (result,)
            if most is not None and sum(part.numel() for part in results) > most:
                raise ValueError(f"its operator {node.operator} takes too much memory")
            values.update(zip(node.outputs, results, strict=False))
        return [values[name] for name in self.maps]

    def _keep(self, name: str, tensor: onnx.TensorProto) -> None:
        """Keep a constant: whole and single numbers as such, others as a tensor that moves with the network."""
        from onnx import TensorProto, numpy_helper

        if tensor.data_location == TensorProto.EXTERNAL:
            raise ValueError("its weights are in a separate file")
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind in "iub" or values.size == 0:
            self.numbers[name] = values.tolist()
        elif values.dtype.name not in ("float32", "float64"):
            raise ValueError(f"it computes in {values.dtype.name} instead of float32")
        elif values.ndim == 0:
            self.numbers[name] = float(values)
        else:
            self._constants[name] = f"constant_{len(self._constants)}"
            constant = torch.from_numpy(values.astype("float32"))
            self.register_buffer(self._constants[name], constant, persistent=False)

    def _read(self, node: onnx.NodeProto) -> _Node:
        import onnx

        settings = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        settings = {name: value.decode() if isinstance(value, bytes) else value for name, value in settings.items()}
        if node.op_type == "Resize" and len(node.input) > 2 and node.input[2] in self._constants:
            settings["scales"] = getattr(self, self._constants[node.input[2]]).tolist()
        if node.op_type == "Constant":
            value = next(iter(settings.values()))
            if isinstance(value, onnx.TensorProto):
                self._keep(node.output[0], value)
            else:
                self.numbers[node.output[0]] = value
        elif node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise ValueError(f"it uses the operator {node.op_type!r:.40}, which is not supported")
        return _Node(node.op_type, tuple(node.input), tuple(node.output), settings)


def read_network(path: str | Path, size: tuple[int, int]) -> OnnxNetwork:
    """Read a network for images of `size` (height, width) from the ONNX file of a user.

    It is cut behind its maps at 1/4, 1/8 and 1/16 of an image's size.

    Raises
    ------
    UsageError
        There is no such file, or the network cannot serve.
    RefusedError
        The file is damaged, or no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    path = Path(path)
    given = f"`features` is {str(path)!r}"
    if not path.is_file():
        raise UsageError(f"{given}, but this file does not exist; give an ONNX file or the name of a network")
    try:
        model = onnx.load(path)  # with the weights beside it
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = f"{str(path)!r} cannot be read as an ONNX file ({str(error).partition(chr(10))[0]:.100})"
        raise RefusedError(f"{reason}; export the network again") from error
    try:
        _check_sizes(model)
        network = OnnxNetwork(path.name, cut(model, _fine_maps(model)))
        network.probe(*size)
    except ValueError as error:
        raise UsageError(
            f"{given}, which cannot be used: {error}; export a convolutional network for images of any height and"
            " width, whose outputs are feature maps at 1/4, 1/8 or 1/16 of the image size"
        ) from error
    return network


def _fine_maps(model: onnx.ModelProto) -> list[str]:
    """The outputs that are maps of a scale that serves; others, such as classes, are left out."""
    sizes = [(PROBE // scale, PROBE // scale) for scale in SCALES]
    wanted, fault = [], "none of its outputs is a feature map at 1/4, 1/8 or 1/16 of the image size"
    for output in model.graph.output:
        try:
            (result,) = OnnxNetwork(output.name, cut(model, [output.name])).probe(PROBE, PROBE)
        except ValueError as error:
            fault = str(error)
        else:
            wanted += [output.name] * (result.shape[2:] in sizes)
    if not wanted:
        raise ValueError(fault)
    return wanted


def _triple(text: str) -> tuple[float, ...]:
    """Three numbers of a text such as `0.5, 0.5, 0.5` or `[0.5, 0.5, 0.5]`."""
    values = tuple(float(part) for part in text.strip("[]() ").split(","))
    if len(values) != 3 or not all(abs(value) < 1e6 for value in values):
        raise ValueError(f"its metadata contain {text!r:.40} instead of three numbers for red, green and blue")
    return values


def _image_of(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in known]
    if len(inputs) != 1:
        raise ValueError(f"it has {len(inputs)} inputs instead of one image")
    image: onnx.ValueInfoProto = inputs[0]
    return image


def _check_sizes(model: onnx.ModelProto) -> None:
    """Refuse a network for other inputs than images in colour of any size."""
    image = _image_of(model).type.tensor_type
    sides = [side.dim_value for side in image.shape.dim]  # 0 is any
    if len(sides) != 4 or sides[1] not in (0, 3) or image.elem_type != 1:
        raise ValueError("its input is not a colour image, float32 of shape (N, 3, height, width)")
    if sides[2] or sides[3]:
        raise ValueError(f"it takes images of {sides[2] or 'any'}x{sides[3] or 'any'} pixels only")


def cut(model: onnx.ModelProto, outputs: list[str]) -> bytes:
    """The bytes of the network with these outputs and without what they do not need."""
    import onnx

    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    values = [onnx.helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = onnx.helper.make_graph(nodes[::-1], "network", [_image_of(model)], values, tensors)
    cut = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    cut.metadata_props.extend(model.metadata_props)
    content: bytes = cut.SerializeToString(deterministic=True)
    return content

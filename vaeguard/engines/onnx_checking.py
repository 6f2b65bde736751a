"""Refuse an `.onnx` file that holds what no export writes, before ONNX Runtime sees it.

A seal shows that a file is whole, not who wrote it. So a file may name only the operators of our exports, hold no graph
within a graph, refer to no other file, and state no constant size by which a tensor becomes much larger than the file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.engines.protobuf import contents, fields, numbers, strings
from vaeguard.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

OPERATORS = {
    *("Abs", "Add", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Clip", "Col2Im", "Concat"),
    *("Conv", "ConvTranspose", "DepthToSpace", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Gather"),
    *("GatherElements", "GatherND", "Gelu", "Gemm", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsNaN"),
    *("LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "MatMul", "Max", "MaxPool", "Mul", "Neg"),
    *("Pad", "Pow", "Range", "Reciprocal", "ReduceLogSumExp", "ReduceMax"),
    *("ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softplus"),
    *("Split", "Sqrt", "Squeeze", "Sub", "Tanh", "TopK", "Transpose", "Unsqueeze", "Where"),
}
"""The operators of all our exports, of the default domain; a test exports every kind of model and compares."""
RESIZING = {"Expand": slice(1, 2), "Pad": slice(1, 2), "Col2Im": slice(1, 2), "Range": slice(3), "Resize": slice(2, 4)}
"""The operators whose inputs state how large the result is, and which inputs do."""
ARITHMETIC = {"Add", "Cast", "Concat", "Div", "Gather", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze"}
"""The operators that compute sizes from other sizes."""
MOST_VALUES = 2**28
"""The most values that constants may have such an operator make."""
UNKNOWN = MOST_VALUES + 1
"""Stands for a size that no constant bounds."""
MOST_SIZES = 16
"""A longer list holds no sizes."""
LARGEST_SETTING = 2**24
"""The largest number among the attributes of a node, such as a stride."""

MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14}
"""Versions, producer, graph and metadata of a model; not its functions and training graphs."""
OPSETS, GRAPH = 8, 7
GRAPH_FIELDS = {1, 2, 5, 10, 11, 12, 13}
"""Nodes, name, initializers, description, inputs, outputs and values of a graph; no sparse tensors."""
NODE, INITIALIZER = 1, 5
NODE_FIELDS = {1, 2, 3, 4, 5, 6, 7}
NODE_INPUT, NODE_OUTPUT, OPERATOR, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_FIELDS = {1, 2, 3, 4, 5, 7, 8, 9, 20}
"""Name, type, and the values that are numbers, texts or a tensor; no graphs."""
ATTRIBUTE_NUMBER, ATTRIBUTE_TENSOR, ATTRIBUTE_NUMBERS = 3, 5, 8
TENSOR_FIELDS = {1, 2, 4, 5, 7, 8, 9, 10, 11, 12}
"""Shape, type, name and values of a tensor; no data in other files (13, 14), which would be read from anywhere."""
DIMENSION, TYPE, TENSOR_NAME, RAW = 1, 2, 8, 9
DTYPES = {number: np.dtype(name) for number, name in {1: "<f4", 2: "u1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2"}.items()}


def check_graph(content: bytes, name: str) -> None:
    """Refuse an `.onnx` file whose graph is none of ours; `name` names the file in messages.

    Raises
    ------
    RefusedError
        The file holds something that no export writes; the message says what.
    """
    try:
        _check_model(content)
    except ValueError as error:  # a text that is no UTF-8 is one as well
        raise RefusedError(
            f"{name!r} is not a model that vaeguard exported: {error}; export the model again"
        ) from error


def _check_model(model: bytes) -> None:
    _check_fields(model, MODEL_FIELDS, "the model")
    for opset in contents(model, OPSETS):
        if domain := next(filter(None, strings(opset, 1)), None):
            raise ValueError(f"it needs operators of {domain!r}")
    graphs = contents(model, GRAPH)
    if len(graphs) != 1:
        raise ValueError(f"it contains {len(graphs)} graphs")
    _check_graph(graphs[0])


def _check_graph(graph: bytes) -> None:
    _check_fields(graph, GRAPH_FIELDS, "the graph")
    sizes: dict[str, int] = {}
    for tensor in contents(graph, INITIALIZER):
        sizes.update(dict.fromkeys(strings(tensor, TENSOR_NAME), _check_tensor(tensor)))
    for node in contents(graph, NODE):
        _check_node(node, sizes)


def _check_fields(message: bytes, known: set[int], what: str) -> None:
    if unknown := next((number for number, _, _ in fields(message) if number not in known), None):
        raise ValueError(f"{what} has a field {unknown}, which no export writes")


def _check_node(node: bytes, sizes: dict[str, int]) -> None:
    """Check a node; `sizes` holds how large a tensor each value can make, and takes those of the node's outputs."""
    _check_fields(node, NODE_FIELDS, "a node")
    if domain := next(filter(None, strings(node, DOMAIN)), None):
        raise ValueError(f"a node uses an operator of {domain!r}")
    operators = strings(node, OPERATOR)
    if len(operators) != 1 or operators[0] not in OPERATORS:
        raise ValueError(f"a node uses the operator {' '.join(operators)!r}, which no export writes")
    for attribute in contents(node, ATTRIBUTE):
        _check_attribute(attribute)
    inputs, operator = strings(node, NODE_INPUT), operators[0]
    if _behind(inputs[RESIZING.get(operator, slice(0))], sizes) > MOST_VALUES:
        raise ValueError(f"its operator {operator} may take any amount of memory")
    # A shape has no sizes but those of values that are in memory.
    behind = 1 if operator == "Shape" else _behind(inputs, sizes) if operator in ARITHMETIC else UNKNOWN
    sizes.update(dict.fromkeys(strings(node, NODE_OUTPUT), behind))


def _behind(names: list[str], sizes: Mapping[str, int]) -> int:
    # The bound keeps numbers short in long chains of nodes.
    return min(math.prod(sizes.get(name, UNKNOWN) for name in names if name), UNKNOWN)


def _check_attribute(attribute: bytes) -> None:
    _check_fields(attribute, ATTRIBUTE_FIELDS, "an attribute")
    settings = [*numbers(attribute, ATTRIBUTE_NUMBER), *numbers(attribute, ATTRIBUTE_NUMBERS)]
    if largest := next((value for value in settings if abs(value) > LARGEST_SETTING), None):
        raise ValueError(f"an attribute is {largest}, which is too large")
    for tensor in contents(attribute, ATTRIBUTE_TENSOR):
        _check_tensor(tensor)


def _check_tensor(tensor: bytes) -> int:
    """Check that a tensor holds all of its values, none of them NaN; return the largest size that these can make."""
    _check_fields(tensor, TENSOR_FIELDS, "a tensor")
    shape, kinds, raw = numbers(tensor, DIMENSION), numbers(tensor, TYPE), contents(tensor, RAW)
    if len(kinds) != 1 or kinds[0] not in DTYPES or len(raw) != 1:
        raise ValueError("a tensor has a type that no export writes")
    dtype = DTYPES[kinds[0]]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(raw[0]):
        raise ValueError(f"a tensor of shape {shape} has {len(raw[0])} bytes")
    values = np.frombuffer(raw[0], dtype)
    if dtype.kind == "f" and np.isnan(values).any():
        raise ValueError("a tensor contains NaN")
    if len(shape) > 1 or len(values) > MOST_SIZES:
        return UNKNOWN
    return int(min(math.prod(max(1.0, abs(float(value))) for value in values), UNKNOWN))

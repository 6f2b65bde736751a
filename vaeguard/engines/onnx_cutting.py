"""Cut a part out of the bytes of an `.onnx` file, whose fields have the numbers of `onnx.proto`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vaeguard.engines.protobuf import fields, sized, strings

if TYPE_CHECKING:
    from collections.abc import Sequence

GRAPH = 7
"""Field of a model."""
NODE, INITIALIZER, INPUT, OUTPUT, VALUE = 1, 5, 11, 12, 13
"""Fields of a graph."""
NODE_INPUT, NODE_OUTPUT = 1, 2
"""Fields of a node."""
NAMES = {INITIALIZER: 8, INPUT: 1, OUTPUT: 1, VALUE: 1}
"""The field with the name of an initializer, input, output or value."""


def cut(model: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The part of a model from `inputs` to `outputs`, with all metadata; no node may hold a graph."""
    return b"".join(
        sized(GRAPH, _cut_graph(content, inputs, outputs)) if number == GRAPH and isinstance(content, bytes) else whole
        for number, content, whole in fields(model)
    )


def _cut_graph(graph: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    messages = list(fields(graph))
    needed, left_out = set(outputs), set()
    # Backwards, since a node follows the nodes whose results it takes.
    for place, (number, content, _) in reversed(list(enumerate(messages))):
        if number != NODE or not isinstance(content, bytes):
            continue
        if needed.isdisjoint(strings(content, NODE_OUTPUT)):
            left_out.add(place)
        else:
            needed.update(strings(content, NODE_INPUT))
    named = {INPUT: set(inputs), OUTPUT: set(outputs), INITIALIZER: needed, VALUE: needed}
    for place, (number, content, _) in enumerate(messages):
        wanted = named.get(number)
        if wanted is not None and isinstance(content, bytes) and wanted.isdisjoint(strings(content, NAMES[number])):
            left_out.add(place)
    return b"".join(whole for place, (_, _, whole) in enumerate(messages) if place not in left_out)

"""Cut a part out of the bytes of an `.onnx` file; importing `onnx` would take longer than opening the file.

A file is a protobuf message, a sequence of fields. Each field has a key, which holds its number and wire type, and a
content. The numbers are those of `onnx.proto`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GRAPH = 7
"""Field of a model."""
NODE, INITIALIZER, INPUT, OUTPUT, VALUE = 1, 5, 11, 12, 13
"""Fields of a graph."""
NODE_INPUT, NODE_OUTPUT = 1, 2
"""Fields of a node."""
NAMES = {INITIALIZER: 8, INPUT: 1, OUTPUT: 1, VALUE: 1}
"""The field with the name of an initializer, input, output or value."""
VARINT, EIGHT_BYTES, SIZED, FOUR_BYTES = 0, 1, 2, 5
"""Wire types."""


def cut(model: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The part of a model from `inputs` to `outputs`, with all metadata; no node may hold a graph."""
    return b"".join(
        _sized(GRAPH, _cut_graph(content, inputs, outputs)) if number == GRAPH else whole
        for number, content, whole in _fields(model)
    )


def _cut_graph(graph: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    fields = list(_fields(graph))
    needed, left_out = set(outputs), set()
    # Backwards, since a node follows the nodes whose results it takes.
    for place, (number, content, _) in reversed(list(enumerate(fields))):
        if number != NODE:
            continue
        if needed.isdisjoint(_strings(content, NODE_OUTPUT)):
            left_out.add(place)
        else:
            needed.update(_strings(content, NODE_INPUT))
    named = {INPUT: set(inputs), OUTPUT: set(outputs), INITIALIZER: needed, VALUE: needed}
    for place, (number, content, _) in enumerate(fields):
        if number in named and named[number].isdisjoint(_strings(content, NAMES[number])):
            left_out.add(place)
    return b"".join(whole for place, (_, _, whole) in enumerate(fields) if place not in left_out)


def _strings(message: bytes, wanted: int) -> list[str]:
    return [content.decode() for number, content, _ in _fields(message) if number == wanted]


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The number of each field, its content if that has a size, and all bytes of the field."""
    place = 0
    while place < len(message):
        start, content = place, b""
        key, place = _varint(message, place)
        if key & 7 == SIZED:
            size, place = _varint(message, place)
            content = message[place : place + size]
            place += size
        elif key & 7 == VARINT:
            _, place = _varint(message, place)
        else:
            place += {EIGHT_BYTES: 8, FOUR_BYTES: 4}[key & 7]
        yield key >> 3, content, message[start:place]


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest bits first, and the place after the number."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _sized(number: int, content: bytes) -> bytes:
    head, rest = bytearray([number << 3 | SIZED]), len(content)
    while rest >= 0x80:
        head.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(head) + bytes([rest]) + content

"""Fields of a protobuf message; importing `onnx` would take longer than opening a file.

A message is a sequence of fields. Each field has a key, which holds its number and wire type, and a content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, EIGHT_BYTES, SIZED, FOUR_BYTES = 0, 1, 2, 5
"""Wire types."""
LONGEST_VARINT = 10
"""The most bytes of a number of 64 bits."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """The number of each field, its content (a number for wire type 0, otherwise bytes), and all bytes of the field.

    Raises
    ------
    ValueError
        The bytes are no message.
    """
    place = 0
    while place < len(message):
        start = place
        key, place = _varint(message, place)
        content: int | bytes
        if key & 7 == VARINT:
            content, place = _varint(message, place)
        else:
            size, place = _varint(message, place) if key & 7 == SIZED else (_fixed_size(key & 7), place)
            content = message[place : place + size]
            place += size
        if place > len(message):
            raise ValueError("a field ends beyond its message")
        yield key >> 3, content, message[start:place]


def contents(message: bytes, wanted: int) -> list[bytes]:
    """The contents of the fields of a number, which have a size."""
    return [content for number, content, _ in fields(message) if number == wanted and isinstance(content, bytes)]


def strings(message: bytes, wanted: int) -> list[str]:
    """The texts in the fields of a number."""
    return [content.decode() for content in contents(message, wanted)]


def numbers(message: bytes, wanted: int) -> list[int]:
    """The signed numbers of 64 bits in the fields of a number, packed or not."""
    found: list[int] = []
    for number, content, _ in fields(message):
        if number != wanted:
            continue
        if isinstance(content, int):
            found.append(content)
            continue
        place = 0
        while place < len(content):
            value, place = _varint(content, place)
            found.append(value)
    return [value - (1 << 64) if value >> 63 else value for value in found]


def sized(number: int, content: bytes) -> bytes:
    """A field with a size."""
    head, rest = bytearray([number << 3 | SIZED]), len(content)
    while rest >= 0x80:
        head.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(head) + bytes([rest]) + content


def _fixed_size(wire_type: int) -> int:
    sizes = {EIGHT_BYTES: 8, FOUR_BYTES: 4}
    if wire_type not in sizes:
        raise ValueError(f"there is no wire type {wire_type}")
    return sizes[wire_type]


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest bits first, and the place after the number."""
    value = 0
    for index, byte in enumerate(message[place : place + LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & (1 << 64) - 1, place + index + 1
    raise ValueError("a number has no end")

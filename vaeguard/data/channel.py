"""Messages between processes through two pipes: a header of plain values, and perhaps an array.

Nothing is ever unpickled, so a process that a hostile file has taken over can only answer wrongly.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Values = npt.NDArray[Any]
    Place = Callable[[tuple[int, ...]], Values]

_LENGTHS = struct.Struct("<IQ")
_TYPES = {name: np.dtype(name) for name in ("bool", "uint8", "uint16", "int32", "int64", "float32")}
BUFFER = 2**16
"""Bytes that a pipe takes at a time."""
MAX_HEADER = 64 * 2**20
"""Bytes of plain values in a message."""


class Channel:
    """One end of a pair of pipes."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader, self._writer = reader, writer

    def send(self, header: dict[str, Any], *arrays: Values) -> None:
        """Send a header and perhaps an array, or several that are joined along their first axis."""
        if arrays:
            first = arrays[0]
            header = {**header, "dtype": str(first.dtype), "shape": (sum(map(len, arrays)), *first.shape[1:])}
        packed = json.dumps(header).encode()
        self._writer.write(_LENGTHS.pack(len(packed), sum(array.nbytes for array in arrays)) + packed)
        for array in arrays:
            if array.size:
                self._writer.write(np.ascontiguousarray(array).data)
        self._writer.flush()

    def receive(self, most: int, place: Place | None = None) -> tuple[dict[str, Any], Values | None]:
        """Receive a header and, if there is one, an array of at most `most` bytes.

        `place` takes the shape of the array and returns where it goes; None makes a new one.

        Raises
        ------
        EOFError
            The other end is closed.
        ValueError
            The message breaks the rules.
        """
        header, size = self._header(most)
        if "dtype" not in header:
            return header, None
        dtype, shape = _TYPES[header.pop("dtype")], tuple(map(int, header.pop("shape")))
        if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != size:
            raise ValueError(f"an array of shape {shape} in {size} bytes")
        values = np.empty(shape, dtype) if place is None else place(shape)
        if values.shape != shape or values.dtype != dtype:
            raise ValueError(f"an array of shape {shape}")
        if size and self._reader.readinto(values.data.cast("B")) < size:  # type: ignore[attr-defined]
            raise EOFError
        return header, values

    def receive_bytes(self, most: int) -> tuple[dict[str, Any], bytes]:
        """As `receive`, but return the bytes of an array."""
        header, size = self._header(most)
        return header, self._read(size)

    def _header(self, most: int) -> tuple[dict[str, Any], int]:
        """The header of the next message, and the number of bytes that follow."""
        length, size = _LENGTHS.unpack(self._read(_LENGTHS.size))
        if length > MAX_HEADER or size > most:
            raise ValueError(f"a message of {length} and {size} bytes")
        header = json.loads(self._read(length))
        if not isinstance(header, dict):
            raise TypeError("a message without a header")
        return header, size

    def _read(self, length: int) -> bytes:
        content = self._reader.read(length)
        if len(content) < length:
            raise EOFError
        return content

    def close(self) -> None:
        """Close both pipes."""
        self._reader.close()
        self._writer.close()


def as_array(content: bytes | memoryview) -> Values:
    """Bytes as an array to send."""
    return np.frombuffer(content, np.uint8)

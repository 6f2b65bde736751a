"""The exceptions of vaeguard; each carries the exit code of the command line.

::

    VaeguardError            1  the work failed
    ├── UsageError           2  a parameter has a value that cannot work
    ├── InputsSkippedError   3  done, but some inputs were left out
    ├── OutOfMemoryError     1  memory does not suffice even for the smallest block
    ├── LostError            1  another process of the same job has ended or cannot be reached
    └── RefusedError         4  a model or an input was refused: damaged, unsafe, of the wrong kind
        └── UnreadableError  4  one image cannot be read; batch jobs list it and go on

A message is one sentence that names the file or the parameter, its value, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class VaeguardError(Exception):
    """The work could not be done; the message says why and what to do."""

    exit_code = 1


class UsageError(VaeguardError, ValueError):
    """A parameter has a value that cannot work."""

    exit_code = 2


class InputsSkippedError(VaeguardError):
    """The work is done, but some inputs were skipped, mostly because they cannot be read; each is listed."""

    exit_code = 3


class OutOfMemoryError(VaeguardError, MemoryError):
    """Memory does not suffice even for the smallest block."""


class LostError(VaeguardError):
    """Another process of the same job has ended or cannot be reached."""


class RefusedError(VaeguardError):
    """A model or an input was refused because it is damaged, unsafe or of the wrong kind."""

    exit_code = 4


class UnreadableError(RefusedError):
    """One image cannot be read; `reason` says why, without the file's name."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path!r}: {reason}")
        self.path = path
        self.reason = reason


def as_objects(errors: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Unreadable inputs, path and reason, as plain values that JSON can hold."""
    return [{"path": path, "error": reason} for path, reason in errors]

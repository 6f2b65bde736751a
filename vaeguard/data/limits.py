"""The most memory and time that one image, page or header may take, whatever its file claims.

Two environment variables raise them for larger pages: `VAEGUARD_MAX_MEMORY` in GB, `VAEGUARD_MAX_SECONDS` in seconds.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import signal
import sys
import zlib
from pathlib import Path

from vaeguard.errors import UsageError

_MEMORY, _SECONDS = "VAEGUARD_MAX_MEMORY", "VAEGUARD_MAX_SECONDS"
_DEFAULTS = {_MEMORY: 2.0, _SECONDS: 60.0}


def _number(variable: str) -> float:
    """The value of a variable, its default if it is not set, or NaN if it is no number above 0."""
    try:
        value = float(os.environ.get(variable) or _DEFAULTS[variable])
    except ValueError:
        return math.nan
    return value if 0 < value < math.inf else math.nan


def _or_default(variable: str) -> float:
    value = _number(variable)
    return _DEFAULTS[variable] if math.isnan(value) else value


MAX_MEMORY = int(_or_default(_MEMORY) * 2**30)
"""Bytes of memory for one image or page, its file included."""
MAX_SECONDS = _or_default(_SECONDS)
"""Seconds for one image or page."""
MAX_PIXELS = MAX_MEMORY * 100_000_000 // 2**31
"""Pixels of one image or page."""
MAX_BYTES = MAX_MEMORY // 4
"""Bytes of one image file, alone or in a container."""

MOST_SIDE = 4000
"""Pixels of the longest side of a picture for people; a larger image is reduced."""


def check_limits() -> None:
    """Refuse limits that are no numbers.

    Raises
    ------
    UsageError
        An environment variable is no number above 0.
    """
    for variable in _DEFAULTS:
        if math.isnan(_number(variable)):
            raise UsageError(
                f"the environment variable {variable} is {os.environ[variable]!r}; it must be a number above 0"
            )


def too_much_memory() -> str:
    """The reason why an image that takes too much memory is not read."""
    return (
        f"reading it takes more than {MAX_MEMORY / 2**30:g} GB of memory; to allow more, set the environment variable"
        f" {_MEMORY} to a larger number of GB"
    )


def too_long() -> str:
    """The reason why an image that takes too much time is not read."""
    return (
        f"reading it takes more than {MAX_SECONDS:g} s; to allow more, set the environment variable {_SECONDS} to a"
        " larger number"
    )


def inflated(packed: bytes) -> bytes:
    """What zlib unpacks, if that is an eighth of the memory for an image at most.

    Raises
    ------
    MemoryError
        There is more.
    zlib.error
        The data is damaged or cut short.
    """
    stream = zlib.decompressobj()
    unpacked = stream.decompress(packed, MAX_MEMORY // 8)
    if stream.unconsumed_tail:
        raise MemoryError
    if not stream.eof:
        raise zlib.error("incomplete or truncated stream")
    return unpacked


class Clock:
    """Ends a process that spends too much time on one image, even within a library that never returns.

    It runs only in a process that decodes for another one.
    """

    def __init__(self) -> None:
        self.on = False

    def restart(self, seconds: float = MAX_SECONDS) -> None:
        """Give the next image or page so many seconds."""
        if self.on and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, seconds)
        elif self.on:
            faulthandler.dump_traceback_later(seconds, exit=True)

    def stop(self) -> None:
        """Count no time until the next `restart`."""
        if self.on and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        elif self.on:
            faulthandler.cancel_dump_traceback_later()


clock = Clock()


def limit_memory(held: int = 0) -> None:
    """Limit what this process may allocate for the next page, on top of what it has; some is left to its caller.

    `held` are bytes that it has for this page already, or, below 0, bytes that it may have besides. Without effect
    outside of a process that decodes for another one.
    """
    if not clock.on or sys.platform == "win32":
        return
    import resource

    allowed = _allocated() - held + MAX_MEMORY - MAX_MEMORY // 8
    for kind, most in ((resource.RLIMIT_DATA, allowed), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # the system allows less
            resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


def _allocated() -> int:
    """The bytes that this process has allocated, as Linux counts them; 0 on other systems."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, LookupError):
        return 0

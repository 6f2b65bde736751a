"""The most memory that this process held while something ran."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL = 0.05  # seconds


class PeakMemory:
    """`megabytes` of the whole process at its largest, None where the system does not say."""

    def __init__(self) -> None:
        self.megabytes: float | None = None

    def look(self) -> None:
        """Look once."""
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        except (OSError, ValueError, IndexError):
            return
        now = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        self.megabytes = now if self.megabytes is None else max(self.megabytes, now)


@contextlib.contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watch the memory of this process, libraries and data included, from a thread until the block ends."""
    peak, done = PeakMemory(), threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL):
            peak.look()

    peak.look()
    thread = threading.Thread(target=watch, name="vaeguard-memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.look()

"""How far the workers of a run have come together, and how they are told to stop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaeguard.progress import Progress


class StoppedError(BaseException):
    """The run was interrupted.

    Not an `Exception`, so that code that catches the error of a single file does not catch an interrupt.
    """


class Meter:
    """Adds up how much of each file is done; workers ask it whether they may go on.

    Parameters
    ----------
    sizes : mapping
        Bytes of each file, by its name.
    progress : callable or None
        Called with bytes done, bytes in all and a line of text, by one worker at a time.
    """

    def __init__(self, sizes: Mapping[str, int], progress: Progress | None = None) -> None:
        self._sizes, self._progress = sizes, progress
        self._total, self._done = sum(sizes.values()), 0.0
        self._shares = dict.fromkeys(sizes, 0.0)
        self._text = ""
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let every worker end with its next `tick` or `check`."""
        self._stopped.set()

    def check(self) -> None:
        """Go on, or end this worker.

        Raises
        ------
        StoppedError
            `stop` was called.
        """
        if self._stopped.is_set():
            raise StoppedError

    def tick(self, name: str, share: float) -> None:
        """Note which share of a file is done, 0 to 1.

        Raises
        ------
        StoppedError
            `stop` was called.
        """
        self.check()
        with self._lock:
            self._done += (share - self._shares[name]) * self._sizes[name]
            self._shares[name] = share
            self._tell()

    def say(self, text: str) -> None:
        """Change the line of text."""
        with self._lock:
            self._text = text
            self._tell()

    def _tell(self) -> None:
        if self._progress:
            self._progress(round(self._done), self._total, self._text)

"""The shared progress of a run's workers, and the signal that stops them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaeguard.progress import Progress


class StoppedError(BaseException):
    """The run was interrupted.

    `StoppedError` is no `Exception`, so that a handler for the errors of one file does not catch an interrupt.
    """


class Meter:
    """Adds up the progress of all files, and ends the workers of a stopped run.

    Parameters
    ----------
    sizes : mapping
        The size of each file in bytes, by name.
    progress : callable or None
        Called by one worker at a time with the bytes done, the total bytes and a line of text.
    """

    def __init__(self, sizes: Mapping[str, int], progress: Progress | None = None) -> None:
        self._sizes, self._progress = sizes, progress
        self._total, self._done = sum(sizes.values()), 0.0
        self._shares = dict.fromkeys(sizes, 0.0)
        self._text = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End every worker at its next `tick` or `check`."""
        self._stop.set()

    def check(self) -> None:
        """End this worker if the run was stopped.

        Raises
        ------
        StoppedError
            `stop` was called.
        """
        if self._stop.is_set():
            raise StoppedError

    def tick(self, name: str, share: float) -> None:
        """Record the share of a file that is done, 0 to 1.

        Raises
        ------
        StoppedError
            `stop` was called.
        """
        self.check()
        with self._lock:
            self._done += (share - self._shares[name]) * self._sizes[name]
            self._shares[name] = share
            self._report()

    def say(self, text: str) -> None:
        """Replace the line of text."""
        with self._lock:
            self._text = text
            self._report()

    def _report(self) -> None:
        if self._progress:
            self._progress(round(self._done), self._total, self._text)

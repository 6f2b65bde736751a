"""The type of functions that receive the progress of long work, and one that shows it in a terminal or notebook."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Progress = Callable[[int, int, str], None]
"""Called with the amount done, the total amount, and a line of text."""
LINE_SECONDS = 10.0
"""Where no bar can be drawn, a line is printed at most so often."""
MINUTES_FROM = 120
"""From so many seconds on, the time left is told in minutes."""


@contextlib.contextmanager
def progress_bar(what: str = "") -> Iterator[Progress]:
    """Show progress on stderr: a bar with the time left on a terminal, otherwise a line every ten seconds.

    >>> with progress_bar("fitting") as bar:  # doctest: +SKIP
    ...     detector = vaeguard.fit(images, progress=bar)
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield _lines(what)
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, total: int, text: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{what} {text}".strip())

        yield update


def _lines(what: str) -> Progress:
    printed = time.monotonic()
    first: tuple[float, int] | None = None

    def update(done: int, total: int, text: str = "") -> None:
        nonlocal printed, first
        now = time.monotonic()
        # The time left follows from the steps after the first, since imports and an earlier run come before it.
        started, before = first = first or (now, done)
        if now - printed >= LINE_SECONDS and done:
            printed = now
            left = f" ({_time(now - started, total - done, done - before)} left)" if done > before else ""
            share = f"{what}, {100 * done // max(total, 1)} %".removeprefix(", ")
            print(f"{share}: {text}".removesuffix(": ") + left, file=sys.stderr, flush=True)

    return update


def _time(passed: float, left: int, done: int) -> str:
    """The time for the steps that are left, in words, from the time that has passed for those done."""
    seconds = passed * left / done
    return f"{seconds:.0f} s" if seconds < MINUTES_FROM else f"{seconds / 60:.0f} min"

"""What commands print, on stdout and on stderr."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from vaeguard import ImageSet, Parity


def command_line() -> str:
    """What the user typed, to be named in a report."""
    return shlex.join(["vaeguard", *sys.argv[1:]])


def console() -> Console:
    """Where results go: names stay as they are, and nothing is wrapped that a program may read."""
    from rich.console import Console

    return Console(emoji=False, soft_wrap=not sys.stdout.isatty())


def say(message: str) -> None:
    """Tell the user on stderr."""
    click.echo(message, err=True)


def print_json(result: dict[str, Any]) -> None:
    """The one JSON object on stdout; a value that is not finite is null."""
    from vaeguard import finite

    click.echo(json.dumps(finite(result), indent=2))


@contextlib.contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Show what the library warns of as lines on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> None:
            if issubclass(category, UserWarning):
                say("warning: " + " ".join(str(message).split()))
            else:
                shown(message, category, *place, **named)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[..., None]]:
    """A bar with the time left on a terminal; otherwise a line every ten seconds. Both on stderr."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what)
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, total: int, text: str = "") -> None:
            bar.update(task, completed=done, total=total, description=f"{what} {text}".strip())

        yield update


def _lines(what: str) -> Callable[..., None]:
    said = time.monotonic()
    first: tuple[float, int] | None = None

    def update(done: int, total: int, text: str = "") -> None:
        nonlocal said, first
        now = time.monotonic()
        # From the first step on: before it lie imports, and what an earlier run has done.
        started, before = first = first or (now, done)
        if now - said >= 10 and done:
            said = now
            left = f" ({(now - started) * (total - done) / (done - before):.0f} s left)" if done > before else ""
            say(f"{what} {done}/{total} {text}".strip() + left)

    return update


def say_left_out(errors: Sequence[tuple[str, str]]) -> None:
    """List on stderr what was left out, mostly as it cannot be read, or the first ten of it."""
    for path, reason in errors[:10]:
        say(f"left out: {path!r}: {reason}")
    if len(errors) > 10:
        say(f"... and {len(errors) - 10} more")


def say_note(images: ImageSet) -> None:
    """Tell on stderr what else there is to know of how images were read."""
    if images.note:
        say(f"note: {images.note}")


def complain_of_left_out(errors: Sequence[tuple[str, str]], where: str = "they are listed above") -> None:
    """End with exit code 3 if some inputs were left out; the work itself is done. `where` says where they stand."""
    if errors:
        from vaeguard import InputsSkippedError, counted

        raise InputsSkippedError(f"done, but {counted(len(errors), 'file', 'was were')} left out; {where}")


def say_parity(parity: Parity) -> None:
    """Show how far an exported model is from PyTorch, as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table("output", "largest relative error", title=f"{parity.images} images, {parity.random} of them noise")
    for name, error in parity.errors.items():
        table.add_row(name, f"{error:.1e}")
    Console().print(table)
    click.echo(
        f"allowed {parity.tolerance:g}; {parity.swapped} changed places, {parity.decisions} decisions differ, bits "
        + ("are the same in any batch" if parity.same_bits else "depend on the batch")
    )

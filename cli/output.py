"""The output of commands, on stdout and on stderr."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from vaeguard import workflows
from vaeguard.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

    from vaeguard import Parity
    from vaeguard.storage.plan import ShareSummary
    from vaeguard.workflows import Outcome, Reporter


NARROWEST = 80
"""Columns that a table needs."""


@dataclass
class Result:
    """The result of a command.

    Attributes
    ----------
    facts : dict
        The JSON object of --json.
    lines : list of str
        The last lines for people.
    report : dict or None
        A report, printed before `lines`.
    table : Table or None
        A table, printed before `report`.
    errors : sequence of (path, reason)
        Inputs that were left out.
    listed : str
        The place where the errors are listed, as the end of a message.
    failure : Exception or None
        An error with which the command ends after printing.
    first : str
        The first line for people.
    """

    facts: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    report: dict[str, Any] | None = None
    table: Table | None = None
    errors: Sequence[tuple[str, str]] = ()
    listed: str = "see above"
    failure: Exception | None = None
    first: str = ""


def show(result: Result, *, as_json: bool) -> None:
    """Print a result; raise its failure, or an error if inputs were left out."""
    from vaeguard import InputsSkippedError

    if as_json:
        click.echo(json.dumps(workflows.finite(result.facts), indent=2))  # JSON has no infinity
    else:
        if result.first:
            click.echo(result.first)
        if result.table:
            _console().print(result.table)
        if result.report:
            # Names must not become emoji, and lines that a program may read must not be wrapped.
            workflows.show_report(result.report, _console(emoji=False, soft_wrap=not on_terminal()))
        for line in result.lines:
            click.echo(line)
    if result.failure:
        raise result.failure
    if result.errors:
        files = workflows.counted(len(result.errors), "file", "was were")
        raise InputsSkippedError(f"Finished; {files} skipped ({result.listed})")


def on_terminal() -> bool:
    """Whether people read the output; Python has no stdout at all where it was closed."""
    return bool(sys.stdout and sys.stdout.isatty())


def _console(**settings: Any) -> Console:
    """A console for tables; a narrow terminal breaks their lines, which is better than names cut short."""
    from rich.console import Console

    return Console(width=max(Console().width, NARROWEST), **settings)


def say(message: str) -> None:
    """Print a message on stderr, with options in place of parameters."""
    from .commands import with_options

    context = click.get_current_context(silent=True)
    click.echo(with_options(message, context.command if context else None), err=True)


@contextlib.contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Print the warnings of the library as lines on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # on broken metadata, without the name of the file
        shown = warnings.showwarning

        def show_warning(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> None:
            if issubclass(category, UserWarning):
                say("warning: " + " ".join(str(message).split()))
            else:
                shown(message, category, *place, **named)

        warnings.showwarning = show_warning
        yield


def reporter() -> Reporter:
    """The reporter of workflows on the terminal."""
    return workflows.Reporter(say, progress_bar, shlex.join(["vaeguard", *sys.argv[1:]]))


def share_result(done: Outcome) -> Result:
    """The result of one share of a job; inputs that were left out are errors of the job, and not of the share."""
    share: ShareSummary = done.result
    resumed = f", {share.resumed:,} of them in earlier runs" if share.resumed else ""
    left = f", {len(share.errors):,} skipped" if share.errors else ""
    inputs = workflows.counted(share.inputs, "input")
    first = f"Share {share.share}: {inputs} processed in {share.seconds:.1f} s{resumed}{left}"
    ended = f"{share.finished:,} of {workflows.counted(share.parts, 'part')} of the whole job finished"
    command = f"vaeguard gather {shlex.quote(done.output)}"
    join = f"Next: {command}" if share.finished == share.parts else f"When all shares have finished: {command}"
    return Result(share.to_dict(), [f"{ended}; output: {done.output}", join], first=first)


def parity_line(parity: Parity) -> str:
    """What an exported model may differ by from PyTorch, and what else differs."""
    bits = "do not depend on the batch" if parity.same_bits else "depend on the batch"
    changed = (
        f"{workflows.counted(parity.swapped, 'image')} changed rank,"
        f" {workflows.counted(parity.decisions, 'flagging decision', 'differs differ')}, results {bits}"
    )
    return f"Largest relative error allowed: {parity.tolerance:g}; {changed}"


def parity_table(parity: Parity) -> Table:
    """A table of the differences between an exported model and PyTorch."""
    from rich.table import Table

    noise = " of random noise" if parity.random == parity.images else f", of which {parity.random} are random noise"
    table = Table("output", "largest relative error", title=f"{parity.images} images{noise}")
    for name, error in parity.errors.items():
        table.add_row(name, f"{error:.1e}")
    return table

"""`vaeguard report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, on_terminal, reporter, say


@command(
    click.argument("path", required=False),
    click.option(
        "--open/--no-open",
        "opened",
        default=None,
        help="Whether to open the page in a browser.  [default: open it if the command runs in a terminal]",
    ),
    o.json_option,
)
def report(path: str | None, *, opened: bool | None) -> Result:
    """Write report.html again from report.json, print a summary, and open the page in a browser.

    PATH is a report.json file, a table that `vaeguard score` wrote, or the folder of a run, a search for settings, an
    evaluation, a benchmark or clean scans. By default, PATH is the latest run. The page is a single file that needs no
    network connection.
    """
    done = workflows.remake_report(path, reporter())
    address = Path(done.output).resolve().as_uri()
    if (on_terminal() if opened is None else opened) and not webbrowser.open(address):
        say(f"note: no browser was found; open {address} yourself")
    facts: dict[str, Any] = {"output": done.output, **workflows.without_pictures(done.report or {})}
    return Result(facts, [f"Report: {done.output}"], done.report)

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
        help="Open the page in a browser.  [default: open, if run in a terminal]",
    ),
    o.json_option,
)
def report(path: str | None, *, opened: bool | None) -> Result:
    """Write report.html from report.json, print its summary and open it.

    PATH is the folder of a run, a search, an evaluation, a benchmark or clean scans, a table written by `vaeguard
    score`, or a report.json file. By default, it is the latest run. The page is a single file that needs no network.
    """
    done = workflows.remake_report(path, reporter())
    address = Path(done.output).resolve().as_uri()
    if (on_terminal() if opened is None else opened) and not webbrowser.open(address):
        say(f"note: no browser was found; open {address} yourself")
    facts: dict[str, Any] = {"output": done.output, **workflows.without_pictures(done.report or {})}
    return Result(facts, [f"Report: {done.output}"], done.report)

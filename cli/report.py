"""`vaeguard report`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .inputs import find_model
from .options import json_option
from .output import command_line, console, print_json, say


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--compare", is_flag=True, help="Put several reports of one kind side by side in one page.")
@click.option("-o", "--output", metavar="DIR", help="With --compare, the folder of the page.  [default: comparison]")
@click.option("--open/--no-open", "opened", default=None, help="Open the page.  [default: on a terminal]")
@json_option
def report(paths: tuple[str, ...], output: str | None, opened: bool | None, *, compare: bool, as_json: bool) -> None:
    """Write report.html from report.json, say what it says, and open it.

    PATH is a run, a search, an evaluation, a benchmark, a folder of clean scans, a table that score wrote, or a
    report.json itself; by default the latest run. The page is one file that needs no network.
    """
    from vaeguard import (
        UsageError,
        check_place,
        compare_reports,
        remake_page,
        show_report,
        without_pictures,
        write_report,
    )

    if compare:
        place = Path(output or "comparison") / "report.json"
        check_place(place, "comparison")
        found = compare_reports(paths, command_line())
        page = write_report(place, found)
    else:
        if len(paths) > 1:
            raise UsageError("several reports go side by side with --compare; give one without it")
        if output:
            raise UsageError("-o goes with --compare; the page of a report lies beside its JSON")
        found, page = remake_page(paths[0] if paths else find_model(None))
    if as_json:
        print_json({"output": str(page), **without_pictures(found)})
    else:
        show_report(found, console())
        click.echo(f"report -> {page}")
    if opened or (opened is None and sys.stdout.isatty()):
        _open(page.resolve().as_uri())


def _open(address: str) -> None:
    import webbrowser

    if not webbrowser.open(address):
        say(f"note: no browser was found; open {address}")

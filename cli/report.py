"""`vaeguard report`."""

from __future__ import annotations

import sys

import click

from .common import command_line, find_model, json_option, print_json, say


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--compare", is_flag=True, help="Put several reports of one kind side by side in one page.")
@click.option("-o", "--output", metavar="DIR", help="With --compare, the folder of the page.  [default: comparison]")
@click.option("--open/--no-open", "opened", default=None, help="Open the page.  [default: on a terminal]")
@json_option
def report(paths: tuple[str, ...], output: str | None, opened: bool | None, *, compare: bool, as_json: bool) -> None:
    """Write report.html from report.json, say what it says, and open it.

    PATH is a run, an evaluation, a benchmark, a folder of clean scans, a table that score wrote, or a report.json
    itself; by default the latest run. The page is one file that needs no network.
    """
    from rich.console import Console

    from vaeguard import (
        UsageError,
        compare_reports,
        read_report,
        report_path,
        show_report,
        without_pictures,
        write_report,
    )

    if compare:
        if len(paths) < 2:
            raise UsageError("--compare needs two reports or more; name them: vaeguard report --compare A B")
        found, place = compare_reports(paths, command_line()), report_path_of(output)
    else:
        if len(paths) > 1:
            raise UsageError("several reports go side by side with --compare; give one without it")
        if output:
            raise UsageError("-o goes with --compare; the page of a report lies beside its JSON")
        place = str(report_path(paths[0] if paths else find_model(None)))
        found = read_report(place)
    page = write_report(place, found)
    if as_json:
        print_json({"output": str(page), **without_pictures(found)})
    else:
        show_report(found, Console())
        click.echo(f"report -> {page}")
    if opened or (opened is None and sys.stdout.isatty()):
        _open(page.resolve().as_uri())


def report_path_of(output: str | None) -> str:
    """Where the JSON of a comparison goes."""
    from pathlib import Path

    return str(Path(output or "comparison") / "report.json")


def _open(address: str) -> None:
    import webbrowser

    if not webbrowser.open(address):
        say(f"note: no browser was found; open {address}")

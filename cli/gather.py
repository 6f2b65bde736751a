"""`vaeguard gather`."""

from __future__ import annotations

import click

from vaeguard import ScoreSummary, workflows
from vaeguard.workflows import counted

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    click.argument("place"),
    click.option("-o", "--output", metavar="FOLDER", help="Write one Parquet file a part here, instead of the table."),
    click.option("-m", "--model", metavar="MODEL", help="The model, for the report.  [default: that of the shares]"),
    o.report_option,
    o.json_option,
)
def gather(place: str, output: str | None, *, model: str | None, report: bool) -> Result:
    """Join what the shares of a job made, once all of them have ended.

    PLACE is the output of commands with --piece, a table or a clean tree, or the folder of their parts. The table is
    that of one `vaeguard score` without --piece, byte for byte, with <output>.errors.csv and a report. Neither model
    nor images are read for it, but for a report they are, if they are there. With -o FOLDER, a table that is too large
    for one file becomes a folder of Parquet files.

    If parts are missing, the command names them and ends with 1; if inputs could not be read, it ends with 3.
    """
    done = workflows.gather_to(place, output, reporter(), model=model, report=report)
    summary = done.result
    page = f"{done.output}.report.html"
    if isinstance(summary, ScoreSummary):
        first = f"{counted(summary.images, 'image')}, {summary.anomalies:,} anomalous -> {done.output}"
        listed = f"see {done.output}.errors.csv"
    else:
        first = f"{counted(summary.pages, 'page')} in {counted(summary.files, 'file')} -> {done.output}"
        page, listed = f"{done.output}/report.html", f"see {done.output}/pages.csv.errors.csv"
    lines = [f"report -> {page}"] if done.report else []
    return Result(summary.to_dict(), lines, done.report, errors=done.errors, listed=listed, first=first)

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
    click.option(
        "-o", "--output", metavar="FOLDER", help="Write the table as a folder of Parquet files, one per part."
    ),
    click.option("-m", "--model", metavar="MODEL", help="The model, for the report.  [default: that of the shares]"),
    o.report_option,
    o.json_option,
)
def gather(place: str, output: str | None, *, model: str | None, report: bool) -> Result:
    """Combine the shares of a job after all of them have finished.

    PLACE is the output of commands with --piece, a table or a clean tree, or the folder of their parts. The table is
    the same, byte for byte, as from one `vaeguard score` without --piece, with <output>.errors.csv and a report. Only
    the report needs the model and the images; if they are missing, the command writes less of it. With -o FOLDER, the
    table becomes a folder of Parquet files, for tables too large for one file.

    If parts are missing, the command names them and ends with exit code 1; if inputs could not be read, with 3.
    """
    done = workflows.gather_to(place, output, reporter(), model=model, report=report)
    summary = done.result
    page = f"{done.output}.report.html"
    if isinstance(summary, ScoreSummary):
        first = f"{counted(summary.images, 'image')}, {summary.anomalies:,} anomalous; saved to {done.output}"
        listed = f"see {done.output}.errors.csv"
    else:
        first = f"{counted(summary.pages, 'page')} in {counted(summary.files, 'file')}; saved to {done.output}"
        page, listed = f"{done.output}/report.html", f"see {done.output}/pages.csv.errors.csv"
    lines = [f"Report: {page}"] if done.report else []
    return Result(summary.to_dict(), lines, done.report, errors=done.errors, listed=listed, first=first)

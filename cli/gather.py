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
    click.option("-m", "--model", metavar="MODEL", help="Model for the report.  [default: the model of the shares]"),
    o.report_option,
    o.json_option,
)
def gather(place: str, output: str | None, *, model: str | None, report: bool) -> Result:
    """Combine the shares of a job after all of them have finished.

    PLACE is the output given to the commands with --piece: a table, or a folder of clean scans. It can also be the
    folder that holds the finished parts. The output is the same, byte for byte, as that of a single command without
    --piece. The model and the images are needed only for the report of a table: without the model, no report is
    written; without the images, it has no pictures. For a table that is too large for one file, -o FOLDER writes a
    folder of Parquet files instead.

    If shares are missing, the command names what they did not finish and exits with code 1. If inputs could not be
    read, it lists them and exits with code 3.
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

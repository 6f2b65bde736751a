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
        "-o",
        "--output",
        metavar="FOLDER",
        help="Write the table to this folder as Parquet files, one for each part of the job.",
    ),
    click.option(
        "-m", "--model", metavar="MODEL", help="The model, for the report.  [default: the model that the shares used]"
    ),
    o.report_option,
    o.json_option,
)
def gather(place: str, output: str | None, *, model: str | None, report: bool) -> Result:
    """Combine the shares of a job after all of them have finished.

    PLACE is the output (-o) of the commands with --piece: a table, or a folder of clean scans. PLACE can also be the
    folder whose name ends in .job and that holds the parts of the job; each part has the results for some of the
    images, or for one scan. The combined output is the same, byte for byte, as that of a single command without
    --piece.

    The model and the images are needed only for the report of a table. Without the model, no report is written; without
    the images, the report has no pictures. If a table is too large for one file, use -o FOLDER to write a folder of
    Parquet files instead.

    If a share has not finished, the command names the missing parts and exits with code 1. If images or scans could not
    be read, the command lists them and exits with code 3.
    """
    done = workflows.gather_to(place, output, reporter(), model=model, report=report)
    summary = done.result
    page = f"{done.output}.report.html"
    if isinstance(summary, ScoreSummary):
        images = counted(summary.images, "image")
        first = f"Results of {images} combined, {summary.anomalies:,} anomalous; saved to {done.output}"
        listed = f"see {done.output}.errors.csv"
    else:
        pages, files = counted(summary.pages, "page"), counted(summary.files, "file")
        first = f"Results of {pages} in {files} combined; saved to {done.output}"
        page, listed = f"{done.output}/report.html", f"see {done.output}/pages.csv.errors.csv"
    lines = [f"Report: {page}"] if done.report else []
    return Result(summary.to_dict(), lines, done.report, errors=done.errors, listed=listed, first=first)

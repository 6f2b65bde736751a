"""`vaeguard refit`."""

from __future__ import annotations

import shlex

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    o.data_argument,
    o.run_option,
    click.option(
        "--labels",
        required=True,
        metavar="TABLE",
        help="The file labels.csv that you saved from the report of `vaeguard score`.",
    ),
    o.groups_option,
    o.output_option("", "Run folder of the new model.", shown="runs/<data>-<model>-<time>", metavar="RUN"),
    o.json_option,
)
def refit(data: str | None, model: str | None, labels: str, groups: str | None, output: str | None) -> Result:
    """Fit a model again, with images that you reviewed and found normal.

    Before you run this command, open the report of `vaeguard score`, mark the flagged images and a random sample of all
    images (the audit) as normal, defect or unsure, and save the marks as labels.csv.

    The new model is fitted with the settings and the data of the old run; give DATA only if the data have moved. Images
    of the audit that you marked as normal are added to the data. Images that were flagged by mistake train the new
    model but do not calibrate its score, because they were chosen by their score. The new model never learns from
    defects. From the marks, the command also estimates the false-alarm rate of the old model and the share of defects
    that the old model caught.

    To continue an interrupted refit, run the same command again, with -o set to the folder of the interrupted run.
    """
    said = reporter()
    done = workflows.refit_run(workflows.find_model(model, said), labels, data, output, said, groups=groups)
    assert done.report is not None
    facts = {
        "run": done.output,
        "seconds": done.seconds,
        **done.result.info.record.to_dict(),
        "refit": done.report["refit"],
        "errors": workflows.as_objects(done.errors),
    }
    lines = [
        f"Fitted in {done.seconds:.1f} s; report: {done.output}/report.html",
        f"Next: vaeguard score IMAGES -m {shlex.quote(done.output)}",
    ]
    return Result(facts, lines, done.report, errors=done.errors)

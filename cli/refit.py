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
    o.model_option,
    click.option("--labels", required=True, metavar="TABLE", help="labels.csv, as the page of a batch saves it."),
    o.groups_option,
    o.output_option("", "Run folder.", shown="runs/<data>-<model>-<time>", metavar="RUN"),
    o.json_option,
)
def refit(data: str | None, model: str | None, labels: str, groups: str | None, output: str | None) -> Result:
    """Fit a model again, with images of a batch that were found to be normal.

    `vaeguard score` writes a page on which flagged images and a random audit are marked as normal, defect or unsure,
    and which saves the marks as labels.csv. The new run has the settings and the data of the old one; DATA says where
    these data are now, if they were moved. Normal images of the audit join the data. Images that were flagged by
    mistake train the model but do not calibrate it, since they were chosen by their score. Defects are never learned
    from. From the marks, the false-alarm rate of the old model and the share of defects that it caught are estimated.
    An interrupted refit goes on when the same command is given again with its -o.
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
        f"fitted in {done.seconds:.1f} s; how it went -> {done.output}/report.html",
        f"next: vaeguard score IMAGES -m {shlex.quote(done.output)}",
    ]
    return Result(facts, lines, done.report, errors=done.errors)

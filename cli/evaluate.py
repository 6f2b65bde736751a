"""`vaeguard evaluate`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import workflows

from . import options as o
from .commands import command, with_options
from .fit import fit
from .output import Result, reporter


@command(
    o.data_argument,
    o.model_option,
    o.normal_classes_option("those of the fit"),
    o.output_option("", "Folder for the report.", shown="evaluation-[<folder>-]<data> in the run folder",
                    metavar="DIR"),
    o.fpr_option,
    click.option("--masks", metavar="DIR",
        help="Also measure how well heatmaps locate defects. DIR contains masks of the defects, named"
         " <class>/<name>.png or <class>/<name>_mask.png."),
    o.engine_option,
    o.json_option,
)  # fmt: skip
def evaluate(data: str | None, output: str | None, **options: Any) -> Result:
    """Measure how well a model separates anomalies from normal images.

    DATA is a data set with classes, in one of the forms that `vaeguard fit` accepts. By default, DATA is the named data
    set that the model was fitted on. If DATA has a training and a test part, the test part is used.

    The command prints a summary and writes report.html, with the ROC-AUC and its confidence interval, precision and
    recall, the measured false-alarm rate, results for each term of the score and for each class, and the images that
    show the strengths and weaknesses of the model best.
    """
    done = workflows.evaluate_to(data, output, reporter(), **options)
    facts = {
        "output": done.output,
        **workflows.without_pictures(done.report or {}),
        "left_out": done.left_out,
        "errors": workflows.as_objects(done.errors),
    }
    steps = [f"Try next: {with_options(step, fit)}" for step in facts["next_steps"]]
    lines = [*steps, f"Report: {done.output}/report.html"]
    return Result(facts, lines, done.report, errors=done.errors)

"""`vaeguard compare`."""

from __future__ import annotations

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    click.argument("paths", nargs=-1, required=True, metavar="A B..."),
    o.output_option("comparison", "Folder for the page.", metavar="DIR"),
    o.json_option,
)
def compare(paths: tuple[str, ...], output: str) -> Result:
    """Compare several evaluations side by side on one page.

    A, B, ... are folders that `vaeguard evaluate` wrote. If the evaluations used the same images, the page also gives a
    confidence interval for the difference between the two highest ROC-AUCs.
    """
    done = workflows.compare_to(paths, output, reporter())
    facts = {"output": done.output, **workflows.without_pictures(done.report or {})}
    return Result(facts, [f"Report: {done.output}"], done.report)

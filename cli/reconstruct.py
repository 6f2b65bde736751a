"""`vaeguard reconstruct`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    o.data_argument,
    o.model_option,
    o.output_option("reconstructions.png"),
    click.option("--by", default="score", show_default=True, metavar="TERM",
        help="Sort by the score or by one of its terms, such as recon_error for the best and the worst"
        " reconstructions."),
    o.json_option,
)  # fmt: skip
def reconstruct(data: str | None, output: str, **options: Any) -> Result:
    """Draw images of DATA, from least to most anomalous, with their reconstructions and heatmaps.

    The picture shows the least anomalous images, some from the middle, and the most anomalous ones. By default, DATA is
    the named data set that the model was fitted on. A model of features gives no reconstructions.
    """
    done = workflows.reconstruct_to(data, output, reporter(), **options)
    paths, total = done.result["images"], done.result["of"]
    line = f"{len(paths)} of {total} images saved to {output}, sorted by {options['by']}, lowest first"
    facts = {"output": output, "images": paths, "left_out": done.left_out, "errors": workflows.as_objects(done.errors)}
    return Result(facts, [line], errors=done.errors)

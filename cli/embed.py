"""`vaeguard embed`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import workflows
from vaeguard.workflows import PROJECTIONS

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    o.data_argument,
    o.model_option,
    o.output_option("latents.parquet", "Table: .parquet, .csv or .jsonl."),
    o.split_option,
    click.option("--plot", type=click.Choice(PROJECTIONS), help="Also draw every image as a point, into a report"
                 " beside the table; a latent of two units as it is."),
    o.json_option,
)  # fmt: skip
def embed(data: str | None, output: str, **options: Any) -> Result:
    """Write the latent of every image of DATA: mean and log-variance of each unit, and the class, where known.

    Without DATA it is the named set that the model was fitted on.
    """
    done = workflows.embed_table(data, output, reporter(), **options)
    table = done.result
    units = sum(column.startswith("mean_") for column in table["columns"])
    lines = [f"{table['images']} latents of {units} units -> {output}"]
    if table["report"]:
        lines.append(f"where they lie -> {table['report']}")
    return Result(
        {"output": output, **table, "left_out": done.left_out, "errors": workflows.as_objects(done.errors)},
        lines,
        errors=done.errors,
    )

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
    o.run_option,
    o.output_option("latents.parquet", "Table to write, a .parquet, .csv or .jsonl file."),
    o.split_option,
    click.option("--plot", type=click.Choice(PROJECTIONS),
        help="Also write a report next to the table, with a plot in which every image is a point. The latent"
        " vectors are projected by PCA or t-SNE, unless they have only two units."),
    o.json_option,
)  # fmt: skip
def embed(data: str | None, output: str, **options: Any) -> Result:
    """Save the latent vectors of the images of DATA as a table.

    The table has one row per image, with the mean and the log-variance of each latent unit, and with the class, if
    known. By default, DATA is the named data set that the model was fitted on.
    """
    done = workflows.embed_table(data, output, reporter(), **options)
    table = done.result
    units = sum(column.startswith("mean_") for column in table["columns"])
    lines = [f"{table['images']:,} latent vectors of {workflows.counted(units, 'unit')} saved to {output}"]
    if table["report"]:
        lines.append(f"Report: {table['report']}")
    return Result(
        {"output": output, **table, "left_out": done.left_out, "errors": workflows.as_objects(done.errors)},
        lines,
        errors=done.errors,
    )

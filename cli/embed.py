"""`vaeguard embed`."""

from __future__ import annotations

import re
from typing import Literal

import click

from vaeguard import PROJECTIONS, as_objects

from .inputs import open_generative, open_images_for
from .options import data_dir_option, device_option, download_option, json_option, model_option
from .output import command_line, complain_of_left_out, print_json


@click.command()
@click.argument("data", required=False)
@model_option
@click.option("-o", "--output", default="latents.parquet", show_default=True, help="Table: .parquet, .csv or .jsonl.")
@click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True,
              help="Part of a named set.")  # fmt: skip
@click.option("--plot", type=click.Choice(PROJECTIONS), help="Also draw every image as a point, into a report"
              " beside the table; a latent of two units as it is.")  # fmt: skip
@device_option
@data_dir_option
@download_option
@json_option
def embed(
    data: str | None, model: str | None, output: str, split: Literal["train", "test"], plot: str | None, device: str,
    data_dir: str | None, *, download: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write the latent of every image of DATA: mean and log-variance of each unit, and the class, where known.

    Without DATA it is the named set that the model was fitted on.
    """
    from vaeguard import (
        check_place,
        check_replaced,
        check_table_path,
        embeddings,
        remove_report,
        write_embedding_report,
        write_table,
    )

    check_table_path(output)
    known = re.compile(r"path|class|(mean|logvar)_\d+").fullmatch
    check_replaced(output, "latents", lambda columns: "mean_0" in columns[:3], known)
    check_place(f"{output}.report.json", "embedding")
    detector = open_generative(model, device, vectors=True)
    images = open_images_for(data, detector, data_dir, split=split, download=download)
    columns = embeddings(detector, images)
    write_table(output, columns)
    remove_report(f"{output}.report.json", "embedding")  # of an earlier table
    page = write_embedding_report(output, images, columns, plot, command=command_line()) if plot else None
    if as_json:
        print_json({"output": output, "images": len(images), "columns": list(columns), "report": page and str(page),
                    "errors": as_objects(images.errors)})  # fmt: skip
    else:
        click.echo(f"{len(images)} latents of {detector.graph.vae.spec.latent_size} units -> {output}")
        if page:
            click.echo(f"where they lie -> {page}")
    complain_of_left_out(images.errors)

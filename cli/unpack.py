"""`vaeguard unpack`."""

from __future__ import annotations

import click

from .options import data_dir_option, download_option, json_option
from .output import print_json, say_note


@click.command()
@click.argument("data")
@click.option(
    "--split", type=click.Choice(["train", "test"]), default="test", show_default=True, help="Part of a named set."
)
@click.option("-o", "--output", metavar="DIR", help="Folder to write to.  [default: <data>-<split>]")
@data_dir_option
@download_option
@json_option
def unpack(data: str, split: str, output: str | None, data_dir: str | None, download: bool, as_json: bool) -> None:
    """Write a data set as PNG files in class folders.

    DATA is a named set, an IDX file or a folder of them, an .npz, an .npy, a tar archive or a Parquet file.
    """
    from vaeguard import open_packed, write_images

    images = open_packed(data, split="train" if split == "train" else "test", data_dir=data_dir, download=download)
    folder = output or f"{images.name}-{split}"
    say_note(images)
    write_images(images, folder)
    if as_json:
        print_json({"output": folder, "images": len(images.images)})
    else:
        click.echo(f"{len(images.images)} images -> {folder}")

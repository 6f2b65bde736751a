"""`vaeguard unpack`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result


@command(
    click.argument("data"),
    o.split_option,
    o.output_option("", "Folder to write to.", shown="<data>-<split>", metavar="DIR"),
    o.download_option,
    o.json_option,
)
def unpack(data: str, split: Any, output: str | None, *, download: bool) -> Result:
    """Write a data set as PNG files in class folders.

    DATA is a named set, an IDX file or a folder of them, an .npz, an .npy, a tar archive or a Parquet file.
    """
    done = workflows.unpack_to(data, output, split, download=download)
    return Result({"output": done.output, "images": done.result}, [f"{done.result} images -> {done.output}"])

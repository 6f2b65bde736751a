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
    o.output_option("", "Folder for the images.", shown="<data>-<split>", metavar="DIR"),
    click.option("--download", is_flag=True, help="Download the named data set if it is missing."),
    o.json_option,
)
def unpack(data: str, split: Any, output: str | None, *, download: bool) -> Result:
    """Save a data set as PNG files, in one folder per class.

    DATA is a named data set, a folder of IDX files, or an IDX, .npz, .npy, tar or Parquet file.
    """
    done = workflows.unpack_to(data, output, split, download=download)
    return Result(
        {"output": done.output, "images": done.result},
        [f"{workflows.counted(done.result, 'image')} saved to {done.output}"],
    )

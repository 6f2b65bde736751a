"""`vaeguard undo`."""

from __future__ import annotations

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    click.argument("clean"),
    o.output_option("", "Where the originals go.", shown="CLEAN-originals", metavar="FOLDER"),
    o.json_option,
)
def undo(clean: str, output: str | None) -> Result:
    """Write the originals of clean scans, bit for bit, from the residuals that were written with them.

    CLEAN is a folder that `vaeguard denoise --residual` wrote. The originals get the names of the clean files.
    """
    done = workflows.undo_tree(clean, output, reporter())
    facts = {"output": done.output, "files": done.result, "errors": workflows.as_objects(done.errors)}
    return Result(
        facts, [f"originals of {workflows.counted(done.result, 'file')} -> {done.output}"], errors=done.errors
    )

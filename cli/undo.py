"""`vaeguard undo`."""

from __future__ import annotations

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    click.argument("clean"),
    o.output_option("", "Folder for the restored files.", shown="CLEAN-originals", metavar="FOLDER"),
    o.json_option,
)
def undo(clean: str, output: str | None) -> Result:
    """Restore the pixels of the original scans, bit for bit, from the clean scans and the differences saved with them.

    Only the pixels are the same: the files are written anew, so their SHA-256 sums differ from those of the scans. Keep
    the scans if you need the original files.

    CLEAN is a folder that `vaeguard denoise --residual` wrote, or one clean file in such a folder. Each restored file
    gets the name of its clean file; no existing file is overwritten.
    """
    done = workflows.undo_tree(clean, output, reporter())
    facts = {"output": done.output, "files": done.result, "errors": workflows.as_objects(done.errors)}
    return Result(
        facts, [f"Originals of {workflows.counted(done.result, 'file')} saved to {done.output}"], errors=done.errors
    )

"""`vaeguard check`."""

from __future__ import annotations

import click

from vaeguard import RefusedError, workflows

from . import options as o
from .commands import command
from .output import Result, reporter, say


@command(click.argument("clean"), o.json_option)
def check(clean: str) -> Result:
    """Check that no file in a folder of clean scans has changed since it was written, not even by a bit.

    CLEAN is a folder that `vaeguard denoise` wrote. Each clean file is compared with the SHA-256 in its record,
    <file>.json.
    """
    done = workflows.check_tree(clean, reporter())
    for path, reason in done.errors:
        say(f"{path!r}: {reason}")
    failure = None
    if done.errors:
        failed = workflows.counted(len(done.errors), "file")
        failure = RefusedError(
            f"{failed} failed the check, such as {done.errors[0][0]!r}; restore changed or missing files from a backup"
        )
    line = f"{workflows.counted(done.result, 'file', 'is are')} unchanged in {clean}"
    facts = {"output": clean, "files": done.result, "errors": workflows.as_objects(done.errors)}
    return Result(facts, [line], failure=failure)

"""`vaeguard check`."""

from __future__ import annotations

import click

from vaeguard import RefusedError, workflows

from . import options as o
from .commands import command
from .output import Result, reporter, say


@command(click.argument("clean"), o.json_option)
def check(clean: str) -> Result:
    """Check that no file in a folder of clean scans has changed, bit for bit, since it was written.

    CLEAN is a folder that `vaeguard denoise` wrote; each file is compared with the digest in its record.
    """
    done = workflows.check_tree(clean, reporter())
    for path, reason in done.errors:
        say(f"{path!r}: {reason}")
    failure = None
    if done.errors:
        failed = workflows.counted(len(done.errors), "file", "fails fail")
        failure = RefusedError(
            f"{failed} the check, the first is {done.errors[0][0]!r}; restore the changed files from a backup"
        )
    line = f"{workflows.counted(done.result, 'file', 'is are')} unchanged in {clean}"
    facts = {"output": clean, "files": done.result, "errors": workflows.as_objects(done.errors)}
    return Result(facts, [line], failure=failure)

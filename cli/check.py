"""`vaeguard check`."""

from __future__ import annotations

import click

from vaeguard import RefusedError, workflows

from . import options as o
from .commands import command
from .output import Result, reporter, say


@command(click.argument("clean"), o.json_option)
def check(clean: str) -> Result:
    """Tell whether every file of a clean tree is still, bit for bit, as it was written.

    CLEAN is a folder that `vaeguard denoise` wrote; its files are compared with the digests in its records.
    """
    done = workflows.check_tree(clean, reporter())
    for path, reason in done.errors:
        say(f"{path!r}: {reason}")
    files, failed = workflows.counted(done.result, "file"), workflows.counted(len(done.errors), "file")
    failure = None
    if done.errors:
        were = "is not as it was" if len(done.errors) == 1 else "are not as they were"
        failure = RefusedError(f"{failed} {were} written, the first {done.errors[0][0]!r}; take them from a copy")
    line = f"{files} in {clean} {'is as it was' if done.result == 1 else 'are as they were'} written"
    facts = {"output": clean, "files": done.result, "errors": workflows.as_objects(done.errors)}
    return Result(facts, [line], failure=failure)

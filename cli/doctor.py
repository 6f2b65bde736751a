"""`vaeguard doctor`."""

from __future__ import annotations

from vaeguard import VaeguardError

from . import options as o
from .commands import command
from .output import Result


@command(o.json_option)
def doctor() -> Result:
    """Report versions, devices, data sets, and how to fix what is wrong."""
    from vaeguard.doctor import examine

    examination = examine()
    failed = [check.name for check in examination.checks if check.status == "fail"]
    complaint = f"{len(failed)} checks failed: {', '.join(failed)}; the advice stands above"
    failure = VaeguardError(complaint) if failed else None
    return Result(examination.to_dict(), table=examination.rich_table(), failure=failure)

"""`vaeguard doctor`."""

from __future__ import annotations

from vaeguard import VaeguardError, workflows

from . import options as o
from .commands import command
from .output import Result


@command(o.json_option)
def doctor() -> Result:
    """Check the installation (versions, devices and data sets), and suggest how to fix problems."""
    from vaeguard.doctor import examine

    examination = examine()
    failed = [check.name for check in examination.checks if check.status == "fail"]
    complaint = f"{workflows.counted(len(failed), 'check')} failed: {', '.join(failed)}; follow the advice above"
    failure = VaeguardError(complaint) if failed else None
    return Result(examination.to_dict(), table=examination.rich_table(), failure=failure)

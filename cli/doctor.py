"""`vaeguard doctor`."""

from __future__ import annotations

import click

from .options import data_dir_option, json_option
from .output import print_json


@click.command()
@data_dir_option
@json_option
def doctor(data_dir: str | None, as_json: bool) -> None:
    """Report versions, devices, data sets, and how to fix what is wrong."""
    from rich.console import Console

    from vaeguard import VaeguardError, examine

    examination = examine(data_dir)
    if as_json:
        print_json(examination.to_dict())
    else:
        Console().print(examination.rich_table())
    failed = [check.name for check in examination.checks if check.status == "fail"]
    if failed:
        raise VaeguardError(f"{len(failed)} checks failed: {', '.join(failed)}; the advice stands above")

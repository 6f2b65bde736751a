"""`vaeguard verify`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import RefusedError, workflows

from . import options as o
from .commands import command
from .output import Result, parity_line, parity_table, reporter


@command(
    click.argument("exported", metavar="FILE.onnx"),
    click.option("-m", "--model", metavar="MODEL", help="The run that the file came from.  [default: what it carries]"),
    o.engine_option,
    click.option(
        "--tolerance",
        type=click.FloatRange(0, min_open=True),
        help="Largest relative error allowed.  [default: by device]",
    ),
    o.json_option,
)
def verify(exported: str, **options: Any) -> Result:
    """Compare the exported model FILE.onnx with PyTorch, on this machine.

    With --model, every output, the order of the scores and the decisions are compared with those of the run, on its
    calibration images and on noise, in batches of 1, 7, 64 and 256. Without it, the scores, p-values and terms of noise
    are compared with those that the file carries from its export, which needs neither the run nor PyTorch.
    """
    parity = workflows.verify_export(exported, reporter(), **options)
    failure = None
    try:
        parity.check(exported)
    except RefusedError as error:
        failure = error
    lines = [parity_line(parity), *([] if failure else [f"{exported} says what PyTorch says"])]
    return Result({"model": exported, **parity.to_dict()}, lines, table=parity_table(parity), failure=failure)

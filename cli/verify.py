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
    click.option(
        "-m",
        "--model",
        metavar="MODEL",
        help="Run folder of the original model.  [default: compare with the results that are stored in the file]",
    ),
    o.engine_option,
    click.option(
        "--tolerance",
        type=click.FloatRange(0, min_open=True),
        help="Largest relative error that is allowed.  [default: depends on the device]",
    ),
    o.json_option,
)
def verify(exported: str, **options: Any) -> Result:
    """Check that the exported model FILE.onnx gives the same results on this machine as the PyTorch model.

    With --model, the command compares every output, the ranking by score and the flagged images with those of the
    original run. It uses calibration images of the run and random noise, in batches of 1, 7, 64 and 256. Without
    --model, the command scores random noise and compares the results with those that `vaeguard export` stored in the
    file; this needs neither the run nor PyTorch.
    """
    parity = workflows.verify_export(exported, reporter(), **options)
    failure = None
    try:
        parity.check(exported)
    except RefusedError as error:
        failure = error
    original = "the PyTorch model" if options["model"] else "the PyTorch results stored in it"
    lines = [parity_line(parity), *([] if failure else [f"{exported} agrees with {original}"])]
    return Result({"model": exported, **parity.to_dict()}, lines, table=parity_table(parity), failure=failure)

"""`vaeguard export`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import workflows
from vaeguard.workflows import ExportSettings

from . import options as o
from .commands import command, settled
from .output import Result, parity_line, parity_table, reporter


@command(
    o.run_option,
    o.output_option("model.onnx", "ONNX file to write."),
    o.field_option(ExportSettings, "fpr"),
    click.option("--triton", metavar="DIR", help="Also write a model repository for NVIDIA Triton."),
    o.set_option,
    o.json_option,
    specs={"export": ExportSettings},
)
def export(output: str, model: str | None, triton: str | None, **given: Any) -> Result:
    """Export a model, with its calibration, as one ONNX file that takes pixels and returns all results.

    The file is opened again and compared with the PyTorch model, on calibration images of the run and on random noise.
    It is kept only if every output, the ranking by score and the decisions agree. With --set export.parts=true, the
    encoder and the decoder are also written as separate files, and the files are kept only if all three agree.
    """
    (settings,) = settled(given)
    export = workflows.export_run(output, reporter(), model=model, settings=settings, triton=triton).result
    lines = [parity_line(export["parity"]), f"Exported to {', '.join((output, *(export['parts'] or {}).values()))}"]
    if triton:
        lines.append(f"Model repository: {triton}; start the server with `tritonserver --model-repository={triton}`")
    facts = {"output": output, **export, "parity": export["parity"].to_dict()}
    return Result(facts, lines, table=parity_table(export["parity"]))

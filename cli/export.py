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
    click.option("--triton", metavar="DIR", help="Also write a model repository for NVIDIA Triton to this folder."),
    o.set_option,
    o.json_option,
    specs={"export": ExportSettings},
)
def export(output: str, model: str | None, triton: str | None, **given: Any) -> Result:
    """Export a model, with its calibration, as one ONNX file that takes pixels and returns all results.

    The file is opened again and compared with the PyTorch model, on calibration images of the run and on random noise.
    The file is kept only if both models agree in every output, in the ranking by score and in which images they flag.
    With --set export.parts=true, the encoder and the decoder are also written, each to a file of its own; the three
    files are kept only if each of them agrees with the PyTorch model.
    """
    (settings,) = settled(given)
    export = workflows.export_run(output, reporter(), model=model, settings=settings, triton=triton).result
    lines = [parity_line(export["parity"]), f"Exported to {', '.join((output, *(export['parts'] or {}).values()))}"]
    if triton:
        lines.append(f"Model repository: {triton}; start the server with `tritonserver --model-repository={triton}`")
    facts = {"output": output, **export, "parity": export["parity"].to_dict()}
    return Result(facts, lines, table=parity_table(export["parity"]))

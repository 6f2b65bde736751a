"""`vaeguard export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from .inputs import find_model
from .options import fpr_option, json_option, model_option, tolerance_option
from .output import print_json, say, say_parity


@click.command()
@model_option
@click.option("-o", "--output", default="model.onnx", show_default=True, help="File to write.")
@click.option(
    "--pixels",
    type=click.Choice(["uint8", "float32"]),
    default="uint8",
    show_default=True,
    help="Type of the input image: 0 to 255, or 0 to 1.",
)
@fpr_option
@click.option("--fp16", is_flag=True, help="Compute the network in float16, for GPUs.")
@click.option("--parts", is_flag=True, help="Also write the encoder and the decoder as files of their own.")
@click.option("--triton", metavar="DIR", help="Also write a model repository for NVIDIA Triton.")
@tolerance_option
@json_option
def export(
    model: str | None, output: str, pixels: Literal["uint8", "float32"], fpr: float, fp16: bool, parts: bool,
    triton: str | None, tolerance: float | None, as_json: bool,
) -> None:  # fmt: skip
    """Write the model as one ONNX file: pixels in, all results out, calibration inside.

    The file is opened again and compared with PyTorch on calibration images of the run and on noise; it appears only if
    every output, the order of the scores and the decisions agree. With --parts no file appears before all three agree.
    """
    from vaeguard import UsageError, calibration_images, load, part_paths, write_triton
    from vaeguard import export as export_model

    if triton and (Path(triton) / "vaeguard").exists():
        raise UsageError(f"--triton {triton!r} holds a model already; choose another folder, or delete it")
    path = find_model(model)
    images = calibration_images(path)
    if images is None:
        say(f"note: there are no calibration images beside {path!r}; compared on noise only")
    parity = export_model(
        load(path, "cpu"), output, images=images, pixels=pixels, fpr=fpr, fp16=fp16, tolerance=tolerance, parts=parts
    )
    written = {part: str(place) for part, place in part_paths(output).items()} if parts else None
    if triton:
        write_triton(output, triton)
    if as_json:
        print_json({"output": output, "parts": written, "triton": triton, "parity": parity.to_dict()})
        return
    say_parity(parity)
    click.echo(f"exported -> {', '.join((output, *(written or {}).values()))}")
    if triton:
        click.echo(f"model repository -> {triton}; start it with `tritonserver --model-repository={triton}`")

"""`vaeguard verify`."""

from __future__ import annotations

import click

from .inputs import find_model
from .options import engine_option, json_option, model_option, tolerance_option
from .output import print_json, say, say_parity


@click.command()
@click.argument("exported", metavar="FILE.onnx")
@model_option
@engine_option
@tolerance_option
@json_option
def verify(exported: str, model: str | None, device: str, tolerance: float | None, as_json: bool) -> None:
    """Compare the exported model FILE.onnx with the run it came from, on this machine.

    Compared are every output, the order of the scores and the decisions, on calibration images of the run and on noise,
    in batches of 1, 7, 64 and 256.
    """
    from vaeguard import calibration_images, load
    from vaeguard import verify as verify_model

    path = find_model(model)
    images = calibration_images(path)
    if images is None:
        say(f"note: there are no calibration images beside {path!r}; compared on noise only")
    parity = verify_model(load(exported, device), load(path, "cpu"), images, tolerance)
    if as_json:
        print_json({"model": exported, **parity.to_dict()})
    else:
        say_parity(parity)
    parity.check(exported)
    if not as_json:
        click.echo(f"{exported} says what PyTorch says")

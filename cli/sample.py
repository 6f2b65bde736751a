"""`vaeguard sample`."""

from __future__ import annotations

import math

import click

from .inputs import check_picture, find_model, open_generative
from .options import device_option, json_option, model_option
from .output import print_json


@click.command()
@model_option
@click.option("-n", "count", type=click.IntRange(1, 1024), default=64, show_default=True, help="Images to draw.")
@click.option("--class", "class_", metavar="NAME", help="One normal class, of a model fitted with --prior per-class.")
@click.option("--temperature", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
              help="Spread of the latents: below 1 more typical images, above 1 more varied ones.")  # fmt: skip
@click.option("--aggregate", is_flag=True, help="Draw around the latents of calibration images, not from the prior.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed draws the same images."
)
@click.option("-o", "--output", default="samples.png", show_default=True, help="Picture to write.")
@device_option
@json_option
def sample(
    model: str | None, count: int, class_: str | None, temperature: float, seed: int, output: str, device: str, *,
    aggregate: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draw new images as the model thinks that normal ones are."""
    from vaeguard import UsageError, calibration_images, draw_grid

    check_picture(output)
    model = find_model(model)
    detector = open_generative(model, device)
    like = calibration_images(model) if aggregate else None
    if aggregate and like is None:
        raise UsageError(
            f"--aggregate needs the calibration images that a fit leaves in its run, and {model!r} has none"
        )
    images = detector.sample(count, class_=class_, temperature=temperature, seed=seed, like=like)
    columns = math.ceil(math.sqrt(count))
    draw_grid(output, [("", images[at : at + columns]) for at in range(0, count, columns)])
    if as_json:
        print_json({"output": output, "images": count, "class": class_, "temperature": temperature, "seed": seed})
    else:
        click.echo(f"{count} samples -> {output}")

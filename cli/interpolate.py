"""`vaeguard interpolate`."""

from __future__ import annotations

import click

from .inputs import check_picture, open_generative, read_pictures
from .options import device_option, json_option, model_option
from .output import print_json


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="A B [C D]")
@model_option
@click.option("--steps", type=click.IntRange(2, 64), default=10, show_default=True, help="Images on the way.")
@click.option("--spherical", is_flag=True, help="Along a great circle in the latent, not a straight line.")
@click.option("-o", "--output", default="interpolation.png", show_default=True, help="Picture to write.")
@device_option
@json_option
def interpolate(
    images: tuple[str, ...], model: str | None, steps: int, output: str, device: str, *, spherical: bool, as_json: bool
) -> None:
    """Walk through the latent from image A to image B, or over the square between four images."""
    from vaeguard import UsageError, draw_grid, interpolate_latents

    check_picture(output, images)
    if len(images) not in (2, 4):
        raise UsageError(f"give two images, for a walk, or four, for a square, not {len(images)}")
    detector = open_generative(model, device)
    ends = read_pictures(images, detector)
    if len(images) == 2:
        rows = [("", detector.interpolate(ends, steps, spherical=spherical))]
    else:
        top_left, top_right, bottom_left, bottom_right = detector.encode(ends).mean
        left = interpolate_latents(top_left, bottom_left, steps, spherical=spherical)
        right = interpolate_latents(top_right, bottom_right, steps, spherical=spherical)
        ways = [interpolate_latents(a, b, steps, spherical=spherical) for a, b in zip(left, right, strict=True)]
        rows = [("", detector.decode(way)) for way in ways]
    draw_grid(output, rows)
    if as_json:
        print_json({"output": output, "images": list(images), "steps": steps, "spherical": spherical})
    else:
        click.echo(f"{steps} steps between {len(images)} images -> {output}")

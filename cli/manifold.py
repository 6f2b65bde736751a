"""`vaeguard manifold`."""

from __future__ import annotations

import click

from .inputs import check_picture, open_generative
from .options import device_option, json_option, model_option
from .output import print_json


@click.command()
@model_option
@click.option("-n", "side", type=click.IntRange(2, 64), default=20, show_default=True, help="Images on each side.")
@click.option("-o", "--output", default="manifold.png", show_default=True, help="Picture to write.")
@device_option
@json_option
def manifold(model: str | None, side: int, output: str, device: str, *, as_json: bool) -> None:
    """Show a latent of two units whole: the decoder over a grid of quantiles of the prior.

    The grid is as in Kingma and Welling, "Auto-encoding variational Bayes", 2014, figure 4.
    """
    from vaeguard import draw_grid, quantile_grid

    check_picture(output)
    detector = open_generative(model, device)
    draw_grid(output, [("", detector.decode(row)) for row in quantile_grid(detector.graph, side)])
    if as_json:
        print_json({"output": output, "side": side})
    else:
        click.echo(f"{side} x {side} images -> {output}")

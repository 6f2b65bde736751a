"""`vaeguard interpolate`."""

from __future__ import annotations

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    click.argument("images", nargs=-1, required=True, metavar="A B [C D]"),
    o.model_option,
    click.option("--steps", type=click.IntRange(2, 64), default=10, show_default=True, help="Images on the way."),
    click.option("--spherical", is_flag=True, help="Along a great circle in the latent, not a straight line."),
    o.output_option("interpolation.png"),
    o.json_option,
)
def interpolate(images: tuple[str, ...], model: str | None, steps: int, output: str, *, spherical: bool) -> Result:
    """Walk through the latent from image A to image B, or over the square between four images."""
    workflows.interpolate_to(images, output, reporter(), model=model, steps=steps, spherical=spherical)
    facts = {"output": output, "images": list(images), "steps": steps, "spherical": spherical}
    return Result(facts, [f"{steps} steps between {len(images)} images -> {output}"])

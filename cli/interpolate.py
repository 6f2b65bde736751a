"""`vaeguard interpolate`."""

from __future__ import annotations

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    click.argument("images", nargs=-1, required=True, metavar="A B [C D]"),
    o.run_option,
    click.option(
        "--steps",
        type=click.IntRange(2, 64),
        default=10,
        show_default=True,
        help="Number of images in each row of the picture, including both ends.",
    ),
    click.option(
        "--spherical", is_flag=True, help="Follow a great circle in the latent space instead of a straight line."
    ),
    o.output_option("interpolation.png"),
    o.json_option,
)
def interpolate(images: tuple[str, ...], model: str | None, steps: int, output: str, *, spherical: bool) -> Result:
    """Morph image A into image B through the latent space.

    With four images, fill a square that has A and B in its upper corners, and C and D in its lower ones.
    """
    workflows.interpolate_to(images, output, reporter(), model=model, steps=steps, spherical=spherical)
    facts = {"output": output, "images": list(images), "steps": steps, "spherical": spherical}
    return Result(facts, [f"Picture of {steps} steps between {len(images)} images saved to {output}"])

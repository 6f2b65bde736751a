"""`vaeguard sample`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    o.model_option,
    click.option("-n", "count", type=click.IntRange(1, 1024), default=64, show_default=True, help="Images to draw."),
    click.option("--class", "class_", metavar="NAME", help="One normal class, of a model with a prior per class."),
    click.option("--temperature", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
                 help="Spread of the latents: below 1 more typical images, above 1 more varied ones."),
    click.option("--aggregate", is_flag=True, help="Draw around latents of calibration images, not from the prior."),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="The same seed draws the same images."
    ),
    o.output_option("samples.png"),
    o.json_option,
)  # fmt: skip
def sample(count: int, output: str, **options: Any) -> Result:
    """Draw new images as the model thinks that normal ones are."""
    workflows.sample_to(output, reporter(), count=count, **options)
    facts = {"output": output, "images": count, "class": options["class_"]}
    facts |= {name: options[name] for name in ("temperature", "seed")}
    return Result(facts, [f"{count} samples -> {output}"])

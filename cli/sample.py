"""`vaeguard sample`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    o.run_option,
    click.option("-n", "count", type=click.IntRange(1, 1024), default=64, show_default=True,
        help="Number of images to generate."),
    click.option("--class", "class_", metavar="NAME",
        help="Generate images of this normal class only; the model must have been fitted with"
            " --set model.prior=per-class."),
    click.option("--temperature", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
                 help="Spread of the latent vectors: below 1, the images are more typical; above 1, they are more"
                 " varied."),
    click.option("--aggregate", is_flag=True,
        help="Draw latent vectors near those of calibration images instead of from the model's prior distribution."),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True,
            help="Random seed; the same seed gives the same images."
    ),
    o.output_option("samples.png"),
    o.json_option,
)  # fmt: skip
def sample(count: int, output: str, **options: Any) -> Result:
    """Generate images that look normal to the model."""
    workflows.sample_to(output, reporter(), count=count, **options)
    facts = {"output": output, "images": count, "class": options["class_"]}
    facts |= {name: options[name] for name in ("temperature", "seed")}
    return Result(facts, [f"{workflows.counted(count, 'sample')} saved to {output}"])

"""`vaeguard likelihood`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import workflows
from vaeguard.workflows import BOUND_IMAGES, IMPORTANCE_SAMPLES

from . import options as o
from .commands import command
from .output import Result, reporter


@command(
    o.data_argument,
    o.run_option,
    o.output_option("", "Folder for the report.", shown="likelihood-[<folder>-]<data> in the run folder",
                    metavar="DIR"),
    click.option("--samples", type=click.IntRange(min=1), default=IMPORTANCE_SAMPLES, show_default=True,
                 help="Number of samples per image for the importance-weighted bound."),
    click.option("--images", type=click.IntRange(min=0), default=BOUND_IMAGES, show_default=True,
                 help="Compute the bounds for this many randomly chosen images; 0 for all images."),
    o.json_option,
)  # fmt: skip
def likelihood(data: str | None, output: str | None, **options: Any) -> Result:
    """Measure how good a model is as a generative model.

    DATA is a data set as for `vaeguard evaluate`; only its normal images are used. The command computes two upper
    bounds on −log p(x) of these images, the negative ELBO and the importance-weighted bound, in nats and in bits per
    dimension. The report also shows how close samples of the model come to real images, and what the latent units
    encode.
    """
    done = workflows.likelihood_to(data, output, reporter(), **options)
    facts = {
        "output": done.output,
        **workflows.without_pictures(done.report or {}),
        "left_out": done.left_out,
        "errors": workflows.as_objects(done.errors),
    }
    lines = [f"Report: {done.output}/report.html"]
    return Result(facts, lines, done.report, errors=done.errors)

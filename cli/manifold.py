"""`vaeguard manifold`."""

from __future__ import annotations

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(o.model_option, o.output_option("manifold.png"), o.json_option)
def manifold(model: str | None, output: str) -> Result:
    """Show a latent of two units whole: the decoder over a grid of quantiles of the prior.

    The grid is as in Kingma and Welling, "Auto-encoding variational Bayes", 2014, figure 4.
    """
    side = workflows.manifold_to(output, reporter(), model=model).found
    return Result({"output": output, "side": side}, [f"{side} x {side} images -> {output}"])

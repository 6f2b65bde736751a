"""`vaeguard traverse`."""

from __future__ import annotations

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(o.run_option, o.output_option("traversal.png"), o.json_option)
def traverse(model: str | None, output: str) -> Result:
    """Show what each latent unit does, by moving one unit at a time.

    The command starts from the mean latent vector of the calibration images, moves one unit by -3 to 3 standard
    deviations, and decodes the result. The picture has a row for each of the units that carry the most information
    (those with the highest KL divergence), at most ten. Units that carry no information are marked as inactive.
    """
    traversal = workflows.traverse_to(output, reporter(), model=model).result
    units = traversal["units"]
    facts = [
        {"unit": unit, "rate": float(units.rate[unit]), "active": bool(units.active[unit])}
        for unit in units.traversed.tolist()
    ]
    line = (
        f"Picture of {len(facts)} of {len(units.rate)} units saved to {output};"
        f" {int(units.active.sum())} of all latent units are active"
    )
    return Result({"output": output, "steps": list(traversal["steps"]), "units": facts}, [line])

"""`vaeguard traverse`."""

from __future__ import annotations

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import Result, reporter


@command(o.run_option, o.output_option("traversal.png"), o.json_option)
def traverse(model: str | None, output: str) -> Result:
    """Show what each latent unit does: the mean image, with one unit moved from -3 to 3 standard deviations.

    At most ten units are shown, in the order of their rate, highest first. Units that carry no information are marked
    as inactive.
    """
    traversal = workflows.traverse_to(output, reporter(), model=model).result
    units = traversal["units"]
    facts = [
        {"unit": unit, "rate": float(units.rate[unit]), "active": bool(units.active[unit])}
        for unit in units.traversed.tolist()
    ]
    line = (
        f"{len(facts)} of {len(units.rate)} units saved to {output}; {int(units.active.sum())} of all units are active"
    )
    return Result({"output": output, "steps": list(traversal["steps"]), "units": facts}, [line])

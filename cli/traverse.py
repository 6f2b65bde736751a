"""`vaeguard traverse`."""

from __future__ import annotations

import click

from .inputs import check_picture, find_model, open_generative
from .options import device_option, json_option, model_option
from .output import print_json


@click.command()
@model_option
@click.option("-o", "--output", default="traversal.png", show_default=True, help="Picture to write.")
@device_option
@json_option
def traverse(model: str | None, output: str, device: str, *, as_json: bool) -> None:
    """Show what each unit of the latent does: the mean image, with one unit moved from -3 to 3 deviations.

    Units come by falling rate, up to ten of them; those that say nothing are marked as inactive.
    """
    from vaeguard import STEPS, UsageError, calibration_images, draw_grid, latent_units

    check_picture(output)
    model = find_model(model)
    detector = open_generative(model, device)
    images = calibration_images(model)
    if images is None:
        raise UsageError(f"{model!r} has no calibration images, which a fit leaves in its run; name the run")
    units = latent_units(detector.graph, images)
    if units.traversals is None:
        raise UsageError("a model of patches has no latent for a whole image; fit one without --patch")
    rows = []
    for unit, pictures in zip(units.traversed.tolist(), units.traversals, strict=True):
        state = "" if units.active[unit] else ", inactive"
        rows.append((f"unit {unit}, {units.rate[unit]:.2f} nats{state}", pictures))
    draw_grid(output, rows)
    if as_json:
        facts = [
            {"unit": unit, "rate": float(units.rate[unit]), "active": bool(units.active[unit])}
            for unit in units.traversed.tolist()
        ]
        print_json({"output": output, "steps": list(STEPS), "units": facts})
    else:
        active = int(units.active.sum())
        click.echo(f"{len(rows)} of {len(units.rate)} units, {active} active -> {output}")

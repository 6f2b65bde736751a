"""`vaeguard fit-denoiser`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from vaeguard import DenoiserSpec, UsageError, workflows
from vaeguard.workflows import DEGRADATIONS

from . import options as o
from .commands import command, settled
from .output import Result, reporter


@command(
    click.argument("data", required=False),
    click.option("--adapt", metavar="DIR", help="Learn from the noisy photographs in this folder alone."),
    click.option(
        "--noisy",
        metavar="DIR",
        help="Folder of noisy images; --clean names the folder of the same images without noise.",
    ),
    click.option("--clean", metavar="DIR", help="Folder of clean images, with the same names as the noisy ones."),
    click.option(
        "--degrade",
        metavar="HOW",
        help=f"DATA holds clean images; this noise or wear is added to them: {', '.join(DEGRADATIONS)}.",
    ),
    o.output_option("", "Run folder.", shown="runs/denoiser-ladder-<time>", metavar="RUN"),
    o.set_option,
    o.resume_option,
    o.json_option,
    specs={"denoiser": DenoiserSpec},
)
def fit_denoiser(data: str | None, output: str | None, *, resume: bool, **given: Any) -> Result:
    """Train your own denoiser, for use with `vaeguard denoise -m`.

    It learns from noisy photographs alone (--adapt), from pairs of noisy and clean images (--noisy and --clean), or
    from clean images (DATA, a folder or a named set, with --degrade). Training starts from the included weights.
    """
    (spec,) = settled(given)
    if given["degrade"]:
        if given["clean"]:
            raise UsageError("`degrade` adds noise to the images of `data`; remove `clean`")
        given["clean"] = data
    elif data:
        raise UsageError(
            f"`data` {data!r} needs `degrade`; otherwise, name the folders by `adapt`, or by `noisy` and `clean`"
        )
    done = workflows.fit_denoiser_run(given, output, spec, reporter(), resume=resume)
    lines = [
        f"Fitted in {done.seconds:.1f} s; report: {done.output}/report.html",
        f"Next: vaeguard denoise SCANS -m {shlex.quote(done.output)}",
    ]
    return Result(done.result.to_dict(), lines, done.report, errors=done.errors)

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
    click.option("--adapt", metavar="DIR", help="Learn the grain of noisy photographs, without clean ones."),
    click.option("--noisy", metavar="DIR", help="Noisy images, whose clean ones --clean names."),
    click.option("--clean", metavar="DIR", help="The clean images, named as the noisy ones."),
    click.option("--degrade", metavar="HOW", help=f"DATA is clean, and is made worse: {', '.join(DEGRADATIONS)}."),
    o.output_option("", "Run folder.", shown="runs/denoiser-ladder-<time>", metavar="RUN"),
    o.set_option,
    o.resume_option,
    o.json_option,
    specs={"denoiser": DenoiserSpec},
)
def fit_denoiser(data: str | None, output: str | None, *, resume: bool, **given: Any) -> Result:
    """Fit a denoiser of your own, for `vaeguard denoise -m`.

    It learns from noisy photographs alone (--adapt), from pairs (--noisy and --clean), or from clean images (DATA, a
    folder or a named set, and --degrade), and starts from the weights that ship.
    """
    (spec,) = settled(given)
    if given["degrade"]:
        if given["clean"]:
            raise UsageError("`degrade` makes the images of `data` noisy; leave out `clean`")
        given["clean"] = data
    elif data:
        raise UsageError(f"`data` {data!r} goes with `degrade`; the folders of scans are named by the options alone")
    done = workflows.fit_denoiser_run(given, output, spec, reporter(), resume=resume)
    lines = [
        f"fitted in {done.seconds:.1f} s; how it went -> {done.output}/report.html",
        f"next: vaeguard denoise SCANS -m {shlex.quote(done.output)}",
    ]
    return Result(done.result.to_dict(), lines, done.report, errors=done.errors)

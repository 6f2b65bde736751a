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
    click.option("--adapt", metavar="DIR", help="Folder of noisy photographs; the denoiser learns from these alone."),
    click.option(
        "--noisy",
        metavar="DIR",
        help="Folder of noisy images; use with --clean.",
    ),
    click.option(
        "--clean",
        metavar="DIR",
        help="Folder of the same images as in --noisy, under the same names, but without noise.",
    ),
    click.option(
        "--degrade",
        metavar="HOW",
        help=f"Kind of noise or wear to add to the clean images of DATA: {', '.join(DEGRADATIONS)}. LEVELS is the"
        " standard deviation of Gaussian noise in grey levels, such as 25.",
    ),
    o.output_option(
        "",
        "Run folder, for the denoiser and its report.",
        shown="runs/denoiser-ladder-<time>",
        metavar="RUN",
    ),
    o.set_option,
    o.resume_option,
    o.json_option,
    specs={"denoiser": DenoiserSpec},
)
def fit_denoiser(data: str | None, output: str | None, *, resume: bool, **given: Any) -> Result:
    """Train your own denoiser, for use with `vaeguard denoise -m`.

    The denoiser learns from noisy photographs alone (--adapt), from pairs of noisy and clean images (--noisy and
    --clean), or from clean images to which noise or wear is added (DATA, a folder or a named data set, with
    --degrade). A denoiser consists of two networks: the direct network, which cleans an image in one pass, and the
    ladder VAE, which can draw several possible clean images. By default, training starts from the weights of the
    included denoiser.
    """
    (spec,) = settled(given)
    if given["degrade"]:
        if given["clean"]:
            raise UsageError("`degrade` adds noise to the images of `data`, so `clean` has no use; remove `clean`")
        given["clean"] = data
    elif data:
        raise UsageError(
            f"`data` {data!r} needs `degrade`, the kind of noise to add; to learn from noisy images instead, remove"
            " `data`, and use `adapt`, or `noisy` and `clean`"
        )
    done = workflows.fit_denoiser_run(given, output, spec, reporter(), resume=resume)
    lines = [
        f"Fitted in {done.seconds:.1f} s; report: {done.output}/report.html",
        f"Next: vaeguard denoise SCANS -m {shlex.quote(done.output)}",
    ]
    return Result(done.result.to_dict(), lines, done.report, errors=done.errors)

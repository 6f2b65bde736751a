"""`vaeguard fit --model ladder`: a denoiser of one's own."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .inputs import no_empty_run
from .options import typed
from .output import command_line, complain_of_left_out, console, print_json, progress_bar, say, say_left_out

if TYPE_CHECKING:
    from vaeguard import FittedDenoiser


SHAPES = {"width", "depth", "ladder_width", "latent"}
"""Settings of networks from scratch, for Python only: some options of other models have their names."""


def fit_denoiser(
    data: str,
    output: str | None,
    sources: dict[str, str | None],
    settings: dict[str, Any],
    *,
    resume: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Fit as the options say, and say how good it became.

    Raises
    ------
    UsageError
        An option has no meaning for a denoiser.
    """
    from vaeguard import UsageError, denoiser_source, is_named, new_folder, prepare_run
    from vaeguard import fit_denoiser as fit

    spec = _spec(settings)
    clean: Any = sources["clean"]
    if sources["degrade"]:
        if any(sources[name] for name in ("noisy", "clean", "adapt")):
            raise UsageError("--degrade makes the images of DATA noisy; leave out --noisy, --clean and --adapt")
        clean = data if Path(data).is_dir() and not is_named(data) else _grey_images(data, data_dir)
    elif typed("data"):
        raise UsageError(f"DATA {data!r} goes with --degrade; the folders of scans are named by the options alone")
    if resume and not output:
        raise UsageError("--resume needs -o RUN, the folder of the interrupted fit")
    run = Path(output) if output else new_folder("denoiser-ladder")
    with no_empty_run(run), progress_bar("fitting") as progress:
        prepare_run(run, resume=resume, kind="denoiser")
        if resume and not any(run.glob("checkpoint.*")):
            say(f"no checkpoint in {str(run)!r}: starting from the beginning")
        source = denoiser_source(**{**sources, "clean": clean}, spec=spec)
        say_left_out(source.errors)
        say(f"{source.images} images to learn from, {source.held_out} to judge by; {source.kind}; run folder: {run}")
        found = fit(source, run, spec, resume=resume, command=command_line(), progress=progress)
    if as_json:
        print_json(found.to_dict())
    else:
        _say(found)
    complain_of_left_out(found.errors)


def _spec(settings: dict[str, Any]) -> Any:
    """The settings of a denoiser among the options that were given; others are refused."""
    from vaeguard import DenoiserSpec, UsageError

    known = {item.name for item in dataclasses.fields(DenoiserSpec)} - SHAPES
    given = {name: value for name, value in settings.items() if value is not None and name != "kind"}
    if unknown := sorted(set(given) - known):
        raise UsageError(f"--{unknown[0].replace('_', '-')} has no meaning for --model ladder; leave it out")
    if settings["kind"] not in (None, "ladder"):
        raise UsageError(f"--model {settings['kind']} is not fitted that way; use --model ladder")
    return DenoiserSpec(**given)


def _grey_images(data: str, data_dir: str | None) -> list[Any]:
    from vaeguard import ImageRule, open_images

    images = open_images(data, rule=ImageRule(channels=1), data_dir=data_dir)
    say_left_out(images.errors)
    return [image[0] for image in images.images]


def _say(found: FittedDenoiser) -> None:
    from vaeguard import read_report, show_report

    show_report(read_report(found.run), console())
    click.echo(f"fitted in {found.seconds:.1f} s; how it went -> {Path(found.run) / 'report.html'}")
    click.echo(f"next: vaeguard denoise SCANS -m {shlex.quote(found.run)}")

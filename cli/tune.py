"""`vaeguard tune`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click

from vaeguard import DEFAULT_TRIALS, DEVICES, TrainSpec, as_objects

from .inputs import open_to_fit
from .options import (
    channels_option,
    data_dir_option,
    download_option,
    groups_option,
    json_option,
    preset_option,
    read_specs,
    size_option,
    spec_option,
)
from .output import (
    command_line,
    complain_of_left_out,
    console,
    print_json,
    progress_bar,
    say,
)


class Duration(click.ParamType[float]):
    """`90s`, `20m`, `1h30m`, or seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """`1h30m` to 5400 seconds."""
        found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", str(value).strip().lower(), re.ASCII)
        hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
        total = 3600 * hours + 60 * minutes + seconds
        if not total:
            self.fail(f"{value!r} is no time such as 90s, 20m or 1h30m, above 0", param, ctx)
        return float(total)


@click.command()
@click.argument("data", default="digits")
@click.option("--normal-classes", metavar="LIST", help="Classes that are normal, as for fit.  [default: all]")
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=DEFAULT_TRIALS,
    show_default=True,
    help="How many settings to try in all.",
)
@click.option(
    "--time",
    "seconds",
    type=Duration(),
    help="Start no trial that would end later: 90s, 20m, 1h30m. The comparison at the end comes on top.",
)
@click.option(
    "-o", "--output", metavar="DIR", help="Folder of the search; one begun there goes on.  [default: tuning/<data>]"
)
@groups_option
@preset_option
@spec_option
@click.option("--seed", type=int, help=f"Seed of parts, trials and fits.  [default: {TrainSpec().seed}]")
@click.option("--device", type=click.Choice(DEVICES), help=f"Where to train.  [default: {TrainSpec().device}]")
@size_option
@channels_option
@data_dir_option
@download_option
@json_option
def tune(
    data: str, normal_classes: str | None, groups: str | None, trials: int, seconds: float | None, output: str | None,
    preset_name: str | None, spec_file: str | None, size: tuple[int, int] | None, channels: str | None,
    data_dir: str | None, download: bool, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Search the settings of a fit by normal images alone.

    DATA is as for fit. Sizes of the model, likelihood, beta, KL warm-up and learning rate are tried; each trial is
    fitted on one part of the normal images and has to tell others from pseudo-anomalies made of them. On a third part
    the best settings are compared with those at the start. They are written to best.toml, for fit --spec. Interrupted,
    the search goes on when the same command is given again.
    """
    from vaeguard import check_optuna, check_place, read_groups, show_report, without_pictures
    from vaeguard import tune as search

    check_optuna()
    model, training = read_specs(preset_name, spec_file, settings)
    if output:
        check_place(Path(output) / "report.json", "tuning")
    images = open_to_fit(data, size, channels, data_dir, download=download)
    grouped = read_groups(groups, images.paths) if groups else None
    folder = Path(output) if output else Path("tuning") / images.name
    say(f"data: {images.name}, {len(images.images)} {images.what}; folder of the search: {folder}")
    try:
        with progress_bar("tuning") as progress:
            found = search(
                images, groups=grouped, normal_classes=normal_classes, model=model, training=training, trials=trials,
                seconds=seconds, folder=folder, command=command_line(), progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        say(f"finished trials are in {folder}; the same command goes on")
        raise
    if len(found.trials) < trials:
        say(f"note: {len(found.trials)} of {trials} trials fit into --time; the same command goes on")
    if as_json:
        print_json({"output": str(folder), **without_pictures(found.report), "errors": as_objects(images.errors)})
    else:
        show_report(found.report, console())
        reading = {
            "--normal-classes": normal_classes,
            "--groups": groups,
            "--size": size and "x".join(map(str, size)),
            "--channels": channels,
            "--data-dir": data_dir,
        }
        options = [part for name, value in reading.items() if value for part in (name, value)]
        click.echo(f"next: {shlex.join(['vaeguard', 'fit', data, *options, '--spec', str(folder / 'best.toml')])}")
        click.echo(f"every trial and chart -> {folder / 'report.html'}")
    complain_of_left_out(images.errors)

"""`vaeguard fit`."""

from __future__ import annotations

import shlex
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from vaeguard import DEFAULT_FPR, DEGRADATIONS, DenoiserSpec, ModelSpec, TrainSpec, as_objects

from .inputs import no_empty_run, open_to_fit
from .options import (
    SectionCommand,
    SectionOption,
    channels_option,
    data_dir_option,
    download_option,
    groups_option,
    json_option,
    preset_option,
    read_specs,
    size_option,
    spec_option,
    spec_options,
)
from .output import (
    command_line,
    complain_of_left_out,
    console,
    print_json,
    progress_bar,
    say,
)

USUAL_NORMAL = {"good", "ok", "okay", "normal", "pass", "passed", "free", "defect-free", "no-defect", "sound"}
"""What folders of normal images are mostly called."""
NAMED = 10
"""So many classes are named."""

_scans_option = partial(click.option, cls=SectionOption, section="Cleaning scans, with --model ladder")


@click.command(cls=SectionCommand)
@click.argument("data", default="digits")
@click.option(
    "--normal-classes", metavar="LIST", help="Classes to fit on: 0-8, or 0,2,5-7, or good,ok.  [default: all]"
)
@groups_option
@click.option("-o", "--output", metavar="RUN", help="Run folder.  [default: runs/<data>-<model>-<time>]")
@preset_option
@spec_option
@size_option
@channels_option
@click.option("--resume", is_flag=True, help="Go on with the interrupted fit in the folder given by -o.")
@click.option("--tensorboard", metavar="DIR", help="Log the fit for TensorBoard into DIR/<name of the run folder>.")
@click.option("--jobs", type=click.IntRange(1), help="Threads that decode images.")
@data_dir_option
@download_option
@json_option
@spec_options(ModelSpec, "Model", {"kind": "model"})
@spec_options(TrainSpec, "Training")
@_scans_option("--noisy", metavar="DIR", help="Noisy images, whose clean ones --clean names.")
@_scans_option("--clean", metavar="DIR", help="The clean images, named as the noisy ones.")
@_scans_option("--degrade", metavar="HOW",
               help=f"DATA is clean, and is made worse: {', '.join(DEGRADATIONS)}.")  # fmt: skip
@_scans_option("--adapt", metavar="DIR", help="Learn the grain of noisy photographs, without clean ones.")
@_scans_option("--steps", type=int, help=f"Steps of training.  [default: {DenoiserSpec().steps}]")
@_scans_option("--from-scratch", is_flag=True, default=None, help="Do not start from the weights that ship.")
def fit(
    data: str, normal_classes: str | None, groups: str | None, output: str | None, preset_name: str | None,
    spec_file: str | None, size: tuple[int, int] | None, channels: str | None, resume: bool, tensorboard: str | None,
    jobs: int | None, data_dir: str | None, download: bool, as_json: bool, noisy: str | None, clean: str | None,
    degrade: str | None, adapt: str | None, **settings: Any,
) -> None:  # fmt: skip
    """Fit a model on normal images.

    DATA is a named set (digits, mnist, fashion-mnist, kmnist, emnist, cifar10, svhn), a folder of images, flat or
    with one sub-folder per class, an IDX file, an .npz or an .npy, of images or of a table of floats.

    With --model ladder it is a denoiser of your own for `vaeguard denoise -m`: from pairs (--noisy and --clean), from
    clean images (DATA and --degrade), or from noisy photographs alone (--adapt).
    """
    of_scans = (noisy, clean, degrade, adapt, settings["steps"], settings["from_scratch"])
    if settings["kind"] == "ladder" or any(value is not None for value in of_scans):
        from .fit_denoiser import fit_denoiser

        others = {
            "normal_classes": normal_classes, "groups": groups, "preset": preset_name, "spec": spec_file, "size": size,
            "channels": channels, "tensorboard": tensorboard, "jobs": jobs,
            "download": download or None,
        }  # fmt: skip
        sources = {"noisy": noisy, "clean": clean, "degrade": degrade, "adapt": adapt}
        settings |= others
        fit_denoiser(data, output, sources, settings, resume=resume, data_dir=data_dir, as_json=as_json)
        return
    from vaeguard import UsageError, VaeguardError, fpr_note, new_run, point_latest, prepare_run, read_groups
    from vaeguard import fit as fit_model

    if resume and not output:
        raise UsageError("--resume needs -o RUN, the folder of the interrupted fit")
    run = Path(output) if output else None
    with no_empty_run(run):
        if run:
            prepare_run(run, resume=resume)
        model, training = read_specs(preset_name, spec_file, settings)
        images = open_to_fit(data, size, channels, data_dir, download=download, jobs=jobs)
        grouped = read_groups(groups, images.paths) if groups else None
    run = run or new_run(images, model)
    if resume and not any(run.glob("checkpoint.*")):
        say(f"no checkpoint in {str(run)!r}: starting from the beginning")
    depth, height, width = images.images.shape[1:]
    each = width if images.vectors else f"{height}x{width}x{depth}"
    say(f"data: {images.name}, {len(images.images)} {images.what} of {each}; run folder: {run}")
    classes = [] if images.labels is None else [images.class_names[k] for k in sorted(set(images.labels.tolist()))]
    if normal_classes is None and len(classes) > 1:
        say(_all_normal(classes))
    started = time.monotonic()
    with no_empty_run(run), progress_bar("fitting") as progress:
        detector = fit_model(
            images, groups=grouped, normal_classes=normal_classes, model=model, training=training, run=run,
            resume=resume, tensorboard=tensorboard, command=command_line(), progress=progress,
        )  # fmt: skip
    try:
        point_latest(run)
    except VaeguardError as error:  # the run itself is safe
        say(f"note: {error}")
    record = detector.info.record.to_dict() | {"errors": as_objects(images.errors)}
    _print(run, record, time.monotonic() - started, as_json)
    if tensorboard:
        say(f"curves and pictures: tensorboard --logdir {tensorboard}")
    if note := fpr_note(detector.info.calibrated_on, DEFAULT_FPR):
        say(f"note: {note}")
    complain_of_left_out(images.errors)


def _all_normal(classes: list[str]) -> str:
    """What to say where all classes are taken as normal, and one or the other may not be."""
    usual = [name for name in classes if name.casefold().replace("_", "-").replace(" ", "-") in USUAL_NORMAL]
    others = [name for name in classes if name not in usual]
    if usual and others:
        return (
            f"warning: all {len(classes)} classes are taken as normal, {_listed(others)} too; if only"
            f" {_listed(usual)} should be, give --normal-classes {shlex.quote(','.join(usual))}"
        )
    return f"normal classes: all {len(classes)} ({_listed(classes)}); with --normal-classes LIST only those of the list"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _print(run: Path, record: dict[str, Any], seconds: float, as_json: bool) -> None:
    if as_json:
        print_json({"run": str(run), "seconds": seconds, **record})
        return
    from vaeguard import read_report, show_report

    show_report(read_report(run), console())
    click.echo(f"fitted in {seconds:.1f} s; how it went -> {run / 'report.html'}")
    click.echo(f"next: vaeguard score IMAGES -m {shlex.quote(str(run))}")

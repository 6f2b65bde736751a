"""`vaeguard evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaeguard import BOUND_IMAGES, IMPORTANCE_SAMPLES, as_objects

from .inputs import find_model, open_generative, open_images_for
from .options import data_dir_option, download_option, engine_option, fpr_option, json_option, model_option, typed
from .output import command_line, complain_of_left_out, console, print_json, progress_bar

if TYPE_CHECKING:
    from vaeguard import ImageSet


@click.command()
@click.argument("data", required=False)
@model_option
@click.option("--normal-classes", metavar="LIST", help="Classes that are normal.  [default: those of the fit]")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    help="Folder for the report.  [default: evaluation-[<folder>-]<data> in the run]",
)
@fpr_option
@click.option("--masks", metavar="DIR", help="Masks of the defects, <class>/<name>.png or ..._mask.png: also measure"
              " how well heatmaps point at them.")  # fmt: skip
@click.option("--generative", is_flag=True, help="Measure the model as a generative one instead: likelihood, samples,"
              " latent; on normal images only.")  # fmt: skip
@click.option("--importance-samples", type=click.IntRange(min=1), default=IMPORTANCE_SAMPLES, show_default=True,
              metavar="K", help="With --generative: samples per image for the importance-weighted bound.")  # fmt: skip
@click.option("--bound-images", type=click.IntRange(min=0), default=BOUND_IMAGES, show_default=True, metavar="N",
              help="With --generative: bounds of so many images, drawn at random; 0: of all.")  # fmt: skip
@engine_option
@data_dir_option
@download_option
@json_option
def evaluate(
    data: str | None, model: str | None, normal_classes: str | None, output: str | None, fpr: float, masks: str | None,
    device: str, data_dir: str | None, generative: bool, importance_samples: int, bound_images: int, download: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Measure how well a model tells anomalies from normal images.

    DATA is a labelled set as for fit; of a named set the official test part is taken. Without DATA it is the named set
    that the model was fitted on. Says how good the score is and
    writes report.html: ROC-AUC with its 95 % interval, precision and recall, the realised false-alarm rate, every term
    beside the score, every class, and the images that tell most.

    With --generative it measures the VAE itself, on normal images: the negative ELBO and the importance-weighted bound
    in nats and bits per dimension, how near samples come to real images, and what the latent holds.
    """
    from vaeguard import UsageError, check_evaluation_folder, load, write_evaluation
    from vaeguard import evaluate as evaluate_model

    if generative:
        if typed("normal_classes", "fpr", "masks"):
            raise UsageError(
                "--generative looks at the normal classes of the fit and flags nothing; leave out --normal-classes,"
                " --fpr and --masks"
            )
        _evaluate_generative(
            data, model, output, device, data_dir, importance_samples, bound_images, download=download, as_json=as_json
        )
        return
    if typed("importance_samples", "bound_images"):
        raise UsageError("--importance-samples and --bound-images are for --generative; add it, or leave them out")
    path = find_model(model)
    detector = load(path, device)
    images = open_images_for(data, detector, data_dir, download=download)
    folder = _folder(output, path, "evaluation", data, images)
    check_evaluation_folder(folder)
    with progress_bar("scoring") as progress:
        evaluation = evaluate_model(detector, images, normal_classes, fpr=fpr, masks=masks, progress=progress)
    _show(write_evaluation(evaluation, detector, folder, command=command_line()), folder, images, as_json=as_json)


def _evaluate_generative(
    data: str | None, model: str | None, output: str | None, device: str, data_dir: str | None, samples: int,
    count: int, *, download: bool, as_json: bool,
) -> None:  # fmt: skip
    from vaeguard import check_place, evaluate_generative, write_generative

    path = find_model(model)
    detector = open_generative(path, device)
    images = open_images_for(data, detector, data_dir, download=download)
    folder = _folder(output, path, "generative", data, images)
    check_place(folder / "report.json", "generative")
    with progress_bar("measuring") as progress:
        evaluation = evaluate_generative(detector, images, samples=samples, images=count, progress=progress)
    _show(write_generative(evaluation, folder, command=command_line()), folder, images, as_json=as_json)


def _folder(output: str | None, model: str, what: str, data: str | None, images: ImageSet) -> Path:
    """Where the report goes: `output`, or a folder beside the model, other for `a/test` than for `b/test`."""
    home = Path(model) if Path(model).is_dir() else Path(model).parent
    above = Path(data or "").parent.name.strip(".")
    return Path(output) if output else home / "-".join([what, *([above] if above else []), images.name])


def _show(report: dict[str, Any], folder: Path, images: ImageSet, *, as_json: bool) -> None:
    from vaeguard import show_report, without_pictures

    if as_json:
        print_json({"output": str(folder), **without_pictures(report), "errors": as_objects(images.errors)})
    else:
        show_report(report, console())
        click.echo(f"every figure, curve and picture -> {folder / 'report.html'}")
    complain_of_left_out(images.errors)

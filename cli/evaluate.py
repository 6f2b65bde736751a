"""`vaeguard evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from .common import (
    as_objects,
    command_line,
    complain_of_unreadable,
    console,
    data_dir_option,
    download_option,
    engine_option,
    find_model,
    fpr_option,
    json_option,
    model_option,
    open_test_images,
    print_json,
    progress_bar,
)


@click.command()
@click.argument("data", default="digits")
@model_option
@click.option("--normal-classes", metavar="LIST", help="Classes that are normal.  [default: those of the fit]")
@click.option("-o", "--output", metavar="DIR", help="Folder for the report.  [default: evaluation-<data> in the run]")
@fpr_option
@engine_option
@data_dir_option
@download_option
@json_option
def evaluate(
    data: str, model: str | None, normal_classes: str | None, output: str | None, fpr: float, device: str,
    data_dir: str | None, download: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure how well a model tells anomalies from normal images.

    DATA is a labelled set as for fit; of a named set the official test part is taken. Says how good the score is and
    writes report.html: ROC-AUC with its 95 % interval, precision and recall, the realised false-alarm rate, every term
    beside the score, every class, and the images that tell most.
    """
    from vaeguard import check_place, load, show_report, without_pictures, write_evaluation
    from vaeguard import evaluate as evaluate_model

    path = find_model(model)
    detector = load(path, device)
    images = open_test_images(data, detector, data_dir, download=download)
    home = Path(path) if Path(path).is_dir() else Path(path).parent
    folder = Path(output) if output else home / f"evaluation-{images.name}"
    check_place(folder / "report.json", "evaluation")
    with progress_bar("scoring") as progress:
        evaluation = evaluate_model(detector, images, normal_classes, fpr=fpr, progress=progress)
    report = write_evaluation(evaluation, folder, command=command_line())
    if as_json:
        shown = without_pictures(report)
        print_json({"output": str(folder), **shown, "errors": as_objects(images.errors)})
    else:
        show_report(report, console())
        click.echo(f"every figure, curve and picture -> {folder / 'report.html'}")
    complain_of_unreadable(images.errors, "they are listed above")

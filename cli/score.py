"""`vaeguard score`."""

from __future__ import annotations

import time

import click

from .common import (
    complain_of_unreadable,
    device_option,
    find_model,
    fpr_option,
    json_option,
    model_option,
    print_json,
    progress_bar,
    say,
    say_unreadable,
)


@click.command()
@click.argument("images", nargs=-1, required=True)
@model_option
@click.option("-o", "--output", default="scores.csv", show_default=True, help="Table: .csv, .parquet or .jsonl.")
@fpr_option
@click.option("--jobs", type=click.IntRange(1), help="Threads that decode images.")
@device_option
@json_option
def score(
    images: tuple[str, ...], model: str | None, output: str, fpr: float, jobs: int | None, device: str, as_json: bool
) -> None:
    """Score image files with a fitted model.

    IMAGES are files and folders, which are searched for images. The table has one row per image in sorted order:
    path, score (higher = more anomalous), p_value, anomaly, and the separate terms. Files that cannot be read are
    listed in <output>.errors.csv.
    """
    from vaeguard import load, score_files

    detector = load(find_model(model), device)
    started = time.monotonic()
    with progress_bar("scoring") as progress:
        summary = score_files(detector, images, output, fpr=fpr, jobs=jobs, progress=progress)
    seconds = time.monotonic() - started
    if as_json:
        print_json(summary.to_dict())
    else:
        click.echo(
            f"{summary.images} images scored in {seconds:.1f} s, {summary.anomalies} anomalous"
            f" (p_value <= {fpr:g}) -> {output}"
        )
    if summary.note:
        say(f"note: {summary.note}")
    say_unreadable(summary.errors)
    complain_of_unreadable(summary.errors, f"see {output}.errors.csv")

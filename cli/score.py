"""`vaeguard score`."""

from __future__ import annotations

import glob
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .inputs import find_model
from .options import engine_option, fpr_option, json_option, model_option, typed
from .output import command_line, complain_of_left_out, console, print_json, progress_bar, say, say_left_out

if TYPE_CHECKING:
    from vaeguard import ScoreSummary


@click.command()
@click.argument("images", nargs=-1)
@model_option
@click.option("-o", "--output", default="scores.csv", show_default=True, help="Table: .csv, .parquet or .jsonl.")
@click.option("--files-from", metavar="FILE", help="Read more paths from FILE, one a line; - is standard input.")
@fpr_option
@click.option("--watch", is_flag=True, help="Go on: score images as they appear in the folders, until interrupted.")
@click.option("--jobs", type=click.IntRange(1), help="Threads that decode images.")
@click.option("--report/--no-report", default=True, show_default=True, help="Also write <output>.report.html.")
@click.option("--heatmaps", metavar="DIR", help="Also draw each flagged image there, with restoration and heatmap.")
@engine_option
@json_option
def score(
    images: tuple[str, ...], model: str | None, output: str, files_from: str | None, fpr: float, watch: bool,
    jobs: int | None, device: str, as_json: bool, report: bool, heatmaps: str | None,
) -> None:  # fmt: skip
    """Score images with a fitted or exported model.

    IMAGES are image files, folders that are searched for them, globs, .npy, .npz and IDX files, tar archives, and
    Parquet files with a column of images. The table has one row per image in sorted order: path, score (higher = more
    anomalous), p_value, anomaly, and the separate terms. What cannot be read is listed in <output>.errors.csv; what
    stands out, and whether the batch as a whole differs from normal, is shown in <output>.report.html.

    A job that was interrupted goes on where it stopped when the same command is given again.
    """
    from vaeguard import (
        HeatmapFolder,
        check_apart,
        check_place,
        load,
        read_list,
        remove_report,
        score_files,
        watch_files,
        write_score_report,
    )

    _check(images, files_from, output, heatmaps, watch=watch, as_json=as_json)
    listed = read_list(files_from) if files_from else []
    check_apart(output, [files_from] if files_from else [])
    check_place(f"{output}.report.json", "scores")
    model = find_model(model)
    detector = load(model, device, threads=1)
    options: dict[str, Any] = {
        "fpr": fpr,
        "jobs": jobs,
        "heatmaps": HeatmapFolder(Path(heatmaps)) if heatmaps else None,
    }
    if watch:
        _say_watched(images)
        watch_files(detector, images, output, report=_say_round, **options)
    started = time.monotonic()
    with progress_bar("scoring") as progress:
        summary = score_files(detector, images, output, listed=listed, progress=progress, **options)
    found: dict[str, Any] = {}
    if report:
        found = write_score_report(summary, detector, model=model, command=command_line())
    else:
        remove_report(f"{output}.report.json", "scores")
    if as_json:
        print_json({**summary.to_dict(), **({"drift": found["drift"]} if found else {})})
    else:
        _print(summary, time.monotonic() - started, found, heatmaps)
    if summary.note and (as_json or not found):  # the report has said it
        say(f"note: {summary.note}")
    say_left_out(summary.errors)
    complain_of_left_out(summary.errors, f"see {output}.errors.csv")


def _check(
    images: tuple[str, ...], files_from: str | None, output: str, heatmaps: str | None, *, watch: bool, as_json: bool
) -> None:
    """Refuse options that do not go together, before any work."""
    from vaeguard import UsageError, drawn_before

    if not images and not files_from:
        raise UsageError("IMAGES is missing; name image files, folders, a glob or --files-from")
    if watch and (files_from or as_json or typed("report")):
        raise UsageError("--watch goes with folders and globs; leave out --files-from, --json and --report")
    if (
        heatmaps
        and not watch
        and drawn_before(output) != str(Path(heatmaps).resolve())
        and any(Path(heatmaps).glob("*"))
    ):
        raise UsageError(f"--heatmaps {heatmaps!r} is not empty, and old pictures would stay in it; name another")


def _print(summary: ScoreSummary, seconds: float, found: dict[str, Any], heatmaps: str | None) -> None:
    from vaeguard import show_report

    resumed = f", {summary.resumed} of them before an interruption" if summary.resumed else ""
    click.echo(
        f"{summary.images} images scored in {seconds:.1f} s{resumed}, {summary.anomalies} "
        f"anomalous (p_value <= {summary.fpr:g}) -> {summary.output}"
    )
    if found:
        show_report(found, console())
        click.echo(f"what stands out -> {summary.output}.report.html")
    if heatmaps and summary.anomalies:
        click.echo(f"flagged images, each with its heatmap -> {heatmaps}")


def _say_watched(images: tuple[str, ...]) -> None:
    """Say what is watched, and what of it does not exist: it may come, or be a slip of the pen."""
    for path in images:
        if not glob.glob(path) and not Path(path).exists():  # noqa: PTH207  (as typed, perhaps an absolute pattern)
            say(f"note: nothing at {path!r} yet")
    say(f"watching {', '.join(images)}; Ctrl-C ends it")


def _say_round(summary: ScoreSummary) -> None:
    """One line for the images that just appeared."""
    click.echo(f"{summary.images} new images, {summary.anomalies} anomalous -> {summary.output}")
    say_left_out(summary.errors)

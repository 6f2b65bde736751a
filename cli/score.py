"""`vaeguard score`."""

from __future__ import annotations

from typing import Any

import click

from vaeguard import UsageError, workflows
from vaeguard.settings.cluster import ClusterSettings

from . import options as o
from .commands import command, settled
from .output import Result, reporter, say, share_result


@command(
    click.argument("images", nargs=-1),
    o.model_option,
    o.output_option("scores.csv", "Table: .csv, .parquet or .jsonl."),
    o.fpr_option,
    o.heatmaps_option,
    o.piece_option,
    o.cluster_option,
    o.set_option,
    o.report_option,
    o.engine_option,
    o.json_option,
    specs={"cluster": ClusterSettings},
)
def score(images: tuple[str, ...], output: str, *, piece: str | None, cluster: str | None, **options: Any) -> Result:
    """Score images with a fitted or exported model.

    IMAGES are image files, folders that are searched for them, globs, .npy, .npz and IDX files, tar archives, and
    Parquet files with a column of images; - stands for more paths on standard input, one a line. The table has one row
    per image in sorted order: path, score (higher = more anomalous), p_value, anomaly, and the separate terms. What
    cannot be read is listed in <output>.errors.csv; what stands out, and whether the batch as a whole differs from
    normal, is shown in <output>.report.html. With --heatmaps, regions of flagged images that are stranger than nearly
    all normal images are anywhere are listed in spots.csv beside scores.csv: rank, place and size in pixels of the
    original image, peak, and p_value.

    A job that was interrupted goes on where it stopped when the same command is given again. A finished table is only
    flagged anew by another --fpr, as long as images, model and versions are the same.

    With --piece 3/8, a process scores the third of eight shares, for arrays of jobs on machines that share a file
    system. Shares that were killed are started again; `vaeguard gather` joins the parts. A share ends with 0 even if
    images could not be read, since a scheduler would start it again; `vaeguard gather` lists them and ends with 3.

    With --cluster, a Ray cluster whose nodes share a file system makes the parts; the table is the same, and both
    ways may go on with what the other began. It needs `pip install 'vaeguard[cluster]'`.
    """
    if not images:
        raise UsageError("`images` is missing; name image files, folders, a glob, or - for standard input")
    (settings,) = settled(options)
    o.check_alone(piece, cluster)
    if piece:
        return share_result(workflows.score_share_of(images, output, reporter(), piece=piece, **options))
    if cluster:
        from vaeguard.cluster.scores import score_on_cluster

        done = score_on_cluster(images, output, reporter(), cluster=cluster, settings=settings, **options)
    else:
        done = workflows.score_table(images, output, reporter(), **options)
    summary, report = done.result, done.report
    resumed = f", {summary.resumed} of them scored before" if summary.resumed else ""
    first = (
        f"{summary.images} images scored in {done.seconds:.1f} s{resumed}, {summary.anomalies} "
        f"anomalous (p_value <= {summary.fpr:g}) -> {summary.output}"
    )
    lines = [f"what stands out -> {output}.report.html"] if report else []
    if options["heatmaps"] and summary.anomalies:
        lines.append(f"flagged images, each with its heatmap and its spots -> {options['heatmaps']}")
        lines.append(f"where these spots are -> {summary.spots}")
    if summary.note and not report:  # a report contains the note
        say(f"note: {summary.note}")
    facts = {**summary.to_dict(), **({"drift": report["drift"]} if report else {})}
    if summary.spots:
        facts |= {"spots_table": summary.spots, "spots": workflows.rows_of(summary.spots)}
    return Result(facts, lines, report, errors=done.errors, listed=f"see {output}.errors.csv", first=first)

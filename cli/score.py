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
    o.output_option("scores.csv", "Table to write, a .csv, .parquet or .jsonl file."),
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

    IMAGES are image files, folders (searched for images), globs, .npy, .npz and IDX files, tar archives, or Parquet
    files with a column of images. If you give - as one of the IMAGES, paths are also read from standard input, one per
    line.

    The command writes a table with one row per image, sorted by path. The columns are path, score (higher = more
    anomalous), p_value (the share of held-out normal images that are at least as anomalous), anomaly (whether the image
    is flagged), and one column for each term from which the score is computed. Files that cannot be read are listed in
    <output>.errors.csv. The report <output>.report.html shows the flagged images, and whether the images as a whole
    differ from normal images.

    With --heatmaps, a second table (spots.csv for scores.csv) lists the spots of flagged images: regions whose peak in
    the heatmap is so high that at most one in five normal images has such a peak. The columns give the rank of each
    spot among those of its image, the position and size in pixels of the original image, the peak and the p_value.

    To continue an interrupted job, run the same command again. If the table is finished and only --fpr has changed, the
    images are flagged again without being scored again.

    With --piece 3/8, the command scores the third of eight shares of the images, for job arrays on machines with a
    common file system. If the process of a share is killed, start it again. When all shares have finished, `vaeguard
    gather` combines them. With --piece, the exit code is 0 even if some images could not be read, so that a scheduler
    does not restart the process; `vaeguard gather` lists these images and exits with code 3.

    With --cluster, the images are scored on a Ray cluster whose nodes have a common file system. The table is the same
    as without --cluster, and a job can be continued with or without --cluster. The option needs `pip install
    'vaeguard[cluster]'`.
    """
    if not images:
        raise UsageError(
            "`images` is missing; give image files, folders or a glob, or - to read paths from standard input"
        )
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
    resumed = f", {summary.resumed:,} of them in earlier runs" if summary.resumed else ""
    first = (
        f"{workflows.counted(summary.images, 'image')} scored in {done.seconds:.1f} s{resumed}, {summary.anomalies:,} "
        f"anomalous (p_value <= {summary.fpr:g}); saved to {summary.output}"
    )
    lines = [f"Report: {output}.report.html"] if report else []
    if options["heatmaps"] and summary.anomalies:
        lines.append(f"Heatmaps of the flagged images: {options['heatmaps']}")
        lines.append(f"Positions of the spots: {summary.spots}")
    if summary.note and not report:  # a report contains the note
        say(f"note: {summary.note}")
    facts = {**summary.to_dict(), **({"drift": report["drift"]} if report else {})}
    if summary.spots:
        facts |= {"spots_table": summary.spots, "spots": workflows.rows_of(summary.spots)}
    return Result(facts, lines, report, errors=done.errors, listed=f"see {output}.errors.csv", first=first)

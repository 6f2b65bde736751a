"""`vaeguard watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vaeguard import workflows
from vaeguard.workflows import counted

from . import options as o
from .commands import command
from .output import reporter

if TYPE_CHECKING:
    from vaeguard import ScoreSummary


@command(
    click.argument("folders", nargs=-1, required=True, metavar="FOLDER..."),
    o.model_option,
    o.output_option("scores.csv", "Table to extend, a .csv, .parquet or .jsonl file."),
    o.fpr_option,
    o.heatmaps_option,
    o.engine_option,
)
def watch(folders: tuple[str, ...], output: str, **options: Any) -> None:
    """Score new images in folders as they arrive, until interrupted.

    FOLDER can also be a glob in quotes. The path and the p-value of each flagged image are printed at once. If an image
    is overwritten, it is scored again and gets a new row in the table. A file that cannot be read is listed in
    <output>.errors.csv once it has not changed for a minute.

    A lasting change of the p-values, or of the brightness, sharpness or size of the images, is printed as drift and
    listed in <output>.drift.jsonl. If the images do not drift, the chance of even one such report is at most 1 in 100
    over the whole watch.

    Ctrl-C stops the watch; to continue with the same table, run the same command again.
    """
    workflows.watch_table(folders, output, reporter(), report=_print_round, **options)


def _print_round(summary: ScoreSummary) -> None:
    for path, p_value in summary.flagged:
        click.echo(f"anomalous: {path} (p_value {p_value:.4g})")
    for drift in summary.drift:
        click.echo(f"drift: {drift}")
    if summary.images:
        click.echo(
            f"{counted(summary.images, 'new image')}, {summary.anomalies:,} anomalous; saved to {summary.output}"
        )

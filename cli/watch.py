"""`vaeguard watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vaeguard import workflows

from . import options as o
from .commands import command
from .output import reporter

if TYPE_CHECKING:
    from vaeguard import ScoreSummary


@command(
    click.argument("folders", nargs=-1, required=True, metavar="FOLDER..."),
    o.model_option,
    o.output_option("scores.csv", "Table, to which rows are added: .csv, .parquet or .jsonl."),
    o.fpr_option,
    o.heatmaps_option,
    o.engine_option,
)
def watch(folders: tuple[str, ...], output: str, **options: Any) -> None:
    """Score images as they appear in folders, until interrupted.

    FOLDER may also be a glob. Images that are overwritten are scored again, in a new row.
    """
    workflows.watch_table(folders, output, reporter(), report=_print_round, **options)


def _print_round(summary: ScoreSummary) -> None:
    click.echo(f"{summary.images} new images, {summary.anomalies} anomalous -> {summary.output}")

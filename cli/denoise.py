"""`vaeguard denoise`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from vaeguard import DenoiseOutputs, RestoreSettings, UsageError, workflows
from vaeguard.settings.cluster import ClusterSettings
from vaeguard.workflows import DenoiseRun

from . import options as o
from .commands import command, settled
from .output import Result, reporter, say, share_result

if TYPE_CHECKING:
    from vaeguard import DenoiseSummary
    from vaeguard.restoration.planning import PlannedScan, ScanPlan
    from vaeguard.workflows import Outcome


@command(
    click.argument("scans", nargs=-1, required=True),
    o.output_option("", "Folder for the clean scans.", shown="SCANS-clean", metavar="FOLDER"),
    o.field_option(RestoreSettings, "kind"),
    o.field_option(RestoreSettings, "strength"),
    o.field_option(RestoreSettings, "noise"),
    o.field_option(RestoreSettings, "paper"),
    o.field_option(DenoiseOutputs, "residual"),
    o.field_option(DenoiseOutputs, "uncertainty"),
    o.field_option(DenoiseOutputs, "ocr"),
    o.field_option(DenoiseOutputs, "derive", multiple=True, callback=lambda _ctx, _param, kinds: kinds or None),
    click.option("-m", "--model", metavar="MODEL",
                 help="Your own denoiser, or a model of `vaeguard fit` if all images have the size that the model"
                 " takes.  [default: the included denoisers]"),
    o.piece_option,
    o.cluster_option,
    o.set_option,
    o.report_option,
    click.option("--dry-run", is_flag=True,
                 help="Show what would be done with each file and how long that would take; write nothing."),
    o.engine_option,
    o.json_option,
    specs={"restore": RestoreSettings, "outputs": DenoiseOutputs, "run": DenoiseRun, "cluster": ClusterSettings},
)  # fmt: skip
def denoise(
    scans: tuple[str, ...], output: str | None, *, dry_run: bool, piece: str | None, cluster: str | None, **given: Any
) -> Result:
    """Clean a folder of scans: remove noise and grain, and from documents also stains, folds and uneven light.

    SCANS are folders or files, of the types JPEG, PNG, TIFF (all pages), JPEG 2000, BMP, WEBP and PDF. Clean files are
    written to a new folder with the same structure; the scans are never changed. The size, bit depth, resolution,
    colour profile and EXIF data of each file are kept. Next to each clean file, <file>.json records what was done. The
    table pages.csv lists all pages, beginning with the pages that you should check, and report.html shows some of the
    pages before and after cleaning.

    Cleaning never moves a pixel, so coordinates in existing ALTO or hOCR files stay valid. With --derive, copies are
    also written next to each clean file. The bilevel copy, <file>.bilevel.tif (for a PDF, <file>.bilevel.pdf), has only
    black and white pixels, at the same coordinates as the clean file. The deskewed copy, such as
    page.png.deskewed.png, has the type of the clean file; its pages are straightened by small rotations, which
    <file>.json records. The bilevel copy is never rotated, even if you ask for both copies.

    Ctrl-C stops the job within seconds; to continue, run the same command again.

    If you use --residual, `vaeguard undo` can restore every pixel of the originals. At any later time, `vaeguard check`
    shows whether a clean file has changed.

    With --piece 3/8, the command cleans the third of eight shares of the scans. When all shares have finished,
    `vaeguard gather CLEAN` writes pages.csv and the report; CLEAN is the folder of the clean scans. With --cluster, the
    scans are cleaned on a Ray cluster. Both options work as in `vaeguard score`.
    """
    settings, outputs, run, spread = settled(given)
    o.check_alone(piece, cluster)
    given |= {"settings": settings, "outputs": outputs, "jobs": run.jobs}
    if piece:
        if dry_run:
            raise UsageError("`dry_run` shows the whole job, but `piece` is one share of it; remove one of them")
        return share_result(workflows.denoise_share_of(scans, output, reporter(), piece=piece, **given))
    if cluster:
        from vaeguard.cluster.scans import denoise_on_cluster

        done = denoise_on_cluster(
            scans, output, reporter(), cluster=cluster, cluster_settings=spread, dry_run=dry_run, **given
        )
    else:
        done = workflows.denoise_tree(scans, output, reporter(), dry_run=dry_run, **given)
    return _planned(done) if dry_run else _cleaned(done)


def _planned(done: Outcome) -> Result:
    plan: ScanPlan = done.result
    for note in plan.notes:
        say(note)
    finished = f"; {workflows.counted(plan.finished, 'file', 'is are')} already done" if plan.finished else ""
    left = sum(not scan.finished and page.action != "restored" for scan in plan.scans for page in scan.pages)
    restored = f"{plan.pages - left:,} of " if left else ""
    pages, files = workflows.counted(plan.pages, "page"), workflows.counted(plan.files, "file")
    size = f"{restored}{pages} in {files}, {plan.megapixels} MP, in about {_duration(plan.seconds)}"
    if sum(scan.seconds for scan in plan.scans if not scan.finished) > 1.5 * plan.seconds:
        size += ", several files at a time"
    total = f"Would clean {size}; output: {done.output}{finished}"
    return Result(plan.to_dict(), [*map(_planned_file, plan.scans), total], errors=done.errors)


def _planned_file(scan: PlannedScan) -> str:
    """A line on the planned work on a file."""
    alike = Counter((page.width, page.height, page.kind, page.reason) for page in scan.pages)
    pages = [
        f"{workflows.counted(count, 'page')} of {width} x {height} pixels, {kind}"
        + (f", to be left unchanged ({reason})" if reason else ", to be cleaned")
        for (width, height, kind, reason), count in alike.items()
    ]
    time = "already done" if scan.finished else f"about {_duration(scan.seconds)}"
    return f"{scan.path}: {'; '.join(pages) or 'no picture to clean'}; {scan.bytes / 1000:,.1f} kB, {time}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _cleaned(done: Outcome) -> Result:
    summary: DenoiseSummary = done.result
    rate = f", {summary.megapixels / summary.seconds:.2f} MP/s" if summary.megapixels else ""
    resumed = f", {summary.resumed:,} of the files in earlier runs" if summary.resumed else ""
    pages, files = workflows.counted(summary.pages, "page"), workflows.counted(summary.files, "file")
    first = f"{pages} in {files} processed{resumed}; {summary.megapixels} MP{rate}; saved to {done.output}"
    lines = []
    if done.report:
        lines.append(f"Report, with pages before and after cleaning: {done.output}/report.html")
    else:  # a report contains these, too
        lines += [workflows.left_clause(summary.left)] if summary.left else []
        for note in summary.notes:
            say(note)
    listed = f"see {done.output}/pages.csv.errors.csv"
    return Result(summary.to_dict(), lines, done.report, errors=done.errors, listed=listed, first=first)

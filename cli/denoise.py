"""`vaeguard denoise`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from vaeguard import PAPERS, RESTORE_KINDS, RestoreSettings, as_objects

from .options import engine_option, json_option, typed
from .output import command_line, complain_of_left_out, console, print_json, progress_bar, say, say_left_out

if TYPE_CHECKING:
    from vaeguard import DenoiseSummary, PlannedScan, ScanPlan

DEFAULTS = RestoreSettings()


@click.command()
@click.argument("scans", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", metavar="FOLDER", help="Where the clean tree goes.  [default: SCANS-clean]")
@click.option("--kind", type=click.Choice(RESTORE_KINDS), default=DEFAULTS.kind, show_default=True,
              help="What the pages are; auto tells page by page.")  # fmt: skip
@click.option("--strength", type=float, default=DEFAULTS.strength, show_default=True,
              help="Share of the correction, 0 to 1.")  # fmt: skip
@click.option("--noise", type=float, help="Standard deviation of the noise, in levels of 0-255.  [default: estimated]")
@click.option("--paper", type=click.Choice(PAPERS), default=DEFAULTS.paper, show_default=True,
              help="Of documents: keep the tint but no stains, make it white, or leave it as it is.")  # fmt: skip
@click.option("--samples", type=int, default=DEFAULTS.samples, show_default=True,
              help="Average so many samples of the ladder VAE of -m, instead of one direct pass.")  # fmt: skip
@click.option("--gate/--no-gate", default=DEFAULTS.gate, show_default=True,
              help="Put squares back where ink would be lost or invented.")  # fmt: skip
@click.option("--jpeg", type=int, metavar="QUALITY",
              help="Write JPEGs as JPEGs, also in PDFs.  [default: PNG; in PDFs as before]")  # fmt: skip
@click.option("--lossless", is_flag=True,
              help="Write pictures in PDFs without loss, which takes more room; not with --jpeg.")  # fmt: skip
@click.option("--residual", is_flag=True,
              help="Also write the exact difference, to have the original back; implies --lossless.")  # fmt: skip
@click.option("--undo", is_flag=True,
              help="Write the originals of SCANS, which is a clean tree with residuals.")  # fmt: skip
@click.option("--check", is_flag=True,
              help="Compare SCANS, which is a clean tree, with the digests in its records.")  # fmt: skip
@click.option("--uncertainty", is_flag=True, help="Also write a picture of how uncertain each pixel is.")
@click.option("--ocr", is_flag=True, help="Leave a page as it was if tesseract can read fewer words afterwards.")
@click.option("--ocr-language", metavar="LANG", default="",
              help="What tesseract calls it, or several: deu+fra.  [default: its own, English]")  # fmt: skip
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="A denoiser, or a fitted model for images of its size.  [default: those that ship]",
)
@click.option("--jobs", type=click.IntRange(1), help="Files in work at a time.  [default: one a core, at most 4]")
@click.option("--report/--no-report", default=True, show_default=True, help="Also write report.html into the output.")
@click.option(
    "--dry-run", is_flag=True, help="List each file with its pages, what would be done and the time, and write nothing."
)
@engine_option
@json_option
def denoise(
    scans: tuple[str, ...], output: str | None, jpeg: int | None, lossless: bool, residual: bool, undo: bool,
    check: bool, uncertainty: bool, ocr: bool, ocr_language: str, model: str | None, jobs: int | None, report: bool,
    dry_run: bool, device: str, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Clean a folder tree of scans: noise and grain, and from documents also stains, folds and uneven light.

    SCANS is a folder, searched for JPEG, PNG, TIFF (all pages), BMP, WEBP and PDF, or such a file, or several of
    either. The tree is written anew elsewhere; scans are never touched. Sizes, bit depth, resolution, profiles and
    EXIF are kept. Beside each file lies <file>.json with what was done; pages.csv lists all pages, those worth a look
    first, and report.html shows these before and after.

    Ctrl-C ends a job within seconds, and it goes on where it stopped when the same command is given again.

    What was written with --residual can be had back: --undo SCANS-clean writes the pixels of the originals, bit for
    bit, to SCANS-clean-originals, under the names of the clean files. --check SCANS-clean tells, years later, whether
    every file is still as it was written.
    """
    from vaeguard import (
        DenoiseOutputs,
        check_tesseract,
        default_output,
        denoise_scans,
        plan_scans,
        remove_report,
        write_scan_report,
    )

    if check or undo:
        _check_alone("check" if check else "undo", scans)
        if check:
            _check(scans[0], as_json=as_json)
        else:
            _undo(scans[0], output, as_json=as_json)
        return
    if ocr:
        check_tesseract(ocr_language)
    if output is None:
        output = str(default_output(scans))
        say(f"output: {output}")
    how, outputs = RestoreSettings(**settings), DenoiseOutputs(jpeg, residual, uncertainty, ocr, ocr_language, lossless)
    if dry_run:
        with progress_bar("looking") as progress:
            plan = plan_scans(
                scans, output, how, outputs=outputs, model=model, device=device, jobs=jobs, progress=progress
            )
        _say_plan(plan, output, as_json=as_json)
        return
    with progress_bar("denoising") as progress:
        done = denoise_scans(
            scans, output, how, outputs=outputs, model=model, device=device, jobs=jobs, progress=progress
        )
    say_left_out(done.errors)
    for note in done.notes if as_json or not report else ():  # the report says them, too
        say(note)
    found: dict[str, Any] = {}
    if report:
        found = write_scan_report(done, jpeg=jpeg, command=command_line())
    else:
        remove_report(f"{output}/report.json", "scans")
    if as_json:
        print_json(done.to_dict())
    else:
        _say(done, found)
    complain_of_left_out(done.errors, f"see {output}/pages.csv.errors.csv")


def _say_plan(plan: ScanPlan, output: str, *, as_json: bool) -> None:
    from vaeguard import counted

    say_left_out(plan.errors)
    for note in plan.notes:
        say(note)
    if as_json:
        print_json(plan.to_dict())
    else:
        for scan in plan.scans:
            click.echo(_planned(scan))
        done = f"; {counted(plan.finished, 'file', 'is are')} done already" if plan.finished else ""
        left = sum(not scan.finished and page.action != "restored" for scan in plan.scans for page in scan.pages)
        of = f"{plan.pages - left:,} of " if left else ""
        click.echo(
            f"would restore {of}{counted(plan.pages, 'page')} in {counted(plan.files, 'file')}, {plan.megapixels} MP,"
            f" in about {_duration(plan.seconds)} -> {output}{done}"
        )
    complain_of_left_out(plan.errors)


def _planned(scan: PlannedScan) -> str:
    """A line on what would be done to a file."""
    from vaeguard import counted

    alike = Counter((page.width, page.height, page.kind, page.reason) for page in scan.pages)
    pages = [
        f"{counted(count, 'page')} of {width} x {height} pixels, {kind}"
        + (f" because {reason}" if reason else ", to be restored")
        for (width, height, kind, reason), count in alike.items()
    ]
    time = "done already" if scan.finished else f"about {_duration(scan.seconds)}"
    return f"{scan.path}: {'; '.join(pages) or 'no picture that is restored'}; {scan.bytes / 1000:,.1f} kB, {time}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _check_alone(flag: str, scans: tuple[str, ...]) -> None:
    """Refuse options that say how to clean where `flag` does something else with one clean tree.

    Raises
    ------
    UsageError
        One was given, or several trees.
    """
    from vaeguard import UsageError

    if len(scans) > 1:
        raise UsageError(f"--{flag} takes one clean tree; give one folder")
    known = {"scans", flag, "as_json"} | ({"output"} if flag == "undo" else set())
    for option in click.get_current_context().command.params:
        if typed(str(option.name)) and option.name not in known:
            raise UsageError(f"{option.opts[0]} has no meaning with --{flag}; leave it out")


def _check(clean: str, *, as_json: bool) -> None:
    """Tell whether a clean tree is as it was written.

    Raises
    ------
    RefusedError
        A file is not.
    """
    from vaeguard import RefusedError, check_scans, counted

    with progress_bar("checking") as progress:
        whole, errors = check_scans(clean, progress=progress)
    if as_json:
        print_json({"output": clean, "files": whole, "errors": as_objects(errors)})
    else:
        click.echo(
            f"{counted(whole, 'file')} in {clean} {'is as it was' if whole == 1 else 'are as they were'} written"
        )
    if errors:
        for path, reason in errors:
            say(f"{path!r}: {reason}")
        were = "is not as it was" if len(errors) == 1 else "are not as they were"
        files = f"{counted(len(errors), 'file')} {were}"
        raise RefusedError(f"{files} written, the first {errors[0][0]!r}; take them from a copy")


def _undo(clean: str, output: str | None, *, as_json: bool) -> None:
    from vaeguard import counted, default_originals, undo_scans

    if output is None:
        output = str(default_originals(clean))
        say(f"output: {output}")
    with progress_bar("undoing") as progress:
        files, errors = undo_scans(clean, output, progress=progress)
    say_left_out(errors)
    if as_json:
        print_json({"output": output, "files": files, "errors": as_objects(errors)})
    else:
        click.echo(f"originals of {counted(files, 'file')} -> {output}")
    complain_of_left_out(errors)


def _say(done: DenoiseSummary, report: dict[str, Any]) -> None:
    from vaeguard import counted, left_clause, show_report

    rate = f", {done.megapixels / done.seconds:.2f} MP/s" if done.megapixels else ""
    resumed = f", {done.resumed} of them done before" if done.resumed else ""
    pages, files = counted(done.pages, "page"), counted(done.files, "file")
    click.echo(f"{pages} in {files}{resumed}; {done.megapixels} MP{rate} -> {done.output}")
    if report:
        show_report(report, console())
        click.echo(f"before and after -> {done.output}/report.html")
    elif done.left:
        click.echo(left_clause(done.left))

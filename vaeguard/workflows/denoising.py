"""A tree of scans with its report: cleaned, planned, restored to the originals, or checked."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.errors import UsageError
from vaeguard.reports.report_file import remove_report
from vaeguard.restoration.formats.scans import SCAN_SUFFIXES
from vaeguard.restoration.ocr import check_tesseract
from vaeguard.restoration.places import default_output
from vaeguard.settings.restoration import DenoiseOutputs
from vaeguard.storage.places import check_supported, is_url, naming_urls, shadow
from vaeguard.workflows.buckets import named, naming, publishing
from vaeguard.workflows.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaeguard.workflows.outcome import Reporter


def denoise_tree(
    scans: Sequence[str], output: str | None, reporter: Reporter, *, dry_run: bool = False, report: bool = True,
    **options: Any,
) -> Outcome:  # fmt: skip
    """Clean scans into the folder `output` and write the report there; with `dry_run`, only return the plan.

    Parameters
    ----------
    scans, output
        As for `denoise_scans`.
    reporter : Reporter
        Receives messages and progress.
    dry_run : bool
        Return the plan of `plan_scans`, and write nothing.
    report : bool
        Whether a report is written.
    **options
        As for `denoise_scans`.

    Raises
    ------
    UsageError, VaeguardError
        As by `denoise_scans`.
    """
    if output is None:
        output = _default_output(scans)
        reporter.say(f"Output: {output}")
    with contextlib.ExitStack() as stack:
        given = [str(stack.enter_context(shadow(scan))) if is_url(scan) else scan for scan in scans]
        stack.enter_context(naming_urls())
        done: Outcome = named(_denoise(given, output, naming(reporter), dry_run=dry_run, report=report, **options))
        return done


def _default_output(scans: Sequence[str]) -> str:
    if not any(map(is_url, scans)):
        return str(default_output(scans))
    if len(scans) > 1:
        raise UsageError("`output` is missing, and several scans are in buckets; give a folder")
    folder, _, name = scans[0].rstrip("/").rpartition("/")
    return f"{folder}/{Path(name).stem if name.lower().endswith(SCAN_SUFFIXES) else name}-clean"


@publishing("output")
def _denoise(
    scans: Sequence[str], output: str, reporter: Reporter, *, dry_run: bool, report: bool, **options: Any
) -> Outcome:
    from vaeguard.reports.scans import write_scan_report
    from vaeguard.restoration.denoising import denoise_scans
    from vaeguard.restoration.planning import plan_scans

    output = str(Path(output))
    outputs = options.get("outputs") or DenoiseOutputs()
    if outputs.ocr:
        check_tesseract(outputs.ocr_language)
    verb = plan_scans if dry_run else denoise_scans
    where = "nothing was written" if dry_run else f"finished files are in {output}"
    with (
        reporter.going_on(where),
        reporter.progress("planning" if dry_run else "denoising") as progress,
    ):
        done: Any = verb(scans, output, progress=progress, **options)
    reporter.left_out(done.errors)
    if dry_run:
        return Outcome(output, done, errors=done.errors)
    page = None
    if report:
        page = write_scan_report(done, jpeg=outputs.jpeg, command=reporter.command)
    else:
        remove_report(f"{output}/report.json", "scans")
    return Outcome(output, done, page, done.errors)


def undo_tree(clean: str, output: str | None, reporter: Reporter) -> Outcome:
    """Write the originals of clean scans, as `undo_scans` does; `output` is by default that of `default_originals`.

    Raises
    ------
    UsageError, VaeguardError
        As by `undo_scans`.
    """
    from vaeguard.restoration.undoing import default_originals, undo_scans

    check_supported([clean, output], "`undo`")
    if output is None:
        output = str(default_originals(clean))
        reporter.say(f"Output: {output}")
    with reporter.progress("restoring") as progress:
        files, errors = undo_scans(clean, output, progress=progress)
    reporter.left_out(errors)
    return Outcome(output, files, errors=errors)


def check_tree(clean: str, reporter: Reporter) -> Outcome:
    """Compare a clean tree with its records, as `check_scans` does.

    Raises
    ------
    UsageError
        There are no clean scans.
    """
    from vaeguard.restoration.checking import check_scans

    check_supported([clean], "`check`")
    with reporter.progress("checking") as progress:
        whole, errors = check_scans(clean, progress=progress)
    return Outcome(clean, whole, errors=errors)

"""Pages of existing reports: a page made again, and evaluations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.engines.run_folder import followed
from vaeguard.reports.comparison import compare_reports
from vaeguard.reports.report_file import JSON_NAME, check_place, remake_page, write_report
from vaeguard.workflows.outcome import Outcome
from vaeguard.workflows.runs import latest_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaeguard.workflows.outcome import Reporter


def remake_report(path: str | None, reporter: Reporter) -> Outcome:
    """Make the page of a report again; None is the report of the latest run.

    Raises
    ------
    UsageError, RefusedError
        As by `read_report`.
    """
    if path is None:
        path = str(latest_run())
        reporter.say(f"Report of runs/latest ({Path(path).resolve().name}), the latest run")
    report, page = remake_page(followed(path))
    return Outcome(str(page), report=report)


def compare_to(paths: Sequence[str], output: str, reporter: Reporter) -> Outcome:
    """Put evaluations side by side in one page in the folder `output`.

    Raises
    ------
    UsageError
        There are fewer than two reports, one is no evaluation, or the folder holds another report.
    """
    place = Path(output) / JSON_NAME
    check_place(place, "comparison")
    report = compare_reports([followed(path) for path in paths], reporter.command)
    return Outcome(str(write_report(place, report)), report=report)

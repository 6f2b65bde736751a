"""Pages of reports that are there: one made again, several evaluations side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.reports.comparison import compare_reports
from vaeguard.reports.report_file import JSON_NAME, check_place, remake_page, write_report
from vaeguard.workflows.outcome import Outcome
from vaeguard.workflows.runs import latest_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vaeguard.workflows.outcome import Reporter


def remake_report(path: str | None) -> Outcome:
    """Make the page of a report again; None is that of the latest run.

    Raises
    ------
    UsageError, RefusedError
        As by `read_report`.
    """
    report, page = remake_page(path or latest_run())
    return Outcome(str(page), report=report)


def compare_to(paths: Sequence[str], output: str, reporter: Reporter) -> Outcome:
    """Put evaluations side by side in one page in the folder `output`.

    Raises
    ------
    UsageError
        There are fewer than two, one is of another kind, or another report lies in the folder.
    """
    place = Path(output) / JSON_NAME
    check_place(place, "comparison")
    report = compare_reports(paths, reporter.command)
    return Outcome(str(write_report(place, report)), report=report)

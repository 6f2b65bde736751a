"""`report.json`: one JSON object, from which `report.html` can be made again at any time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vaeguard.errors import RefusedError, UsageError
from vaeguard.reports.kinds import kind_of, report_kinds
from vaeguard.reports.page import page
from vaeguard.storage.files import write_text
from vaeguard.storage.places import check_supported
from vaeguard.storage.provenance import environment

Report = dict[str, Any]

FORMAT = 1
"""The version of the format, raised when a key changes its meaning (`docs/reference/report-format.md`)."""
AGAIN = "to replace it, run the command that wrote it"
"""What to do about a report that cannot be read."""
JSON_NAME = "report.json"
SCORES_NAME = "scores.csv"
"""The table beside the report of an evaluation."""


def heading(kind: str, title: str, *, command: str = "", device: str = "cpu") -> Report:
    """The keys that every report begins with; `kind` is one of `report_kinds`, `command` the command line."""
    return {"format": FORMAT, "kind": kind, "title": title, "command": command, "made": environment(device)}


def write_report(path: str | Path, report: Report) -> Path:
    """Write `report` to `path` (`.json`) and its page beside it; return the path of the page.

    Raises
    ------
    UsageError
        `path` holds a report of another kind.
    VaeguardError
        The files cannot be written.
    """
    path = Path(path)
    check_place(path, kind_of(report))
    content = finite(report)
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_text(path.with_suffix(".html"), page(content))
    return path.with_suffix(".html")


def check_place(path: str | Path, kind: str) -> None:
    """Refuse to overwrite a report of another kind than `kind` at `path`, which may be hard to make again.

    Raises
    ------
    UsageError
        `path` holds a report of another kind, or there is a page without a report.
    """
    path = Path(path)
    try:
        present = json.loads(path.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        page = path.with_suffix(".html")
        if page.exists() and not path.exists():
            raise UsageError(
                f"{str(page)!r} is not a report page of vaeguard and would be overwritten; choose a different place"
            ) from None
        return
    if present in report_kinds() and present != kind:
        article = "" if present in ("scores", "scans") else "an " if present[0] in "ae" else "a "
        raise UsageError(f"{str(path)!r} is the report of {article}{present}; choose a different folder")


def remove_report(path: str | Path, kind: str) -> None:
    """Remove the report of `kind` at `path` (`.json`) and its page, which describe results that are gone.

    Raises
    ------
    UsageError
        The report there is of another kind.
    """
    check_place(path, kind)
    # A page without a report counts as a file of the user, so the page is removed first.
    for file in (Path(path).with_suffix(".html"), Path(path)):
        file.unlink(missing_ok=True)


def remake_page(path: str | Path) -> tuple[Report, Path]:
    """Read the report at `path`, write its page anew, and return the report and the path of the page.

    Raises
    ------
    UsageError
        There is no report.
    RefusedError
        The file is damaged, no report, or of another version.
    """
    from jinja2 import UndefinedError

    place, report = report_path(path), read_report(path)
    try:
        html = page(report)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, UndefinedError) as error:
        raise RefusedError(f"{str(place)!r} is incomplete ({error}); {AGAIN}") from error
    write_text(place.with_suffix(".html"), html)
    return report, place.with_suffix(".html")


def report_path(path: str | Path) -> Path:
    """The `report.json` that `path` means: the file itself, the one in a folder, or the one of a table of scores.

    Raises
    ------
    UsageError
        There is no report.
    """
    check_supported([path], "reading a report")
    path = Path(path)
    candidates = (path / JSON_NAME, path, Path(f"{path}.{JSON_NAME}"))
    for candidate in candidates:
        if candidate.is_file() and candidate.suffix == ".json":
            return candidate
    raise UsageError(
        f"{str(path)!r} is not a report and contains none; give a report.json, the folder of a run, a search, an"
        " evaluation, a benchmark or clean scans, or a table of scores"
    )


def read_report(path: str | Path) -> Report:
    """The report at `path`, see `report_path`.

    Raises
    ------
    UsageError
        There is no report.
    RefusedError
        The file is damaged, no report, or of another version.
    """
    path = report_path(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RefusedError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except ValueError as error:
        raise RefusedError(f"{str(path)!r} is damaged ({error}); {AGAIN}") from error
    if not isinstance(report, dict) or report.get("kind") not in report_kinds():
        raise RefusedError(f"{str(path)!r} is not a report that this version of vaeguard can read; {AGAIN}")
    version = report.get("format")
    if type(version) is not int or version != FORMAT:
        raise RefusedError(
            f"{str(path)!r} is a report of a different version (format {version}, expected {FORMAT}); {AGAIN}"
        )
    return dict(report)


def without_pictures(report: Report) -> Report:
    """The report without its pictures, which are most of its bytes."""
    return {key: value for key, value in report.items() if key != "pictures"}


def finite(value: Any) -> Any:
    """`value` with None for every number that is not finite, since JSON has no such numbers."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value

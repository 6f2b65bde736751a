"""The check that a clean tree has not changed since it was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError, VaeguardError
from vaeguard.restoration.formats.scans import SCAN_SUFFIXES
from vaeguard.restoration.records import TABLE, clean_store
from vaeguard.storage.tables import read_table
from vaeguard.wording import counted

if TYPE_CHECKING:
    from vaeguard.progress import Progress


def check_scans(clean: str | Path, *, progress: Progress | None = None) -> tuple[int, list[tuple[str, str]]]:
    """Compare every file in a folder of clean scans with the SHA-256 in the record next to it; nothing is written.

    The check also reports pictures and documents without a record, since the record may be damaged, and scans in
    `pages.csv` without a record, since their clean files may be missing, too.

    Parameters
    ----------
    clean : path
        A folder that `denoise_scans` wrote.
    progress : callable or None
        Called with the number of clean files done, the number of all clean files, and a line of text.

    Returns
    -------
    (int, list of (path, reason))
        The number of unchanged files, including the pictures next to clean files, and the files that were changed,
        removed or added.

    Raises
    ------
    UsageError
        There are no clean scans.
    """
    files = list(clean_store(Path(clean)).parts())
    if not files:
        raise UsageError(f"{str(clean)!r} contains no clean scans; give the folder of clean scans, or one below it")
    intact = 0
    errors: list[tuple[str, str]] = []
    known: set[Path] = set()
    for done, file in enumerate(files, 1):
        missing, changed = file.missing, file.changed
        errors += [(str(path), "it is missing") for path in missing]
        errors += [(str(path), "it has changed since it was written") for path in changed]
        intact += len(file.files) - len(missing) - len(changed)
        known.update(file.files)
        if progress:
            progress(done, len(files), counted(done, "file"))
    unknown = {path for path in Path(clean).rglob("*") if path.suffix.lower() in SCAN_SUFFIXES} - known
    errors += [(str(path), "it has no record, so it is not a clean file, or its record is damaged") for path in unknown]
    table = Path(clean) / TABLE
    try:
        listed = set(read_table(table)["path"]) if table.exists() else set()
    except (VaeguardError, KeyError):
        errors.append((str(table), "it was changed and cannot be read; to write it again, clean the scans again"))
        listed = set()
    lost = listed - {str(file.record.get("source")) for file in files}
    errors += [(str(table), f"it lists {source!r}, but there is no record of this scan") for source in lost]
    return intact, sorted(errors)

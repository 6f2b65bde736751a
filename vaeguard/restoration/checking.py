"""`denoise --check`: whether a clean tree is still, bit for bit, what was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError
from vaeguard.restoration.records import others

if TYPE_CHECKING:
    from vaeguard.progress import Progress


def check_scans(clean: str | Path, *, progress: Progress | None = None) -> tuple[int, list[tuple[str, str]]]:
    """Compare every file of a clean tree with the SHA-256 in the record beside it; nothing is written.

    Parameters
    ----------
    clean : path
        A folder that `denoise_scans` wrote.
    progress : callable or None
        Called with clean files done, clean files in all, a line of text.

    Returns
    -------
    (int, list of (path, reason))
        How many files are as they were written, those beside clean ones included, and which are changed or gone.

    Raises
    ------
    UsageError
        There are no clean scans.
    """
    files = list(others(Path(clean), frozenset())) if Path(clean).is_dir() else []
    if not files:
        raise UsageError(f"{str(clean)!r} holds no clean scans; give a folder that `vaeguard denoise` wrote")
    whole, errors = 0, []
    for done, file in enumerate(files, 1):
        missing = set(file.missing)
        errors += [
            (str(path), "it is gone" if path in missing else "it was changed since it was written")
            for path in sorted({*missing, *file.changed})
        ]
        whole += len(file.record["written"]) - len(missing) - len(file.changed)
        if progress:
            progress(done, len(files), f"{done} files")
    return whole, errors

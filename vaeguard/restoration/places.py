"""Which scans there are, and where their clean files go."""

from __future__ import annotations

from pathlib import Path

from vaeguard.errors import UsageError
from vaeguard.reading.folders import list_images
from vaeguard.restoration.records import COLUMNS, TABLE
from vaeguard.restoration.scans import SCAN_SUFFIXES


def default_output(scans: str | Path) -> Path:
    """`scans-clean` beside `scans`."""
    path = Path(scans).resolve() if str(scans) in (".", "..") else Path(scans)
    return path.with_name((path.name if path.is_dir() else path.stem) + "-clean")


def find_scans(scans: str | Path, output: str | Path | None) -> tuple[Path, Path, list[str], list[str]]:
    """The folder, the checked target, the paths of scans below the folder, sorted, and of clean trees there.

    Raises
    ------
    UsageError
        There are none, or the target is where the scans are, or holds other things.
    """
    scans, target = Path(scans), Path(output) if output else default_output(scans)
    if target.is_file() or (target.suffix.lower() in SCAN_SUFFIXES and not target.exists()):
        raise UsageError(f"-o {str(target)!r} is a file, or called like one; clean scans go into a folder: name that")
    paths = list_images([scans], SCAN_SUFFIXES)
    folder = scans if scans.is_dir() else scans.parent
    place, clean = folder.resolve(), target.resolve()
    nested = scans.is_dir() and (place in clean.parents or clean in place.parents)
    if clean == place or nested:
        raise UsageError(
            f"-o {str(target)!r} is the folder of the scans, or inside it or around it, and these are never touched;"
            " choose a folder apart from it"
        )
    _check_ours(target)
    # A link among the scans may lead to the target.
    names = [str(Path(path).relative_to(folder)) for path in paths if clean not in Path(path).resolve().parents]
    names, skipped = _without_outputs(folder, names)
    if not names:
        raise UsageError(f"{str(scans)!r} holds nothing but clean scans; give the folder of the scans themselves")
    return folder, target, names, skipped


def _without_outputs(folder: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """The names that are in no clean tree below `folder`, and these trees: what is clean is no scan."""
    known = {Path(): False}
    skipped: list[str] = []

    def in_output(place: Path) -> bool:
        if place not in known:
            known[place] = in_output(place.parent) or _is_output(folder / place)
            if known[place] and not known[place.parent]:
                skipped.append(repr(str(folder / place)))
        return known[place]

    return [name for name in names if not in_output(Path(name).parent)], skipped


def _check_ours(target: Path) -> None:
    """Refuse to write into a folder that holds other things."""
    if target.is_dir() and any(target.iterdir()) and not _is_output(target):
        raise UsageError(f"-o {str(target)!r} holds other files; give a new or an empty folder")


def _is_output(folder: Path) -> bool:
    """Whether clean scans are written there, or have been."""
    if (folder / f"{TABLE}.job").exists():
        return True
    try:
        with (folder / TABLE).open(encoding="utf-8") as file:
            return file.readline().strip() == ",".join(COLUMNS)
    except (OSError, ValueError):
        return False

"""Finding the scans, and the places of their clean files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.folders import list_images
from vaeguard.data.images import read_bytes
from vaeguard.errors import UnreadableError, UsageError
from vaeguard.restoration.formats.scans import SCAN_SUFFIXES
from vaeguard.restoration.records import TABLE, clean_store, columns_of, is_copy
from vaeguard.storage.files import is_same
from vaeguard.storage.places import is_url, local_path
from vaeguard.storage.store import is_job, job_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Inputs = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Places:
    """The folders that scans are read from and clean scans are written to.

    Attributes
    ----------
    root : Path
        The folder to which the names are relative.
    target : Path
        The folder of clean scans.
    names : list of str
        Paths of the scans below `root`, sorted.
    skipped : list of str
        Clean trees among the scans.
    others : list of (str, int)
        The number of files in the folders that are not scans, by suffix, most frequent first.
    whole : bool
        Whether one folder was given, so that the names are all of its scans.
    """

    root: Path
    target: Path
    names: list[str]
    skipped: list[str]
    others: list[tuple[str, int]]
    whole: bool


def default_output(scans: Inputs) -> Path:
    """`scans-clean` beside `scans`; for several inputs, beside the folder that holds them all."""
    inputs = _inputs(scans)
    path = inputs[0] if len(inputs) == 1 else _root(inputs)
    path = path.resolve() if str(path) in (".", "..") else path
    return path.with_name((path.name if path.is_dir() else path.stem) + "-clean")


def find_scans(scans: Inputs, output: str | Path | None) -> Places:
    """Find the scans, and check the folder of the clean scans.

    Raises
    ------
    UsageError
        There are no scans, or the target lies inside or around the folder of the scans, or holds other files.
    """
    inputs, target = _inputs(scans), Path(output) if output else default_output(scans)
    _check_folder(target)
    paths, root = list_images(inputs, SCAN_SUFFIXES), _root(inputs)
    folders = [path.resolve() for path in inputs if path.is_dir()]
    _check_apart(target, root, folders)
    _check_ours(target)
    names, skipped = _names_outside(root, target, paths)
    if not names:
        first = str(inputs[0])
        raise UsageError(f"{first!r} contains only clean scans; give the folder of the original scans")
    left, _ = _names_outside(root, target, set(list_images(inputs, ("",))).difference(paths))
    _check_links(target, names)
    counts = Counter(Path(name).suffix.lower() for name in sorted(left))
    whole = len(inputs) == len(folders) == 1
    earlier = _earlier_root(target, root)
    if earlier and not is_same(earlier, root):
        below = _path_below(earlier, root, target)
        names, root, whole = [str(below / name) for name in names], earlier, False
    return Places(root, target, names, skipped, counts.most_common(), whole)


def _check_folder(target: Path) -> None:
    """Refuse a target that is a file."""
    if target.is_file() or (target.suffix.lower() in SCAN_SUFFIXES and not target.exists()):
        raise UsageError(
            f"{str(target)!r} is a file or has the name of one, but clean scans need a folder; choose a folder"
        )


def _check_links(target: Path, names: Iterable[str]) -> None:
    """Refuse a target that is a link or holds a link in place of one of its folders: nothing is written through it."""
    folders = {target / folder for name in names for folder in Path(name).parents}
    if link := next((folder for folder in sorted(folders) if folder.is_symlink()), None):
        raise UsageError(
            f"{str(link)!r} is a link to a different place; give that folder itself, or a different folder"
        )


def _check_apart(target: Path, root: Path, folders: Sequence[Path]) -> None:
    """Refuse a target that is a folder of scans, or lies inside or around one."""
    clean = target.resolve()
    nested = any(clean == folder or clean in folder.parents or folder in clean.parents for folder in folders)
    if clean == root.resolve() or nested:
        raise UsageError(
            f"{str(target)!r} is the folder of the scans, inside it or around it, and scans are never changed;"
            " choose a separate folder"
        )


def _names_outside(root: Path, target: Path, paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names of the `paths` outside all clean trees, and the clean trees that hold the others."""
    clean = target.resolve()
    # A link among the scans may lead to the target.
    names = [str(Path(path).relative_to(root)) for path in paths if clean not in Path(path).resolve().parents]
    names, skipped = _without_outputs(root, names)
    # A clean tree may itself be given, and the copies of its clean files are no scans.
    return [name for name in names if not is_copy(root / name)], skipped


def _path_below(earlier: Path, root: Path, target: Path) -> Path:
    """The path of `root` below `earlier`, the folder whose clean scans `target` holds.

    Below `earlier` each scan already has its place in the tree. Anywhere else a scan may have the name of another one,
    so a `root` anywhere else is refused.
    """
    if earlier in root.resolve().parents:
        return root.resolve().relative_to(earlier)
    advice = "; choose a different folder, or give all scans at once"
    missing = ", a folder that was not found; make that folder available, or choose a different one for the clean scans"
    holds = f"{str(target)!r} contains the clean scans of {str(earlier)!r}"
    raise UsageError(holds + (advice if earlier.is_dir() else missing))


def _earlier_root(target: Path, root: Path) -> Path | None:
    """The folder whose clean scans `target` holds, if known; `root` if that folder was renamed to `root`."""
    first = next(clean_store(target).parts(), None)
    if first is None or not isinstance(name := first.record.get("root"), str):
        return None
    earlier = local_path(name) if is_url(name) else (target / name).resolve()
    # A missing folder may have been renamed, or may lie on a disk that is not connected.
    moved = not earlier.is_dir() and _has_digest(root / str(first.record.get("source")), first.record)
    return root if moved else earlier


def _has_digest(scan: Path, record: Mapping[str, Any]) -> bool:
    """Whether a scan exists and is the scan of the record."""
    try:
        return hashlib.sha256(read_bytes(scan, any_size=True)).hexdigest() == record.get("source_sha256")
    except UnreadableError:
        return False


def _inputs(scans: Inputs) -> list[Path]:
    """The inputs as a list of paths; several paths are made absolute unless they can be compared as they are.

    Raises
    ------
    UsageError
        No scans are given.
    """
    given = [Path(scans)] if isinstance(scans, str | Path) else [Path(path) for path in scans]
    if not given:
        raise UsageError("no scans were given; name a folder or files")
    alike = len({path.is_absolute() for path in given}) == 1 and not any(".." in path.parts for path in given)
    return given if alike or len(given) == 1 else [Path(os.path.abspath(path)) for path in given]  # noqa: PTH100  (`abspath` removes `..`)


def _root(inputs: list[Path]) -> Path:
    """A single folder itself; otherwise the folder that holds all inputs."""
    if len(inputs) == 1:
        return inputs[0] if inputs[0].is_dir() else inputs[0].parent
    return Path(os.path.commonpath([path.parent for path in inputs]))


def _without_outputs(folder: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """The names outside the clean trees below `folder`, and these trees, since a clean file is not a scan."""
    known = {Path(): False}
    skipped: list[str] = []

    def in_output(directory: Path) -> bool:
        if directory not in known:
            known[directory] = in_output(directory.parent) or _is_output(folder / directory)
            if known[directory] and not known[directory.parent]:
                skipped.append(repr(str(folder / directory)))
        return known[directory]

    return [name for name in names if not in_output(Path(name).parent)], skipped


def _check_ours(target: Path) -> None:
    """Refuse to write into a folder that holds other files."""
    if target.is_dir() and any(target.iterdir()) and not _is_output(target):
        raise UsageError(f"{str(target)!r} contains other files; choose a new or an empty folder")


def _is_output(folder: Path) -> bool:
    """Whether clean scans have been, or are being, written into `folder`."""
    job = job_folder(folder / TABLE)
    if is_job(job) or (job.is_dir() and not any(job.iterdir())):  # another process is about to begin
        return True
    # Somebody may have added a column, or saved the table in a spreadsheet.
    return {"path", "page", "kind", "action"} <= set(columns_of(folder / TABLE))

"""Which scans there are, and where their clean files go."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.folders import list_images
from vaeguard.errors import UsageError
from vaeguard.restoration.formats.scans import SCAN_SUFFIXES
from vaeguard.restoration.records import TABLE, clean_store, columns_of
from vaeguard.storage.files import digest_of, is_same

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Inputs = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Places:
    """Where scans are read and clean ones written.

    Attributes
    ----------
    root : Path
        The folder that names start from.
    target : Path
        The folder of clean scans.
    names : list of str
        Paths of the scans below `root`, sorted.
    skipped : list of str
        Clean trees among the scans.
    others : list of (str, int)
        How many files in the folders are no scans, by suffix, most first.
    whole : bool
        Whether one folder was given, so that the names are all that there are.
    """

    root: Path
    target: Path
    names: list[str]
    skipped: list[str]
    others: list[tuple[str, int]]
    whole: bool


def default_output(scans: Inputs) -> Path:
    """`scans-clean` beside `scans`, or beside the folder that holds all of several scans."""
    inputs = _inputs(scans)
    path = inputs[0] if len(inputs) == 1 else _root(inputs)
    path = path.resolve() if str(path) in (".", "..") else path
    return path.with_name((path.name if path.is_dir() else path.stem) + "-clean")


def find_scans(scans: Inputs, output: str | Path | None) -> Places:
    """Find the scans, and check where the clean ones go.

    Raises
    ------
    UsageError
        There are none, or the target is where the scans are, or holds other things.
    """
    inputs, target = _inputs(scans), Path(output) if output else default_output(scans)
    _check_folder(target)
    paths, root = list_images(inputs, SCAN_SUFFIXES), _root(inputs)
    folders = [path.resolve() for path in inputs if path.is_dir()]
    _check_apart(target, root, folders)
    _check_ours(target)
    names, skipped = _names_apart(root, target, paths)
    if not names:
        first = str(inputs[0])
        raise UsageError(f"{first!r} holds nothing but clean scans; give the folder of the scans themselves")
    left, _ = _names_apart(root, target, set(list_images(inputs, ("",))).difference(paths))
    counts = Counter(Path(name).suffix.lower() for name in sorted(left))
    whole = len(inputs) == len(folders) == 1
    earlier = _earlier_root(target, root)
    if earlier and not is_same(earlier, root):
        below = _below(earlier, root, target)
        names, root, whole = [str(below / name) for name in names], earlier, False
    return Places(root, target, names, skipped, counts.most_common(), whole)


def _check_folder(target: Path) -> None:
    """Refuse a target that is a file."""
    if target.is_file() or (target.suffix.lower() in SCAN_SUFFIXES and not target.exists()):
        raise UsageError(
            f"{str(target)!r} is a file, or named like one, and clean scans go into a folder; choose a folder"
        )


def _check_apart(target: Path, root: Path, folders: Sequence[Path]) -> None:
    """Refuse a target that is where the scans are."""
    clean = target.resolve()
    nested = any(clean == folder or clean in folder.parents or folder in clean.parents for folder in folders)
    if clean == root.resolve() or nested:
        raise UsageError(
            f"{str(target)!r} is the folder of the scans, or lies inside or around it, and scans are never touched;"
            " choose a folder apart from it"
        )


def _names_apart(root: Path, target: Path, paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names of those of `paths` that are in no clean tree, and the clean trees among them."""
    clean = target.resolve()
    # A link among the scans may lead to the target.
    inside = [str(Path(path).relative_to(root)) for path in paths if clean not in Path(path).resolve().parents]
    return _without_outputs(root, inside)


def _below(earlier: Path, root: Path, target: Path) -> Path:
    """Where `root` lies below `earlier`, the folder whose scans are clean in `target`.

    There each scan has its place in the tree already. Elsewhere its name may be that of another scan, so that is
    refused.
    """
    if earlier in root.resolve().parents:
        return root.resolve().relative_to(earlier)
    there = "; choose another folder, or give all scans at once"
    away = ", which is not there now; make it available, or choose another folder"
    holds = f"{str(target)!r} holds the clean scans of {str(earlier)!r}"
    raise UsageError(holds + (there if earlier.is_dir() else away))


def _earlier_root(target: Path, root: Path) -> Path | None:
    """The folder whose scans are clean in `target`, if that is known; `root` if this is it under another name."""
    first = next(clean_store(target).parts(), None)
    if first is None or not isinstance(name := first.record.get("root"), str):
        return None
    earlier = (target / name).resolve()
    # A folder that is gone may have been renamed, or lie on a disk that is not there now.
    moved = not earlier.is_dir() and _has_digest(root / str(first.record.get("source")), first.record)
    return root if moved else earlier


def _has_digest(scan: Path, record: Mapping[str, Any]) -> bool:
    """Whether a scan is there and is the one that a record tells of."""
    try:
        return digest_of(scan) == record.get("source_sha256")
    except OSError:
        return False


def _inputs(scans: Inputs) -> list[Path]:
    """What is given; several paths such that they can share a beginning.

    Raises
    ------
    UsageError
        Nothing is given.
    """
    given = [Path(scans)] if isinstance(scans, str | Path) else [Path(path) for path in scans]
    if not given:
        raise UsageError("no scans are given; name a folder, or files")
    alike = len({path.is_absolute() for path in given}) == 1 and not any(".." in path.parts for path in given)
    return given if alike or len(given) == 1 else [Path(os.path.abspath(path)) for path in given]  # noqa: PTH100  (it takes out the ..)


def _root(inputs: list[Path]) -> Path:
    """One folder itself, otherwise the folder that holds all that is given."""
    if len(inputs) == 1:
        return inputs[0] if inputs[0].is_dir() else inputs[0].parent
    return Path(os.path.commonpath([path.parent for path in inputs]))


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
        raise UsageError(f"{str(target)!r} holds other files; choose a new or an empty folder")


def _is_output(folder: Path) -> bool:
    """Whether clean scans are written there, or have been."""
    if (folder / f"{TABLE}.job").exists():
        return True
    # Somebody may have added a column, or saved the table with a spreadsheet.
    return {"path", "page", "kind", "action"} <= set(columns_of(folder / TABLE))

"""Finished parts of a job, each with a manifest: the one way in which work that was killed is resumed.

A part is called by a name below the folder of its store. It consists of any number of files, and of its manifest
`<name>.json`: the SHA-256 of each file (`written`), and the facts that a later run needs. What the part depends on is
either digested into its name or one of the facts.

Files only appear whole, the manifest before any of them and until all are gone. So a part is finished if every file is
as the manifest says; a file that differs from the manifest, or has none, is somebody's and may hold hours of work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.errors import UsageError
from vaeguard.storage.files import digest_of, is_temporary, locked, sweep, valid_text, write_first, write_text, writing
from vaeguard.storage.published import publish

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MANIFEST_FACTS = ("written",)
"""What every manifest of a part in a job's folder holds."""
MARK_NAME = ".vaeguard-job"
LOCK_NAME = "lock"
TOKEN_NAME = "token"  # noqa: S105  (the name of a file)
"""The secret of a cluster that a job starts; a job that was killed may have left it."""


@dataclass(frozen=True)
class Store:
    """The parts below `folder`; files of others may lie there too.

    Attributes
    ----------
    folder : Path
        Where the parts lie.
    facts : collection of str
        What each manifest holds, by which it is told from other JSON files.
    """

    folder: Path
    facts: Collection[str] = ()

    def part(self, name: str | Path) -> Part:
        """The part `name` as it is on disk now, which may be nothing."""
        return Part(self.folder / name, _manifest(beside(self.folder / name, "json"), self.facts))

    def get(self, name: str) -> dict[str, Any] | None:
        """The manifest of the part `name` if the part is finished, otherwise None."""
        part = self.part(name)
        return part.record if part.whole else None

    @contextlib.contextmanager
    def put(self, name: str | Path) -> Iterator[Draft]:
        """Write the part `name`: all of it takes its final names at the end, the manifest first; on an error, nothing.

        Raises
        ------
        VaeguardError
            The folder cannot be written, or the disk is full.
        """
        with contextlib.ExitStack() as files:
            draft = Draft(self.folder / name, files)
            yield draft
        if draft.files:  # without files of its own, a manifest is of files that are written elsewhere
            publish([*draft.files, beside(draft.path, "json")])

    def claim(self, name: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Write the part `name`, a manifest alone, unless there is one; return that of the process that came first.

        Raises
        ------
        VaeguardError
            The folder cannot be written, or the disk is full.
        """
        path = beside(self.folder / name, "json")
        if write_first(path, json.dumps(manifest).encode()):
            publish([path])
            return manifest
        return _manifest(path, self.facts)

    def parts(self, without: Collection[str] = ()) -> Iterator[Part]:
        """All parts, in sorted order, but those whose names are in `without`."""
        for path in sorted(self.folder.rglob("*.json")):
            name = path.with_suffix("").relative_to(self.folder)
            if str(name) not in without and (part := self.part(name)).record:
                yield part


@dataclass
class Draft:
    """A part while it is written."""

    path: Path
    _files: contextlib.ExitStack
    _temporary: dict[str, Path] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """Where to write the file that will be called `name` and lie beside the manifest."""
        self._temporary[name] = self._files.enter_context(writing(self.path.with_name(name)))
        return self._temporary[name]

    @property
    def files(self) -> list[Path]:
        """The files, but for the manifest."""
        return [self.path.with_name(name) for name in self._temporary]

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file: what the manifest calls `written`."""
        return {name: digest_of(path) for name, path in self._temporary.items()}

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, when every file is written."""
        # Of the files of a stack, the last that was opened takes its name first.
        temporary = self._files.enter_context(writing(beside(self.path, "json")))
        temporary.write_text(json.dumps(manifest, indent=1), "utf-8")


@dataclass
class Part:
    """What is on disk of a part.

    Attributes
    ----------
    path : Path
        Its name below the folder of the store; often its main file.
    record : dict
        The manifest; empty if there is none.
    """

    path: Path
    record: dict[str, Any]

    @cached_property
    def changed(self) -> list[Path]:
        """The files that are there, and not as they were written; without a manifest nobody can tell."""
        if not self.record:
            return [self.path] if self.path.exists() else []
        return [path for path, digest, written in self._digests if digest not in (written, None)]

    @property
    def retouched(self) -> bool:
        """Whether the main file is there, readable, and not as it was written."""
        return any(path == self.path and digest not in (written, None, "") for path, digest, written in self._digests)

    @property
    def missing(self) -> list[Path]:
        """The files of the manifest that are gone."""
        return [path for path, digest, _ in self._digests if digest is None]

    @property
    def whole(self) -> bool:
        """Whether the part is finished, and every file is as it was written."""
        return bool(self.record) and all(digest == written for _, digest, written in self._digests)

    @property
    def files(self) -> list[Path]:
        """The files of the manifest."""
        return [self.path.with_name(Path(name).name) for name in self.record.get("written", {})]

    def change(self) -> str:
        """What there is to say of the first file that somebody changed."""
        what = (
            "has changed since it was written"
            if self.record
            else "exists without a record that shows where it came from"
        )
        return f"{str(self.changed[0])!r} {what}"

    def remove(self) -> bool:
        """Remove what was written, the manifest last; False, and nothing is removed, if somebody changed a file."""
        if self.changed:
            return False
        for path in (*self.files, beside(self.path, "json")):
            path.unlink(missing_ok=True)
        return True

    @cached_property
    def _digests(self) -> list[tuple[Path, str | None, str]]:
        """Each file of the manifest with its digest, None if the file is gone, and with the digest of the manifest."""
        return [
            (path, _digest(path), written)
            for path, written in zip(self.files, self.record.get("written", {}).values(), strict=True)
        ]


@contextlib.contextmanager
def open_job(
    output: str | Path, facts: Collection[str] = (), *, keep: bool = False, files: Collection[str] = ()
) -> Iterator[Store]:
    """The store of the job that writes `output`, in the folder `<output>.job`, for this process alone.

    A mark in the folder tells it from other folders of this name. When the job is done, its parts and its further
    `files`, given by their names, are removed, and so is the folder unless it holds other files. If the job fails, all
    of it stays where it holds parts, or with `keep`.

    Raises
    ------
    UsageError
        The folder is somebody else's.
    VaeguardError
        Another job is writing `output`, or the folder cannot be written.
    """
    folder = job_folder(output)
    _check_ours(folder)
    try:
        with locked(folder, LOCK_NAME, f"another job is writing to {str(output)!r}"):
            yield from _within(Store(folder, facts), output, keep, files)
    finally:
        if not (folder / MARK_NAME).exists():
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


@contextlib.contextmanager
def join_job(output: str | Path, facts: Collection[str] = ()) -> Iterator[Store]:
    """The store of the job that writes `output`, as `open_job` gives it, for one of several processes that fill it.

    The parts stay for the process that opens the job for itself, which cannot do so as long as this one has it.

    Raises
    ------
    UsageError
        The folder is somebody else's.
    VaeguardError
        A process has the job for itself, or the folder cannot be written.
    """
    folder = job_folder(output)
    _check_ours(folder)
    with locked(folder, LOCK_NAME, f"another job is writing to {str(output)!r}", shared=True):
        _mark(folder, output)
        sweep(folder)
        yield Store(folder, facts)


def _mark(folder: Path, output: str | Path) -> None:
    write_text(folder / MARK_NAME, json.dumps({"vaeguard": "job", "output": valid_text(Path(output).name)}))
    publish([folder / MARK_NAME])


def _within(store: Store, output: str | Path, keep: bool, files: Collection[str]) -> Iterator[Store]:
    done = False
    try:
        _mark(store.folder, output)
        sweep(store.folder.parent)
        sweep(store.folder)
        yield store
        done = True
    finally:
        if done or not (keep or any(Store(store.folder, MANIFEST_FACTS).parts())):  # nothing that a next try could use
            _clear(store.folder, files)


def job_folder(output: str | Path) -> Path:
    """The folder of the job that writes `output`."""
    return Path(f"{output}.job")


def is_job(folder: Path) -> bool:
    """Whether a folder is that of a job: `open_job` left its mark there, or was killed before it could."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    try:
        mark = json.loads((folder / MARK_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return any(folder.iterdir()) and not _others_in(folder)
    return isinstance(mark, dict) and mark.get("vaeguard") == "job"


def _others_in(folder: Path) -> list[str]:
    """Names in the folder of a job besides those that a job makes before its mark."""
    return [path.name for path in folder.iterdir() if path.name != LOCK_NAME and not is_temporary(path)]


def _check_ours(folder: Path) -> None:
    """Refuse a folder of a job that somebody else made; an empty one is left by a job that was killed early."""
    if not os.path.lexists(folder) or is_job(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        held = "is a link" if folder.is_symlink() else "is a file"
    else:
        others = _others_in(folder)
        held = f"contains other files, such as {others[0]!r}" if others else ""
    if held:
        raise UsageError(
            f"{str(folder)!r} {held}, but this job needs a folder of that name for its unfinished parts; rename what is"
            " there, or choose a different output"
        )


_KEYED = re.compile(r"[0-9a-f]{40}\.")
"""The start of the name of a part, which is the key of its piece."""


def _clear(folder: Path, files: Collection[str]) -> None:
    """Remove what a job wrote into its folder, the mark last; other files stay, and then the mark stays as well."""
    with contextlib.suppress(OSError):  # the result is written, whatever stays here
        for part in Store(folder, MANIFEST_FACTS).parts():
            part.remove()
        for name in (TOKEN_NAME, *files):
            (folder / name).unlink(missing_ok=True)
            inner = job_folder(folder / name)
            if is_job(inner):
                (inner / LOCK_NAME).unlink(missing_ok=True)
                _clear(inner, ())
                inner.rmdir()
        sweep(folder)
        # In a bucket, a process that was killed here has removed manifests before their parts.
        for path in [path for path in folder.iterdir() if _KEYED.match(path.name)]:
            path.unlink()
        if {path.name for path in folder.iterdir()} <= {LOCK_NAME, MARK_NAME}:
            (folder / MARK_NAME).unlink(missing_ok=True)


def hidden_part(output: str | Path) -> Path:
    """The part of a finished job, whose manifest lies hidden beside `output` and says what `output` was made of."""
    return Path(output).with_name(f".{Path(output).name}")


def beside(path: Path, suffix: str) -> Path:
    """The file that lies beside another one, such as `page.png.json`."""
    return path.with_name(f"{path.name}.{suffix}")


def _manifest(path: Path, facts: Collection[str]) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    ours = isinstance(record, dict) and record.keys() >= set(facts) and isinstance(record.get("written", {}), dict)
    return record if ours else {}


def _digest(path: Path) -> str | None:
    try:
        return digest_of(path)
    except FileNotFoundError:
        return None
    except OSError:  # nobody can tell whether it was changed, so it counts as changed
        return ""

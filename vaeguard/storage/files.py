"""Whole files only: atomic writing, locks, and a seal that makes a single flipped bit visible."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.errors import RefusedError, UsageError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SEAL_MARK = b"vaeguard-sha256:"
UNSEALED = (SEAL_MARK + b"0" * 64).decode()
"""Put this text once into a file's own metadata; `seal` then fills in the digest."""

LONGEST_STEM = 32
TEMPORARY = "-vaeguard-"
"""In the names of files that are not whole yet, so that what killed processes left is no file of anybody else."""
PAGE_MARK = ".page-"
"""After it stands which picture of a scan a file is."""


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes the final name, otherwise it vanishes.

    A reader sees the old file or the whole new one, never a part, also after a power cut (fsync, then rename).

    Raises
    ------
    VaeguardError
        The folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays last, since writers choose the format by it.
        temporary = path.with_name(f".{_short(path.stem)}{TEMPORARY}{secrets.token_hex(4)}{path.suffix}")
        # With the permissions of any new file, unlike those of `tempfile`: the mask of a process cannot be asked
        # for without a moment in which no thread has one.
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise VaeguardError(f"cannot write {str(path)!r}: {error.strerror}; choose another place") from error
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise VaeguardError(
            f"cannot write {str(path)!r}: {error.strerror or error}; free some space or choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, name: str, busy: str) -> Iterator[None]:
    """Hold the lock `name` in `folder`, which is made; the system frees the lock of a process that died.

    The file of the lock goes with it, so that it keeps no folder from being empty.

    Raises
    ------
    VaeguardError
        Another process holds it, which `busy` says in words, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise VaeguardError(f"{busy}; wait for it, or choose another place") from error
    except OSError as error:
        raise VaeguardError(f"cannot write {str(folder)!r}: {error.strerror}; choose another place") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes nothing that is open
            (folder / name).unlink()
        lock.release()


def check_apart(output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse to write `output` over one of the `inputs`.

    Raises
    ------
    UsageError
        It is one of them, perhaps under another name.
    """
    if Path(output).exists() and any(is_same(output, path) for path in inputs):
        raise UsageError(f"{str(output)!r} is one of the inputs and would be lost; choose another output")


def is_same(path: str | Path, other: str | Path) -> bool:
    """Whether both are there, and one file."""
    try:
        return Path(path).samefile(other)
    except (OSError, ValueError):  # one of them is not there, or no name of a file
        return False


def sweep(path: str | Path) -> None:
    """Remove what killed processes left of `path` under temporary names; nobody else may be writing it."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(_short(path.stem))}{TEMPORARY}????????{glob.escape(path.suffix)}"):
        left.unlink(missing_ok=True)


def sweep_all(folder: Path, names: Iterable[str]) -> None:
    """As `sweep`, of all files below `folder` whose names begin with one of `names`, paths relative to it.

    Nothing else is touched, however it is called.
    """
    ours = {(path.parent, _short(begin)) for path in map(Path, names) for begin in (path.stem, path.name)}
    for left in folder.rglob(f".*{TEMPORARY}????????.*"):
        begin = left.stem[1:].rpartition(TEMPORARY)[0]
        if (left.relative_to(folder).parent, begin.partition(PAGE_MARK)[0]) in ours:
            left.unlink(missing_ok=True)


def _short(stem: str) -> str:
    """What temporary names take of a name: of a long one its digest tells it from others that begin alike."""
    name = stem if len(stem) <= LONGEST_STEM else stem.partition(PAGE_MARK)[0]
    if len(name) <= LONGEST_STEM:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[: LONGEST_STEM - 9]}-{digest[:8]}"


def path_from(folder: Path, path: Path) -> str:
    """How `path` is found from `folder`, so that both can move together."""
    try:
        return os.path.relpath(path.resolve(), folder.resolve())
    except ValueError:  # on another drive
        return str(path.resolve())


def size_and_time(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; two zeros for what is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116  (names need not be valid paths)
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with writing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write `content` to `path` atomically, as UTF-8."""
    write_bytes(path, content.encode())


def seal(content: bytes) -> bytes:
    """Return `content` with the digest of itself in place of the one `UNSEALED` text.

    The digest is taken with its own 64 characters as zeros, so that the file alone can be checked.
    """
    if content.count(SEAL_MARK) != 1:
        raise ValueError("the content must hold the text UNSEALED, once")
    start = content.index(UNSEALED.encode()) + len(SEAL_MARK)
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[start + 64 :]


def read_sealed(path: str | Path) -> bytes:
    """Read a sealed file and check its digest before anyone parses it.

    Raises
    ------
    UsageError
        There is no such file.
    RefusedError
        The file is not from vaeguard, or not one bit as it was written.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        writer = "export" if Path(path).suffix == ".onnx" else "fit"
        raise UsageError(f"there is no model at {str(path)!r}; {writer} one, or name another") from error
    except OSError as error:
        raise RefusedError(f"cannot read model file {str(path)!r}: {error.strerror}") from error
    start = content.find(SEAL_MARK) + len(SEAL_MARK)
    if start < len(SEAL_MARK):
        raise RefusedError(f"{str(path)!r} is no model file of vaeguard (it has no seal); give one that vaeguard wrote")
    found = content[start : start + 64]
    expected = hashlib.sha256(content[:start] + b"0" * 64 + content[start + 64 :]).hexdigest().encode()
    if found != expected:
        raise RefusedError(
            f"model file {str(path)!r} is damaged (SHA-256 differs); copy it again or fit the model anew"
        )
    return content


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    """Make a new name last through a power cut, where the system can: Windows and some network shares cannot."""
    with contextlib.suppress(OSError):
        _sync(path)


def valid_text(text: str) -> str:
    """Text as a table holds it: bytes of names that are no UTF-8 are escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

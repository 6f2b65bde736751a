"""Atomic writing of files, locks, and a seal that reveals a single flipped bit."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vaeguard.errors import RefusedError, UsageError, VaeguardError
from vaeguard.storage import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SEAL_MARK = b"vaeguard-sha256:"
UNSEALED = (SEAL_MARK + b"0" * 64).decode()
"""The text to put once into a file's own metadata; `seal` replaces it with the digest."""

LONGEST_STEM = 32
"""The most characters of a file's stem that its temporary name repeats."""
TEMPORARY = "-vaeguard-"
"""A mark in the names of unfinished files: it tells what a killed process left from everybody else's files."""
_TEMPORARY_NAME = re.compile(rf"\.(.*){TEMPORARY}([0-9a-f]{{12}})(\.[^.]*)?", re.DOTALL)
DAY = 24 * 60 * 60
_OPEN: set[Path] = set()
"""The temporary files that this process writes now."""


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file there is renamed to `path` on success and removed on failure.

    A reader sees the old file or the complete new one, never a part, even after a power cut (fsync, then rename). A
    temporary file of a process that was killed is removed by `sweep`.

    Raises
    ------
    VaeguardError
        The folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, descriptor = _new_temporary(path)
    except OSError as error:
        raise VaeguardError(f"cannot write {str(path)!r}: {error.strerror}; choose a different folder") from error
    try:
        _OPEN.add(temporary)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise VaeguardError(
            f"cannot write {str(path)!r}: {error.strerror or error}; free some space or choose a different folder"
        ) from error
    finally:
        try:
            temporary.unlink(missing_ok=True)
        finally:  # even if an interruption falls into the removal
            _OPEN.discard(temporary)
            os.close(descriptor)


def write_first(path: str | Path, content: bytes) -> bool:
    """Write `content` to `path` atomically unless there is such a file; return whether this process wrote it.

    Raises
    ------
    VaeguardError
        The folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    if path.exists():
        return False
    # Of several processes, only the first one makes the link.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, descriptor = _new_temporary(path)
        try:
            temporary.write_bytes(content)
            _sync(temporary)
            os.link(temporary, path)
        finally:
            os.close(descriptor)  # first, since Windows does not remove an open file
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise VaeguardError(f"cannot write {str(path)!r}: {error.strerror}; choose a different folder") from error
    _sync_folder(path.parent)
    return True


@contextlib.contextmanager
def locked(folder: Path, name: str, busy: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock `name` in `folder`, creating the folder; the system frees the lock of a process that died.

    The lock file is removed at the end, so that an empty folder stays empty. With `shared`, other processes may hold
    the lock in the same way at the same time, and the file stays.

    Raises
    ------
    VaeguardError
        Another process holds the lock (the message then begins with `busy`), or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    path = folder / name
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file() or path.stat().st_size):
        raise UsageError(
            f"{str(path)!r} is not a lock file of vaeguard, but has the name of one and would be overwritten; rename"
            " it, or choose another folder"
        )
    lock = FileLock(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shared:
            release = _lock_shared(path)
        else:
            lock.acquire(timeout=0)
    except (Timeout, BlockingIOError) as error:
        raise VaeguardError(f"{busy}; wait until it has finished, or choose a different output") from error
    except OSError as error:
        raise VaeguardError(f"cannot write {str(folder)!r}: {error.strerror}; choose a different folder") from error
    try:
        yield
    finally:
        if shared:
            release()
        else:
            with contextlib.suppress(OSError):  # Windows does not remove an open file
                path.unlink()
            lock.release()


def _lock_shared(path: Path) -> Callable[[], None]:
    """Lock a file beside other processes that do so, and return what frees it; without shared locks, do nothing.

    Raises
    ------
    BlockingIOError
        A process holds the lock for itself.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return lambda: None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        if os.fstat(descriptor).st_nlink:  # else the holder before removed the file, and others lock a new one
            return lambda: os.close(descriptor)
        os.close(descriptor)


def check_apart(output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse to overwrite one of the `inputs` with `output`.

    Raises
    ------
    UsageError
        The output is one of the inputs, perhaps under another name.
    """
    if (places.is_url(output) or Path(output).exists()) and any(is_same(output, path) for path in inputs):
        raise UsageError(f"{str(output)!r} is one of the inputs and would be overwritten; choose a different output")


def is_same(path: str | Path, other: str | Path) -> bool:
    """Whether both paths lead to the same existing file, or are the same URL."""
    if places.is_url(path):
        return path == other
    try:
        return Path(path).samefile(other)
    except (OSError, ValueError):  # a path does not exist, or is not a valid file name
        return False


def sweep(folder: Path) -> None:
    """Remove the temporary files in `folder` that killed processes left; those of living processes stay."""
    for path in folder.glob(f".*{TEMPORARY}*"):
        if is_temporary(path) and path not in _OPEN:
            _remove_dead(path)


def sweep_all(folder: Path) -> None:
    """Sweep `folder` and all folders below it."""
    for path in folder.rglob(f".*{TEMPORARY}*"):
        if is_temporary(path) and path not in _OPEN:
            _remove_dead(path)


def drop_open(folder: Path) -> None:
    """Remove the temporary files below `folder` that this process writes; their writers fail."""
    for path in [*_OPEN]:
        if folder in path.parents:
            path.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a file is a temporary one of vaeguard, by the token in its name, which no other program computes."""
    match = _TEMPORARY_NAME.fullmatch(path.name)
    return match is not None and match[2] == _token(match[1], match[2][:8]) and path.is_file() and not path.is_symlink()


def temporary_beside(path: Path) -> Path:
    """A new name for the temporary file of `path`."""
    stem = _short(path.stem)
    # Writers choose the format by the suffix, so the suffix stays last.
    return path.with_name(f".{stem}{TEMPORARY}{_token(stem, secrets.token_hex(4))}{path.suffix}")


def _new_temporary(path: Path) -> tuple[Path, int]:
    """A new temporary file beside `path`, with a descriptor that holds its lock, so that no process sweeps it."""
    while True:
        temporary = temporary_beside(path)
        # `tempfile` would restrict the permissions, and they cannot be widened safely afterwards: reading the umask
        # means clearing it for a moment, for all threads. `open` gives the permissions of any new file.
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _lock(descriptor, wait=True)
        if temporary.exists():  # else a sweep came between the two calls
            return temporary, descriptor
        os.close(descriptor)


def _token(stem: str, random: str) -> str:
    """Eight random hexadecimal digits, and four that follow from these and from the stem."""
    return random + hashlib.sha256(f"{stem}{TEMPORARY}{random}".encode("utf-8", "surrogateescape")).hexdigest()[:4]


def _lock(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file, so that it is known to have a living process; return False if that fails."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # Windows, some network shares, or another process
        return False
    return True


def _remove_dead(path: Path) -> None:
    """Remove a temporary file unless a living process writes it; where files cannot be locked, once it is a day old."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            dead = _lock(descriptor) or time.time() - os.fstat(descriptor).st_mtime > DAY
        finally:
            os.close(descriptor)
        if dead:
            path.unlink(missing_ok=True)


def _short(stem: str) -> str:
    """The part of a stem that a temporary name repeats; a digest sets long stems with the same beginning apart."""
    if len(stem) <= LONGEST_STEM:
        return stem
    digest = hashlib.sha256(stem.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{stem[: LONGEST_STEM - 9]}-{digest[:8]}"


def path_from(folder: Path, path: Path) -> str:
    """The path from `folder` to `path`, which stays right if both move together; the URL of a place in a bucket."""
    if places.is_url(url := places.original(path)):
        return str(url)
    try:
        return os.path.relpath(path.resolve(), folder.resolve())
    except ValueError:  # on another drive
        return str(path.resolve())


def size_and_time(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; two zeros for a missing file."""
    path = str(places.original(path))
    if places.is_url(path):
        return places.size_and_time(path)
    try:
        status = os.stat(path)  # noqa: PTH116  (a name need not be a valid path)
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
    """Return `content` with its own digest in place of the text `UNSEALED`.

    The digest is computed with its own 64 characters set to zeros, so that the file can be checked by itself.
    """
    if content.count(SEAL_MARK) != 1:
        raise ValueError("the content must hold the text `UNSEALED` exactly once")
    start = content.index(UNSEALED.encode()) + len(SEAL_MARK)
    return content[:start] + hashlib.sha256(content).hexdigest().encode() + content[start + 64 :]


def read_sealed(path: str | Path) -> bytes:
    """Read a sealed file and check its digest before anyone parses it.

    Raises
    ------
    UsageError
        There is no such file.
    RefusedError
        The file is not from vaeguard, or has changed since it was written.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        writer = "export" if Path(path).suffix == ".onnx" else "fit"
        raise UsageError(f"there is no model at {str(path)!r}; {writer} one, or give another path") from error
    except OSError as error:
        raise RefusedError(f"cannot read model file {str(path)!r}: {error.strerror}") from error
    start = content.find(SEAL_MARK) + len(SEAL_MARK)
    if start < len(SEAL_MARK):
        raise RefusedError(
            f"{str(path)!r} was not written by vaeguard (its checksum is missing); give a model file that vaeguard"
            " wrote"
        )
    actual = content[start : start + 64]
    expected = hashlib.sha256(content[:start] + b"0" * 64 + content[start + 64 :]).hexdigest().encode()
    if actual != expected:
        raise RefusedError(
            f"model file {str(path)!r} is damaged (its SHA-256 checksum is wrong); copy it again or fit the model again"
        )
    return content


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Make a new name survive a power cut; Windows and some network shares cannot, so their errors are ignored."""
    with contextlib.suppress(OSError):
        _sync(path)


def valid_text(text: str) -> str:
    """`text` as a table stores it: bytes of file names that are not UTF-8 are escaped."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

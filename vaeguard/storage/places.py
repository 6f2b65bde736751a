"""Buckets and other places that have a URL: listed, read object by object, and written in whole objects.

`pyarrow.fs` opens them, and finds the credentials where the tools of each provider look for them. It is imported when
the first URL is used.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from vaeguard.errors import UnreadableError, UsageError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CONNECTIONS = 64
"""Requests in flight: a far store answers each one late, and many at a time."""
PART = 64 * 2**20
"""Bytes of a large object that one request fetches, and that are held in memory."""
NO_ANSWER = "the storage service does not answer; check the network and the address"
DENIED = "access was denied; check the credentials and their permissions"
BUSY = "the storage service is too busy; to continue, run the same command again later"
ATTEMPTS = 6
"""How often a request is sent to a busy store, each time after a longer wait: about half a minute in all."""
MOST_DENIED = 8
"""After so many objects in a row that may not be read, none will be."""
_denied: list[str] = []
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/]*)/*(.*)", re.DOTALL)
_REASONS = (
    ("NO_SUCH_BUCKET|bucket does not exist|ContainerNotFound", "the bucket does not exist; check its name"),
    (
        "ACCESS_?DENIED|INVALID_?ACCESS_?KEY|SIGNATURE|FORBIDDEN|HTTP status 403|UNRECOGNIZED_CLIENT|TOKEN",
        DENIED,
    ),
    (
        "NETWORK_CONNECTION|curlCode|REQUEST_TIMEOUT|Could not resolve|Connection refused|Timeout|timed out",
        NO_ANSWER,
    ),
    ("SLOW_?DOWN|THROTTL|Too Many Requests|SERVICE_?UNAVAILABLE|HTTP status (429|503)", BUSY),
    ("NO_SUCH_KEY|NoSuchKey|HTTP status 404|Path does not exist", "the object does not exist"),
)
"""What the errors of `pyarrow.fs` mean, by what their messages contain."""
RECENT, RECENT_EACH = 32 * 2**20, 300
"""Bytes of the objects that are remembered, and those that each takes besides its content."""
_lock = threading.Lock()
STAGED = "staged"
"""The folder of copies that are only read."""
COPIES, LOCK = "vaeguard-copies-", ".vaeguard-lock"
"""The beginning of the names of folders of copies, and the file in each that is locked by its process."""
NO_PLACE = "-"
"""Stands for the host in the local path of a URL without one."""
_T = TypeVar("_T")


class Object(NamedTuple):
    """An object as a listing has it: its URL, its size in bytes, and the time of its last change in nanoseconds."""

    url: str
    size: int
    time: int


_listed: dict[str, tuple[int, int]] = {}
"""Size and time of the objects that were listed."""


def is_url(path: object) -> bool:
    """Whether a path is the URL of a place; a drive of Windows has one letter."""
    return isinstance(path, str) and "://" in path and _URL.fullmatch(path) is not None


def name_of(url: str) -> str:
    """The last part of a URL."""
    return url.rstrip("/").rpartition("/")[2]


def find(url: str) -> Object | None:
    """The object at a URL, by one request; None if there is none.

    Raises
    ------
    UnreadableError
        The place cannot be asked.
    """
    with _in_words(url):
        system, path = _located(url)
        info = system.get_file_info(path)
    return _object(url, info) if info.is_file else None


def walk(url: str, *, deep: bool = True) -> list[Object]:
    """All objects below a URL in sorted order, by one listing, which has a request for each thousand of them.

    Raises
    ------
    UnreadableError
        The place cannot be listed.
    """
    from pyarrow.fs import FileSelector

    with _in_words(url):
        system, path = _located(url)
        try:
            infos = system.get_file_info(FileSelector(path, recursive=deep))
        except (FileNotFoundError, NotADirectoryError):
            return []
    url, below = url.rstrip("/"), len(path.rstrip("/")) + 1
    return sorted(_object(f"{url}/{info.path[below:]}", info) for info in infos if info.is_file)


def objects_at(url: str) -> list[Object]:
    """All objects below a URL, or the one that it names.

    Raises
    ------
    UsageError
        There is nothing.
    UnreadableError
        The place cannot be listed.
    """
    found = walk(url) or [single for single in (find(url),) if single]
    if not found:
        raise UsageError(f"nothing exists at {url!r}; check the address")
    return found


def _object(url: str, info: Any) -> Object:
    found = Object(url, info.size, info.mtime_ns or 0)
    _listed[url] = found[1:]
    return found


def size_and_time(url: str) -> tuple[int, int]:
    """Size and time of an object, from the listing if it was listed; two zeros if the object does not exist."""
    if url not in _listed:
        with contextlib.suppress(VaeguardError):
            find(url)
    return _listed.get(url, (0, 0))


def read(url: str) -> bytes:
    """The content of an object, by one GET.

    Raises
    ------
    UnreadableError
        There is no such object, or it cannot be read.
    VaeguardError
        The store does not answer any more.
    """
    if (known := _recent.get(url, _listed.get(url))) is not None:
        return known
    with _while_answering(url):
        system, path = _located(url)
        with system.open_input_file(path) as file:
            content: bytes = file.read()
            expected = file.size()
    if len(content) < expected:
        raise UnreadableError(url, f"only {len(content)} of its {expected} bytes were received; run the command again")
    _recent.add(url, _listed.get(url), content)
    return content


class _Recent:
    """The latest small objects that were read: a report shows some of the images again."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[tuple[int, int], bytes]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, url: str, listed: tuple[int, int] | None) -> bytes | None:
        """The content of an object if it is still as it was listed."""
        with self._lock:
            held = self._held.get(url)
        return held[1] if held and held[0] == listed else None

    def add(self, url: str, listed: tuple[int, int] | None, content: bytes) -> None:
        """Hold an object, and drop the oldest ones for it."""
        if listed is None or len(content) > RECENT // 16:
            return
        with self._lock:
            self._drop(url)
            self._held[url] = listed, content
            self._bytes += len(content) + RECENT_EACH
            while self._bytes > RECENT:
                self._drop(next(iter(self._held)))

    def _drop(self, url: str) -> None:
        if url in self._held:
            self._bytes -= len(self._held.pop(url)[1]) + RECENT_EACH


_recent = _Recent()


def fetch(url: str, path: Path) -> None:
    """Copy an object to the file `path`, in parts, so that memory stays constant.

    Raises
    ------
    UnreadableError
        There is no such object, or it cannot be read.
    VaeguardError
        The store does not answer any more, or the disk is full.
    """
    from pyarrow.fs import LocalFileSystem, copy_files

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _while_answering(url):
            system, place = _located(url)
            copy_files(
                place, str(path), source_filesystem=system, destination_filesystem=LocalFileSystem(), chunk_size=PART,
                use_threads=False,
            )  # fmt: skip
    except BaseException:  # half a container could be read as a whole one
        path.unlink(missing_ok=True)
        raise


def copies() -> Path:
    """The folder of this process for copies, among the temporary files; it is removed when the process ends."""
    with _lock:  # threads that ask for it at the same time must get the same one
        return Path(_copies(os.getpid()).name).resolve()


@cache
def _copies(process: int) -> tempfile.TemporaryDirectory[str]:
    """The folder of copies, of which a fork has its own."""
    del process
    _sweep_copies()
    folder = tempfile.TemporaryDirectory(prefix=COPIES)
    if fcntl := _fcntl():
        # The system frees the lock of a process that died. The file has its name only when it is locked.
        held = Path(folder.name) / "new"
        descriptor = os.open(held, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        held.rename(held.with_name(LOCK))
    return folder


def _fcntl() -> Any:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl


def _sweep_copies() -> None:
    """Remove the copies that killed processes left; those of living processes are locked."""
    if not (fcntl := _fcntl()):
        return
    for lock in Path(tempfile.gettempdir()).glob(f"{COPIES}*/{LOCK}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(descriptor)


def local_path(url: str, below: str = "") -> Path:
    """Where the copy of an object, or of a folder, lies while this process runs: URLs side by side lie side by side.

    Copies `below` the folder `STAGED` can be removed, since no output lies among them.
    """
    match = _URL.fullmatch(url)
    assert match is not None
    return copies().joinpath(below, *_parts(match))


def _parts(match: re.Match[str]) -> list[str]:
    parts = [part for part in match[3].split("/") if part]
    if invalid := next((part for part in parts if part in (".", "..")), None):
        raise UsageError(f"{match[0]!r} contains {invalid!r} between slashes; remove it from the address")
    return [match[1].lower(), match[2] or NO_PLACE, *parts]


def as_urls(value: _T) -> _T:
    """Text, or plain values that hold text, with URLs in place of the copies of this process."""
    done: Any = value
    if isinstance(value, str) and _copies.cache_info().currsize:
        folder = re.escape(str(copies()))
        done = re.sub(f"{folder}/(?:{STAGED}/)?([a-z0-9+.-]+)/({re.escape(NO_PLACE)}(?=/))?", r"\1://", value)
    elif isinstance(value, dict):
        done = {key: as_urls(item) for key, item in value.items()}
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        done = type(value)(map(as_urls, value))
    cast: _T = done
    return cast


@contextlib.contextmanager
def shadow(url: str) -> Iterator[Path]:
    """Empty files of the right sizes where copies of an object, or of all objects below a folder, would lie.

    `original` says where their contents are, which are fetched one by one when they are read.

    Raises
    ------
    UsageError
        There is nothing.
    UnreadableError
        The place cannot be listed.
    """
    root = local_path(url)
    try:
        for entry in objects_at(url):
            path = local_path(entry.url)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(entry.size)
        _shadows.append(root)
        yield root
    finally:
        _shadows.remove(root)
        if root.is_dir():
            shutil.rmtree(root, ignore_errors=True)
        else:
            root.unlink(missing_ok=True)


_shadows: list[Path] = []
"""The local paths that hold no contents."""


def original(path: str | Path) -> str | Path:
    """The URL of a file that is only the shadow of an object; any other path itself."""
    if not _shadows:
        return path
    place = Path(path)
    return as_urls(str(place)) if any(root == place or root in place.parents for root in _shadows) else path


@contextlib.contextmanager
def naming_urls() -> Iterator[None]:
    """Have errors name URLs in place of the copies of this process."""
    try:
        yield
    except (VaeguardError, KeyboardInterrupt) as error:
        error.args = as_urls(error.args)
        if isinstance(error, UnreadableError):
            error.path, error.reason = as_urls(error.path), as_urls(error.reason)
        raise


def copy_all(objects: Sequence[Object], below: str = "") -> dict[str, str]:
    """Copy objects to their local paths, many at a time; return the reason for each that cannot be read."""
    failures = {}

    def copy(entry: Object) -> None:
        try:
            path = local_path(entry.url, below)
            fetch(entry.url, path)
            os.utime(path, ns=(entry.time, entry.time))
        except UnreadableError as error:
            failures[entry.url] = error.reason

    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="vaeguard-objects") as pool:
        for _ in pool.map(copy, objects):
            pass
    return failures


def put(path: Path, url: str) -> None:
    """Make a whole file an object, which appears at once when all bytes have arrived, and otherwise not at all.

    The copy is one call of the library. An error between two writes of our own would have the library close the object,
    and publish what was written so far.

    Raises
    ------
    VaeguardError
        The object cannot be written.
    """
    from pyarrow.fs import LocalFileSystem, copy_files

    with _in_words(url, writing=True):
        system, place = _located(url)
        if system.type_name in ("local", "hdfs"):  # these have folders, and show a file while it is written
            folder, _, name = place.rpartition("/")
            system.create_dir(folder)
            beside = f"{folder}/.{name}-vaeguard-{os.getpid()}-{threading.get_ident()}"
            copy_files(str(path), beside, source_filesystem=LocalFileSystem(), destination_filesystem=system)
            system.move(beside, place)
            return
        copy_files(
            str(path), place, source_filesystem=LocalFileSystem(), destination_filesystem=system, chunk_size=PART,
            use_threads=False,
        )  # fmt: skip


def remove(urls: Iterable[str]) -> None:
    """Remove objects; those that are gone already are passed over.

    Raises
    ------
    VaeguardError
        An object cannot be removed.
    """
    for url in urls:
        with _in_words(url, writing=True), contextlib.suppress(FileNotFoundError):
            system, path = _located(url)
            system.delete_file(path)
        _listed.pop(url, None)


def remove_folder(url: str) -> None:
    """Remove the mark of a folder that holds no object any more, where the store keeps such marks."""
    if not walk(url):
        with contextlib.suppress(OSError):
            system, path = _located(url)
            system.delete_dir(path)


def check_supported(paths: Sequence[object], what: str) -> None:
    """Refuse URLs where only local paths are supported; `what` begins the sentence.

    Raises
    ------
    UsageError
        One of the paths is a URL.
    """
    if url := next(filter(is_url, paths), None):
        raise UsageError(f"{what} works only on local files, but {url!r} is a URL; copy the files to a local folder")


def _located(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    match = _URL.fullmatch(url)
    if match is None or not (match[2] or match[3]):
        raise UsageError(f"{url!r} has no bucket name; add one")
    with _lock:
        system, base = _system(match[1].lower(), match[2])
    rest = match[3].rstrip("/")
    return system, base.rstrip("/") + "/" + rest if rest else base


@cache
def _system(scheme: str, place: str) -> tuple[Any, str]:
    """The file system behind a scheme and what follows it, and the path of its root."""
    import pyarrow as pa
    from pyarrow import fs

    pa.set_io_thread_count(max(CONNECTIONS, pa.io_thread_count()))  # as many connections are opened
    if scheme in ("s3", "s3a") and "@" not in place:
        return _s3(place), place
    if scheme == "az":
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT")
        if not account:
            raise UsageError(f"az://{place} names a container without an account; set AZURE_STORAGE_ACCOUNT_NAME")
        key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or os.environ.get("AZURE_STORAGE_KEY")
        return fs.AzureFileSystem(account, account_key=key), place
    system, base = fs.FileSystem.from_uri(f"{scheme}://{place}/")
    return system, base


def _s3(bucket: str) -> Any:
    """The file system of a bucket of S3, or of another server that speaks its language."""
    from pyarrow import fs

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    # A small object is one request: without a delayed opening, each one would be a multipart upload.
    options: dict[str, Any] = {
        "allow_delayed_open": True,
        "connect_timeout": 5,
        "request_timeout": 30,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    }
    if server:
        scheme, _, address = server.rpartition("://")
        options |= {"endpoint_override": address.rstrip("/"), "scheme": scheme or "https"}
        return fs.S3FileSystem(region=region or "us-east-1", **options)
    return fs.S3FileSystem(region=region or fs.resolve_s3_region(bucket), **options)


@contextlib.contextmanager
def _while_answering(url: str) -> Iterator[None]:
    """As `_in_words`; but if the store is gone, busy or closed, no object is to blame, and a job would list them all.

    Raises
    ------
    UnreadableError, VaeguardError
        The object cannot be read, or the store is busy, or does not answer a second question either.
    """
    try:
        with _in_words(url):
            yield
        _denied.clear()
    except UnreadableError as error:
        if error.reason == DENIED:
            _denied.append(url)
            if len(_denied) >= MOST_DENIED:
                raise VaeguardError(f"{url!r}: {DENIED}") from error
        if error.reason == BUSY:
            raise VaeguardError(f"{url!r}: {BUSY}") from error
        if error.reason != NO_ANSWER:
            raise
        try:
            find(url)
        except UnreadableError as again:
            if again.reason == NO_ANSWER:
                raise VaeguardError(f"{url!r}: {NO_ANSWER}; to continue, run the same command again") from error
        raise


@contextlib.contextmanager
def _in_words(url: str, *, writing: bool = False) -> Iterator[None]:
    """Turn an error of the library into one sentence that names the URL.

    Raises
    ------
    UnreadableError, VaeguardError
        The error.
    """
    try:
        yield
    except VaeguardError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        if not writing and getattr(error, "errno", None) == errno.ENOSPC:
            raise VaeguardError(
                f"there is not enough space for a copy of {url!r} in {tempfile.gettempdir()!r}; free some space, or"
                " set TMPDIR to a different folder"
            ) from error
        message = " ".join(str(error).split())
        reason = next((text for words, text in _REASONS if re.search(words, message, re.IGNORECASE)), "")
        if "nrecognized filesystem" in message:
            raise UsageError(f"{url!r}: unknown kind of URL; use s3://, gs://, az:// or abfs://") from error
        if not reason:
            reason = f"the storage service refused the request ({message:.200})"
        if writing:
            raise VaeguardError(f"cannot write {url!r}: {reason}") from error
        raise UnreadableError(url, reason) from error

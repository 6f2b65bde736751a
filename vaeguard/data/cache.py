"""Folders of images decoded once into a memory-mapped array file, found again by the content of the files.

An entry is `vaeguard-<key>.npy`, uint8 (N, C, H, W), and `vaeguard-<key>.json`, which lists the files that could not
be read and carries its own digest. The key is the SHA-256 over names, contents and rule, so nothing ever goes stale.
The time of its files is that of its last use; what was not used for thirty days goes when a new entry is built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from vaeguard.data.images import read_bytes
from vaeguard.data.streams import chunks, default_jobs, map_ahead, stream_images
from vaeguard.errors import UnreadableError, VaeguardError
from vaeguard.storage.files import write_text, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from vaeguard.data.images import ImageRule
    from vaeguard.progress import Progress

    Bytes = npt.NDArray[np.uint8]

_VERSION = 2  # raise when the rules of images.py change what the same file decodes to
_STALE_SECONDS = 86_400
_UNUSED_SECONDS = 30 * 86_400
_BATCH_BYTES = 32 * 2**20


@dataclass(frozen=True)
class DecodedFolder:
    """Decoded files: `images` is a read-only uint8 map (N, C, H, W) of those not in `errors` (name to reason)."""

    images: Bytes
    errors: dict[str, str]
    key: str


def cache_folder() -> Path:
    """Return the folder of the cache: $VAEGUARD_CACHE, else $XDG_CACHE_HOME/vaeguard, else ~/.cache/vaeguard.

    Where that cannot be written to, a folder of this user among the temporary files. Nothing is created.
    """
    chosen = os.environ.get("VAEGUARD_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  (never raises)
    folder = Path(chosen) if chosen else Path(home) / "vaeguard"
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return folder
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"vaeguard-cache-{user}"


def decode_folder(
    folder: Path,
    names: Sequence[str],
    rule: ImageRule,
    resolve: Callable[[set[str]], ImageRule],
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> DecodedFolder:
    """Decode the files `names` (relative to `folder`), or map the array of an earlier time with the same content.

    `rule` is what the caller asked for; `resolve` fills in its open size and channels, given the names of files
    that cannot be opened, and is only called when something has to be decoded. `progress` counts through the files
    once to recognise them, and once more to decode them.

    Raises
    ------
    VaeguardError
        None of the files can be read, or the cache cannot be written.
    """
    jobs = jobs or default_jobs([str(folder / name) for name in names[:32]])
    key, unreadable = _content_key(folder, names, rule, jobs, progress)
    entry = _private(cache_folder()) / f"vaeguard-{key}"
    found = _load(entry, key, len(names))
    if found is None:
        if len(unreadable) == len(names):
            raise _nothing_readable(folder, unreadable)
        _sweep(entry.parent)
        _build(entry, folder, names, resolve(set(unreadable)), jobs, progress)
        found = _load(entry, key, len(names))
    if found is None:
        raise VaeguardError(f"the cache in {str(entry.parent)!r} does not keep what is written; set VAEGUARD_CACHE")
    return found


def digest_array(images: Bytes, *details: object) -> str:
    """Return the SHA-256 (hex) of the pixels, their shape and `details`, without holding a mapped array in memory."""
    digest = hashlib.sha256(repr((images.shape, *details)).encode())
    rows = max(1, _BATCH_BYTES // max(1, images[:1].nbytes))
    for start in range(0, len(images), rows):
        digest.update(np.ascontiguousarray(images[start : start + rows]).data)
    return digest.hexdigest()


def take(images: Bytes, indices: npt.NDArray[np.int64]) -> Bytes:
    """Return `images[indices]`; of a mapped array a large part goes to a nameless file, not into memory."""
    if len(indices) and indices[0] >= 0 and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        return images[indices[0] : indices[0] + len(indices)]
    if not isinstance(images, np.memmap) or images[:1].nbytes * len(indices) < 8 * _BATCH_BYTES:
        return np.asarray(images[indices])
    rows = max(1, _BATCH_BYTES // images[:1].nbytes)
    with _disk_space(), tempfile.TemporaryFile(dir=_private(cache_folder())) as file:
        for start in range(0, len(indices), rows):
            file.write(np.ascontiguousarray(images[indices[start : start + rows]]).data)
        file.flush()
        return np.memmap(file, np.uint8, "r", shape=(len(indices), *images.shape[1:]))


def _content_key(
    folder: Path, names: Sequence[str], rule: ImageRule, jobs: int, progress: Progress | None
) -> tuple[str, dict[str, str]]:
    key = hashlib.sha256(repr((_VERSION, rule.size, rule.channels, len(names))).encode())
    unreadable: dict[str, str] = {}
    digests = map_ahead(partial(_file_digests, folder), chunks(names, 64), jobs=jobs, ahead=2 * jobs)
    for number, (digest, reason) in enumerate(each for part in digests for each in part):
        name = names[number]
        encoded = os.fsencode(name)
        key.update(len(encoded).to_bytes(8, "little") + encoded + digest)
        if reason:
            unreadable[name] = reason
        _report(progress, number + 1, len(names))
    return key.hexdigest(), unreadable


def _file_digests(folder: Path, names: list[str]) -> list[tuple[bytes, str]]:
    return [_file_digest(folder / name) for name in names]


def _file_digest(path: Path) -> tuple[bytes, str]:
    try:
        return hashlib.sha256(read_bytes(path)).digest(), ""
    except UnreadableError as error:
        return hashlib.sha256(b"unreadable: " + os.fsencode(error.reason)).digest(), error.reason


def _build(
    entry: Path, folder: Path, names: Sequence[str], rule: ImageRule, jobs: int, progress: Progress | None
) -> None:
    assert rule.size is not None
    assert rule.channels is not None
    shape = (rule.channels, *rule.size)
    batch_size = max(1, min(256, _BATCH_BYTES // int(np.prod(shape))))
    paths = (str(folder / name) for name in names)
    errors: list[tuple[str, str]] = []
    count = 0
    with _disk_space(), writing(_array(entry)) as temporary, temporary.open("wb") as file:
        _write_header(file, (len(names), *shape))
        for batch in stream_images(paths, rule, batch_size=batch_size, jobs=jobs):
            file.write(batch.images.data)
            errors += [(os.path.relpath(path, folder), reason) for path, reason in batch.errors]
            count += len(batch.images)
            _report(progress, count + len(errors), len(names))
        if count == 0:
            raise _nothing_readable(folder, dict(errors))
        _write_header(file, (count, *shape))
    with _disk_space():
        body = json.dumps({"shape": [count, *shape], "errors": errors})
        write_text(_record(entry), json.dumps({"digest": _text_digest(body), "body": body}))


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    # NumPy leaves room in the header for the first axis, so that the true count fits in at the end.
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _load(entry: Path, key: str, expected: int) -> DecodedFolder | None:
    """Return the entry, or None where it is missing, cut short or damaged."""
    try:
        record = json.loads(_record(entry).read_bytes())
        body = record["body"]
        if _text_digest(body) != record["digest"]:
            return None
        content = json.loads(body)
        images = np.lib.format.open_memmap(_array(entry), mode="r")
        errors = dict(content["errors"])
        whole = _array(entry).stat().st_size == images.offset + images.nbytes
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    fits = images.dtype == np.uint8 and list(images.shape) == content["shape"]
    if not (fits and whole and len(images) + len(errors) == expected):
        return None
    for path in (_array(entry), _record(entry)):
        with contextlib.suppress(OSError):  # a cache may be there for reading only
            os.utime(path)
    return DecodedFolder(images, errors, key)


def _array(entry: Path) -> Path:
    return entry.with_name(entry.name + ".npy")


def _record(entry: Path) -> Path:
    return entry.with_name(entry.name + ".json")


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _private(folder: Path) -> Path:
    """Create the folder; one among the temporary files must belong to this user, or others could plant pixels in it."""
    with _disk_space():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shared = folder.parent == Path(tempfile.gettempdir()) and hasattr(os, "getuid")
        if shared and folder.lstat().st_uid != os.getuid():
            raise VaeguardError(f"the cache folder {str(folder)!r} belongs to somebody else; set VAEGUARD_CACHE")
    return folder


@contextlib.contextmanager
def _disk_space() -> Iterator[None]:
    """Say of the cache what a failed write of any other file would say of its folder."""
    try:
        yield
    except OSError as error:
        raise _not_written(error) from error
    except VaeguardError as error:
        if isinstance(error.__cause__, OSError):
            raise _not_written(error.__cause__) from error
        raise


def _not_written(error: OSError) -> VaeguardError:
    return VaeguardError(
        f"cannot write the cache in {str(cache_folder())!r} ({error.strerror or error}); "
        "free some space there or set VAEGUARD_CACHE to another folder"
    )


def _nothing_readable(folder: Path, errors: dict[str, str]) -> VaeguardError:
    name, reason = next(iter(errors.items()))
    return VaeguardError(
        f"none of the {len(errors)} images in {str(folder)!r} can be read; the first is {name!r}: {reason}"
    )


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half written, and entries that nobody has used for long."""
    entry = f"vaeguard-{'[0-9a-f]' * 64}.*"  # nothing else that somebody may keep there
    for pattern, seconds in ((".vaeguard-*", _STALE_SECONDS), (entry, _UNUSED_SECONDS)):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # another process may sweep too
                if time.time() - path.stat().st_mtime > seconds:
                    path.unlink()


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress:
        progress(done, total, "")

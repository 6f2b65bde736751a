"""A cache of decoded image files: one memory-mapped array file, whose name depends on the content of the files.

An entry is `vaeguard-<key>.npy`, uint8 (N, C, H, W), and `vaeguard-<key>.json`, which lists the images that could not
be read and carries its own digest. The key is the SHA-256 over contents and rule, so no entry ever goes stale.
Each use of an entry sets the time of its files; entries unused for thirty days are removed when a new one is built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from vaeguard.data.limits import MAX_MEMORY, MAX_SECONDS
from vaeguard.data.source import read
from vaeguard.data.workers import KILLED
from vaeguard.errors import VaeguardError
from vaeguard.storage.files import sweep, write_text, writing
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt

    from vaeguard.data.images import ImageRule
    from vaeguard.data.source import Encoded
    from vaeguard.data.streams import ImageBatch
    from vaeguard.progress import Progress

    Bytes = npt.NDArray[np.uint8]
    Bools = npt.NDArray[np.bool_]

Size = tuple[int, int]

_VERSION = 5  # raise when the rules of images.py change what the same file decodes to
_LIMITS = [MAX_MEMORY, MAX_SECONDS]
_UNUSED_SECONDS = 30 * 86_400
_BATCH_BYTES = 32 * 2**20


class Sides(NamedTuple):
    """The sizes of files.

    Attributes
    ----------
    least, most : (H, W)
        The smallest and the largest height and width.
    shapes : (float, float)
        The smallest and the largest ratio of height to width.
    """

    least: Size
    most: Size
    shapes: tuple[float, float]


@dataclass(frozen=True)
class Decoded:
    """Decoded images.

    Attributes
    ----------
    images : uint8 (N, C, H, W)
        A read-only map of the readable images.
    errors : dict of int to str
        The number of each unreadable image among all images, and the reason.
    sides : Sides or None
        The sizes of the files, if the rule left the size open.
    key : str
        The name of the entry.
    """

    images: Bytes
    errors: dict[int, str]
    sides: Sides | None
    key: str


def cache_folder() -> Path:
    """Return the folder of the cache: $VAEGUARD_CACHE, else $XDG_CACHE_HOME/vaeguard, else ~/.cache/vaeguard.

    If that folder cannot be written to, it is a folder of this user among the temporary files. Nothing is created.
    """
    chosen = os.environ.get("VAEGUARD_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  (never raises)
    folder = Path(chosen) if chosen else Path(home) / "vaeguard"
    existing = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path())
    homeless = not chosen and home.startswith("~")  # a user without a home, as in many containers
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK) and not homeless:
        return folder
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"vaeguard-cache-{user}"


def decode_files(
    sources: Sequence[Encoded],
    rule: ImageRule,
    resolve: Callable[[], tuple[ImageRule, Sides | None]],
    place: str,
    *,
    decisive: Bools | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Decoded:
    """Decode the images of `sources`, or map the cached array with the same content.

    `rule` is the rule of the caller. `resolve` fills in its open size and channels, returns the sides of the files, and
    is only called when the images have to be decoded; `decisive` marks the files by which it chooses a size, if not by
    all. Messages call the sources `place`. `progress` counts
    through the files once to recognise them, and once more to decode them.

    Raises
    ------
    VaeguardError
        None of the images can be read, or the cache cannot be written.
    """
    total = sum(source.count for source in sources)
    how = (_VERSION, rule.size, rule.channels, rule.pixel_range, rule.longest, rule.regions)
    key = hashlib.sha256(repr(how).encode())
    key.update(b"" if decisive is None or rule.size else np.packbits(decisive).tobytes())
    for number, digest in enumerate(chain.from_iterable(source.digests(jobs) for source in sources)):
        key.update(hashlib.sha256(digest).digest())
        _report(progress, number + 1, total)
    entry = _private(cache_folder()) / f"vaeguard-{key.hexdigest()}"
    decoded = _load(entry, key.hexdigest(), total)
    if decoded is None or KILLED in decoded.errors.values():
        _sweep(entry.parent)
        _build(entry, sources, resolve(), place, jobs, progress)
        decoded = _load(entry, key.hexdigest(), total)
    if decoded is None:
        raise VaeguardError(
            f"files written to the cache in {str(entry.parent)!r} cannot be read back; set VAEGUARD_CACHE to a"
            " different folder"
        )
    return decoded


def digest_array(images: Bytes, *details: object) -> str:
    """Return the SHA-256 (hex) of the pixels, their shape and `details`, without holding a mapped array in memory."""
    digest = hashlib.sha256(repr((images.shape, *details)).encode())
    rows = max(1, _BATCH_BYTES // max(1, images[:1].nbytes))
    for start in range(0, len(images), rows):
        digest.update(np.ascontiguousarray(images[start : start + rows]).data)
    return digest.hexdigest()


def take(images: Bytes, indices: npt.NDArray[np.int64]) -> Bytes:
    """Return `images[indices]`; a large part of a mapped array goes to a nameless file, not into memory."""
    if len(indices) and indices[0] >= 0 and np.array_equal(indices, np.arange(indices[0], indices[0] + len(indices))):
        return images[indices[0] : indices[0] + len(indices)]
    if not isinstance(images, np.memmap) or images[:1].nbytes * len(indices) < 8 * _BATCH_BYTES:
        return np.asarray(images[indices])
    rows = max(1, _BATCH_BYTES // images[:1].nbytes)
    with nameless_file() as file:
        for start in range(0, len(indices), rows):
            file.write(np.ascontiguousarray(images[indices[start : start + rows]]).data)
        file.flush()
        return np.memmap(file, np.uint8, "r", shape=(len(indices), *images.shape[1:]))


@contextlib.contextmanager
def nameless_file() -> Iterator[IO[bytes]]:
    """A file in the folder of the cache that is gone once nothing maps it."""
    with _disk_space(), tempfile.TemporaryFile(dir=_private(cache_folder())) as file:
        yield file


def _build(
    entry: Path,
    sources: Sequence[Encoded],
    resolved: tuple[ImageRule, Sides | None],
    place: str,
    jobs: int | None,
    progress: Progress | None,
) -> None:
    rule, sides = resolved
    shape = rule.decoded_shape
    batch_size = max(1, min(256, _BATCH_BYTES // int(np.prod(shape))))
    names = chain.from_iterable(source.names for source in sources)
    total = sum(source.count for source in sources)
    errors: list[tuple[int, str]] = []
    count = 0
    with _disk_space(), writing(_array(entry)) as temporary, temporary.open("wb") as file:
        _write_header(file, (total, *shape))
        for source in sources:
            for batch in read(source, 0, source.count, shape, rule=rule, batch_size=batch_size, jobs=jobs):
                file.write(batch.images.data)
                errors += _unreadable_rows(batch, names, count + len(errors))
                count += len(batch.images)
                _report(progress, count + len(errors), total)
            source.close()
        if count == 0:
            raise _nothing_readable(place, sources[0].names[0], errors)
        _write_header(file, (count, *shape))
    with _disk_space():
        body = json.dumps({"shape": [count, *shape], "errors": errors, "sides": sides, "limits": _LIMITS})
        write_text(_record(entry), json.dumps({"digest": _text_digest(body), "body": body}))


def _unreadable_rows(batch: ImageBatch, names: Iterator[str], start: int) -> list[tuple[int, str]]:
    """The numbers of the unreadable images of a batch, and the reasons; `names` goes on with the names of the batch.

    A batch lists readable and unreadable images apart, each kind in order.
    """
    readable, reasons = deque(batch.paths), deque(reason for _, reason in batch.errors)
    rows = []
    for row, name in enumerate(islice(names, len(readable) + len(reasons)), start):
        if readable and readable[0] == name:
            readable.popleft()
        else:
            rows.append((row, reasons.popleft()))
    return rows


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    # NumPy leaves room in the header for the first axis, so that the true count fits in at the end.
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _load(entry: Path, key: str, expected: int) -> Decoded | None:
    """Return the entry, or None where it is missing, cut short or damaged."""
    try:
        record = json.loads(_record(entry).read_bytes())
        body = record["body"]
        if _text_digest(body) != record["digest"]:
            return None
        content = json.loads(body)
        images = np.lib.format.open_memmap(_array(entry), mode="r")
        errors = dict(content["errors"])
        sides = Sides(*map(tuple, content["sides"])) if content["sides"] else None
        whole = _array(entry).stat().st_size == images.offset + images.nbytes
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    fits = images.dtype == np.uint8 and list(images.shape) == content["shape"]
    if not (fits and whole and len(images) + len(errors) == expected):
        return None
    if errors and content.get("limits") != _LIMITS:  # other limits may allow to read these files
        return None
    for path in (_array(entry), _record(entry)):
        with contextlib.suppress(OSError):  # the cache may be read-only
            os.utime(path)
    return Decoded(images, errors, sides, key)


def _array(entry: Path) -> Path:
    return entry.with_name(entry.name + ".npy")


def _record(entry: Path) -> Path:
    return entry.with_name(entry.name + ".json")


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _private(folder: Path) -> Path:
    """Create the folder; among the temporary files it must belong to this user, or others could plant pixels in it."""
    with _disk_space():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shared = folder.parent == Path(tempfile.gettempdir()) and hasattr(os, "getuid")
        if shared and folder.lstat().st_uid != os.getuid():
            raise VaeguardError(
                f"the cache folder {str(folder)!r} belongs to another user; set VAEGUARD_CACHE to a different folder"
            )
    return folder


@contextlib.contextmanager
def _disk_space() -> Iterator[None]:
    """Turn a failed write into an error that names the cache and what to do."""
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
        "free some space there or set VAEGUARD_CACHE to a different folder"
    )


def _nothing_readable(place: str, first: str, errors: list[tuple[int, str]]) -> VaeguardError:
    return VaeguardError(
        f"no image in {place!r} can be read ({counted(len(errors), 'file')}); the first is"
        f" {os.path.relpath(first, place)!r}: {errors[0][1]}"
    )


def _sweep(folder: Path) -> None:
    """Remove half-written files of killed processes, and entries that nobody has used for long."""
    sweep(folder)
    for path in folder.glob(f"vaeguard-{'[0-9a-f]' * 64}.*"):  # spares any other file in the folder
        with contextlib.suppress(OSError):  # another process may sweep too
            if time.time() - path.stat().st_mtime > _UNUSED_SECONDS:
                path.unlink()


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress:
        progress(done, total, "")

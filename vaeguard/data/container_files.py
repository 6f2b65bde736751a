"""Tar archives and Parquet files as the processes for decoding read them: each function serves `archives`.

A container can break its reader or swell to gigabytes like a single image, by its headers as well as by its parts.
"""

from __future__ import annotations

import contextlib
import tarfile
import time
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.data.arrays import NAMED_COLUMNS, number_classes
from vaeguard.data.channel import BUFFER, as_array
from vaeguard.data.decoder import TOGETHER_SECONDS
from vaeguard.data.folders import is_image
from vaeguard.data.limits import MAX_BYTES, too_much_memory
from vaeguard.data.own_regions import region_path
from vaeguard.data.source import CONTAINER_ERRORS, DAMAGED, one_line
from vaeguard.errors import RefusedError, UnreadableError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from vaeguard.data.channel import Values
    from vaeguard.data.decoder import Caller

IMAGE_COLUMNS = ("image", "img", "picture", "bytes", "content", "jpg", "png")
"""Columns of a Parquet file that may hold image files; the first present one is read."""
LABEL_COLUMNS = ("label", "class", "labels", "target")
"""Columns of a Parquet file that may hold labels; the first present one is read."""
ROWS = 64
"""Rows of a Parquet file that are read at a time, if they are small."""
NAMES = 4096
"""Names in a message."""


@contextlib.contextmanager
def _reading(path: str, reason: str = "{}") -> Iterator[None]:
    """Turn the errors of a reader on a damaged container into a `reason`, which takes its message.

    Raises
    ------
    UnreadableError
        The container is damaged.
    """
    try:
        yield
    except (VaeguardError, MemoryError):
        raise
    except CONTAINER_ERRORS as error:
        raise UnreadableError(path, reason.format(one_line(error))) from error


def tar_members(caller: Caller, content: bytes, *, path: str) -> None:
    """Send the names of the image files in an archive."""
    del content
    names: list[str] = []
    with _reading(path, DAMAGED), tarfile.open(path) as archive:
        for member in _members(archive):
            names.append(member.name)
            if len(names) == NAMES:
                caller.send({"names": names})
                names = []
    caller.send({"names": names})


def tar_files(
    caller: Caller,
    content: bytes,
    *,
    path: str,
    part: str,
    masks: Sequence[str],
    looks: bool,
    start: int,
    stop: int | None,
    singly: bool,
    names: Sequence[str] | None = None,
) -> None:
    """Send the image files `start` to `stop` of an archive whose names begin with `part`, or those of `names`.

    The `masks` among them are the regions of images; if the caller `looks` at these, each is sent with its image.
    """
    del content
    left_out = frozenset(masks)
    regions = _regions(path, left_out) if looks and masks else {}
    with _reading(path), tarfile.open(path) as archive:
        members = islice((found for found in _members(archive, part) if found.name not in left_out), start, stop)
        chosen = members if names is None else _first_of_each(members, set(names))
        files = ((member.name, *_content(archive, member), regions.get(region_path(member.name))) for member in chosen)
        _send_files(caller, files, singly=singly)


def _regions(path: str, masks: AbstractSet[str]) -> dict[str, bytes]:
    """The contents of the masks in an archive, by name, read in one pass, since they may lie far from their images."""
    with tarfile.open(path) as archive:
        return {member.name: _content(archive, member)[0] for member in _members(archive) if member.name in masks}


def _first_of_each(members: Iterable[tarfile.TarInfo], missing: set[str]) -> Iterator[tarfile.TarInfo]:
    """The first of the members of each name; none is looked for once all are found."""
    if not missing:
        return
    for member in members:
        if member.name in missing:
            missing.discard(member.name)
            yield member
            if not missing:
                return


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[bytes, str]:
    """The bytes of a member, or why they are not read."""
    if not member.isfile():  # the target of a link may lie anywhere in the archive, or outside
        return b"", "it is a link in the archive; archive the file itself (tar -h --hard-dereference)"
    if member.size > MAX_BYTES:
        return b"", _too_large(member.size)
    file = archive.extractfile(member)
    return file.read() if file else b"", ""


def _too_large(size: int) -> str:
    return f"it has {size / 2**20:.0f} MB, more than the limit of {MAX_BYTES // 2**20} MB; shrink it"


def _members(archive: tarfile.TarFile, part: str = "") -> Iterator[tarfile.TarInfo]:
    """The image files of the archive whose names begin with `part`."""
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # keeps memory constant
        is_file = member.isfile() or member.islnk() or member.issym()
        if is_file and is_image(member.name.rpartition("/")[2]) and member.name.startswith(part):
            yield member
    # Python takes a broken header for the end of an archive, but a whole archive ends with a block of zeros.
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"it ends too early, after {archive.offset} bytes")


def parquet_facts(caller: Caller, content: bytes, *, path: str, name: str) -> dict[str, Any]:
    """The number of rows, the column of image files, and the column of labels if there is one.

    Raises
    ------
    RefusedError
        The file is damaged, or has no such column or no row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    del caller, content
    with _reading(path, DAMAGED):
        try:
            with pq.ParquetFile(path) as file:
                schema, count = file.schema_arrow, file.metadata.num_rows
        except pa.ArrowException as error:
            raise RefusedError(f"{name!r} is damaged or not a Parquet file ({error})") from error
    held = {field.name: field.type for field in schema}
    column = next((name for name in IMAGE_COLUMNS if name in held and _holds_bytes(held[name])), None)
    if column is None:
        raise RefusedError(f"{name!r} {_no_images(held)}")
    if not count:
        raise RefusedError(f"{name!r} has no rows; use a file with at least one image")
    return {"count": count, "column": column, "label": next(filter(held.__contains__, LABEL_COLUMNS), None)}


def parquet_labels(caller: Caller, content: bytes, *, path: str, column: str) -> list[str]:
    """Send the class of each row, and return the names of the classes."""
    import pyarrow.parquet as pq

    del content
    with _reading(path, DAMAGED):
        values = pq.read_table(path, columns=[column], use_threads=False).column(0).to_numpy(zero_copy_only=False)
        labels, names = number_classes(values, values)
    caller.send({}, labels)
    return list(names)


def parquet_files(
    caller: Caller,
    content: bytes,
    *,
    path: str,
    column: str,
    start: int,
    stop: int | None,
    singly: bool,
    rows: Sequence[int] | None = None,
) -> None:
    """Send the image files of the rows `start` to `stop` of a column, or those of `rows`, in order."""
    del content
    with _reading(path):
        if rows is None:
            wanted = None if stop is None else stop - start
            _send_files(caller, islice(_cells(path, column, start), wanted), singly=singly)
        else:
            _send_files(caller, (next(_cells(path, column, row)) for row in rows), singly=singly)


def _cells(path: str, column: str, start: int) -> Iterator[tuple[str, Values, str]]:
    import pyarrow.parquet as pq

    # With a buffer, a column is read in small parts, not a whole row group at once.
    with pq.ParquetFile(path, buffer_size=2**20) as file:
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if first + count > start:
                rows = ROWS if file.metadata.row_group(group).total_byte_size < count * BUFFER * ROWS else 1
                batches = file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False)
                yield from _cells_of(batches, range(first, first + count), start)
            first += count


def _cells_of(batches: Iterator[Any], rows: range, start: int) -> Iterator[tuple[str, Values, str]]:
    """The cells of a row group from row `start` on; if memory does not suffice, the rest of the group is not read."""
    row = rows.start
    try:
        for batch in batches:
            column = batch.column(0)
            del batch  # the next one may be large, too
            for place in range(len(column)):
                if row >= start:
                    yield _cell(row, column[place])
                row += 1
            del column
    except MemoryError:
        yield from ((f"{lost:05d}", as_array(b""), too_much_memory()) for lost in range(max(row, start), rows.stop))


def _cell(number: int, cell: Any) -> tuple[str, Values, str]:
    """The name and the content of a cell, and why it is not read."""
    name, nothing = f"{number:05d}", as_array(b"")
    if _is_struct(cell):
        if cell.is_valid and not cell["bytes"].is_valid and "path" in cell and cell["path"].is_valid:
            return (
                name,
                nothing,
                (
                    f"the table contains only the path {cell['path'].as_py()!r} of this image; store the bytes of the"
                    " image file in the table"
                ),
            )
        cell = cell["bytes"] if cell.is_valid else cell
    cell = getattr(cell, "value", cell)  # of a dictionary
    if not cell.is_valid:
        return name, nothing, ""
    held = as_array(cell.as_buffer() if hasattr(cell, "as_buffer") else bytes(cell.as_py()))
    return (name, nothing, _too_large(len(held))) if len(held) > MAX_BYTES else (name, held, "")


def _is_struct(cell: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(cell.type))


def _holds_bytes(kind: Any) -> bool:
    """Whether a column of this type holds the bytes of files."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(pa.types.is_uint8(kind.value_type))
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(is_kind(kind) for is_kind in binary)


def _no_images(held: Mapping[str, Any]) -> str:
    """Why no column of these types is read, as the end of a sentence."""
    named = next((name for name in IMAGE_COLUMNS if name in held), None)
    if named:
        return (
            f"has {held[named]} values in its column {named!r}, which are not supported; store the bytes of image files"
            " in this column"
        )
    others = [name for name, kind in held.items() if _holds_bytes(kind)]
    columns = ", ".join(map(repr, [*held][:NAMED_COLUMNS])) + (" and more" if len(held) > NAMED_COLUMNS else "")
    if others:
        return (
            f"has no image column with a known name (its columns: {columns}); rename the image column to"
            f" {IMAGE_COLUMNS[0]!r}"
        )
    return (
        f"has no column with the bytes of image files (its columns: {columns}); store these bytes in a column"
        f" {IMAGE_COLUMNS[0]!r}"
    )


def _send_files(caller: Caller, files: Iterable[tuple[Any, ...]], *, singly: bool) -> None:
    """Send files, each its name, its bytes, why it is not read and perhaps the bytes of its region.

    Small ones are sent together unless `singly` is set.
    """
    names: list[str] = []
    reasons: list[str] = []
    contents: list[list[Values]] = []
    sent = time.monotonic()

    def send() -> None:
        sizes = [[*map(len, parts)] for parts in contents]
        caller.send({"names": names, "reasons": reasons, "sizes": sizes}, *chain.from_iterable(contents))

    try:
        for name, held, reason, *region in files:
            names.append(name)
            reasons.append(reason)
            contents.append([np.frombuffer(part, np.uint8) for part in (held, *region) if part is not None])
            del held  # the next one may be large, too
            waiting = sum(map(len, chain.from_iterable(contents)))
            if singly or waiting > BUFFER or time.monotonic() - sent > TOGETHER_SECONDS:
                send()
                names, reasons, contents, sent = [], [], [], time.monotonic()
    finally:
        if names:
            send()

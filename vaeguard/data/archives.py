"""Tar archives and Parquet files of image files."""

from __future__ import annotations

import os
import tarfile
from itertools import islice
from typing import TYPE_CHECKING, Any

from vaeguard.data.arrays import NAMED_COLUMNS, number_classes
from vaeguard.data.folders import Folder, class_labels, is_image
from vaeguard.data.images import SUFFIXES
from vaeguard.data.source import Encoded, row_of
from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.storage.files import valid_text

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from vaeguard.data.source import ClassLabels, Source
    from vaeguard.data.streams import File

IMAGE_COLUMNS = ("image", "img", "picture", "bytes", "content", "jpg", "png")
"""Columns of a Parquet file that may hold image files; the first present one is read."""
LABEL_COLUMNS = ("label", "class", "labels", "target")
"""Columns of a Parquet file that may hold labels; the first present one is read."""
_OTHER = {"train": "test", "test": "train"}


class Tar(Encoded):
    """The image files in a tar archive, compressed or not, in the archive's order.

    For a split, the archive is read like the folder that was packed. That is the deepest folder that holds all members;
    its sub-folders are the classes, or `train` and `test`. If all members lie directly in one folder, that folder is
    their class.
    """

    def __init__(self, path: str, split: str | None = None) -> None:
        with tarfile.open(path) as archive:
            members = [member.name for member in _members(archive)]
        if not members:
            raise RefusedError(f"{path!r} holds no image file ({', '.join(SUFFIXES)})")
        self._other: Folder | None = None
        if split:
            self.part = _packed_folder(members)
            own, other = (_below(path, f"{self.part}{half}/", members) for half in (split, _OTHER[split]))
            if own.names and other.names:
                self.part, self._other = f"{self.part}{split}/", other
        self._members = [member for member in members if member.startswith(self.part)]
        super().__init__(path, len(self._members))

    @property
    def names(self) -> Sequence[str]:
        """Paths of the archive and its members."""
        return tuple(f"{self.path}/{member}" for member in self._members)

    def labels(self) -> ClassLabels | None:
        """The sub-folder of each member."""
        return class_labels(_below(self.path, self.part, self._members), self._other)

    def open(self, stack: contextlib.ExitStack, start: int) -> Iterator[File]:
        """Read the members."""
        archive = stack.enter_context(tarfile.open(self.path))  # noqa: SIM115  (the stack closes it)
        members = islice(_members(archive, self.part), start, None)
        return ((f"{self.path}/{member.name}", _content(archive, member)) for member in members)

    def open_some(self, stack: contextlib.ExitStack, names: AbstractSet[str]) -> Iterator[File]:
        """Go through the headers, and read the contents of these members only."""
        missing = {name for name in names if name.startswith(f"{valid_text(self.path)}/")}
        archive = stack.enter_context(tarfile.open(self.path))  # noqa: SIM115  (the stack closes it)
        members = _members(archive, self.part)
        while missing and (member := next(members, None)):
            name = f"{self.path}/{member.name}"
            if valid_text(name) in missing:
                missing.discard(valid_text(name))
                yield name, _content(archive, member)


def _packed_folder(members: Sequence[str]) -> str:
    """The folder that holds all members, with a slash after it; the folder above if it has no sub-folders."""
    common = os.path.commonprefix([min(members), max(members)]).rpartition("/")[0]  # noqa: RUF071  (cut at a slash)
    folder = f"{common}/" if common else ""
    if common in ("", ".") or any("/" in member[len(folder) :] for member in members):
        return folder
    return folder[: common.rfind("/") + 1]


def _below(path: str, part: str, members: Sequence[str]) -> Folder:
    names = [member[len(part) :] for member in members if member.startswith(part)]
    return Folder(f"{path}/{part}".rstrip("/"), names)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | UnreadableError:
    if not member.isfile():  # the target of a link may lie anywhere in the archive, or outside
        return UnreadableError(
            member.name, "it is a link in the archive; pack the file itself (tar -h --hard-dereference)"
        )
    file = archive.extractfile(member)
    return file.read() if file else b""


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
        raise tarfile.ReadError(f"it breaks off after {archive.offset} bytes")


class Parquet(Encoded):
    """A column of image files in a Parquet file: bytes, or the field `bytes` of a struct as Hugging Face writes it.

    Labels are in the column `label` or `class`, if there is one.
    """

    def __init__(self, path: str, split: str | None = None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        del split  # a file is one part
        try:
            with pq.ParquetFile(path) as file:
                held, count = {field.name: field.type for field in file.schema_arrow}, file.metadata.num_rows
        except pa.ArrowException as error:
            raise RefusedError(f"{path!r} is damaged or no Parquet file ({error})") from error
        column = next((name for name in IMAGE_COLUMNS if name in held and _holds_bytes(held[name])), None)
        if column is None:
            raise RefusedError(f"{path!r} {_no_images(held)}")
        if not count:
            raise RefusedError(f"{path!r} has no rows; give a file with at least one image")
        self.part, self._label = column, next((name for name in LABEL_COLUMNS if name in held), None)
        super().__init__(path, count)

    def labels(self) -> ClassLabels | None:
        """Read the column of labels."""
        import pyarrow.parquet as pq

        if self._label is None:
            return None
        values = pq.read_table(self.path, columns=[self._label]).column(0).to_numpy(zero_copy_only=False)
        return number_classes(values, values)

    def open(self, stack: contextlib.ExitStack, start: int) -> Iterator[File]:
        """Read the cells."""
        import pyarrow.parquet as pq

        # With a buffer, a column is read in small parts, not a whole row group at once.
        file = stack.enter_context(pq.ParquetFile(self.path, buffer_size=2**20))
        group = first = 0
        while first + file.metadata.row_group(group).num_rows <= start:
            first += file.metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, file.num_row_groups))
        cells = (
            cell for batch in file.iter_batches(64, row_groups=groups, columns=[self.part]) for cell in batch.column(0)
        )
        for number, cell in enumerate(cells, first):
            if number >= start:
                yield f"{self.path}/{number:05d}", _content_of(cell.as_py(), f"{self.path}/{number:05d}")

    def open_some(self, stack: contextlib.ExitStack, names: AbstractSet[str]) -> Iterator[File]:
        """Read the row group of each cell."""
        before = f"{valid_text(self.path)}/"
        for row in sorted(row_of(name) for name in names if name.startswith(before)):
            yield next(self.open(stack, row))


def _content_of(cell: Any, name: str) -> bytes | UnreadableError:
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    if content is None and isinstance(cell, dict) and cell.get("path"):
        return UnreadableError(name, f"only its path {cell['path']!r} is in the table; write its bytes there")
    return bytes(content or b"")


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
        return f"holds {held[named]} in its column {named!r}, which is not read; write the bytes of image files there"
    others = [name for name, kind in held.items() if _holds_bytes(kind)]
    columns = ", ".join(map(repr, [*held][:NAMED_COLUMNS])) + (" and more" if len(held) > NAMED_COLUMNS else "")
    if others:
        return f"has no column of images by a known name (its columns: {columns}); name it {IMAGE_COLUMNS[0]!r}"
    return f"has no column of the bytes of image files (its columns: {columns}); write them as {IMAGE_COLUMNS[0]!r}"


READERS: dict[str, Callable[[str, str | None], Source]] = {
    r"\.(tar(\.(gz|bz2|xz))?|tgz|txz)": Tar,
    r"\.parquet": Parquet,
}
"""The source of a file by the ending of its name (a regular expression)."""

"""The directories of a TIFF: reading and writing what tifffile itself cannot write."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

import tifffile
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Entry = tuple[int, int, bytes]
    """The kind of value, the number of values, and their bytes, in a directory."""

EXIF = 34665
GPS = 34853
_INTEROPERABILITY = 40965
"""The entry of EXIF for a directory within it."""
_RESOLUTION = (282, 283, 296)
"""The resolution across and down, and its unit."""


def inner_tags(content: bytes, originals: list[Any]) -> list[dict[int, dict[int, Any]]]:
    """The tags of the directories for EXIF and GPS, page by page."""
    if not any(pointer in page.tags for page in originals for pointer in (EXIF, GPS)):
        return [{} for _ in originals]
    inner: list[dict[int, dict[int, Any]]] = []
    with Image.open(io.BytesIO(content)) as image:
        for number in range(len(originals)):
            image.seek(number)
            exif = image.getexif()
            directories = {pointer: values for pointer in (EXIF, GPS) if (values := dict(exif.get_ifd(pointer)))}
            if _INTEROPERABILITY in directories.get(EXIF, {}):  # Pillow reads it as a place in the file
                directories[EXIF][_INTEROPERABILITY] = dict(exif.get_ifd(_INTEROPERABILITY))
            inner.append(directories)
    return inner


def resolution_of(page: Any) -> dict[int, Entry]:
    """The entries that state the resolution, as they are in the file."""
    entries = {}
    for tag in (page.tags.get(code) for code in _RESOLUTION):
        if tag is not None:
            page.parent.filehandle.seek(tag.valueoffset)
            entries[tag.code] = int(tag.dtype), tag.count, page.parent.filehandle.read(tag.valuebytecount)
    return entries


def amend(target: Path, resolutions: list[dict[int, Entry]], inner: list[dict[int, dict[int, Any]]]) -> None:
    """Write what tifffile cannot write: EXIF and GPS, and resolutions that are odd or absent.

    Pages that lack any of it get new directories, at the end of the file.

    Raises
    ------
    ValueError
        Pillow cannot write EXIF into this kind of TIFF.
    """
    with tifffile.TiffFile(target) as written:
        layout = written.tiff
        old = [(page.offset, resolution_of(page)) for page in written.pages]
    if any(inner) and layout.is_bigtiff and layout.byteorder == ">":
        raise ValueError("EXIF in a BigTIFF of this byte order")
    with target.open("r+b") as file:
        header, pointer = (file.read(16), 8) if layout.is_bigtiff else (file.read(8), 4)
        for (start, written_resolution), resolution, directories in zip(old, resolutions, inner, strict=True):
            place, (entries, following) = start, _read_directory(file, layout, start)
            if resolution != written_resolution or directories:
                new = resolution | {
                    code: (4, 1, struct.pack(layout.byteorder + "I", _append(file, _directory(header, values))))
                    for code, values in directories.items()
                }
                entries = _with_new(file, layout, entries, new)
                count = struct.pack(layout.tagnoformat, len(entries))
                place = _append(file, count + b"".join(entries[code] for code in sorted(entries)) + following)
                file.seek(pointer)
                file.write(struct.pack(layout.offsetformat, place))
            pointer = place + layout.tagnosize + layout.tagsize * len(entries)


def _with_new(file: BinaryIO, layout: Any, entries: dict[int, bytes], new: dict[int, Entry]) -> dict[int, bytes]:
    """The entries of a directory with new ones, which also replace those of the resolution."""
    kept = {code: entry for code, entry in entries.items() if code not in _RESOLUTION}
    return kept | {code: _packed(file, layout, code, entry) for code, entry in new.items()}


def _read_directory(file: BinaryIO, layout: Any, place: int) -> tuple[dict[int, bytes], bytes]:
    """The entries of the directory at a place, by code, and the place of the following directory as bytes."""
    file.seek(place)
    (count,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    entries = [file.read(layout.tagsize) for _ in range(count)]
    by_code = {struct.unpack(layout.byteorder + "H", entry[:2])[0]: entry for entry in entries}
    return by_code, file.read(layout.offsetsize)


def _packed(file: BinaryIO, layout: Any, code: int, entry: Entry) -> bytes:
    """The bytes of an entry in a directory; a long value is appended to the file."""
    kind, count, value = entry
    if len(value) > layout.offsetsize:
        value = struct.pack(layout.offsetformat, _append(file, value))
    return struct.pack(layout.tagformat1, code, kind) + struct.pack(layout.tagformat2, count, value)


def _directory(header: bytes, values: dict[int, Any]) -> Callable[[int], bytes]:
    """A function that returns the bytes of a directory for its position in the file."""
    directory = ImageFileDirectory_v2(header)
    for code, value in values.items():
        directory[code] = value
    return lambda position: bytes(directory.tobytes(position))


def _append(file: BinaryIO, content: bytes | Callable[[int], bytes]) -> int:
    """Write at the end of the file, at an even position, and return the position, on which the content may depend."""
    end = file.seek(0, 2)
    position = end + end % 2
    file.write(b"\0" * (position - end) + (content if isinstance(content, bytes) else content(position)))
    return position

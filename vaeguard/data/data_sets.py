"""Data sets: the images of all sources become one `ImageSet`."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from dataclasses import replace
from functools import partial
from itertools import chain, compress, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from vaeguard.data.arrays import Array, Idx
from vaeguard.data.cache import Sides, decode_files
from vaeguard.data.decoding import HEADER, read_each
from vaeguard.data.encodings import deep_pixels
from vaeguard.data.folders import Files, no_images, sorted_once
from vaeguard.data.image_set import ImageSet, new_image_set
from vaeguard.data.images import SUFFIXES, ImageRule, open_picture, read_bytes
from vaeguard.data.inputs import (
    expanded,
    is_container,
    is_named,
    named_as_file,
    open_beside_regions,
    open_folder,
    read_folder,
    settle_regions,
    without_ending,
)
from vaeguard.data.named_sets import NAMES, NamedSource
from vaeguard.data.objects import NamesAsUrls, staged
from vaeguard.data.shards import Shards
from vaeguard.data.source import Encoded, Unreadable, reading
from vaeguard.data.streams import Part, default_jobs, first_of, map_ahead, parts_of, size_of_part
from vaeguard.data.unread import left_out
from vaeguard.errors import RefusedError, UnreadableError, UsageError
from vaeguard.settings.choice import default_size
from vaeguard.settings.classes import resolve_classes
from vaeguard.storage.places import as_urls, check_supported, is_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.data.shards import Limits
    from vaeguard.data.source import ClassLabels, Source
    from vaeguard.progress import Progress

    Bools = npt.NDArray[np.bool_]
    Size = tuple[int, int]

SHEETS = (".csv", ".tsv", ".xlsx")
"""Endings of tables that are not read."""
NARROW = 2**12
"""16-bit values that span less than this have at most 17 of the 256 grey levels."""
SAMPLED = 32
"""The number of files whose range of pixels is examined."""
CAMERA_BITS = (10, 12, 14)
"""The usual depths of cameras that write files of 16 bits."""
_KEPT: list[contextlib.ExitStack] = []
"""Copies from buckets that are read again."""
STRETCHED = 1.1
"""Images whose ratios of height to width differ by a larger factor are visibly stretched by a common size."""


def open_images(
    data: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    rule: ImageRule | None = None,
    normal_classes: str | int | Sequence[str | int] | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Open a data set by its name, or a folder, image file, glob, array file, tar archive or Parquet file.

    `split` chooses the part of a named set, of a folder or tar archive with `train` and `test` in it, of an `.npz` with
    both, and of a folder of Parquet files whose names begin with `train` and `test`. Named sets take precedence over
    folders of the same name; write `./mnist` for the folder. Image files are decoded once into the cache, by `jobs`
    threads (None: depends on the machine); `progress(done, total, text)` counts them. `rule` sets the size and channels
    of the images. None takes the median height and width of the files of `normal_classes` (None: all), scaled down to
    128 pixels on the longer side if the shorter one has fewer than 96. Named sets are searched for in `data_dir` (None:
    `$VAEGUARD_DATA`, else `data/`), or downloaded into it with `download`. Data at a URL are first copied into the
    folder of temporary files, and the copy is removed after reading.

    Classes are the sub-folders of a folder or of a tar archive, the labels next to an IDX file or in an `.npz`, or the
    column `label` or `class` of a Parquet file.

    Raises
    ------
    UsageError
        There is no such data, or no such class.
    VaeguardError
        A named set is missing, a download failed, or no image can be read.
    RefusedError
        A container is damaged or does not contain images.
    """
    if split not in ("train", "test"):
        raise UsageError(f"`split` is {split!r}; it must be 'train' or 'test'")
    rule = rule or ImageRule()
    if is_url(data):
        return _of_bucket(str(data), split, (rule, normal_classes, jobs, progress))
    if not is_named(data):
        return _image_set(str(data), sources_of(data, split), rule, normal_classes, jobs, progress)
    source = NamedSource(str(data), split, data_dir, download=download)
    note = (
        f"{data} is read as the data set of that name, not as the folder; for the folder, give './{data}'"
        if Path(data).is_dir()
        else None
    )
    facts = {"note": note, "named": True, "pixel_range": rule.pixel_range}
    return new_image_set(str(data), source.pixels(rule), source.labels(), source.names, **facts)


def open_to_learn(
    data: str | Path,
    limits: Limits,
    *,
    rule: ImageRule,
    normal_classes: str | int | Sequence[str | int] | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
    **where: Any,
) -> ImageSet:
    """Open the training part of a data set as `open_images` does, for a fit alone.

    Images that would take more than the `limits` when decoded stay in their files (`vaeguard.data.shards`).

    Raises
    ------
    UsageError, VaeguardError, RefusedError
        As by `open_images`.
    """
    if is_url(data):
        return _of_bucket(str(data), "train", (rule, normal_classes, jobs, progress, limits))
    if is_named(data):
        return open_images(data, rule=rule, normal_classes=normal_classes, jobs=jobs, progress=progress, **where)
    return _image_set(str(data), sources_of(data, "train"), rule, normal_classes, jobs, progress, limits)


def _of_bucket(url: str, split: str, how: tuple[Any, ...]) -> ImageSet:
    """The images of a place in a bucket, which are copied, one GET each, and named by their URLs."""
    with contextlib.ExitStack() as stack:
        copy, failures = stack.enter_context(staged(url, named_as_file))
        images = _image_set(copy, sources_of(copy, split), *how)
        held: Any = images.images
        if isinstance(held, Shards):
            _KEPT.append(stack.pop_all())  # the images stay in their files, so these stay until the process ends
        elif isinstance(held, np.memmap) and sys.platform == "win32":
            images = replace(images, images=np.array(held))  # a mapped file cannot be removed there
    errors = [(as_urls(path), failures.get(path, reason)) for path, reason in images.errors]
    return replace(
        images,
        paths=NamesAsUrls(images.paths) if isinstance(held, Shards) else tuple(map(as_urls, images.paths)),
        errors=tuple(errors),
        note=as_urls(images.note),
        left_out=as_urls(images.left_out),
        source=url,
    )


def open_packed(
    data: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    data_dir: str | Path | None = None,
    download: bool = False,
) -> ImageSet:
    """Open a set in one file or array, as `open_images` does, but with images in their original size.

    Raises
    ------
    UsageError
        The set is a folder of image files; otherwise as `open_images`.
    VaeguardError, RefusedError
        As `open_images`.
    """
    if is_named(data):
        return open_images(data, split=split, data_dir=data_dir, download=download)
    check_supported([data], "`unpack`")
    sources = sources_of(data, split)
    if any(isinstance(source, Files) for source in sources):
        raise UsageError(
            f"{str(data)!r} is already a folder of files; give a named data set, an IDX file, an .npz, an .npy, "
            "a tar archive or a Parquet file"
        )
    rule = ImageRule()
    if encoded := [source for source in sources if isinstance(source, Encoded)]:
        shrunk, sides = _common_rule(encoded, rule, None, None)
        if sides and sides.least != sides.most:
            raise UsageError(
                f"the images in {str(data)!r} have different sizes, from {_by(sides.least)} to {_by(sides.most)}"
                " (height x width), and only images of one size are unpacked; extract the files with another program"
            )
        rule = ImageRule(sides and sides.least, shrunk.channels)
    return _image_set(str(data), sources, rule)


def data_of_fit(name: str, *, named: bool) -> str:
    """The named set that a model was fitted on: `name`, if the fit says that its data were a `named` set.

    Raises
    ------
    UsageError
        The model was fitted on other data, which cannot be opened by name.
    """
    if name not in NAMES or not named:
        raise UsageError(
            f"`data` is missing, and the model was fitted on {name!r}, which is not a named data set; give `data`"
        )
    return name


def sources_of(data: str | Path, split: str) -> list[Source]:
    """Find the images of a data set that is not a named set.

    Raises
    ------
    UsageError
        There is no such data.
    """
    path = Path(data)
    if path.is_dir():
        return open_folder(path, split)
    paths = expanded(str(data))
    if not os.path.lexists(paths[0]):
        raise _no_such_data(str(data))
    if len(paths) == 1 and not is_container(paths[0]) and not paths[0].lower().endswith(SUFFIXES):
        raise _no_data_set(path)
    folders = [*map(read_folder, paths)]
    paths = sorted_once(chain.from_iterable(folder.paths for folder in folders))
    sources = open_beside_regions(paths, folders, split)
    if not sources:
        raise no_images(paths, left_out=left_out(folders))
    sources[0].left_out = left_out(folders)
    return sources


def _image_set(
    data: str,
    sources: list[Source],
    rule: ImageRule,
    normal_classes: str | int | Sequence[str | int] | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> ImageSet:
    """Read all images of the sources, which are either all arrays or all image files."""
    broken = [source for source in sources if isinstance(source, Unreadable)]
    whole = [source for source in sources if not isinstance(source, Unreadable)]
    if not whole:
        raise broken[0].error
    looks, unused = settle_regions(whole, rule.regions)
    rule = replace(rule, regions=looks)
    with reading(whole[0].path):
        classes = _joined_labels([source.labels() for source in whole])
    if limits and (shards := _too_large(whole, rule, limits, jobs, progress)):
        return _in_shards(data, shards, classes, broken)
    names = tuple(chain.from_iterable(source.names for source in whole))
    normal = None
    if classes and normal_classes is not None:
        normal = np.isin(classes[0], resolve_classes(normal_classes, classes[1]))
    images, unreadable, note = _read(data, whole, rule, normal, jobs, progress)
    errors = [(source.path, source.reason) for source in broken]
    errors += [(names[row], reason) for row, reason in unreadable.items()]
    return new_image_set(
        _name_of(data, whole[0]),
        images,
        *_without_rows(unreadable, classes, names),
        errors=tuple(errors),
        note=note,
        left_out="; ".join(filter(None, (*(source.left_out for source in sources), unused))) or None,
        pixel_range=rule.pixel_range,
        source=str(Path(data).absolute()),
        regions=looks and isinstance(whole[0], Encoded),
    )


def _too_large(
    sources: Sequence[Source], rule: ImageRule, limits: Limits, jobs: int | None, progress: Progress | None
) -> Shards | None:
    """The images in their files, if they would take more than the limits when decoded; judged by some of them."""
    encoded = [source for source in sources if isinstance(source, Encoded)]
    if len(encoded) < len(sources):
        return None
    some = [Part([*islice(source.files(), SAMPLED)], is_last=True) for source in encoded[:SAMPLED]]
    known = [header for part in some for header in _headers(part) if header]
    if not known:
        return None
    sizes = np.array([size for size, _ in known])
    size = rule.size or default_size(_size(np.median(sizes, 0)), rule.longest)
    channels = rule.channels or max(channels for _, channels in known)
    count = sum(source.count for source in encoded)
    if count * channels * size[0] * size[1] <= limits.most:
        return None
    return Shards(encoded, replace(rule, size=size, channels=channels), limits, jobs, progress)


def _in_shards(data: str, shards: Shards, classes: ClassLabels | None, broken: Sequence[Unreadable]) -> ImageSet:
    """The set of images that stay in their files."""
    labels, class_names = classes or (None, ())
    size = float(np.prod(shards.shape)) / 1e9
    return ImageSet(
        _name_of(data, shards.sources[0]),
        cast("Any", shards),
        labels,
        class_names,
        shards.names,
        shards.fingerprint(),
        errors=(*((source.path, source.reason) for source in broken), *shards.errors.items()),
        note=f"these images would take {size:.3g} GB when decoded, so they are read from their files in every epoch",
        pixel_range=shards.rule.pixel_range,
        regions=bool(shards.rule.regions),
        source=str(Path(data).absolute()),
    )


def _without_rows(
    unreadable: Mapping[int, str], classes: ClassLabels | None, names: tuple[str, ...]
) -> tuple[ClassLabels | None, tuple[str, ...]]:
    """The classes and names of the images that could be read."""
    if not unreadable:
        return classes, names
    rows = np.delete(np.arange(len(names)), list(unreadable))
    return classes and (classes[0][rows], classes[1]), tuple(names[row] for row in rows)


def _read(
    data: str,
    sources: list[Source],
    rule: ImageRule,
    normal: Bools | None,
    jobs: int | None,
    progress: Progress | None,
) -> tuple[npt.NDArray[Any], dict[int, str], str | None]:
    """The readable images, the reason for each unreadable one by its number, and a note on the reading."""
    arrays = [source for source in sources if isinstance(source, Array)]
    encoded = [source for source in sources if isinstance(source, Encoded)]
    if arrays and encoded:
        raise UsageError(f"{data!r} contains both arrays and image files; use one or the other")
    if arrays:
        with reading(arrays[0].path):
            return _joined(data, [array.pixels(rule) for array in arrays]), {}, None
    place = encoded[0].place if len(encoded) == 1 else data
    resolve = partial(_common_rule, encoded, rule, normal, jobs)
    decoded = decode_files(encoded, rule, resolve, place, decisive=normal, jobs=jobs, progress=progress)
    notes = (
        _scaled(place, decoded.sides, decoded.images.shape[2:]),
        None if rule.pixel_range else _narrow(place, encoded, decoded.images),
    )
    return decoded.images, decoded.errors, "; ".join(filter(None, notes)) or None


def _name_of(data: str, source: Source) -> str:
    """The name of a folder, or of a file without its ending; for an IDX file or a glob, the name of its folder."""
    path = Path(data)
    if path.is_dir():
        return path.resolve().name or data
    if isinstance(source, Idx) or not os.path.lexists(data):
        return Path(source.path).resolve().parent.name or path.name
    return without_ending(path.name)


def _joined(data: str, parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    shapes = sorted({part.shape[1:] for part in parts})
    if len(shapes) > 1:
        raise RefusedError(f"the arrays of {data!r} have different shapes, such as {shapes[0]} and {shapes[1]}")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _joined_labels(parts: Sequence[ClassLabels | None]) -> ClassLabels | None:
    """Give a class the same number in all parts; None unless all parts have labels."""
    known = [part for part in parts if part]
    if len(known) < len(parts):
        return None
    if len(known) == 1:
        return known[0]
    names = sorted({name for _, names in known for name in names}, key=lambda name: (len(name) * name.isdigit(), name))
    numbers = {name: number for number, name in enumerate(names)}
    tables = [np.array([numbers[name] for name in names], np.int64) for _, names in known]
    return np.concatenate([table[labels] for table, (labels, _) in zip(tables, known, strict=True)]), tuple(names)


def _common_rule(
    sources: Sequence[Encoded], rule: ImageRule, normal: Bools | None, jobs: int | None
) -> tuple[ImageRule, Sides | None]:
    """Fill in the open channels of the rule from the headers of all files, and its size from those of the normal ones.

    Also return the sizes of these files.
    """
    if rule.size and rule.channels:
        return rule, None
    every = _all_headers(sources, jobs)
    headers = [header for header in every if header]
    if not headers:  # no file can be read, so any size will do
        return replace(rule, size=rule.size or (1, 1), channels=rule.channels or 1), None
    channels = rule.channels or max(channels for _, channels in headers)
    if rule.size:
        return replace(rule, channels=channels), None
    chosen = every if normal is None else compress(every, normal)
    sizes = np.array([header[0] for header in chosen if header] or [size for size, _ in headers])
    size = default_size(_size(np.median(sizes, 0)), rule.longest)
    return replace(rule, size=size, channels=channels), _sides(sizes)


def _sides(sizes: npt.NDArray[np.int64]) -> Sides:
    """The smallest and the largest sides and shapes of images of these sizes, (n, 2)."""
    shapes = sizes[:, 0] / sizes[:, 1]
    return Sides(_size(sizes.min(0)), _size(sizes.max(0)), (float(shapes.min()), float(shapes.max())))


def _size(values: npt.NDArray[Any]) -> Size:
    height, width = values.round().astype(int).tolist()
    return height, width


def _all_headers(sources: Sequence[Encoded], jobs: int | None) -> list[tuple[Size, int] | None]:
    """The sizes and channels of all files in order; None for those that cannot be read."""
    first, files = first_of(chain.from_iterable(source.files() for source in sources))
    jobs = jobs or default_jobs(first)
    del first  # it may be large
    parts = map_ahead(_headers, parts_of(files, 64), jobs=jobs, ahead=2 * jobs, size_of=size_of_part)
    return [header for part in parts for header in part]


def _headers(part: Part) -> list[tuple[Size, int] | None]:
    answers = (answer for _, answer, _ in read_each(HEADER, part.files))
    return [
        None if isinstance(answer, UnreadableError) else ((answer["size"][0], answer["size"][1]), answer["channels"])
        for answer in answers
    ]


def _scaled(place: str, sides: Sides | None, size: tuple[int, ...]) -> str | None:
    """A note that images were scaled to `size` though nobody asked for it; None if they were not."""
    if sides is None or sides.least == sides.most == size:
        return None
    extent = _by(sides.least) + ("" if sides.least == sides.most else f" to {_by(sides.most)}")
    stretched = sides.shapes[1] > STRETCHED * sides.shapes[0]
    which = ", which distorts some of them, since their aspect ratios differ" if stretched else ""
    return (
        f"the images in {place!r} have {extent} pixels (height x width) and were scaled to {_by(size)}{which}; to"
        " choose another size, set `size`"
    )


def _by(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def _narrow(place: str, sources: Sequence[Encoded], decoded: npt.NDArray[Any]) -> str | None:
    """A note that files of 16 bits use a small part of their range, so that few grey levels remain; else None."""
    levels = len(np.unique(decoded[:SAMPLED]))
    if levels > 2 ** CAMERA_BITS[-1] // 257 + 1:
        return None
    sampled = _deep_range_of(sources)
    if not sampled:
        return None
    low, high = sampled
    bits = next((bits for bits in CAMERA_BITS if high < 2**bits), None)
    if not bits and high - low > NARROW:
        return None
    span = max(1, high - low)
    black, white = (0, 2**bits - 1) if bits else (max(0, low - span), min(65535, high + span))
    why = f"the range of a {bits}-bit camera" if bits else "with some margin"
    return (
        f"the 16-bit images in {place!r} only have values from {low} to {high}, so as 8-bit images they use only"
        f" {levels} of the 256 grey levels; to use more, fit with `model.pixel_range`={black},{white} ({why})"
    )


def _deep_range_of(sources: Sequence[Encoded]) -> tuple[int, int] | None:
    """The smallest and the largest value of the first files; None if none of them has 16 bits."""
    files = chain.from_iterable(source.files() for source in sources)
    answers = read_each("vaeguard.data.data_sets:deep_range", islice(files, SAMPLED))
    ranges = [found["range"] for _, found, _ in answers if not isinstance(found, UnreadableError) and found["range"]]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def deep_range(name: str, content: bytes | None, rule: None) -> tuple[dict[str, Any]]:
    """The smallest and the largest value in a file of 16 bits, found in a process for decoding."""
    del rule
    content = read_bytes(name) if content is None else content
    values = deep_pixels(content, open_picture(content, name))
    if values is None:
        return ({"range": None},)
    colours = values[..., : values.shape[2] - (values.shape[2] in (2, 4))]
    return ({"range": [int(colours.min()), int(colours.max())]},)


def _no_such_data(data: str) -> UsageError:
    close = difflib.get_close_matches(data, NAMES, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"there is no data set, folder or file {data!r}; {hint}the data sets are {', '.join(NAMES)}")


def _no_data_set(path: Path) -> UsageError:
    if path.suffix.lower() in SHEETS:
        return UsageError(
            f"{str(path)!r}: tables must be .npz or .npy files of floats, with arrays x and y (the labels); save the"
            " table as one of these"
        )
    return UsageError(
        f"{str(path)!r} is not a data set; give images, a folder of images, an IDX file of images, an .npz,"
        f" an .npy, a tar archive, a Parquet file or one of {', '.join(NAMES)}"
    )

"""What is not read in a folder of images: masks beside images, other formats, links that lead in a circle."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from vaeguard.data.own_regions import ENDING, regions_among
from vaeguard.data.palette import has_few_colours
from vaeguard.wording import counted, skipped_by_suffix, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from vaeguard.data.folders import Folder

_MARKED = re.compile(
    r"(?P<stem>.+?)[ _.-](masks?|gt|ground[ _-]?truth|labels?|seg|segmentation|annotations?|roi)([ _-]?\d+)?"
    r"|(masks?|gt|labels?|seg|roi)[ _.-](?P<rest>.+)",
    re.IGNORECASE,
)
_WORDS = re.compile("mask|gt|truth|label|seg|annotation|roi", re.IGNORECASE)
"""One of these is in every stem that `_MARKED` matches, and is searched for faster."""
_FOLDERS = re.compile("masks?|gt|ground[ _-]?truth|labels?|seg|segmentations?|annotations?|rois?", re.IGNORECASE)
"""Usual names of folders of masks."""
_REGION = re.compile("(^|[^a-z])rois?([^a-z]|$)", re.IGNORECASE)
"""Masks that mark where to look."""


def without_masks(folder: Folder) -> Folder:
    """The folder without the masks that lie beside images, regions of single images among them.

    A mask has two signs. Its name is that of an image in the same folder, with another suffix or with a mark such as
    `_mask`, or that of an image in a folder beside its own, whose name is `masks` or the like. And it has few colours.
    If only the suffix differs, it is a mask only if the image itself has many colours.
    """
    regions = {*regions_among(folder.paths)}
    if regions:
        names = [name for name, path in zip(folder.names, folder.paths, strict=True) if path not in regions]
        folder = replace(folder, names=names, regions=tuple(sorted(regions)))
    masks = {name for name, image, marked in _candidates(folder.names) if _is_mask(folder, name, image, marked=marked)}
    if not masks:
        return folder
    names = [name for name in folder.names if name not in masks]
    return replace(folder, names=names, masks=tuple(sorted(masks)))


def left_out(folders: Iterable[Folder]) -> str | None:
    """One sentence on the files in folders that look like images and are not read; None if there are none."""
    folders = list(folders)
    others = sum((Counter(folder.others) for folder in folders), Counter[str]())
    links = [repr(path) for folder in folders for path in folder.links]
    clauses = [*_masks_left_out(folders)]
    if others:
        clauses.insert(0, skipped_by_suffix([*others.items()]))
    if links:
        clauses.append(f"{counted(len(links), 'link')} skipped (folder already read): {some(links)}")
    return "; ".join(clauses) or None


def _masks_left_out(folders: Sequence[Folder]) -> Iterator[str]:
    """Clauses on masks and regions of single images."""
    masks = [repr(path) for folder in folders for path in replace(folder, names=folder.masks).paths]
    if masks:
        yield f"{counted(len(masks), 'file')} skipped (mask of a different image): {some(masks)}"
    if any(_REGION.search(name) for folder in folders for name in folder.masks):
        yield (
            f"the region mask of a single image is read only if it is next to the image and named like it: '7{ENDING}'"
            " for '7.png'"
        )


def unused_regions(regions: Sequence[str], why: str) -> str | None:
    """A clause on regions of single images that are not used, and why; None if there are none."""
    if not regions:
        return None
    return f"{counted(len(regions), 'region mask')} of single images not used ({why}): {some([*map(repr, regions)])}"


def unmarked(stem: str) -> str | None:
    """Remove a mark such as `_mask` from the path of a mask without its suffix; return None if there is no mark."""
    folder, base = os.path.split(stem) if _WORDS.search(stem) else ("", "")
    match = _MARKED.fullmatch(base)
    return os.path.join(folder, match["stem"] or match["rest"]) if match else None  # noqa: PTH118


def _candidates(names: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Files whose names are those of masks: each with the image beside it, and whether its name has a mark."""
    by_stem = defaultdict(list)
    for name in names:
        by_stem[os.path.splitext(name)[0]].append(name)  # noqa: PTH122  (a million of them)
    candidates = []
    for stem, alike in by_stem.items():
        images = by_stem.get(unmarked(stem) or "", ())
        candidates += [(name, image, True) for image in images[:1] for name in alike]
        if len(alike) > 1:
            candidates += [(name, image, False) for name in alike for image in alike if image != name]
    return candidates + _in_folders_of_masks(by_stem)


def _in_folders_of_masks(by_stem: Mapping[str, Sequence[str]]) -> list[tuple[str, str, bool]]:
    """As `_candidates`, the files in a folder such as `masks` whose names are those of images in a folder beside it."""
    tops = {stem.partition(os.sep)[0] for stem in by_stem if os.sep in stem}
    folders = {top for top in tops if _FOLDERS.fullmatch(top)}
    if not folders:
        return []
    images, masks = dict[str, str](), list[tuple[str, str]]()
    for stem, names in by_stem.items():
        top, _, below = stem.partition(os.sep)
        if top in folders:
            masks += [(below, name) for name in names]
        else:
            images[below or top] = names[0]
    pairs = ((name, images.get(below) or images.get(unmarked(below) or "")) for below, name in masks)
    return [(name, image, True) for name, image in pairs if image]


def _is_mask(folder: Folder, name: str, image: str, *, marked: bool) -> bool:
    path, beside = replace(folder, names=(name, image)).paths
    return has_few_colours(path, exactly=not marked) and (marked or not has_few_colours(beside))

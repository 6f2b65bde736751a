"""Labels that a person put on images of a batch: the table that the page of the batch saves."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.images import read_bytes
from vaeguard.data.inputs import find_sources, is_container
from vaeguard.data.source import pick
from vaeguard.errors import RefusedError, UnreadableError, UsageError
from vaeguard.storage.files import valid_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from vaeguard.data.images import ImageRule
    from vaeguard.data.source import Source

NORMAL, DEFECT, UNSURE = "normal", "defect", "unsure"
LABELS = (NORMAL, DEFECT, UNSURE)
TRUTH = {"0": False, "1": True, "false": False, "true": True, "": False}


@dataclass(frozen=True)
class Label:
    """What a person says of an image.

    Attributes
    ----------
    path : str
        The image, as the table of scores names it.
    label : str
        `normal`, `defect` or `unsure`.
    flagged, audit : bool
        Whether the image was flagged, and whether it was drawn at random from the whole batch.
    batch : int or None
        The number of images in the batch that were flagged, or not flagged, like this one.
    class_name : str
        The class of the image, if the table says it.
    """

    path: str
    label: str
    flagged: bool
    audit: bool
    batch: int | None
    class_name: str


def read_labels(table: str) -> list[Label]:
    """Read a CSV file with the columns `path`, `label`, `flagged` and `audit`, and perhaps `batch` and `class`.

    Raises
    ------
    RefusedError
        The file cannot be read, is no such table, or says something unknown or two things of an image.
    UsageError
        The file is missing.
    """
    try:
        text = io.StringIO(read_bytes(table).decode("utf-8-sig"), newline="")
        rows: list[Mapping[str, str | None]] = list(csv.DictReader(text, strict=True))
    except UnreadableError as error:
        missing = not os.path.exists(table)  # noqa: PTH110  (names need not be valid paths)
        raise (UsageError if missing else RefusedError)(f"cannot read `labels` {table!r}: {error.reason}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RefusedError(
            f"`labels` {table!r} is not a CSV file ({error}); give the labels.csv that the report of a scored batch"
            " saves"
        ) from error
    if not rows or not {"path", "label"} <= rows[0].keys():
        raise RefusedError(
            f"`labels` {table!r} has no rows with the columns path and label; its first line must name these columns"
        )
    marks = [_label(row, f"`labels` {table!r}, row {number}") for number, row in enumerate(rows, 1)]
    seen: set[str] = set()
    for mark in marks:
        if mark.path in seen:
            raise RefusedError(f"`labels` {table!r} lists {mark.path!r} twice; remove one of the rows")
        seen.add(mark.path)
    return marks


def _label(row: Mapping[str, str | None], place: str) -> Label:
    label = (row["label"] or "").strip().lower()
    if label not in LABELS:
        raise RefusedError(f"{place}: the label is {row['label']!r}; it must be normal, defect or unsure")
    if not row["path"]:
        raise RefusedError(f"{place}: the path is missing; add the path of the image")
    truths = [TRUTH.get((row.get(name) or "").strip().lower()) for name in ("flagged", "audit")]
    batch = (row.get("batch") or "").strip()
    if None in truths or not (batch.isdecimal() or not batch):
        raise RefusedError(
            f"{place}: flagged and audit must be 0 or 1, and batch must be a number of images; correct the row"
        )
    flagged, audit = map(bool, truths)
    class_name = (row.get("class") or "").strip()
    return Label(row["path"], label, flagged, audit, int(batch) if batch else None, class_name)


def read_labelled(
    marks: Sequence[Label], rule: ImageRule
) -> tuple[list[Label], npt.NDArray[np.uint8], list[tuple[str, str]]]:
    """Read the images of `marks` again.

    Returns
    -------
    marks, images, errors
        The marks of the images that could be read, in order; these images, uint8 (n, C, H, W); and for each of the
        others its path and the reason.

    Raises
    ------
    UsageError
        None of the images can be read.
    """
    found: dict[str, npt.NDArray[np.uint8]] = {}
    paths = [mark.path for mark in marks]
    errors = dict.fromkeys(paths, "it does not exist; run `vaeguard refit` in the folder where the batch was scored")
    if sources := _sources(paths):
        for batch in pick(sources, set(paths), rule):
            found |= dict(zip(map(valid_text, batch.paths), batch.images, strict=True))
            errors |= dict(batch.errors)
    if marks and not found:
        raise UsageError(f"none of the images in `labels` can be read, such as {paths[0]!r}: {errors[paths[0]]}")
    read = [mark for mark in marks if mark.path in found]
    shape = (len(read), *rule.decoded_shape)
    images = np.stack([found[mark.path] for mark in read]) if read else np.zeros(shape, np.uint8)
    return read, images, [(path, reason) for path, reason in errors.items() if path not in found]


def _sources(paths: Sequence[str]) -> list[Source]:
    """The sources of images, files of their own or in containers, that are still there."""
    files = {path: _file_of(path) for path in paths}
    containers = sorted({file for path, file in files.items() if file and file != path})
    alone = [path for path, file in files.items() if file == path]
    return find_sources(containers, alone) if containers or alone else []


def _file_of(path: str) -> str | None:
    """The file that holds an image: the image file itself, or a container, in which the image has a name."""
    file = path
    while file and not os.path.isfile(file):  # noqa: PTH113  (names need not be valid paths)
        file = os.path.dirname(file) if os.path.dirname(file) != file else ""  # noqa: PTH120
    return file if file and (file == path or is_container(file)) else None

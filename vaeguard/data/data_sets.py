"""Where images come from: a named set, a folder, an IDX pair, `.npz` or `.npy`; all become one `ImageSet`."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vaeguard.data.folders import open_folder
from vaeguard.data.images import ImageRule
from vaeguard.data.named_sets import NAMES, find_idx, is_idx
from vaeguard.data.packed import open_arrays, open_idx, open_named
from vaeguard.errors import UsageError

if TYPE_CHECKING:
    from vaeguard.data.image_set import ImageSet
    from vaeguard.progress import Progress


SHEETS = (".csv", ".tsv", ".xlsx", ".parquet")
"""How tables end that are not read."""


def open_images(
    data: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    rule: ImageRule | None = None,
    data_dir: str | Path | None = None,
    download: bool = False,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Open a data set: its name, a folder, an IDX file of images, an `.npz` or an `.npy`.

    `split` chooses the part of a named set, of a folder with `train` and `test` in it, and of an `.npz` with both.
    Named sets win over folders of the same name; write `./mnist` for the folder. Folders are decoded once into the
    cache, by `jobs` threads (None: as many as the machine has use for); `progress(done, total)` counts files. `rule`
    says to which size and channels images are brought (None: they stay, and have to fit together). Named sets lie in
    `data_dir` (None: `$VAEGUARD_DATA`, else `data/`), or are fetched into it with `download`.

    Raises
    ------
    UsageError
        There is no such data, or a folder's images do not fit together.
    VaeguardError
        A named set is not there, a download failed, or no image of a folder can be read.
    RefusedError
        A packed file is damaged or holds something else than images.
    """
    if split not in ("train", "test"):
        raise UsageError(f"`split` is {split!r}; it must be 'train' or 'test'")
    rule = rule or ImageRule()
    if is_named(data):
        found = replace(open_named(str(data), split, rule, data_dir, download=download), named=True)
        if Path(data).is_dir():
            note = f"this is the named set {data}; for the folder of that name give './{data}'"
            found = replace(found, note=f"{found.note}; {note}" if found.note else note)
        return found
    path = Path(data)
    if path.is_dir():
        packed = find_idx(path, split)
        return open_idx(packed, rule) if packed else open_folder(path, split, rule, jobs, progress)
    if not path.is_file():
        raise _no_such_data(str(data))
    if path.suffix.lower() in (".npz", ".npy"):
        return open_arrays(path, split, rule)
    if is_idx(path):
        return open_idx(path, rule)
    if path.suffix.lower() in SHEETS:
        raise UsageError(f"{str(path)!r}: tables are read as .npz or .npy of floats, x and labels y; save it as one")
    raise UsageError(
        f"{str(path)!r} is no data set; give a folder of images, an IDX file of images, an .npz, an .npy "
        f"or one of {_names()}"
    )


def open_packed(
    data: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    data_dir: str | Path | None = None,
    download: bool = False,
) -> ImageSet:
    """Open a set that is no folder of image files, as `open_images` does.

    Raises
    ------
    UsageError
        It is such a folder, or as `open_images`.
    VaeguardError, RefusedError
        As `open_images`.
    """
    path = Path(data)
    if not is_named(data) and path.is_dir() and not (find_idx(path, "train") or find_idx(path, "test")):
        raise UsageError(
            f"{str(data)!r} is a folder of files already; give a named set, an IDX file, an .npz or an .npy"
        )
    return open_images(data, split=split, data_dir=data_dir, download=download)


def data_of_fit(name: str, *, named: bool) -> str:
    """The named set that a model was fitted on: `name`, if data of that name are a `named` set.

    Raises
    ------
    UsageError
        It was fitted on something else, which its name cannot give again.
    """
    if name not in NAMES or not named:
        raise UsageError(f"`data` is missing, and the model was fitted on {name!r}, which is no named set; give `data`")
    return name


def is_named(data: str | Path) -> bool:
    """Whether `data` is the name of a set, which wins over a folder of the same name; a `Path` never is."""
    return isinstance(data, str) and data in NAMES


def _no_such_data(data: str) -> UsageError:
    close = difflib.get_close_matches(data, NAMES, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"no data set, folder or file {data!r}; {hint}known names are {_names()}")


def _names() -> str:
    return ", ".join(NAMES)

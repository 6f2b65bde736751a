"""Image sets that serve as anomalies only: notMNIST's letters and Omniglot's characters, brought to MNIST's form."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vaeguard.benchmarking.tasks import missing
from vaeguard.data.data_sets import open_images
from vaeguard.data.idx import find_idx
from vaeguard.data.image_set import from_array
from vaeguard.data.named_sets import data_folder
from vaeguard.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.data.image_set import ImageSet

NOTMNIST_FOLDERS = ("notmnist-test", "notmnist", "notMNIST")
OMNIGLOT_FOLDERS = ("omniglot-small", "omniglot")
OMNIGLOT_SIZE = 105
MNIST_SIZE = 28
LARGEST_MEMBER = 100_000
"""Bytes; the drawings have about 300."""


def open_notmnist(data_dir: str | Path | None) -> ImageSet:
    """Open the test part of notMNIST (Bulatov, 2011), 28x28 letters A to J.

    Raises
    ------
    VaeguardError
        It is not in the data folder.
    RefusedError
        Its files are damaged.
    """
    folder = data_folder(data_dir)
    for name in NOTMNIST_FOLDERS:
        path = find_idx(folder / name, "test")
        if path:
            return replace(open_images(path), name="notmnist")
    raise missing("notmnist", *(folder / name / "t10k-images-idx3-ubyte.gz" for name in NOTMNIST_FOLDERS))


def open_omniglot(data_dir: str | Path | None) -> ImageSet:
    """Open Omniglot's background drawings (Lake et al., 2015) from their zip files, in MNIST's form.

    Black on white becomes white on black, 105x105 pixels of 1 bit become 28x28 grey ones by the mean over the area.

    Raises
    ------
    VaeguardError
        There is no zip file of them in the data folder.
    RefusedError
        A zip file is damaged or holds something else.
    """
    folder = data_folder(data_dir)
    archives = sorted(path for name in OMNIGLOT_FOLDERS for path in (folder / name).glob("images_background*.zip"))
    if not archives:
        raise missing("omniglot", *(folder / name / "images_background_small1.zip" for name in OMNIGLOT_FOLDERS))
    drawings = [drawing for archive in archives for drawing in _drawings(archive)]
    return replace(from_array(np.stack(drawings)), name="omniglot")


OTHER_SETS = {"notmnist": open_notmnist, "omniglot": open_omniglot}


def _drawings(archive: Path) -> list[npt.NDArray[np.uint8]]:
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [item for item in packed.infolist() if item.filename.endswith(".png")]
            drawings = [_drawing(packed, member) for member in members]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, SyntaxError) as error:
        raise RefusedError(f"{str(archive)!r} is damaged or of the wrong kind ({error}); download it again") from error
    if not drawings:
        raise RefusedError(
            f"{str(archive)!r} contains no .png drawings; download Omniglot's images_background_small1.zip"
        )
    return drawings


def _drawing(packed: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[np.uint8]:
    if member.file_size > LARGEST_MEMBER:
        raise ValueError(f"{member.filename!r} has {member.file_size} bytes")
    with Image.open(io.BytesIO(packed.read(member)), formats=["PNG"]) as drawing:
        if drawing.size != (OMNIGLOT_SIZE, OMNIGLOT_SIZE):
            raise ValueError(f"{member.filename!r} has {drawing.size} pixels")
        strokes = Image.eval(drawing.convert("L"), lambda value: 255 - value)
    return np.asarray(strokes.resize((MNIST_SIZE, MNIST_SIZE), Image.Resampling.BOX))

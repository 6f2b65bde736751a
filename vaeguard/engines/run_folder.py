"""Run folders: the files that a fit writes, and those that are read again."""

from __future__ import annotations

import contextlib
import io
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import RefusedError, UnreadableError, VaeguardError
from vaeguard.storage import places
from vaeguard.storage.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt


MODEL_NAME = "model.safetensors"
ONNX_NAME = "model.onnx"
"""The model in the run folder of a denoiser."""
CHECKPOINT_NAME = "checkpoint.safetensors"
IMAGES_NAME = "calibration.npz"
CONFIRMED_NAME = "confirmed.npz"
"""The images with which a refit was fitted in addition to its data."""
LATEST = "latest"
"""The name beside all runs that points at the last one."""
LONGEST_NAME = 4096
"""The most bytes of a file with the name of a run."""


def new_folder(name: str, runs: Path = Path("runs")) -> Path:
    """Create and return a new folder `runs/<name>-<time>`.

    Raises
    ------
    VaeguardError
        `runs` cannot be written.
    """
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for free in (stem, *(f"{stem}-{number}" for number in range(2, 1000))):
        try:
            (runs / free).mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise VaeguardError(
                f"cannot write to {str(runs)!r}: {error.strerror}; choose a different run folder"
            ) from error
        return runs / free
    raise VaeguardError(
        f"{str(runs)!r} already has 999 runs that were started in this second; choose a different run folder"
    )


def followed(path: str) -> str:
    """`path`, or the run that it names: `latest` is a file with the name of a run where folders have no links."""
    place = Path(path)
    if place.name != LATEST or places.is_url(path) or not place.is_file() or place.stat().st_size > LONGEST_NAME:
        return path
    run = place.parent / place.read_text(encoding="utf-8", errors="replace").strip()
    return str(run) if run != place.parent and run.is_dir() else path


@contextlib.contextmanager
def local_model(model: str | Path) -> Iterator[Path]:
    """The path of a model; for a URL, that of a copy of it and of what its run folder knows of it.

    The copy stays until the process ends. Errors of the block name the URL.

    Raises
    ------
    UnreadableError
        The place cannot be read.
    """
    if not places.is_url(model):
        yield Path(followed(str(model)))
        return
    url = str(model).rstrip("/")
    if Path(url).suffix in (".onnx", ".safetensors"):
        folder = url.rpartition("/")[0]
        wanted = dict.fromkeys((url, f"{folder}/{MODEL_NAME}", f"{folder}/{IMAGES_NAME}"))
        objects = [*filter(None, map(places.find, wanted))]
    else:
        named = (MODEL_NAME, ONNX_NAME, IMAGES_NAME, CONFIRMED_NAME, "report.json")
        objects = [entry for entry in places.walk(url, deep=False) if places.name_of(entry.url) in named]
    with places.naming_urls():
        missing = [entry for entry in objects if _copies_kept.get(entry.url) != entry]
        for path, reason in places.copy_all(missing).items():
            raise UnreadableError(path, reason)
        _copies_kept.update((entry.url, entry) for entry in objects)
        yield places.local_path(url)


_copies_kept: dict[str, places.Object] = {}
"""The objects of models that were copied, as they were then."""


def write_history(run: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write `history.csv`, one row per epoch."""
    from vaeguard.storage.tables import write_table

    write_table(run / "history.csv", {name: np.array([row[name] for row in history]) for name in history[0]})


def calibration_images(model: str | Path) -> npt.NDArray[Any] | None:
    """Images that a run was calibrated on, (N, C, H, W), or None if the folder has none.

    Raises
    ------
    RefusedError
        The file of the images is damaged.
    """
    with local_model(model) as copy:
        path = copy if copy.is_dir() else copy.parent
    return _stored_array(path / IMAGES_NAME, "images", 4, ("uint8", "float32"))


def fitted_on(model: Path) -> dict[str, npt.NDArray[Any]]:
    """`fitted_on` and `out_of_fold` of a `DetectorInfo`, as far as the run folder of a model file holds them."""
    arrays = {}
    for name, dimensions, kind in (("fitted_on", 1, "uint64"), ("out_of_fold", 2, "float32")):
        with contextlib.suppress(RefusedError):
            array = _stored_array(model.parent / IMAGES_NAME, name, dimensions, (kind,))
            if array is not None:
                arrays[name] = array
    return arrays


def _stored_array(path: Path, name: str, dimensions: int, types: tuple[str, ...] | None) -> npt.NDArray[Any] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: npt.NDArray[Any] = archive[name]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RefusedError(f"{str(path)!r} is damaged; delete it") from error
    if array.ndim != dimensions or (array.dtype.kind != "U" if types is None else array.dtype not in types):
        raise RefusedError(f"{str(path)!r} is damaged; delete it")
    return array


@dataclass(frozen=True, eq=False)
class Confirmed:
    """Images that a person found to be normal, with which a run was fitted in addition to its data.

    Attributes
    ----------
    images : uint8 (n, C, H, W)
        The images as the model sees them.
    paths : list of str
        Their names.
    training_only : bool (n,)
        Whether an image is for training only.
    classes : list of str
        Their normal classes; empty names if the data have no classes.
    """

    images: npt.NDArray[np.uint8]
    paths: list[str]
    training_only: npt.NDArray[np.bool_]
    classes: list[str]

    def select(self, rows: npt.NDArray[np.int64]) -> Confirmed:
        """The images of some rows."""
        names = ([values[row] for row in rows.tolist()] for values in (self.paths, self.classes))
        paths, classes = names
        return Confirmed(self.images[rows], paths, self.training_only[rows], classes)

    def joined(self, other: Confirmed) -> Confirmed:
        """These images and others."""
        images = np.concatenate([self.images, other.images]) if self.paths else other.images
        only = np.concatenate([self.training_only, other.training_only])
        return Confirmed(images, self.paths + other.paths, only, self.classes + other.classes)


def write_confirmed(run: Path, confirmed: Confirmed) -> None:
    """Write the confirmed images of a refit into its run folder, for later refits."""
    if confirmed.paths:
        file = io.BytesIO()
        names: dict[str, Any] = {"paths": np.array(confirmed.paths), "classes": np.array(confirmed.classes)}
        np.savez_compressed(file, images=confirmed.images, training_only=confirmed.training_only, **names)
        write_bytes(run / CONFIRMED_NAME, file.getvalue())


def read_confirmed(run: Path) -> Confirmed:
    """The confirmed images of a run, which are none unless it is a refit.

    Raises
    ------
    RefusedError
        The file of the images is damaged.
    """
    path = run / CONFIRMED_NAME
    images = _stored_array(path, "images", 4, ("uint8",))
    if images is None:
        return Confirmed(np.zeros((0, 1, 1, 1), np.uint8), [], np.zeros(0, bool), [])
    only = _stored_array(path, "training_only", 1, ("bool",))
    names = [_stored_array(path, name, 1, None) for name in ("paths", "classes")]
    assert only is not None
    if {len(only), *(len(each) for each in names if each is not None)} != {len(images)}:
        raise RefusedError(f"{str(path)!r} is damaged; delete it")
    paths, classes = ([str(name) for name in each] for each in names if each is not None)
    return Confirmed(images, paths, only, classes)

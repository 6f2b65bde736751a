"""Run folders: the files that a fit writes, and those that are read again."""

from __future__ import annotations

import contextlib
import time
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import RefusedError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt


MODEL_NAME = "model.safetensors"
ONNX_NAME = "model.onnx"
"""The model in the run folder of a denoiser."""
CHECKPOINT_NAME = "checkpoint.safetensors"
IMAGES_NAME = "calibration.npz"


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
                f"cannot write into {str(runs)!r}: {error.strerror}; choose another run folder"
            ) from error
        return runs / free
    raise VaeguardError(f"{str(runs)!r} is full of runs of this second; choose another run folder")


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
    path = Path(model) if Path(model).is_dir() else Path(model).parent
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


def _stored_array(path: Path, name: str, dimensions: int, types: tuple[str, ...]) -> npt.NDArray[Any] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: npt.NDArray[Any] = archive[name]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RefusedError(f"{str(path)!r} is damaged; delete it") from error
    if array.ndim != dimensions or array.dtype not in types:
        raise RefusedError(f"{str(path)!r} is damaged; delete it")
    return array

"""Run folders: what a fit leaves in one, and what is read of it again."""

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
"""In the run of a denoiser."""
CHECKPOINT_NAME = "checkpoint.safetensors"
IMAGES_NAME = "calibration.npz"


def new_folder(name: str, runs: Path = Path("runs")) -> Path:
    """Create and return a folder `runs/<name>-<time>` that nobody else has.

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
    """Write one row per epoch to `history.csv`."""
    from vaeguard.storage.tables import write_table

    write_table(run / "history.csv", {name: np.array([row[name] for row in history]) for name in history[0]})


def calibration_images(model: str | Path) -> npt.NDArray[Any] | None:
    """Images that the score of a run was calibrated on, (N, C, H, W), or None where the folder has none.

    Raises
    ------
    RefusedError
        The file of them is damaged.
    """
    path = Path(model) if Path(model).is_dir() else Path(model).parent
    return _kept(path / IMAGES_NAME, "images")


def fitted_on(model: Path) -> npt.NDArray[np.uint64] | None:
    """Digests of the images that the run of a model file was fitted on, or None where the folder does not tell."""
    with contextlib.suppress(RefusedError):
        return _kept(model.parent / IMAGES_NAME, "fitted_on")
    return None


def _kept(path: Path, name: str) -> npt.NDArray[Any] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            found: npt.NDArray[Any] = archive[name]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RefusedError(f"{str(path)!r} is damaged; delete it") from error
    return found

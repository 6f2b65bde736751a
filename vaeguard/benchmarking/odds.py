"""The tables of PyOD's benchmark (from ODDS) and its protocol."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.benchmarking.tasks import TableTask, limited_rows, missing
from vaeguard.data.named_sets import data_folder
from vaeguard.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Table = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]

FOLDER = "pyod-odds"
TEST_SHARE = 0.4


def read_table(name: str, data_dir: str | Path | None) -> Table:
    """Read a table: features (n, d), and which rows are anomalous (n,).

    Raises
    ------
    VaeguardError
        It is not there.
    RefusedError
        It is damaged.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = data_folder(data_dir) / FOLDER / f"{name}.mat"
    if not path.is_file():
        raise missing(name, path)
    try:
        content = loadmat(path, variable_names=["X", "y"])
        features, truth = np.asarray(content["X"], np.float64), np.ravel(content["y"]) != 0
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError, zlib.error) as error:
        raise RefusedError(
            f"table {str(path)!r} is damaged, or is not a MATLAB file with X and y ({error}); download it again"
        ) from error
    if features.ndim != 2 or len(features) != len(truth) or not np.isfinite(features).all():
        raise RefusedError(
            f"table {str(path)!r} should contain finite values X, one row per value of y, but X has the shape"
            f" {features.shape} and y the shape {truth.shape}; download it again"
        )
    return features, truth


def split_table(name: str, table: Table, seed: int, limit: int | None = None) -> TableTask:
    """Split 60 to 40 at random, anomalies in both parts, and standardise by the training part.

    The split is the one of run number `seed` of PyOD's benchmark program.
    """
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    features, truth = table
    rows = limited_rows(truth, limit)
    train, test, _, anomalous = train_test_split(
        features[rows], truth[rows], test_size=TEST_SHARE, random_state=np.random.RandomState(seed)
    )
    scaler = StandardScaler().fit(train)
    return TableTask(name, scaler.transform(train), scaler.transform(test), anomalous)

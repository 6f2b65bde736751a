"""The tables of PyOD's benchmark (from ODDS), its protocol, and the numbers that PyOD publishes for them."""

from __future__ import annotations

import csv
import hashlib
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.benchmarking.published import Published
from vaeguard.benchmarking.tasks import TableTask, limited_rows
from vaeguard.data.named_sets import data_folder
from vaeguard.errors import RefusedError, VaeguardError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Table = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]

TABLES = (
    *("arrhythmia", "cardio", "glass", "ionosphere", "letter", "lympho", "mnist", "musk", "optdigits"),
    *("pendigits", "pima", "satellite", "satimage-2", "shuttle", "vertebral", "vowels", "wbc"),
)
FOLDER = "pyod-odds"
TEST_SHARE = 0.4
PUBLISHED_FILE = "published_roc_recent.csv"
PUBLISHED_COLUMNS = ("AutoEncoder", "PCA", "KNN")


def odds_folder(data_dir: str | Path | None) -> Path:
    """The folder of the tables, below the data folder."""
    return data_folder(data_dir) / FOLDER


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

    path = odds_folder(data_dir) / f"{name}.mat"
    if not path.is_file():
        raise VaeguardError(f"table {name!r} is not there (looked for {str(path)!r}); set `data_dir` to its folder")
    try:
        content = loadmat(path, variable_names=["X", "y"])
        features, truth = np.asarray(content["X"], np.float64), np.ravel(content["y"]) != 0
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError, zlib.error) as error:
        raise RefusedError(f"table {str(path)!r} is damaged or of the wrong kind ({error}); get it again") from error
    if features.ndim != 2 or len(features) != len(truth) or not np.isfinite(features).all():
        raise RefusedError(f"table {str(path)!r} has X of {features.shape} and y of {truth.shape}; get it again")
    return features, truth


def split_table(name: str, table: Table, seed: int, limit: int | None = None) -> TableTask:
    """Split 60 to 40 at random, anomalies in both parts, and standardise by the training part.

    The very splits of PyOD's benchmark program, run number `seed` of it.
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


def published_tables(data_dir: str | Path | None) -> list[Published]:
    """The ROC-AUC that PyOD publishes, by method; 0.0 there means that it was not run. Empty without its file."""
    path = odds_folder(data_dir) / PUBLISHED_FILE
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    source = f"{PUBLISHED_FILE}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    return [_column(rows, name, source) for name in PUBLISHED_COLUMNS]


def _column(rows: list[dict[str, Any]], name: str, source: str) -> Published:
    values = {row["Data"]: float(row[name]) for row in rows if float(row[name]) > 0}
    return Published(
        benchmark="tables",
        data=FOLDER,
        method=f"PyOD {name}",
        protocol="60/40 split, anomalies in training, mean of 10 runs",
        source=source,
        verified=True,
        cases=values,
    )

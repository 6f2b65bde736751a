"""Deep features as tables: 15 categories of MVTec AD by ResNet-18 (ADBench), ours beside simple detectors.

python -m benchmarks.deep_tables [--seeds 5] [--normal]

60 % of the rows at random, anomalies among them as in PyOD's protocol, or with --normal without them; 40 % to test. Our
fit holds a fifth of its rows out to calibrate by, the others use them all.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from benchmarks.common import data_dir, spread, write_result
from vaeguard.sklearn import VAEDetector

if TYPE_CHECKING:
    from collections.abc import Callable

    Rows = np.ndarray[Any, Any]
    Fit = Callable[[Rows, int], Callable[[Rows], Rows]]

TABLES = "adbench/mvtec_resnet18"
FLOOR = 0.01
COMPONENTS = 64


def vae(train: Rows, seed: int) -> Callable[[Rows], Rows]:
    """Our estimator."""
    detector = VAEDetector(random_state=seed, device="cpu").fit(train)
    return lambda rows: -detector.score_samples(rows)


def knn(train: Rows, _: int) -> Callable[[Rows], Rows]:
    """Distance to the fifth nearest row."""
    index = NearestNeighbors(n_neighbors=5).fit(train)
    return lambda rows: index.kneighbors(rows)[0][:, -1]


def mahalanobis(train: Rows, _: int) -> Callable[[Rows], Rows]:
    """Squared Mahalanobis distance, each variance at least 1 % of the mean one."""
    variances, directions = np.linalg.eigh(np.cov(train, rowvar=False))
    whitening = directions * (variances.clip(0) + FLOOR * variances.mean()) ** -0.5
    return lambda rows: np.square((rows - train.mean(0)) @ whitening).sum(1)


def pca(train: Rows, _: int) -> Callable[[Rows], Rows]:
    """Squared residual after projection onto 64 components."""
    model = PCA(min(COMPONENTS, len(train) // 2), svd_solver="full").fit(train)
    return lambda rows: np.square(rows - model.inverse_transform(model.transform(rows))).mean(1)


def isolation_forest(train: Rows, seed: int) -> Callable[[Rows], Rows]:
    """Isolation forest of 100 trees."""
    forest = IsolationForest(random_state=seed).fit(train)
    return lambda rows: -forest.score_samples(rows)


METHODS: tuple[Fit, ...] = (vae, knn, mahalanobis, pca, isolation_forest)


def main() -> None:
    """Fit, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--normal", action="store_true", help="fit on normal rows only")
    options = parser.parse_args()
    areas: dict[str, list[list[float]]] = {method.__name__: [] for method in METHODS}
    paths = sorted((data_dir() / TABLES).glob("*.npz"))
    for seed in range(options.seeds):
        found: dict[str, list[float]] = {name: [] for name in areas}
        for path in paths:
            table = np.load(path)
            train, test, known, truth = train_test_split(
                table["X"].astype(float), table["y"] != 0, test_size=0.4, random_state=np.random.RandomState(seed)
            )
            for method in METHODS:
                scores = method(train[~known] if options.normal else train, seed)(test)
                found[method.__name__].append(float(roc_auc_score(truth, scores)))
        for name, values in found.items():
            areas[name].append(values)
    rows = [{"method": name, "ROC-AUC": spread(np.mean(values, axis=1))} for name, values in areas.items()]
    kind = "normal rows" if options.normal else "all rows"
    title = f"{len(paths)} tables of deep features, fitted on {kind}: mean ROC-AUC"
    write_result(f"deep_tables/{kind}", title, rows, [], seeds=options.seeds)


if __name__ == "__main__":
    main()

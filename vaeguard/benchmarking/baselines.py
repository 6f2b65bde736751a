"""Simple methods on the same split: what a variational autoencoder has to beat to earn its place.

Each is fitted on the normal training examples, the ones that our own fit holds out included, and gives one score per
test example, higher = stranger. The settings are the same for all data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

Scorer = Callable[["Vectors"], "Vectors"]
"""Takes test examples (N, d), returns scores (N,)."""

COMPONENTS = 64
MANY_FEATURES = 300
NEIGHBOURS = 5
SVM_ROWS = 5000
BLOCK = 1024

SETTINGS: dict[str, dict[str, Any]] = {
    "pca": {"components": COMPONENTS, "at_most": "half the features and half the examples"},
    "knn": {"neighbours": NEIGHBOURS, "distance": "to the last", "pca_above_features": MANY_FEATURES},
    "isolation_forest": {"trees": 100},
    "one_class_svm": {"nu": 0.5, "gamma": "scale", "rows": SVM_ROWS, "pca_above_features": MANY_FEATURES},
    "brightness": {},
}
DETERMINISTIC = ("pca", "knn", "brightness")
"""Methods that do not depend on the seed."""


def fit_baseline(name: str, train: Vectors, seed: int) -> Scorer:
    """Fit the baseline `name`, a key of `SETTINGS`, on examples (n, d)."""
    return _BASELINES[name](train, seed)


def pca_residual(train: Vectors) -> Scorer:
    """Squared residual (N, d) of each feature after projection onto the principal components of `train` (n, d)."""
    pca = _pca(train)

    def residual(examples: Vectors) -> Vectors:
        squared: Vectors = np.square(examples - pca.inverse_transform(pca.transform(examples)))
        return squared

    return residual


def _fit_pca(train: Vectors, _: int) -> Scorer:
    residual = pca_residual(train)

    def score(examples: Vectors) -> Vectors:
        parts = [residual(examples[start : start + BLOCK]).mean(1) for start in range(0, len(examples), BLOCK)]
        return np.concatenate(parts)

    return score


def _fit_knn(train: Vectors, _: int) -> Scorer:
    """Distance to the fifth nearest training example (Ramaswamy et al., 2000)."""
    from sklearn.neighbors import NearestNeighbors

    reduce = _reducer(train)
    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train))).fit(reduce(train))
    return lambda examples: index.kneighbors(reduce(examples))[0][:, -1]


def _fit_isolation_forest(train: Vectors, seed: int) -> Scorer:
    """Isolation forest (Liu et al., 2008)."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=100, random_state=seed).fit(train)
    return lambda examples: -forest.score_samples(examples)


def _fit_one_class_svm(train: Vectors, seed: int) -> Scorer:
    """One-class SVM (Schölkopf et al., 2001) on a random part of the training examples: its cost is quadratic."""
    from sklearn.svm import OneClassSVM

    reduce = _reducer(train)
    rows = np.random.default_rng(seed).permutation(len(train))[:SVM_ROWS]
    svm = OneClassSVM(nu=0.5, gamma="scale").fit(reduce(train[rows]))
    return lambda examples: -svm.score_samples(reduce(examples))


def _fit_brightness(_train: Vectors, _: int) -> Scorer:
    """Mean pixel: brighter = stranger, whatever the data."""
    return lambda examples: examples.mean(1)


def _reducer(train: Vectors) -> Scorer:
    """Principal components where there are many features, otherwise the features themselves."""
    if train.shape[1] <= MANY_FEATURES:
        return lambda examples: examples
    transform: Scorer = _pca(train).transform
    return transform


def _pca(train: Vectors) -> Any:
    from sklearn.decomposition import PCA

    examples, features = train.shape
    components = max(1, min(COMPONENTS, features // 2, examples // 2))
    # The covariance of many pixels of few images would be far larger than the images.
    solver = "covariance_eigh" if features <= examples else "full"
    return PCA(components, svd_solver=solver).fit(train)


_BASELINES: dict[str, Callable[[Vectors, int], Scorer]] = {
    "pca": _fit_pca,
    "knn": _fit_knn,
    "isolation_forest": _fit_isolation_forest,
    "one_class_svm": _fit_one_class_svm,
    "brightness": _fit_brightness,
}

"""Simple methods on the same split, which a variational autoencoder has to beat to earn its place.

Each is fitted on all normal training examples (n, d), also on those that our own fit holds out, and returns a function
that scores test examples, higher = more anomalous. The settings are the same for all data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

Scorer = Callable[["Vectors"], "Vectors"]
"""Takes test examples (N, d), returns scores (N,), or (N, d) where each feature has its own."""
Fit = Callable[["Vectors", int], Scorer]
"""Takes training examples and the seed."""

COMPONENTS = 64
MANY_FEATURES = 300
NEIGHBOURS = 5
SVM_ROWS = 5000
BLOCK = 1024


def pca(train: Vectors, _: int) -> Scorer:
    """Squared residual of each feature after projection onto the principal components."""
    components = _components(train)

    def residual(examples: Vectors) -> Vectors:
        squared: Vectors = np.square(examples - components.inverse_transform(components.transform(examples)))
        return squared

    def score(examples: Vectors) -> Vectors:
        return np.concatenate([residual(examples[at : at + BLOCK]) for at in range(0, len(examples), BLOCK)])

    return score


def knn(train: Vectors, _: int) -> Scorer:
    """Distance to the fifth nearest training example (Ramaswamy et al., 2000)."""
    from sklearn.neighbors import NearestNeighbors

    reduce = _reducer(train)
    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(train))).fit(reduce(train))
    return lambda examples: index.kneighbors(reduce(examples))[0][:, -1]


def isolation_forest(train: Vectors, seed: int) -> Scorer:
    """Isolation forest (Liu et al., 2008)."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=100, random_state=seed).fit(train)
    return lambda examples: -forest.score_samples(examples)


def one_class_svm(train: Vectors, seed: int) -> Scorer:
    """One-class SVM (Schölkopf et al., 2001) on a random part of the training examples, as the cost is quadratic."""
    from sklearn.svm import OneClassSVM

    reduce = _reducer(train)
    rows = np.random.default_rng(seed).permutation(len(train))[:SVM_ROWS]
    svm = OneClassSVM(nu=0.5, gamma="scale").fit(reduce(train[rows]))
    return lambda examples: -svm.score_samples(reduce(examples))


def brightness(_train: Vectors, _: int) -> Scorer:
    """Mean pixel: brighter = more anomalous, whatever the data."""
    return lambda examples: examples.mean(1)


def _reducer(train: Vectors) -> Scorer:
    """Principal components where there are many features, otherwise the features themselves."""
    if train.shape[1] <= MANY_FEATURES:
        return lambda examples: examples
    transform: Scorer = _components(train).transform
    return transform


def _components(train: Vectors) -> Any:
    from sklearn.decomposition import PCA

    examples, features = train.shape
    components = max(1, min(COMPONENTS, features // 2, examples // 2))
    # The covariance of many pixels of few images would be far larger than the images.
    solver = "covariance_eigh" if features <= examples else "full"
    return PCA(components, svd_solver=solver).fit(train)

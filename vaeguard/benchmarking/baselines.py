"""Simple methods on the same split, which a variational autoencoder has to beat to earn its place.

Each is fitted on all normal training examples (n, d), also on those that our own fit holds out, and returns a function
that scores test examples, higher = more anomalous. The settings are the same for all data.

Methods on cells take the features of all cells of images instead, (n, cells, F), and score each cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]
    Halves = npt.NDArray[np.float16]

Scorer = Callable[["Vectors"], "Vectors"]
"""Takes test examples (N, d), returns scores (N,), or (N, d) where each feature has its own."""
Fit = Callable[["Vectors", int], Scorer]
"""Takes training examples and the seed."""

CellFit = Callable[["Halves", int], Callable[["Halves"], "Vectors"]]
"""Takes the cells of training images (n, P, F) and the seed; returns what takes those of test images (N, P, F) and
returns scores (N, P)."""

COMPONENTS = 64
MANY_FEATURES = 300
NEIGHBOURS = 5
SVM_ROWS = 5000
BLOCK = 1024
DRAWN = 100_000
"""Cells of which the Gaussian is estimated."""
FLOOR = 0.01
"""The least variance of a direction, as a share of the mean variance."""
POSITION_FEATURES = 100
"""Features that are drawn for the Gaussians of single places, as published for small networks."""
ADDED = 0.01
"""What is added to the variances at a place, as published."""
BANK_OF = 25_000
"""Cells of which the bank is chosen."""
BANK = 1000
"""Cells in the bank."""


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


def gaussian(cells: Halves, seed: int) -> Callable[[Halves], Vectors]:
    """Squared Mahalanobis distance from the cells of all places together."""
    mean, whitening = _whitening(_drawn(cells, DRAWN, seed))

    def score(examples: Halves) -> Vectors:
        distances: Vectors = np.square((examples - mean) @ whitening).sum(-1)
        return distances

    return score


def padim(cells: Halves, seed: int) -> Callable[[Halves], Vectors]:
    """Squared Mahalanobis distance from the Gaussian of the same place (PaDiM; Defard et al., 2021)."""
    features = np.random.default_rng(seed).permutation(cells.shape[2])[:POSITION_FEATURES]
    mean, factors = [], []
    for place in range(cells.shape[1]):
        values = cells[:, place, features].astype(np.float32)
        centred = values - values.mean(0)
        covariance = centred.T @ centred / max(1, len(values) - 1) + ADDED * np.eye(len(features), dtype=np.float32)
        mean.append(values.mean(0))
        factors.append(np.linalg.cholesky(np.linalg.inv(covariance)))

    def score(examples: Halves) -> Vectors:
        centred = examples[:, :, features] - np.stack(mean)
        scores = [np.square(centred[:, place] @ factor).sum(-1) for place, factor in enumerate(factors)]
        distances: Vectors = np.stack(scores, 1)
        return distances

    return score


def patchcore(cells: Halves, seed: int) -> Callable[[Halves], Vectors]:
    """Distance to the nearest of a bank of cells that covers the others (PatchCore; Roth et al., 2022)."""
    candidates = _drawn(cells, BANK_OF, seed)
    squares = np.square(candidates).sum(1)
    nearest, chosen = np.full(len(candidates), np.inf, np.float32), [0]
    for _ in range(min(BANK, len(candidates))):
        # The next one is the candidate that is furthest from all before (k-centre).
        centre = candidates[chosen[-1]]
        nearest = np.minimum(nearest, squares - 2 * candidates @ centre + squares[chosen[-1]])
        chosen.append(int(nearest.argmax()))
    bank = candidates[chosen[:-1]]

    def score(examples: Halves) -> Vectors:
        values = examples.astype(np.float32)
        squared = np.square(values).sum(-1) + (squares[chosen[:-1]] - 2 * values @ bank.T).min(-1)
        distances: Vectors = np.sqrt(np.maximum(squared, 0))
        return distances

    return score


def _drawn(cells: Halves, most: int, seed: int) -> Vectors:
    """At most `most` cells of all images and places, (n, F)."""
    images, places, features = cells.shape
    rows = np.random.default_rng(seed).permutation(images * places)[:most]
    drawn: Vectors = cells.reshape(-1, features)[np.sort(rows)].astype(np.float32)
    return drawn


def _whitening(cells: Vectors) -> tuple[Vectors, Vectors]:
    """The mean of cells (n, F), and the matrix after which they have variance 1 and no correlation."""
    mean = cells.mean(0)
    variances, directions = np.linalg.eigh(np.cov(cells, rowvar=False, dtype=np.float64))
    whitening = directions * (variances.clip(0) + FLOOR * variances.mean()) ** -0.5
    return mean, whitening.astype(np.float32)


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

"""k-means for pseudo-classes and for the comparison with normal images."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def cluster(points: npt.NDArray[np.float32], clusters: int, seed: int) -> Any:
    """k-means of `points` (n, D): scikit-learn's fitted estimator."""
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(
        clusters, init="random", n_init=1, max_iter=20, batch_size=4096, random_state=seed, reassignment_ratio=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct points than clusters are fine
        return kmeans.fit(points)

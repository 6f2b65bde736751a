"""Pseudo-classes: clusters of the normal images that stand in for labels.

Telling a thousand clusters apart teaches the encoder what distinguishes one normal image from the next, which
reconstruction alone does not (Caron et al., DeepCluster, ECCV 2018). The borders between clusters are arbitrary, and
several clusterings from different starts average over them.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.models.clustering import cluster
from vaeguard.settings.model import PSEUDO_HEADS

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Rows = npt.NDArray[np.int64]

COMPONENTS = 50
SIDE = 32
"""The most pixels a side to which images are averaged down: clusters depend on the whole image, not on detail."""
SAMPLE = 10_000
PART_ROWS = 1024


def pseudo_labels(
    images: npt.NDArray[Any], training: Rows, others: Rows, clusters: int, seed: int
) -> tuple[Rows, Rows]:
    """Cluster the rows `training` of `images` and find the nearest clusters of the rows `others`.

    k-means on at most 50 principal components of unit length, so that contrast counts less than shape.

    Parameters
    ----------
    images : uint8 (N, C, H, W)
        Pixels; may be a memory map.
    training, others : int64
        Row numbers.
    clusters : int
        Clusters of each clustering.
    seed : int
        The seed of the sample, the starts and the batches.

    Returns
    -------
    int64 (len(training), PSEUDO_HEADS) and int64 (len(others), PSEUDO_HEADS)
        Numbers from 0 to below `clusters`, one column per clustering.
    """
    classes = PseudoClasses(images, training, clusters, seed)
    return classes.of_rows(images, training), classes.of_rows(images, others)


class PseudoClasses:
    """Clusterings of the rows `training` of `images`; the parameters are those of `pseudo_labels`."""

    def __init__(self, images: npt.NDArray[Any], training: Rows, clusters: int, seed: int) -> None:
        from sklearn.decomposition import PCA

        sample = np.random.default_rng(seed).permutation(training)[:SAMPLE]
        small = np.concatenate([_small(images, part) for part in _parts(np.sort(sample))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # images that are all the same are no fault here
            self._pca = PCA(min(COMPONENTS, *small.shape), svd_solver="randomized", random_state=seed).fit(small)
            points = self._directions(images, training)
            self._clusterings = [cluster(points, clusters, seed + head) for head in range(PSEUDO_HEADS)]

    def of(self, pixels: npt.NDArray[Any]) -> Rows:
        """The pseudo-classes of images (n, C, H, W), (n, PSEUDO_HEADS)."""
        return self._nearest(self._directions(pixels, np.arange(len(pixels))))

    def _nearest(self, points: Floats) -> Rows:
        return np.stack([clustering.predict(points) for clustering in self._clusterings], 1).astype(np.int64)

    def of_rows(self, images: npt.NDArray[Any], rows: Rows) -> Rows:
        """The pseudo-classes of these rows of `images`."""
        return self._nearest(self._directions(images, rows))

    def _directions(self, images: npt.NDArray[Any], rows: Rows) -> Floats:
        """The images as points of unit length among the principal components, float32 (len(rows), components)."""
        points = np.concatenate([self._pca.transform(_small(images, part)) for part in _parts(rows)])
        lengths = np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-6)
        directions: Floats = (points / lengths).astype(np.float32)
        return directions


def _small(images: npt.NDArray[Any], rows: Rows) -> Floats:
    """Flat images in [0, 1], averaged over blocks of pixels where they are larger than `SIDE`."""
    pixels = images[rows]
    high, wide = (-(-size // SIDE) for size in pixels.shape[2:])
    height, width = pixels.shape[2] // high * high, pixels.shape[3] // wide * wide
    blocks = pixels[:, :, :height, :width].reshape(*pixels.shape[:2], height // high, high, width // wide, wide)
    flat: Floats = blocks.mean((3, 5), dtype=np.float32).reshape(len(rows), -1) / 255
    return flat


def _parts(rows: Rows) -> list[Rows]:
    """A few rows at a time: images may be large, and a memory map may be larger than memory."""
    return np.array_split(rows, max(1, -(-len(rows) // PART_ROWS)))

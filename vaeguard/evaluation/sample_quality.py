"""How close sampled images are to real ones: the Fréchet distance between the features of a small classifier."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[Any]
    Doubles = npt.NDArray[np.float64]

HIDDEN = (256, 64)
"""Hidden units of the judge; those of the last layer are the features."""
LONGEST = 32
"""Larger images are reduced to so many pixels a side, which suffices for a small judge and saves memory."""
PART = 256
"""So many images are reduced at a time."""


class SampleJudge:
    """A small classifier, independent of the VAE: scikit-learn's multilayer perceptron.

    Parameters
    ----------
    images : uint8 or float (N, C, H, W)
        Real images; floats lie in [0, 1].
    labels : int or str (N,)
        Their classes, at least two.
    seed : int
        Seed of the weights and of the order of images.
    """

    def __init__(self, images: Pixels, labels: npt.ArrayLike, seed: int = 0) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        self.network = MLPClassifier(HIDDEN, batch_size=min(128, len(images)), max_iter=30, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # thirty epochs suffice
            self.network.fit(_rows(images), np.asarray(labels))

    def classes(self, images: Pixels) -> npt.NDArray[Any]:
        """The predicted class of each image, (N,)."""
        predicted: npt.NDArray[Any] = self.network.predict(_rows(images))
        return predicted

    def features(self, images: Pixels) -> Doubles:
        """Activations of the last hidden layer, (N, 64)."""
        values = _rows(images)
        layers = zip(self.network.coefs_[:-1], self.network.intercepts_[:-1], strict=True)
        for weights, bias in layers:
            values = np.maximum(values @ weights + bias, 0)
        return values.astype(np.float64)


def frechet_distance(first: Doubles, second: Doubles) -> float:
    """Squared Fréchet distance between normal distributions fitted to two sets of features, (N, D) and (M, D).

    It is the Fréchet inception distance (Heusel et al., "GANs trained by a two time-scale update rule", NeurIPS 2017)
    without the Inception network, which knows only photographs. The distance falls with the number of images: compare
    equal numbers, many times D.
    """
    means = first.mean(0), second.mean(0)
    spreads = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # The trace of the square root of a product of covariances is the sum of the roots of the product's eigenvalues,
    # which are real up to rounding.
    roots = np.sqrt(np.linalg.eigvals(spreads[0] @ spreads[1]).real.clip(min=0))
    traces = np.trace(spreads[0]) + np.trace(spreads[1])
    return float(np.square(means[0] - means[1]).sum() + traces - 2 * roots.sum())


def _rows(images: Pixels) -> npt.NDArray[np.float32]:
    """Images as rows of float32 in [0, 1], reduced if longer than `LONGEST`."""
    import torch
    import torch.nn.functional as F

    height, width = images.shape[2:]
    scale = min(1.0, LONGEST / max(height, width))
    size = max(1, round(scale * height)), max(1, round(scale * width))
    rows = np.empty((len(images), images.shape[1] * size[0] * size[1]), np.float32)
    for at in range(0, len(images), PART):
        part = images[at : at + PART]
        unit = part.astype(np.float32) / np.float32(255 if part.dtype == np.uint8 else 1)
        if scale < 1:
            unit = F.adaptive_avg_pool2d(torch.from_numpy(unit), size).numpy()
        rows[at : at + PART] = unit.reshape(len(part), -1)
    return rows

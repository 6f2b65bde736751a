"""How near drawn images come to real ones: the Fréchet distance between the features of a small classifier."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[Any]
    Doubles = npt.NDArray[np.float64]

HIDDEN = (256, 64)
"""Units of the judge; its last ones are the features."""


class Judge:
    """A small classifier of its own, scikit-learn's multilayer perceptron, which knows nothing of the VAE.

    Parameters
    ----------
    images : uint8 or float (N, C, H, W)
        Real ones; floats lie in [0, 1].
    labels : int or str (N,)
        Their classes, at least two.
    seed : int
        Of its weights and its order.
    """

    def __init__(self, images: Pixels, labels: npt.ArrayLike, seed: int = 0) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        self.network = MLPClassifier(HIDDEN, batch_size=min(128, len(images)), max_iter=30, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # thirty epochs are the plan
            self.network.fit(_flat(images), np.asarray(labels))

    def classes(self, images: Pixels) -> npt.NDArray[Any]:
        """The class that it sees in each of the images, (N,)."""
        found: npt.NDArray[Any] = self.network.predict(_flat(images))
        return found

    def features(self, images: Pixels) -> Doubles:
        """Activations of its last hidden layer, (N, 64)."""
        values = _flat(images).astype(np.float64)
        layers = zip(self.network.coefs_[:-1], self.network.intercepts_[:-1], strict=True)
        for weights, bias in layers:
            values = np.maximum(values @ weights + bias, 0)
        return values


def frechet_distance(first: Doubles, second: Doubles) -> float:
    """Squared Fréchet distance between normal distributions fitted to two sets of features, (N, D) and (M, D).

    As the Fréchet inception distance (Heusel et al., "GANs trained by a two time-scale update rule", NeurIPS 2017),
    whose network knows photographs only. It depends on the number of images: compare equal ones.
    """
    means = first.mean(0), second.mean(0)
    spreads = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # The trace of the root of a product of two covariances: the roots of its eigenvalues, real but for rounding.
    roots = np.sqrt(np.linalg.eigvals(spreads[0] @ spreads[1]).real.clip(min=0))
    traces = np.trace(spreads[0]) + np.trace(spreads[1])
    return float(np.square(means[0] - means[1]).sum() + traces - 2 * roots.sum())


def _flat(images: Pixels) -> Pixels:
    flat: Pixels = images.reshape(len(images), -1)
    return flat / np.float32(255) if flat.dtype == np.uint8 else flat

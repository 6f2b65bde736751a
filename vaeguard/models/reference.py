"""Statistics of normal training images inside the model, for the terms that compare with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from vaeguard.models.clustering import cluster
from vaeguard.models.sums import row_mean, row_sum

if TYPE_CHECKING:
    from torch import Tensor


DIRECTIONS = 128
"""The most main directions of a Gaussian."""
FEATURE_DIRECTIONS = 64
"""The most directions in which features are compared."""
IMAGES = 10_000
"""The most training images that the statistics are fitted on."""
CENTRES = 2000
"""The most clusters of normal images."""
IMAGES_PER_CENTRE = 3
PAIRS = 3000
"""The most images whose nearest neighbours are searched."""
EXACT_VALUES = 1500
"""Main directions of more values come from a randomised decomposition, since the exact one takes minutes."""
GRID = 2
"""Activations are averaged to a grid of so many rows and columns."""


class LowRankGaussian(nn.Module):
    """A Gaussian of D values: its main directions, and one variance for all others (Tipping & Bishop, 1999).

    The full covariance of thousands of values takes megabytes in a model file; its main directions hold nearly all of
    the variance.
    """

    def __init__(self, values: int) -> None:
        super().__init__()
        count = max(1, min(DIRECTIONS, values - 1))
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("directions", torch.zeros(values, count))
        self.register_buffer("precisions", torch.ones(count))
        self.register_buffer("rest_precision", torch.ones(()))

    mean: Tensor
    directions: Tensor
    precisions: Tensor
    rest_precision: Tensor

    def fit(self, values: Tensor) -> None:
        """Fit to `values` of normal images, shape (n, D)."""
        values = values.double().cpu()
        count, size = len(self.precisions), values.shape[1]
        self.mean.copy_(values.mean(0))
        centred = values - values.mean(0)
        vectors, variances = _main_directions(centred, count)
        total = float(centred.square().sum()) / len(values)
        # Without a floor, a value that hardly varies among few images makes every new image infinitely strange.
        floor = 1e-4 * total / size + 1e-12
        rest = max((total - float(variances.sum())) / (size - count), floor) if size > count else floor
        self.directions.copy_(vectors)
        self.precisions.copy_(1 / variances.clamp(min=rest))
        self.rest_precision.fill_(1 / rest)

    def forward(self, values: Tensor) -> Tensor:
        """Squared Mahalanobis distance of `values` (N, D), per value: about 1 for normal images; shape (N,)."""
        centred = values - self.mean
        along = centred @ self.directions
        # A difference of squares would lose digits.
        rest = row_sum((centred - along @ self.directions.T).square())
        return (row_sum(along.square() * self.precisions) + rest * self.rest_precision) / len(self.mean)


def _main_directions(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The directions of largest variance of `centred` (n, D), shape (D, count), and the variances along them."""
    if centred.shape[1] > EXACT_VALUES:
        _, lengths, vectors = torch.svd_lowrank(centred, count + 16, niter=4)
        missing = max(0, count - len(lengths))  # fewer images than directions
        vectors, variances = F.pad(vectors, (0, missing)), F.pad(lengths.square() / len(centred), (0, missing))
        return vectors[:, :count], variances[:count]
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return vectors.flip(1)[:, :count], variances.flip(0)[:count]


class Neighbours(nn.Module):
    """The distance to the nearest of the centres of clusters of normal images, each of D values.

    Unlike the images themselves, centres make the comparison as cheap as a layer, and reveal no image of the user.
    """

    def __init__(self, centres: int, values: int) -> None:
        super().__init__()
        # Centres are relative to their mean, since the squares of small numbers lose fewer digits.
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("centres", torch.zeros(centres, values))
        self.register_buffer("squares", torch.zeros(centres))

    mean: Tensor
    centres: Tensor
    squares: Tensor

    def fit(self, values: Tensor, seed: int) -> None:
        """Cluster `values` of normal images, shape (n, D); n is at least the number of centres."""
        centres = cluster(values.cpu().numpy(), len(self.centres), seed).cluster_centers_
        self.mean.copy_(torch.from_numpy(centres.mean(0)))
        self.centres.copy_(torch.from_numpy(centres - centres.mean(0)))
        self.squares.copy_(self.centres.square().sum(1))

    def forward(self, values: Tensor) -> Tensor:
        """Euclidean distance of `values` (N, D) to the nearest centre, shape (N,)."""
        values = values - self.mean
        nearest = torch.addmm(self.squares, values, self.centres.T, alpha=-2).argmin(1)
        # Expanded squares lose digits if distances are small: they suffice to choose a centre, not to measure.
        return row_sum((values - self.centres[nearest]).square()).sqrt()


class Reference(nn.Module):
    """Statistics of normal training images, fitted once after training; part of the inference graph.

    Parameters
    ----------
    pixels : (C, H, W)
        Shape of an image.
    sizes : (int, int, int)
        Sizes of `features_of`, `movement_of` and of the latent.
    centres : int
        Number of clusters of normal images; see `centres_for`.
    """

    def __init__(self, pixels: tuple[int, int, int], sizes: tuple[int, int, int], centres: int) -> None:
        super().__init__()
        features, movements, latent = sizes
        directions = min(FEATURE_DIRECTIONS, features)
        self.register_buffer("difficulty", torch.ones(pixels))
        self.register_buffer("projection", torch.zeros(features, directions))
        self.movements = LowRankGaussian(movements)
        self.features = Neighbours(centres, directions)
        self.latents = Neighbours(centres, latent)

    difficulty: Tensor
    projection: Tensor

    def fit(self, squared_error: Tensor, features: Tensor, movements: Tensor, means: Tensor, seed: int) -> None:
        """Fit to n normal training images.

        `squared_error` (C, H, W) is their mean error by pixel, and `means` (n, latent) are their posterior means;
        `features_of` and `movement_of` give `features` and `movements`, (n, D).
        """
        # Without the added terms, the first change of a constant pixel would outweigh all other pixels.
        self.difficulty.copy_(squared_error + 0.1 * squared_error.mean() + 1e-6)
        self.movements.fit(movements)
        self.projection.copy_(neighbour_directions(features, self.projection.shape[1]))
        self.features.fit(features @ self.projection, seed)
        self.latents.fit(_direction(means), seed)

    def error_ratio(self, squared_error: Tensor) -> Tensor:
        """Squared error (N, C, H, W) relative to each pixel's mean among normal images, mean over pixels, (N,)."""
        return row_mean(squared_error / self.difficulty)

    def movement_distance(self, movements: Tensor) -> Tensor:
        """Squared Mahalanobis distance of `movements` (N, D) from those of normal images, per value, shape (N,)."""
        distance: Tensor = self.movements(movements)
        return distance

    def feature_distance(self, features: Tensor) -> Tensor:
        """Distance of `features` (N, D) from the nearest cluster of normal images, shape (N,)."""
        distance: Tensor = self.features(features @ self.projection)
        return distance

    def latent_distance(self, mean: Tensor) -> Tensor:
        """Distance of the direction of `mean` (N, latent) from the nearest cluster of normal images, shape (N,)."""
        distance: Tensor = self.latents(_direction(mean))
        return distance


def _direction(values: Tensor) -> Tensor:
    """`values` (N, D) at unit length."""
    return values / row_sum(values.square()).sqrt().clamp(min=1e-12).unsqueeze(1)


def centres_for(images: int) -> int:
    """The number of clusters for so many training images."""
    return max(1, min(CENTRES, min(images, IMAGES) // IMAGES_PER_CENTRE))


def neighbour_directions(features: Tensor, count: int) -> Tensor:
    """Directions in which normal images differ much, but nearest neighbours little; shape (D, count).

    Features (n, D) are whitened by the differences between nearest neighbours, which are taken for chance. The result
    is the directions of largest variance: a discriminant analysis (Fisher, 1936) with neighbours in place of classes.
    """
    features = features.double().cpu()
    some = features[:PAIRS]
    distances = torch.cdist(some, features)
    distances[torch.arange(len(some)), torch.arange(len(some))] = torch.inf
    apart = some - features[distances.argmin(1)]
    variances, vectors = torch.linalg.eigh(apart.T @ apart / len(some))
    variances = variances.clamp(min=0)
    whitening = vectors / (variances + 0.05 * variances.mean() + 1e-12).sqrt()
    centred = (features - features.mean(0)) @ whitening
    rotation = torch.linalg.eigh(centred.T @ centred / len(features)).eigenvectors.flip(1)[:, :count]
    directions: Tensor = whitening @ rotation
    return directions.float()


def features_of(hidden: list[Tensor]) -> Tensor:
    """The encoder's last hidden activations, averaged down to a grid of 2x2, shape (N, D)."""
    return _pooled(hidden[-1])


def movement_of(hidden: list[Tensor], again: list[Tensor], means: Tensor, means_again: Tensor) -> Tensor:
    """The movement of all hidden activations (on a grid of 2x2) and of the posterior mean on re-encoding, (N, D)."""
    moved = [_pooled(a - b) for a, b in zip(hidden, again, strict=True)]
    return torch.cat([*moved, means - means_again], 1)


def _pooled(values: Tensor) -> Tensor:
    if values.ndim == 4 and max(values.shape[2:]) > GRID:
        # Windows of an odd size overlap, so that any grid becomes 2x2 (or stays 1 wide).
        kernel = [-(-size // GRID) for size in values.shape[2:]]
        stride = [max(1, size // GRID) for size in values.shape[2:]]
        values = F.avg_pool2d(values, kernel, stride)
    return values.flatten(1)

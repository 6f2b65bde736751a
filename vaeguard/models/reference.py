"""What normal looks like inside the model: statistics of the normal training images that terms compare with."""

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
FEATURE_DIRECTIONS = 64
IMAGES = 10_000
"""How many training images, at most, the statistics are taken from."""
CENTRES, IMAGES_PER_CENTRE = 2000, 3
PAIRS = 3000
EXACT_VALUES = 1500
"""Of more values the main directions are found by a randomised decomposition: the exact one takes minutes."""
GRID = 2


class LowRankGaussian(nn.Module):
    """A Gaussian of D values: its main directions, and one variance for all others (Tipping & Bishop, 1999).

    Full covariances of thousands of values take megabytes in a model file; the main directions hold nearly all of it.
    """

    def __init__(self, values: int) -> None:
        super().__init__()
        kept = max(1, min(DIRECTIONS, values - 1))
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("directions", torch.zeros(values, kept))
        self.register_buffer("precisions", torch.ones(kept))
        self.register_buffer("rest_precision", torch.ones(()))

    mean: Tensor
    directions: Tensor
    precisions: Tensor
    rest_precision: Tensor

    def fit(self, values: Tensor) -> None:
        """Fit to `values` of normal images, shape (n, D)."""
        values = values.double().cpu()
        kept, size = len(self.precisions), values.shape[1]
        self.mean.copy_(values.mean(0))
        centred = values - values.mean(0)
        vectors, variances = _main_directions(centred, kept)
        total = float(centred.square().sum()) / len(values)
        # A value that hardly varies among few images would make every new image infinitely strange.
        floor = 1e-4 * total / size + 1e-12
        rest = max((total - float(variances.sum())) / (size - kept), floor) if size > kept else floor
        self.directions.copy_(vectors)
        self.precisions.copy_(1 / variances.clamp(min=rest))
        self.rest_precision.fill_(1 / rest)

    def forward(self, values: Tensor) -> Tensor:
        """Squared Mahalanobis distance of `values` (N, D), per value: about 1 for normal images; shape (N,)."""
        centred = values - self.mean
        along = centred @ self.directions
        # Not as a difference of squares, which cancels digits.
        rest = row_sum((centred - along @ self.directions.T).square())
        return (row_sum(along.square() * self.precisions) + rest * self.rest_precision) / len(self.mean)


def _main_directions(centred: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """The `kept` directions of largest variance of `centred` (n, D), shape (D, kept), and the variances along them."""
    if centred.shape[1] > EXACT_VALUES:
        _, lengths, vectors = torch.svd_lowrank(centred, kept + 16, niter=4)
        missing = max(0, kept - len(lengths))  # fewer images than directions
        vectors, variances = F.pad(vectors, (0, missing)), F.pad(lengths.square() / len(centred), (0, missing))
        return vectors[:, :kept], variances[:kept]
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return vectors.flip(1)[:, :kept], variances.flip(0)[:kept]


class Neighbours(nn.Module):
    """The distance to where normal images lie: the centres of so many clusters of them, each of D values.

    Centres instead of the images themselves make the comparison as cheap as a layer, and hold no image of the user's.
    """

    def __init__(self, centres: int, values: int) -> None:
        super().__init__()
        # Relative to their mean: squares of small numbers lose fewer digits.
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("centres", torch.zeros(centres, values))
        self.register_buffer("squares", torch.zeros(centres))

    mean: Tensor
    centres: Tensor
    squares: Tensor

    def fit(self, values: Tensor, seed: int) -> None:
        """Cluster `values` of normal images, shape (n, D), n no fewer than the centres."""
        found = cluster(values.cpu().numpy(), len(self.centres), seed).cluster_centers_
        self.mean.copy_(torch.from_numpy(found.mean(0)))
        self.centres.copy_(torch.from_numpy(found - found.mean(0)))
        self.squares.copy_(self.centres.square().sum(1))

    def forward(self, values: Tensor) -> Tensor:
        """Euclidean distance of `values` (N, D) to the nearest centre, shape (N,)."""
        values = values - self.mean
        nearest = torch.addmm(self.squares, values, self.centres.T, alpha=-2).argmin(1)
        # The squares of the sum lose digits where distances are small: good enough to choose by, not to measure by.
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
        How many clusters of normal images new ones are compared with; see `centres_for`.
    """

    def __init__(self, pixels: tuple[int, int, int], sizes: tuple[int, int, int], centres: int) -> None:
        super().__init__()
        features, movements, latent = sizes
        kept = min(FEATURE_DIRECTIONS, features)
        self.register_buffer("difficulty", torch.ones(pixels))
        self.register_buffer("projection", torch.zeros(features, kept))
        self.movements = LowRankGaussian(movements)
        self.features = Neighbours(centres, kept)
        self.latents = Neighbours(centres, latent)

    difficulty: Tensor
    projection: Tensor

    def fit(self, squared_error: Tensor, features: Tensor, movements: Tensor, means: Tensor, seed: int) -> None:
        """Fit to n normal training images.

        `squared_error` (C, H, W) is their mean error by pixel, `means` (n, latent) their posterior means, and the
        other two are (n, ...) as the functions of this module return them.
        """
        # A pixel that is always the same would otherwise outweigh all others at its first change.
        self.difficulty.copy_(squared_error + 0.1 * squared_error.mean() + 1e-6)
        self.movements.fit(movements)
        self.projection.copy_(neighbour_directions(features, self.projection.shape[1]))
        self.features.fit(features @ self.projection, seed)
        self.latents.fit(_direction(means), seed)

    def error_ratio(self, squared_error: Tensor) -> Tensor:
        """Squared error (N, C, H, W) against each pixel's own mean among normal images, mean over pixels, (N,)."""
        return row_mean(squared_error / self.difficulty)

    def movement_distance(self, movements: Tensor) -> Tensor:
        """Squared Mahalanobis distance of `movements` (N, D) from normal ones, per value, shape (N,)."""
        distance: Tensor = self.movements(movements)
        return distance

    def feature_distance(self, features: Tensor) -> Tensor:
        """Distance of `features` (N, D) from the nearest cluster of normal ones, shape (N,)."""
        distance: Tensor = self.features(features @ self.projection)
        return distance

    def latent_distance(self, mean: Tensor) -> Tensor:
        """Distance between the direction of `mean` (N, latent) and the nearest cluster of normal ones, shape (N,)."""
        distance: Tensor = self.latents(_direction(mean))
        return distance


def _direction(values: Tensor) -> Tensor:
    """`values` (N, D) at unit length."""
    return values / row_sum(values.square()).sqrt().clamp(min=1e-12).unsqueeze(1)


def centres_for(images: int) -> int:
    """How many clusters of so many training images are compared with."""
    return max(1, min(CENTRES, min(images, IMAGES) // IMAGES_PER_CENTRE))


def neighbour_directions(features: Tensor, kept: int) -> Tensor:
    """Directions in which normal images differ much, yet nearest neighbours little; shape (D, kept).

    Features (n, D) are whitened by how an image differs from its nearest neighbour, what varies by chance, and then the
    directions of largest variance are kept: a discriminant analysis (Fisher, 1936) with neighbours in place of classes.
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
    rotation = torch.linalg.eigh(centred.T @ centred / len(features)).eigenvectors.flip(1)[:, :kept]
    directions: Tensor = whitening @ rotation
    return directions.float()


def features_of(hidden: list[Tensor]) -> Tensor:
    """The encoder's last hidden activations, averaged down to a grid of 2x2, shape (N, D)."""
    return _pooled(hidden[-1])


def movement_of(hidden: list[Tensor], again: list[Tensor], means: Tensor, means_again: Tensor) -> Tensor:
    """How every hidden activation (on a grid of 2x2) and the posterior mean move on re-encoding, shape (N, D)."""
    moved = [_pooled(a - b) for a, b in zip(hidden, again, strict=True)]
    return torch.cat([*moved, means - means_again], 1)


def _pooled(values: Tensor) -> Tensor:
    if values.ndim == 4 and max(values.shape[2:]) > GRID:
        # Overlapping where the size is odd, so that any grid becomes 2x2 (or stays 1 wide).
        kernel = [-(-size // GRID) for size in values.shape[2:]]
        stride = [max(1, size // GRID) for size in values.shape[2:]]
        values = F.avg_pool2d(values, kernel, stride)
    return values.flatten(1)

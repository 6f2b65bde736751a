"""The estimator of noise: the strength of the noise in each cell of a photograph, and the precision of the estimate.

Texture, compression and clipped pixels mislead any rule about quiet blocks, as they look like noise or hide it. A small
network, trained on many photographs with and without noise, learns which cells give evidence. Its inputs are energies
of filtered images at three scales, from which the strength of noise follows easily.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from vaeguard.restoration.networks.direct import noise_levels
from vaeguard.restoration.noise import CELL, FLOOR, OPPONENT

if TYPE_CHECKING:
    from torch import Tensor

LOG_PRECISION_RANGE = (-4.0, 6.0)
FILTERS = (5, 5, 4)
"""The numbers of filters at full, half and quarter resolution."""
FILTER_SIDE = 5
LEAST_ENERGY = 0.1
"""The constant added to energies before their logarithm, in squared levels of 0 to 255."""
WIDTH = 48
NEARLY_BLACK = 1.5 / 255
NEARLY_WHITE = 253.5 / 255
HAAR = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) / 2


class NoiseEstimator(nn.Module):
    """Estimates the noise of each cell of an image.

    Parameters
    ----------
    planes : int
        1 for grey images, 3 for red, green and blue.
    """

    def __init__(self, planes: int = 1) -> None:
        super().__init__()
        self.planes = planes
        self.levels = noise_levels(planes)
        self.filters = nn.ModuleList(
            nn.Conv2d(1, count, FILTER_SIDE, padding=FILTER_SIDE // 2, bias=False) for count in FILTERS
        )
        with torch.no_grad():  # one filter of each scale is the diagonal difference that classical estimators use
            for layer in self.filters:
                filters = cast("nn.Conv2d", layer).weight
                filters[0] = 0
                filters[0, 0, 2:4, 2:4] = HAAR
        features = 2 * planes * sum(FILTERS) + planes + 2
        self.enter = nn.Conv2d(features, WIDTH, 1)
        self.near = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3))
        self.leave = nn.Conv2d(WIDTH, 2 * self.levels, 1)
        self.straight = nn.Conv2d(features, 2 * self.levels, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate the noise of `image`.

        Parameters
        ----------
        image : Tensor
            Shape (N, planes, H, W), 0 to 1; H and W multiples of 8.

        Returns
        -------
        log_deviation : Tensor
            The logarithm of the deviation plus `FLOOR`, in levels of 0 to 255, shape (N, 1 or 2, H / 8, W / 8); in
            colour, for brightness and for differences of colours.
        log_precision : Tensor
            The logarithm of the precision, 1 over the expected squared error of `log_deviation`, in the same shape.
        """
        features = self._features(image)
        inner = F.relu(self.enter(features))
        for layer in self.near:
            inner = inner + F.relu(layer(inner))
        log_deviation, log_precision = (self.leave(inner) + self.straight(features)).chunk(2, 1)
        return log_deviation, log_precision.clamp(*LOG_PRECISION_RANGE)

    def _features(self, image: Tensor) -> Tensor:
        """The features of each cell: logarithms of energies, brightness, and the shares of clipped pixels."""
        planes = image if self.planes == 1 else F.conv2d(image, torch.from_numpy(OPPONENT)[..., None, None])
        features = [
            F.avg_pool2d(planes, CELL),
            F.avg_pool2d((image < NEARLY_BLACK).float().mean(1, keepdim=True), CELL),
            F.avg_pool2d((image > NEARLY_WHITE).float().mean(1, keepdim=True), CELL),
        ]
        for scale, layer in enumerate(self.filters):
            side = CELL >> scale
            apart = planes.flatten(0, 1)[:, None]
            energy = F.avg_pool2d(self._filtered(apart, cast("nn.Conv2d", layer)).square(), side // 2)
            cells = _logarithm(F.avg_pool2d(energy, 2)), F.avg_pool2d(_logarithm(energy), 2)
            features += [cell.reshape(image.shape[0], -1, *cell.shape[2:]) for cell in cells]
            planes = F.avg_pool2d(planes, 2)
        return torch.cat(features, 1)

    def _filtered(self, plane: Tensor, layer: nn.Conv2d) -> Tensor:
        """`plane`, in levels of 0 to 255, after filters of mean 0."""
        weight = _balanced(layer.weight) if self.training else layer.weight
        return F.conv2d(255 * plane, weight, padding=layer.padding)

    def train(self, mode: bool = True) -> NoiseEstimator:
        """Switch between training and evaluation; evaluation and export need filters whose own mean is 0."""
        if not mode:
            with torch.no_grad():
                for layer in self.filters:
                    cast("nn.Conv2d", layer).weight.copy_(_balanced(cast("nn.Conv2d", layer).weight))
        return super().train(mode)


def _balanced(filters: Tensor) -> Tensor:
    return filters - filters.mean((2, 3), keepdim=True)


def _logarithm(energy: Tensor) -> Tensor:
    """Logarithm of the root of an energy."""
    return 0.5 * (energy + LEAST_ENERGY).log()


def estimator_loss(estimator: NoiseEstimator, image: Tensor, deviation: Tensor) -> Tensor:
    """Gaussian negative log-likelihood of each cell, plus the squared error of the precision-weighted mean.

    Parameters
    ----------
    estimator : NoiseEstimator
        The network in training.
    image : Tensor
        Shape (N, planes, H, W).
    deviation : Tensor
        The deviation of the noise in levels of 0 to 255, shape (N, levels, H / 8, W / 8).
    """
    target = (deviation + FLOOR).log()
    log_deviation, log_precision = estimator(image)
    precision = log_precision.exp()
    nats = 0.5 * (precision * (log_deviation - target).square() - log_precision).mean()
    missed = ((precision * (log_deviation - target)).sum((2, 3)) / precision.sum((2, 3))).square().mean()
    loss: Tensor = nats + 5 * missed
    return loss

"""Spots: the regions of a heatmap that normal images hardly ever have, with their place, size and p-value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Heatmap = npt.NDArray[np.floating]

SPOT_RATE = 0.2
"""The share of normal images that may have such a spot: it is an aid to look at images that a p-value has flagged."""
MOST_SPOTS = 20
"""The most spots of an image that are listed."""
MOST_PEAKS = 1000
"""The most peaks of calibration images that a model keeps."""
TIE = 1e-4
"""Peaks with a smaller relative difference are ties, so that the rounding of another engine does not rank them."""
LARGEST = 1e25
"""Larger values weigh no more in the centre of a spot, so that nothing overflows."""


@dataclass(frozen=True)
class Spot:
    """A region of an image that is stranger than normal images are anywhere, but for a few of them.

    Attributes
    ----------
    rank : int
        1 for the strangest spot of its image.
    x, y : float
        Its centre, weighted by strangeness, in pixels of the original image from its left and upper edge.
    left, top, width, height : int
        The smallest box around it, in pixels of the original image.
    area : int
        Pixels of the original image that it covers.
    peak : float
        The largest value of the heatmap in it.
    p_value : float
        (1 + k) / (1 + n), where k of the n calibration images have a heatmap that is as strange somewhere.
    """

    rank: int
    x: float
    y: float
    left: int
    top: int
    width: int
    height: int
    area: int
    peak: float
    p_value: float


def find_spots(
    heatmap: Heatmap, peaks: npt.NDArray[np.float32], scale: float | None = None, size: tuple[int, int] | None = None
) -> tuple[tuple[Spot, ...], int]:
    """The spots of a heatmap, strangest first and at most `MOST_SPOTS`, and how many there are in all.

    A spot has a peak that at most `SPOT_RATE` of normal images reach anywhere: its p-value is at most that, or the
    smallest that there is if the calibration images are too few for it. It ends where its strangeness is like that of
    most normal pixels.

    Parameters
    ----------
    heatmap : float (H, W)
        Strangeness of each pixel, 0 and up.
    peaks : float32 (n,)
        The largest value of the heatmap of each calibration image, sorted. Without any there are no spots.
    scale : float or None
        The value that hardly any pixel of normal images reaches, where a spot ends.
    size : (height, width) or None
        Of the original image in pixels; None is that of the heatmap.
    """
    from scipy.ndimage import find_objects, label

    if not len(peaks):
        return (), 0
    stranger = max(0, int(SPOT_RATE * (1 + len(peaks)) + TIE) - 1)
    least = float(peaks[-1 - stranger]) * (1 + TIE)
    labels, _ = label(heatmap >= min(least, scale or least), np.ones((3, 3)))
    boxes = find_objects(labels)
    regions = []
    for number in np.unique(labels[heatmap > least]).tolist():
        box = boxes[number - 1]
        heat = np.where(labels[box] == number, heatmap[box], 0)
        regions.append((float(heat.max()), box, heat))
    regions.sort(key=lambda region: -region[0])
    stretch = [own / seen for own, seen in zip(size or heatmap.shape, heatmap.shape, strict=True)]
    spots = [_spot(rank, box, heat, stretch, peaks) for rank, (_, box, heat) in enumerate(regions[:MOST_SPOTS], 1)]
    return tuple(spots), len(regions)


def _spot(
    rank: int, box: tuple[slice, ...], heat: Heatmap, stretch: Sequence[float], peaks: npt.NDArray[np.float32]
) -> Spot:
    """The spot with the strangeness `heat` in its box and 0 outside of it; a pixel there is `stretch` original ones."""
    weights = heat.clip(max=LARGEST).astype(np.float64)
    (top, left), (below, right) = (
        [int(rounded(edge * by)) for edge, by in zip(edges, stretch, strict=True)]
        for edges, rounded in (([part.start for part in box], np.floor), ([part.stop for part in box], np.ceil))
    )
    y, x = (
        float((weights.sum(1 - axis) @ (np.arange(length) + part.start + 0.5)) / weights.sum()) * by
        for axis, (length, part, by) in enumerate(zip(heat.shape, box, stretch, strict=True))
    )
    peak = float(str(np.float32(heat.max())))  # the fewest digits of float32
    stranger = len(peaks) - int(np.searchsorted(peaks, peak * (1 - TIE)))
    area = max(1, round(int(np.count_nonzero(heat)) * stretch[0] * stretch[1]))
    p_value = (1 + stranger) / (1 + len(peaks))
    return Spot(rank, round(x, 1), round(y, 1), left, top, right - left, below - top, area, peak, p_value)

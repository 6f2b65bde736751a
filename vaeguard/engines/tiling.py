"""Tiling: a large image goes through the graph tile by tile, and the results become those of the image.

Score and p-value are monotone in the strangeness of a tile, so the strangest tile decides: an image has the largest
score and terms of its tiles, and their smallest p-value. The ranks in the graph are those of the strangest tiles of
normal images. Pictures are blended where tiles overlap, with weights that fall towards the borders of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.data.split import spread_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import numpy.typing as npt

    from vaeguard.engines.inspection import Floats, Images
    from vaeguard.settings.model import ModelSpec

    Firsts = npt.NDArray[np.int64]
    """The first row and column of each tile, (N, 2)."""

PICTURES = ("restored", "heatmap")


@dataclass(frozen=True)
class Place:
    """Where a tile lies: its rows and columns, and the weights of these when pictures are blended."""

    rows: slice
    columns: slice
    weights: Floats

    @property
    def first(self) -> tuple[int, int]:
        """The first row and the first column."""
        return self.rows.start, self.columns.start

    @property
    def at(self) -> tuple[slice, slice]:
        """The index of the tile in the last two axes of an image."""
        return self.rows, self.columns


class Tiling:
    """The tiles of images of one shape; a model without tiles has one tile, the whole image.

    Attributes
    ----------
    places : list of Place
        The tiles, row by row.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._along = [_spans(side, *tiles) for side, tiles in zip(spec.shape[1:], spec.tiles, strict=True)]

    def __len__(self) -> int:
        return len(self._along[0]) * len(self._along[1])

    @property
    def places(self) -> Iterator[Place]:
        """The tiles, row by row."""
        for rows, down in self._along[0]:
            for columns, across in self._along[1]:
                yield Place(rows, columns, down[:, None] * across)

    def cut(self, image: Images, places: Iterable[Place] | None = None) -> tuple[Images, Firsts]:
        """The tiles of one image (C, H, W), or those at `places`, (n, C, h, w); and where each begins, see `Firsts`."""
        return _stacked([(image, place) for place in places or self.places])

    def spread(self, images: Images, rows: npt.NDArray[np.int64], most: int) -> tuple[Images, Firsts]:
        """At most so many tiles, spread over these `rows` of `images` (N, C, H, W), as from `cut`."""
        places = [*self.places]
        chosen = spread_out(len(rows) * len(places), most).tolist()
        return _stacked([(images[rows[number // len(places)]], places[number % len(places)]) for number in chosen])


def _stacked(cuts: list[tuple[Images, Place]]) -> tuple[Images, Firsts]:
    tiles: Images = np.stack([image[:, *place.at] for image, place in cuts])  # type: ignore[assignment]
    return tiles, np.array([place.first for _, place in cuts])


def _spans(side: int, first: list[int], tile: int) -> list[tuple[slice, Floats]]:
    """The pixels of each tile along a side, and their weights, which sum to 1 at every pixel of the image."""
    tent = np.minimum(np.arange(1, tile + 1), np.arange(tile, 0, -1)).astype(np.float32)
    total = np.zeros(side, np.float32)
    for start in first:
        total[start : start + tile] += tent
    return [(slice(start, start + tile), tent / total[start : start + tile]) for start in first]


def blank(outputs: Mapping[str, Floats]) -> None:
    """Fill the results of images with the values that any tile exceeds."""
    for name, values in outputs.items():
        values.fill({"p_value": np.inf, **dict.fromkeys(PICTURES, 0)}.get(name, -np.inf))


def add(outputs: Mapping[str, Floats], row: int, place: Place, results: Mapping[str, Floats]) -> None:
    """Add the results of the tile at `place`, each of one row, to those of the image `row`."""
    for name, values in results.items():
        if name in PICTURES:
            outputs[name][row, ..., *place.at] += values[0] * place.weights
        else:
            least = np.minimum if name == "p_value" else np.maximum
            outputs[name][row] = least(outputs[name][row], values[0])

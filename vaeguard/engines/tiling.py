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
class Tile:
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
    tiles : list of Tile
        The tiles, row by row.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._shape = spec.shape[1:]
        self._along = [_spans(side, *tiles) for side, tiles in zip(spec.shape[1:], spec.tiles, strict=True)]

    def __len__(self) -> int:
        return len(self._along[0]) * len(self._along[1])

    @property
    def tiles(self) -> Iterator[Tile]:
        """The tiles, row by row."""
        for rows, down in self._along[0]:
            for columns, across in self._along[1]:
                yield Tile(rows, columns, down[:, None] * across)

    def cut(self, image: Images, tiles: Iterable[Tile] | None = None) -> tuple[Images, Firsts]:
        """The pixels of all tiles of one image (C, H, W), or of some `tiles`, (n, C, h, w); and where each begins."""
        return _stacked([(image, tile) for tile in tiles or self.tiles])

    def joined(self, heatmaps: Floats) -> Floats:
        """The heatmap of an image (H, W) from those of all its tiles, (n, h, w)."""
        heatmap = np.zeros(self._shape, np.float32)
        for tile, values in zip(self.tiles, heatmaps, strict=True):
            heatmap[tile.at] += values * tile.weights
        return heatmap

    def spread(self, images: Images, rows: npt.NDArray[np.int64], most: int) -> tuple[Images, Firsts]:
        """At most so many tiles, spread over these `rows` of `images` (N, C, H, W), as from `cut`."""
        tiles = [*self.tiles]
        chosen = spread_out(len(rows) * len(tiles), most).tolist()
        return _stacked([(images[rows[number // len(tiles)]], tiles[number % len(tiles)]) for number in chosen])


def _stacked(cuts: list[tuple[Images, Tile]]) -> tuple[Images, Firsts]:
    pixels: Images = np.stack([image[:, *tile.at] for image, tile in cuts])  # type: ignore[assignment]
    return pixels, np.array([tile.first for _, tile in cuts])


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


def add(outputs: Mapping[str, Floats], row: int, tile: Tile, results: Mapping[str, Floats]) -> None:
    """Add the results of a tile, each of one row, to those of the image `row`."""
    for name, values in results.items():
        if name in PICTURES:
            outputs[name][row, ..., *tile.at] += values[0] * tile.weights
        else:
            least = np.minimum if name == "p_value" else np.maximum
            outputs[name][row] = least(outputs[name][row], values[0])

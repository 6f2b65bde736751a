"""Tiles: equal, overlapping parts of a large image, each of which goes through the graph by itself."""

from __future__ import annotations

from vaeguard.errors import UsageError

MOST_SIDE = 640
"""Larger images are cut into tiles if nothing else is asked for."""
OVERLAP = 64
"""Neighbouring tiles share so many pixels, so that a defect at the border of one lies well within the other."""
STEP = 16
"""A backbone halves its maps four times, so the sides of chosen tiles are multiples of this."""

Size = tuple[int, int]


def tile_for(size: Size) -> Size | None:
    """The tile for images of `size` (height, width): equal tiles of at most 640 pixels a side; None for smaller images.

    Neighbouring tiles overlap by at least 64 pixels, and hardly by more.
    """
    if max(size) <= MOST_SIDE:
        return None
    height, width = (_side_for(side) for side in size)
    return height, width


def _side_for(side: int) -> int:
    count = len(starts(side, min(side, MOST_SIDE), OVERLAP))
    if count == 1:
        return side
    least = -(-(side + (count - 1) * OVERLAP) // count)
    return -(-least // STEP) * STEP


def starts(side: int, tile: int, overlap: int) -> list[int]:
    """The first pixel of each tile along a side, evenly spaced; the last tile ends with the image."""
    last = side - tile
    count = -(-last // (tile - overlap))
    return [last * number // count for number in range(count)] + [last]


def settled_tile(tile: tuple[int, ...] | None, size: Size) -> Size | None:
    """The tile that is asked for, no larger than an image of `size` (height, width); None if it covers the image."""
    if not tile:
        return None
    height, width = (min(given, side) for given, side in zip((tile[0], tile[-1]), size, strict=True))
    return None if (height, width) == size else (height, width)


def settled_overlap(overlap: int | None, tile: Size) -> int:
    """The overlap that is asked for, or 64 pixels, or a quarter of a small tile.

    Raises
    ------
    UsageError
        The overlap is more than half of a tile, which would take many tiles.
    """
    if overlap is None:
        return min(OVERLAP, min(tile) // 4)
    if 2 * overlap > min(tile):
        raise UsageError(
            f"`overlap` is {overlap}, but it must be at most half of the smaller side of a tile, {min(tile)} pixels"
        )
    return overlap

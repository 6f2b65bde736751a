"""The paper under the ink: what a page would look like if nothing were written on it.

Ink is thin and dark, so among the brightest pixels of each small block and the median of the blocks around it there is
only paper, with its tint, its stains, its folds and its uneven light. A page divided by its paper is white with ink.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

BLOCKS_PER_INCH = 40
"""A block is about twice as wide as a stroke of print, and its neighbourhood as wide as two letters."""
NEIGHBOURHOOD = 7
PAPER_QUANTILE = 0.8
BRIGHTEST = 1.5
"""Of a page divided by its paper; what is brighter is glare."""
DARKEST_PAPER = 0.05
"""Of white; below, a page would be divided by noise."""
LEAST_DPI, MOST_DPI = 50, 2400
LEAST_SHARE = 0.35
"""Of the page's median paper: what is darker over more than a letter is a black area, and no paper."""
DIM, FILLED = 0.7, 0.5
"""A picture reaches as far as the page is darker than this share of its tint, and fills its frame if it is so much of
it."""
PAGE_INCHES = 8.27
"""Width of an A4 page: where a file names no resolution, it is taken for one."""


def block_pixels(width: int, dpi: float | None = None) -> int:
    """Side of a block in pixels, for a page of `width` pixels at `dpi` (pixels per inch), if that can be true."""
    likely = dpi if dpi and LEAST_DPI <= dpi <= MOST_DPI else width / PAGE_INCHES
    return int(np.clip(round(likely / BLOCKS_PER_INCH), 2, MOST_DPI // BLOCKS_PER_INCH))


def bright_blocks(rows: Floats, block: int) -> Floats:
    """The bright part of each block of some rows: of shape (H, W), 0 to 1, one value for `block` x `block` pixels.

    Rows that start at a multiple of `block` can be taken strip by strip.
    """
    height, width = rows.shape
    padded = np.pad(rows, ((0, -height % block), (0, -width % block)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // block, block, -1, block).transpose(0, 2, 1, 3)
    flat = blocks.reshape(*blocks.shape[:2], -1)
    rank = int(PAPER_QUANTILE * (flat.shape[-1] - 1))
    bright: Floats = np.partition(flat, rank, axis=-1)[..., rank]
    return bright


def paper_map(bright: Floats) -> Floats:
    """Estimate the paper of a page from its bright blocks, one value a block, nowhere much darker than elsewhere."""
    from scipy import ndimage

    middle: Floats = ndimage.median_filter(bright, NEIGHBOURHOOD, mode="nearest")
    return np.maximum(middle, np.float32(max(DARKEST_PAPER, LEAST_SHARE * float(np.median(middle)))))


def pictures_in(paper: Floats, tint: float) -> npt.NDArray[np.bool_]:
    """Where a page holds a picture, by its paper, one value a block, and the tint of that.

    Below a picture of shades there is no paper to be seen: what was taken for it is the picture itself, and a page
    divided by it has lost the picture. Most pictures have a part that is too dark for paper, as wide as two letters;
    one that is bright throughout is not found.
    """
    from scipy import ndimage

    too_dark = paper <= 1.001 * LEAST_SHARE * np.median(paper)  # where `paper_map` ends
    seeds = ndimage.binary_opening(too_dark, np.ones((NEIGHBOURHOOD, NEIGHBOURHOOD), np.bool_))
    found: npt.NDArray[np.bool_] = ndimage.binary_propagation(seeds, mask=seeds | (paper < DIM * tint))
    numbers, _ = ndimage.label(found)
    for number, frame in enumerate(ndimage.find_objects(numbers), 1):
        if (numbers[frame] == number).mean() > FILLED:
            found[frame] = True
    return found


def interpolated(values: Floats, block: int, start: int, stop: int, width: int) -> Floats:
    """Bring a map with one value a block to pixels, linearly: the rows `start` to `stop` of a page of `width`.

    Any rows come out the same whatever others are asked for, so a page can be worked on in strips.
    """
    rows, row_share = _positions(np.arange(start, stop), block, len(values))
    columns, column_share = _positions(np.arange(width), block, values.shape[1])
    upper, lower = values[rows], values[np.minimum(rows + 1, len(values) - 1)]
    mixed = upper + row_share[:, None] * (lower - upper)
    left, right = mixed[:, columns], mixed[:, np.minimum(columns + 1, values.shape[1] - 1)]
    result: Floats = left + column_share * (right - left)
    return result


def divided(page: Floats, block: int) -> Floats:
    """A grey page divided by its paper: shape (H, W), 0 to 1 in, to `BRIGHTEST` out."""
    paper = interpolated(paper_map(bright_blocks(page, block)), block, 0, *page.shape)
    flat: Floats = np.clip(page / paper, 0, BRIGHTEST).astype(np.float32)
    return flat


def _positions(pixels: npt.NDArray[np.int64], block: int, blocks: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each pixel the block centre before it, and how far it is towards the next."""
    at = np.clip((pixels + 0.5) / block - 0.5, 0, blocks - 1)
    before = at.astype(np.int64)
    return before, (at - before).astype(np.float32)

"""The paper under the ink: what a page would look like if nothing were written on it.

The scale comes from the page itself, from the width of its strokes. The bright part of each small block is paper,
unless the block lies inside something thick and dark: a filled letter, a stamp, a bar. These have a sharp edge, are
about as dark as the ink elsewhere, and nothing is written on them; stains and shadows lack at least one of the three.
The paper below ink is interpolated from around the ink. A page divided by its paper is white, with ink of any colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from vaeguard.restoration.formats.scan_page import Pixels

    Floats = npt.NDArray[np.float32]
    Mask = npt.NDArray[np.bool_]

STRIP = 640
"""Rows that are in work at a time."""
FIRST_BLOCK, LEAST_BLOCK, MOST_BLOCK = 8, 3, 16
"""Sides of blocks in pixels: before the width of strokes is known, then the smallest and the largest."""
STROKES_PER_BLOCK = 1.3
PAPER_QUANTILE, INK_QUANTILE = 0.8, 0.05
"""Quantiles of a block that stand for its paper and its ink."""
NEIGHBOURHOOD = 5
"""Side in blocks of the median filter that smooths a map of paper."""
TRUSTED = (0.25, 0.55)
"""Paper, as a share of the brightest around: hues count for nothing below the first, fully from the second."""
LETTERS = (13, 13)
"""Blocks across some letters."""
BRIGHTEST = 1.5
"""Of a page divided by its paper; brighter pixels are glare."""
DARKEST_PAPER = 0.05
"""Share of white; division by darker paper would divide by noise."""
SAMPLE_PIXELS, FEWEST_BANDS, BAND = 1_000_000, 4, (64, 256)
"""Larger pages are judged by about so many pixels: at least so many bands of so many rows (least, most)."""
REGION, FEWEST_REGIONS = 0.25, 9
"""Share of a page's shorter side within which its brightest paper is looked for, and the steps in that share."""
REGION_QUANTILE = 0.85
INK_CONTRAST, USUAL_INK = 0.15, 0.6
"""A block with more contrast holds an edge of ink; a page with hardly any ink counts as having ink this dark."""
THICK = 0.5
"""Blocks darker than this share of the page's ink may lie inside a stroke."""
SHARP_EDGE, MOST_WRITTEN, WRITTEN_CONTRAST = 0.5, 0.08, 0.2
"""Thick ink loses more than this share of its depth within two blocks of its edge, and less than this share of its
blocks holds strokes that are darker than the ink by so much."""
GREEN_WEIGHT = 1.5
"""Differences in green show less than those in red or blue."""
COLOURED_AREA = 0.12
"""Areas whose hue is further than this from that of stains are markers or fills, even if light or written on."""
PICTURE_DEPTH, PICTURE_GAP, SMALLEST_PICTURE = 0.2, 5, 16
"""A picture is darker than the paper by more than this share, but for gaps of up to twice so many blocks, and is at
least so many blocks wide and high."""
PICTURE_FILLED, PICTURE_ROUGH = 0.7, 0.04
"""A picture fills more than this share of its frame, and the bright parts of its blocks differ by more than this."""
LID, LID_SIDE, LID_EDGE = 0.45, 0.25, 0.6
"""A scanner's lid is darker than this share of the paper and runs along so much of a side of the picture; where lid
and paper meet, pixels darker than so much of the paper belong to the lid."""
LEAST_PAGE = 0.01
"""A line reaches the page if more than this share of its pixels is brighter than a lid."""


@dataclass(frozen=True)
class Paper:
    """The paper of a page, one value a block.

    Attributes
    ----------
    block : int
        Side of a block in pixels.
    values : ndarray
        float32, shape (rows, columns, C), 0 to 1.
    around : ndarray
        The brightest paper in the wider surroundings of each block, in the same shape: what `values` would be if
        nothing had darkened the page.
    ink : float
        How dark the page's ink is, from 0 for paper to 1 for black.
    stroke : float
        Width of its strokes in pixels.
    thick : ndarray
        bool, shape (rows, columns): blocks inside ink, which hides their paper.
    outside : ndarray
        bool, shape (rows, columns): blocks outside the page, such as the lid of a scanner.
    rough : ndarray
        float32, shape (rows, columns): how much the bright part of a block differs from those around it, as a share.
    """

    block: int
    values: Floats
    around: Floats
    ink: float
    stroke: float
    thick: Mask
    outside: Mask
    rough: Floats

    def rows(self, start: int, stop: int, width: int) -> Floats:
        """The paper of some rows of a page that is `width` pixels wide, shape (rows, width, C)."""
        return interpolated_colours(self.values, self.block, start, stop, width)

    def unevenness(self) -> float:
        """How much the paper varies, as a share of white, in the colour where it varies most.

        What is smaller than a few letters does not count: dense print darkens its paper a little.
        """
        from scipy import ndimage

        closed = np.stack([ndimage.grey_closing(plane, LETTERS, mode="nearest") for plane in _planes(self.values)], -1)
        ends = np.quantile(closed[~self.outside], (0.005, 0.98), axis=0)
        return float(np.ptp(ends, axis=0).max())

    def thick_rows(self, start: int, stop: int, width: int) -> Floats:
        """How far the pixels of some rows lie inside thick ink, 0 to 1, shape (rows, width)."""
        return interpolated(self.thick.astype(np.float32), self.block, start, stop, width)

    def hue_rows(self, start: int, stop: int, width: int) -> Floats:
        """How far hues can be trusted after division, 0 to 1, shape (rows, width): little below dark stains.

        The little blue that a brown stain leaves is noise, which division makes bright.
        """
        left = (self.values / self.around).min(axis=2)
        low, high = TRUSTED
        trust = np.clip((left - low) / (high - low), 0, 1).astype(np.float32)
        return interpolated(trust, self.block, start, stop, width)

    def steep_rows(self, start: int, stop: int, width: int) -> Floats:
        """How much the paper changes from block to block, as a share of it, shape (rows, width): at edges of stains."""
        from scipy import ndimage

        level = self.values.mean(axis=2)
        brightest, darkest = ndimage.maximum_filter(level, 5), ndimage.minimum_filter(level, 5)
        return interpolated(1 - darkest / brightest, self.block, start, stop, width)

    def outside_rows(self, rows: Floats, start: int) -> Mask:
        """Which pixels of the rows from `start` on lie outside the page: dark ones in or beside blocks outside."""
        from scipy import ndimage

        stop, width = start + len(rows), rows.shape[1]
        if not self.outside.any():
            return np.zeros(rows.shape[:2], np.bool_)
        near = ndimage.binary_dilation(self.outside, np.ones((3, 3), np.bool_)).astype(np.float32)
        beside = interpolated(near, self.block, start, stop, width) > 0
        dark = rows.max(axis=2) < np.float32(LID_EDGE) * self.rows(start, stop, width).max(axis=2)
        return cast("Mask", beside & dark)

    def tint(self, quantile: float) -> Floats:
        """The paper's own colour, shape (C,): of its brighter parts, since stains and shadows darken."""
        inside = self.values[~self.outside]
        tint: Floats = np.quantile(inside, quantile, axis=0).astype(np.float32)
        return tint


class PageRows:
    """Rows of a page as float32, 0 to 1, a few at a time, so that no second page is held in memory.

    Parameters
    ----------
    pixels : ndarray
        uint8 or uint16, shape (H, W, C).
    """

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.height, self.width, self.channels = pixels.shape
        self.full = np.float32(np.iinfo(pixels.dtype).max)

    def __call__(self, start: int, stop: int) -> Floats:
        """Rows `start` to `stop`, shape (rows, W, C)."""
        return self.pixels[start:stop].astype(np.float32) / self.full

    def bands(self, pixels: int = SAMPLE_PIXELS) -> Iterator[tuple[int, int]]:
        """Where bands of rows start and stop that stand for the whole page, about `pixels` pixels in all."""
        rows = int(np.clip(pixels // (FEWEST_BANDS * self.width), *BAND))
        count = max(FEWEST_BANDS, pixels // (rows * self.width))
        if self.height <= count * rows:
            yield 0, self.height
            return
        for start in np.linspace(0, self.height - rows, count).astype(int):
            yield int(start), int(start) + rows


def page_region(page: PageRows) -> tuple[slice, slice]:
    """The rows and columns of a picture that hold the page, where a dark lid or table is around it."""
    (bright,) = _quantiles_of(page, FIRST_BLOCK, (PAPER_QUANTILE,))
    inside = ~_lid(bright)
    if inside.all():
        return slice(0, page.height), slice(0, page.width)
    edge = np.float32(LID_EDGE) * np.quantile(bright.max(axis=2)[inside], PAPER_QUANTILE)
    pixels, level = page.pixels, float(edge * page.full)

    def ends(axis: int, length: int) -> slice:
        blocks = np.flatnonzero(inside.any(axis=1 - axis))
        first, last = max(0, (blocks[0] - 1) * FIRST_BLOCK), min(length, (blocks[-1] + 2) * FIRST_BLOCK)

        def is_page(line: int) -> bool:
            share = (pixels.take(line, axis).max(axis=-1) > level).mean()
            return bool(share > LEAST_PAGE)

        lines = range(first, last)
        return slice(next(filter(is_page, lines), first), next(filter(is_page, reversed(lines)), last - 1) + 1)

    return ends(0, page.height), ends(1, page.width)


def paper_of(page: PageRows) -> Paper:
    """Find the paper of a page of any size."""
    stroke = stroke_width(page)
    block = int(np.clip(round(STROKES_PER_BLOCK * stroke), LEAST_BLOCK, MOST_BLOCK))
    bright, dark = _quantiles_of(page, block, (PAPER_QUANTILE, INK_QUANTILE))
    return _paper_from(bright, dark, block, stroke)


def divided(page: Floats) -> Floats:
    """A grey page divided by its paper: shape (H, W), 0 to 1 in, to `BRIGHTEST` out."""
    rows = PageRows(np.round(np.clip(page, 0, 1) * 65535).astype(np.uint16)[..., None])
    paper = paper_of(rows).rows(0, *page.shape)[..., 0]
    flat: Floats = np.minimum(page / paper, np.float32(BRIGHTEST))
    return flat


def stroke_width(page: PageRows) -> float:
    """The mean width of a page's strokes in pixels, from how much edge their area has.

    A stroke of width w and length L has an area of w L. In the mean over all directions, (8 / pi) L steps between
    neighbours along rows and columns cross its edge.
    """
    area = steps = 0
    for start, stop in page.bands():
        ink = _roughly_ink(page(start, stop).min(axis=2))
        area += int(ink.sum())
        steps += int((ink[1:] != ink[:-1]).sum()) + int((ink[:, 1:] != ink[:, :-1]).sum())
    return 8 / np.pi * area / max(steps, 1)


def _roughly_ink(plane: Floats) -> Mask:
    """Pixels darker than half way between the bright and the dark around them, where these two differ much."""
    from scipy import ndimage

    bright, dark = (part[..., 0] for part in block_quantiles(plane[..., None], FIRST_BLOCK, (PAPER_QUANTILE, 0.02)))
    bright, dark = ndimage.maximum_filter(bright, 5), ndimage.minimum_filter(dark, 3)
    contrast = (bright - dark) / np.maximum(bright, DARKEST_PAPER)
    enough = contrast > 0.5 * np.quantile(contrast, 0.9)
    threshold = np.where(enough, (bright + dark) / 2, 0).astype(np.float32)
    ink = plane < interpolated(threshold, FIRST_BLOCK, 0, *plane.shape)
    # Grain and halftone dots have much edge for their area, and are no strokes.
    return cast("Mask", ndimage.uniform_filter(ink.astype(np.float32), 3) > 0.5)


def block_quantiles(rows: Floats, block: int, quantiles: tuple[float, ...]) -> list[Floats]:
    """Quantiles of each block of some rows, shape (H, W, C): for each quantile one value for `block` x `block` pixels.

    Rows that start at a multiple of `block` can be taken strip by strip.
    """
    height, width, channels = rows.shape
    padded = np.pad(rows, ((0, -height % block), (0, -width % block), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // block, block, -1, block, channels).transpose(0, 2, 4, 1, 3)
    flat = blocks.reshape(*blocks.shape[:3], -1)
    ranks = [int(quantile * (flat.shape[-1] - 1)) for quantile in quantiles]
    ordered = np.partition(flat, sorted(set(ranks)), axis=-1)
    return [ordered[..., rank] for rank in ranks]


def _quantiles_of(page: PageRows, block: int, quantiles: tuple[float, ...]) -> list[Floats]:
    """As `block_quantiles`, of a whole page."""
    rows = STRIP // block * block
    strips = (page(start, min(start + rows, page.height)) for start in range(0, page.height, rows))
    parts = zip(*(block_quantiles(strip, block, quantiles) for strip in strips), strict=True)
    return [np.concatenate(part) for part in parts]


def _paper_from(bright: Floats, dark: Floats, block: int, stroke: float) -> Paper:
    from scipy import ndimage

    outside = _lid(bright)
    inside = filled(bright, ~outside)
    around = _brightest_around(inside)
    depth = (1 - inside / around).max(axis=2)
    ink = _ink_of(inside, np.where(outside[..., None], inside, dark), around)
    hue = unlike_brown(inside / around) if inside.shape[2] == 3 else np.zeros_like(depth)
    thick = _thick_ink(depth, (1 - dark / around).max(axis=2), hue, ink)
    bare = filled(bright, ~(thick | outside))
    values = np.stack([ndimage.median_filter(plane, NEIGHBOURHOOD, mode="nearest") for plane in _planes(bare)], -1)
    rough = np.abs(bare - values).mean(axis=2) / np.maximum(values.mean(axis=2), DARKEST_PAPER)
    return Paper(block, np.maximum(values, np.float32(DARKEST_PAPER)), around, ink, stroke, thick, outside, rough)


def pictures_in(paper: Paper) -> Mask:
    """The blocks of a page that hold a picture, which has no paper of its own and had better stay as it is.

    A picture is dim, uneven, large and fills a rectangle; no stain does all four.
    """
    from scipy import ndimage

    # The darkest parts of a picture look like thick ink.
    dark = ((1 - paper.values / paper.around).max(axis=2) > PICTURE_DEPTH) | paper.thick
    closed = ndimage.binary_closing(np.pad(dark, PICTURE_GAP), iterations=PICTURE_GAP)
    dim = ndimage.binary_fill_holes(closed[PICTURE_GAP:-PICTURE_GAP, PICTURE_GAP:-PICTURE_GAP] & ~paper.outside)
    labels, _ = ndimage.label(dim)
    found: Mask = np.zeros_like(dim)
    for number, frame in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[frame] == number
        large = min(inside.shape) >= SMALLEST_PICTURE
        if large and inside.mean() > PICTURE_FILLED and paper.rough[frame][inside].mean() > PICTURE_ROUGH:
            found[tuple(slice(max(0, edge.start - 2), edge.stop + 2) for edge in frame)] = True
    return found


def _planes(values: Floats) -> Iterator[Floats]:
    return (values[..., number] for number in range(values.shape[2]))


def _brightest_around(bright: Floats) -> Floats:
    """The brighter paper in the wider surroundings of each block, smooth."""
    from scipy import ndimage

    step = max(1, round(REGION * min(bright.shape[:2]) / FEWEST_REGIONS))
    (coarse,) = block_quantiles(bright, step, (REGION_QUANTILE,))
    size = FEWEST_REGIONS
    found = []
    for plane in _planes(coarse):
        brightest = ndimage.percentile_filter(plane, 100 * REGION_QUANTILE, size=size, mode="nearest")
        smooth = ndimage.uniform_filter(brightest, size, mode="nearest").astype(np.float32)
        found.append(interpolated(smooth, step, 0, *bright.shape[:2]))
    return np.maximum(np.stack(found, -1), np.float32(DARKEST_PAPER))


def _ink_of(bright: Floats, dark: Floats, around: Floats) -> float:
    """How dark the ink of a page is: that of the darker strokes, in the colour where they are darkest."""
    edges = ((bright - dark) / around).max(axis=2) > INK_CONTRAST
    if edges.mean() < 0.002:
        return USUAL_INK
    return float(np.quantile((1 - dark / around).max(axis=2)[edges], 0.95))


def _thick_ink(depth: Floats, deepest: Floats, hue: Floats, ink: float) -> Mask:
    """The blocks inside strokes, fills and markers that are thicker than a block, with their edges.

    For each block, `depth` says how dark its bright part is, `deepest` how dark its dark part is, and `hue` how far its
    hue is from that of stains.
    """
    from scipy import ndimage

    square = np.ones((3, 3), np.bool_)
    dim = (depth > THICK * ink) | (hue > COLOURED_AREA)
    labels, count = ndimage.label(dim, square)
    if not count:
        return dim
    numbers = np.arange(1, count + 1)
    near = ndimage.maximum_filter(labels, 5)
    beyond = np.where(dim | ndimage.binary_dilation(dim, square), 0, near)
    inside = ndimage.median(depth, labels, numbers)
    sharp = inside - np.maximum(_means(depth, beyond, count), 0) > SHARP_EDGE * inside
    cores = np.where(ndimage.binary_erosion(dim, square), labels, 0)
    written = deepest - np.concatenate([[0], inside])[labels] > WRITTEN_CONTRAST
    bare = _means(written.astype(np.float32), cores, count) < MOST_WRITTEN
    coloured = _means(hue, labels, count) > COLOURED_AREA
    thick = np.concatenate([[False], sharp & (bare | coloured)])[labels]
    return cast("Mask", ndimage.binary_dilation(thick, square))


def unlike_brown(ratios: Floats) -> Floats:
    """How far the hue of ink is from that of stains, which take away most blue and least red: shape (H, W), 0 and up.

    Red and violet ink take away more green than a brown of their red and blue would, green ink and yellow markers
    less, and blue ink more red than blue.
    """
    red, green, blue = (1 - ratios[..., number] for number in range(3))
    unlike: Floats = np.maximum(GREEN_WEIGHT * np.abs(green - (red + blue) / 2), red - blue)
    return unlike


def _means(values: Floats, labels: npt.NDArray[np.int64], count: int) -> Floats:
    """Means of `values` below the labels 1 to `count`; 0 where there is none."""
    sums = np.bincount(labels.ravel(), values.ravel(), count + 1)
    numbers = np.bincount(labels.ravel(), minlength=count + 1)
    return cast("Floats", (sums / np.maximum(numbers, 1))[1:])


def _lid(bright: Floats) -> Mask:
    """Blocks of a dark border: the lid of a scanner, or the table below the page."""
    from scipy import ndimage

    level = bright.max(axis=2)
    dark = level < LID * np.quantile(level, 0.9)
    labels, _ = ndimage.label(
        ndimage.binary_opening(np.pad(dark, 1, mode="edge"), np.ones((2, 2), np.bool_))[1:-1, 1:-1]
    )
    lids = set()
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        counts = np.bincount(side)
        lids |= set(np.flatnonzero(counts > LID_SIDE * len(side))) - {0}
    outside: Mask = np.isin(labels, list(lids))
    return outside if outside.mean() < 0.9 else np.zeros_like(outside)


def filled(values: Floats, known: Mask) -> Floats:
    """`values`, shape (h, w, C), where they are known; elsewhere interpolated from around, from fine to coarse."""
    if known.all():
        return values
    if not known.any():
        return np.broadcast_to(np.median(values, axis=(0, 1)), values.shape).astype(np.float32)
    height, width = known.shape
    if max(height, width) == 1:
        return values
    ends = (0, height % 2), (0, width % 2)
    weights = np.pad(known.astype(np.float32), ends)[..., None]
    sums = np.pad(values, (*ends, (0, 0))) * weights
    shape = (weights.shape[0] // 2, 2, weights.shape[1] // 2, 2)
    total, weight = sums.reshape(*shape, -1).sum((1, 3)), weights.reshape(*shape, 1).sum((1, 3))
    half = filled((total / np.maximum(weight, 1)).astype(np.float32), weight[..., 0] > 0)
    return np.where(known[..., None], values, interpolated_colours(half, 2, 0, height, width))


def interpolated_colours(values: Floats, block: int, start: int, stop: int, width: int) -> Floats:
    """As `interpolated`, for values of shape (h, w, C)."""
    return np.stack([interpolated(plane, block, start, stop, width) for plane in _planes(values)], -1)


def interpolated(values: Floats, block: int, start: int, stop: int, width: int) -> Floats:
    """Bring a map with one value a block to pixels, linearly: the rows `start` to `stop` of a page of `width`.

    Each row comes out the same whichever others are asked for, so a page can be worked on in strips.
    """
    rows, row_share = _positions(np.arange(start, stop), block, len(values))
    columns, column_share = _positions(np.arange(width), block, values.shape[1])
    upper, lower = values[rows], values[np.minimum(rows + 1, len(values) - 1)]
    mixed = upper + row_share[:, None] * (lower - upper)
    left, right = mixed[:, columns], mixed[:, np.minimum(columns + 1, values.shape[1] - 1)]
    result: Floats = left + column_share * (right - left)
    return result


def _positions(pixels: npt.NDArray[np.int64], block: int, blocks: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each pixel the block centre before it, and how far it is towards the next."""
    at = np.clip((pixels + 0.5) / block - 0.5, 0, blocks - 1)
    before = at.astype(np.int64)
    return before, (at - before).astype(np.float32)

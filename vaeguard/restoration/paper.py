"""Estimate the paper under the ink: the page as it would look with nothing written on it.

The width of the page's own strokes sets the scale. The bright part of each small block is paper, unless the block lies
inside a thick dark mark: a filled letter, a stamp, a bar. Such a mark has a sharp edge, is about as dark as other ink,
and has nothing written on it; a stain or a shadow lacks at least one of the three properties. The paper below ink is
interpolated from its surroundings. A page divided by its paper is white, with ink of any colour.
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
"""The number of rows that are processed at a time."""
FIRST_BLOCK = 8
"""Side of a block in pixels before the width of strokes is known."""
LEAST_BLOCK = 3
"""Side of the smallest block in pixels."""
MOST_BLOCK = 16
"""Side of the largest block in pixels."""
STROKES_PER_BLOCK = 1.3
"""Side of a block in widths of a stroke."""
PAPER_QUANTILE = 0.8
"""The quantile of a block that estimates its paper."""
INK_QUANTILE = 0.05
"""The quantile of a block that estimates its ink."""
NEIGHBOURHOOD = 5
"""Side in blocks of the median filter that smooths the map of the paper."""
TRUSTED = (0.25, 0.55)
"""Brightnesses of paper, as shares of the brightest paper around, between which the trust in hues rises from 0 to 1."""
LETTERS = (13, 13)
"""Height and width in blocks of an area that covers a few letters."""
BRIGHTEST = 1.5
"""The largest value of a page divided by its paper; brighter pixels are glare."""
DARKEST_PAPER = 0.05
"""The least brightness of paper as a share of white, since division by darker paper would amplify noise."""
SAMPLE_PIXELS = 1_000_000
"""The approximate number of pixels that represent a larger page."""
FEWEST_BANDS = 4
"""The fewest bands of rows that represent a page."""
BAND = (64, 256)
"""The fewest and the most rows of a band."""
REGION = 0.25
"""The share of a page's shorter side within which the brightest paper is looked for."""
REGION_STEPS = 9
"""The number of steps in that share."""
REGION_QUANTILE = 0.85
"""The quantile of the paper in a region that counts as its brightest paper."""
INK_CONTRAST = 0.15
"""A block with more contrast contains an edge of ink."""
USUAL_INK = 0.6
"""The assumed darkness of the ink on a page with hardly any ink."""
THICK = 0.5
"""A block darker than this share of the page's ink may lie inside a stroke."""
SHARP_EDGE = 0.5
"""Thick ink loses more than this share of its depth within two blocks of its edge."""
MOST_WRITTEN = 0.08
"""A smaller share of the blocks of thick ink contains strokes that are darker than the ink."""
WRITTEN_CONTRAST = 0.2
"""The least difference in depth between such a stroke and the ink around it."""
GREEN_WEIGHT = 1.5
"""The weight of differences in green, which are smaller than differences in red or blue."""
COLOURED_AREA = 0.12
"""An area whose hue differs by more from the hue of stains is a marker or a fill, even if light or written on."""
PICTURE_DEPTH = 0.2
"""A picture is darker than the paper by more than this share."""
PICTURE_GAP = 5
"""Bright gaps of up to twice this number of blocks belong to the picture around them."""
SMALLEST_PICTURE = 16
"""The least width and height of a picture in blocks."""
PICTURE_FILLED = 0.7
"""A picture fills more than this share of its frame."""
PICTURE_ROUGH = 0.04
"""The bright parts of a picture's blocks differ by more than this share on average."""
LID = 0.45
"""A scanner's lid is darker than this share of the paper."""
LID_SIDE = 0.25
"""A lid covers more than this share of one side of the picture."""
LID_EDGE = 0.6
"""Where lid and paper meet, pixels darker than this share of the paper belong to the lid."""
LEAST_PAGE = 0.01
"""A line of pixels belongs to the page if more than this share of the line is brighter than a lid."""


@dataclass(frozen=True)
class Paper:
    """The paper of a page, with one value a block.

    Attributes
    ----------
    block : int
        Side of a block in pixels.
    values : ndarray
        float32, shape (rows, columns, C), 0 to 1.
    around : ndarray
        The brightest paper around each block, in the same shape: the values of a page that nothing has darkened.
    ink : float
        Darkness of the ink, from 0 for paper to 1 for black.
    stroke : float
        Width of the strokes in pixels.
    thick : ndarray
        bool, shape (rows, columns): blocks whose paper is hidden by ink.
    outside : ndarray
        bool, shape (rows, columns): blocks outside the page, such as the lid of a scanner.
    rough : ndarray
        float32, shape (rows, columns): difference of a block's bright part from its surroundings, as a share of paper.
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
        """The range of the paper, as a share of white, in the colour that varies most.

        Variations within a few letters do not count, since dense print darkens its paper a little.
        """
        from scipy import ndimage

        closed = np.stack([ndimage.grey_closing(plane, LETTERS, mode="nearest") for plane in _planes(self.values)], -1)
        ends = np.quantile(closed[~self.outside], (0.005, 0.98), axis=0)
        return float(np.ptp(ends, axis=0).max())

    def thick_rows(self, start: int, stop: int, width: int) -> Floats:
        """How far each pixel of some rows lies inside thick ink, 0 to 1, shape (rows, width)."""
        return interpolated(self.thick.astype(np.float32), self.block, start, stop, width)

    def hue_rows(self, start: int, stop: int, width: int) -> Floats:
        """The trust in hues after division, 0 to 1, shape (rows, width).

        Hues on dark stains are hardly trusted: a brown stain absorbs blue, so that division amplifies noise there.
        """
        brightness = (self.values / self.around).min(axis=2)
        low, high = TRUSTED
        trust = np.clip((brightness - low) / (high - low), 0, 1).astype(np.float32)
        return interpolated(trust, self.block, start, stop, width)

    def steep_rows(self, start: int, stop: int, width: int) -> Floats:
        """The change of the paper around each pixel, as a share, shape (rows, width): large at the edges of stains."""
        from scipy import ndimage

        level = self.values.mean(axis=2)
        brightest, darkest = ndimage.maximum_filter(level, 5), ndimage.minimum_filter(level, 5)
        return interpolated(1 - darkest / brightest, self.block, start, stop, width)

    def outside_rows(self, rows: Floats, start: int) -> Mask:
        """The pixels outside the page, in rows from `start` on: dark pixels in or beside a block outside."""
        from scipy import ndimage

        stop, width = start + len(rows), rows.shape[1]
        if not self.outside.any():
            return np.zeros(rows.shape[:2], np.bool_)
        near = ndimage.binary_dilation(self.outside, np.ones((3, 3), np.bool_)).astype(np.float32)
        beside = interpolated(near, self.block, start, stop, width) > 0
        dark = rows.max(axis=2) < np.float32(LID_EDGE) * self.rows(start, stop, width).max(axis=2)
        return cast("Mask", beside & dark)

    def tint(self, quantile: float) -> Floats:
        """A quantile of the paper's colour, shape (C,); a high one leaves out stains and shadows."""
        inside = self.values[~self.outside]
        tint: Floats = np.quantile(inside, quantile, axis=0).astype(np.float32)
        return tint


class PageRows:
    """Rows of a page as float32, 0 to 1; a caller takes a few rows at a time, so that memory holds no second page.

    Parameters
    ----------
    pixels : ndarray
        uint8 or uint16, shape (H, W, C).
    """

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        self.height, self.width, self.channels = pixels.shape
        self.full_scale = np.float32(np.iinfo(pixels.dtype).max)

    def __call__(self, start: int, stop: int) -> Floats:
        """Rows `start` to `stop`, shape (rows, W, C)."""
        return self.pixels[start:stop].astype(np.float32) / self.full_scale

    def bands(self, pixels: int = SAMPLE_PIXELS) -> Iterator[tuple[int, int]]:
        """The first and the last row (exclusive) of bands that represent the page, of about `pixels` pixels in all."""
        rows = int(np.clip(pixels // (FEWEST_BANDS * self.width), *BAND))
        count = max(FEWEST_BANDS, pixels // (rows * self.width))
        if self.height <= count * rows:
            yield 0, self.height
            return
        for start in np.linspace(0, self.height - rows, count).astype(int):
            yield int(start), int(start) + rows


def page_region(page: PageRows) -> tuple[slice, slice]:
    """The rows and columns of the page in a picture that may show a dark lid or table around the page."""
    (bright,) = _quantiles_of(page, FIRST_BLOCK, (PAPER_QUANTILE,))
    inside = ~_lid(bright)
    if inside.all():
        return slice(0, page.height), slice(0, page.width)
    edge = np.float32(LID_EDGE) * np.quantile(bright.max(axis=2)[inside], PAPER_QUANTILE)
    pixels, level = page.pixels, float(edge * page.full_scale)

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
    """Estimate the paper of a page of any size."""
    stroke = stroke_width(page)
    block = int(np.clip(round(STROKES_PER_BLOCK * stroke), LEAST_BLOCK, MOST_BLOCK))
    bright, dark = _quantiles_of(page, block, (PAPER_QUANTILE, INK_QUANTILE))
    return _paper_from(bright, dark, block, stroke)


def divided(page: Floats) -> Floats:
    """Divide a grey page of shape (H, W), 0 to 1, by its paper; the result lies between 0 and `BRIGHTEST`."""
    rows = PageRows(np.round(np.clip(page, 0, 1) * 65535).astype(np.uint16)[..., None])
    paper = paper_of(rows).rows(0, *page.shape)[..., 0]
    ratios: Floats = np.minimum(page / paper, np.float32(BRIGHTEST))
    return ratios


def stroke_width(page: PageRows) -> float:
    """Measure the mean width of a page's strokes in pixels from the ratio of area to edge.

    A stroke of width w and length L has the area w L. Averaged over all directions, (8 / pi) L pairs of neighbours
    along rows and columns cross the stroke's edge.
    """
    area = steps = 0
    for start, stop in page.bands():
        ink = _roughly_ink(page(start, stop).min(axis=2))
        area += int(ink.sum())
        steps += int((ink[1:] != ink[:-1]).sum()) + int((ink[:, 1:] != ink[:, :-1]).sum())
    return 8 / np.pi * area / max(steps, 1)


def _roughly_ink(plane: Floats) -> Mask:
    """The pixels darker than the midpoint of local brightness and darkness, where these two differ much."""
    from scipy import ndimage

    bright, dark = (values[..., 0] for values in block_quantiles(plane[..., None], FIRST_BLOCK, (PAPER_QUANTILE, 0.02)))
    bright, dark = ndimage.maximum_filter(bright, 5), ndimage.minimum_filter(dark, 3)
    contrast = (bright - dark) / np.maximum(bright, DARKEST_PAPER)
    enough = contrast > 0.5 * np.quantile(contrast, 0.9)
    threshold = np.where(enough, (bright + dark) / 2, 0).astype(np.float32)
    ink = plane < interpolated(threshold, FIRST_BLOCK, 0, *plane.shape)
    # Grain and halftone dots, which are no strokes, have a long edge for their area.
    return cast("Mask", ndimage.uniform_filter(ink.astype(np.float32), 3) > 0.5)


def block_quantiles(rows: Floats, block: int, quantiles: tuple[float, ...]) -> list[Floats]:
    """Quantiles of the blocks of `block` x `block` pixels in rows of shape (H, W, C), one map for each quantile.

    Strips that start at a multiple of `block` give the same values as the whole page.
    """
    height, width, channels = rows.shape
    padded = np.pad(rows, ((0, -height % block), (0, -width % block), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // block, block, -1, block, channels).transpose(0, 2, 4, 1, 3)
    flat = blocks.reshape(*blocks.shape[:3], -1)
    ranks = [int(quantile * (flat.shape[-1] - 1)) for quantile in quantiles]
    ordered = np.partition(flat, sorted(set(ranks)), axis=-1)
    return [ordered[..., rank] for rank in ranks]


def _quantiles_of(page: PageRows, block: int, quantiles: tuple[float, ...]) -> list[Floats]:
    """As `block_quantiles`, for a whole page."""
    rows = STRIP // block * block
    strips = (page(start, min(start + rows, page.height)) for start in range(0, page.height, rows))
    parts = zip(*(block_quantiles(strip, block, quantiles) for strip in strips), strict=True)
    return [np.concatenate(part) for part in parts]


def _paper_from(bright: Floats, dark: Floats, block: int, stroke: float) -> Paper:
    """Build the map of the paper from the bright and the dark quantile of each block."""
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
    """The blocks of a page that belong to a picture, which must stay as it is since it has no paper.

    A picture is dim, uneven and large, and fills a rectangle; no stain has all four properties.
    """
    from scipy import ndimage

    # The darkest parts of a picture look like thick ink.
    dark = ((1 - paper.values / paper.around).max(axis=2) > PICTURE_DEPTH) | paper.thick
    closed = ndimage.binary_closing(np.pad(dark, PICTURE_GAP), iterations=PICTURE_GAP)
    dim = ndimage.binary_fill_holes(closed[PICTURE_GAP:-PICTURE_GAP, PICTURE_GAP:-PICTURE_GAP] & ~paper.outside)
    labels, _ = ndimage.label(dim)
    pictures: Mask = np.zeros_like(dim)
    for number, frame in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[frame] == number
        large = min(inside.shape) >= SMALLEST_PICTURE
        if large and inside.mean() > PICTURE_FILLED and paper.rough[frame][inside].mean() > PICTURE_ROUGH:
            pictures[tuple(slice(max(0, edge.start - 2), edge.stop + 2) for edge in frame)] = True
    return pictures


def _planes(values: Floats) -> Iterator[Floats]:
    return (values[..., number] for number in range(values.shape[2]))


def _brightest_around(bright: Floats) -> Floats:
    """A smooth map of the brightest paper in the wider surroundings of each block."""
    from scipy import ndimage

    step = max(1, round(REGION * min(bright.shape[:2]) / REGION_STEPS))
    (coarse,) = block_quantiles(bright, step, (REGION_QUANTILE,))
    around = []
    for plane in _planes(coarse):
        brightest = ndimage.percentile_filter(plane, 100 * REGION_QUANTILE, size=REGION_STEPS, mode="nearest")
        smooth = ndimage.uniform_filter(brightest, REGION_STEPS, mode="nearest").astype(np.float32)
        around.append(interpolated(smooth, step, 0, *bright.shape[:2]))
    return np.maximum(np.stack(around, -1), np.float32(DARKEST_PAPER))


def _ink_of(bright: Floats, dark: Floats, around: Floats) -> float:
    """The darkness of the darker strokes of a page, in their darkest colour."""
    edges = ((bright - dark) / around).max(axis=2) > INK_CONTRAST
    if edges.mean() < 0.002:
        return USUAL_INK
    return float(np.quantile((1 - dark / around).max(axis=2)[edges], 0.95))


def _thick_ink(depth: Floats, deepest: Floats, hue: Floats, ink: float) -> Mask:
    """The blocks of strokes, fills and markers that are thicker than a block, including their edges.

    Parameters
    ----------
    depth : ndarray
        Darkness of the bright part of each block.
    deepest : ndarray
        Darkness of the dark part of each block.
    hue : ndarray
        Distance of each block's hue from the hue of stains.
    ink : float
        Darkness of the page's ink.
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
    """The distance of hues from the hue of stains, which absorb most blue and least red: shape (H, W), 0 and up.

    Compared with a brown of equal red and blue, red and violet ink absorb more green, and green ink and yellow markers
    less. Blue ink absorbs more red than blue.
    """
    red, green, blue = (1 - plane for plane in _planes(ratios))
    distance: Floats = np.maximum(GREEN_WEIGHT * np.abs(green - (red + blue) / 2), red - blue)
    return distance


def _means(values: Floats, labels: npt.NDArray[np.int64], count: int) -> Floats:
    """Means of `values` over the areas with the labels 1 to `count`; 0 for an empty area."""
    sums = np.bincount(labels.ravel(), values.ravel(), count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    return cast("Floats", (sums / np.maximum(sizes, 1))[1:])


def _lid(bright: Floats) -> Mask:
    """The blocks of a dark border: the lid of a scanner, or the table below the page."""
    from scipy import ndimage

    level = bright.max(axis=2)
    dark = level < LID * np.quantile(level, 0.9)
    opened = ndimage.binary_opening(np.pad(dark, 1, mode="edge"), np.ones((2, 2), np.bool_))[1:-1, 1:-1]
    labels, _ = ndimage.label(opened)
    lids = set()
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        counts = np.bincount(side)
        lids |= set(np.flatnonzero(counts > LID_SIDE * len(side))) - {0}
    outside: Mask = np.isin(labels, list(lids))
    return outside if outside.mean() < 0.9 else np.zeros_like(outside)


def filled(values: Floats, known: Mask) -> Floats:
    """Replace unknown `values`, shape (h, w, C), by interpolation from their surroundings, from fine to coarse."""
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
    """Interpolate a map of one value a block linearly to the pixels of rows `start` to `stop`, shape (rows, width).

    A row does not depend on the other rows asked for, so a page can be processed in strips.
    """
    rows, row_share = _positions(np.arange(start, stop), block, len(values))
    columns, column_share = _positions(np.arange(width), block, values.shape[1])
    upper, lower = values[rows], values[np.minimum(rows + 1, len(values) - 1)]
    mixed = upper + row_share[:, None] * (lower - upper)
    left, right = mixed[:, columns], mixed[:, np.minimum(columns + 1, values.shape[1] - 1)]
    result: Floats = left + column_share * (right - left)
    return result


def _positions(pixels: npt.NDArray[np.int64], block: int, blocks: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each pixel, the last block centre before it, and the share of the way to the next one."""
    position = np.clip((pixels + 0.5) / block - 0.5, 0, blocks - 1)
    before = position.astype(np.int64)
    return before, (position - before).astype(np.float32)

"""Clean a page of print or handwriting: make its paper even, remove noise, stains and folds, and keep every stroke.

The page is divided by its paper. From the mean of the colours, the denoiser estimates the amount of ink at each pixel;
this amount scales the ink's own colour, so that no hue changes. Where the original has ink (`ink`), the result has ink
of the same darkness. No pixel becomes darker, except for noise and where paper is made white.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from vaeguard.restoration.cleaned import SQUARE, Cleaned, split_squares
from vaeguard.restoration.ink import STRONG, UNKNOWN_DEPTH, InkModel, certainty, ink_model, reach, ridges
from vaeguard.restoration.paper import BRIGHTEST, STRIP, PageRows, interpolated, page_region, paper_of, pictures_in
from vaeguard.restoration.reasons import CLEAN, NO_STRENGTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from vaeguard.restoration.denoiser import Denoiser
    from vaeguard.restoration.formats.scan_page import Pixels
    from vaeguard.restoration.paper import Paper
    from vaeguard.settings.restoration import RestoreSettings

    Floats = npt.NDArray[np.float32]
    Mask = npt.NDArray[np.bool_]

# These limits tell a document from a photograph; the model card names the data on which they were chosen.
DARKEST_DOCUMENT = 0.35
"""The least median brightness of a document's paper."""
LEAST_EVEN = 0.45
"""The least ratio of the darkest to the brightest paper."""
MOST_SLOPE = 0.035
"""The largest mean change of the paper from block to block, as a share."""
MOST_UNEVEN = 0.06
"""The largest mean difference between the bright part of a block and its surroundings, as a share."""
WIDEST_STROKE = 0.0275
"""The largest width of strokes, as a share of the page's shorter side."""
WHITE = 0.9
"""A pixel of the divided page is white if it differs from 1 by less than 1 - `WHITE`."""
SHADE = 0.85
"""Pixels between `DARK` and this value of the divided page are shades."""
DARK = 0.6
"""Darker pixels of the divided page are ink."""
LEAST_WHITE = 0.56
"""The least share of white pixels."""
LEAST_INK = 0.004
"""The least share of ink."""
MOST_INK = 0.25
"""The largest share of ink."""
MORE_SHADE = 0.045
"""The share by which shades may exceed ink."""
THIN_STROKE = 0.012
"""Narrower strokes, as a share of the page's shorter side, are thin."""
MORE_SHADE_IF_THIN = 0.065
"""The share by which shades may exceed ink on a page of thin strokes."""

EVEN_PAPER = 0.02
"""Paper that varies by less needs no correction."""
FAINT_NOISE = 0.4 / 255
"""A page with less noise counts as free of noise, since rounding to 8 bits alone gives 0.3 of a level."""
TINT_QUANTILE = 0.8
"""The quantile of the paper that gives the tint of the page."""
WHITE_PAPER = 0.99
"""Paper at least this bright is already white."""
INK_SAMPLE = 400_000
"""The number of pixels on which the strokes of a page are measured."""
NOISE_ALLOWED = 2
"""Ink may become lighter or darker by this many deviations of the noise, since it loses its grain."""
GREY_BELOW = 0.1
"""Fainter ink may be colour noise; the fainter it is, the greyer the result."""
MOST_GAIN = 1.6
"""The largest factor by which the depth of coloured ink is scaled."""
DIVISIBLE = 0.02
"""The least depth by which the depth after cleaning is divided."""
BLACK_QUANTILE = 0.9
"""If paper is made white, strokes as dark as this quantile become black."""
LEAST_HARM = 6
"""A square counts as put back if more than this number of its pixels of ink had lost over half of their depth."""
DIM = 0.7
"""Paper darker than this share of the page's tint counts as a stain or a shadow."""
INK_FOR_CERTAIN = 0.5
"""Ink counts as put back only if its depth exceeds this share of the usual depth."""
MARK = 0.3
"""Marks deeper than this share of the usual depth count as removed if they are gone."""
LOST = 0.5
"""A pixel of ink is gone if less than this share of its depth is left."""


@dataclass(frozen=True)
class PageView:
    """An original picture seen as a page.

    Attributes
    ----------
    pixels : ndarray
        The whole picture, uint8 or uint16, shape (H, W, C).
    region : (slice, slice)
        The rows and columns of the page; a lid or a table may be visible around it.
    paper : Paper
        The paper of the region.
    """

    pixels: Pixels
    region: tuple[slice, slice]
    paper: Paper

    @classmethod
    def of(cls, pixels: Pixels) -> PageView:
        """See a picture of shape (H, W, C) as a page."""
        region = page_region(PageRows(pixels))
        return cls(pixels, region, paper_of(PageRows(pixels[region])))

    def is_document(self) -> bool:
        """Whether the picture shows fairly even paper with strokes, rather than shades, on it.

        A picture in doubt is a photograph: a photograph cleaned as a document is flattened, while a document cleaned
        as a photograph only keeps its stains.
        """
        page = PageRows(self.pixels[self.region])
        return self._has_even_paper(page) and self._has_strokes(page)

    def _has_even_paper(self, page: PageRows) -> bool:
        """Whether the paper is bright and even and the strokes are narrow."""
        paper = self.paper
        levels = paper.values.mean(axis=2)
        inside = levels[~paper.outside]
        slope = np.hypot(*np.gradient(np.pad(levels, 1, mode="edge")))[1:-1, 1:-1][~paper.outside] / inside
        uneven = paper.rough[~paper.outside].mean()
        return bool(
            np.median(inside) >= DARKEST_DOCUMENT
            and np.quantile(inside, 0.05) >= LEAST_EVEN * np.quantile(inside, 0.95)
            and slope.mean() <= MOST_SLOPE
            and uneven <= MOST_UNEVEN
            and paper.stroke <= WIDEST_STROKE * min(page.height, page.width)
        )

    def _has_strokes(self, page: PageRows) -> bool:
        """Whether the page divided by its paper is mostly white, with ink and few shades."""
        ratios = np.concatenate([self.ratios(*band).mean(axis=2).ravel() for band in page.bands()])
        white, ink = (np.abs(ratios - 1) < 1 - WHITE).mean(), (ratios < DARK).mean()
        shade = ((ratios >= DARK) & (ratios < SHADE)).mean()
        thin = self.paper.stroke < THIN_STROKE * min(page.height, page.width)
        excess = MORE_SHADE_IF_THIN if thin else MORE_SHADE
        return bool(white >= LEAST_WHITE and LEAST_INK <= ink <= MOST_INK and shade <= ink + excess)

    def ratios(self, start: int, stop: int) -> Floats:
        """Rows of the page divided by its paper; pixels outside the page are as bright as paper."""
        page = PageRows(self.pixels[self.region])
        rows = page(start, stop)
        ratios: Floats = np.minimum(rows / self.paper.rows(start, stop, page.width), np.float32(BRIGHTEST))
        ratios[self.paper.outside_rows(rows, start)] = 1
        return ratios


def restore_document(
    view: PageView,
    denoiser: Denoiser,
    settings: RestoreSettings,
    *,
    uncertainty: bool = False,
    tick: Callable[[float], None] | None = None,
) -> Cleaned:
    """Clean a page of any size with a denoiser for documents; other parameters are those of `page.restore_page`."""
    pixels, region = view.pixels, view.region
    height, width = pixels[region].shape[:2]
    document = _Document(view, denoiser, settings)
    rows, columns = (slice(edge.start // SQUARE, -(-edge.stop // SQUARE)) for edge in region)
    put_back = np.zeros([-(-side // SQUARE) for side in pixels.shape[:2]], np.bool_)
    if reason := document.reason_to_leave():
        return Cleaned(pixels, document.noise_levels, put_back, reason)
    if tick:
        tick(0)
    result = pixels.copy()
    half_widths = np.zeros(pixels.shape[:2], np.uint8) if uncertainty else None
    spread_sum = 0.0
    for start, stop in document.strips():
        result[region][start:stop], spread = document.cleaned_rows(start, stop)
        spread_sum += float(spread.sum(dtype=np.float64))
        if half_widths is not None:
            half_widths[region][start:stop] = np.clip(np.round(255 * spread), 0, 255)
        if tick:
            tick(stop / height)
    document.put_back_pictures()
    put_back[rows, columns] = _moved(document.put_back, region, put_back[rows, columns].shape)
    whole = (height, width) == pixels.shape[:2]
    return Cleaned(
        result,
        document.noise_levels,
        put_back,
        lightened=document.lightened(),
        removed=document.removed / (height * width),
        region=None if whole else (region[0].start, region[1].start, region[0].stop, region[1].stop),
        uncertainty=half_widths,
        spread=255 * spread_sum / (height * width),
    )


def _moved(squares: Mask, region: tuple[slice, slice], shape: tuple[int, ...]) -> Mask:
    """Map squares of a region to those squares of the whole page that contain their centres."""
    moved = np.zeros(shape, np.bool_)
    for row, column in np.argwhere(squares):
        offsets = ((region[0].start, row), (region[1].start, column))
        indices = ((start % SQUARE + SQUARE * index + SQUARE // 2) // SQUARE for start, index in offsets)
        moved[tuple(min(index, side - 1) for index, side in zip(indices, shape, strict=True))] = True
    return moved


class _Document:
    """A page, its noise and ink, and what was removed from it or put back."""

    def __init__(self, view: PageView, denoiser: Denoiser, settings: RestoreSettings) -> None:
        self.view, self.denoiser, self.settings = view, denoiser, settings
        self.page, self.paper = PageRows(view.pixels[view.region]), view.paper
        self.pictures = pictures_in(self.paper) if settings.gate else np.zeros_like(self.paper.outside)
        self.tint = self.paper.tint(TINT_QUANTILE)
        self.unit = float(self.tint.mean())
        """Levels of the page in one level of the divided page."""
        self.noise = self._estimated_noise() if settings.noise is None else settings.noise / 255 / self.unit
        self.noise_levels = 255 * self.unit * self.noise
        self.ink, self.black = self._measured_ink()
        self.put_back = np.zeros((-(-self.page.height // SQUARE), -(-self.page.width // SQUARE)), np.bool_)
        self.removed = 0

    def reason_to_leave(self) -> str:
        """Why the page is left as it is; empty if it is cleaned."""
        if self.settings.strength == 0:
            return NO_STRENGTH
        if self.paper.unevenness() > EVEN_PAPER:
            return ""
        if self.settings.paper == "white" and self.tint.min() < WHITE_PAPER:
            return ""
        return CLEAN if self.noise <= FAINT_NOISE else ""

    def strips(self) -> Iterator[tuple[int, int]]:
        """The first and the last row (exclusive) of each strip."""
        for start in range(0, self.page.height, STRIP):
            yield start, min(start + STRIP, self.page.height)

    def cleaned_rows(self, start: int, stop: int) -> tuple[Pixels, Floats]:
        """Some rows of the result, and their uncertainty as a share of white."""
        ratios, context = self._ratios_with_context(start, stop, self.denoiser.halo(self.settings.samples))
        plane = ratios.mean(axis=2)
        clean, spread = self.denoiser.restore_rows(
            plane, self.noise, spread=True, samples=self.settings.samples, start=start, context=context
        )
        inner = slice(context[0], len(ratios) - context[1])
        before = np.clip(1 - plane[inner], 0, 1)
        after = self._with_ink_kept(before, np.clip(1 - clean, 0, 1), start, stop)
        assert spread is not None
        return self._pixels(ratios[inner], before, after, start, stop), spread * np.float32(self.unit)

    def put_back_pictures(self) -> None:
        """Count a square as put back if its centre lies in a picture."""
        rows, columns = ((SQUARE * np.arange(count) + SQUARE // 2) // self.paper.block for count in self.put_back.shape)
        last_row, last_column = (side - 1 for side in self.pictures.shape)
        self.put_back |= self.pictures[np.ix_(np.minimum(rows, last_row), np.minimum(columns, last_column))]

    def lightened(self) -> float:
        """The share of the page that was too dark to be even paper before cleaning."""
        if self.settings.paper == "as-is":
            return 0.0
        dim = self.paper.values.mean(axis=2) < DIM * self.unit
        return float((dim & ~self.paper.outside & ~self.pictures).mean())

    def _estimated_noise(self) -> float:
        """The deviation of the noise of the page divided by its paper."""
        planes = (self.view.ratios(*band).mean(axis=2) for band in self.page.bands())
        return float(np.median([self.denoiser.noise_of(plane) for plane in planes]))

    def _measured_ink(self) -> tuple[InkModel, float]:
        """The usual stroke, and the darkness of the blackest strokes of the page divided by its paper."""
        bands = list(self.page.bands(INK_SAMPLE))
        parts = [ridges(self.page(start, stop), self.paper, start, self.noise) for start, stop in bands]
        model = ink_model(parts)
        depths = []
        for part, band in zip(parts, bands, strict=True):
            ratios = self.view.ratios(*band).mean(axis=2)
            depths.append(1 - ratios[part.depth > STRONG * model.depth])
        black = np.concatenate(depths)
        return model, float(np.quantile(black, BLACK_QUANTILE)) if black.size else UNKNOWN_DEPTH

    def _with_ink_kept(self, before: Floats, after: Floats, start: int, stop: int) -> Floats:
        """The ink after cleaning: as dark as before where it is certain, and nowhere darker, except for noise."""
        if not self.settings.gate:
            return after
        margin = reach(self.paper.block)
        first, last = max(0, start - margin), min(self.page.height, stop + margin)
        inner = slice(start - first, stop - first)
        measured = ridges(self.page(first, last), self.paper, first, self.noise)
        steep = self.paper.steep_rows(first, last, self.page.width)
        thick = self.paper.thick_rows(start, stop, self.page.width)
        certain = np.maximum(certainty(measured, self.ink, steep)[inner], thick)
        grain = np.float32(NOISE_ALLOWED * self.noise)
        mended = np.maximum(after, certain * np.clip(before - grain, 0, 1))
        self._record_squares(measured.depth[inner], before, after, mended, start)
        ink: Floats = np.minimum(mended, before + grain)
        return ink

    def _record_squares(self, depth: Floats, before: Floats, after: Floats, mended: Floats, start: int) -> None:
        """Record the squares in which ink was put back, and count the pixels of marks that stay removed."""
        from scipy import ndimage

        lost = (after < LOST * before) & (mended > LOST * before) & (depth > INK_FOR_CERTAIN * self.ink.depth)
        squares = split_squares(lost).sum((1, 3)) > LEAST_HARM
        self.put_back[start // SQUARE : start // SQUARE + len(squares)] |= squares
        # Depths are averaged, since the grain of paper has deep ridges that are no marks.
        marks = ndimage.uniform_filter(depth, 3, mode="nearest") > MARK * self.ink.depth
        self.removed += int((marks & (mended < LOST * before)).sum())

    def _pixels(self, ratios: Floats, before: Floats, after: Floats, start: int, stop: int) -> Pixels:
        """Cleaned rows as pixels, blended with the original by the strength, outside the page and in pictures."""
        ink = np.minimum(1, after / np.float32(self.black)) if self.settings.paper == "white" else after
        if ratios.shape[2] == 1:
            cleaned = 1 - ink[..., None]
        else:
            gain = np.clip(ink / np.maximum(before, DIVISIBLE), 0, MOST_GAIN)[..., None]
            trust = self.paper.hue_rows(start, stop, self.page.width)
            coloured = (trust * np.clip(before / GREY_BELOW, 0, 1))[..., None]
            cleaned = 1 - (coloured * (1 - ratios) * gain + (1 - coloured) * ink[..., None])
        original = self.page(start, stop)
        share = self._share_cleaned(original, start, stop)[..., None]
        blended = original + share * (self._on_paper(cleaned, start, stop) - original)
        return cast("Pixels", np.round(np.clip(blended, 0, 1) * self.page.full_scale).astype(self.page.pixels.dtype))

    def _share_cleaned(self, original: Floats, start: int, stop: int) -> Floats:
        """The share of the correction that each pixel receives: 0 outside the page and in pictures."""
        share: Floats = np.full(original.shape[:2], self.settings.strength, np.float32)
        share[self.paper.outside_rows(original, start)] = 0
        if self.pictures.any():
            share *= 1 - interpolated(self.pictures.astype(np.float32), self.paper.block, start, stop, self.page.width)
        return share

    def _on_paper(self, ratios: Floats, start: int, stop: int) -> Floats:
        """Cleaned rows of the divided page on the paper that the settings ask for."""
        if self.settings.paper == "keep":
            ratios *= self.tint
        elif self.settings.paper == "as-is":
            ratios *= self.paper.rows(start, stop, self.page.width)
        return ratios

    def _ratios_with_context(self, start: int, stop: int, halo: int) -> tuple[Floats, tuple[int, int]]:
        """Rows of the divided page with up to `halo` rows of context, and the rows of context above and below."""
        first, last = max(0, start - halo), min(self.page.height, stop + halo)
        return self.view.ratios(first, last), (start - first, last - stop)

"""Clean a page of print or handwriting: make its paper even, take away noise, stains and folds, and keep every stroke.

The page is divided by its paper. The denoiser sees the mean of the colours and says how much ink there is at each
pixel; that scales the ink's own colour, so that no hue changes. Where the page as it came in has ink (`ink`), the
result is to have it as well, as dark as it was. Nothing becomes darker, but for noise and for paper made white.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from vaeguard.restoration.cleaned import CELL, Cleaned, cells
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

# What tells a document from a photograph. Of the paper: how bright and how even it is, how much it changes from block
# to block, how wide strokes are in shares of the shorter side. Of the page divided by it: the shares that are white,
# ink and shades. The model card says what these were chosen on.
DARKEST_DOCUMENT, LEAST_EVEN, MOST_SLOPE, MOST_UNEVEN, WIDEST_STROKE = 0.35, 0.45, 0.035, 0.06, 0.0275
WHITE, SHADE, DARK = 0.9, 0.85, 0.6
LEAST_WHITE, LEAST_INK, MOST_INK = 0.56, 0.004, 0.25
MORE_SHADE, THIN_STROKE, MORE_SHADE_IF_THIN = 0.045, 0.012, 0.065

EVEN_PAPER = 0.02
"""Paper that varies by less needs no correction."""
FAINT_NOISE = 0.4 / 255
"""A page with less noise counts as free of noise: rounding to 8 bits alone is 0.3 of a level."""
TINT_QUANTILE = 0.8
WHITE_PAPER = 0.99
"""Paper from here on is white already."""
INK_SAMPLE = 400_000
"""Pixels on which the strokes of a page are measured."""
NOISE_ALLOWED = 2
"""Ink may become lighter or darker by so many deviations of the noise, since its grain goes."""
GREY_BELOW = 0.1
"""Ink fainter than this is colour noise as much as ink; the fainter it is, the greyer it comes out."""
MOST_GAIN, DIVISIBLE = 1.6, 0.02
BLACK_QUANTILE = 0.9
"""Where paper is made white, strokes as dark as this quantile become black."""
LEAST_HARM = 6
"""A square counts as put back if more than so many pixels of ink had lost over half of their depth."""
DIM = 0.7
"""Paper darker than this share of the page's tint counts as a stain or a shadow."""
INK_FOR_CERTAIN = 0.5
"""Ink counts as put back only if it is deeper than this share of the usual stroke."""
MARK, LOST = 0.3, 0.5
"""Marks at least this share of the usual stroke count as removed when more than this share of them is gone."""


@dataclass(frozen=True)
class PageView:
    """A picture seen as a page, before anything is done to it.

    Attributes
    ----------
    pixels : ndarray
        The whole picture, uint8 or uint16, shape (H, W, C).
    region : (slice, slice)
        The rows and columns that hold the page; around it there may be a lid or a table.
    paper : Paper
        Of the region.
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
        """Whether the picture is fairly even paper nearly everywhere, with strokes rather than shades on it.

        In doubt it is a photograph: a photograph cleaned as a document is flattened, the reverse only leaves stains.
        """
        paper, page = self.paper, PageRows(self.pixels[self.region])
        levels = paper.values.mean(axis=2)
        inside = levels[~paper.outside]
        slope = np.hypot(*np.gradient(np.pad(levels, 1, mode="edge")))[1:-1, 1:-1][~paper.outside] / inside
        uneven = paper.rough[~paper.outside].mean()
        if (
            np.median(inside) < DARKEST_DOCUMENT
            or np.quantile(inside, 0.05) < LEAST_EVEN * np.quantile(inside, 0.95)
            or slope.mean() > MOST_SLOPE
            or uneven > MOST_UNEVEN
            or paper.stroke > WIDEST_STROKE * min(page.height, page.width)
        ):
            return False
        ratios = np.concatenate([self.ratios(*band).mean(axis=2).ravel() for band in page.bands()])
        white, ink = (np.abs(ratios - 1) < 1 - WHITE).mean(), (ratios < DARK).mean()
        shade = ((ratios >= DARK) & (ratios < SHADE)).mean()
        thin = paper.stroke < THIN_STROKE * min(page.height, page.width)
        more = MORE_SHADE_IF_THIN if thin else MORE_SHADE
        return bool(white >= LEAST_WHITE and LEAST_INK <= ink <= MOST_INK and shade <= ink + more)

    def ratios(self, start: int, stop: int) -> Floats:
        """Rows of the page divided by its paper; what is outside the page is as bright as paper."""
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
    """Clean a page of any size.

    Parameters
    ----------
    view : PageView
        The page.
    denoiser : Denoiser
        For documents.
    settings : RestoreSettings
        How the page is cleaned.
    uncertainty : bool
        Also give the uncertainty of each pixel.
    tick : callable or None
        Called with 0 when something is to be done, and after each strip of rows with the share that is done; what it
        raises ends the work.
    """
    pixels, region = view.pixels, view.region
    page = pixels[region]
    document = _Document(view, denoiser, settings)
    rows, columns = (slice(edge.start // CELL, -(-edge.stop // CELL)) for edge in region)
    put_back = np.zeros([-(-side // CELL) for side in pixels.shape[:2]], np.bool_)
    if reason := document.reason_to_leave():
        return Cleaned(pixels, document.noise_levels, put_back, reason)
    if tick:
        tick(0)
    result = pixels.copy()
    wide = np.zeros(pixels.shape[:2], np.uint8) if uncertainty else None
    spread_sum = 0.0
    for start, stop in document.strips():
        result[region][start:stop], spread = document.cleaned_rows(start, stop)
        spread_sum += float(spread.sum(dtype=np.float64))
        if wide is not None:
            wide[region][start:stop] = np.clip(np.round(255 * spread), 0, 255)
        if tick:
            tick(stop / len(page))
    whole = page.shape == pixels.shape
    document.note_pictures()
    put_back[rows, columns] = _moved(document.put_back, region, put_back[rows, columns].shape)
    area = page.shape[0] * page.shape[1]
    return Cleaned(
        result,
        document.noise_levels,
        put_back,
        lightened=document.lightened(),
        removed=document.removed / area,
        region=None if whole else (region[0].start, region[1].start, region[0].stop, region[1].stop),
        uncertainty=wide,
        spread=255 * spread_sum / area,
    )


def _moved(squares: Mask, region: tuple[slice, slice], shape: tuple[int, ...]) -> Mask:
    """Squares of a part of a page, as the squares of the whole page that they mostly lie in."""
    moved = np.zeros(shape, np.bool_)
    for row, column in np.argwhere(squares):
        places = zip(region, (row, column), strict=True)
        at = ((edge.start % CELL + CELL * number + CELL // 2) // CELL for edge, number in places)
        moved[tuple(min(each, side - 1) for each, side in zip(at, shape, strict=True))] = True
    return moved


class _Document:
    """A page as the plane that a denoiser takes, and back."""

    def __init__(self, view: PageView, denoiser: Denoiser, settings: RestoreSettings) -> None:
        self.view, self.denoiser, self.settings = view, denoiser, settings
        self.page, self.paper = PageRows(view.pixels[view.region]), view.paper
        self.pictures = pictures_in(self.paper) if settings.gate else np.zeros_like(self.paper.outside)
        self.tint = self.paper.tint(TINT_QUANTILE)
        self.unit = float(self.tint.mean())
        """How many levels of the page one level of the divided page is worth."""
        if settings.noise is not None:
            self.noise = settings.noise / 255 / self.unit
        else:
            self.noise = float(
                np.median([denoiser.noise_of(self.view.ratios(*band).mean(axis=2)) for band in self.page.bands()])
            )
        self.noise_levels = 255 * self.unit * self.noise
        self.ink, self.black = self._measured_ink()
        self.put_back = np.zeros((-(-self.page.height // CELL), -(-self.page.width // CELL)), np.bool_)
        self.removed = 0

    def reason_to_leave(self) -> str:
        """Why nothing is to be done; empty if something is."""
        if self.settings.strength == 0:
            return NO_STRENGTH
        if self.paper.unevenness() > EVEN_PAPER:
            return ""
        if self.settings.paper == "white" and self.tint.min() < WHITE_PAPER:
            return ""
        return CLEAN if self.noise <= FAINT_NOISE else ""

    def strips(self) -> Iterator[tuple[int, int]]:
        """Where strips of rows begin and end."""
        for start in range(0, self.page.height, STRIP):
            yield start, min(start + STRIP, self.page.height)

    def cleaned_rows(self, start: int, stop: int) -> tuple[Pixels, Floats]:
        """Some rows of the result, and how uncertain they are as a share of white."""
        ratios, context = self._with_context(start, stop, self.denoiser.halo(self.settings.samples))
        plane = ratios.mean(axis=2)
        clean, spread = self.denoiser.restore_rows(
            plane, self.noise, spread=True, samples=self.settings.samples, start=start, context=context
        )
        here = slice(context[0], len(ratios) - context[1])
        before = np.clip(1 - plane[here], 0, 1)
        after = self._with_ink_kept(before, np.clip(1 - clean, 0, 1), start, stop)
        assert spread is not None
        return self._pixels(ratios[here], before, after, start, stop), spread * np.float32(self.unit)

    def note_pictures(self) -> None:
        """Count squares with a picture in their middle as put back."""
        rows, columns = ((CELL * np.arange(count) + CELL // 2) // self.paper.block for count in self.put_back.shape)
        last_row, last_column = (side - 1 for side in self.pictures.shape)
        self.put_back |= self.pictures[np.ix_(np.minimum(rows, last_row), np.minimum(columns, last_column))]

    def lightened(self) -> float:
        """Share of the page that was too dark for paper to be even, and no longer is."""
        if self.settings.paper == "as-is":
            return 0.0
        dim = self.paper.values.mean(axis=2) < DIM * self.unit
        return float((dim & ~self.paper.outside & ~self.pictures).mean())

    def _measured_ink(self) -> tuple[InkModel, float]:
        """What the strokes are like, and how dark the blackest are on the page divided by its paper."""
        parts, blacks = [], []
        for start, stop in self.page.bands(INK_SAMPLE):
            parts.append(ridges(self.page(start, stop), self.paper, start, self.noise))
        model = ink_model(parts)
        for part, (start, stop) in zip(parts, self.page.bands(INK_SAMPLE), strict=True):
            ratios = self.view.ratios(start, stop).mean(axis=2)
            blacks.append(1 - ratios[part.depth > STRONG * model.depth])
        black = np.concatenate(blacks)
        return model, float(np.quantile(black, BLACK_QUANTILE)) if black.size else UNKNOWN_DEPTH

    def _with_ink_kept(self, before: Floats, after: Floats, start: int, stop: int) -> Floats:
        """Ink after cleaning: as dark as before where it was ink for certain, and nowhere darker, but for noise."""
        if not self.settings.gate:
            return after
        far = reach(self.paper.block)
        first, last = max(0, start - far), min(self.page.height, stop + far)
        here = slice(start - first, stop - first)
        found = ridges(self.page(first, last), self.paper, first, self.noise)
        steep = self.paper.steep_rows(first, last, self.page.width)
        thick = self.paper.thick_rows(start, stop, self.page.width)
        certain = np.maximum(certainty(found, self.ink, steep)[here], thick)
        grain = np.float32(NOISE_ALLOWED * self.noise)
        kept = np.maximum(after, certain * np.clip(before - grain, 0, 1))
        self._note(found.depth[here], before, after, kept, start)
        ink: Floats = np.minimum(kept, before + grain)
        return ink

    def _note(self, depth: Floats, before: Floats, after: Floats, kept: Floats, start: int) -> None:
        """Count the squares whose ink had to be put back, and the pixels of marks that stay removed."""
        from scipy import ndimage

        lost = (after < LOST * before) & (kept > LOST * before) & (depth > INK_FOR_CERTAIN * self.ink.depth)
        squares = cells(lost).sum((1, 3)) > LEAST_HARM
        self.put_back[start // CELL : start // CELL + len(squares)] |= squares
        # Depths are averaged, since the grain of paper has deep ridges that are no marks.
        marks = ndimage.uniform_filter(depth, 3, mode="nearest") > MARK * self.ink.depth
        self.removed += int((marks & (kept < LOST * before)).sum())

    def _pixels(self, ratios: Floats, before: Floats, after: Floats, start: int, stop: int) -> Pixels:
        """Cleaned rows as pixels, mixed with the original by the strength and where there is no page."""
        ink = np.minimum(1, after / np.float32(self.black)) if self.settings.paper == "white" else after
        if ratios.shape[2] == 1:
            flat = 1 - ink[..., None]
        else:
            gain = np.clip(ink / np.maximum(before, DIVISIBLE), 0, MOST_GAIN)[..., None]
            trust = self.paper.hue_rows(start, stop, self.page.width)
            coloured = (trust * np.clip(before / GREY_BELOW, 0, 1))[..., None]
            flat = 1 - (coloured * (1 - ratios) * gain + (1 - coloured) * ink[..., None])
        original = self.page(start, stop)
        share = self._share_cleaned(original, start, stop)[..., None]
        mixed = original + share * (self._on_paper(flat, start, stop) - original)
        return cast("Pixels", np.round(np.clip(mixed, 0, 1) * self.page.full).astype(self.page.pixels.dtype))

    def _share_cleaned(self, original: Floats, start: int, stop: int) -> Floats:
        """How much of the correction each pixel gets: none outside of the page and in pictures."""
        share: Floats = np.full(original.shape[:2], self.settings.strength, np.float32)
        share[self.paper.outside_rows(original, start)] = 0
        if self.pictures.any():
            share *= 1 - interpolated(self.pictures.astype(np.float32), self.paper.block, start, stop, self.page.width)
        return share

    def _on_paper(self, flat: Floats, start: int, stop: int) -> Floats:
        if self.settings.paper == "keep":
            flat *= self.tint
        elif self.settings.paper == "as-is":
            flat *= self.paper.rows(start, stop, self.page.width)
        return flat

    def _with_context(self, start: int, stop: int, halo: int) -> tuple[Floats, tuple[int, int]]:
        first, last = max(0, start - halo), min(self.page.height, stop + halo)
        return self.view.ratios(first, last), (start - first, last - stop)

"""Restore one page: what is noise, what is paper, what is picture, and what had better stay as it was.

Everything runs in strips of rows, so that a page of any size costs little more memory than its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from vaeguard.errors import RefusedError
from vaeguard.restoration.noise import colour_noise, halved
from vaeguard.restoration.paper import (
    BRIGHTEST,
    DIM,
    block_pixels,
    bright_blocks,
    divided,
    interpolated,
    paper_map,
    pictures_in,
)
from vaeguard.restoration.reasons import CLEAN, NO_STRENGTH
from vaeguard.restoration.scan_page import colours_of
from vaeguard.restoration.spec import RestoreSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from vaeguard.detector import Detector
    from vaeguard.restoration.denoiser import Denoiser

    Floats = npt.NDArray[np.float32]
    Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

STRIP = 640
"""Rows that are in work at a time, a multiple of every grid."""
FAINT_NOISE = 0.4 / 255
"""Below, a photograph counts as clean: rounding to 8 bits alone is 0.3 of a level."""
PIXEL_ROWS = 128
"""Rows of a strip that become pixels at a time, which takes five copies of their colours."""
CELL = 32
"""Side of the squares in which a page may go back to what it was, in pixels."""
SAMPLE_PIXELS, BAND = 4_000_000, 256
"""Of larger pages, bands of so many rows stand for the whole."""
EVEN_PAPER = 0.02
"""Paper that varies by less needs no correction."""
TINT_QUANTILE = 0.8
"""The tint of a page is that of its brighter paper, since stains and shadows darken."""
WHITE_PAPER = 0.99
"""From here on `--paper white` finds nothing to do."""
OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0, -1 / 2], [1 / 4, -1 / 2, 1 / 4]], np.float32)
"""Mean, red against blue, green against both: the noise of the mean is the smallest."""
_OFFSET = np.array([0, 0.5, 0.5], np.float32)
COLOUR_SCALES = 2
"""So many times differences of colours are halved, to be cleaned of grain that is wider than a pixel."""
INVERSE_OPPONENT = np.linalg.inv(OPPONENT.astype(np.float64)).astype(np.float32)

# What tells a document from a photograph: of a page divided by its paper, the shares that are white and ink, and ink
# against shades; of the paper itself, how bright it is and how even. The model card says what they were chosen on.
WHITE, SHADE, DARK = 0.9, 0.85, 0.6
LEAST_WHITE, LEAST_INK, LEAST_INK_TO_SHADE = 0.6, 0.01, 0.5
STROKES, MOST_THICK = 4, 0.05
"""Ink that is thicker than so many strokes of print is none, unless there is more ink than shade."""
DARKEST_DOCUMENT, LEAST_EVEN = 0.5, 0.42

# What counts as harm.
INK, PAPER = 0.5, 0.8
"""Levels of a page divided by its paper: darker is ink for certain, brighter is paper for certain."""
LEAST_HARM = 6.0
"""Pixels of ink, at full strength, that may come or go within a square."""
NOISE_REMOVED = 3.0
"""More than so many times the noise taken from a square of a photograph means that detail went with it."""


@dataclass(frozen=True)
class PageReport:
    """What was done to one page.

    Attributes
    ----------
    kind : str
        `document` or `photo`; `model` of an anomaly model; `untouched` where there was nothing to do.
    noise : float
        Standard deviation of the noise in levels of 0 to 255; of a photograph in colour that of each colour, if it is
        independent of the others.
    change : float
        Root mean square of all changes, in levels of 0 to 255.
    reverted : float
        Share of the page's squares that went back to what they were.
    uncertainty : float
        Mean half-width of the interval that holds the clean value in nine of ten cases, in levels of 0 to 255.
    lightened : float
        Share of a document that was darker than paper mostly is, and was made as bright, as if it were a stain.
    squares : tuple of str
        Which squares went back, if any did: a text for each row of squares, `#` what went back and `.` the rest.
    reason : str
        Why a page was left bit for bit as it was, a clause in the singular without numbers; empty if it was restored.
    region : (int, int, int, int) or None
        Top, left, bottom and right of what was cleaned, in pixels; None for the whole page.
    removed : float
        Share of the page whose marks were taken away as a stain, bleed-through or dirt.
    """

    kind: str
    noise: float
    change: float
    reverted: float
    uncertainty: float
    lightened: float = 0.0
    squares: tuple[str, ...] = ()
    reason: str = ""
    region: tuple[int, int, int, int] | None = None
    removed: float = 0.0


@dataclass(frozen=True)
class RestoredPage:
    """A restored page: pixels as they came in, what was done, and the uncertainty of each pixel if asked for."""

    pixels: Pixels
    report: PageReport
    uncertainty: npt.NDArray[np.uint8] | None = None


def restore_page(
    pixels: Pixels,
    denoiser: Callable[[str], Denoiser],
    settings: RestoreSettings,
    *,
    dpi: float | None = None,
    uncertainty: bool = False,
    tick: Callable[[float], None] | None = None,
) -> RestoredPage:
    """Restore a page of any size.

    Parameters
    ----------
    pixels : ndarray
        uint8 or uint16, shape (H, W), or (H, W, C) with C 1 to 4; the last of two or four channels, opacity, stays.
    denoiser : callable
        Gives the denoiser for `document` or `photo`.
    settings : RestoreSettings
        How.
    dpi : float or None
        Pixels per inch; None takes the page for as wide as A4.
    uncertainty : bool
        Also give the uncertainty of each pixel.
    tick : callable or None
        Called with 0 once it is clear that the page is not left as it is, then after each strip of rows with the share
        of the page that is done; what it raises ends the work.

    Returns
    -------
    RestoredPage
        Of the same shape and type.
    """
    plain = pixels[..., None] if pixels.ndim == 2 else pixels
    channels = colours_of(plain).shape[2]
    planes = plain[..., :1] if channels == 3 and _is_grey(plain) else plain[..., :channels]
    page = _Page(planes, block_pixels(planes.shape[1], dpi), settings)
    engine = denoiser(page.kind)
    page.measure_noise(engine)
    if page.is_clean():
        reason = CLEAN if settings.strength else NO_STRENGTH
        return RestoredPage(pixels, PageReport("untouched", page.noise_levels, 0.0, 0.0, 0.0, reason=reason))
    if tick:
        tick(0.0)
    whole = plain.copy()
    restored = whole[..., : planes.shape[2]]
    wide = page.restore(engine, restored, uncertainty=uncertainty, tick=tick)
    reverted = page.put_back(restored) if settings.gate else 0.0
    whole[..., :channels] = restored
    found = PageReport(
        kind=page.kind,
        noise=page.noise_levels,
        change=_root_mean_square(planes, restored),
        reverted=reverted,
        uncertainty=255 * page.mean_spread * page.unit,
        lightened=page.lightened(),
        squares=page.squares() if reverted else (),
    )
    return RestoredPage(whole.reshape(pixels.shape), found, wide)


def restore_small(pixels: Pixels, detector: Detector, settings: RestoreSettings) -> RestoredPage:
    """Restore an image of exactly the size that an anomaly model takes: its `restored` is the clean image.

    Raises
    ------
    RefusedError
        The image has another size or other channels.
    """
    plain = pixels[..., None] if pixels.ndim == 2 else pixels
    channels, height, width = detector.info.image_shape
    if plain.shape != (height, width, channels):
        found = f"{plain.shape[0]}x{plain.shape[1]} pixels and {plain.shape[2]} channels"
        raise RefusedError(f"it has {found}, the model takes {height}x{width} and {channels}")
    full = np.float32(np.iinfo(pixels.dtype).max)
    before = plain.astype(np.float32) / full
    # In 256 steps, as images are in training and scoring; the finer ones of the page are kept beside the correction.
    seen = np.round(before * 255).astype(np.uint8)
    inspected = detector.inspect(np.ascontiguousarray(seen.transpose(2, 0, 1)[None]), pictures=True)
    assert inspected.restored is not None
    mixed = before + np.float32(settings.strength) * (inspected.restored[0].transpose(1, 2, 0) - before)
    clean = cast("Pixels", np.round(np.clip(mixed, 0, 1) * full).astype(pixels.dtype)).reshape(pixels.shape)
    return RestoredPage(clean, PageReport("model", 0.0, _root_mean_square(pixels, clean), 0.0, 0.0))


def page_kind(pixels: Pixels, dpi: float | None = None) -> str:
    """Whether a page is a `document` or a `photo`: shape (H, W) or (H, W, C), uint8 or uint16."""
    return _Page(colours_of(pixels), block_pixels(pixels.shape[1], dpi), RestoreSettings()).kind


def divided_page(page: Floats, dpi: float | None = None) -> Floats:
    """A grey page divided by its paper, as the denoiser of documents takes it: shape (H, W), 0 to 1 in, to 1.5 out."""
    return divided(page, block_pixels(page.shape[1], dpi))


class _Page:
    """A page as the planes that a denoiser takes, and back."""

    def __init__(self, colours: Pixels, block: int, settings: RestoreSettings) -> None:
        self.colours, self.block, self.settings = colours, block, settings
        self.full = np.float32(np.iinfo(colours.dtype).max)
        self.height, self.width, self.channels = colours.shape
        channels = range(self.channels) if settings.kind != "photo" else ()
        self.paper = [self._paper_of(channel) for channel in channels]
        self.tint = [np.float32(np.quantile(paper, TINT_QUANTILE)) for paper in self.paper]
        self.kind = settings.kind if settings.kind != "auto" else self._told_kind()
        self.differs = self.kind == "photo" and self.channels == 3
        """Its planes are the mean and two differences of colours."""
        # One of the planes' units in pixels: a document's are shares of its paper.
        self.unit = float(self.tint[0]) if self.kind == "document" else 1.0
        self.noise: list[float] = []
        self.noise_levels = 0.0
        self.colour_grain: list[npt.NDArray[np.float16]] = []
        """Of each difference of colours what is wider than a pixel, at half the resolution."""
        self.pictures = self._pictures()
        self.harm = self._squares_of(self.pictures)
        """Squares that go back to what they were."""
        self.mean_spread = 0.0

    def _pictures(self) -> npt.NDArray[np.bool_]:
        """The blocks of a document's paper that are a picture and are put back."""
        if self.kind != "document" or not self.settings.gate:
            return np.zeros(self.paper[0].shape if self.paper else (0, 0), np.bool_)
        return pictures_in(np.mean(self.paper, axis=0), float(np.mean(self.tint)))

    def _squares_of(self, blocks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The squares that hold some of these blocks of paper."""
        squares = np.zeros((-(-self.height // CELL), -(-self.width // CELL)), np.bool_)
        rows, columns = np.nonzero(blocks)
        for corner in (0, self.block - 1):  # a block may lie across two squares
            down, right = ((each * self.block + corner) // CELL for each in (rows, columns))
            squares[np.minimum(down, len(squares) - 1), np.minimum(right, squares.shape[1] - 1)] = True
        return squares

    def measure_noise(self, denoiser: Denoiser) -> None:
        """Find how strong the noise of each plane is, unless the settings say it, and the wide grain of colours."""
        if self.settings.noise is not None:
            level = self.settings.noise / 255
            if self.differs:
                self.noise = [level * float(np.linalg.norm(row)) for row in OPPONENT]
            else:
                self.noise = [level / float(tint) for tint in self.tint] if self.kind == "document" else [level]
            self.noise_levels = self.settings.noise
            return
        if self.differs:
            halves = self._halved_differences()
            while halves:  # one is let go before the next is worked on
                half = halves.pop(0)
                grain = half - _cleaned_at_scales(half, denoiser, COLOUR_SCALES - 1)
                self.colour_grain.append(grain.astype(np.float16))
        bands = [self._planes(start, stop) for start, stop in self._bands()]
        for number in range(len(bands[0])):
            measure = colour_noise if self.differs and number else denoiser.noise_of
            self.noise.append(float(np.median([measure(planes[number]) for planes in bands])))
        of_one_colour = float(np.linalg.norm(OPPONENT[0])) if self.differs else 1.0
        self.noise_levels = 255 * self.noise[0] * self.unit / of_one_colour

    def is_clean(self) -> bool:
        """Whether there is nothing to restore."""
        flat = all(np.ptp(np.quantile(paper, (0.05, 0.95))) <= EVEN_PAPER for paper in self.paper)
        level = FAINT_NOISE if self.settings.noise is None else 0
        as_wanted = self.kind == "photo" or (
            flat and not (self.settings.paper == "white" and min(self.tint) < WHITE_PAPER)
        )
        grain = any(each.any() for each in self.colour_grain)
        return self.settings.strength == 0 or (max(self.noise) <= level and not grain and as_wanted)

    def restore(
        self, denoiser: Denoiser, result: Pixels, *, uncertainty: bool, tick: Callable[[float], None] | None = None
    ) -> npt.NDArray[np.uint8] | None:
        """Restore all colours into `result` and return the uncertainty; squares that were harmed are noted."""
        wide = np.empty((self.height, self.width), np.uint8) if uncertainty else None
        total = 0.0
        for start in range(0, self.height, STRIP):
            stop = min(start + STRIP, self.height)
            planes, spread = self._clean_strip(denoiser, start, stop)
            for first in range(start, stop, PIXEL_ROWS):
                last = min(first + PIXEL_ROWS, stop)
                rows = [plane[first - start : last - start] for plane in planes]
                result[first:last] = self._pixels(rows, first, last)
            total += float(spread.sum(dtype=np.float64))
            if wide is not None:
                wide[start:stop] = np.clip(np.round(255 * self.unit * spread), 0, 255)
            if tick:
                tick(stop / self.height)
        self.mean_spread = total / (self.height * self.width)
        return wide

    def put_back(self, restored: Pixels) -> float:
        """Put the original back where it was harmed, blended in around; returns the share of such squares."""
        from scipy import ndimage

        if self.harm.any():
            # With its neighbours, or the blend would begin inside.
            kept = np.float32(1) - ndimage.maximum_filter(self.harm.astype(np.float32), 3)
            for start in range(0, self.height, STRIP):
                stop = min(start + STRIP, self.height)
                share = interpolated(kept, CELL, start, stop, self.width)[..., None]
                before, after = self.colours[start:stop].astype(np.float32), restored[start:stop].astype(np.float32)
                restored[start:stop] = np.round(before + share * (after - before)).astype(restored.dtype)
        return float(self.harm.mean())

    def lightened(self) -> float:
        """Share of the page that was too dark for paper to be even, and no longer is, as in `PageReport`."""
        if self.kind != "document" or self.settings.paper == "as-is":
            return 0.0
        dim = np.mean(self.paper, axis=0) < DIM * np.mean(self.tint)
        return float((dim & ~self.pictures).mean())

    def squares(self) -> tuple[str, ...]:
        """Where the original was put back, as in `PageReport`."""
        return tuple("".join(row) for row in np.where(self.harm, "#", "."))

    def _clean_strip(self, denoiser: Denoiser, start: int, stop: int) -> tuple[list[Floats], Floats]:
        """The planes of some rows, cleaned, and the uncertainty of the first."""
        samples = self.settings.samples
        halo = denoiser.halo(samples)
        first, last = max(0, start - halo), min(self.height, stop + halo)
        context = start - first, last - stop
        planes = self._planes(first, last)
        cleaned: list[Floats] = []
        for number, plane in enumerate(planes):
            if self.colour_grain and number and self.noise[number] <= FAINT_NOISE:
                cleaned.append(plane[start - first : stop - first])
                continue
            clean, spread = denoiser.restore_rows(
                plane, self.noise[number], spread=not number, samples=samples, start=start, context=context
            )
            if spread is not None:
                first_spread = spread
            if self.kind == "document" or number == 0:
                self._note_harm(plane[start - first : stop - first], clean, start)
            cleaned.append(clean)
        return cleaned, first_spread

    def _note_harm(self, before: Floats, after: Floats, start: int) -> None:
        if self.kind == "document":
            lost = _ink(before, INK) * (after > PAPER)
            invented = _ink(after, INK) * (before > PAPER)
            harm = _cells(np.maximum(lost, invented)).sum((1, 3)) > LEAST_HARM
        else:
            removed = _cells((before - after) ** 2).mean((1, 3))
            harm = removed > (NOISE_REMOVED * (self.noise[0] + FAINT_NOISE)) ** 2
        self.harm[start // CELL : start // CELL + len(harm)] |= harm

    def _pixels(self, planes: list[Floats], start: int, stop: int) -> Pixels:
        """Cleaned planes as pixels, mixed with the original by the strength."""
        before = self._colours(start, stop)
        after: Floats
        if self.kind == "document":
            after = np.stack([self._on_paper(plane, n, start, stop) for n, plane in enumerate(planes)], axis=-1)
        elif len(planes) == 3:
            after = np.matmul(np.stack(planes, axis=-1) - _OFFSET, INVERSE_OPPONENT.T)
        else:
            after = planes[0][..., None]
        mixed = before + np.float32(self.settings.strength) * (after - before)
        return cast("Pixels", np.round(np.clip(mixed, 0, 1) * self.full).astype(self.colours.dtype))

    def _on_paper(self, plane: Floats, channel: int, start: int, stop: int) -> Floats:
        if self.settings.paper == "white":
            return plane
        if self.settings.paper == "keep":
            return plane * self.tint[channel]
        return plane * interpolated(self.paper[channel], self.block, start, stop, self.width)

    def _planes(self, start: int, stop: int) -> list[Floats]:
        """Rows of the page as the denoiser takes them: 0 to 1, a document divided by its paper."""
        colours = self._colours(start, stop)
        if self.kind == "document":
            return [self._divided(colours[..., channel], channel, start, stop) for channel in range(self.channels)]
        if self.channels == 1:
            return [colours[..., 0]]
        turned = colours @ OPPONENT.T
        del colours
        turned += _OFFSET
        for number, grain in enumerate(self.colour_grain, 1):
            turned[..., number] -= interpolated(cast("Floats", grain), 2, start, stop, self.width)
        return [np.ascontiguousarray(turned[..., number]) for number in range(3)]

    def _halved_differences(self) -> list[Floats]:
        """The two differences of colours of the whole page at half the resolution, of odd sides rounded up."""
        strips = []
        for start in range(0, self.height, STRIP):
            stop = min(start + STRIP, self.height)
            differences = self._planes(start, stop)[1:]
            ends = (0, (stop - start) % 2), (0, self.width % 2)
            strips.append([halved(np.pad(each, ends, mode="edge")) for each in differences])
        return [np.concatenate(parts) for parts in zip(*strips, strict=True)]

    def _divided(self, rows: Floats, channel: int, start: int, stop: int) -> Floats:
        paper = interpolated(self.paper[channel], self.block, start, stop, self.width)
        flat: Floats = np.minimum(rows / paper, np.float32(BRIGHTEST))
        return flat

    def _colours(self, start: int, stop: int) -> Floats:
        return self.colours[start:stop].astype(np.float32) / self.full

    def _paper_of(self, channel: int) -> Floats:
        rows = STRIP // self.block * self.block
        strips = (self._colours(start, min(start + rows, self.height)) for start in range(0, self.height, rows))
        return paper_map(np.concatenate([bright_blocks(strip[..., channel], self.block) for strip in strips]))

    def _bands(self) -> Iterator[tuple[int, int]]:
        """Rows from all over the page that stand for it."""
        if self.height * self.width <= SAMPLE_PIXELS or self.height <= BAND:
            yield 0, self.height
            return
        count = max(3, SAMPLE_PIXELS // (BAND * self.width))
        for start in np.linspace(0, self.height - BAND, count).astype(int):
            yield int(start), int(start) + BAND

    def _told_kind(self) -> str:
        """A document is bright, fairly even paper nearly everywhere, and on it ink rather than shades.

        In doubt a page is a photograph: cleaning one as a document would destroy it, the reverse leaves stains.
        """
        paper = np.mean(self.paper, axis=0)
        if np.median(paper) < DARKEST_DOCUMENT or np.quantile(paper, 0.05) < LEAST_EVEN * np.quantile(paper, 0.95):
            return "photo"
        divided = [
            np.mean([self._divided(self._colours(a, b)[..., c], c, a, b) for c in range(self.channels)], axis=0)
            for a, b in self._bands()
        ]
        page = np.concatenate(divided)
        white, ink = (np.abs(page - 1) < 1 - WHITE).mean(), (page < DARK).mean()
        shade = ((page >= DARK) & (page < SHADE)).mean()
        told = white >= LEAST_WHITE and ink >= LEAST_INK and ink >= LEAST_INK_TO_SHADE * shade
        if told and ink < shade:
            from scipy import ndimage

            thick = ndimage.grey_opening((page < DARK).astype(np.uint8), STROKES * self.block // 2, mode="nearest")
            told = thick.mean() <= MOST_THICK * ink
        return "document" if told else "photo"


def _cleaned_at_scales(plane: Floats, denoiser: Denoiser, scales: int) -> Floats:
    """A difference of colours without noise, at its own resolution and, before, at so many halves of it.

    From coarse to fine, as noise of any width is found in the multiscale denoising of Lebrun, Colom and Morel (2015).
    """
    if scales and min(plane.shape) > CELL:
        half = halved(np.pad(plane, [(0, side % 2) for side in plane.shape], mode="edge"))
        grain = half - _cleaned_at_scales(half, denoiser, scales - 1)
        plane = plane - interpolated(grain, 2, 0, *plane.shape)
    noise = colour_noise(plane)
    return denoiser.restore(plane, noise)[0] if noise > FAINT_NOISE else plane


def _is_grey(pixels: Pixels) -> bool:
    """Whether red, green and blue are the same everywhere."""
    return all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in (1, 2))


def _ink(rows: Floats, level: float) -> Floats:
    """How much ink a pixel has beyond doubt, 0 to 1."""
    ink: Floats = np.clip((np.float32(level) - rows) / np.float32(level), 0, 1)
    return ink


def _cells(rows: Floats) -> Floats:
    """Shape (rows, CELL, columns, CELL); what is missing at the ends counts as nothing."""
    height, width = rows.shape
    padded = np.pad(rows, ((0, -height % CELL), (0, -width % CELL)))
    return padded.reshape(padded.shape[0] // CELL, CELL, -1, CELL)


def _root_mean_square(before: Pixels, after: Pixels) -> float:
    """Of the difference, in levels of 0 to 255."""
    total = 0.0
    for start in range(0, len(before), STRIP):
        part = slice(start, start + STRIP)
        total += float(((after[part].astype(np.float32) - before[part].astype(np.float32)) ** 2).sum(dtype=np.float64))
    return float(np.sqrt(total / before.size)) * 255 / float(np.iinfo(before.dtype).max)

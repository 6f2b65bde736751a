"""Restore one photograph: how strong its noise is, what to take away, and what had better stay as it was.

Everything runs in strips of rows, so that a photograph of any size costs little more memory than its pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from vaeguard.restoration.cleaned import CELL, Cleaned
from vaeguard.restoration.noise import CELL as NOISE_CELL
from vaeguard.restoration.noise import DIFFERENCES, INVERSE_DIFFERENCES, NoiseCurve, fitted_curve, halved
from vaeguard.restoration.paper import interpolated
from vaeguard.restoration.reasons import CLEAN, IN_DOUBT, NO_STRENGTH, ONLY_DETAIL, TOO_SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from vaeguard.restoration.denoiser import Denoiser
    from vaeguard.settings.restoration import RestoreSettings

    Floats = npt.NDArray[np.float32]
    Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

STRIP = 640
"""Rows that are in work at a time, a multiple of every grid."""
STRIP_PIXELS, FEWEST_ROWS = 1_900_000, 128
"""Strips have at most so many pixels, but at least so many rows, since memory grows with pixels."""
FAINT = {1: 2.6, 3: 0.65}
"""Levels of 0 to 255, by colours: noise that is not certainly stronger is not worth the risk to texture, and grey tells
less of its noise."""
LIKELY = 2.5
"""Levels of 0 to 255: an estimate above this that may still be texture leaves a photograph in doubt."""
ALLOWED = 1.0
"""Levels of 0 to 255 that may be removed besides the noise, since rounding adds some."""
FEWEST_SIDE = 16
"""Pixels; an image with a shorter side tells nothing of its noise."""
SAMPLE_PIXELS, BAND = 400_000, 96
"""Larger photographs are judged by bands of so many rows."""
NEAR = 2
"""Pixels at half the resolution on each side over which brightness is averaged before the noise is looked up."""
MUCH_REMOVED = (2.0, 3.0)
"""Up to so many times its noise may be taken from a square; beyond, the original comes back, wholly from the second."""


def restore_photo(
    colours: Pixels,
    denoiser: Callable[[str], Denoiser],
    settings: RestoreSettings,
    *,
    uncertainty: bool = False,
    tick: Callable[[float], None] | None = None,
) -> Cleaned:
    """Restore a photograph of any size.

    Parameters
    ----------
    colours : ndarray
        uint8 or uint16, shape (H, W, 1) or (H, W, 3).
    denoiser : callable
        Gives the denoiser for `photo`, which is grey, or for `colour`; a grey one for `colour` cleans the mean and
        two differences of the colours one by one.
    settings : RestoreSettings
        How it is cleaned; settings for paper have no effect.
    uncertainty : bool
        Also give the uncertainty of each pixel.
    tick : callable or None
        Called with 0 when something is to be done, and after each strip of rows with the share that is done; what it
        raises ends the work.

    Returns
    -------
    Cleaned
        With a reason, if nothing was done.

    Raises
    ------
    RefusedError
        Samples are asked for, and the denoiser has no ladder VAE.
    """
    photo = _Photo(colours, denoiser("colour" if colours.shape[2] == 3 else "photo"), settings)
    reason = photo.measure_noise()
    if reason:
        return photo.left(reason)
    if tick:
        tick(0)
    restored = np.empty_like(colours)
    wide = photo.restore(restored, uncertainty=uncertainty, tick=tick)
    share = photo.share_restored() if settings.gate else None
    if share is not None and not share.any():
        return photo.left(ONLY_DETAIL)
    if share is not None:
        photo.put_back(restored, share)
    kept = np.zeros(photo.removed.shape, np.bool_) if share is None else share == 0
    return Cleaned(restored, photo.noise_levels(), kept, uncertainty=wide, spread=photo.spread)


class _Photo:
    """A photograph as the planes that a denoiser takes, and back."""

    def __init__(self, colours: Pixels, engine: Denoiser, settings: RestoreSettings) -> None:
        self.colours, self.engine, self.settings = colours, engine, settings
        self.height, self.width, self.channels = colours.shape
        self.full = np.float32(np.iinfo(colours.dtype).max)
        self.apart = self.channels == 3 and engine.planes == 1
        """Whether its planes are cleaned one by one."""
        self.curves: list[NoiseCurve] = []
        """Curves of the noise, one for each image that the denoiser takes."""
        squares = -(-self.height // CELL), -(-self.width // CELL)
        self.removed, self.expected = np.zeros(squares, np.float32), np.zeros(squares, np.float32)
        """Mean squares of what was removed from a square, and of its noise."""
        self.spread = 0.0

    def left(self, reason: str) -> Cleaned:
        """The photograph as it was."""
        return Cleaned(self.colours, self.noise_levels(), np.zeros(self.removed.shape, np.bool_), reason)

    def measure_noise(self) -> str:
        """Find how strong the noise is, unless the settings say it; returns why nothing is to be done, if so."""
        told = self.settings.noise
        if self.settings.strength == 0 or told == 0:
            return NO_STRENGTH if self.settings.strength == 0 else CLEAN
        if min(self.height, self.width) < FEWEST_SIDE:
            return TOO_SMALL
        if told is not None:
            scales = np.linalg.norm(DIFFERENCES, axis=1) if self.apart else [1.0]
            self.curves = [NoiseCurve.constant(told / 255 * float(scale), self.engine.levels) for scale in scales]
            return ""
        self.curves = self._estimated()
        strongest = max(max(curve.certain) / scale for curve, scale in zip(self.curves, self._scales(), strict=True))
        if 255 * strongest >= FAINT[self.engine.planes]:
            return ""
        return CLEAN if self.noise_levels() < LIKELY else IN_DOUBT

    def noise_levels(self) -> float:
        """The deviation of the noise of each colour, in levels of 0 to 255."""
        if not self.curves:
            return 0.0
        return 255 * float(self.curves[0].of_each_colour()) / self._scales()[0]

    def restore(
        self, result: Pixels, *, uncertainty: bool, tick: Callable[[float], None] | None
    ) -> npt.NDArray[np.uint8] | None:
        """Restore all colours into `result` and return the uncertainty; what was removed is noted."""
        wide = np.empty((self.height, self.width), np.uint8) if uncertainty else None
        total = 0.0
        for start, stop in self._strips():
            spread = self._restore_strip(start, stop, result)
            total += float(spread.sum(dtype=np.float64))
            if wide is not None:
                wide[start:stop] = np.clip(np.round(255 * spread), 0, 255)
            if tick:
                tick(stop / self.height)
        self.spread = 255 * total / (self.height * self.width)
        return wide

    def share_restored(self) -> Floats:
        """How much of each square's correction is kept, 0 to 1: none, where far more than noise was removed."""
        ratio = np.sqrt(self.removed / (self.expected + (ALLOWED / 255) ** 2))
        low, high = MUCH_REMOVED
        share: Floats = np.clip((high - ratio) / (high - low), 0, 1).astype(np.float32)
        return share

    def put_back(self, restored: Pixels, share: Floats) -> None:
        """Put the original back where much was removed, blended in around."""
        from scipy import ndimage

        if share.min() == 1:
            return
        least = ndimage.minimum_filter(share, 3)  # with its neighbours, or the blend would begin inside
        for start, stop in self._strips():
            mix = interpolated(least, CELL, start, stop, self.width)[..., None]
            before, after = self.colours[start:stop].astype(np.float32), restored[start:stop].astype(np.float32)
            restored[start:stop] = np.round(before + mix * (after - before)).astype(restored.dtype)

    def _restore_strip(self, start: int, stop: int, result: Pixels) -> Floats:
        """Restore some rows into `result` and return the spread."""
        samples = self.settings.samples
        halo = self.engine.halo(samples)
        first, last = max(0, start - halo), min(self.height, stop + halo)
        brightness = self._brightness(first, last)
        cleaned: list[Floats] = []
        spreads: list[Floats | None] = []
        for image, curve in zip(self._images(first, last), self.curves, strict=True):
            clean, spread = self.engine.restore_rows(
                image,
                curve.at(brightness),
                spread=not spreads,
                samples=samples,
                start=start,
                context=(start - first, last - stop),
            )
            cleaned.append(clean)
            spreads.append(spread)
        before, after = self._colours(start, stop), self._pixels(cleaned)
        self._note(before, after, start)
        after -= before
        after *= np.float32(self.settings.strength)
        after += before
        after *= self.full
        result[start:stop] = np.round(np.clip(after, 0, self.full, out=after), out=after)
        assert spreads[0] is not None
        return spreads[0]

    def _note(self, before: Floats, after: Floats, start: int) -> None:
        """Note what was removed from each square, and how strong its noise is."""
        removed = _square_means(np.square(before - after).mean(-1), CELL)
        rows = slice(start // CELL, start // CELL + len(removed))
        levels = self.curves[0].at(self._brightness(start, start + len(before)))
        noise = np.square(self.curves[0].of_each_colour(levels) / self._scales()[0])
        self.removed[rows] = removed
        self.expected[rows] = noise if noise.size == 1 else _square_means(noise, CELL // 2)

    def _estimated(self) -> list[NoiseCurve]:
        """Curves of the noise: from the denoiser's estimator, or constant at what `noise_of` measures without one."""
        bands = [self._images(start, stop) for start, stop in self._bands()]
        curves = []
        for number in range(len(bands[0])):
            images = [band[number] for band in bands]
            if self.engine.estimates:
                brightness = [_cell_means(band[0]) for band in bands]
                curves.append(fitted_curve([self._told(image) for image in images], brightness))
            else:
                noise = float(np.median([self.engine.noise_of(image) for image in images]))
                curves.append(NoiseCurve.constant(noise, self.engine.levels))
        return curves

    def _told(self, image: Floats) -> tuple[Floats, Floats]:
        return self.engine.estimate(image if image.ndim == 3 else image[None])

    def _scales(self) -> list[float]:
        """Deviations of the planes that are cleaned one by one, if that of each colour is 1."""
        return [float(norm) for norm in np.linalg.norm(DIFFERENCES, axis=1)] if self.apart else [1.0]

    def _images(self, start: int, stop: int) -> list[Floats]:
        """Rows of the photograph as the denoiser takes them, 0 to 1: (H, W) each, or all colours, (3, H, W)."""
        colours = self._colours(start, stop)
        if self.apart:
            planes = colours @ DIFFERENCES.T
            planes[..., 1:] += np.float32(0.5)
            return [np.ascontiguousarray(planes[..., number]) for number in range(3)]
        if self.engine.planes == 1:
            return [colours[..., 0]]
        shown = np.broadcast_to(colours, (*colours.shape[:2], 3))  # a grey one in a denoiser of colours
        return [np.ascontiguousarray(shown.transpose(2, 0, 1))]

    def _pixels(self, cleaned: list[Floats]) -> Floats:
        """Cleaned images as colours, (H, W, C)."""
        if self.apart:
            planes = np.stack(cleaned, axis=-1)
            planes[..., 1:] -= np.float32(0.5)
            return cast("Floats", planes @ INVERSE_DIFFERENCES.T)
        if self.engine.planes == 1:
            return cleaned[0][..., None]
        colours = cleaned[0].transpose(1, 2, 0)
        return colours if self.channels == 3 else colours.mean(-1, keepdims=True)

    def _brightness(self, start: int, stop: int) -> Floats:
        """The mean of the colours around each pixel at half the resolution; odd sides are rounded up."""
        from scipy import ndimage

        reach = 2 * NEAR
        first, last = max(0, start - reach), min(self.height, stop + reach)
        grey = self._colours(first, last).mean(-1)
        half = halved(np.pad(grey, [(0, side % 2) for side in grey.shape], mode="edge"))
        smooth = ndimage.uniform_filter(half, 2 * NEAR + 1, mode="nearest")
        skipped = (start - first) // 2
        return cast("Floats", smooth[skipped : skipped + -(-(stop - start) // 2)])

    def _colours(self, start: int, stop: int) -> Floats:
        return self.colours[start:stop].astype(np.float32) / self.full

    def _strips(self) -> Iterator[tuple[int, int]]:
        """The rows that are in work at a time."""
        rows = min(STRIP, max(FEWEST_ROWS, STRIP_PIXELS // self.width // CELL * CELL))
        for start in range(0, self.height, rows):
            yield start, min(start + rows, self.height)

    def _bands(self) -> Iterator[tuple[int, int]]:
        """Rows from all over the photograph that stand for it."""
        if self.height * self.width <= SAMPLE_PIXELS or self.height <= BAND:
            yield 0, self.height
            return
        count = max(3, SAMPLE_PIXELS // (BAND * self.width))
        for place in np.linspace(0, self.height - BAND, min(count, self.height // BAND)):
            start = int(place) // NOISE_CELL * NOISE_CELL
            yield start, start + BAND


def _cell_means(image: Floats) -> Floats:
    """The brightness of each cell of the noise estimator, from shape (H, W) or (3, H, W)."""
    grey = image if image.ndim == 2 else image.mean(0)
    height, width = (side // NOISE_CELL for side in grey.shape)
    cells = grey[: height * NOISE_CELL, : width * NOISE_CELL].reshape(height, NOISE_CELL, width, NOISE_CELL)
    means: Floats = cells.mean((1, 3))
    return means


def _square_means(values: Floats, side: int) -> Floats:
    """Means over squares; squares at the ends are averaged over the pixels that are there."""
    height, width = values.shape
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(values, rows, 0, np.float64), columns, 1)
    counts = np.outer(np.minimum(side, height - rows), np.minimum(side, width - columns))
    means: Floats = (sums / counts).astype(np.float32)
    return means

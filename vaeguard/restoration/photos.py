"""Restore one photograph: estimate its noise, remove the noise, and put back what was no noise.

A photograph is processed in strips of rows, so that any size takes little more memory than its pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from vaeguard.restoration.cleaned import SQUARE, Cleaned
from vaeguard.restoration.noise import CELL, DIFFERENCES, INVERSE_DIFFERENCES, NoiseCurve, fitted_curve, halved
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
"""The number of rows that are processed at a time, a multiple of the side of every cell and square."""
STRIP_PIXELS = 1_900_000
"""The most pixels of a strip, since memory grows with pixels."""
FEWEST_ROWS = 128
"""The fewest rows of a strip, even if the strip has more pixels."""
FAINT = {1: 2.6, 3: 0.65}
"""Levels of 0 to 255, by the number of planes: fainter noise is not worth the risk to texture. The noise of a grey
photograph is less certain."""
LIKELY = 2.5
"""Levels of 0 to 255: a photograph with an estimate above this is in doubt if its noise may still be texture."""
ALLOWED = 1.0
"""Levels of 0 to 255 that may be removed besides the noise, since rounding adds noise."""
FEWEST_SIDE = 16
"""The noise of a photograph with a shorter side, in pixels, is not estimated."""
SAMPLE_PIXELS = 400_000
"""The approximate number of pixels that represent a larger photograph."""
BAND = 96
"""The number of rows in each band of these pixels."""
NEAR = 2
"""The reach, in pixels at half the resolution, of the mean brightness by which the noise is looked up."""
MUCH_REMOVED = (2.0, 3.0)
"""A square keeps its correction up to the first multiple of its noise; from the second on, the original is put back."""


def restore_photo(
    colours: Pixels,
    denoiser: Callable[[str], Denoiser],
    settings: RestoreSettings,
    *,
    uncertainty: bool = False,
    tick: Callable[[float], None] | None = None,
) -> Cleaned:
    """Restore a photograph of any size.

    `colours` are uint8 or uint16, shape (H, W, 1) or (H, W, 3). A grey denoiser cleans the mean and two differences of
    three colours one by one. Other parameters are those of `page.restore_page`; settings for paper have no effect.

    Raises
    ------
    RefusedError
        `settings` asks for samples, but the denoiser has no ladder VAE.
    """
    photo = _Photo(colours, denoiser("colour" if colours.shape[2] == 3 else "photo"), settings)
    reason = photo.measure_noise()
    if reason:
        return photo.untouched(reason)
    if tick:
        tick(0)
    restored = np.empty_like(colours)
    half_widths = photo.restore(restored, uncertainty=uncertainty, tick=tick)
    share = photo.share_restored() if settings.gate else None
    if share is not None and not share.any():
        return photo.untouched(ONLY_DETAIL)
    if share is not None:
        photo.put_back(restored, share)
    put_back = np.zeros(photo.removed.shape, np.bool_) if share is None else share == 0
    return Cleaned(restored, photo.noise_levels(), put_back, uncertainty=half_widths, spread=photo.spread)


class _Photo:
    """A photograph, its noise, and what was removed from it."""

    def __init__(self, colours: Pixels, denoiser: Denoiser, settings: RestoreSettings) -> None:
        self.colours, self.denoiser, self.settings = colours, denoiser, settings
        self.height, self.width, self.channels = colours.shape
        self.full_scale = np.float32(np.iinfo(colours.dtype).max)
        self.separate_planes = self.channels == 3 and denoiser.planes == 1
        """Whether a grey denoiser cleans the planes of a colour photograph one by one."""
        self.curves: list[NoiseCurve] = []
        """Noise curves, one for each image that the denoiser takes."""
        squares = -(-self.height // SQUARE), -(-self.width // SQUARE)
        self.removed, self.expected = np.zeros(squares, np.float32), np.zeros(squares, np.float32)
        """The mean square of the change of each square, and of its noise."""
        self.spread = 0.0

    def untouched(self, reason: str) -> Cleaned:
        """The original photograph as the result."""
        return Cleaned(self.colours, self.noise_levels(), np.zeros(self.removed.shape, np.bool_), reason)

    def measure_noise(self) -> str:
        """Estimate the noise, or take it from the settings; return why the photograph is left as it is, if it is."""
        noise = self.settings.noise
        if self.settings.strength == 0 or noise == 0:
            return NO_STRENGTH if self.settings.strength == 0 else CLEAN
        if min(self.height, self.width) < FEWEST_SIDE:
            return TOO_SMALL
        if noise is not None:
            self.curves = [NoiseCurve.constant(noise / 255 * scale, self.denoiser.levels) for scale in self._scales()]
            return ""
        self.curves = self._estimated_curves()
        strongest = max(max(curve.certain) / scale for curve, scale in zip(self.curves, self._scales(), strict=True))
        if 255 * strongest >= FAINT[self.denoiser.planes]:
            return ""
        return CLEAN if self.noise_levels() < LIKELY else IN_DOUBT

    def noise_levels(self) -> float:
        """The deviation of each colour's noise, in levels of 0 to 255."""
        if not self.curves:
            return 0.0
        return 255 * float(self.curves[0].of_each_colour()) / self._scales()[0]

    def restore(
        self, result: Pixels, *, uncertainty: bool, tick: Callable[[float], None] | None
    ) -> npt.NDArray[np.uint8] | None:
        """Restore all rows into `result`, record what was removed, and return the uncertainty if asked for."""
        half_widths = np.empty((self.height, self.width), np.uint8) if uncertainty else None
        total = 0.0
        for start, stop in self._strips():
            spread = self._restore_strip(start, stop, result)
            total += float(spread.sum(dtype=np.float64))
            if half_widths is not None:
                half_widths[start:stop] = np.clip(np.round(255 * spread), 0, 255)
            if tick:
                tick(stop / self.height)
        self.spread = 255 * total / (self.height * self.width)
        return half_widths

    def share_restored(self) -> Floats:
        """The share of each square's correction that is kept, 0 to 1: 0 where far more than noise was removed."""
        ratio = np.sqrt(self.removed / (self.expected + (ALLOWED / 255) ** 2))
        low, high = MUCH_REMOVED
        share: Floats = np.clip((high - ratio) / (high - low), 0, 1).astype(np.float32)
        return share

    def put_back(self, restored: Pixels, share: Floats) -> None:
        """Blend the original back into squares from which too much was removed."""
        from scipy import ndimage

        if share.min() == 1:
            return
        # Neighbours are included: otherwise the blend would begin inside the square.
        least = ndimage.minimum_filter(share, 3)
        for start, stop in self._strips():
            mix = interpolated(least, SQUARE, start, stop, self.width)[..., None]
            before, after = self.colours[start:stop].astype(np.float32), restored[start:stop].astype(np.float32)
            restored[start:stop] = np.round(before + mix * (after - before)).astype(restored.dtype)

    def _restore_strip(self, start: int, stop: int, result: Pixels) -> Floats:
        """Restore some rows into `result` and return their uncertainty, 0 to 1."""
        samples = self.settings.samples
        halo = self.denoiser.halo(samples)
        first, last = max(0, start - halo), min(self.height, stop + halo)
        brightness = self._brightness(first, last)
        cleaned: list[Floats] = []
        spreads: list[Floats | None] = []
        for image, curve in zip(self._images(first, last), self.curves, strict=True):
            clean, spread = self.denoiser.restore_rows(
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
        self._record_squares(before, after, start)
        after -= before
        after *= np.float32(self.settings.strength)
        after += before
        after *= self.full_scale
        result[start:stop] = np.round(np.clip(after, 0, self.full_scale, out=after), out=after)
        assert spreads[0] is not None
        return spreads[0]

    def _record_squares(self, before: Floats, after: Floats, start: int) -> None:
        """Record the mean square of each square's change, and of its noise."""
        removed = _square_means(np.square(before - after).mean(-1), SQUARE)
        rows = slice(start // SQUARE, start // SQUARE + len(removed))
        levels = self.curves[0].at(self._brightness(start, start + len(before)))
        noise = np.square(self.curves[0].of_each_colour(levels) / self._scales()[0])
        self.removed[rows] = removed
        self.expected[rows] = noise if noise.size == 1 else _square_means(noise, SQUARE // 2)

    def _estimated_curves(self) -> list[NoiseCurve]:
        """Noise curves from the denoiser's estimator; without one, constants measured by `noise_of`."""
        bands = [self._images(start, stop) for start, stop in self._bands()]
        curves = []
        for images in zip(*bands, strict=True):
            if self.denoiser.estimates:
                brightness = [_cell_means(band[0]) for band in bands]
                curves.append(fitted_curve([self._cell_estimates(image) for image in images], brightness))
            else:
                noise = float(np.median([self.denoiser.noise_of(image) for image in images]))
                curves.append(NoiseCurve.constant(noise, self.denoiser.levels))
        return curves

    def _cell_estimates(self, image: Floats) -> tuple[Floats, Floats]:
        return self.denoiser.estimate(image if image.ndim == 3 else image[None])

    def _scales(self) -> list[float]:
        """The deviation of each image that the denoiser takes, if the noise of each colour has the deviation 1."""
        return [float(norm) for norm in np.linalg.norm(DIFFERENCES, axis=1)] if self.separate_planes else [1.0]

    def _images(self, start: int, stop: int) -> list[Floats]:
        """Rows as images for the denoiser, 0 to 1: planes of shape (H, W), or one image of shape (3, H, W)."""
        colours = self._colours(start, stop)
        if self.separate_planes:
            planes = colours @ DIFFERENCES.T
            planes[..., 1:] += np.float32(0.5)
            return [np.ascontiguousarray(planes[..., number]) for number in range(3)]
        if self.denoiser.planes == 1:
            return [colours[..., 0]]
        # A colour denoiser takes a grey photograph as three equal colours.
        image = np.broadcast_to(colours, (*colours.shape[:2], 3))
        return [np.ascontiguousarray(image.transpose(2, 0, 1))]

    def _pixels(self, cleaned: list[Floats]) -> Floats:
        """Turn cleaned images back into colours, shape (H, W, C)."""
        if self.separate_planes:
            planes = np.stack(cleaned, axis=-1)
            planes[..., 1:] -= np.float32(0.5)
            return cast("Floats", planes @ INVERSE_DIFFERENCES.T)
        if self.denoiser.planes == 1:
            return cleaned[0][..., None]
        colours = cleaned[0].transpose(1, 2, 0)
        return colours if self.channels == 3 else colours.mean(-1, keepdims=True)

    def _brightness(self, start: int, stop: int) -> Floats:
        """The mean brightness around each pixel at half the resolution; odd sides are rounded up."""
        from scipy import ndimage

        reach = 2 * NEAR
        first, last = max(0, start - reach), min(self.height, stop + reach)
        grey = self._colours(first, last).mean(-1)
        half = halved(np.pad(grey, [(0, side % 2) for side in grey.shape], mode="edge"))
        smooth = ndimage.uniform_filter(half, 2 * NEAR + 1, mode="nearest")
        skipped = (start - first) // 2
        return cast("Floats", smooth[skipped : skipped + -(-(stop - start) // 2)])

    def _colours(self, start: int, stop: int) -> Floats:
        return self.colours[start:stop].astype(np.float32) / self.full_scale

    def _strips(self) -> Iterator[tuple[int, int]]:
        """The first and the last row (exclusive) of each strip."""
        rows = min(STRIP, max(FEWEST_ROWS, STRIP_PIXELS // self.width // SQUARE * SQUARE))
        for start in range(0, self.height, rows):
            yield start, min(start + rows, self.height)

    def _bands(self) -> Iterator[tuple[int, int]]:
        """The first and the last row (exclusive) of bands that represent the photograph."""
        if self.height * self.width <= SAMPLE_PIXELS or self.height <= BAND:
            yield 0, self.height
            return
        count = max(3, SAMPLE_PIXELS // (BAND * self.width))
        for position in np.linspace(0, self.height - BAND, min(count, self.height // BAND)):
            start = int(position) // CELL * CELL
            yield start, start + BAND


def _cell_means(image: Floats) -> Floats:
    """The brightness of each cell of the noise estimator, from an image of shape (H, W) or (3, H, W)."""
    grey = image if image.ndim == 2 else image.mean(0)
    height, width = (side // CELL for side in grey.shape)
    cells = grey[: height * CELL, : width * CELL].reshape(height, CELL, width, CELL)
    means: Floats = cells.mean((1, 3))
    return means


def _square_means(values: Floats, side: int) -> Floats:
    """Means over squares, also over the incomplete squares at the ends."""
    height, width = values.shape
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(values, rows, 0, np.float64), columns, 1)
    counts = np.outer(np.minimum(side, height - rows), np.minimum(side, width - columns))
    means: Floats = (sums / counts).astype(np.float32)
    return means

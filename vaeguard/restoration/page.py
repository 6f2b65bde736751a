"""Restore one page: decide whether it is a document or a photograph, and clean it accordingly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vaeguard.restoration.documents import PageView, restore_document
from vaeguard.restoration.formats.scan_page import colours_of
from vaeguard.restoration.paper import STRIP
from vaeguard.restoration.photos import restore_photo

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from vaeguard.restoration.cleaned import Cleaned
    from vaeguard.restoration.denoiser import Denoiser
    from vaeguard.settings.restoration import RestoreSettings

    Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class PageReport:
    """What was done to one page.

    Attributes
    ----------
    kind : str
        `document`, `photo`, `model` for a page restored by an anomaly model, or `untouched` for a page left as it was.
    noise : float
        Standard deviation of the noise of each colour in levels of 0 to 255.
    change : float
        Root mean square of all changes, in levels of 0 to 255.
    reverted : float
        Share of the squares of 32 pixels a side in which the original, or its ink, was put back.
    uncertainty : float
        Mean half-width of the interval that contains the clean value in nine of ten cases, in levels of 0 to 255.
    lightened : float
        Share of a document that was darker than most of its paper and was brightened as a stain.
    squares : tuple of str
        A string for each row of squares, with `#` for a square that was put back and `.` for others; empty if no
        square was put back.
    reason : str
        Why the page was left bit for bit as it was, a clause in the singular without numbers; empty if it was restored.
    region : (int, int, int, int) or None
        Top, left, bottom and right of the cleaned part, in pixels; None for the whole page.
    removed : float
        Share of the page whose marks were removed as a stain, bleed-through or dirt.
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

    @property
    def action(self) -> str:
        """What was done to the page, as `pages.csv` says it: `untouched` or `restored`."""
        return "untouched" if self.reason or self.kind == "untouched" else "restored"


@dataclass(frozen=True)
class RestoredPage:
    """A restored page: pixels of the original shape and type, the report, and the pixels' uncertainty if asked for."""

    pixels: Pixels
    report: PageReport
    uncertainty: npt.NDArray[np.uint8] | None = None


def restore_page(
    pixels: Pixels,
    denoiser: Callable[[str], Denoiser],
    settings: RestoreSettings,
    *,
    uncertainty: bool = False,
    tick: Callable[[float], None] | None = None,
) -> RestoredPage:
    """Restore a page of any size in pixels.

    Parameters
    ----------
    pixels : ndarray
        uint8 or uint16, shape (H, W) or (H, W, C), C 1 to 4; the last of two or four channels is opacity and stays.
    denoiser : callable
        Takes `document`, `photo` (a grey photograph) or `colour` (a photograph in colour), and returns its denoiser.
    settings : RestoreSettings
        How the page is cleaned.
    uncertainty : bool
        Also return the uncertainty of each pixel.
    tick : callable or None
        Called with 0 if the page will be cleaned, and with the finished share after each strip of rows. An error that
        it raises ends the work.

    Returns
    -------
    RestoredPage
        Pixels of the same shape and type.
    """
    planes, view = _planes_and_view(pixels, settings)
    if view:
        cleaned = restore_document(view, denoiser("document"), settings, uncertainty=uncertainty, tick=tick)
    else:
        cleaned = restore_photo(planes, denoiser, settings, uncertainty=uncertainty, tick=tick)
    if cleaned.reason:
        return RestoredPage(pixels, PageReport("untouched", float(cleaned.noise), 0.0, 0.0, 0.0, reason=cleaned.reason))
    restored = _channels_last(pixels).copy()
    restored[..., : colours_of(pixels).shape[2]] = cleaned.pixels
    report = _report("document" if view else "photo", cleaned, planes)
    return RestoredPage(restored.reshape(pixels.shape), report, cleaned.uncertainty)


def _planes_and_view(pixels: Pixels, settings: RestoreSettings) -> tuple[Pixels, PageView | None]:
    """The planes to clean (one, if all colours are equal), and a view of the page if it is cleaned as a document."""
    colours = colours_of(pixels)
    planes = colours[..., :1] if colours.shape[2] == 3 and _is_grey(colours) else colours
    view = PageView.of(planes) if settings.kind != "photo" else None
    return planes, view if view and (settings.kind == "document" or view.is_document()) else None


def _report(kind: str, cleaned: Cleaned, before: Pixels) -> PageReport:
    squares = tuple("".join(row) for row in np.where(cleaned.put_back, "#", "."))
    return PageReport(
        kind=kind,
        noise=float(cleaned.noise),
        change=root_mean_square(before, cleaned.pixels),
        reverted=float(cleaned.put_back.mean()),
        uncertainty=cleaned.spread,
        lightened=cleaned.lightened,
        squares=squares if cleaned.put_back.any() else (),
        region=cleaned.region,
        removed=cleaned.removed,
    )


def page_kind(pixels: Pixels) -> str:
    """Tell whether a page, uint8 or uint16, shape (H, W) or (H, W, C), is a `document` or a `photo`."""
    return "document" if PageView.of(colours_of(pixels)).is_document() else "photo"


def _channels_last(pixels: Pixels) -> Pixels:
    """Pixels of shape (H, W) or (H, W, C) as (H, W, C)."""
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _is_grey(pixels: Pixels) -> bool:
    """Whether red, green and blue are equal everywhere."""
    return all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in (1, 2))


def root_mean_square(before: Pixels, after: Pixels) -> float:
    """Root mean square of the difference, in levels of 0 to 255."""
    total = 0.0
    for start in range(0, len(before), STRIP):
        rows = slice(start, start + STRIP)
        total += float(((after[rows].astype(np.float32) - before[rows].astype(np.float32)) ** 2).sum(dtype=np.float64))
    return float(np.sqrt(total / before.size)) * 255 / float(np.iinfo(before.dtype).max)

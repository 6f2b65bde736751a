"""Restore one page: decide whether it is a document or a photograph, and have it cleaned as such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from vaeguard.errors import RefusedError
from vaeguard.restoration.documents import PageView, restore_document
from vaeguard.restoration.formats.scan_page import colours_of
from vaeguard.restoration.paper import STRIP
from vaeguard.restoration.photos import restore_photo

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from vaeguard.engines.detector import Detector
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
        `document` or `photo`; `model` of an anomaly model; `untouched` where there was nothing to do.
    noise : float
        Standard deviation of the noise of each colour in levels of 0 to 255.
    change : float
        Root mean square of all changes, in levels of 0 to 255.
    reverted : float
        Share of the page's squares of 32 pixels a side in which the original, or ink, was put back.
    uncertainty : float
        Mean half-width of the interval that holds the clean value in nine of ten cases, in levels of 0 to 255.
    lightened : float
        Share of a document that was darker than most of its paper, and was brightened like a stain.
    squares : tuple of str
        Which squares were put back, if any: a text for each row of squares, `#` for put back and `.` for the rest.
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

    @property
    def action(self) -> str:
        """What was done to the page, as `pages.csv` says it: `untouched` or `restored`."""
        return "untouched" if self.reason or self.kind == "untouched" else "restored"


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
    uncertainty: bool = False,
    tick: Callable[[float], None] | None = None,
) -> RestoredPage:
    """Restore a page of any size.

    Parameters
    ----------
    pixels : ndarray
        uint8 or uint16, shape (H, W), or (H, W, C), C 1 to 4; the last of two or four channels is opacity and stays.
    denoiser : callable
        Gives the denoiser for `document`, for `photo` (without colours) or for `colour` (photographs in colour).
    settings : RestoreSettings
        How the page is cleaned.
    uncertainty : bool
        Also give the uncertainty of each pixel.
    tick : callable or None
        Called with 0 when something is to be done, and after each strip of rows with the share that is done; what it
        raises ends the work.

    Returns
    -------
    RestoredPage
        Of the same shape and type.
    """
    planes, view = _seen(pixels, settings)
    if view:
        found = restore_document(view, denoiser("document"), settings, uncertainty=uncertainty, tick=tick)
    else:
        found = restore_photo(planes, denoiser, settings, uncertainty=uncertainty, tick=tick)
    if found.reason:
        return RestoredPage(pixels, PageReport("untouched", float(found.noise), 0.0, 0.0, 0.0, reason=found.reason))
    plain = pixels[..., None] if pixels.ndim == 2 else pixels
    whole = plain.copy()
    whole[..., : colours_of(plain).shape[2]] = found.pixels
    report = _report("document" if view else "photo", found, planes)
    return RestoredPage(whole.reshape(pixels.shape), report, found.uncertainty)


def _seen(pixels: Pixels, settings: RestoreSettings) -> tuple[Pixels, PageView | None]:
    """The colours that are cleaned, only one where all are the same, and the page if it is cleaned as a document."""
    colours = colours_of(pixels)
    planes = colours[..., :1] if colours.shape[2] == 3 and _is_grey(colours) else colours
    view = PageView.of(planes) if settings.kind != "photo" else None
    return planes, view if view and (settings.kind == "document" or view.is_document()) else None


def _report(kind: str, found: Cleaned, before: Pixels) -> PageReport:
    squares = tuple("".join(row) for row in np.where(found.put_back, "#", "."))
    return PageReport(
        kind=kind,
        noise=float(found.noise),
        change=_root_mean_square(before, found.pixels),
        reverted=float(found.put_back.mean()),
        uncertainty=found.spread,
        lightened=found.lightened,
        squares=squares if found.put_back.any() else (),
        region=found.region,
        removed=found.removed,
    )


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
    # The model was trained on 256 steps; the finer steps of the page stay, since only the correction is added.
    seen = np.round(before * 255).astype(np.uint8)
    inspected = detector.inspect(np.ascontiguousarray(seen.transpose(2, 0, 1)[None]), pictures=True)
    assert inspected.restored is not None
    mixed = before + np.float32(settings.strength) * (inspected.restored[0].transpose(1, 2, 0) - before)
    clean = cast("Pixels", np.round(np.clip(mixed, 0, 1) * full).astype(pixels.dtype)).reshape(pixels.shape)
    return RestoredPage(clean, PageReport("model", 0.0, _root_mean_square(pixels, clean), 0.0, 0.0))


def page_kind(pixels: Pixels) -> str:
    """Whether a page is a `document` or a `photo`: shape (H, W) or (H, W, C), uint8 or uint16."""
    return "document" if PageView.of(colours_of(pixels)).is_document() else "photo"


def _is_grey(pixels: Pixels) -> bool:
    """Whether red, green and blue are the same everywhere."""
    return all(np.array_equal(pixels[..., 0], pixels[..., channel]) for channel in (1, 2))


def _root_mean_square(before: Pixels, after: Pixels) -> float:
    """Root mean square of the difference, in levels of 0 to 255."""
    total = 0.0
    for start in range(0, len(before), STRIP):
        part = slice(start, start + STRIP)
        total += float(((after[part].astype(np.float32) - before[part].astype(np.float32)) ** 2).sum(dtype=np.float64))
    return float(np.sqrt(total / before.size)) * 255 / float(np.iinfo(before.dtype).max)

"""A page of a scan in any file format: its pixels, and the metadata that must not change."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import UnreadableError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

ORIENTATION = 274
"""The tag of the orientation in EXIF and TIFF."""
METRES_PER_INCH = 0.0254
_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.fliplr(np.rot90(pixels, -1)),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.fliplr(np.rot90(pixels)),
    8: np.rot90,
}
"""The turn or flip that shows a page upright, by its EXIF orientation."""
MIRRORED = (2, 4, 5, 7)
"""The EXIF orientations of pages that are stored mirrored."""


@dataclass(frozen=True)
class Page:
    """One page of a scan.

    Attributes
    ----------
    number : int
        Number of the page, from 1.
    pixels : ndarray
        uint8, uint16 or bool, shape (H, W) or (H, W, C).
    dpi : float or None
        Pixels per inch, if the file states it.
    orientation : int
        EXIF orientation, 1 to 8; 1 is upright.
    """

    number: int
    pixels: Pixels
    dpi: float | None
    orientation: int = 1

    def upright(self, pixels: Pixels) -> Pixels:
        """Turn `pixels` of this page upright."""
        turn = _UPRIGHT.get(self.orientation)
        return pixels if turn is None else np.ascontiguousarray(turn(pixels))


@dataclass(frozen=True)
class PageFacts:
    """The metadata of one page that must not change; None where the file does not state it."""

    size: tuple[int, int]
    channels: int
    bits: int
    dpi: tuple[int, int] | None = None
    icc: bytes | None = None
    exif: tuple[tuple[Any, str], ...] = ()
    xmp: bytes | None = None
    iptc: bytes = b""


def colours_of(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The colours of `pixels`, (H, W) or (H, W, C), as (H, W, C) without opacity, the last of 2 or 4 channels."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    return planes[..., : planes.shape[2] - (planes.shape[2] in (2, 4))]


def digest_of_pixels(pixels: Pixels) -> str:
    """SHA-256 (hex) of the type, shape and values of pixels, independent of their file format."""
    digest = hashlib.sha256(f"{pixels.dtype} {[side for side in pixels.shape if side > 1]}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn any error of a reader on damaged bytes into an UnreadableError."""
    try:
        yield
    except (VaeguardError, MemoryError):
        raise
    except Exception as error:
        if "bad_alloc" in str(error):  # as C++ says it
            raise MemoryError from error
        # The exceptions of the four reading libraries share no base class but Exception.
        # Addresses of objects are removed, so that the same file always gives the same message.
        text = re.sub(r"(stream )?<[^<>]* at 0x[0-9a-f]+>:? ?", "", str(error))
        detail = " ".join(text.split()) or type(error).__name__
        raise UnreadableError(name, f"it is damaged or cut short ({detail}); copy the file again") from error

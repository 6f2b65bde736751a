"""A page of a scan, whatever the format of its file: its pixels, and what must be the same before and after."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import UnreadableError, VaeguardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

ORIENTATION = 274
"""The tag of EXIF and TIFF."""
_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.fliplr(np.rot90(pixels, -1)),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.fliplr(np.rot90(pixels)),
    8: np.rot90,
}
"""By the orientation of EXIF."""


@dataclass(frozen=True)
class Page:
    """One page of a scan.

    Attributes
    ----------
    number : int
        From 1.
    pixels : ndarray
        uint8, uint16 or bool, shape (H, W) or (H, W, C).
    dpi : float or None
        Pixels per inch, if the file says it.
    orientation : int
        How it is to be turned to be seen upright, 1 to 8 as in EXIF; 1 not at all.
    """

    number: int
    pixels: Pixels
    dpi: float | None
    orientation: int = 1

    def upright(self, pixels: Pixels) -> Pixels:
        """`pixels` of this page as they are to be seen."""
        turn = _UPRIGHT.get(self.orientation)
        return pixels if turn is None else np.ascontiguousarray(turn(pixels))


@dataclass(frozen=True)
class PageFacts:
    """What must be the same before and after, of one page; None where the file does not say it."""

    size: tuple[int, int]
    channels: int
    bits: int
    dpi: tuple[int, int] | None = None
    icc: bytes | None = None
    exif: tuple[tuple[Any, str], ...] = ()
    xmp: bytes | None = None
    iptc: bytes = b""


@dataclass
class Rewritten:
    """What became of the pictures of a scan.

    Attributes
    ----------
    left : list of (int, str)
        The pictures of a PDF that stay as they are, since they are of a kind that is not restored: page and kind.
    codecs : dict
        What each page of a PDF that was restored is written in, by the page's number.
    """

    left: list[tuple[int, str]] = field(default_factory=list)
    codecs: dict[int, str] = field(default_factory=dict)


def colours_of(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The colours in `pixels`, (H, W) or (H, W, C), as (H, W, C): the last of 2 or 4 channels is opacity."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    return planes[..., : planes.shape[2] - (planes.shape[2] in (2, 4))]


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever a reader raises on damaged bytes into an UnreadableError."""
    try:
        yield
    except (VaeguardError, MemoryError):
        raise
    except Exception as error:
        # Four libraries read here, and their exceptions share nothing.
        # Without the addresses of objects, so that the same file always gives the same sentence.
        said = re.sub(r"(stream )?<[^<>]* at 0x[0-9a-f]+>:? ?", "", str(error))
        detail = " ".join(said.split()) or type(error).__name__
        raise UnreadableError(name, f"it is damaged or cut short ({detail}); copy the file again") from error

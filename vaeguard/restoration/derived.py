"""Copies derived from a clean page: black and white, or turned straight. The clean page itself never changes.

A copy is made of the clean file after it was written, page by page, and lies beside it.
"""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vaeguard.errors import UsageError
from vaeguard.packages import install_line
from vaeguard.restoration.formats.isolated import rewrite, rewrite_bilevel, rewrite_turned
from vaeguard.restoration.formats.scan_page import MIRRORED, colours_of
from vaeguard.restoration.paper import PageRows, stroke_width
from vaeguard.restoration.reasons import BILEVEL
from vaeguard.restoration.records import PDF, copy_names
from vaeguard.restoration.skew import LEAST_ANGLE, skew_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.restoration.formats.scan_page import Page, Pixels
    from vaeguard.settings.restoration import DenoiseOutputs
    from vaeguard.storage.store import Draft

THRESHOLD_K = 0.2
"""The usual constant of Sauvola & Pietikäinen, Adaptive document image binarization (2000), which ISauvola shares."""
WINDOW_STROKES = 15
"""Side of the window of the threshold in widths of a stroke: a letter or two."""
LEAST_WINDOW = 25
"""Side in pixels of the smallest window."""
MOST_WINDOW = 255
"""Side in pixels of the largest window."""
SAMPLE = 5
"""Every so many pixels are looked at for the colour of the paper."""
_ONE_THREAD = threading.Lock()
"""Held during calls of doxapy, since the first calls of two threads may wait for each other without end."""
NO_LINES = "no lines of text were found"
STRAIGHT = f"it is straight within {LEAST_ANGLE:g} degrees"


@dataclass(frozen=True)
class Turn:
    """How a page is turned straight.

    Attributes
    ----------
    angle : float
        Degrees counterclockwise, in the page as it is stored; 0 leaves it as it is.
    colour : tuple of float
        The colour of the paper, which fills the corners, in levels of the page's pixels.
    reason : str
        Why the angle is 0; otherwise empty.
    """

    angle: float
    colour: tuple[float, ...]
    reason: str = ""

    @classmethod
    def of(cls, page: Page) -> Turn:
        """Find the turn of a page."""
        if page.pixels.dtype == np.bool_:
            return cls(0.0, (1.0,), BILEVEL)
        sample = colours_of(page.pixels)[::SAMPLE, ::SAMPLE]
        colour = tuple(map(float, np.median(sample, axis=(0, 1))))
        upright: Any = page.upright(_grey(page.pixels))
        angle = skew_of(upright)
        if angle is None:
            return cls(0.0, colour, NO_LINES)
        if abs(angle) < LEAST_ANGLE:
            return cls(0.0, colour, STRAIGHT)
        return cls(-angle if page.orientation in MIRRORED else angle, colour)


def check_derive(kinds: tuple[str, ...]) -> None:
    """Check that the packages for copies of these kinds are installed.

    Raises
    ------
    UsageError
        A package is missing.
    """
    if "bilevel" in kinds and importlib.util.find_spec("doxapy") is None:
        raise UsageError(f"`derive=bilevel` needs the package doxapy; run: {install_line('derive')}")


def write_copies(part: Draft, clean: Path, outputs: DenoiseOutputs, check: Callable[[], None]) -> dict[str, Any]:
    """Write the copies of a clean file, and return what its record says of them, by their kind.

    Parameters
    ----------
    part : Draft
        The part of the clean file, to which the copies are added.
    clean : Path
        The clean file under its temporary name.
    outputs : DenoiseOutputs
        The kinds of copies, and how JPEGs and pictures in PDFs are written.
    check : callable
        Called before each page; it raises an error to end the work.
    """
    name, facts = part.path.name, {}
    for kind, copy in copy_names(name, outputs.derive).items():
        make = partial(_bilevel if kind == "bilevel" else _deskewed, clean.read_bytes(), name, part.file(copy))
        facts[kind] = {"file": copy, **make(outputs, check)}
    return facts


def _bilevel(
    content: bytes, name: str, target: Path, _outputs: DenoiseOutputs, check: Callable[[], None]
) -> dict[str, Any]:
    windows: dict[int, int] = {}

    def threshold(page: Page) -> Any:
        check()
        if page.pixels.dtype == np.bool_:
            return page.pixels
        windows[page.number] = window_of(page.pixels)
        return white_of(page.pixels, windows[page.number])

    rewrite_bilevel(content, name, target, threshold)
    return {"threshold": "ISauvola", "k": THRESHOLD_K, "windows": windows}


def _deskewed(
    content: bytes, name: str, target: Path, outputs: DenoiseOutputs, check: Callable[[], None]
) -> dict[str, Any]:
    turns: dict[int, Turn] = {}

    def turn_of(page: Page) -> Turn:
        check()
        turns[page.number] = Turn.of(page)
        return turns[page.number]

    def straight(page: Page) -> Pixels:
        turn = turn_of(page)
        height, width = page.pixels.shape[:2]
        frames[page.number] = (width / 2, height / 2), (width, height)
        return turned(page.pixels, turn) if turn.angle else page.pixels

    if PurePath(name).suffix.lower() == PDF:
        unit = "point"
        frames = rewrite_turned(content, name, target, lambda page: _angle_and_shares(turn_of(page)))
    else:
        unit, frames = "pixel", {}
        rewrite(content, name, target, straight, jpeg=outputs.jpeg, lossless=outputs.exact)
    pages = [
        {"page": number, "angle": turn.angle, "centre": frames[number][0], "size": frames[number][1]}
        | ({"reason": turn.reason} if turn.reason else {})
        for number, turn in turns.items()
    ]
    return {"unit": unit, "pages": pages}


def _angle_and_shares(turn: Turn) -> tuple[float, list[float]]:
    """The angle, and the colour of a page of 8 bits as shares of white."""
    return turn.angle, [level / 255 for level in turn.colour]


def window_of(pixels: Pixels) -> int:
    """The side in pixels of the window of the threshold: odd, and in proportion to the strokes of the page."""
    stroke = stroke_width(PageRows(_grey(pixels)[..., None]))
    return int(np.clip(round(WINDOW_STROKES * stroke), LEAST_WINDOW, MOST_WINDOW)) // 2 * 2 + 1


def white_of(pixels: Pixels, window: int) -> npt.NDArray[np.bool_]:
    """The white pixels of a page, shape (H, W), by the threshold of ISauvola.

    Of the ink that Sauvola's threshold finds, it keeps what has a sharp edge (Hadjadj et al., ISauvola: improved
    Sauvola's algorithm for document image binarization, 2016).
    """
    grey = np.ascontiguousarray(_grey(pixels)).copy()
    with _ONE_THREAD:
        from doxapy import Binarization

        Binarization.update_to_binary(Binarization.Algorithms.ISAUVOLA, grey, {"window": window, "k": THRESHOLD_K})
    return grey > 0


def turned(pixels: Pixels, turn: Turn) -> Pixels:
    """Turn the pixels of a page about its centre, with cubic interpolation; the size stays."""
    planes = pixels if pixels.ndim == 3 else pixels[..., None]
    most = np.iinfo(pixels.dtype).max
    result = np.empty_like(planes)
    for channel in range(planes.shape[2]):
        fill = round(turn.colour[channel]) if channel < len(turn.colour) else most  # corners are opaque
        plane = np.ascontiguousarray(planes[..., channel])
        if pixels.dtype == np.uint8:
            result[..., channel] = _rotated(plane, turn.angle, fill)
        else:  # Pillow interpolates 16 bits only as floating-point numbers
            found = _rotated(plane.astype(np.float32), turn.angle, fill)
            result[..., channel] = found.round().clip(0, most)
    return result.reshape(pixels.shape)


def _rotated(plane: npt.NDArray[Any], angle: float, fill: float) -> npt.NDArray[Any]:
    return np.asarray(Image.fromarray(plane).rotate(angle, Image.Resampling.BICUBIC, fillcolor=fill))


def _grey(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """A page as grey of 8 bits, shape (H, W)."""
    colours = colours_of(pixels)
    eight: npt.NDArray[np.uint8] = colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)
    if eight.shape[2] == 1:
        return eight[..., 0]
    return np.asarray(Image.fromarray(np.ascontiguousarray(eight)).convert("L"))

"""Heat and spots over the photograph that they were found in, in its own shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vaeguard.reports.pictures import heat_picture, picture_of, save_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.statistics.spots import Spot

SMALLEST = 96
"""The least pixels of the longest side of an overlay; smaller images are enlarged by a whole factor."""
FULL = 2.0
"""Heat of so many times the strangest normal pixels is drawn in the last colour."""
COLOURS = (0.45, 1.0)
"""The part of the colours of heatmaps that is drawn: darker ones would look like shadows."""
OPACITY = 0.55
"""Of all heat, so that the defect below stays visible."""
OUTLINE, EDGE = "#00c8ff", "#002b3a"
"""The colour of outlines, which no heat has, and of their edges, so that they are seen on any ground."""


def draw_overlay(
    path: str | Path,
    photograph: npt.NDArray[Any],
    heatmap: npt.NDArray[np.floating],
    spots: Sequence[Spot] = (),
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Draw heat and spots over a photograph, as a PNG file of the photograph's size.

    Parameters
    ----------
    path : path
        The PNG file.
    photograph : uint8 (C, h, w), or floats in [0, 1]
        The image, upright. One with fewer than 96 pixels a side is enlarged by a whole factor.
    heatmap : float (H, W)
        Its heatmap, of any size.
    spots : sequence of Spot
        Its spots, which are outlined and numbered by their ranks.
    scale : float or None
        Up to this heat, which hardly any pixel of normal images reaches (`DetectorInfo.heatmap_scale`), the photograph
        is shown as it is; None takes half of the largest heat.
    size : (height, width) or None
        The size of the image in which the spots are placed; None is that of the photograph.
    """
    save_image(overlay(photograph, heatmap, spots, scale=scale, size=size), path)


def overlay(
    photograph: npt.NDArray[Any],
    heatmap: npt.NDArray[np.floating],
    spots: Sequence[Spot] = (),
    *,
    scale: float | None = None,
    size: tuple[int, int] | None = None,
) -> Image.Image:
    """The picture that `draw_overlay` writes."""
    height, width = size or photograph.shape[1:]
    picture = picture_of(photograph)
    factor = -(-SMALLEST // max(picture.size))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.paste(*_heat(heatmap, scale or float(heatmap.max()) / FULL or 1.0, picture.size))
    stretch = picture.width / width, picture.height / height
    for spot in reversed(spots):  # the strangest lies on top
        _outline(picture, spot, stretch)
    return picture


def _heat(
    heatmap: npt.NDArray[np.floating], scale: float, size: tuple[int, int]
) -> tuple[Image.Image, None, Image.Image]:
    """The colours of a heatmap, and how opaque each pixel of them is: not at all where it is normal."""
    excess = (heatmap.astype(np.float32) / np.float32(scale) - 1) / np.float32(FULL - 1)
    resized = Image.fromarray(excess.clip(-1, 1)).resize(size, Image.Resampling.BILINEAR)
    level = np.rint(np.asarray(resized).clip(0, 1) * 255).astype(np.uint8)
    steps = np.linspace(0, 1, 256, dtype=np.float32)
    colours = np.asarray(heat_picture(COLOURS[0] + steps[None] * np.float32(COLOURS[1] - COLOURS[0])))[0]
    opacity = np.rint(255 * OPACITY * (steps * 8).clip(0, 1)).astype(np.uint8)
    return Image.fromarray(colours[level]), None, Image.fromarray(opacity[level])


def _outline(picture: Image.Image, spot: Spot, stretch: tuple[float, float]) -> None:
    """A box around a spot with its rank, a little apart from what it shows."""
    pen, line = ImageDraw.Draw(picture), max(1, round(max(picture.size) / 400))
    font = ImageFont.load_default(max(11, round(max(picture.size) / 32)))
    left, right = spot.left * stretch[0], (spot.left + spot.width) * stretch[0] - 1
    top, below = spot.top * stretch[1], (spot.top + spot.height) * stretch[1] - 1
    for grown, width, colour in ((3 * line, 3 * line, EDGE), (2 * line, line, OUTLINE)):
        pen.rectangle((left - grown, top - grown, right + grown, below + grown), outline=colour, width=width)
    text = str(spot.rank)
    *_, wide, high = pen.textbbox((0, 0), text, font=font)
    x = min(max(0, left - 3 * line), picture.width - wide - 2 * line)
    y = top - 3 * line - high - line
    if y < 0:  # no room above
        y = min(below + 4 * line, picture.height - high - line)
    pen.rectangle((x, y, x + wide + 2 * line, y + high + line), fill=EDGE)
    pen.text((x + line, y), text, fill="white", font=font)

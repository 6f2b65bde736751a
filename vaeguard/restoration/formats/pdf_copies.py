"""Copies of scanned PDF files: with pictures in black and white, or with pages turned by a small angle."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pikepdf
from pikepdf import Name

from vaeguard.restoration.formats.bilevel import group4
from vaeguard.restoration.formats.pdf import main_pictures, opened, save, scanned_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vaeguard.restoration.formats.scan_page import Page

Frame = tuple[tuple[float, float], tuple[float, float]]
"""The centre of a page, and its width and height, in points."""


def write_bilevel(content: bytes, name: str, target: Path, threshold: Callable[[Page], npt.NDArray[np.bool_]]) -> None:
    """Write a PDF whose grey and RGB pictures become what `threshold` returns; all else stays.

    Raises
    ------
    UnreadableError
        The PDF is damaged.
    """
    with opened(content, name) as pdf:
        for page, picture in scanned_pages(pdf, name):
            ends = np.cumsum([int(strip.Height) for strip in picture.strips])[:-1]
            for strip, white in zip(picture.strips, np.split(threshold(page), ends), strict=True):
                _replace(strip, white)
        save(pdf, target, name)


def _replace(picture: Any, white: npt.NDArray[np.bool_]) -> None:
    height, width = white.shape
    parameters = pikepdf.Dictionary(K=-1, Columns=width, Rows=height)
    picture.write(group4(white), filter=Name.CCITTFaxDecode, decode_parms=parameters)
    picture.ColorSpace, picture.BitsPerComponent = Name.DeviceGray, 1
    for key in (Name.Decode, Name.SMaskInData):
        if key in picture:
            del picture[key]


def write_turned(
    content: bytes, name: str, target: Path, turn_of: Callable[[Page], tuple[float, Sequence[float]]]
) -> dict[int, Frame]:
    """Write a PDF whose pages are turned about their centres, with everything on them, and return their frames.

    A matrix in front of a page's content turns it: pictures keep their streams, and the text layer stays on them.

    Parameters
    ----------
    turn_of : callable
        Takes the largest picture of a page, and returns the angle in degrees counterclockwise, and the colour of the
        corners as shares of white.

    Raises
    ------
    UnreadableError
        The PDF is damaged.
    """
    frames: dict[int, Frame] = {}
    with opened(content, name) as pdf:
        for page in main_pictures(pdf, name):
            angle, colour = turn_of(page)
            frames[page.number] = _turn(pdf, page.number, angle, colour)
        save(pdf, target, name)
    return frames


def _turn(pdf: pikepdf.Pdf, number: int, angle: float, colour: Sequence[float]) -> Frame:
    page = pdf.pages[number - 1]
    left, bottom, right, top = (float(side) for side in page.mediabox)
    x, y = (left + right) / 2, (bottom + top) / 2
    frame = (x, y), (abs(right - left), abs(top - bottom))
    if angle:
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        fill = " ".join(f"{share:.4f}" for share in colour) + (" rg" if len(colour) == 3 else " g")
        box = f"{min(left, right):.4f} {min(bottom, top):.4f} {frame[1][0]:.4f} {frame[1][1]:.4f} re f"
        numbers = (cos, sin, -sin, cos, x - cos * x + sin * y, y - sin * x - cos * y)
        matrix = " ".join(f"{number:.8f}" for number in numbers)
        page.contents_add(pdf.make_stream(f"q {fill} {box} Q q {matrix} cm\n".encode()), prepend=True)
        page.contents_add(pdf.make_stream(b"\nQ"))
    return frame

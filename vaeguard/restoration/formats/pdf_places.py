"""The positions and orientations of pictures on the pages of a PDF, and the strips that make up one picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pikepdf
from pikepdf import Name
from pikepdf.exceptions import PdfParsingError

if TYPE_CHECKING:
    from collections.abc import Iterator

UPRIGHT = 1e-3
"""The largest turn in radians of a picture that counts as upright."""
_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, -1, -1, 0): 5,
    (0, -1, 1, 0): 6,
    (0, 1, 1, 0): 7,
    (0, 1, -1, 0): 8,
}
"""The EXIF orientation by the directions (x, y) of a picture's right and top on its page."""


class Place(NamedTuple):
    """The matrix that maps the unit square to a picture on its page, in points from the lower left corner."""

    right_x: float
    right_y: float
    top_x: float
    top_y: float
    left: float
    bottom: float

    @property
    def width(self) -> float:
        """The length of the picture's lower edge, in points."""
        return math.hypot(self.right_x, self.right_y)

    @property
    def top(self) -> float:
        """The height of an upright picture's upper edge above the page's lower edge, in points."""
        return self.bottom + self.top_y

    @property
    def upright(self) -> bool:
        """Whether the picture is neither turned nor mirrored."""
        leaning = abs(self.right_y) + abs(self.top_x)
        return self.right_x > 0 and self.top_y > 0 and leaning < UPRIGHT * (self.right_x + self.top_y)

    def orientation(self, turn: int) -> int:
        """The EXIF orientation of the picture on a page that viewers turn by `turn` degrees clockwise."""
        right, top = (self.right_x, self.right_y), (self.top_x, self.top_y)
        for _ in range(turn // 90 % 4):
            right, top = (right[1], -right[0]), (top[1], -top[0])
        return _ORIENTATIONS.get((*_nearest_axis(*right), *_nearest_axis(*top)), 1)


def _nearest_axis(x: float, y: float) -> tuple[int, int]:
    """The unit vector along the axis that is nearest to a vector."""
    along_x = abs(x) > abs(y)
    return (int(math.copysign(1, x)) * along_x, int(math.copysign(1, y)) * (not along_x))


def places_of(page: pikepdf.Page) -> dict[str, Place]:
    """Find the places of pictures that the page itself draws exactly once."""
    drawn: dict[str, list[pikepdf.Matrix]] = {}
    matrix, outer = pikepdf.Matrix(), []
    try:
        for step in pikepdf.parse_content_stream(page, "q Q cm Do"):
            operands, operator = step.operands, str(step.operator)
            if operator == "q":
                outer.append(matrix)
            elif operator == "Q" and outer:
                matrix = outer.pop()
            elif operator == "cm":
                matrix = pikepdf.Matrix(*map(float, operands)) @ matrix
            elif operator == "Do":
                drawn.setdefault(str(operands[0]), []).append(matrix)
    except (pikepdf.PdfError, PdfParsingError, TypeError, ValueError):
        return {}  # viewers draw the rest of a damaged page, and its pictures can be restored one by one
    return {key: Place(*matrices[0].shorthand) for key, matrices in drawn.items() if len(matrices) == 1}


def stacked(places: dict[str, Place], pictures: dict[str, Any]) -> Iterator[list[str]]:
    """Group the names of pictures of equal width and kind that lie below each other without a gap, from the top."""
    stack: list[str] = []
    for key in sorted(places, key=lambda key: (places[key].left, -places[key].top)):
        if stack and not _continues(key, stack[-1], places, pictures):
            yield stack
            stack = []
        stack.append(key)
    if stack:
        yield stack


def _continues(lower: str, upper: str, places: dict[str, Place], pictures: dict[str, Any]) -> bool:
    below, above = pictures[lower], pictures[upper]
    if below.Width != above.Width or below.get(Name.ColorSpace) != above.get(Name.ColorSpace):
        return False
    low, high = places[lower], places[upper]
    pixel = high.width / int(above.Width)
    offsets = (low.left - high.left, low.width - high.width, low.top - high.bottom)
    # Writers round positions to about a hundredth of a point, and some strips overlap slightly.
    return all(abs(offset) < pixel for offset in offsets)

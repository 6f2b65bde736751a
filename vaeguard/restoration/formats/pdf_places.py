"""Where the pictures of a PDF lie on their pages, how they are turned, and which are strips of one picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pikepdf
from pikepdf import Name

if TYPE_CHECKING:
    from collections.abc import Iterator

UPRIGHT = 1e-3
"""Pictures that are turned by less count as upright."""
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
"""Where the right and the top of a picture point to on its page, x and y each, as the orientation of EXIF."""


class Place(NamedTuple):
    """Where a picture lies on its page: the matrix that takes the unit square there, in points from the lower left."""

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
        """The height of the upper edge above the page's lower one, of a picture that is upright."""
        return self.bottom + self.top_y

    @property
    def upright(self) -> bool:
        """Whether the picture is neither turned nor mirrored."""
        leaning = abs(self.right_y) + abs(self.top_x)
        return self.right_x > 0 and self.top_y > 0 and leaning < UPRIGHT * (self.right_x + self.top_y)

    def orientation(self, turn: int) -> int:
        """How the picture is to be turned, as in EXIF, where viewers turn the page by `turn` degrees clockwise."""
        ahead, up = (self.right_x, self.right_y), (self.top_x, self.top_y)
        for _ in range(turn // 90 % 4):
            ahead, up = (ahead[1], -ahead[0]), (up[1], -up[0])
        return _ORIENTATIONS.get((*_nearest_axis(*ahead), *_nearest_axis(*up)), 1)


def _nearest_axis(x: float, y: float) -> tuple[int, int]:
    """The direction of a vector, as a vector of length 1 along one axis."""
    along_x = abs(x) > abs(y)
    return (int(math.copysign(1, x)) * along_x, int(math.copysign(1, y)) * (not along_x))


def places_of(page: pikepdf.Page) -> dict[str, Place]:
    """Places of the pictures that a page draws itself, and only once."""
    drawn: dict[str, list[pikepdf.Matrix]] = {}
    now, outer = pikepdf.Matrix(), []
    try:
        for step in pikepdf.parse_content_stream(page, "q Q cm Do"):
            operands, operator = step.operands, str(step.operator)
            if operator == "q":
                outer.append(now)
            elif operator == "Q" and outer:
                now = outer.pop()
            elif operator == "cm":
                now = pikepdf.Matrix(*(float(each) for each in operands)) @ now
            elif operator == "Do":
                drawn.setdefault(str(operands[0]), []).append(now)
    except (pikepdf.PdfError, pikepdf.PdfParsingError, TypeError, ValueError):
        return {}  # viewers draw what they understand, and its pictures can be restored one by one
    return {key: Place(*at.shorthand) for key, (at, *more) in drawn.items() if not more}


def stacked(places: dict[str, Place], pictures: dict[str, Any]) -> Iterator[list[str]]:
    """Names, from the top, of pictures of one width and kind that lie below each other without a gap."""
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
    apart = (low.left - high.left, low.width - high.width, low.top - high.bottom)
    # Writers round places to a hundredth of a point or so, and some strips overlap by a hair.
    return all(abs(each) < pixel for each in apart)

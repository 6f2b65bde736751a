"""The positions and orientations of pictures on the pages of a PDF, and the strips that make up one picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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

    def turned(self, quarters: int) -> Place:
        """The place after the page was turned by quarters clockwise about its lower left corner."""
        place = self
        for _ in range(quarters % 4):
            place = Place(place[1], -place[0], place[3], -place[2], place[5], -place[4])
        return place

    def orientation(self, turn: int) -> int:
        """The EXIF orientation of the picture on a page that viewers turn by `turn` degrees clockwise."""
        right_x, right_y, top_x, top_y, *_ = self.turned(turn // 90)
        return _ORIENTATIONS.get((*_nearest_axis(right_x, right_y), *_nearest_axis(top_x, top_y)), 1)


def _nearest_axis(x: float, y: float) -> tuple[int, int]:
    """The unit vector along the axis that is nearest to a vector."""
    along_x = abs(x) > abs(y)
    return (int(math.copysign(1, x)) * along_x, int(math.copysign(1, y)) * (not along_x))


def places_of(page: pikepdf.Page) -> dict[str, Place]:
    """Find the places of pictures that a page draws exactly once, itself or in a form.

    The name of a picture in a form follows that of the form, as in `pdf._pictures`.
    """
    drawing = _Drawing()
    try:
        drawing.trace(page, page.resources, "", pikepdf.Matrix())
    except (pikepdf.PdfError, PdfParsingError, AttributeError, TypeError, ValueError):
        return {}  # viewers draw the rest of a damaged page, and its pictures can be restored one by one
    return {
        key: Place(*matrices[0].shorthand)
        for key, matrices in drawing.drawn.items()
        if len(matrices) == 1 and not key.startswith(tuple(drawing.repeated))
    }


@dataclass
class _Drawing:
    """What a page draws.

    Attributes
    ----------
    drawn : dict
        The matrices of each picture and form, one for each time that it is drawn, by its name.
    traced : set of (int, int)
        The identifiers of the forms that were traced.
    repeated : list of str
        The starts of the names of pictures in forms that are drawn more than once.
    """

    drawn: dict[str, list[pikepdf.Matrix]] = field(default_factory=dict)
    traced: set[tuple[int, int]] = field(default_factory=set)
    repeated: list[str] = field(default_factory=list)

    def trace(self, content: Any, resources: Any, prefix: str, matrix: pikepdf.Matrix) -> None:
        """Follow the steps of a page, or of a form whose name is `prefix`, which begins with this matrix."""
        outer = []
        for step in pikepdf.parse_content_stream(content, "q Q cm Do"):
            operands, operator = step.operands, str(step.operator)
            if operator == "q":
                outer.append(matrix)
            elif operator == "Q" and outer:
                matrix = outer.pop()
            elif operator == "cm":
                matrix = pikepdf.Matrix(*map(float, operands)) @ matrix
            elif operator == "Do":
                key = prefix + str(operands[0])
                self.drawn.setdefault(key, []).append(matrix)
                form = resources.get(Name.XObject, {}).get(operands[0])
                if form is not None and form.get(Name.Subtype) == Name.Form:
                    self._trace_form(form, resources, key, matrix)

    def _trace_form(self, form: Any, resources: Any, key: str, matrix: pikepdf.Matrix) -> None:
        if form.objgen in self.traced:  # each form is traced once, since forms in forms may draw without end
            self.repeated.append(key + "/")
            return
        self.traced.add(form.objgen)
        inner = pikepdf.Matrix(*map(float, form.get(Name.Matrix, (1, 0, 0, 1, 0, 0)))) @ matrix
        self.trace(form, form.get(Name.Resources, resources), key, inner)


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

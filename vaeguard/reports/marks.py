"""The parts of a page that were put back or left alone, as rectangles to draw over the page's picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    Rectangle = tuple[int, int, int, int]

MOST = 2000
"""The most rectangles on a page, since nobody could tell more apart; squares are joined to larger ones until then."""


def marks_of(record: Mapping[str, Any], number: int, size: tuple[int, int]) -> dict[str, Any]:
    """The parts of page `number`, of height and width `size`, that its record lists as put back or left alone.

    Returns
    -------
    dict
        `size`; `put_back`, a list of rectangles, each top, left, bottom and right in pixels; `region`, the rectangle
        that was cleaned, or None for the whole page.
    """
    put_back = record.get("put_back", {"square": 1, "pages": {}})
    row: dict[str, Any] = next((row for row in record.get("pages", ()) if row["page"] == number), {})
    squares = np.array([[mark == "#" for mark in line] for line in put_back["pages"].get(str(number), ["."])])
    rectangles = _few_rectangles(squares, put_back["square"])
    height, width = size
    clipped = [[top, left, min(bottom, height), min(right, width)] for top, left, bottom, right in rectangles]
    return {"size": [height, width], "put_back": clipped, "region": row.get("region")}


def _few_rectangles(squares: npt.NDArray[np.bool_], side: int) -> list[Rectangle]:
    rectangles = list(rectangles_of(squares))
    while len(rectangles) > MOST:
        padded = np.pad(squares, [(0, length % 2) for length in squares.shape])
        squares = np.logical_or.reduce(padded.reshape(len(padded) // 2, 2, -1, 2), axis=(1, 3))
        rectangles, side = list(rectangles_of(squares)), 2 * side
    return [(top * side, left * side, bottom * side, right * side) for top, left, bottom, right in rectangles]


def rectangles_of(squares: npt.NDArray[np.bool_]) -> Iterator[Rectangle]:
    """Rectangles that cover each true square once: runs of a row, joined with equal runs in the rows below."""
    begun: dict[tuple[int, int], int] = {}
    for number, row in enumerate([*squares, np.zeros(squares.shape[1], np.bool_)]):
        edges = np.flatnonzero(np.diff(np.pad(row, 1).astype(np.int8))).tolist()
        runs = set(zip(edges[::2], edges[1::2], strict=True))
        for run in [run for run in begun if run not in runs]:
            yield begun.pop(run), run[0], number, run[1]
        for run in runs:
            begun.setdefault(run, number)

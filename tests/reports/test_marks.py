"""The rectangles over the picture of a page."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from vaeguard.reports import marks
from vaeguard.reports.marks import marks_of, rectangles_of

SQUARES = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans())


@given(SQUARES)
def test_rectangles_cover_each_true_square_once_and_no_other(squares):
    covered = np.zeros(squares.shape, int)
    for top, left, bottom, right in rectangles_of(squares):
        covered[top:bottom, left:right] += 1
    np.testing.assert_array_equal(covered, squares)


def test_a_block_of_squares_is_one_rectangle():
    squares = np.zeros((5, 7), np.bool_)
    squares[1:4, 2:7] = True
    assert list(rectangles_of(squares)) == [(1, 2, 4, 7)]


def test_marks_are_in_pixels_and_end_with_the_page():
    record = {
        "pages": [{"page": 1}, {"page": 2, "region": [10, 20, 60, 70]}],
        "put_back": {"square": 32, "pages": {"1": ["..#", "..#"]}},
    }
    assert marks_of(record, 1, (40, 80)) == {"size": [40, 80], "put_back": [[0, 64, 40, 80]], "region": None}
    assert marks_of(record, 2, (90, 80)) == {"size": [90, 80], "put_back": [], "region": [10, 20, 60, 70]}


def test_many_rectangles_become_few_that_cover_the_same(monkeypatch):
    monkeypatch.setattr(marks, "MOST", 20)
    lines = ["".join("#." if (row + column) % 2 else ".#" for column in range(7)) for row in range(13)]
    found = marks_of({"put_back": {"square": 2, "pages": {"1": lines}}}, 1, (26, 28))["put_back"]
    assert len(found) <= 20
    covered = np.zeros((26, 28), np.bool_)
    for top, left, bottom, right in found:
        covered[top:bottom, left:right] = True
    squares = np.array([[mark == "#" for mark in line] for line in lines])
    assert covered[squares.repeat(2, 0).repeat(2, 1)].all()

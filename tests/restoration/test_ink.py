"""The ink of a page, found on the page as it came in."""

import numpy as np
import pytest
from scipy import ndimage

from vaeguard.restoration.ink import Ridges, _dilated, certainty, ink_model, reach, ridges
from vaeguard.restoration.paper import PageRows, paper_of

EVEN = np.zeros((1, 1), np.float32)
"""Paper that does not change."""


def seen(page):
    rows = PageRows(np.round(255 * np.clip(page, 0, 1)).astype(np.uint8))
    paper = paper_of(rows)
    found = ridges(rows(0, rows.height), paper, 0, 0.0)
    return found, paper, rows


def in_colour(page, tint=(0.95, 0.9, 0.8)):
    return page[..., None] * np.array(tint, np.float32)


def test_strokes_are_ridges_and_shades_are_none(printed):
    page = printed(320, 400) * np.linspace(0.5, 0.9, 400, dtype=np.float32)
    page[:, 200:] *= 0.8  # an edge, dark on one side only
    found, _, _ = seen(page[..., None])
    ink, paper = printed(320, 400) < 0.2, ndimage.minimum_filter(printed(320, 400), 7) > 0.95
    assert np.median(found.depth[ink]) > 0.6
    assert np.quantile(found.depth[paper], 0.99) < 0.05


def test_certainty_does_not_depend_on_how_dark_the_ink_is(printed):
    """What counts is the usual stroke of the page: faint pages are guarded as dark ones are."""
    certain = []
    for strength in (1.0, 0.3):
        page = 0.9 * (1 - strength * (1 - printed(320, 400)))
        found, _, _ = seen(page[..., None])
        certain.append(certainty(found, ink_model([found]), EVEN))
    ink = printed(320, 400) < 0.3
    assert certain[0][ink].mean() > 0.97
    np.testing.assert_allclose(certain[1][ink].mean(), certain[0][ink].mean(), atol=0.02)


def test_what_shines_through_is_softer_than_ink(printed):
    back = ndimage.gaussian_filter(1 - printed(320, 400, seed=5)[:, ::-1], 1.5)
    page = 0.9 * (printed(320, 400) - 0.5 * back * (printed(320, 400) > 0.9))
    found, _, _ = seen(page[..., None])
    certain = certainty(found, ink_model([found]), EVEN)
    assert certain[printed(320, 400) < 0.3].mean() > 0.97
    behind = (back > 0.3) & (ndimage.minimum_filter(printed(320, 400), 9) > 0.95)
    assert certain[behind].mean() < 0.5


@pytest.mark.parametrize("ink", [(0.85, 0.70, 0.72), (0.75, 0.8, 0.92), (0.75, 0.86, 0.7)])
def test_faint_ink_of_a_colour_of_its_own_is_certain_among_black_ink(printed, ink):
    black, other = printed(320, 400), printed(320, 400, seed=7)
    page = in_colour(black)
    page[200:] = in_colour(np.ones((120, 400), np.float32))
    page[200:] *= 1 - (1 - other[200:, :, None]) * (1 - np.array(ink, np.float32))
    found, _, _ = seen(page)
    certain = certainty(found, ink_model([found]), EVEN)
    assert certain[200:][other[200:] < 0.3].mean() > 0.9


def test_a_faint_ridge_where_the_paper_changes_is_less_certain_than_elsewhere(printed):
    page = 0.9 * printed(320, 400)
    page[200:] = 0.9
    page[200:, 100::60] = page[200:, 101::60] = 0.9 * 0.65  # faint lines
    found, _, _ = seen(page[..., None])
    model = ink_model([found])
    certain, doubted = (certainty(found, model, np.full((1, 1), steep, np.float32)) for steep in (0, 0.2))
    lines, strokes = np.s_[210:, 100::60], printed(320, 400)[:200] < 0.2
    assert certain[lines].min() > 0.3
    assert doubted[lines].max() < certain[lines].min()
    np.testing.assert_allclose(doubted[:200][strokes].mean(), certain[:200][strokes].mean(), atol=0.02)


def test_strips_give_what_the_whole_gives(printed):
    page = in_colour(printed(320, 400))
    whole, paper, rows = seen(page)
    far = reach(paper.block)
    strip = ridges(rows(100 - far, 200 + far), paper, 100 - far, 0.0)
    model = ink_model([whole])
    for name in ("depth", "sharpness", "hue"):
        np.testing.assert_array_equal(getattr(strip, name)[far : far + 100], getattr(whole, name)[100:200])
    np.testing.assert_array_equal(
        certainty(strip, model, EVEN)[far : far + 100], certainty(whole, model, EVEN)[100:200]
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (20, 30)])
def test_neighbours_are_those_of_the_filter(shape):
    values = np.random.default_rng(0).random(shape, np.float32)
    for times in (1, 3):
        expected = ndimage.maximum_filter(values, 2 * times + 1, mode="nearest")
        np.testing.assert_array_equal(_dilated(values, times), expected)


def test_an_empty_page_has_a_model_of_no_certain_sharpness():
    model = ink_model([Ridges(np.zeros((50, 50), np.float32), np.zeros((50, 50), np.float32))])
    assert model.sharpness == 0
    assert certainty(Ridges(np.zeros((5, 5), np.float32), np.zeros((5, 5), np.float32)), model, EVEN).max() == 0

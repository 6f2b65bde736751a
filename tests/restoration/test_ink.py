"""The ink of an original page."""

import numpy as np
import pytest
from scipy import ndimage

from vaeguard.restoration.ink import Ridges, _dilated, certainty, ink_model, reach, ridges
from vaeguard.restoration.paper import PageRows, paper_of

EVEN = np.zeros((1, 1), np.float32)
"""The change of even paper."""


def measure(page):
    rows = PageRows(np.round(255 * np.clip(page, 0, 1)).astype(np.uint8))
    paper = paper_of(rows)
    measured = ridges(rows(0, rows.height), paper, 0, 0.0)
    return measured, paper, rows


def in_colour(page, tint=(0.95, 0.9, 0.8)):
    return page[..., None] * np.array(tint, np.float32)


def test_strokes_are_ridges_but_shades_are_not(printed):
    page = printed(320, 400) * np.linspace(0.5, 0.9, 400, dtype=np.float32)
    page[:, 200:] *= 0.8  # an edge is dark on one side only
    measured, _, _ = measure(page[..., None])
    ink, paper = printed(320, 400) < 0.2, ndimage.minimum_filter(printed(320, 400), 7) > 0.95
    assert np.median(measured.depth[ink]) > 0.6
    assert np.quantile(measured.depth[paper], 0.99) < 0.05


def test_certainty_does_not_depend_on_how_dark_the_ink_is(printed):
    """Depth is relative to the usual stroke of the page, so that faint pages are protected as well."""
    certain = []
    for strength in (1.0, 0.3):
        page = 0.9 * (1 - strength * (1 - printed(320, 400)))
        measured, _, _ = measure(page[..., None])
        certain.append(certainty(measured, ink_model([measured]), EVEN))
    ink = printed(320, 400) < 0.3
    assert certain[0][ink].mean() > 0.97
    np.testing.assert_allclose(certain[1][ink].mean(), certain[0][ink].mean(), atol=0.02)


def test_bleed_through_is_softer_than_ink(printed):
    back = ndimage.gaussian_filter(1 - printed(320, 400, seed=5)[:, ::-1], 1.5)
    page = 0.9 * (printed(320, 400) - 0.5 * back * (printed(320, 400) > 0.9))
    measured, _, _ = measure(page[..., None])
    certain = certainty(measured, ink_model([measured]), EVEN)
    assert certain[printed(320, 400) < 0.3].mean() > 0.97
    behind = (back > 0.3) & (ndimage.minimum_filter(printed(320, 400), 9) > 0.95)
    assert certain[behind].mean() < 0.5


@pytest.mark.parametrize("ink", [(0.85, 0.70, 0.72), (0.75, 0.8, 0.92), (0.75, 0.86, 0.7)])
def test_faint_coloured_ink_is_certain_among_black_ink(printed, ink):
    black, other = printed(320, 400), printed(320, 400, seed=7)
    page = in_colour(black)
    page[200:] = in_colour(np.ones((120, 400), np.float32))
    page[200:] *= 1 - (1 - other[200:, :, None]) * (1 - np.array(ink, np.float32))
    measured, _, _ = measure(page)
    certain = certainty(measured, ink_model([measured]), EVEN)
    assert certain[200:][other[200:] < 0.3].mean() > 0.9


def test_a_faint_ridge_is_less_certain_where_the_paper_changes(printed):
    page = 0.9 * printed(320, 400)
    page[200:] = 0.9
    page[200:, 100::60] = page[200:, 101::60] = 0.9 * 0.65  # faint lines
    measured, _, _ = measure(page[..., None])
    model = ink_model([measured])
    certain, uncertain = (certainty(measured, model, np.full((1, 1), steep, np.float32)) for steep in (0, 0.2))
    lines, strokes = np.s_[210:, 100::60], printed(320, 400)[:200] < 0.2
    assert certain[lines].min() > 0.3
    assert uncertain[lines].max() < certain[lines].min()
    np.testing.assert_allclose(uncertain[:200][strokes].mean(), certain[:200][strokes].mean(), atol=0.02)


def test_strips_equal_the_whole_page(printed):
    page = in_colour(printed(320, 400))
    whole, paper, rows = measure(page)
    margin = reach(paper.block)
    strip = ridges(rows(100 - margin, 200 + margin), paper, 100 - margin, 0.0)
    model = ink_model([whole])
    for name in ("depth", "sharpness", "hue"):
        np.testing.assert_array_equal(getattr(strip, name)[margin : margin + 100], getattr(whole, name)[100:200])
    np.testing.assert_array_equal(
        certainty(strip, model, EVEN)[margin : margin + 100], certainty(whole, model, EVEN)[100:200]
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (20, 30)])
def test_dilation_equals_the_maximum_filter(shape):
    values = np.random.default_rng(0).random(shape, np.float32)
    for times in (1, 3):
        expected = ndimage.maximum_filter(values, 2 * times + 1, mode="nearest")
        np.testing.assert_array_equal(_dilated(values, times), expected)


def test_an_empty_page_has_a_model_without_sharpness():
    model = ink_model([Ridges(np.zeros((50, 50), np.float32), np.zeros((50, 50), np.float32))])
    assert model.sharpness == 0
    assert certainty(Ridges(np.zeros((5, 5), np.float32), np.zeros((5, 5), np.float32)), model, EVEN).max() == 0

"""The paper under the ink."""

import numpy as np
import pytest
from scipy import ndimage

from vaeguard.restoration.paper import (
    PageRows,
    block_quantiles,
    divided,
    filled,
    interpolated,
    page_region,
    paper_of,
    pictures_in,
    stroke_width,
)


def rows_of(page):
    levels = np.round(255 * np.clip(page, 0, 1)).astype(np.uint8)
    return PageRows(levels if levels.ndim == 3 else levels[..., None])


def test_a_page_of_text_has_even_paper(printed):
    paper = paper_of(rows_of(printed(320, 400, seed=1) * np.float32(0.8)))
    assert np.abs(paper.values - 0.8).max() < 0.06
    assert (np.abs(paper.values - 0.8) < 0.01).mean() > 0.98
    assert not paper.outside.any()


def test_uneven_light_is_paper(printed):
    light = np.linspace(0.5, 1, 400, dtype=np.float32)
    paper = paper_of(rows_of(printed(320, 400) * light))
    estimated = paper.rows(0, 320, 400)[..., 0]
    np.testing.assert_allclose(estimated[40:280, 40:360], np.broadcast_to(light[40:360], (240, 320)), atol=0.03)


@pytest.mark.parametrize("width", [2, 5, 9, 14])
def test_the_width_of_strokes_is_measured(width):
    page = np.ones((400, 400), np.float32)
    page[20::60, 20:380] = page[20:380, 20::90] = 0.1
    page = ndimage.minimum_filter(page, width)
    angled = ndimage.rotate(page, 30, reshape=False, order=1, cval=1)
    assert stroke_width(rows_of(angled)) == pytest.approx(width, rel=0.25)


def test_the_scale_of_a_page_follows_from_its_strokes(printed):
    """At four times the resolution, blocks grow, and the paper stays the same."""
    page = printed(320, 400) * np.linspace(0.6, 0.9, 400, dtype=np.float32)
    large = np.repeat(np.repeat(page, 4, 0), 4, 1)
    small, big = paper_of(rows_of(page)), paper_of(rows_of(large))
    assert big.block >= 2 * small.block
    difference = big.rows(0, 1280, 1600)[::4, ::4, 0] - small.rows(0, 320, 400)[..., 0]
    assert np.abs(difference[20:-20, 20:-20]).mean() < 0.02


@pytest.mark.parametrize("colour", [(0.1, 0.1, 0.1), (0.8, 0.25, 0.2), (0.3, 0.4, 0.8)])
def test_thick_ink_of_any_colour_is_no_paper(printed, colour):
    page = np.repeat(printed(480, 600)[..., None], 3, 2) * np.array([0.95, 0.92, 0.8], np.float32)
    page[100:190, 60:520] = np.where(page[100:190, 60:520] > 0, np.array([0.95, 0.92, 0.8], np.float32), 0)
    for left in (80, 200, 320, 440):
        page[100:190, left : left + 50] = colour
    paper = paper_of(rows_of(page))
    estimated = paper.rows(0, 480, 600)
    np.testing.assert_allclose(estimated[130:160, 95:120], np.broadcast_to([0.95, 0.92, 0.8], (30, 25, 3)), atol=0.03)
    assert paper.thick_rows(130, 160, 600)[:, 95:120].min() == 1


@pytest.mark.parametrize("fill", [(0.08, 0.08, 0.08), (0.7, 0.12, 0.12), (1.0, 0.95, 0.35)])
def test_a_bar_or_a_marker_with_print_on_it_is_no_paper(printed, fill):
    tint = np.array([0.95, 0.92, 0.8], np.float32)
    page = printed(480, 600)[..., None] * tint
    text = printed(60, 500, seed=3)[..., None]
    bar = np.array(fill, np.float32)
    ink = tint if min(fill) < 0.3 else np.zeros(3, np.float32)  # white on dark bars, black on markers
    page[100:180, 40:560] = bar * tint
    page[110:170, 50:550] = text * bar * tint + (1 - text) * ink
    paper = paper_of(rows_of(page))
    np.testing.assert_allclose(paper.rows(130, 150, 600)[:, 80:520], np.broadcast_to(tint, (20, 440, 3)), atol=0.05)


def test_a_stain_with_writing_on_it_is_paper(printed):
    page = printed(480, 600) * np.float32(0.9)
    page[120:360, 150:450] *= 0.55
    paper = paper_of(rows_of(page))
    np.testing.assert_allclose(paper.rows(0, 480, 600)[140:340, 170:430, 0], 0.9 * 0.55, atol=0.03)


@pytest.mark.parametrize("border", [8, 13, 32, 64])
def test_a_dark_lid_is_found_to_the_pixel(printed, border):
    page = np.pad(printed(300, 400) * np.float32(0.85), border, constant_values=0.08)
    rows, columns = page_region(rows_of(page))
    assert (rows.start, rows.stop) == (border, border + 300)
    assert (columns.start, columns.stop) == (border, border + 400)


def test_a_lid_beside_a_turned_page_lies_outside(printed):
    page = ndimage.rotate(printed(300, 400) * np.float32(0.85), 3, order=1, cval=0.08)
    mask = ndimage.rotate(np.ones((300, 400)), 3, order=0, cval=0) > 0
    rows = rows_of(page)
    region = page_region(rows)
    paper = paper_of(PageRows(rows.pixels[region]))
    outside = paper.outside_rows(rows(0, rows.height)[region], 0)
    inside = ndimage.binary_erosion(mask[region], iterations=2)
    assert outside[inside].mean() < 0.005  # only letters that touch the edge
    assert outside[ndimage.binary_erosion(~mask[region], iterations=2)].mean() > 0.99


def test_a_page_without_a_lid_is_whole(printed):
    page = printed(300, 400)
    page[100:140] = 0  # a bar across the page is no border
    assert page_region(rows_of(page)) == (slice(0, 300), slice(0, 400))


def test_a_picture_is_detected_but_a_stain_is_not(printed):
    page = printed(600, 700) * np.float32(0.9)
    rng = np.random.default_rng(0)
    shades = ndimage.gaussian_filter(rng.random((240, 300)), 4)
    page[60:300, 40:340] = 0.1 + 0.6 * (shades - shades.min()) / np.ptp(shades)
    page[360:560, 380:640] *= 0.6
    paper = paper_of(rows_of(page))
    pictures = interpolated(pictures_in(paper).astype(np.float32), paper.block, 0, 600, 700)
    assert pictures[80:280, 60:320].min() == 1
    assert pictures[360:].max() == 0


@pytest.mark.parametrize("cut", [5, 35, 60])
def test_strips_equal_the_whole_page(cut):
    rng = np.random.default_rng(0)
    page = rng.random((73, 91, 3), np.float32)
    (whole,) = block_quantiles(page, 5, (0.8,))
    strips = [block_quantiles(page[start : start + cut], 5, (0.8,))[0] for start in range(0, 73, cut)]
    np.testing.assert_array_equal(np.concatenate(strips), whole)
    values = rng.random((15, 19), np.float32)
    rows = [interpolated(values, 5, start, min(start + cut, 73), 91) for start in range(0, 73, cut)]
    np.testing.assert_array_equal(np.concatenate(rows), interpolated(values, 5, 0, 73, 91))


def test_block_quantiles_equal_those_of_numpy():
    page = np.random.default_rng(0).random((20, 30, 2), np.float32)
    low, high = block_quantiles(page, 10, (0.05, 0.8))
    blocks = page.reshape(2, 10, 3, 10, 2).transpose(0, 2, 4, 1, 3).reshape(2, 3, 2, 100)
    np.testing.assert_array_equal(low, np.sort(blocks, -1)[..., 4])
    np.testing.assert_array_equal(high, np.sort(blocks, -1)[..., 79])


def test_unknown_values_are_filled_from_their_surroundings():
    ramp = np.linspace(0, 1, 40, dtype=np.float32)[:, None, None] * np.ones((1, 30, 3), np.float32)
    known = np.ones((40, 30), np.bool_)
    known[10:20, 5:25] = False
    estimated = filled(np.where(known[..., None], ramp, 9), known)
    np.testing.assert_array_equal(estimated[known], ramp[known])
    np.testing.assert_allclose(estimated, ramp, atol=0.12)
    np.testing.assert_array_equal(filled(ramp, np.ones_like(known)), ramp)


def test_a_constant_map_stays_constant_and_centres_keep_their_values():
    np.testing.assert_array_equal(interpolated(np.full((3, 4), 0.7, np.float32), 5, 0, 14, 18), np.float32(0.7))
    values = np.random.default_rng(0).random((3, 4), np.float32)
    np.testing.assert_allclose(interpolated(values, 5, 0, 15, 20)[2::5, 2::5], values, atol=1e-6)


def test_a_divided_page_is_white_with_ink(printed):
    page = printed(320, 400)
    light = np.linspace(0.5, 1, 400, dtype=np.float32)
    np.testing.assert_allclose(divided(page * light)[20:-20, 20:-20], page[20:-20, 20:-20], atol=0.08)

"""The paper under the ink."""

import numpy as np
import pytest

from vaeguard.restoration.paper import block_pixels, bright_blocks, interpolated, paper_map, pictures_in


def test_a_page_of_text_has_even_paper(printed):
    page = printed(seed=1) * np.float32(0.8)
    paper = paper_map(bright_blocks(page, 5))
    np.testing.assert_allclose(paper, 0.8, atol=0.01)


def test_uneven_light_is_paper(printed):
    light = np.linspace(0.5, 1, 200, dtype=np.float32)
    paper = paper_map(bright_blocks(printed(200, 200) * light, 5))
    found = interpolated(paper, 5, 0, 200, 200)
    np.testing.assert_allclose(found[40:160, 40:160], np.broadcast_to(light[40:160], (120, 120)), atol=0.03)


@pytest.mark.parametrize("cut", [5, 35, 60])
def test_strips_give_what_the_whole_gives(cut):
    rng = np.random.default_rng(0)
    page = rng.random((73, 91), np.float32)
    strips = [bright_blocks(page[start : start + cut], 5) for start in range(0, 73, cut)]
    np.testing.assert_array_equal(np.concatenate(strips), bright_blocks(page, 5))
    values = rng.random((15, 19), np.float32)
    rows = [interpolated(values, 5, start, min(start + cut, 73), 91) for start in range(0, 73, cut)]
    np.testing.assert_array_equal(np.concatenate(rows), interpolated(values, 5, 0, 73, 91))


def test_a_constant_map_stays_constant_and_centres_keep_their_values():
    np.testing.assert_array_equal(interpolated(np.full((3, 4), 0.7, np.float32), 5, 0, 14, 18), np.float32(0.7))
    values = np.random.default_rng(0).random((3, 4), np.float32)
    np.testing.assert_allclose(interpolated(values, 5, 0, 15, 20)[2::5, 2::5], values, atol=1e-6)


def test_blocks_follow_the_resolution():
    assert block_pixels(2480, 300) == 8
    assert block_pixels(2480) == 7
    assert block_pixels(100) == 2


def test_a_picture_is_found_to_its_corners_and_small_stains_are_none():
    paper = np.full((100, 120), 0.9, np.float32)
    paper[10:50, 10:70] = np.maximum(np.linspace(0.1, 0.7, 60), 0.35 * 0.9)
    paper[70:76, 20:26] = 0.35 * 0.9  # a black stain a little more than a letter wide
    paper[60:95, 80:110] = 0.5  # a large one that is brighter
    found = pictures_in(paper, 0.9)
    assert found[10:50, 10:60].all()
    found[10:50, 10:70] = False
    assert not found.any()


def test_a_dark_frame_leaves_the_page_inside_alone():
    paper = np.full((100, 120), 0.9, np.float32)
    paper[:, :15] = paper[:, -15:] = 0.3
    paper[:15] = 0.3
    found = pictures_in(paper, 0.9)
    assert found[:, :15].all()
    assert not found[15:, 15:-15].any()

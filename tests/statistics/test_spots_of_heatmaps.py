"""Spots of heatmaps: where they lie, how they are ranked, and what their p-values promise."""

from __future__ import annotations

import numpy as np
import pytest

from vaeguard.statistics.spots import MOST_SPOTS, SPOT_RATE, find_spots

PEAKS = np.linspace(1, 2, 99, dtype=np.float32)


def heat(*boxes, size=(40, 60)):
    """A heatmap of 0.5 with boxes (top, left, height, width) of their own heat."""
    heatmap = np.full(size, 0.5, np.float32)
    for (top, left, height, width), value in boxes:
        heatmap[top : top + height, left : left + width] = value
    return heatmap


def test_spots_are_ranked_by_their_peaks_and_placed_in_pixels_of_the_original():
    heatmap = heat(((4, 6, 3, 5), 4.0), ((20, 30, 2, 2), 9.0))
    heatmap[21, 31] = 5
    (first, second), found = find_spots(heatmap, PEAKS, scale=1.2, size=(400, 300))
    assert found == 2
    assert (first.rank, first.left, first.top, first.width, first.height) == (1, 150, 200, 10, 20)
    assert (first.area, first.peak, second.peak) == (4 * 50, 9.0, 4.0)
    assert (first.x, first.y) == (154.7, 209.4)  # (30.5 * 18 + 31.5 * 14) / 32 * 5, (20.5 * 18 + 21.5 * 14) / 32 * 10
    assert (second.rank, second.x, second.y) == (2, pytest.approx(8.5 * 5), pytest.approx(5.5 * 10))


def test_a_spot_reaches_as_far_as_its_pixels_are_strange():
    heatmap = heat(((10, 10, 9, 9), 1.3), ((13, 13, 3, 3), 3.0), ((30, 30, 9, 9), 1.3))
    (spot,), found = find_spots(heatmap, PEAKS, scale=1.2)
    assert (found, spot.left, spot.top, spot.width, spot.height) == (1, 10, 10, 9, 9)
    (core,), _ = find_spots(heatmap, PEAKS)
    assert (core.left, core.width) == (13, 3)


def test_p_values_are_shares_of_calibration_images_with_such_a_peak():
    generator = np.random.default_rng(0)
    peaks = np.sort(generator.gamma(2, 1, 50)).astype(np.float32)
    for value in (*peaks[-12:], np.float32(40)):
        spots, found = find_spots(heat(((5, 5, 2, 2), value)), peaks)
        expected = (1 + np.count_nonzero(peaks >= value)) / 51
        assert found == (expected <= SPOT_RATE)
        assert [spot.p_value for spot in spots] == ([pytest.approx(expected)] if found else [])


def test_normal_images_have_spots_no_more_often_than_promised():
    generator = np.random.default_rng(1)
    share = np.mean(
        [
            find_spots(generator.gamma(2, 1, (6, 6)), np.sort(generator.gamma(2, 1, (30, 6, 6)).max((1, 2))))[1] > 0
            for _ in range(2000)
        ]
    )
    assert share == pytest.approx(int(SPOT_RATE * 31) / 31, abs=0.03)


def test_few_calibration_images_give_the_spots_that_none_of_them_has():
    for value, found in ((1.9, 0), (2.1, 1)):
        spots, count = find_spots(heat(((5, 5, 2, 2), value)), np.array([1, 2], np.float32))
        assert (len(spots), count) == (found, found)
        assert all(spot.p_value == pytest.approx(1 / 3) for spot in spots)
    assert find_spots(heat(((5, 5, 2, 2), 9)), np.zeros(0, np.float32)) == ((), 0)


def test_no_more_than_the_strangest_spots_are_listed_and_all_are_counted():
    boxes = [((2 * (number // 10), 4 * (number % 10), 1, 2), 3.0 + number) for number in range(50)]
    spots, found = find_spots(heat(*boxes), PEAKS)
    assert (len(spots), found) == (MOST_SPOTS, 50)
    assert [spot.peak for spot in spots] == [52.0 - number for number in range(MOST_SPOTS)]


def test_infinite_heat_has_a_place():
    (spot,), _ = find_spots(heat(((5, 5, 2, 2), np.inf)), PEAKS)
    assert (spot.x, spot.y, spot.p_value) == (6, 6, pytest.approx(1 / 100))

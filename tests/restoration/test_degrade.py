"""Wear for training."""

import numpy as np
import pytest

from vaeguard.restoration.networks import degrade


@pytest.mark.parametrize("seed", range(8))
def test_a_worn_page_is_in_range_the_same_each_time_and_readable(seed, printed):
    page = printed(160, 200)
    pair = degrade.degrade_document(page, np.random.default_rng(seed), other=page)
    again = degrade.degrade_document(page, np.random.default_rng(seed), other=page)
    for image, same in zip(pair, again, strict=True):
        np.testing.assert_array_equal(image, same)
        assert image.shape == page.shape
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        assert image[page < 0.5].mean() < image[page > 0.5].mean()


@pytest.mark.parametrize("seed", range(8))
def test_what_is_kept_is_the_page_with_its_ink_as_strong_as_it_still_is(seed, printed):
    page = printed(160, 200)
    _, kept = degrade.degrade_document(page, np.random.default_rng(seed), other=printed(160, 200, seed=9))
    assert (kept >= page).all()
    np.testing.assert_array_equal(kept[page == 1], 1)  # without the stains and the back of the sheet
    left = (1 - kept)[page == 0]
    assert 0.35 * 0.75 <= left.min() <= left.max() <= 1


def test_fading_is_even_but_for_holes_that_cleaning_is_to_fill(printed):
    ink = 1 - printed(160, 200)
    pairs = [degrade.fade(ink, np.random.default_rng(seed)) for seed in range(30)]
    for faded, kept in pairs:
        assert (faded >= 0).all()
        assert (faded <= kept).all()
        assert (kept <= ink).all()
    with_holes = [bool((faded < kept).any()) for faded, kept in pairs]
    assert any(with_holes)
    assert not all(with_holes)


def test_a_worn_photograph_is_in_range_the_same_each_time_and_tells_its_noise():
    photo = np.tile(np.linspace(0.2, 0.8, 96, dtype=np.float32), (96, 1))
    told = []
    for seed in range(30):
        worn, noise = degrade.degrade_photo(photo, np.random.default_rng(seed))
        np.testing.assert_array_equal(worn, degrade.degrade_photo(photo, np.random.default_rng(seed))[0])
        assert worn.shape == photo.shape
        assert worn.dtype == np.float32
        assert 0 <= worn.min() <= worn.max() <= 1
        # Without an edge in it, nearly all that differs is grain and JPEG, apart from specks of dust.
        assert np.median(np.abs(worn - photo)) <= 1.5 * noise + 0.01
        told.append(noise)
    assert min(told) < 0.01 < 0.05 < max(told)


def test_pages_wear_differently(printed):
    worn = [degrade.degrade_document(printed(), np.random.default_rng(seed)) for seed in range(6)]
    assert len({page.tobytes() for page, _ in worn}) == 6
    assert len({kept.tobytes() for _, kept in worn}) == 6


@pytest.mark.parametrize("kind", ["stain", "fold", "wrinkles", "worn_paper"])
def test_each_kind_of_wear_has_the_shape_and_does_something(kind):
    found = [getattr(degrade, kind)((90, 120), np.random.default_rng(seed)) for seed in range(10)]
    assert all(each.shape == (90, 120) for each in found)
    assert all(np.isfinite(each).all() for each in found)
    assert max(each.std() for each in found) > 0.01


def test_grain_has_the_level_of_its_draw():
    levels = [
        degrade.grain(np.full((128, 128), 0.5, np.float32), np.random.default_rng(seed)).std() for seed in range(30)
    ]
    assert 0 <= min(levels) < max(levels) <= 0.11


def test_jpeg_of_high_quality_hardly_changes():
    image = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    assert np.abs(degrade.jpeg(image, 95) - image).max() < 0.05
    assert np.abs(degrade.jpeg(image, 5) - image).mean() > np.abs(degrade.jpeg(image, 95) - image).mean()

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import bars

import vaeguard
from vaeguard.tuning import pseudo_anomalies
from vaeguard.tuning.pseudo_anomalies import (
    BLOCK_AREA,
    IMAGE_KINDS,
    PATCH_AREA,
    make_pseudo_anomalies,
    pseudo_anomaly_kinds,
)


def noise(n, channels, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, channels, height, width), dtype=np.uint8)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@given(n=st.integers(2, 5), channels=st.integers(1, 4), height=st.integers(4, 19), width=st.integers(4, 19))
def test_every_kind_takes_any_images_and_changes_each(kind, n, channels, height, width):
    images = noise(n, channels, height, width)
    before = images.copy()
    spoilt = make_pseudo_anomalies(images, kind, 1)
    assert spoilt.shape == images.shape
    assert spoilt.dtype == np.uint8
    assert (spoilt != images).any((1, 2, 3)).all()
    assert (images == before).all()


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_the_seed_decides_and_parts_cover_all(kind, monkeypatch):
    images = noise(9, 2, 8, 6)
    monkeypatch.setattr(pseudo_anomalies, "PART_VALUES", 300)
    one, same, other = (make_pseudo_anomalies(images, kind, seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()
    assert (one != images).any((1, 2, 3)).all()


@pytest.mark.parametrize(("kind", "area"), [("patch", PATCH_AREA), ("blur", BLOCK_AREA), ("noise", BLOCK_AREA)])
def test_blocks_are_as_large_as_said(kind, area):
    images = noise(50, 1, 40, 40)
    changed = (make_pseudo_anomalies(images, kind, 0) != images)[:, 0]
    heights, widths = changed.any(2).sum(1), changed.any(1).sum(1)
    share = heights * widths / 1600
    assert (share > 0.7 * area[0]).all()
    assert (share < 1.15 * area[1]).all()
    assert (changed.sum((1, 2)) > 0.8 * heights * widths).all(), "not one rectangle"


def test_halves_and_blends_are_of_two_images():
    images = noise(6, 3, 8, 8)
    halves, blends = (make_pseudo_anomalies(images, kind, 0) for kind in ("halves", "blend"))
    assert (halves[..., :4] == images[..., :4]).all()
    for number in range(6):
        others = [other for other in range(6) if other != number]
        assert any((halves[number, ..., 4:] == images[other, ..., 4:]).all() for other in others)
        means = [np.rint((images[number].astype(np.float32) + images[other]) / 2) for other in others]
        assert any((blends[number] == mean).all() for mean in means)


def test_one_half_slips_by_whole_pixels():
    images = noise(40, 1, 8, 8)
    slipped = make_pseudo_anomalies(images, "slip", 0)
    assert (slipped[:, :, 4:] == images[:, :, 4:]).all()
    found = set()
    for image, result in zip(images[:, 0, :4], slipped[:, 0, :4], strict=True):
        fits = [n for n in (-2, -1, 1, 2) if (result == image[:, (np.arange(8) + n).clip(0, 7)]).all()]
        assert len(fits) == 1
        found.update(fits)
    assert found == {-2, -1, 1, 2}


def test_nothing_pasted_over_nothing_is_tried_again():
    images = np.zeros((40, 1, 16, 16), np.uint8)
    images[:, :, 6:10, 6:10] = 200  # most patches are black on black
    for kind in ("patch", "blur", "warp"):
        assert (make_pseudo_anomalies(images, kind, 0) != images).any((1, 2, 3)).mean() > 0.9, kind


def test_images_that_are_all_the_same_end():
    images = np.full((5, 1, 8, 8), 7, np.uint8)
    assert (make_pseudo_anomalies(images, "halves", 0) == images).all()


def test_features_of_vectors_come_from_other_rows():
    table = np.random.default_rng(0).normal(size=(30, 1, 1, 12)).astype(np.float32)
    assert pseudo_anomaly_kinds(table) == ("swap",)
    spoilt = make_pseudo_anomalies(table, "swap", 0)
    assert spoilt.dtype == np.float32
    assert (spoilt != table).any((1, 2, 3)).all()
    for feature in range(12):
        assert np.isin(spoilt[..., feature], table[..., feature]).all()
    assert 0.15 < (spoilt != table).mean() < 0.35


def test_one_image_or_an_unknown_kind_is_refused():
    images, _ = bars(4)
    with pytest.raises(vaeguard.UsageError, match="only one"):
        make_pseudo_anomalies(images[:1], "blend", 0)
    with pytest.raises(vaeguard.UsageError, match="unknown pseudo-anomaly 'swap'"):
        make_pseudo_anomalies(images, "swap", 0)

"""Metrics of heatmaps against their definitions, pixel by pixel and region by region."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from vaeguard.errors import UsageError
from vaeguard.statistics import metrics
from vaeguard.statistics.metrics import per_region_overlap, pixel_roc_auc


def maps(seed, levels=None, images=4):
    """Masks with a few regions, some touching at a corner only, and heatmaps that know something of them."""
    generator = np.random.default_rng(seed)
    masks = [generator.random((9 + i, 11)) > 0.8 for i in range(images)]
    masks[0][:] = False
    masks[1][0, 0] = True
    masks[1][-1, -1] = False
    heatmaps = [generator.normal(size=mask.shape) + mask for mask in masks]
    if levels:
        heatmaps = [np.round(heatmap * levels) / levels for heatmap in heatmaps]
    return masks, [heatmap.astype(np.float32) for heatmap in heatmaps]


def regions(mask):
    """Connected regions by flooding, 8 neighbours, each a list of pixels."""
    left, found = {tuple(pixel) for pixel in np.argwhere(mask).tolist()}, []
    while left:
        region, edge = [], [left.pop()]
        while edge:
            row, column = edge.pop()
            region.append((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(region)
    return found


def brute_pro(masks, heatmaps, limit):
    """Every threshold, every region."""
    sound = np.concatenate([heatmap[~mask] for mask, heatmap in zip(masks, heatmaps, strict=True)])
    each = [
        np.array([heatmap[pixel] for pixel in region])
        for mask, heatmap in zip(masks, heatmaps, strict=True)
        for region in regions(mask)
    ]
    thresholds = np.unique(np.concatenate([heatmap.ravel() for heatmap in heatmaps]))[::-1]
    x = np.array([0, *((sound >= threshold).mean() for threshold in thresholds)])
    y = np.array([0, *(np.mean([(values >= threshold).mean() for values in each]) for threshold in thresholds)])
    inside = x <= limit
    return np.trapezoid(np.append(y[inside], np.interp(limit, x, y)), np.append(x[inside], limit)) / limit


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([None, 1, 3]), limit=st.sampled_from([0.05, 0.3, 1.0]))
def test_overlap_and_area_are_those_of_brute_force(seed, levels, limit):
    masks, heatmaps = maps(seed, levels)
    assert per_region_overlap(masks, heatmaps, limit) == pytest.approx(brute_pro(masks, heatmaps, limit), abs=1e-9)
    truth, values = (np.concatenate([part.ravel() for part in parts]) for parts in (masks, heatmaps))
    assert pixel_roc_auc(masks, heatmaps) == pytest.approx(roc_auc_score(truth, values), abs=1e-9)


def test_a_sample_of_thresholds_is_nearly_exact(monkeypatch):
    masks, heatmaps = maps(0, images=60)
    exact = pixel_roc_auc(masks, heatmaps), per_region_overlap(masks, heatmaps)
    monkeypatch.setattr(metrics, "THRESHOLDS", 1000)
    assert len(metrics._thresholds(heatmaps)) < 1100
    found = pixel_roc_auc(masks, heatmaps), per_region_overlap(masks, heatmaps)
    assert found == pytest.approx(exact, abs=2e-3)


def test_the_best_map_has_1_and_every_region_counts_alike():
    mask = np.zeros((20, 20), bool)
    mask[0, 0] = mask[5:15, 5:15] = True
    perfect = mask.astype(np.float32)
    assert per_region_overlap([mask], [perfect]) == pixel_roc_auc([mask], [perfect]) == 1
    big_only = perfect.copy()
    big_only[0, 0] = -1
    assert per_region_overlap([mask], [big_only]) == pytest.approx(0.5, abs=1e-12)
    assert pixel_roc_auc([mask], [big_only]) > 0.98


def test_what_cannot_be_compared_is_refused():
    mask = np.zeros((3, 3), bool)
    heat = np.zeros((3, 3), np.float32)
    for masks, heatmaps, fact in (
        ([mask], [heat], "every pixel is sound"),
        ([~mask], [heat], "every pixel is defective"),
        ([mask], [], r"the number of masks \(1\) and that of heatmaps \(0\)"),
        ([mask.astype(int)], [heat], "mask 0"),
        ([mask], [heat[:2]], "mask 0"),
        ([mask], [heat * np.nan], "contains NaN"),
    ):
        with pytest.raises(UsageError, match=fact):
            pixel_roc_auc(masks, heatmaps)
    with pytest.raises(UsageError, match="limit"):
        per_region_overlap([mask], [heat], 0)

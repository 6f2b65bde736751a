from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vaeguard.reports.simple_measures import MEASURED, simple_measures


def test_brightness_and_complexity():
    flat = np.full((1, 1, 32, 32), 51, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (1, 1, 32, 32), dtype=np.uint8)
    found = simple_measures(np.concatenate([flat, noise]), np.arange(2.0), np.array([False, True]))
    assert found.brightness.values == pytest.approx([0.2, noise.mean() / 255], abs=1e-4)
    assert found.complexity.values[0] < 0.5
    assert 7.5 < found.complexity.values[1] < 9
    assert simple_measures(np.zeros((2, 1, 1, 4), np.float32), np.arange(2.0), np.array([False, True])) is None


def test_large_sets_are_measured_evenly():
    images = np.zeros((3 * MEASURED, 1, 2, 2), np.uint8)
    anomalous = np.arange(len(images)) == len(images) - 1  # the last one is among those measured
    assert simple_measures(images, np.zeros(len(images)), anomalous).measured == MEASURED
    assert simple_measures(images, np.zeros(len(images)), anomalous[::-1]).measured == MEASURED


def test_a_score_that_is_the_brightness_is_seen_as_such():
    generator = np.random.default_rng(0)
    images = (
        generator.integers(0, 100, (60, 1, 4, 4), dtype=np.uint8)
        + np.repeat([0, 20], 30).astype(np.uint8)[:, None, None, None]
    )
    anomalous, brightness = np.arange(60) >= 30, images.mean((1, 2, 3)) / 255
    report = simple_measures(images, brightness.astype(np.float32), anomalous)
    assert report.brightness.rank_correlation == pytest.approx(1)
    assert report.brightness.roc_auc == pytest.approx(roc_auc_score(anomalous, brightness))
    turned = simple_measures(images, -brightness.astype(np.float32), ~anomalous)
    assert turned.brightness.roc_auc == pytest.approx(report.brightness.roc_auc)
    assert report.measured == report.drawn == 60
    assert simple_measures(images, np.zeros(60), np.ones(60, bool)) is None
    assert simple_measures(images, np.zeros(60), anomalous).brightness.rank_correlation is None

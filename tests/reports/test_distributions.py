from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_auc_score

from vaeguard.reports.distributions import POINTS, curves, histogram, thresholds

finite = st.floats(0, 500, width=32)


@given(st.lists(finite, min_size=1, max_size=60), st.lists(finite, max_size=20))
@example([15.0], [])
def test_every_score_is_in_one_bin(some: list[float], others: list[float]) -> None:
    kinds = {"a": np.array(some, np.float32), "b": np.array(others, np.float32)}
    found = histogram(kinds)
    assert {name: sum(counts) for name, counts in found["counts"].items()} == {"a": len(some), "b": len(others)}
    assert np.all(np.diff(found["edges"]) > 0)
    assert found["scale"] == ("symlog" if max(some + others) > 15 else "linear")


def test_infinite_scores_count_in_the_last_bin() -> None:
    found = histogram({"a": np.array([1.0, 2.0, np.inf])})
    assert found["counts"]["a"][-1] == 2
    assert np.isfinite(found["edges"]).all()


def test_weights_count_as_repetitions() -> None:
    scores, weights = np.array([0.5, 3.0, 7.0]), np.array([4, 1, 2])
    assert histogram({"a": scores}, {"a": weights}) == histogram({"a": np.repeat(scores, weights)})


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=80), st.integers(0, 30))
def test_counts_at_every_threshold_are_those_of_counting(pairs: list[tuple[int, bool]], chosen: int) -> None:
    scores, anomalous = np.array([p[0] for p in pairs], np.float32), np.array([p[1] for p in pairs])
    p_value = 1 - scores / 100
    found = thresholds(scores, anomalous, p_value, float(chosen) if chosen in scores else None)
    assert found["threshold"][:-1] == sorted(set(scores.tolist()))
    assert [found[key][-1] for key in ("fpr", "normal", "anomalous")] == [0, 0, 0]
    columns = [found[key] for key in ("threshold", "fpr", "normal", "anomalous")]
    for threshold, fpr, normal, caught in zip(*columns, strict=True):
        assert normal == np.count_nonzero(scores[~anomalous] >= threshold)
        assert caught == np.count_nonzero(scores[anomalous] >= threshold)
        assert np.array_equal(p_value <= fpr, scores >= threshold)


def test_infinite_scores_reach_every_threshold() -> None:
    scores = np.array([1, np.inf, np.inf], np.float32)
    found = thresholds(scores, np.array([False, True, False]), np.array([0.9, 0.1, 0.1], np.float32), np.inf)
    assert np.isfinite(found["threshold"]).all()
    assert (found["normal"], found["anomalous"]) == ([2, 1], [1, 1])


def test_many_thresholds_are_thinned_and_the_chosen_one_is_among_them() -> None:
    scores = np.random.default_rng(0).random(50_000).astype(np.float32)
    chosen = float(np.sort(scores)[12_345])
    found = thresholds(scores, scores > 0.9, 1 - scores, chosen)
    assert len(found["threshold"]) < 700
    assert chosen in found["threshold"]
    assert found["of"] == len(np.unique(scores))


@pytest.mark.parametrize("images", [30, 20_000])
def test_the_area_under_the_drawn_curve_is_the_roc_auc(images: int) -> None:
    generator = np.random.default_rng(0)
    anomalous = generator.random(images) < 0.3
    scores = generator.normal(size=images) + anomalous
    found = curves(anomalous, scores)
    assert auc(found["fpr"], found["tpr"]) == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-3)
    for name, values in found.items():
        assert len(values) <= POINTS + 2
        if name in ("fpr", "tpr", "recall"):
            assert np.all(np.diff(values) >= 0)
    assert found["recall"][-1] == 1
    assert found["precision"][-1] == pytest.approx(anomalous.mean(), abs=1e-3)


def test_curves_of_infinite_scores() -> None:
    assert curves(np.array([True, False]), np.array([np.inf, 1.0]))["tpr"][-1] == 1

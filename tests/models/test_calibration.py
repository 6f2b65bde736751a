import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaeguard.errors import VaeguardError
from vaeguard.models.calibration import Calibration, Tail


def fitted(values):
    tail = Tail(values.shape[1])
    tail.fit(values.astype(np.float32))
    return tail


def normal_values(n=2000, k=3, seed=0):
    return np.random.default_rng(seed).gamma(2.0, size=(n, k)).astype(np.float32)


def test_surprise_is_minus_log10_of_the_tail_probability():
    values = normal_values(20000, 1)
    tail = fitted(values)
    fresh = normal_values(20000, 1, seed=1)
    surprise = tail(torch.from_numpy(fresh))[:, 0].numpy()
    for level in (0.5, 1.0, 1.3, 2.0):
        assert np.mean(surprise >= level) == pytest.approx(10**-level, rel=0.15)


@given(st.integers(1, 400), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_surprise_never_falls_and_keeps_the_order_past_the_normal_images(n, seed, ties):
    values = normal_values(n, 1, seed)
    values = np.round(values) if ties else values
    grid = np.linspace(values.min() - 1, values.max() + 50, 500, dtype=np.float32)
    surprise = fitted(values)(torch.from_numpy(grid[:, None]))[:, 0].numpy()
    assert np.isfinite(surprise).all()
    assert (np.diff(surprise) >= 0).all()
    beyond = grid > values.max()
    assert (np.diff(surprise[beyond]) > 0).all()
    assert surprise[0] == 0


def test_what_is_no_number_stays_so_and_infinity_is_finite():
    surprise = fitted(normal_values(100, 1))(torch.tensor([[torch.nan], [torch.inf], [-torch.inf]]))[:, 0]
    assert surprise[0].isnan()
    assert surprise[1].isfinite()
    assert surprise[1] > 1
    assert surprise[2] == 0


def test_a_heavy_tail_is_not_taken_for_an_exponential_one():
    values = np.random.default_rng(0).pareto(2.0, size=(2000, 1)).astype(np.float32)
    fresh = np.random.default_rng(1).pareto(2.0, size=(100_000, 1)).astype(np.float32)
    surprise = fitted(values)(torch.from_numpy(fresh))[:, 0].numpy()
    assert np.mean(surprise >= 3) == pytest.approx(1e-3, rel=1.0)


def test_a_constant_term_does_no_harm():
    tail = fitted(np.full((50, 1), 3.0))
    surprise = tail(torch.tensor([[2.0], [3.0], [4.0]]))[:, 0]
    assert surprise[0] == 0
    assert surprise[1] < surprise[2] < torch.inf


def calibrated(shaping, ranking, weights=None):
    calibration = Calibration(weights or [1.0] * shaping.shape[1], len(ranking))
    calibration.fit_terms(shaping)
    calibration.fit_ranks(ranking)
    return calibration


def test_p_value_counts_the_normal_scores_that_are_at_least_as_high():
    ranking = normal_values(40, 2, seed=1)
    calibration = calibrated(normal_values(300, 2), ranking)
    normal = calibration(torch.from_numpy(ranking))[0]
    score, p_value = calibration(torch.from_numpy(normal_values(30, 2, seed=3)))
    for s, p in zip(score.tolist(), p_value.tolist(), strict=True):
        assert p == pytest.approx((1 + sum(c >= s for c in normal.tolist())) / 41)


def test_what_is_no_number_is_as_strange_as_can_be():
    calibration = calibrated(normal_values(300, 2), normal_values(40, 2, seed=1))
    score, p_value = calibration(torch.tensor([[torch.nan, 0.0], [0.0, 0.0]]))
    assert score[0].isnan()
    assert p_value[0] == pytest.approx(1 / 41)
    assert p_value[1] > p_value[0]


def test_false_alarms_come_at_most_at_the_stated_rate():
    rates = []
    for seed in range(30):
        calibration = calibrated(normal_values(200, 3, seed), normal_values(99, 3, seed + 100))
        p_value = calibration(torch.from_numpy(normal_values(500, 3, seed + 200)))[1]
        rates.append((p_value <= 0.1).float().mean().item())
    assert np.mean(rates) == pytest.approx(0.1, abs=0.02)


def test_images_that_both_shape_and_rank_keep_the_stated_rate():
    rates = []
    for seed in range(150):
        normal = normal_values(39, 3, seed)
        calibration = Calibration([1.0, 0.0, 0.0], 39)
        calibration.fit_terms(normal)
        calibration.fit_ranks(normal)
        p_value = calibration(torch.from_numpy(normal_values(500, 3, seed + 200)))[1]
        rates.append((p_value <= 0.05).float().mean().item())
    assert np.mean(rates) == pytest.approx(0.05, abs=0.01)


def test_the_score_is_minus_log10_of_the_share_of_normal_images():
    shares = {1.0: [], 1.5: []}
    for seed in range(40):
        calibration = calibrated(normal_values(200, 3, seed), normal_values(200, 3, seed + 100))
        score = calibration(torch.from_numpy(normal_values(500, 3, seed + 200)))[0]
        for level, found in shares.items():
            found.append((score >= level).float().mean().item())
    for level, found in shares.items():
        assert np.mean(found) == pytest.approx(10**-level, rel=0.2)


def test_many_equal_values_where_the_tail_starts_keep_their_tail_probability():
    generator = np.random.default_rng(0)
    values = np.where(generator.random(4000) < 0.95, 0, 0.1 + generator.exponential(size=4000))[:, None]
    surprise = fitted(values)(torch.tensor([[0.0], [0.05], [0.1 + np.log(10)]], dtype=torch.float32))[:, 0]
    assert surprise[0] == 0
    assert surprise[1].item() == pytest.approx(-np.log10(0.05), abs=0.1)
    assert surprise[2].item() == pytest.approx(-np.log10(0.005), abs=0.25)


def test_score_rises_with_every_term():
    calibration = calibrated(normal_values(500, 3), normal_values(500, 3, seed=1))
    base = torch.full((1, 3), 3.0)
    for k in range(3):
        higher = base.clone()
        higher[0, k] += 5
        assert calibration(higher)[0] > calibration(base)[0]


def test_a_term_that_is_not_finite_is_refused():
    with pytest.raises(VaeguardError, match="not finite"):
        Calibration([1.0], 1).fit_terms(np.array([[1.0], [np.nan]], dtype=np.float32))


def within_and_beyond(weights):
    """Scores of fresh images whose last term of three is low, high but normal, and far outside."""
    calibration = calibrated(normal_values(3000, 3), normal_values(500, 3, seed=1), weights)
    terms = torch.from_numpy(normal_values(200, 3, seed=2))
    scores = []
    for value in (0.1, 6.0, 60.0):
        terms[:, 2] = value
        scores.append(calibration.score(terms))
    return scores


def test_a_term_of_weight_0_counts_only_outside_the_normal_range():
    low, high, outside = within_and_beyond([2.0, 1.0, 0.0])
    assert torch.equal(low, high)
    assert (outside > high).all()


def test_a_term_with_a_weight_counts_everywhere():
    low, high, outside = within_and_beyond([2.0, 1.0, 1.0])
    assert (low < high).all()
    assert (high < outside).all()


def test_an_alarm_keeps_the_order_that_the_other_terms_give():
    low, _, outside = within_and_beyond([2.0, 1.0, 0.0])
    order = low.argsort()
    assert (outside[order].diff() >= 0).all()


def test_only_the_ratio_of_weights_counts():
    fresh = torch.from_numpy(normal_values(100, 2, seed=2))
    one, two = (
        calibrated(normal_values(300, 2), normal_values(100, 2, seed=1), weights) for weights in ([1.0, 3.0], [2, 6])
    )
    assert torch.equal(one.score(fresh), two.score(fresh))


def test_the_heavier_term_decides_between_two_images():
    calibration = calibrated(normal_values(3000, 2), normal_values(500, 2, seed=1), [9.0, 1.0])
    first, second = calibration.score(torch.tensor([[4.0, 1.0], [1.0, 4.0]]))
    assert first > second

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaeguard.models.whiten import FURTHEST, Whiten

MIX = np.array([[2, 1, 0, 0], [0, 1, 0.5, 0], [0, 0, 3, 0], [0, 0, 0.2, 1]])
TABLE = (3 + np.random.default_rng(0).normal(size=(200, 4)) @ MIX).astype(np.float32)


def fitted(rows, **kind):
    whiten = Whiten(rows.shape[1], table=True, **kind)
    whiten.fit(torch.tensor(rows))
    return whiten


def test_features_get_mean_0_variance_1_and_no_correlation():
    values = fitted(TABLE)(torch.tensor(TABLE)).double()
    torch.testing.assert_close(values.mean(0), torch.zeros(4).double(), atol=1e-5, rtol=0)
    # The floor of 1 % leaves a direction of little variance a little below 1.
    assert 0.9 < torch.linalg.eigvalsh(values.T @ values / len(values)).min() <= 1


@pytest.mark.parametrize("whiten", [True, False])
def test_restore_is_the_inverse(whiten):
    whiten, rows = fitted(TABLE, whiten=whiten), torch.tensor(TABLE)
    torch.testing.assert_close(whiten.restore(whiten(rows)), rows)


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_units_do_not_matter(scale, offset):
    units = np.array([scale, 1, 1 / scale, 1])
    changed = (units * (TABLE.astype(np.float64) + offset)).astype(np.float32)
    ours, theirs = (fitted(table, whiten=False)(torch.tensor(table)) for table in (TABLE, changed))
    torch.testing.assert_close(theirs, ours, atol=3e-3, rtol=3e-3)


def test_features_of_one_unit_are_scaled_alike_before_they_are_whitened():
    rows = np.random.default_rng(0).normal(size=(20, 40)) * np.linspace(0.1, 1, 40)
    assert len(fitted(rows.astype(np.float32)).scale.unique()) == 1
    rows[:, 7] *= 1000
    scaled = fitted(rows.astype(np.float32)).scale
    np.testing.assert_allclose(scaled, rows.std(0), rtol=1e-4)


def test_moments_say_the_same_as_the_cells():
    by_cells, by_moments = Whiten(4), Whiten(4)
    by_cells.fit(torch.tensor(TABLE))
    values = TABLE.astype(np.float64)
    by_moments.fit_moments(torch.tensor(values.mean(0)), torch.tensor(np.cov(values, rowvar=False, bias=True)))
    torch.testing.assert_close(by_moments(torch.tensor(TABLE)), by_cells(torch.tensor(TABLE)))


def test_without_whitening_features_get_mean_0_and_variance_1():
    whiten = fitted(TABLE, whiten=False)
    values = whiten(torch.tensor(TABLE))
    torch.testing.assert_close(values.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(4))
    assert sum(buffer.numel() for buffer in whiten.buffers()) == 2 * TABLE.shape[1]


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e38, 1e-45])
def test_a_constant_feature_keeps_its_units(constant):
    rows = TABLE.copy()
    rows[:, 1] = constant
    whiten = fitted(rows, whiten=False)
    assert whiten.scale[1] == 1
    assert (whiten(torch.tensor(rows))[:, 1] == 0).all()
    assert fitted(rows)(torch.tensor(rows))[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("power", [-140, -60, 0, 60, 120])
def test_the_largest_and_smallest_numbers_stay_finite_and_in_order(power, whiten):
    rows = np.ldexp(TABLE, power)
    whiten = fitted(rows, whiten=whiten)
    low, middle, high = whiten(torch.tensor([-3.4e38, 0, 3.4e38]).reshape(3, 1).expand(-1, 4))
    assert whiten(torch.tensor(rows)).abs().max() <= FURTHEST
    assert torch.isfinite(torch.stack([low, middle, high]).square()).all()
    assert (low.sum() < high.sum()).all()
    assert torch.isfinite(whiten.restore(whiten(torch.tensor(rows)))).all()

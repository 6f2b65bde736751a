import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vaeguard.models.standardise import FURTHEST, Standardise

TABLE = np.random.default_rng(0).normal(3, 2, (200, 1, 1, 4)).astype(np.float32)


def fitted(vectors):
    standardise = Standardise(vectors.shape[1:])
    standardise.fit(vectors)
    return standardise


def test_features_get_mean_0_and_variance_1():
    values = fitted(TABLE)(torch.tensor(TABLE))
    torch.testing.assert_close(values.mean(0), torch.zeros(1, 1, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(1, 1, 4))


def test_restore_is_the_inverse():
    standardise, vectors = fitted(TABLE), torch.tensor(TABLE)
    torch.testing.assert_close(standardise.restore(standardise(vectors)), vectors)


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_units_do_not_matter(scale, offset):
    changed = (scale * (TABLE.astype(np.float64) + offset)).astype(np.float32)
    ours, theirs = (fitted(table)(torch.tensor(table)) for table in (TABLE, changed))
    torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e38, 1e-45])
def test_a_constant_feature_keeps_its_units(constant):
    vectors = TABLE.copy()
    vectors[..., 1] = constant
    standardise = fitted(vectors)
    assert standardise.scale[0, 0, 1] == 1
    assert (standardise(torch.tensor(vectors))[..., 1] == 0).all()


@pytest.mark.parametrize("power", [-140, -60, 0, 60, 120])
def test_the_largest_and_smallest_numbers_stay_finite_and_in_order(power):
    vectors = np.ldexp(TABLE, power)
    standardise = fitted(vectors)
    ends = torch.tensor([-3.4e38, 0, 3.4e38]).reshape(3, 1, 1, 1).expand(-1, 1, 1, 4)
    low, _, high = standardise(ends)
    assert (low < high).all()
    assert torch.stack([low, high]).abs().max() <= FURTHEST
    assert torch.isfinite(standardise.restore(standardise(torch.tensor(vectors)))).all()

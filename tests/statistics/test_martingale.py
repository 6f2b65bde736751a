"""The conformal test martingale: uniform ranks, a bounded chance of false alarms, and changes found soon."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vaeguard.statistics.appearance import MOST_VALUES, appearance
from vaeguard.statistics.martingale import Martingale

CHANCE = 0.05


def begun(reference, chance=CHANCE):
    martingale = Martingale(chance, 2000)
    martingale.refer_to(map(cell, reference), reference)
    return martingale


def cell(value):
    return int(np.clip(200 * value + 1000, 0, 1999))


def told(martingale, values, ties):
    """The numbers of the values at which a change was told, from 1, and the changes."""
    changes = [martingale.add(cell(value), float(value), tie) for value, tie in zip(values, ties, strict=True)]
    return [(number + 1, change) for number, change in enumerate(changes) if change]


@pytest.mark.parametrize("levels", [None, 3, 1])
@pytest.mark.nightly
def test_few_streams_without_change_raise_an_alarm_however_small_the_reference_and_coarse_the_values(levels):
    alarms, capital = 0, []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        values = draw.normal(size=1505) if levels is None else draw.integers(0, levels, 1505).astype(float)
        martingale = begun(values[:5])
        alarms += bool(told(martingale, values[5:], draw.uniform(size=1500)))
        capital.append(martingale.capital)
    assert alarms <= 7  # of 60 at a chance of 5 %, more than 7 happen once in a hundred times
    assert min(capital) > 1 / np.log2(1600)  # so that a later change can be found


@pytest.mark.parametrize("before", [0, 2000])
@pytest.mark.parametrize(
    ("shift", "spread", "most"), [(3, 1, 30), (-3, 1, 30), (1, 1, 200), (-1, 1, 200), (0, 0.02, 80)]
)
def test_a_change_is_found_soon_early_and_late(before, shift, spread, most):
    draw = np.random.default_rng(1)
    martingale = begun(draw.normal(size=100))
    values = np.concatenate([draw.normal(size=before), draw.normal(shift, spread, 300)])
    number, change = told(martingale, values, draw.uniform(size=before + 300))[0]
    assert before < number <= before + most
    assert abs(change.since - before) < 40
    assert change.after - change.before == pytest.approx(shift, abs=0.6)


def test_the_way_back_is_found_too_and_a_restored_martingale_goes_on_to_the_same_bits():
    draw = np.random.default_rng(2)
    values, ties = np.concatenate([np.zeros(300), np.full(300, 2.0), np.zeros(300)]), draw.uniform(size=900)
    values += draw.normal(size=900)
    whole, first = begun(draw.normal(size=50)), begun(np.zeros(0))
    first.restore(json.loads(json.dumps(whole.state())))
    changes = told(whole, values, ties)
    assert [change.after > change.before for _, change in changes] == [True, False]
    halves = told(first, values[:450], ties[:450])
    second = begun(np.zeros(0))
    second.restore(json.loads(json.dumps(first.state())))
    halves += [(number + 450, change) for number, change in told(second, values[450:], ties[450:])]
    assert halves == changes
    assert second.state() == whole.state()


def test_brightness_follows_the_lamp_and_sharpness_the_focus():
    from scipy.ndimage import gaussian_filter

    image = np.random.default_rng(0).integers(40, 200, (1, 3, 40, 50)).astype(np.uint8)
    blurred = gaussian_filter(image.astype(float), (0, 0, 2, 2)).astype(np.uint8)
    images = np.concatenate([image, image // 2, blurred, np.full_like(image, 7)])
    brightness, sharpness = appearance(images).values()
    assert brightness[1] == pytest.approx(brightness[0] / 2, rel=0.02)
    assert sharpness[1] == pytest.approx(sharpness[0], rel=0.02)
    assert brightness[2] == pytest.approx(brightness[0], rel=0.02)
    assert sharpness[2] < sharpness[0] / 2
    assert sharpness[3] == 0
    assert appearance(images[2:3])["sharpness"] == (sharpness[2],)  # whatever the batch around it
    large = np.random.default_rng(0).integers(0, 255, (1, 1, 2 * MOST_VALUES // 100, 100)).astype(np.uint8)
    assert appearance(large)["brightness"][0] == pytest.approx(0.5, abs=0.01)

from __future__ import annotations

import numpy as np
import pytest

import vaeguard
from vaeguard.engines.inspection import Inspection
from vaeguard.engines.parity import Parity
from vaeguard.evaluation.scoring import ScoreSummary
from vaeguard.restoration.denoising import DenoiseSummary
from vaeguard.restoration.planning import ScanPlan

MANY = tuple((f"folder/{number}.png", "it is damaged") for number in range(1000))
SCORES = np.zeros(5000, np.float32)
THINGS = {
    "images": lambda run: vaeguard.from_array(np.zeros((500, 32, 32), np.uint8), np.arange(500)),
    "detector": vaeguard.load,
    "info": lambda run: vaeguard.load(run).info,
    "record": lambda run: vaeguard.load(run).info.record,
    "inspection": lambda run: Inspection(SCORES, SCORES, {"kl": SCORES}, np.zeros((5000, 1, 8, 8))),
    "evaluation": lambda run: vaeguard.evaluate(
        vaeguard.load(run), np.zeros((40, 1, *vaeguard.load(run).info.image_shape[1:]), np.uint8), ["0"],
        labels=np.repeat([0, 5], 20),
    ),
    "scored": lambda run: ScoreSummary(5, 1, MANY, 1.0, "scores.csv", 0.05),
    "denoised": lambda run: DenoiseSummary("a", "b", 1, 1, 1.0, 0, MANY, (), (), 1.0, "cpu"),
    "plan": lambda run: ScanPlan(1, 1, 1.0, MANY, (), 0, 1.0, MANY),
    "parity": lambda run: Parity(1, 1, 0.1, dict.fromkeys(map(str, range(50)), 0.0)),
    "preset": lambda run: vaeguard.preset("patches"),
}  # fmt: skip


@pytest.mark.parametrize("name", THINGS)
def test_a_repr_is_short_and_no_address(name, bars_run):
    thing = THINGS[name](bars_run)
    text = repr(thing)
    assert text.startswith(f"{type(thing).__name__}(")
    assert " at 0x" not in text
    assert len(text) < 1000


def test_reprs_tell_what_matters(bars_run):
    assert repr(vaeguard.from_array(np.zeros((2, 3, 4), np.uint8))) == (
        "ImageSet(name='array', images=uint8 (2, 1, 3, 4), class_names=(), errors=0)"
    )
    assert repr(vaeguard.TrainSpec(epochs=3)) == "TrainSpec(epochs=3)"
    assert "normal_classes=('0', '1')" in repr(vaeguard.load(bars_run))

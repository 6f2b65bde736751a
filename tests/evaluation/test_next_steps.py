from dataclasses import replace

import pytest
from toy import toy_record

from vaeguard.engines.record import DataRecord, SplitRecord
from vaeguard.evaluation.advice import next_steps
from vaeguard.settings.model import ModelSpec
from vaeguard.statistics.metrics import Metrics, Share

WEAK = Metrics("score", 0.7, 0.6, 0.8, 0.5, 0.5, 0.9)
STRONG = replace(WEAK, roc_auc=0.95)
CAUGHT, MISSED = Share(0.9, 0.8, 1.0, 9, 10), Share(0.2, 0.1, 0.4, 2, 10)


def steps(shape=(1, 128, 128), images=1000, score=WEAK, caught=CAUGHT, **model):
    data = DataRecord("toy", False, "0", images, SplitRecord(images - 20, 10, 10, folds=0, grouped=False, sha256="0"))
    return " | ".join(next_steps(toy_record(shape, model=ModelSpec(**model), data=data), score, caught))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (steps(), "fit with `features=efficientnet-lite0`"),
        (steps((1, 28, 28)), "and a `size` of at least 96x96"),
        (
            steps(features="efficientnet-lite0"),
            "`size=256x256` | a larger network: fit with `features=wide_resnet50_2` and",
        ),
        (steps(score=STRONG, caught=MISSED, features="resnet18"), "`size=256x256`"),
        (steps(images=60), "more normal images of every kind: the fit learned from only 50"),
    ],
)
def test_a_weak_score_gets_steps_to_try(found, said):
    assert said in found


def test_a_good_score_gets_none_and_no_step_repeats_what_was_done():
    assert not steps(score=STRONG)
    done = steps((3, 640, 480), features="resnet18")
    assert not any(name in done for name in ("`size", "`features", "images"))

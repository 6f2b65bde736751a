from __future__ import annotations

from dataclasses import replace

import pytest
from toy import toy_record

from vaeguard.engines.record import CalibrationRecord, ClassRecord
from vaeguard.settings.model import ModelSpec
from vaeguard.settings.training import TrainSpec
from vaeguard.training.advice import advice


def record(**best):
    row = {"epoch": 1, "valid_loss": 100.0, "loss": 100.0, "valid_rate": 20.0, "active_units": 16, **best}
    return toy_record(images=200, model=ModelSpec(latent=16), best_epoch=row)


def falling(losses: list[float], validation: list[float]) -> list[dict]:
    return [
        {"epoch": n, "loss": a, "valid_loss": b, "valid_rate": 20.0, "active_units": 16}
        for n, (a, b) in enumerate(zip(losses, validation, strict=True), 1)
    ]


def flat(epochs: int = 20) -> list[dict]:
    return falling([100.0] * epochs, [100.0] * epochs)


def test_nothing_is_said_of_a_fit_that_went_well():
    assert advice(record(), flat()) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"valid_rate": 0.01}, "posterior collapse"),
        ({"active_units": 0}, "posterior collapse"),
        ({"active_units": 3}, "only 3 of 16"),
    ],
)
def test_a_latent_that_says_little_is_said(change, word):
    history = [row | change for row in flat()]
    assert [word in sentence for sentence in advice(record(**change), history)] == [True]
    plain = record(**change)
    assert advice(replace(plain, model=replace(plain.model, autoencoder=True)), history) == []


def test_over_fitting_and_stopping_too_early_are_told_apart():
    over = falling([100 - n for n in range(20)], [100 - n if n < 8 else 92 + n - 8 for n in range(20)])
    found = advice(record(epoch=8), over)
    assert ["over-fitting" in sentence for sentence in found] == [True]
    of_rows = replace(record(epoch=8), model=toy_record((1, 1, 30), vectors=True).model)
    assert ["training.augment_shift" in sentence for sentence in found + advice(of_rows, over)] == [True, False]
    early = falling([100 - n for n in range(20)], [100 - n for n in range(20)])
    found = advice(record(epoch=20), early)
    assert ["stopped too early" in sentence and "training.epochs to 40" in sentence for sentence in found] == [True]


def test_few_calibration_images_and_few_epochs_are_said():
    small = replace(record(), calibration=CalibrationRecord(30))
    assert "only 30 normal images" in advice(small, flat())[0]
    folded = replace(small, data=replace(small.data, split=replace(small.data.split, folds=5)))
    assert "training.calibration" in advice(small, flat())[0]
    assert advice(folded, flat()) == []
    assert "a trial of only 2 epochs" in advice(record(), flat(2))[0]


def test_unbalanced_classes_are_said_unless_they_are_drawn_alike():
    good, rare = (ClassRecord(name, images, images, 10, 1.0, 1.0, None, 2.0, 10, 0.0)
                  for name, images in (("good", 500), ("rare", 100)))  # fmt: skip
    uneven = replace(record(), classes=(good, rare))
    (sentence,) = advice(uneven, flat())
    assert "good has 500 training images and rare has 100" in sentence
    assert "training.balance" in sentence
    assert advice(replace(uneven, training=TrainSpec(balance=True)), flat()) == []
    assert advice(replace(uneven, classes=(good, replace(rare, training=101))), flat()) == []

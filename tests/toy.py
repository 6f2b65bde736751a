"""Small images with classes: bright bars, class k at column k."""

from __future__ import annotations

from dataclasses import replace

import numpy as np


def bars(n=240, classes=3, size=8, seed=0):
    """uint8 images (n, 1, size, size) and their labels (n,), int64."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    images = generator.integers(0, 60, (n, 1, size, size))
    images[np.arange(n), 0, :, 2 * labels] += generator.integers(120, 190, (n, 1))
    return images.astype(np.uint8), labels


def toy_record(shape=(1, 8, 8), classes=(), images=0, model=None, vectors=False, **changes):
    """What the file of a model of `shape` says; `images` rank its score."""
    from vaeguard.engines.record import CalibrationRecord, DataRecord, ModelRecord, SplitRecord
    from vaeguard.settings.model import ModelSpec
    from vaeguard.settings.training import TrainSpec

    record = ModelRecord(
        model=(model or ModelSpec()).resolved(shape, classes, vectors=vectors),
        training=TrainSpec(),
        class_names=classes,
        normal_classes=classes,
        data=DataRecord("toy", False, "0", 10, SplitRecord(8, 1, 1, 0, "0")),
        calibration=CalibrationRecord(images),
        best_epoch={"epoch": 1},
        finished_epochs=1,
        versions={},
        hardware="none",
    )
    return replace(record, **changes)


def toy_info(shape=(1, 8, 8), terms=("recon_error",), classes=(), images=0):
    """What a detector of `shape` with these `terms` says of itself."""
    from vaeguard.engines.inspection import DetectorInfo

    return DetectorInfo(toy_record(shape, classes, images), terms)

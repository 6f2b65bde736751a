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
        data=DataRecord("toy", False, "0", 10, SplitRecord(8, 1, 1, folds=0, grouped=False, sha256="0")),
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


def onnx_network(size=("h", "w"), channels=3, outputs=("classes", "quarter", "eighth"), metadata=None):
    """A small network as ONNX has it: maps of 4 channels at a quarter, 8 at an eighth of the size, and classes."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    shapes = {"a": (4, channels, 3, 3), "b": (4, 4, 1, 1), "c": (8, 4, 3, 3), "d": (8, 5), "scale": (4,)}
    weights = [
        numpy_helper.from_array(draw.normal(0, 0.3, shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    conv = {"pads": [1, 1, 1, 1], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["half"], **conv),
        helper.make_node("HardSwish", ["half"], ["bent"]),
        helper.make_node("MaxPool", ["bent"], ["small"], kernel_shape=[3, 3], **conv),
        helper.make_node("Transpose", ["small"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("LayerNormalization", ["last", "scale"], ["even"]),
        helper.make_node("Transpose", ["even"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "b"], ["gate"]),
        helper.make_node("HardSigmoid", ["gate"], ["open"], alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", ["small", "open"], ["quarter"]),
        helper.make_node("Erf", ["quarter"], ["curved"]),
        helper.make_node("Conv", ["curved", "c"], ["eighth"], **conv),
        helper.make_node("Relu", ["x"], ["full"]),
        helper.make_node("GlobalAveragePool", ["eighth"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "d"], ["classes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", channels, *size))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    return model

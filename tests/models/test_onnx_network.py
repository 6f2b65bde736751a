import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from toy import onnx_network

import vaeguard
from vaeguard import RefusedError, UsageError
from vaeguard.models.onnx_network import OnnxNetwork, read_network
from vaeguard.models.onnx_operators import OPERATORS

IMAGE = (2, 3, 13, 10)
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def whole(*values):
    return np.array(values, np.int64)


CASES = {
    "Add": ([normal(1, 3, 1, 1)], {}),
    "AveragePool": ([], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0], "count_include_pad": 1}),
    "BatchNormalization": ([normal(3), normal(3), normal(3), normal(3) ** 2 + 1], {"epsilon": 1e-3}),
    "Cast": ([], {"to": TensorProto.FLOAT}),
    "Clip": ([np.float32(-0.5), np.float32(0.7)], {}),
    "Concat": ([normal(*IMAGE)], {"axis": 1}),
    "Conv": ([normal(6, 1, 3, 2), normal(6)], {"strides": [2, 1], "pads": [1, 0, 0, 1], "group": 3}),
    "Conv as TensorFlow pads": ([normal(4, 3, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "Conv padded below": ([normal(4, 3, 2, 3)], {"auto_pad": "SAME_LOWER"}),
    "Div": ([normal(3, 1, 1) ** 2 + 1], {}),
    "Dropout": ([], {}),
    "Elu": ([], {"alpha": 0.5}),
    "Erf": ([], {}),
    "Exp": ([], {}),
    "Gelu": ([], {"approximate": "tanh"}),
    "GlobalAveragePool": ([], {}),
    "HardSigmoid": ([], {}),
    "HardSigmoid of networks": ([], {"alpha": 1 / 6}),
    "HardSwish": ([], {}),
    "Identity": ([], {}),
    "LayerNormalization": ([normal(10), normal(10)], {"axis": -1}),
    "LeakyRelu": ([], {}),
    "MatMul": ([normal(10, 4)], {}),
    "MaxPool": ([], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "MaxPool of uneven sides": ([], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "Mul": ([np.float32(1.5)], {}),
    "Neg": ([], {}),
    "PRelu": ([normal(3, 1, 1)], {}),
    "Pad": ([whole(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)], {}),
    "Pad by reflection": ([whole(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "reflect"}),
    "Pow": ([np.float32(2)], {}),
    "ReduceMean": ([whole(2, 3)], {"keepdims": 1}),
    "Relu": ([], {}),
    "Reshape": ([whole(0, 0, -1)], {}),
    "Resize": ([np.float32([]), np.float32([1, 1, 2, 2])], {"mode": "linear"}),
    "Resize by copies": (
        [np.float32([]), np.float32([1, 1, 2, 2])],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "Sigmoid": ([], {}),
    "Slice": ([whole(1, 0), whole(9, 100), whole(2, 3), whole(2, 1)], {}),
    "Softplus": ([], {}),
    "Split": ([whole(1, 2)], {"axis": 1}),
    "Sqrt": ([], {}),
    "Squeeze": ([whole(0)], {}),
    "Sub": ([normal(10)], {}),
    "Tanh": ([], {}),
    "Transpose": ([], {"perm": [0, 2, 3, 1]}),
    "Unsqueeze": ([whole(0)], {}),
}


def test_every_operator_has_a_case():
    assert {name.partition(" ")[0] for name in CASES} == set(OPERATORS)


@pytest.mark.parametrize("case", CASES)
def test_an_operator_computes_what_onnx_runtime_does(case):
    constants, settings = CASES[case]
    operator = case.partition(" ")[0]
    names = [f"c{number}" for number in range(len(constants))]
    outputs = ["y", "z"][: 2 if operator == "Split" else 1]
    node = helper.make_node(operator, ["x", *names], outputs, **settings)
    shape = (1, *IMAGE[1:]) if operator == "Squeeze" else IMAGE
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in zip(names, constants, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    image = abs(normal(*shape)) if operator == "Sqrt" else normal(*shape)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": image})
    network = OnnxNetwork.__new__(OnnxNetwork)
    torch.nn.Module.__init__(network)
    network.read_graph(model)
    for found, value in zip(network(torch.from_numpy(image)), expected, strict=True):
        np.testing.assert_allclose(found.numpy(), value, atol=1e-5, rtol=1e-5)


def written(path, **changes):
    path.write_bytes(onnx_network(**changes).SerializeToString())
    return path


def test_a_network_is_cut_behind_its_fine_maps_and_takes_their_sizes(tmp_path):
    network = read_network(written(tmp_path / "n.onnx"), (70, 45))
    assert network.channels == (4, 8)
    assert [part.shape[2:] for part in network(torch.zeros(1, 3, 64, 96))] == [(16, 24), (8, 12)]
    assert "Gemm" in {node.op_type for node in onnx_network().graph.node} - {node.operator for node in network.nodes}
    assert network.mean == (0.485, 0.456, 0.406)
    said = read_network(written(tmp_path / "n.onnx", metadata={"mean": "0.5, 0.5, 0.5", "licence": "MIT"}), (70, 45))
    assert (said.mean, said.licence) == ((0.5, 0.5, 0.5), "MIT")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (224, 224)}, "takes images of 224x224 pixels only"),
        ({"outputs": ["classes"]}, "which is not supported|not a feature map"),
        ({"outputs": ["full"]}, "none of its outputs is a feature map at 1/4"),
        ({"channels": 1}, "not a colour image"),
        ({"metadata": {"std": "1"}}, "instead of three numbers"),
    ],
)
def test_a_network_that_cannot_serve_gets_one_sentence(tmp_path, changes, message):
    with pytest.raises(UsageError, match=rf"`features` is '.*n\.onnx', which cannot be used: .*({message}).*; export"):
        read_network(written(tmp_path / "n.onnx", **changes), (70, 45))


def test_a_missing_or_damaged_file_gets_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="this file does not exist"):
        read_network(tmp_path / "n.onnx", (70, 45))
    (tmp_path / "n.onnx").write_bytes(b"no network")
    with pytest.raises(RefusedError, match=r"n\.onnx' cannot be read as an ONNX file"):
        read_network(tmp_path / "n.onnx", (70, 45))


def test_a_network_that_would_take_any_memory_is_refused(tmp_path):
    model = onnx_network()
    model.graph.initializer.append(numpy_helper.from_array(whole(0, 0, 0, 0, 0, 0, 10**7, 10**7), "much"))
    model.graph.node.insert(0, helper.make_node("Pad", ["x", "much"], ["wide"]))
    model.graph.node[1].input[0] = "wide"
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="Pad takes too much memory"):
        read_network(tmp_path / "n.onnx", (70, 45))


def test_weights_beside_the_file_travel_as_well(tmp_path):
    onnx.save(onnx_network(), tmp_path / "n.onnx", save_as_external_data=True, location="n.data", size_threshold=0)
    assert (tmp_path / "n.data").exists()
    network, other = (read_network(path, (70, 45)) for path in (tmp_path / "n.onnx", written(tmp_path / "m.onnx")))
    for part, like in zip(network(torch.ones(1, 3, 70, 45)), other(torch.ones(1, 3, 70, 45)), strict=True):
        assert torch.equal(part, like)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
def test_the_network_travels_in_the_model_file_and_the_exported_one(tmp_path):
    images = RNG.integers(0, 255, (30, 1, 64, 72)).astype(np.uint8)
    path = written(tmp_path / "n.onnx")
    detector = vaeguard.fit(images, features=str(path), epochs=1, device="cpu", run=tmp_path / "run")
    path.unlink()
    network = detector.info.record.backbone
    assert (network.name, network.channels) == ("n.onnx", (4, 8))
    read = vaeguard.load(tmp_path / "run", "cpu")
    assert np.array_equal(read.inspect(images).score, detector.inspect(images).score)
    vaeguard.export(read, tmp_path / "model.onnx")
    exported = vaeguard.load(tmp_path / "model.onnx", "cpu")
    assert np.allclose(exported.inspect(images).score, detector.inspect(images).score, rtol=1e-4)
    assert b"backbone.file" not in (tmp_path / "model.onnx").read_bytes()

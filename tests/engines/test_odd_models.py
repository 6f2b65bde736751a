"""Sealed files with odd content are refused: a seal shows that a file is whole, not who wrote it."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from toy import onnx_network, toy_record

import vaeguard
from vaeguard import RefusedError
from vaeguard.engines import exporting
from vaeguard.engines.exported_parts import part_bytes
from vaeguard.engines.model_file import read_tensors, write_tensors
from vaeguard.engines.onnx_checking import OPERATORS, check_graph
from vaeguard.engines.record import OnnxRecord
from vaeguard.engines.run_folder import calibration_images
from vaeguard.engines.torch_detector import TorchDetector
from vaeguard.models.graph import InferenceGraph
from vaeguard.models.onnx_network import OnnxNetwork, cut
from vaeguard.models.vae import VAE
from vaeguard.restoration.denoiser import SHIPPED, read_denoiser
from vaeguard.restoration.networks.direct import DirectDenoiser
from vaeguard.restoration.networks.exporting import DenoiserNetworks, denoiser_bytes
from vaeguard.restoration.networks.ladder import LadderVAE
from vaeguard.settings.likelihoods import LIKELIHOOD_FACTS
from vaeguard.settings.model import ACTIVATIONS, ModelSpec
from vaeguard.storage.files import UNSEALED, read_sealed, seal

HUGE = 10**400
ODD = {
    "null": None,
    "list": [1, "a"],
    "text": "odd",
    "huge": HUGE,
    "negative": -7,
    "nan": math.nan,
    "infinite": math.inf,
    "object": {"a": {"b": []}},
}
DEEP = '{"format": 3, "kind": ' + 100_000 * "[" + 100_000 * "]" + "}"


def places(values, place=()):
    """The place of every value within JSON."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for name, value in items:
        yield (*place, name)
        yield from places(value, (*place, name))


def changed(values, place, value):
    """A copy of `values` with another value at a place."""
    copy = json.loads(json.dumps(values))
    inner = copy
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return copy


def with_record(content, text):
    """An exported file with another text as its record, sealed."""
    model = onnx.load_from_string(content)
    for entry in model.metadata_props:
        entry.value = UNSEALED if entry.key == "seal" else text
    return seal(model.SerializeToString())


def used(path, images):
    """Load a model and inspect images; what it raises must be a refusal."""
    with np.errstate(all="ignore"):
        vaeguard.load(path, "cpu").inspect(images, pictures=True)


def fails_otherwise(use, *arguments):
    """How `use` fails, if it does but not by a refusal."""
    try:
        use(*arguments)
    except RefusedError as error:
        return None if len(str(error)) < 600 else f"a message of {len(str(error))} characters"
    except BaseException as error:  # noqa: BLE001  (any other is a fault)
        return repr(error)[:200]
    return None


@pytest.mark.nightly
def test_a_value_of_another_kind_anywhere_in_the_record_is_refused(bars_run, bars_onnx, tmp_path):
    tensors, record = read_tensors(bars_run / "model.safetensors")
    exported = read_sealed(bars_onnx)
    onnx_record = json.loads(next(e.value for e in onnx.load_from_string(exported).metadata_props if e.key != "seal"))
    images = np.zeros((2, 1, 8, 8), np.uint8)
    faults = {}
    for suffix, values in ((".safetensors", record), (".onnx", onnx_record)):
        path = tmp_path / f"m{suffix}"
        for place in places(values):
            if suffix == ".onnx" and place[0] not in {"format", "kind", "terms", "onnx"}:
                continue  # both files hold the same
            for name, value in ODD.items():
                odd = changed(values, place, value)
                if suffix == ".onnx":
                    path.write_bytes(with_record(exported, json.dumps(odd)))
                else:
                    write_tensors(path, tensors, odd)
                if fault := fails_otherwise(used, path, images):
                    faults[suffix, place, name] = fault
    assert not faults


@pytest.mark.nightly
def test_a_denoiser_with_a_value_of_another_kind_is_refused(tmp_path):
    made = denoiser_bytes(
        DenoiserNetworks(direct=DirectDenoiser(4, 2), kind="photo", interval=2.0, card={}, grain=(1.0, 0.5))
    )
    values = json.loads(next(e.value for e in onnx.load_from_string(made).metadata_props if e.key != "seal"))
    values["denoiser"]["ladder"] = {"width": 4, "latent": [2, 3, 4], "halo": 80}
    path, faults = tmp_path / "d.onnx", {}

    def use():
        read_denoiser(path, "cpu", 1).restore(np.zeros((1100, 20), np.float32), 0.1)

    for place in places(values):
        for name, value in ODD.items():
            odd = changed(values, place, value)
            if place[:2] != ("denoiser", "ladder"):
                odd["denoiser"].pop("ladder", None) if isinstance(odd["denoiser"], dict) else None
            path.write_bytes(with_record(made, json.dumps(odd)))
            if fault := fails_otherwise(use):
                faults[place, name] = fault
    assert not faults


@pytest.mark.parametrize("text", ["", "[]", "[1]", "null", "5", '"a"', "{}", '{"format": 3}', "{", DEEP, "NaN"])
def test_a_record_that_is_no_object_is_refused(bars_run, bars_onnx, tmp_path, text):
    content = (bars_run / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = {"vaeguard": text, "seal": UNSEALED}
    odd = json.dumps(header).encode()
    safe, exported = tmp_path / "model.safetensors", tmp_path / "m.onnx"
    safe.write_bytes(seal(len(odd).to_bytes(8, "little") + odd + content[8 + length :]))
    exported.write_bytes(with_record(read_sealed(bars_onnx), text))
    for path in (safe, exported):
        with pytest.raises(RefusedError, match=path.name):
            vaeguard.load(path, "cpu")
    exported.write_bytes(bars_onnx.read_bytes())  # beside the odd one
    assert vaeguard.load(exported, "cpu").info.fitted_on is None


def _drop(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


TENSOR_CHANGES = {
    "missing": _drop,
    "more": lambda tensors, _: tensors | {"more": torch.zeros(1)},
    "wider": lambda tensors, name: tensors | {name: torch.zeros(*tensors[name].shape, 2)},
    "empty": lambda tensors, name: tensors | {name: torch.zeros(0)},
    "float64": lambda tensors, name: tensors | {name: tensors[name].double()},
    "whole": lambda tensors, name: tensors | {name: tensors[name].long()},
    "nan": lambda tensors, name: tensors | {name: torch.full_like(tensors[name], torch.nan)},
}


@pytest.mark.parametrize("change", TENSOR_CHANGES)
def test_tensors_that_are_not_those_of_the_record_are_refused(bars_run, tmp_path, change):
    tensors, record = read_tensors(bars_run / "model.safetensors")
    for name in (*tensors, "reference.latents.centres"):
        write_tensors(tmp_path / "m.safetensors", TENSOR_CHANGES[change](tensors, name), record)
        with pytest.raises(RefusedError, match=r"m\.safetensors"):
            vaeguard.load(tmp_path / "m.safetensors", "cpu")


def test_infinite_weights_and_other_numbers_of_ranks_are_refused(bars_run, tmp_path):
    tensors, record = read_tensors(bars_run / "model.safetensors")
    infinite = tensors | {"calibration.normal_scores": torch.full_like(tensors["calibration.normal_scores"], math.inf)}
    fewer = tensors | {"calibration.normal_scores": tensors["calibration.normal_scores"][1:].clone()}
    for odd in (infinite, fewer):
        write_tensors(tmp_path / "m.safetensors", odd, record)
        with pytest.raises(RefusedError, match="normal_scores"):
            vaeguard.load(tmp_path / "m.safetensors", "cpu")


def _node(graph, kind, inputs, **attributes):
    graph.node.insert(0, helper.make_node(kind, inputs, [f"odd {kind}"], **attributes))


def _constant(graph, name, values):
    graph.initializer.append(numpy_helper.from_array(np.array(values), name))


def _grow(model, kind, inputs, *constants):
    for name, values in zip(inputs[1:], constants, strict=True):
        _constant(model.graph, name, values)
    _node(model.graph, kind, inputs)


def _elsewhere(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _custom(model):
    model.opset_import.add(domain="odd", version=1)
    model.graph.node.insert(0, helper.make_node("Own", ["image"], ["odd"], domain="odd"))


def _within(model, kind, name):
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.insert(0, helper.make_node(kind, ["image"], ["odd"], **{name: inner}))


def _function(model):
    node = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(helper.make_function("", "Add", ["a"], ["b"], [node], [helper.make_opsetid("", 20)]))


def _rename(values):
    values[0].name = "odd"


def _nan(model):
    tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT)
    tensor.raw_data = np.full(len(tensor.raw_data) // 4, np.nan, np.float32).tobytes()


def _short(model):
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-1]


def _type(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _cast_size(model):
    _constant(model.graph, "much", np.float32([30.0]))
    model.graph.node.insert(0, helper.make_node("Expand", ["fpr", "size"], ["odd"]))
    model.graph.node.insert(0, helper.make_node("Cast", ["exp"], ["size"], to=TensorProto.INT64))
    model.graph.node.insert(0, helper.make_node("Exp", ["much"], ["exp"]))


GRAPHS = {
    "loop": lambda model: _within(model, "Loop", "body"),
    "if": lambda model: _within(model, "If", "then_branch"),
    "scan": lambda model: _within(model, "Scan", "body"),
    "graph of a known operator": lambda model: _within(model, "Relu", "body"),
    "constant of a shape": lambda model: _node(model.graph, "ConstantOfShape", ["image"]),
    "expand": lambda model: _grow(model, "Expand", ["fpr", "sizes"], [10**5, 10**5]),
    "range": lambda model: _grow(model, "Range", ["a", "a", "b", "c"][1:], 10**10, 1),
    "pad": lambda model: _grow(model, "Pad", ["fpr", "sizes"], [10**9, 0]),
    "size from floats": _cast_size,
    "large setting": lambda model: _node(model.graph, "AveragePool", ["image"], kernel_shape=[2**40, 1]),
    "own operator": _custom,
    "function": _function,
    "data elsewhere": _elsewhere,
    "sparse": lambda model: model.graph.sparse_initializer.add(),
    "training": lambda model: model.training_info.add(),
    "nan": _nan,
    "short tensor": _short,
    "other output": lambda model: _rename(model.graph.output),
    "other input": lambda model: _rename(model.graph.input),
    "other type": _type,
    "no node": lambda model: model.graph.ClearField("node"),
    "no output": lambda model: model.graph.ClearField("output"),
}


@pytest.mark.parametrize("change", GRAPHS)
def test_a_graph_that_no_export_writes_is_refused(bars_onnx, tmp_path, change):
    for source, read in ((bars_onnx, vaeguard.load), (SHIPPED / "document.onnx", read_denoiser)):
        if source != bars_onnx and change in {"expand", "pad", "size from floats", "range"}:
            continue  # a denoiser takes no `fpr`
        model = onnx.load(source)
        record = next(entry.value for entry in model.metadata_props if entry.key == "vaeguard")
        GRAPHS[change](model)
        (tmp_path / "m.onnx").write_bytes(with_record(model.SerializeToString(), record))
        with pytest.raises(RefusedError, match=r"m\.onnx"):
            read(tmp_path / "m.onnx", "cpu")


def test_results_of_another_shape_are_refused(bars_onnx, tmp_path):
    model = onnx.load(bars_onnx)
    scalar = next(node for node in model.graph.node if "score" in node.output)
    scalar.output[list(scalar.output).index("score")] = "own score"
    _constant(model.graph, "places", np.int64([0, 0]))
    model.graph.node.append(helper.make_node("Unsqueeze", ["own score", "places"], ["score"]))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    record = next(entry.value for entry in model.metadata_props if entry.key == "vaeguard")
    (tmp_path / "m.onnx").write_bytes(with_record(model.SerializeToString(), record))
    with pytest.raises(RefusedError, match=r"m\.onnx"):
        used(tmp_path / "m.onnx", np.zeros((3, 1, 8, 8), np.uint8))


@pytest.mark.parametrize("content", [b"", b"\x07", b"\x3a\xff", 20 * b"\xff", b"\x3a\x02\x0a\x05", b"\x0b"])
def test_bytes_that_are_no_model_are_refused(content):
    with pytest.raises(RefusedError, match="'m'"):
        check_graph(content, "m")


EXPORTS = {
    **{
        pair[0]: {"activation": pair[0], "likelihood": pair[1]}
        for pair in zip(ACTIVATIONS, LIKELIHOOD_FACTS, strict=True)
    },
    "conv": {"kind": "conv", "image": (3, 21, 27)},
    "prior": {"prior": "per-class"},
    "autoencoder": {"autoencoder": True},
    "samples": {"sampled_elbo": True},
    "patches": {"patch": 8, "image": (3, 40, 47), "classes": ()},
    "vectors": {"image": (1, 1, 9), "classes": ()},
    "features": {"features": "n.onnx", "image": (3, 40, 47), "classes": ()},
}


def exported(image=(1, 8, 8), classes=("a", "b"), **model):
    """The bytes of an exported model that was never fitted, and of its parts."""
    small = {"latent": 3, "width": 2, "hidden": (16,)} | ({} if "kind" in model or image[1] == 1 else {"kind": "mlp"})
    record = toy_record(image, classes, 30, ModelSpec(**small | model), vectors=image[1] == 1)
    network = None
    if "features" in model:
        network = OnnxNetwork("n.onnx", cut(onnx_network(), ["quarter", "eighth"]))
        record = replace(record, model=replace(record.model, feature_count=12))
    detector = TorchDetector(InferenceGraph(VAE(record.model), 30, 5, network), record)
    settings = {"pixels": "uint8" if image[1] > 1 else "float32", "fp16": False, "fpr": 0.05, "opset": 20}
    yield exporting.onnx_bytes(detector.graph, detector, settings)
    if "prior" in model:
        whole = exporting._record(detector, settings)
        assert whole.onnx == OnnxRecord(**settings)
        yield from (part_bytes(part, detector.graph, whole) for part in ("encoder", "decoder"))
        yield exporting.onnx_bytes(exporting._in_half(detector.graph), detector, settings | {"fp16": True})


@pytest.mark.nightly
def test_our_exports_pass_and_use_all_operators():
    files = [content for settings in EXPORTS.values() for content in exported(**settings)]
    direct, ladder = DirectDenoiser(4, 2), LadderVAE(4, (2, 3, 4))
    files.append(denoiser_bytes(DenoiserNetworks(direct=direct, kind="photo", interval=2.0, card={}, ladder=ladder)))
    files += [path.read_bytes() for path in SHIPPED.glob("*.onnx")]
    operators = set()
    for content in files:
        check_graph(content, "ours")
        operators |= {node.op_type for node in onnx.load_from_string(content).graph.node}
    assert operators == OPERATORS


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.float32(1), np.zeros((2, 2, 2, 2), "U3"), np.zeros((2, 1, 8, 8), int)]
)
def test_odd_images_beside_a_model_are_refused(bars_run, tmp_path, array):
    (tmp_path / "model.safetensors").write_bytes((bars_run / "model.safetensors").read_bytes())
    np.savez(tmp_path / "calibration.npz", images=array, fitted_on=array)
    with pytest.raises(RefusedError, match=r"calibration\.npz' is damaged"):
        calibration_images(tmp_path)
    assert vaeguard.load(tmp_path, "cpu").info.fitted_on is None


@pytest.fixture(scope="module")
def features_run(tmp_path_factory):
    """The run folder of a model on the features of an ONNX file."""
    home = tmp_path_factory.mktemp("features")
    (home / "n.onnx").write_bytes(onnx_network().SerializeToString())
    images = np.random.default_rng(0).integers(0, 255, (30, 1, 40, 40)).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one epoch
        vaeguard.fit(images, features=str(home / "n.onnx"), epochs=1, device="cpu", run=home / "run")
    return home / "run"


NETWORKS = {
    "unknown": ({"name": "resnet19"}, {}),
    "of another file": ({"sha256": "0"}, {}),
    "other channels": ({"channels": [8, 4]}, {}),
    "too many channels": ({"channels": [4, 9]}, {}),
    "no file": ({}, {"places.backbone.file": torch.zeros(0, dtype=torch.uint8)}),
    "no network": ({}, {"places.backbone.file": torch.zeros(9, dtype=torch.uint8)}),
    "a file of this machine": ({"name": "/etc/passwd.onnx"}, {"places.backbone.file": None}),
}


@pytest.mark.parametrize("change", NETWORKS)
def test_a_network_that_is_not_the_one_of_the_fit_is_refused(features_run, tmp_path, change):
    tensors, record = read_tensors(features_run / "model.safetensors")
    values, others = NETWORKS[change]
    record["backbone"] |= values
    record["model"]["features"] = record["backbone"]["name"]
    tensors = {name: tensor for name, tensor in (tensors | others).items() if tensor is not None}
    write_tensors(tmp_path / "m.safetensors", tensors, record)
    with pytest.raises(RefusedError, match=r"m\.safetensors"):
        vaeguard.load(tmp_path / "m.safetensors", "cpu")

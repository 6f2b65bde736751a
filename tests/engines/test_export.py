import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from toy import bars

import vaeguard
from vaeguard import ModelSpec, RefusedError, TrainSpec, UsageError, VaeguardError
from vaeguard.engines import exporting, onnx_detector, sessions
from vaeguard.engines.parity import compare, outputs, random_images
from vaeguard.engines.run_folder import calibration_images
from vaeguard.engines.triton import write_triton
from vaeguard.storage.files import UNSEALED, seal, temporary_beside

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")]

CHECKOUT = Path(__file__).resolve().parents[2]


def fitted(size=8, training=None, **model):
    images, labels = bars(size=size)
    spec = ModelSpec(**{"kind": "mlp", "hidden": (16,), "latent": 3, "width": 2} | model)
    training = training or TrainSpec(epochs=25, beta=0.1, learning_rate=3e-3, device="cpu")
    return vaeguard.fit(images, labels, normal_classes="0,1", model=spec, training=training)


@pytest.fixture
def run(bars_run):
    return bars_run


@pytest.fixture
def exported(bars_onnx):
    return bars_onnx


def colour(n, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, height, width)).astype(np.uint8)


@pytest.mark.parametrize(
    "settings",
    [
        {"prior": "per-class", "latent": 5},
        pytest.param({"sampled_elbo": True}, marks=pytest.mark.nightly),
        pytest.param({"kind": "conv", "width": 8, "likelihood": "gaussian-image"}, marks=pytest.mark.nightly),
        {"kind": "conv", "width": 8, "size": 21, "activation": "gelu"},
    ],
)
def test_an_export_repeats_pytorch(tmp_path, settings):
    detector = fitted(**settings)
    size = settings.get("size", 8)
    images = bars(50, size=size, seed=3)[0]
    parity = vaeguard.export(detector, tmp_path / "m.onnx", images=images)
    assert_repeats(detector, tmp_path / "m.onnx", parity, images)


def assert_repeats(detector, path, parity, images):
    whole = {name: error for name, error in parity.errors.items() if " " not in name}  # the others are of its parts
    assert max(error for name, error in whole.items() if name != "p_value") < 5e-5
    assert (parity.swapped, parity.decisions, parity.same_bits, parity.images) == (0, 0, True, 114)
    assert {"score", "p_value", "restored", "heatmap", *detector.info.term_names} == set(whole)
    again = vaeguard.load(path, "cpu")
    assert again.info.term_names == detector.info.term_names
    for batch in (images, images[:0], images[:1], images.astype(np.float32) / 255):
        one, two = (outputs(each.inspect(batch, pictures=True)) for each in (detector, again))
        for name in one:
            assert one[name].shape == two[name].shape
            if name != "p_value":
                np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-4)


@pytest.mark.nightly
def test_colour_images_of_odd_sizes_and_patches_are_exported(tmp_path):
    odd = ModelSpec(kind="conv", width=2, latent=3, pseudo_classes=0)
    images = colour(60, 19, 27)
    detector = vaeguard.fit(images, model=odd, training=TrainSpec(epochs=40, beta=0.1, device="cpu"))
    assert not vaeguard.export(detector, tmp_path / "odd.onnx", images=images).problems
    patches = ModelSpec(kind="mlp", hidden=(16,), latent=3, patch=8, pseudo_classes=0)
    images = colour(60, 40, 47)
    detector = vaeguard.fit(images, model=patches, training=TrainSpec(epochs=1, device="cpu"))
    parity = vaeguard.export(detector, tmp_path / "patches.onnx", images=images[:5])
    assert parity.images == 69
    assert max(parity.errors.values()) < 5e-5


def test_a_uint8_export_refuses_floats_that_no_uint8_stands_for(exported):
    with pytest.raises(UsageError, match="with `pixels` set to 'float32'"):
        vaeguard.load(exported, "cpu").inspect(np.full((1, 1, 8, 8), 0.123456, np.float32))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_image_has_the_same_bits_in_any_batch_and_with_any_number_of_threads(exported, threads):
    images = bars(300, seed=5)[0]
    reference = outputs(onnx_detector.read_onnx(exported, "cpu", threads=1).inspect(images, pictures=True))
    detector = onnx_detector.read_onnx(exported, "cpu", threads=threads)
    for size in (1, 3, 16, 50, 299):
        for start in (0, 1):
            part = images[start : start + size]
            for name, values in outputs(detector.inspect(part, pictures=True)).items():
                np.testing.assert_array_equal(values, reference[name][start : start + size], err_msg=name)


def test_the_bare_file_takes_a_false_alarm_rate_and_any_number_of_images(exported, run):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["image"]
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
    images = bars(40, classes=4, seed=6)[0]
    inspection = vaeguard.load(run, "cpu").inspect(images)
    for fpr, fed in ((0.05, {}), (0.3, {"fpr": np.array(0.3, np.float32)})):
        p_value, anomaly = session.run(["p_value", "anomaly"], {"image": images, **fed})
        np.testing.assert_array_equal(p_value, inspection.p_value)
        np.testing.assert_array_equal(anomaly, inspection.p_value <= np.float32(fpr))
        assert fpr == 0.05 or 0 < anomaly.sum() < len(anomaly)


def test_the_rate_of_an_export_is_the_default_of_what_uses_it(run, tmp_path):
    vaeguard.export(vaeguard.load(run, "cpu"), tmp_path / "strict.onnx", fpr=0.3)
    images, kinds = bars(40, classes=4, seed=6)
    np.save(tmp_path / "images.npy", images)
    exported = vaeguard.load(tmp_path / "strict.onnx", "cpu")
    rates = []
    for given in (None, 0.1):
        summary = vaeguard.score_files(exported, tmp_path / "images.npy", tmp_path / "scores.csv", fpr=given)
        rates += [summary.fpr, vaeguard.evaluate(exported, images, labels=kinds, fpr=given).fpr]
    assert rates == [0.3, 0.3, 0.1, 0.1]
    with pytest.raises(UsageError, match="fpr"):
        vaeguard.evaluate(exported, images, labels=kinds, fpr=1.0)


def test_an_export_is_one_file_without_paths_of_this_machine(exported):
    content = exported.read_bytes()
    for place in (str(CHECKOUT), sys.prefix, str(Path.home()), "site-packages", ".py"):
        assert place.encode() not in content, place
    model = onnx.load_from_string(content)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", exporting.OPSET)]
    assert not any(each.external_data for each in model.graph.initializer)
    record = json.loads(next(each.value for each in model.metadata_props if each.key == "vaeguard"))
    assert record["normal_classes"] == ["0", "1"]
    settings = {"pixels": "uint8", "fp16": False, "fpr": 0.05, "opset": exporting.OPSET}
    assert record["onnx"].items() >= settings.items()


def test_500_flipped_bits_are_500_refusals(exported, tmp_path):
    content = exported.read_bytes()
    generator = np.random.default_rng(0)
    broken = tmp_path / "broken.onnx"
    for bit in generator.choice(8 * len(content), 500, replace=False):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        broken.write_bytes(flipped)
        with pytest.raises(RefusedError):
            vaeguard.load(broken)


def test_other_onnx_files_are_refused(tmp_path, exported):
    other = onnx.load(exported)
    tensor = other.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="outside.bin")
    (tmp_path / "outside.bin").write_bytes(b"\0" * 10_000)
    sealed_again(other, tmp_path / "external.onnx")
    with pytest.raises(RefusedError, match="not a model exported by vaeguard"):
        vaeguard.load(tmp_path / "external.onnx")
    foreign = onnx.load(exported)
    foreign.graph.node[0].domain, foreign.graph.node[0].op_type = "other", "Unknown"
    sealed_again(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(RefusedError, match="not a model exported by vaeguard"):
        vaeguard.load(tmp_path / "foreign.onnx")
    nobody = onnx.load(exported)
    del nobody.metadata_props[:]
    nobody.metadata_props.add(key="seal", value=UNSEALED)
    (tmp_path / "nobody.onnx").write_bytes(seal(nobody.SerializeToString()))
    with pytest.raises(RefusedError, match="not a model of vaeguard"):
        vaeguard.load(tmp_path / "nobody.onnx")
    with pytest.raises(UsageError, match="no model at"):
        vaeguard.load(tmp_path / "missing.onnx")


@pytest.mark.usefixtures("translated_once")
def test_only_models_of_ours_are_replaced(run, tmp_path):
    path = tmp_path / "model-encoder.onnx"
    path.write_bytes(b"of another tool")
    with pytest.raises(UsageError, match="is not a model of vaeguard and would be overwritten"):
        vaeguard.export(vaeguard.load(run, "cpu"), tmp_path / "model.onnx", parts=True)
    assert path.read_bytes() == b"of another tool"
    path.unlink()
    for _ in range(2):
        vaeguard.export(vaeguard.load(run, "cpu"), tmp_path / "model.onnx", parts=True)


def sealed_again(model, path):
    for each in model.metadata_props:
        if each.key == "seal":
            each.value = UNSEALED
    path.write_bytes(seal(model.SerializeToString()))


def test_lost_parity_refuses_the_export_and_leaves_nothing(run, tmp_path, monkeypatch, translated_once):
    original = exporting._translated

    def off(graph, detector, pixels):
        program = original(graph, detector, pixels)
        name = next(key for key in program.graph.initializers if key.endswith("calibration.term_tail.knots"))
        weight = program.graph.initializers[name]
        weight.const_value = onnx_ir.tensor(weight.const_value.numpy() * np.float32(1.01), name=name)
        return program

    monkeypatch.setattr(exporting, "_translated", off)
    with pytest.raises(RefusedError, match="score has a relative error of"):
        vaeguard.export(vaeguard.load(run, "cpu"), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_parity_sees_swaps_decisions_and_wrong_bits(run):
    detector = vaeguard.load(run, "cpu")

    class Other:
        info, device = detector.info, "cpu"

        def __init__(self, change):
            self.change = change

        def inspect_tiles(self, images, first, *, pictures=False):
            found = detector.inspect_tiles(images, first, pictures=pictures)
            self.change(found)
            return found

    images = bars(50, seed=3)[0]
    compared = {
        "score has a relative error": lambda found: found.score.__iadd__(np.float32(0.1) * (np.arange(len(found)) % 2)),
        "changed rank": lambda found: found.score.__imul__(-1),
        "decisions": lambda found: found.p_value.__imul__(0.5),
        "depend on its batch": lambda found: found.terms["kl"].__imul__(np.float32(1 + 1e-7 * len(found))),
    }
    for message, change in compared.items():
        parity = compare(detector, Other(change), images)
        assert message in "; ".join(parity.problems), message
        with pytest.raises(RefusedError, match=message):
            parity.check("m.onnx")
    assert not compare(detector, Other(lambda found: None), images).problems


def test_engines_are_compared_on_images_as_a_fit_takes_them(run, exported):
    detector, images = vaeguard.load(run, "cpu"), bars()[0][:8, 0]
    parity = vaeguard.verify(vaeguard.load(exported), detector, images)
    assert parity.images - parity.random == 8
    with pytest.raises(UsageError, match="images have shape"):
        vaeguard.verify(vaeguard.load(exported), detector, images[:, :4])


def test_wrong_use_is_refused(run, exported, tmp_path):
    detector = vaeguard.load(run, "cpu")
    with pytest.raises(UsageError, match=r"\.onnx"):
        vaeguard.export(detector, tmp_path / "m.bin")
    with pytest.raises(UsageError, match="already exported"):
        vaeguard.export(vaeguard.load(exported), tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="not an exported model"):
        vaeguard.verify(detector, detector)
    with pytest.raises(UsageError, match="not an exported model"):
        vaeguard.verify(str(exported))
    with pytest.raises(UsageError, match="does not match this run in shape or terms"):
        vaeguard.verify(vaeguard.load(exported), fitted(size=10))
    with pytest.raises(UsageError, match="came from a different run"):
        vaeguard.verify(vaeguard.load(exported), fitted(training=TrainSpec(epochs=1, device="cpu")))
    with pytest.raises(UsageError, match="exported models only"):
        vaeguard.load(run, "tensorrt")
    assert not (tmp_path / "m.onnx").exists()


def test_a_gpu_that_is_asked_for_and_not_used_is_an_error(exported, monkeypatch):
    if sessions._has_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="`device` is 'cuda'"):
        vaeguard.load(exported, "cuda")
    monkeypatch.setattr(sessions, "_has_gpu", lambda: True)
    assert vaeguard.load(exported, "auto").device == "cpu"


class Device:
    """A session on a stand-in for a GPU with room for 40 images, which says how it was used."""

    def __init__(self, session, room=40):
        self.session, self.room, self.shapes, self.wanted = session, room, [], []

    def io_binding(self):
        return self

    def bind_cpu_input(self, name, batch):
        self.image = {name: batch}
        self.wanted = []

    def bind_output(self, name):
        self.wanted.append(name)

    def run_with_iobinding(self, binding):
        self.shapes.append(len(self.image["image"]))
        if self.shapes[-1] > self.room:
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")
        self.found = self.session.run(self.wanted, self.image)

    def copy_outputs_to_cpu(self):
        return self.found


def test_a_gpu_gets_one_shape_only_and_half_of_it_where_memory_runs_out(exported):
    detector = vaeguard.load(exported, "cpu")
    images = bars(300, seed=5)[0]
    expected = detector.inspect(images)
    device = Device(detector._session._opened)
    detector._session._opened = device
    detector._session.device = detector.device = "cuda"
    found = detector.inspect(images)
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-5)
    assert device.shapes[:3] == [256, 128, 64]
    assert set(device.shapes[3:]) == {32}
    assert device.wanted == ["score", "p_value", *detector.info.term_names]
    device.room = 3
    with pytest.raises(VaeguardError, match="not enough memory on cuda for 16 images of 8x8"):
        detector.inspect(images)


def test_scoring_with_an_export_needs_neither_torch_nor_scikit_learn(exported, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    from PIL import Image

    for number, image in enumerate(bars(5)[0]):
        Image.fromarray(image[0]).save(folder / f"{number}.png")
    code = (
        "import sys\n"
        "import vaeguard\n"
        f"summary = vaeguard.score_files(vaeguard.load({str(exported)!r}), {str(folder)!r}, 'scores.csv')\n"
        "assert summary.images == 5\n"
        "loaded = {'torch', 'sklearn', 'pandas', 'scipy', 'onnx'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        f"assert not vaeguard.verify(vaeguard.load({str(exported)!r})).problems\n"
        "assert not {'torch', 'sklearn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_does_not_say_what_it_carries_is_found(exported):
    detector = vaeguard.load(exported)
    onnx = detector.info.record.onnx

    def verify(**changes):
        detector.info = replace(detector.info, record=replace(detector.info.record, onnx=replace(onnx, **changes)))
        return vaeguard.verify(detector)

    assert set(verify().errors) == {"score", "p_value", *detector.info.term_names}
    problem = verify(answers=(onnx.answers[0] * 1.01, *onnx.answers[1:])).problems[0]
    assert problem.startswith("score has a relative error of 0.0")
    for changes in (
        {"noise": ""},
        {"answers": onnx.answers[1:]},
        {"answered": ("score", "p_value", "x")},
        {"answered": ()},
    ):
        with pytest.raises(UsageError, match="contains no results of PyTorch"):
            verify(**changes)


def test_random_images_are_the_same_each_time(exported):
    info = vaeguard.load(exported).info
    np.testing.assert_array_equal(random_images(info), random_images(info))
    assert random_images(info).dtype == np.uint8


def test_calibration_images_stay_with_the_run(run, tmp_path):
    images = calibration_images(run)
    np.testing.assert_array_equal(images, calibration_images(run / "model.safetensors"))
    assert images.dtype == np.uint8
    assert images.shape[1:] == (1, 8, 8)
    given = {image.tobytes() for image in bars()[0]}
    assert {image.tobytes() for image in images} <= given
    assert calibration_images(tmp_path) is None
    (tmp_path / "calibration.npz").write_bytes(b"nothing")
    with pytest.raises(RefusedError, match="damaged"):
        calibration_images(tmp_path)
    file = io.BytesIO()
    np.savez(file, images=np.array([object()]))
    (tmp_path / "calibration.npz").write_bytes(file.getvalue())
    with pytest.raises(RefusedError, match="damaged"):
        calibration_images(tmp_path)


def test_the_triton_repository_says_what_the_file_takes_and_gives(exported, tmp_path):
    home = write_triton(exported, tmp_path / "models")
    assert home == tmp_path / "models" / "vaeguard"
    assert (home / "1" / "model.onnx").read_bytes() == exported.read_bytes()
    config = (home / "config.pbtxt").read_text()
    assert config.count("{") == config.count("}")
    assert config.count("[") == config.count("]")
    for field in ('name: "vaeguard"', 'backend: "onnxruntime"', "max_batch_size: 256", "dynamic_batching {"):
        assert field in config
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8", "tensor(bool)": "TYPE_BOOL"}
    fields = re.findall(
        r'^  \{ name: "(\w+)" data_type: (\w+) dims: \[ ([\d, ]+) \]( reshape.*)? \},?$', config, re.MULTILINE
    )
    stated = [
        (name, kind, [] if scalar else [int(size) for size in dims.split(",")]) for name, kind, dims, scalar in fields
    ]
    taken = [(each.name, types[each.type], each.shape[1:]) for each in (*session.get_inputs(), *session.get_outputs())]
    assert stated == taken
    for size in (1, 256):
        assert f'batch_size: {size} inputs {{ key: "image" value: {{ data_type: TYPE_UINT8 dims: [ 1, 8, 8 ]' in config
    with pytest.raises(UsageError, match="already exists"):
        write_triton(exported, tmp_path / "models")


@pytest.mark.usefixtures("translated_once")
def test_an_export_sweeps_what_a_killed_one_left(run, tmp_path):
    temporary_beside(tmp_path / "other.onnx").write_bytes(b"half")
    vaeguard.export(vaeguard.load(run, "cpu"), tmp_path / "m.onnx", images=calibration_images(run))
    first = (tmp_path / "m.onnx").read_bytes()
    vaeguard.export(vaeguard.load(run, "cpu"), tmp_path / "m.onnx", images=calibration_images(run))
    assert (tmp_path / "m.onnx").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]

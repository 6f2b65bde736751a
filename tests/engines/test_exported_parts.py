"""Encoder and decoder as files of their own."""

import json
import shutil

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from command import run
from test_export import assert_repeats
from toy import bars

import vaeguard
from vaeguard import ModelSpec, RefusedError, TrainSpec, UsageError
from vaeguard.engines import exported_parts
from vaeguard.engines.exported_parts import part_paths
from vaeguard.engines.generation import sample_latents

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")]

TRAINING = TrainSpec(epochs=25, beta=0.1, learning_rate=3e-3, device="cpu")


def fitted(run=None, **model):
    images, labels = bars()
    spec = ModelSpec(**{"kind": "mlp", "hidden": (16,), "latent": 3, "width": 2, "pseudo_classes": 0} | model)
    return vaeguard.fit(images, labels, normal_classes="0,1", model=spec, training=TRAINING, run=run)


def sessions(path):
    return (
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]) for each in part_paths(path).values()
    )


def names(values):
    return [each.name for each in values]


@pytest.mark.parametrize(
    ("settings", "pixels"),
    [
        ({"guided": False, "likelihood": "gaussian-pixel", "latent": 2}, "uint8"),
        pytest.param({"kind": "conv", "width": 4, "prior": "per-class"}, "float32", marks=pytest.mark.nightly),
        pytest.param({"autoencoder": True, "without": ("recon_ratio",)}, "uint8", marks=pytest.mark.nightly),
    ],
)
def test_the_parts_repeat_pytorch_for_any_number_of_images(tmp_path, settings, pixels):
    detector = fitted(**settings)
    images = bars(50, seed=3)[0]
    parity = vaeguard.export(detector, tmp_path / "m.onnx", images=images, pixels=pixels, parts=True)
    assert_repeats(detector, tmp_path / "m.onnx", parity, images)
    has_noise = not settings.get("autoencoder")
    outputs = ["mean", "logvar"] if has_noise else ["mean"]
    assert {name for name in parity.errors if " " in name} == {
        *(f"encoder {name}" for name in outputs),
        "decoder restored",
    }
    encoder, decoder = sessions(tmp_path / "m.onnx")
    assert names(encoder.get_outputs()) == outputs
    assert (encoder.get_inputs()[0].type, encoder.get_inputs()[0].shape) == (
        "tensor(uint8)" if pixels == "uint8" else "tensor(float)",
        ["batch", 1, 8, 8],
    )
    assert decoder.get_inputs()[0].shape == ["batch", settings.get("latent", 3)]
    for batch in (images, images[:1], images[:7]):
        fed = batch if pixels == "uint8" else batch.astype(np.float32) / 255
        found = dict(zip(outputs, encoder.run(None, {"image": fed}), strict=True))
        encoding = detector.encode(batch)
        for name in outputs:
            np.testing.assert_allclose(found[name], getattr(encoding, name), rtol=1e-4, atol=1e-4)
        (restored,) = decoder.run(None, {"latent": found["mean"]})
        np.testing.assert_allclose(restored, detector.inspect(batch, pictures=True).restored, atol=1e-4)
    if pixels == "float32":
        between = np.full((1, 1, 8, 8), 0.123456, np.float32)
        found = vaeguard.load(tmp_path / "m.onnx", "cpu").inspect(between).score
        np.testing.assert_allclose(found, detector.inspect(between).score, rtol=1e-5)
    if has_noise:
        latents = sample_latents(detector.graph, 9, seed=4)
        (drawn,) = decoder.run(None, {"latent": latents})
        np.testing.assert_allclose(drawn, detector.decode(latents), atol=1e-4)
        assert drawn.min() >= 0
        assert drawn.max() <= 1


@pytest.mark.nightly
def test_vectors_go_in_and_come_out_in_their_own_units(tmp_path):
    rows = (np.random.default_rng(0).normal(50, 20, (200, 7)) * np.arange(1, 8)).astype(np.float32)
    detector = vaeguard.fit(rows, model=ModelSpec(hidden=(16,), latent=3), training=TRAINING)
    vectors = rows[:, None, None]
    vaeguard.export(detector, tmp_path / "v.onnx", images=vectors.astype(np.float64), parts=True)
    encoder, decoder = sessions(tmp_path / "v.onnx")
    mean, _ = encoder.run(None, {"image": vectors})
    (restored,) = decoder.run(None, {"latent": mean})
    np.testing.assert_allclose(restored, detector.inspect(vectors, pictures=True).restored, rtol=1e-3)
    session = onnxruntime.InferenceSession(tmp_path / "v.onnx", providers=["CPUExecutionProvider"])
    damaged = np.where(np.arange(7) == 3, np.float32(np.nan), vectors[:1])
    assert session.run(["anomaly"], {"image": damaged})[0].tolist() == [True]


@pytest.mark.nightly
def test_half_precision_and_its_parts_pass_a_wider_gate(tmp_path):
    parity = vaeguard.export(fitted(), tmp_path / "h.onnx", fp16=True, parts=True)
    assert 1e-5 < parity.errors["decoder restored"] < parity.tolerance == 2e-2
    assert 1e-5 < max(error for name, error in parity.errors.items() if " " not in name) < parity.tolerance
    model = onnx.load(tmp_path / "h.onnx")
    assert onnx.TensorProto.FLOAT16 in {each.data_type for each in model.graph.initializer}


@pytest.mark.usefixtures("translated_once")
def test_a_part_is_small_sealed_and_says_what_it_is(tmp_path, bars_run):
    vaeguard.export(vaeguard.load(bars_run, "cpu"), tmp_path / "m.onnx", parts=True)
    whole = onnx.load(tmp_path / "m.onnx")
    said = {each.key: each.value for each in whole.metadata_props}
    for part, path in part_paths(tmp_path / "m.onnx").items():
        model = onnx.load(path)
        record = json.loads(next(each.value for each in model.metadata_props if each.key == "vaeguard"))
        assert record.pop("part") == part
        assert record == json.loads(said["vaeguard"])
        weights = [each.name for each in model.graph.initializer]
        assert not [name for name in weights if "calibration" in name or "reference" in name]
        with pytest.raises(RefusedError, match=f"is only the {part} of a model and computes no scores"):
            vaeguard.load(path)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(RefusedError, match="damaged"):
            vaeguard.load(path)


@pytest.mark.parametrize("broken", ["encoder", "decoder"])
def test_lost_parity_of_a_part_leaves_no_file_at_all(tmp_path, monkeypatch, broken, bars_run, translated_once):
    original = exported_parts.translated

    def off(module, inputs, outputs, dynamic):
        program = original(module, inputs, outputs, dynamic)
        if ("image" in inputs) == (broken == "encoder"):
            name = next(key for key in program.graph.initializers if key.endswith("weight"))
            weight = program.graph.initializers[name]
            weight.const_value = onnx_ir.tensor(weight.const_value.numpy() * np.float32(1.01), name=name)
        return program

    monkeypatch.setattr(exported_parts, "translated", off)
    with pytest.raises(RefusedError, match=f"{broken} .* has a relative error"):
        vaeguard.export(vaeguard.load(bars_run, "cpu"), tmp_path / "m.onnx", parts=True)
    assert list(tmp_path.iterdir()) == []


def test_patches_have_no_parts(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 16, 16)).astype(np.uint8)
    spec = ModelSpec(kind="mlp", hidden=(8,), latent=2, patch=8)
    detector = vaeguard.fit(images, model=spec, training=TrainSpec(epochs=1, device="cpu"))
    with pytest.raises(UsageError, match="a model of patches or features has no latent vector for a whole image"):
        vaeguard.export(detector, tmp_path / "m.onnx", parts=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("translated_once")
def test_the_command_writes_three_files_and_refuses_to_score_with_a_part(tmp_path, bars_run):
    shutil.copytree(bars_run, tmp_path / "run")
    done = run(tmp_path, "export", "-m", "run", "-o", "m.onnx", "--set", "export.parts=true", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["parts"] == {"encoder": "m-encoder.onnx", "decoder": "m-decoder.onnx"}
    assert all((tmp_path / name).exists() for name in ("m.onnx", *said["parts"].values()))
    assert "decoder restored" in said["parity"]["errors"]
    np.save(tmp_path / "images.npy", bars(4)[0])
    for arguments in (("score", "images.npy", "-m", "m-encoder.onnx"), ("verify", "m-decoder.onnx", "-m", "run")):
        done = run(tmp_path, *arguments)
        assert done.returncode == 4
        assert "of a model and computes no scores" in done.stderr
        assert "Traceback" not in done.stderr

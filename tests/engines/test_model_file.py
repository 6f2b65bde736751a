from dataclasses import replace

import numpy as np
import pytest
from toy import bars

import vaeguard
from vaeguard import ModelSpec, RefusedError, TrainSpec, UsageError
from vaeguard.engines.model_file import FORMAT, read_tensors, write_tensors

pytestmark = pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")


def fitted(**model):
    images, labels = bars()
    spec = ModelSpec(**{"kind": "mlp", "hidden": (16,), "latent": 3, "width": 2} | model)
    return vaeguard.fit(images, labels, normal_classes="0,1", model=spec, training=TrainSpec(epochs=2))


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"guided": False},
        {"prior": "per-class"},
        {"autoencoder": True},
        {"likelihood": "gaussian-image", "latent": 5},
        {"pseudo_classes": 0},
        {"sampled_elbo": True},
    ],
)
def test_save_then_load_gives_the_same_bits(tmp_path, kind, settings):
    detector = fitted(kind=kind, **settings)
    path = vaeguard.save(detector, tmp_path)
    assert path == tmp_path / "model.safetensors"
    images = bars(50, seed=9)[0]
    for where in (tmp_path, path):
        again = vaeguard.load(where)
        assert again.info.record == replace(detector.info.record, format=FORMAT)
        one, two = (d.inspect(images, pictures=True) for d in (detector, again))
        for name in one.terms:
            np.testing.assert_array_equal(one.terms[name], two.terms[name])
        np.testing.assert_array_equal(one.score, two.score)
        np.testing.assert_array_equal(one.p_value, two.p_value)
        np.testing.assert_array_equal(one.restored, two.restored)


def test_500_flipped_bits_are_500_refusals(tmp_path):
    path = vaeguard.save(fitted(), tmp_path / "m.safetensors")
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for bit in generator.integers(0, 8 * len(content), 500):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        with pytest.raises(RefusedError):
            vaeguard.load(path)


def test_truncated_and_foreign_files_are_refused(tmp_path):
    path = vaeguard.save(fitted(), tmp_path / "m.safetensors")
    content = path.read_bytes()
    for size in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(RefusedError, match=r"m\.safetensors"):
            vaeguard.load(path)
    path.write_bytes(b"just text, vaeguard-sha256:" + b"0" * 64)
    with pytest.raises(RefusedError, match="damaged"):
        vaeguard.load(path)


def test_a_pickle_is_never_read(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(RefusedError):
        vaeguard.load(path)
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(RefusedError, match=r"\.safetensors"):
        vaeguard.load(tmp_path / "model.pt")


def test_a_checkpoint_or_another_format_is_no_model(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {}, {"kind": "checkpoint"})
    with pytest.raises(RefusedError, match="checkpoint"):
        vaeguard.load(path)
    for other in (FORMAT - 1, 99):
        write_tensors(path, {}, {"kind": "detector", "format": other})
        with pytest.raises(RefusedError, match=f"format {other}.*fit the model again"):
            read_tensors(path)


def test_a_missing_model_says_what_to_do(tmp_path):
    for nothing in (tmp_path, tmp_path / "nowhere", tmp_path / "model.safetensors"):
        with pytest.raises(UsageError, match="no model at .*; fit one"):
            vaeguard.load(nothing)
    with pytest.raises(UsageError, match=r"no model at .*m\.onnx.*; export one"):
        vaeguard.load(tmp_path / "m.onnx")
    (tmp_path / "checkpoint.safetensors").touch()
    with pytest.raises(UsageError, match="finish the interrupted fit"):
        vaeguard.load(tmp_path)


def test_the_same_fit_gives_the_same_bytes(tmp_path):
    detectors = [fitted(), *3 * [fitted()]]  # the order of a header was left to chance
    paths = [vaeguard.save(detector, tmp_path / f"{number}.safetensors") for number, detector in enumerate(detectors)]
    assert len({path.read_bytes() for path in paths}) == 1

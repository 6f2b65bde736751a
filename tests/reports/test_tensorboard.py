"""What TensorBoard's own reader finds in the log of a fit."""

import errno
import io
import json
import sys
import warnings

import numpy as np
import pytest
import torch
from command import run
from PIL import Image
from toy import bars

import vaeguard
from vaeguard import ModelSpec, TrainSpec, UsageError, VaeguardError
from vaeguard.data.split import split_normal, spread_out
from vaeguard.reports import tensorboard as tensorboard_log

pytestmark = pytest.mark.slow

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)

SMALL = ModelSpec(kind="mlp", hidden=(16,), latent=4, pseudo_classes=0)
QUICK = TrainSpec(epochs=4, batch_size=32, device="cpu")
NAMES = np.array(["good", "ok", "b\tad"])


def fitted(model=SMALL, data=None, **more):
    images, labels = data or bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vaeguard.TrainingWarning)
        return vaeguard.fit(images, None if labels is None else NAMES[labels], model=model, training=QUICK, **more)


def read(folder):
    found = accumulator.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    return found.Reload()


def decoded(event):
    return Image.open(io.BytesIO(event.encoded_image_string))


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    home = tmp_path_factory.mktemp("tensorboard")
    detector = fitted(run=home / "run", tensorboard=home / "logs")
    return detector, home, home / "logs" / "run"


def test_every_column_of_the_history_is_a_curve(logged):
    _, home, folder = logged
    found = read(folder)
    history = vaeguard.read_report(home / "run")["history"]
    pairs = ("loss", "distortion", "rate", "class_accuracy")
    tags = {f"{name}/{part}" for name in pairs for part in ("train", "valid")}
    assert set(found.Tags()["scalars"]) == tags | {"learning_rate", "beta", "active_units", "seconds"}
    for tag, column in (("rate/train", "rate"), ("loss/valid", "valid_loss"), ("active_units", "active_units")):
        events = found.Scalars(tag)
        assert [event.step for event in events] == [1, 2, 3, 4]
        assert [event.value for event in events] == pytest.approx([row[column] for row in history])


def test_settings_are_texts(logged):
    found = read(logged[2])
    texts = {f"settings/{name}/text_summary" for name in ("model", "training", "data", "examples")}
    assert set(found.Tags()["tensors"]) == texts
    (event,) = found.Tensors("settings/training/text_summary")
    assert "| batch_size | `32` |" in event.tensor_proto.string_val[0].decode()


def test_restorations_lie_below_their_inputs_and_samples_beside_them(logged):
    detector, _, folder = logged
    found = read(folder)
    assert set(found.Tags()["images"]) == {"reconstructions", "samples"}
    for tag in ("reconstructions", "samples"):
        assert [event.step for event in found.Images(tag)] == [1, 2, 3, 4]
    images, labels = bars()
    image_set = vaeguard.from_array(images, NAMES[labels])
    split = split_normal(image_set, (0, 1, 2), validation=0.1, calibration=0.1, seed=0)
    rows = split.validation[spread_out(len(split.validation), 8)]
    picture = np.asarray(decoded(found.Images("reconstructions")[-1]))
    assert picture.shape == (16, 64, 3)
    np.testing.assert_array_equal(picture[:8, :, 0], np.concatenate(images[rows, 0], 1))
    assert detector.info.record.epoch == 4
    restored = np.rint(np.concatenate(detector.decode(detector.encode(images[rows]).mean)[:, 0], 1) * 255)
    assert np.abs(picture[8:, :, 0] - restored).max() <= 1
    samples = decoded(found.Images("samples")[-1])
    assert samples.size == (64, 16)


def test_the_projector_has_latents_classes_and_thumbnails(logged):
    detector, _, folder = logged
    place = folder / "00004" / "latents"
    latents = np.loadtxt(place / "tensors.tsv", delimiter="\t")
    classes = (place / "metadata.tsv").read_text().splitlines()
    count = detector.info.record.data.split.validation
    assert latents.shape == (count, 4)
    assert len(classes) == count
    assert set(classes) == {"good", "ok", "b?ad"}
    images, labels = bars()
    image_set = vaeguard.from_array(images, NAMES[labels])
    rows = split_normal(image_set, (0, 1, 2), validation=0.1, calibration=0.1, seed=0).validation
    np.testing.assert_allclose(latents, detector.encode(images[rows]).mean, rtol=1e-5, atol=1e-6)
    assert classes == [name.replace("\t", "?") for name in NAMES[labels[rows]]]
    with Image.open(place / "sprite.png") as sprite:
        assert sprite.size == (5 * 48, 5 * 48)  # 24 images
        first = np.asarray(sprite)[:48:6, :48:6, 0]
    assert np.abs(first.astype(int) - images[rows[0], 0]).max() <= 1
    config = (folder / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 1
    for name in ("tensors.tsv", "metadata.tsv", "sprite.png"):
        assert f"00004/latents/{name}" in config


@pytest.mark.parametrize("model", [SMALL, ModelSpec(kind="conv", width=2, latent=3, dropout=0.2, prior="per-class")])
def test_logging_leaves_every_bit_of_the_fit_as_it_is(tmp_path, model):
    plain, log = fitted(model), fitted(model, tensorboard=tmp_path)
    one, two = plain.graph.state_dict(), log.graph.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(f"{plain.info.record.data.name}-{model.kind}-")
    per_class = {"samples/good", "samples/ok", "samples/b?ad"} if model.prior == "per-class" else {"samples"}
    assert set(read(folder).Tags()["images"]) == {"reconstructions"} | per_class


def test_a_resumed_fit_goes_on_in_the_same_log(tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(after):
        def progress(done, total, text):
            if done > after * total:
                raise SystemError("killed")

        return progress

    settings = {"run": tmp_path / "run", "tensorboard": tmp_path / "logs"}
    with pytest.raises(SystemError):
        fitted(**settings, progress=kill(0.6))
    # As if the last epoch had come after the last checkpoint.
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "logs" / "run")) as writer:
        writer.add_scalar("loss/train", -1.0, 3)
    with pytest.raises(UsageError, match="contains an interrupted fit"):
        fitted(**settings)
    fitted(**settings, resume=True)
    found = read(tmp_path / "logs" / "run")
    for tag in ("loss/train", "loss/valid", "learning_rate"):
        assert [event.step for event in found.Scalars(tag)] == [1, 2, 3, 4]
        assert min(event.value for event in found.Scalars(tag)) > 0
    assert [event.step for event in found.Images("reconstructions")] == [1, 2, 3, 4]
    assert len(found.Tensors("settings/model/text_summary")) == 1


def test_a_fit_resumed_with_a_log_for_the_first_time_logs_its_whole_history(tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(done, total, text):
        if done > 0.6 * total:
            raise SystemError("killed")

    with pytest.raises(SystemError):
        fitted(run=tmp_path / "run", progress=kill)
    fitted(run=tmp_path / "run", resume=True, tensorboard=tmp_path / "logs")
    found = read(tmp_path / "logs" / "run")
    assert [event.step for event in found.Scalars("rate/valid")] == [1, 2, 3, 4]
    assert [event.step for event in found.Images("samples")] == [2, 3, 4]  # the checkpoint is of epoch 2


@pytest.mark.nightly
def test_what_has_no_pictures_has_curves(tmp_path):
    auto = ModelSpec(kind="mlp", hidden=(16,), latent=4, pseudo_classes=0, autoencoder=True)
    fitted(auto, data=(bars()[0], None), run=tmp_path / "auto", tensorboard=tmp_path)
    assert read(tmp_path / "auto").Tags()["images"] == ["reconstructions"]
    assert not list((tmp_path / "auto").rglob("metadata.tsv"))
    rows = np.random.default_rng(0).normal(size=(100, 5)), np.arange(100) % 3
    fitted(ModelSpec(hidden=(8,), latent=2), data=rows, run=tmp_path / "vectors", tensorboard=tmp_path)
    assert read(tmp_path / "vectors").Tags()["images"] == []
    assert {path.name for path in (tmp_path / "vectors").rglob("*.tsv")} == {"tensors.tsv", "metadata.tsv"}
    assert not list((tmp_path / "vectors").rglob("sprite.png"))
    patches = ModelSpec(kind="mlp", hidden=(8,), latent=2, patch=4)
    fitted(patches, run=tmp_path / "patches", tensorboard=tmp_path)
    assert "loss/valid" in read(tmp_path / "patches").Tags()["scalars"]
    assert not list((tmp_path / "patches").rglob("*.tsv"))


def test_tall_images_and_many_of_them_make_a_square_sprite(tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.reports.tensorboard.EMBEDDED", 10)
    tall = np.random.default_rng(0).integers(0, 256, (240, 3, 200, 20)).astype(np.uint8)
    fitted(data=(tall, None), run=tmp_path / "tall", tensorboard=tmp_path)
    (sprite,) = (tmp_path / "tall").rglob("sprite.png")
    with Image.open(sprite) as picture:
        assert picture.size == (3 * 48, 3 * 48)  # every third of 24
    found = decoded(read(tmp_path / "tall").Images("reconstructions")[0])
    assert found.height == 2 * 128


def test_a_fit_killed_between_checkpoint_and_log_leaves_no_gap(tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)
    model = ModelSpec(kind="conv", width=2, latent=3, dropout=0.2, pseudo_classes=0)
    settings = {"model": model, "run": tmp_path / "run", "tensorboard": tmp_path / "logs"}
    write = tensorboard_log._log_epoch

    def killed(writer, graph, images, row):
        if row["epoch"] == 3:
            raise SystemError("killed")
        write(writer, graph, images, row)

    with monkeypatch.context() as patch, pytest.raises(SystemError):
        patch.setattr(tensorboard_log, "_log_epoch", killed)
        fitted(**settings)
    resumed = fitted(**settings, resume=True).graph.state_dict()
    found = read(tmp_path / "logs" / "run")
    assert [event.step for event in found.Scalars("loss/valid")] == [1, 2, 3, 4]
    assert [event.step for event in found.Images("samples")] == [1, 2, 3, 4]
    unbroken = fitted(model).graph.state_dict()
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


@pytest.mark.parametrize("part", ["_log_epoch", "_log_latents"])
def test_a_full_disk_ends_the_log_and_not_the_fit(tmp_path, monkeypatch, part):
    calls = []

    def full(*_):
        calls.append(part)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensorboard_log, part, full)
    images, labels = bars()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", vaeguard.TrainingWarning)
        vaeguard.fit(images, NAMES[labels], model=SMALL, training=QUICK, run=tmp_path / "run", tensorboard=tmp_path)
    assert len(calls) == sum("No space left" in str(each.message) for each in caught) == 1
    assert vaeguard.load(tmp_path / "run", "cpu").info.record.epoch == 4


def test_whatever_goes_wrong_with_the_latents_the_fit_is_written(tmp_path, monkeypatch):
    def wrong(*_):
        raise ValueError("no sprite")

    monkeypatch.setattr(tensorboard_log, "_log_latents", wrong)
    with pytest.raises(ValueError, match="no sprite"):
        fitted(run=tmp_path / "run", tensorboard=tmp_path)
    vaeguard.load(tmp_path / "run", "cpu")


def test_pictures_become_seldom_and_are_of_some_classes(tmp_path, monkeypatch):
    for name, value in {"EVERY": 1, "SELDOM": 3, "CLASSES": 2}.items():
        monkeypatch.setattr(tensorboard_log, name, value)
    model = ModelSpec(kind="mlp", hidden=(16,), latent=4, pseudo_classes=0, prior="per-class")
    fitted(model, run=tmp_path / "run", tensorboard=tmp_path)
    found = read(tmp_path / "run")
    assert len(found.Scalars("loss/valid")) == 4
    tags = found.Tags()["images"]
    assert len([tag for tag in tags if tag.startswith("samples/")]) == 2
    for tag in tags:
        assert [event.step for event in found.Images(tag)] == [1, 3]


def test_another_fit_does_not_write_into_the_same_log(logged, tmp_path):
    with pytest.raises(UsageError, match="log of a different fit"):
        fitted(run=tmp_path / "run", tensorboard=logged[2].parent, progress=lambda *_: pytest.fail("it trained"))


def test_a_log_that_cannot_be_written_is_noticed_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VaeguardError, match="cannot write to"):
        fitted(run=tmp_path / "run", tensorboard=tmp_path / "file", progress=lambda *_: pytest.fail("it trained"))


def test_a_missing_library_is_said_with_its_install_command_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'vaeguard\[tensorboard\]'"):
        fitted(tensorboard=tmp_path / "logs", progress=lambda *_: pytest.fail("it trained"))
    assert not (tmp_path / "logs").exists()


def test_the_command_logs_and_prints_json_alone(tmp_path):
    done = run(
        tmp_path,
        "fit",
        "--epochs",
        "2",
        "--set",
        "model.pseudo_classes=0",
        "-o",
        "one",
        "--set",
        "run.tensorboard=logs",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "one"
    assert "tensorboard --logdir logs" in done.stderr
    assert [event.step for event in read(tmp_path / "logs" / "one").Scalars("loss/valid")] == [1, 2]

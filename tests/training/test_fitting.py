import csv
import json
import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from toy import bars

import vaeguard
from vaeguard import ModelSpec, TrainingWarning, TrainSpec, UsageError, VaeguardError
from vaeguard.data.split import split_normal, spread_out
from vaeguard.engines.run_folder import calibration_images
from vaeguard.models.likelihoods import ContinuousBernoulli
from vaeguard.models.objective import objective
from vaeguard.training import examples, plan
from vaeguard.training.plan import plan_fit
from vaeguard.training.vae_task import epochs_for

QUICK = TrainSpec(epochs=6, batch_size=32)
SMALL = ModelSpec(kind="mlp", hidden=(32,), latent=4)

pytestmark = pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")


def weights(detector):
    return {name: value.clone() for name, value in detector.graph.state_dict().items()}


def assert_same_bits(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"guided": False}, {"prior": "per-class"}, {"autoencoder": True}, {"likelihood": "gaussian-pixel"}],
)
def test_anomalies_score_higher_than_normal_images(kind, settings):
    images, labels = bars(300)
    model = ModelSpec(**{"kind": kind, "hidden": (32,), "latent": 4, "width": 4} | settings)
    training = TrainSpec(epochs=30, batch_size=32)
    detector = vaeguard.fit(images, labels, normal_classes="0,1", model=model, training=training)
    fresh, fresh_labels = bars(120, seed=5)
    score = detector.inspect(fresh).score
    assert np.median(score[fresh_labels == 2]) > np.quantile(score[fresh_labels != 2], 0.9)


@pytest.mark.nightly
@pytest.mark.parametrize("labelled", [True, False])
def test_score_rises_with_corruption(labelled):
    images, labels = bars(300)
    training = TrainSpec(epochs=30, batch_size=32)
    detector = vaeguard.fit(images, labels if labelled else None, model=SMALL, training=training)
    fresh = bars(60, seed=7)[0].astype(float)
    noise = np.random.default_rng(0).normal(size=fresh.shape)
    medians = [
        np.median(detector.inspect(np.clip(fresh + sigma * noise, 0, 255).astype(np.uint8)).score)
        for sigma in (0, 25, 60, 120)
    ]
    assert medians == sorted(medians)
    assert medians[-1] > medians[0] + 1


def test_same_seed_gives_the_same_bits_and_another_seed_does_not():
    images, labels = bars()
    one, two = (vaeguard.fit(images, labels, model=SMALL, training=QUICK) for _ in range(2))
    assert_same_bits(one, two)
    other = vaeguard.fit(images, labels, model=SMALL, training=TrainSpec(epochs=6, batch_size=32, seed=1))
    assert not torch.equal(one.graph.vae.posterior_mean.weight, other.graph.vae.posterior_mean.weight)


@pytest.mark.slow
@pytest.mark.parametrize("model", [SMALL, ModelSpec(kind="conv", width=2, latent=3, dropout=0.2)])
@pytest.mark.parametrize("error", [SystemError, pytest.param(KeyboardInterrupt, marks=pytest.mark.nightly)])
def test_a_killed_fit_resumes_to_the_same_bits(tmp_path, monkeypatch, model, error):
    images, labels = bars()
    training = TrainSpec(epochs=6, batch_size=32, augment_shift=1, input_noise=0.1)
    unbroken = vaeguard.fit(images, labels, model=model, training=training, run=tmp_path / "unbroken")
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(done, total, text):
        if done > total * 0.6:
            raise error("killed")

    with pytest.raises(error):
        vaeguard.fit(images, labels, model=model, training=training, run=tmp_path / "run", progress=kill)
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert (tmp_path / "run" / "history.csv").exists()
    with pytest.raises(UsageError, match="`resume`"):
        vaeguard.fit(images, labels, model=model, training=training, run=tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    resumed = vaeguard.fit(images, labels, model=model, training=training, run=tmp_path / "run", resume=True)
    assert_same_bits(unbroken, resumed)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_stopped_fit_can_be_finished_as_it_is(tmp_path, monkeypatch):
    (images, labels), run = bars(), tmp_path / "run"
    fit = partial(vaeguard.fit, images, labels, model=SMALL, training=QUICK, run=run)
    for wrong in ({}, {"resume": True}):
        with pytest.raises(UsageError, match="^`finish` "):
            fit(finish=True, **wrong)
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def interrupt(done, total, text):
        if text.startswith("epoch 3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(progress=interrupt)
    detector = fit(resume=True, finish=True)
    record = detector.info.record
    assert (record.finished_epochs, record.training.epochs) == (2, 6)
    assert len((run / "history.csv").read_text().splitlines()) == 1 + 2
    assert "stopped after 2 of 6 epochs" in " ".join(vaeguard.read_report(run)["advice"])
    np.testing.assert_array_equal(vaeguard.load(run).inspect(images).p_value, detector.inspect(images).p_value)
    assert not (run / "checkpoint.safetensors").exists()


def test_resume_refuses_other_settings(tmp_path, monkeypatch):
    images, labels = bars()
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(done, total, text):
        if done > total / 2:
            raise SystemError

    with pytest.raises(SystemError):
        vaeguard.fit(images, labels, model=SMALL, training=QUICK, run=tmp_path, progress=kill)
    with pytest.raises(UsageError, match=r"beta \(was 1.0, now 2.0\).*a different folder"):
        vaeguard.fit(images, labels, model=SMALL, training=TrainSpec(epochs=6, batch_size=32, beta=2.0), run=tmp_path,
                     resume=True)  # fmt: skip


def test_resume_refuses_other_clusters(tmp_path, monkeypatch):
    """As another machine may find them, with the same settings and data."""
    images, labels = bars()
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)
    model = ModelSpec(kind="mlp", hidden=(8,), latent=2, pseudo_classes=10)

    def kill(done, total, text):
        if done > total / 2:
            raise SystemError

    with pytest.raises(SystemError):
        vaeguard.fit(images, labels, model=model, training=QUICK, run=tmp_path, progress=kill)
    found = examples.pseudo_labels
    monkeypatch.setattr(examples, "pseudo_labels", lambda *given: tuple(9 - some for some in found(*given)))
    with pytest.raises(UsageError, match=r"pseudo_labels .* differ"):
        vaeguard.fit(images, labels, model=model, training=QUICK, run=tmp_path, resume=True)


def test_divergence_stops_within_a_step_and_keeps_the_last_good_weights(tmp_path, monkeypatch):
    images, labels = bars()
    good = vaeguard.fit(images, labels, model=SMALL, training=TrainSpec(epochs=2, batch_size=32, schedule="constant"))
    steps = []

    def poisoned(found, spec, beta, pixels, weights):
        steps.append(torch.is_grad_enabled())
        loss = objective(found, spec, beta, pixels, weights)
        return loss * float("nan") if sum(steps) > 2 * 6 + 3 else loss

    monkeypatch.setattr("vaeguard.training.vae_task.objective", poisoned)
    training = TrainSpec(epochs=20, batch_size=32, schedule="constant")
    with pytest.raises(
        VaeguardError, match=r"diverged in epoch 3, step 4 .*`training.learning_rate` to.*epoch 2 were calibrated"
    ):
        vaeguard.fit(images, labels, model=SMALL, training=training, run=tmp_path)
    kept = vaeguard.load(tmp_path)
    fresh = bars(30, seed=3)[0]
    np.testing.assert_array_equal(kept.inspect(fresh).score, good.inspect(fresh).score)


def test_divergence_from_the_start_keeps_nothing_and_says_what_to_try(tmp_path):
    images, labels = bars()
    training = TrainSpec(epochs=20, batch_size=32, learning_rate=1e12)
    with pytest.raises(VaeguardError, match=r"diverged.*`training.learning_rate`"):
        vaeguard.fit(images, labels, model=ModelSpec(kind="conv", width=2, likelihood="gaussian"), training=training)


def test_a_fit_that_is_killed_while_it_writes_goes_on(tmp_path, monkeypatch):
    def killed(folder, *_, **__):
        (folder / "history.csv").write_text("epoch\n")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vaeguard.workflows.fit.write_run", killed)
        with pytest.raises(KeyboardInterrupt):
            vaeguard.fit(*bars(), model=SMALL, training=QUICK, run=tmp_path)
    found = vaeguard.fit(*bars(), model=SMALL, training=QUICK, run=tmp_path, resume=True)
    assert (tmp_path / "report.json").exists()
    assert not list(tmp_path.glob("checkpoint.*"))
    fresh = bars(30, seed=3)[0]
    whole = vaeguard.fit(*bars(), model=SMALL, training=QUICK)
    np.testing.assert_array_equal(found.inspect(fresh).score, whole.inspect(fresh).score)


def test_a_finished_run_is_never_overwritten(tmp_path):
    images, labels = bars()
    vaeguard.fit(images, labels, model=SMALL, training=QUICK, run=tmp_path)
    for resume in (False, True):
        with pytest.raises(UsageError, match="finished model"):
            vaeguard.fit(images, labels, model=SMALL, training=QUICK, run=tmp_path, resume=resume)


@pytest.mark.parametrize(("name", "wanted"), [("model", "ModelSpec"), ("training", "TrainSpec")])
def test_settings_that_are_no_spec_are_refused_before_any_work(name, wanted):
    with pytest.raises(UsageError, match=rf"^`{name}` is a dict; give a vaeguard\.{wanted}, or single settings"):
        vaeguard.fit(bars()[0], **{name: {"latent": 3}})


def test_a_setting_is_a_keyword_as_well_as_a_field():
    images, labels = bars()
    fields = vaeguard.fit(images, labels, model=replace(SMALL, latent=2), training=replace(QUICK, epochs=2))
    words = vaeguard.fit(images, labels, model=SMALL, training=QUICK, latent=2, epochs=2)
    assert words.info.record.model == fields.info.record.model
    assert words.info.record.training == fields.info.record.training
    for wrong, message in (({"epoch": 2}, "did you mean 'epochs'"), ({"epochs": "2"}, "^`epochs` is '2'")):
        with pytest.raises(UsageError, match=message):
            vaeguard.fit(images, labels, **wrong)


def test_heatmaps_of_normal_images_set_the_scale_of_all(tmp_path):
    images, labels = bars(600)
    spec = ModelSpec(kind="mlp", hidden=(16,), latent=3)
    detector = vaeguard.fit(images, labels, model=spec, training=TrainSpec(epochs=2), run=tmp_path / "run")
    scale = vaeguard.load(tmp_path / "run").info.heatmap_scale
    held_out = calibration_images(tmp_path / "run")
    assert scale == np.quantile(detector.inspect(held_out, pictures=True).heatmap, 0.999)
    rows = np.random.default_rng(0).normal(size=(100, 4))
    of_rows = vaeguard.fit(rows, model=spec, training=TrainSpec(epochs=1))
    assert "heatmap_scale" not in of_rows.info.record.to_dict()["calibration"]


def test_some_images_are_of_all_classes(tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.workflows.fit.STORED_IMAGES", 6)
    images, labels = bars(600)
    order = np.argsort(labels, kind="stable")  # as folders are read
    spec = ModelSpec(kind="mlp", hidden=(16,), latent=3)
    vaeguard.fit(images[order], labels[order], model=spec, training=TrainSpec(epochs=1), run=tmp_path / "run")
    kept = {image.tobytes() for image in calibration_images(tmp_path / "run")}
    assert len(kept) == 6
    assert {int(label) for image, label in zip(images, labels, strict=True) if image.tobytes() in kept} == set(labels)
    few = spread_out(9000, 256)
    assert np.bincount(few // 3000).tolist() == [86, 85, 85]
    assert spread_out(3, 256).tolist() == [0, 1, 2]
    assert spread_out(0, 256).tolist() == []


def test_labels_beside_an_image_set_are_refused():
    images, labels = bars(40)
    with pytest.raises(UsageError, match="an ImageSet has its own"):
        vaeguard.fit(vaeguard.from_array(images), labels)


def test_two_fits_do_not_write_one_run(tmp_path):
    images, labels = bars()

    def again(*_):
        with pytest.raises(VaeguardError, match="another fit is writing"):
            vaeguard.fit(images, labels, model=SMALL, training=QUICK, run=tmp_path, resume=True)

    vaeguard.fit(images, labels, model=SMALL, training=QUICK, run=tmp_path, progress=again)
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_noticed_before_the_work(tmp_path):
    images, labels = bars()
    (tmp_path / "file").write_text("")
    with pytest.raises(VaeguardError, match="cannot write .*file.*a different folder"):
        vaeguard.fit(images, labels, run=tmp_path / "file", progress=lambda *_: pytest.fail("it trained"))


@pytest.mark.parametrize("count", [20, 30, 50])
def test_few_images_are_enough_for_finite_ordered_scores(count):
    images, _ = bars(count)
    detector = vaeguard.fit(images, model=SMALL, training=QUICK)
    fresh = bars(50, seed=8)[0]
    score = detector.inspect(np.concatenate([fresh, 255 - fresh])).score
    assert np.isfinite(score).all()
    assert score.min() >= 0


def test_calibration_images_change_neither_weights_nor_the_order_of_images():
    images, labels = bars()
    split = split_normal(vaeguard.from_array(images, labels), (0, 1, 2), validation=0.1, calibration=0.1, seed=0)
    changed = images.copy()
    changed[split.calibration] = 255 - changed[split.calibration]
    one, two = (vaeguard.fit(some, labels, model=SMALL, training=QUICK) for some in (images, changed))
    a, b = weights(one), weights(two)
    differ = {name for name in a if not torch.equal(a[name], b[name])}
    assert "calibration.normal_scores" in differ
    assert all(name.startswith(("calibration.normal_scores", "calibration.score_tail")) for name in differ)


def test_the_callers_threads_and_random_numbers_are_left_alone():
    images, labels = bars()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    vaeguard.fit(images, labels, model=SMALL, training=TrainSpec(epochs=1, threads=1))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_patience_waits_for_the_warm_up_of_the_rate(tmp_path):
    images, labels = bars(60)
    training = TrainSpec(epochs=40, batch_size=32, patience=1, kl_warmup=15, learning_rate=3e-2)
    vaeguard.fit(images, labels, model=SMALL, training=training, run=tmp_path)
    with open(tmp_path / "history.csv") as file:
        betas = [float(row["beta"]) for row in csv.DictReader(file)]
    assert len(betas) > 15
    assert betas[:15] == sorted(betas[:15])
    assert betas[0] < 0.1
    assert betas[15:] == [1.0] * len(betas[15:])


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [True, False])
def test_both_precisions_learn(bf16):
    images, labels = bars(300)
    training = TrainSpec(batch_size=32, epochs=60, bf16=bf16)
    detector = vaeguard.fit(images, labels, normal_classes="0,1", model=SMALL, training=training)
    assert detector.info.record.best_epoch["valid_class_accuracy"] == 1
    assert detector.info.record.training.bf16 is bf16


@pytest.mark.filterwarnings("default::vaeguard.training.loop.TrainingWarning")
def test_posterior_collapse_is_said_with_advice():
    images, labels = bars()
    with pytest.warns(TrainingWarning, match=r"posterior collapse.*training.beta"):
        vaeguard.fit(images, labels, model=ModelSpec(kind="mlp", guided=False), training=TrainSpec(epochs=3, beta=1e4))


def test_early_stopping_keeps_the_best_weights(tmp_path):
    images, labels = bars(60)
    training = TrainSpec(epochs=300, batch_size=32, patience=5, learning_rate=3e-2, schedule="constant")
    vaeguard.fit(images, labels, model=SMALL, training=training, run=tmp_path)
    with open(tmp_path / "history.csv") as file:
        history = list(csv.DictReader(file))
    record = json.loads((tmp_path / "report.json").read_text())
    losses = [float(row["valid_loss"]) for row in history]
    assert len(history) < 300
    assert record["best_epoch"]["epoch"] == 1 + int(np.argmin(losses))
    assert len(history) == record["best_epoch"]["epoch"] + 5
    assert {"loss", "distortion", "rate", "active_units", "seconds"} <= set(history[0])


def test_split_is_stratified_disjoint_and_complete():
    labels = np.repeat([0, 1], [50, 100])
    image_set = vaeguard.from_array(np.zeros((150, 4, 4), np.uint8), labels)
    split = split_normal(image_set, (0, 1), validation=0.2, calibration=0.1, seed=0)
    assert sorted(np.concatenate([split.training, split.validation, split.calibration])) == list(range(150))
    assert (split.validation < 50).sum() == 10
    assert (split.calibration < 50).sum() == 5
    assert split.digest() != split_normal(image_set, (0, 1), validation=0.2, calibration=0.1, seed=1).digest()


def test_anomalous_images_are_never_looked_at():
    images, labels = bars()
    changed = images.copy()
    changed[labels == 2] = 255 - changed[labels == 2]
    one, two = (
        vaeguard.fit(some, labels, normal_classes="0,1", model=SMALL, training=QUICK) for some in (images, changed)
    )
    assert_same_bits(one, two)


def test_float_images_and_class_names_are_taken():
    images, labels = bars()
    names = np.array(["good", "ok", "bad"])[labels]
    one = vaeguard.fit(images, names, normal_classes="good,ok", model=SMALL, training=QUICK)
    two = vaeguard.fit(
        images.astype(np.float32) / 255, names, normal_classes=["good", "ok"], model=SMALL, training=QUICK
    )
    assert_same_bits(one, two)
    assert one.info.normal_classes == ("good", "ok")
    assert one.info.class_names == ("bad", "good", "ok")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normal_classes": "7"}, "0, 1, 2"),
        ({"images": np.zeros((5, 1, 8, 8), np.uint8), "labels": None}, "at least 20"),
        ({"images": np.zeros((40, 8), np.uint8), "labels": None}, "shape"),
        ({"images": np.full((40, 8, 8), 3.0), "labels": None}, "0 to 1"),
        ({"images": np.zeros((40, 8, 8), np.int32), "labels": None}, "int32"),
        ({"labels": [1, 2]}, "one label for each"),
        ({"labels": None, "normal_classes": "0"}, "no classes"),
    ],
)
def test_bad_arguments_are_one_clear_sentence(arguments, message):
    images, labels = bars()
    values = {"images": images, "labels": labels} | arguments
    with pytest.raises(VaeguardError, match=message):
        vaeguard.fit(values.pop("images"), values.pop("labels"), **values)


def test_epochs_follow_the_number_of_images():
    for images in (800, 5000, 16_000):
        assert epochs_for(TrainSpec(batch_size=128), images) * (images / 128) == pytest.approx(2000, rel=0.2)
    assert epochs_for(TrainSpec(batch_size=128), 25_000) == epochs_for(TrainSpec(batch_size=128), 48_600) == 15
    assert epochs_for(TrainSpec(batch_size=128), 100_000) * (100_000 / 128) == pytest.approx(6000, rel=0.2)
    assert epochs_for(TrainSpec(batch_size=128), 50) == 400
    assert epochs_for(TrainSpec(batch_size=128), 10**7) == 5
    assert epochs_for(TrainSpec(epochs=3, batch_size=128), 800) == 3


@pytest.mark.parametrize(
    ("model", "given", "used"),
    [
        ({}, None, 1.0),
        ({}, 0.0, 0.0),
        ({}, 0.5, 0.5),
        ({"pseudo_classes": 0}, None, 0.0),
        ({"pseudo_classes": 0}, 0.5, 0.5),
        ({"autoencoder": True}, None, 1.0),
    ],
)
def test_images_are_deformed_by_default_where_there_are_pseudo_classes(model, given, used):
    images, _ = bars(120)
    spec = replace(SMALL, **model)
    detector = vaeguard.fit(images, model=spec, training=TrainSpec(epochs=1, augment_warp=given))
    assert detector.info.record.training.augment_warp == used


def test_pseudo_classes_are_learnt(tmp_path):
    images, _ = bars(300)
    training = TrainSpec(epochs=30, batch_size=32, augment_warp=0.0)
    detector = vaeguard.fit(images, model=SMALL, training=training, run=tmp_path)
    with open(tmp_path / "history.csv") as file:
        history = [float(row["pseudo_loss"]) for row in csv.DictReader(file)]
    assert detector.info.record.model.pseudo_classes == 240 // 6
    assert history[0] == pytest.approx(np.log(40), rel=0.1)
    assert history[-1] < np.log(40) - 0.3


def test_pseudo_classes_come_from_the_training_images_only():
    images, _ = bars()
    split = split_normal(vaeguard.from_array(images), (), validation=0.1, calibration=0.1, seed=0)
    changed = images.copy()
    changed[split.validation] = 255 - changed[split.validation]
    training = TrainSpec(epochs=1, batch_size=32)
    one, two = (vaeguard.fit(some, model=SMALL, training=training) for some in (images, changed))
    a, b = weights(one), weights(two)
    assert all(torch.equal(a[name], b[name]) for name in a if not name.startswith("calibration."))


@pytest.mark.parametrize(("kept", "centres"), [(40, 13), (10_000, 26)])
def test_no_more_training_images_than_stated_are_compared_with(tmp_path, monkeypatch, kept, centres):
    images, _ = bars(100)
    monkeypatch.setattr("vaeguard.training.calibrating.IMAGES", kept)
    monkeypatch.setattr("vaeguard.models.reference.IMAGES", kept)
    detector = vaeguard.fit(images, model=SMALL, training=QUICK, run=tmp_path)
    reference = detector.graph.reference
    assert len(reference.latents.centres) == len(reference.features.centres) == centres
    assert reference.latents.centres.norm(dim=1).max() <= 1 + 1e-6  # means of points of unit length
    assert_same_bits(detector, vaeguard.load(tmp_path))


def test_run_folder_holds_model_history_and_report(tmp_path):
    images, labels = bars()
    vaeguard.fit(images, labels, model=SMALL, training=QUICK, run=tmp_path)
    names = {"model.safetensors", "history.csv", "report.json", "report.html", "reconstructions.png", "calibration.npz"}
    assert set(os.listdir(tmp_path)) == names


def table(n=240, seed=0):
    """Rows of 6 features in different units that lie near a plane, float64 (n, 6)."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(2, 6))
    rows = generator.normal(size=(n, 2)) @ mixing + 0.1 * generator.normal(size=(n, 6))
    return 10.0 ** np.arange(-3, 3) * (rows + np.arange(6))


def batch(rows):
    return vaeguard.from_array(rows).images


def test_vectors_far_from_the_normal_ones_score_above_all_of_these():
    detector = vaeguard.fit(table(), model=SMALL, training=TrainSpec(epochs=60, batch_size=32))
    centre, spread = table().mean(0), table().std(0)
    signs = np.random.default_rng(1).choice([-1, 1], (50, 6))
    far = np.concatenate([centre + 12 * spread * signs, centre + 1e30 * signs, centre + 1e30 * np.eye(6)])
    found = detector.inspect(batch(far))
    assert found.score.min() > detector.inspect(batch(table(seed=1))).score.max()
    assert all(np.isfinite(values).all() for values in (found.score, *found.terms.values()))
    assert found.p_value.max() == found.p_value.min()


def test_the_units_of_a_feature_change_no_bit_of_the_score():
    units = 2.0 ** np.array([0, 20, -20, 3, -1, 7])
    one, two = (vaeguard.fit(rows, model=SMALL, training=QUICK) for rows in (table(), table() * units))
    fresh = table(40, seed=2)
    a, b = (detector.inspect(batch(rows), pictures=True) for detector, rows in ((one, fresh), (two, fresh * units)))
    np.testing.assert_array_equal(a.score, b.score)
    np.testing.assert_array_equal(a.heatmap, b.heatmap)
    np.testing.assert_allclose(a.restored * units, b.restored, rtol=1e-5)


@pytest.mark.parametrize("whiten", [True, False])
def test_terms_of_vectors_are_in_scaled_units(whiten):
    detector = vaeguard.fit(table(), model=replace(SMALL, whiten=whiten), training=QUICK)
    rows = batch(table(50, seed=3))
    found = detector.inspect(rows, pictures=True)
    restored, seen = (detector.graph.whiten(torch.tensor(values)) for values in (found.restored, rows))
    squared = (seen - restored).square().numpy()
    np.testing.assert_allclose(found.heatmap, squared[:, 0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.terms["recon_error"], squared.mean((1, 2, 3)), rtol=1e-3)


def test_vectors_are_scaled_by_the_training_rows_only():
    image_set = vaeguard.from_array(table())
    split = split_normal(image_set, (), validation=0.1, calibration=0.1, seed=0)
    detector = vaeguard.fit(image_set, model=SMALL, training=QUICK)
    rows = image_set.images[split.training].astype(np.float64).reshape(len(split.training), -1)
    np.testing.assert_allclose(detector.graph.whiten.offset, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(detector.graph.whiten.scale, rows.std(0), rtol=1e-5)


def test_tables_with_more_columns_than_rows_are_whitened():
    rows = np.random.default_rng(0).normal(size=(110, 120))
    detectors = [vaeguard.fit(rows[:, :width], model=SMALL, training=QUICK) for width in (120, 60)]
    assert [detector.info.record.model.whiten for detector in detectors] == [True, False]


def test_a_killed_fit_on_vectors_resumes_and_loads_to_the_same_bits(tmp_path, monkeypatch):
    unbroken = vaeguard.fit(table(), model=SMALL, training=QUICK)
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(done, total, text):
        if done > total * 0.6:
            raise SystemError

    with pytest.raises(SystemError):
        vaeguard.fit(table(), model=SMALL, training=QUICK, run=tmp_path, progress=kill)
    with pytest.raises(UsageError, match="fingerprint"):
        vaeguard.fit(table(seed=1), model=SMALL, training=QUICK, run=tmp_path, resume=True)
    vaeguard.fit(table(), model=SMALL, training=QUICK, run=tmp_path, resume=True)
    loaded = vaeguard.load(tmp_path)
    assert_same_bits(unbroken, loaded)
    fresh = batch(table(40, seed=2))
    np.testing.assert_array_equal(unbroken.inspect(fresh).score, loaded.inspect(fresh).score)
    names = {"model.safetensors", "history.csv", "report.json", "report.html", "calibration.npz"}
    assert names == set(os.listdir(tmp_path))


def test_classes_of_vectors_guide_too():
    rows = np.concatenate([table(150), table(150, seed=1)[:, ::-1]])
    detector = vaeguard.fit(rows, np.repeat(["a", "b"], 150), model=SMALL, training=TrainSpec(epochs=40))
    assert detector.info.record.best_epoch["valid_class_accuracy"] > 0.8
    assert "class_energy" in detector.info.term_names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": ModelSpec(kind="conv")}, "`model.kind` is 'conv'.* set `model.kind` to 'mlp'"),
        ({"model": ModelSpec(likelihood="bernoulli")}, "`model.likelihood` is .* set `model.likelihood` to 'gaussian'"),
        (
            {"model": ModelSpec(likelihood="continuous-bernoulli")},
            "`model.likelihood` is .* set `model.likelihood` to 'gaussian'",
        ),
        ({"training": TrainSpec(binarise=True)}, "`training.binarise` .*`model.likelihood` of 'bernoulli'"),
        ({"training": TrainSpec(augment_shift=1)}, "`training.augment_shift` is for pixels"),
        ({"training": TrainSpec(augment_warp=0.5)}, "`training.augment_warp` is for pixels"),
        ({"training": TrainSpec(input_noise=0.1)}, "`training.input_noise` is for pixels"),
    ],
)
def test_what_is_for_images_only_is_refused_for_vectors(settings, message):
    with pytest.raises(UsageError, match=message):
        vaeguard.fit(table(), **settings)


@pytest.mark.parametrize("training", [TrainSpec(free_bits=0.1), TrainSpec(kl_warmup=2)])
def test_an_autoencoder_has_no_rate_to_spare(training):
    with pytest.raises(UsageError, match="an autoencoder has no KL divergence"):
        vaeguard.fit(bars(60)[0], model=replace(SMALL, autoencoder=True), training=training)


def test_binarised_pixels_are_black_or_white_and_drawn_anew(monkeypatch):
    seen = []

    def losses(vae, image, target, *others):
        assert torch.equal(image, target)
        seen.append(target)
        return objective_losses(vae, image, target, *others)

    objective_losses = vaeguard.training.vae_task.losses
    monkeypatch.setattr("vaeguard.training.vae_task.losses", losses)
    grey = np.full((40, 1, 8, 8), 51, np.uint8)
    vaeguard.fit(grey, model=SMALL, training=replace(QUICK, epochs=4, binarise=True))
    assert all(set(target.unique().tolist()) == {0.0, 1.0} for target in seen)
    assert torch.cat(seen).mean().item() == pytest.approx(51 / 255, abs=0.01)
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3]), "validation draws the same every epoch, so that epochs compare"


@pytest.mark.parametrize("model", [ModelSpec(likelihood="gaussian"), ModelSpec(patch=4)])
def test_binarised_pixels_are_for_the_bernoulli_likelihood(model):
    with pytest.raises(UsageError, match="`training.binarise`"):
        vaeguard.fit(bars(60)[0], model=model, training=replace(QUICK, binarise=True))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((2, 1, 1, 5), np.float32), r"\(N, 6\)"),
        (np.zeros((2, 1, 1, 6), np.uint8), "uint8; use floats"),
        (np.full((2, 1, 1, 6), np.nan), "NaN"),
        (np.full((2, 1, 1, 6), 1e300), "infinity"),
    ],
)
def test_a_model_of_vectors_refuses_other_arrays(vectors, message):
    detector = vaeguard.fit(table(40), model=SMALL, training=TrainSpec(epochs=1))
    with pytest.raises(UsageError, match=message):
        detector.inspect(vectors)


def test_cuda_without_a_device_fails_loudly():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    images, labels = bars()
    with pytest.raises(UsageError, match="`device` is 'cuda'"):
        vaeguard.fit(images, labels, training=TrainSpec(device="cuda"))


def test_the_continuous_bernoulli_begins_at_the_mean_image():
    images, _ = bars(60)
    training = replace(QUICK, epochs=1, learning_rate=1e-12, weight_decay=0.0)
    model = replace(SMALL, likelihood="continuous-bernoulli")
    bias = vaeguard.fit(images, model=model, training=training).graph.vae.decoder[-2].bias.detach()
    grey = ContinuousBernoulli(bias).mean.numpy().reshape(images.shape[1:])
    assert np.abs(grey - (images.mean(0) + 0.5) / 256).mean() < 0.02  # of the training images, here of all


def test_images_of_another_range_of_pixels_are_refused():
    images = vaeguard.from_array(np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    deep = replace(images, pixel_range=(0, 4095))
    assert plan_fit(deep, None, None, None, ModelSpec(), TrainSpec()).model.pixel_range == (0, 4095)
    with pytest.raises(
        UsageError, match=r"`model\.pixel_range` is \(0, 1023\), but the images were read with \(0, 4095\)"
    ):
        plan_fit(deep, None, None, None, ModelSpec(pixel_range=(0, 1023)), TrainSpec())


def test_a_network_is_read_for_the_tiles_that_it_will_take(monkeypatch):
    shapes = []
    read = plan.pretrained
    monkeypatch.setattr(plan, "pretrained", lambda name, shape, **how: shapes.append(shape) or read(name, shape, **how))
    images = np.zeros((20, 1, 100, 900), np.uint8)
    made = plan_fit(images, None, None, None, vaeguard.ModelSpec(), TrainSpec(device="cpu"))
    assert shapes == [made.model.graph_shape]
    assert made.model.graph_shape[2] < 900

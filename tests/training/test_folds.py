from dataclasses import replace

import numpy as np
import pytest
import torch

import vaeguard
from vaeguard import UsageError
from vaeguard.data.image_set import as_image_set
from vaeguard.data.split import split_for
from vaeguard.evaluation.evaluating import evaluate
from vaeguard.models.graph import InferenceGraph
from vaeguard.models.vae import VAE
from vaeguard.models.whiten import Whiten
from vaeguard.reports.kinds import verdict
from vaeguard.training import checkpoint
from vaeguard.training.fitting import fit_detector
from vaeguard.training.folds import FoldedTask, Heads
from vaeguard.training.loop import train
from vaeguard.training.plan import plan_fit
from vaeguard.training.vae_task import Examples

FEATURES = vaeguard.ModelSpec(features="efficientnet-lite0")
TRAINING = vaeguard.TrainSpec(epochs=2, batch_size=64, learning_rate=3e-3, device="cpu")


def split_of(count, groups=None, **settings):
    images = as_image_set(np.zeros((count, 1, 32, 32), np.uint8), None)
    return split_for(images, (), replace(FEATURES), replace(TRAINING, **settings), groups)


@pytest.mark.parametrize(
    ("count", "groups", "settings", "folds"),
    [
        (20, None, {}, 10),
        (50, None, {}, 5),
        (999, None, {}, 5),
        (1000, None, {}, 0),
        (60, np.arange(60) // 15, {}, 4),
        (60, None, {"folds": 3}, 3),
        (60, None, {"folds": 0}, 0),
    ],
)
def test_few_images_all_train_and_all_calibrate_in_folds_of_whole_groups(count, groups, settings, folds):
    split = split_of(count, groups, **settings)
    assert split.fold_count == folds
    if folds:
        assert all(
            part.tolist() == list(range(count)) for part in (split.training, split.validation, split.calibration)
        )
        sizes = np.bincount(split.folds)
        assert sizes.max() - sizes.min() <= (1 if groups is None else 0)
    if groups is not None:
        assert all(len(set(split.folds[groups == group])) == 1 for group in set(groups))


def test_more_images_than_are_needed_are_left_alone():
    split = split_of(12_000)
    parts = (split.training, split.validation, split.calibration)
    assert [len(part) for part in parts] == [1000, 1000, 1000]
    assert len(np.unique(np.concatenate(parts))) == 3000


def test_folds_are_for_features_only():
    images = as_image_set(np.zeros((30, 1, 8, 8), np.uint8), None)
    with pytest.raises(UsageError, match=r"`training\.folds` works only with a model of features"):
        split_for(images, (), vaeguard.ModelSpec(), vaeguard.TrainSpec(folds=5))
    with pytest.raises(UsageError, match="set it to 0, or to 2 or more"):
        vaeguard.TrainSpec(folds=1)


def test_what_judges_a_fold_has_learned_nothing_of_it():
    spec = FEATURES.resolved((1, 32, 32), (), images=9, feature_count=256)
    rng = np.random.default_rng(0)
    cells, folds = rng.normal(size=(300, 1, 1, 256)).astype(np.float32), np.repeat([0, 1, 2], 100)
    training = replace(TRAINING, threads=1, bf16=False, augment_warp=0.0, batch_size=300)

    def learned(cells, like=None):
        torch.manual_seed(0)
        heads = Heads(InferenceGraph(VAE(spec)), 3)
        examples = Examples(cells, folds, np.arange(300))
        task = FoldedTask(heads, training, examples, examples)
        for fold, head in heads if like else ():
            theirs = dict(like)[fold].whiten.state_dict()
            assert (fold == 1) == torch.allclose(head.whiten.matrix, theirs["matrix"], atol=1e-5)
            head.whiten.load_state_dict(theirs)  # training would amplify the rounding
        state = task.start()
        train(state, task)
        assert state.best_epoch == training.epochs - 1
        heads.load_state_dict(state.weights)
        return heads

    other = cells.copy()
    other[folds == 1] *= 3
    before = learned(cells)
    after = learned(other, before)
    whiten = Whiten(256)
    whiten.fit(torch.from_numpy(cells[folds != 1]).flatten(1))
    assert torch.allclose(before.of_folds[1].whiten.matrix, whiten.matrix, rtol=1e-3, atol=1e-4)
    for fold, head in after:
        theirs = dict(before)[fold].state_dict()
        assert all(torch.equal(theirs[name], value) for name, value in head.state_dict().items()) == (fold == 1)


def parts_of(count, seed):
    rng = np.random.default_rng(seed)
    plain = 120 + 10 * np.sin(np.arange(48) / 3) + rng.normal(0, 5, (count, 1, 1, 1))
    return (plain + rng.normal(0, 4, (count, 1, 48, 48))).clip(0, 255).astype(np.uint8)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
def test_a_fit_on_twenty_images_flags_resumes_to_the_same_bits_and_judges_its_images_as_new(tmp_path, monkeypatch):
    images, progress = parts_of(20, 0), []
    arguments = {"labels": ["good"] * 20, "model": FEATURES, "training": TRAINING}
    whole = vaeguard.fit(images, run=tmp_path / "whole", progress=lambda *done: progress.append(done), **arguments)
    record = whole.info.record
    assert (record.data.split.folds, record.training.folds, record.calibration.images) == (10, 10, 20)
    assert record.classes[0].flagged <= 0.05
    sentence = verdict(vaeguard.read_report(tmp_path / "whole")).sentence
    assert "fitted on all 20 normal images" in sentence
    assert "The lowest possible p-value is 0.048" in sentence
    shares = [done for done, _, _ in progress]
    assert shares == sorted(shares)
    assert shares[-1] == progress[-1][1]

    written = checkpoint.Checkpoint.write

    def killed(self, state):
        written(self, state)
        raise KeyboardInterrupt

    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(checkpoint.Checkpoint, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        vaeguard.fit(images, run=tmp_path / "killed", **arguments)
    monkeypatch.setattr(checkpoint.Checkpoint, "write", written)
    vaeguard.fit(images, run=tmp_path / "killed", resume=True, **arguments)
    for name in ("model.safetensors", "calibration.npz"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()

    bad = parts_of(6, 1)
    bad[:, :, 20:28, 20:28] = 20
    tested, labels = np.concatenate([images, bad]), ["good"] * 20 + ["bad"] * 6
    result = evaluate(vaeguard.load(tmp_path / "whole"), tested, ["good"], labels=labels)
    assert "and calibrate the score" in result.note
    assert not result.independent
    assert result.images == {"normal": 20, "anomalous": 6}
    assert result.false_alarm_rate.count == 1  # the strangest of twenty, at 5 %
    assert result.detection_rate.value == 1
    direct = whole.inspect(tested)
    assert np.array_equal(result.inspection.score[20:], direct.score[20:])
    assert result.inspection.terms["neg_elbo"][:20].mean() > direct.terms["neg_elbo"][:20].mean()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
def test_images_for_training_only_are_learned_and_judged_out_of_fold_but_rank_nothing():
    images, mask = parts_of(24, 0), np.arange(24) % 6 == 0
    images[mask] //= 2  # so strange that they would be among the ranks
    detector = fit_detector(plan_fit(images, None, None, None, FEATURES, TRAINING, training_only=mask)).detector
    split = detector.info.record.data.split
    assert (split.training, split.calibration, detector.info.record.calibration.images) == (24, 20, 20)
    judged = detector.info.out_of_fold
    assert judged.shape[0] == len(detector.info.fitted_on) == 24
    ranks = np.sort(judged[~mask, 1])
    assert np.allclose(ranks, np.sort(np.round(ranks * 20)) / 20)  # each among the 19 others
    assert max(detector.info.record.calibration.brightness) < 1.3 * min(detector.info.record.calibration.brightness)

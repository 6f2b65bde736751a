"""Unbalanced normal classes, drawn as they are or equally often."""

import io
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from toy import bars

import vaeguard
from vaeguard import ModelSpec, TrainSpec, UsageError
from vaeguard.data.split import split_normal
from vaeguard.reports.report_file import write_report
from vaeguard.reports.terminal import show_report
from vaeguard.training import vae_task
from vaeguard.training.balance import balanced_draws, balanced_weights
from vaeguard.training.class_table import class_table
from vaeguard.training.vae_task import Examples

SMALL = ModelSpec(kind="mlp", hidden=(32,), latent=4, pseudo_classes=0)
PLAIN = TrainSpec(epochs=25, batch_size=32, beta=0.1, learning_rate=3e-3, validation=0.3, device="cpu")
BALANCED = replace(PLAIN, balance=True)


def unbalanced(common=400, rare=20):
    """Bright bars at one of two columns, one of them seldom."""
    images, labels = bars(3 * common)
    rows = np.sort(np.concatenate([np.flatnonzero(labels == 0)[:common], np.flatnonzero(labels == 1)[:rare]]))
    return images[rows], np.array(["common", "rare"])[labels[rows]]


def fitted(training_spec, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vaeguard.TrainingWarning)
        return vaeguard.fit(*unbalanced(), model=SMALL, training=training_spec, **more)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    home = tmp_path_factory.mktemp("balance")
    fitted(PLAIN, run=home / "plain")
    fitted(BALANCED, run=home / "balanced")
    return home / "plain", home / "balanced"


def test_classes_are_drawn_alike_and_their_images_too():
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [20_000, 1000, 7])))
    draws = balanced_draws(labels, torch.Generator().manual_seed(0))
    assert len(draws) == len(labels)
    counts = torch.bincount(labels[draws], minlength=3)
    expected = len(labels) / 3
    assert (counts - expected).abs().max() < 4 * (expected * 2 / 3) ** 0.5
    of_each = torch.bincount(draws, minlength=len(labels))
    for number, size in enumerate((20_000, 1000, 7)):
        mean = expected / size
        found = of_each[labels == number].double()
        assert found.mean() == pytest.approx(mean, rel=0.05)
        assert found.var(correction=0) == pytest.approx(mean, rel=1 if size < 10 else 0.15)  # as of Poisson
    again = balanced_draws(labels, torch.Generator().manual_seed(0))
    assert torch.equal(draws, again)
    assert not torch.equal(draws, balanced_draws(labels, torch.Generator().manual_seed(1)))


def test_a_class_without_images_is_not_drawn():
    labels = torch.tensor([0] * 5 + [2] * 3)
    draws = balanced_draws(labels, torch.Generator().manual_seed(0))
    assert set(labels[draws].tolist()) == {0, 2}


@pytest.mark.parametrize("shares", [(0.4, 0.4), (0.5, 0.3), (0.3, 0.5)])
def test_every_class_is_in_every_part(shares):
    for small in range(3, 12):
        labels = np.repeat([0, 1], [40, small])
        images = vaeguard.ImageSet("x", np.zeros((len(labels), 1, 8, 8), np.uint8), labels, ("0", "1"), (), "")
        split = split_normal(images, (0, 1), validation=shares[0], calibration=shares[1], seed=0)
        for part in (split.training, split.validation, split.calibration):
            assert set(labels[part]) == {0, 1}


def test_an_epoch_has_as_many_draws_as_images_and_as_many_of_each_class(monkeypatch):
    seen = []

    def draw(labels, generator):
        draws = balanced_draws(labels, generator)
        seen.append(torch.bincount(labels[draws], minlength=2))
        return draws

    monkeypatch.setattr(vae_task, "balanced_draws", draw)
    record = fitted(BALANCED).info.record
    counts = torch.stack(seen)
    images = record.data.split.training
    assert (counts.sum(1) == images).all()
    total = images * len(counts)
    assert abs(int(counts[:, 1].sum()) - total / 2) < 4 * (total / 4) ** 0.5
    assert not torch.equal(counts[0], counts[1])


def test_the_rare_class_is_restored_better_and_the_report_says_so(runs):
    plain, balanced = ({row["name"]: row for row in vaeguard.read_report(run)["classes"]} for run in runs)
    # Most of it is the noise of the background, which nothing restores.
    assert balanced["rare"]["distortion"] < plain["rare"]["distortion"] - 1
    assert [plain[name]["training"] for name in ("common", "rare")] == [240, 12]
    assert [plain[name]["draws"] for name in ("common", "rare")] == [240, 12]
    assert [balanced[name]["draws"] for name in ("common", "rare")] == [126, 126]
    assert [any("training.balance" in each for each in vaeguard.read_report(run)["advice"]) for run in runs] == [
        True,
        False,
    ]


def test_the_table_of_classes_adds_up_to_the_whole(runs):
    for run in runs:
        report = vaeguard.read_report(run)
        table, split, best = report["classes"], report["data"]["split"], report["best_epoch"]
        for part in ("training", "validation", "calibration"):
            assert sum(row[part] for row in table) == split[part]
        for name in ("distortion", "rate", "class_accuracy"):
            # What chooses the epoch of a balanced fit weighs every class alike.
            weights = [1 if report["training"]["balance"] else row["validation"] for row in table]
            mean = np.average([row[name] for row in table], weights=weights)
            assert mean == pytest.approx(best[f"valid_{name}"], rel=1e-5)
        assert all(row["neg_elbo"] == pytest.approx(row["distortion"] + row["rate"]) for row in table)
        # Of the images that rank the score as many are flagged as the rate says, all classes together.
        assert sum(row["flagged"] * row["calibration"] for row in table) == pytest.approx(
            int(0.05 * (split["calibration"] + 1)), abs=1
        )
        assert table == vaeguard.load(run).info.record.to_dict()["classes"]


def test_weights_of_a_class_add_up_to_those_of_any_other():
    labels = torch.tensor([0, 3, 0, 0, 1, 3])  # none of class 2
    weights = balanced_weights(labels)
    assert [float(weights[labels == number].sum()) for number in (0, 1, 3)] == pytest.approx([2, 2, 2])


def test_page_and_terminal_show_the_classes(runs):
    page = (runs[1] / "report.html").read_text()
    assert "Each normal class" in page
    assert 'data-figure="classes.1.distortion"' in page
    for row in vaeguard.read_report(runs[1])["classes"]:
        counted = f"{round(row['flagged'] * row['calibration'])} of {row['calibration']}"
        assert f"({counted})" in page
        assert counted in text_of(runs[1])
    assert "rare (hardest to restore)" in text_of(runs[0])


def text_of(run):
    text = io.StringIO()
    show_report(vaeguard.read_report(run), Console(file=text, width=100))
    return text.getvalue()


def test_a_class_of_which_nothing_is_held_out_has_no_means(runs, tmp_path):
    labels = np.array([0, 0, 0, 1, 0, 0])
    parts = [Examples(np.zeros((6, 1, 2, 2), np.uint8), labels, np.array(rows)) for rows in ([0, 1, 3], [2])]
    losses = {"distortion": np.array([2.0]), "rate": np.array([1.0])}
    p_values = np.array([0.04, 0.5])
    names, rows = ("common", "rare"), np.array([4, 5])
    common, rare = class_table(names, labels, tuple(parts), losses, rows, p_values, balance=False)
    assert (common.neg_elbo, common.calibration, common.flagged) == (3, 2, 0.5)
    assert (rare.training, rare.validation, rare.calibration) == (1, 0, 0)
    assert {rare.distortion, rare.rate, rare.neg_elbo, rare.flagged} == {None}
    report = vaeguard.read_report(runs[0])
    report["classes"][1] |= vars(rare)
    page = write_report(tmp_path / "report.json", report).read_text()
    assert '<span class="figure" data-figure="classes.1.flagged">–</span></td>' in page
    assert "rare (hardest" not in text_of(tmp_path)


@pytest.mark.nightly
def test_a_killed_balanced_fit_resumes_to_the_same_bits(tmp_path, monkeypatch, runs):
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(done, total, text):
        if done > total * 0.6:
            raise SystemError("killed")

    with pytest.raises(SystemError):
        fitted(BALANCED, run=tmp_path, progress=kill)
    resumed = fitted(BALANCED, run=tmp_path, resume=True).graph.state_dict()
    unbroken = vaeguard.load(runs[1], "cpu").graph.state_dict()
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


def test_patches_and_vectors_are_drawn_alike_too():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [40, 10])
    patches = ModelSpec(kind="mlp", hidden=(8,), latent=2, patch=8)
    images = generator.integers(0, 256, (50, 1, 16, 16)).astype(np.uint8)
    quick = TrainSpec(epochs=1, balance=True, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vaeguard.TrainingWarning)
        detector = vaeguard.fit(images, labels, model=patches, training=quick)
        table = detector.info.record.classes
        assert [row.training for row in table] == [32, 8]
        assert table[0].draws == table[1].draws > 1000
        rows = generator.normal(size=(50, 4))
        vectors = vaeguard.fit(rows, labels, model=ModelSpec(hidden=(8,), latent=2), training=quick)
    assert [row.draws for row in vectors.info.record.classes] == [20, 20]


def test_fewer_than_two_classes_cannot_be_balanced_and_unlabelled_fits_have_no_table(tmp_path):
    images, labels = unbalanced()
    for normal in (None, "rare"):
        with pytest.raises(UsageError, match="`training.balance` needs at least two labelled normal classes"):
            vaeguard.fit(images, None if normal is None else labels, normal_classes=normal, training=BALANCED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vaeguard.TrainingWarning)
        vaeguard.fit(images, model=SMALL, training=replace(PLAIN, epochs=1), run=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["classes"] == []
    assert "Each normal class" not in (tmp_path / "run" / "report.html").read_text()

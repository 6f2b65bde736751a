from __future__ import annotations

import json
import os
import shutil
import sys
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from toy import bars

import vaeguard
from vaeguard.reports.kinds import verdict
from vaeguard.settings.presets import PRESETS
from vaeguard.settings.specs import changed, from_dict
from vaeguard.statistics.metrics import roc_auc_by_image
from vaeguard.storage.tables import read_table
from vaeguard.training.loop import DivergedError
from vaeguard.tuning import plan as plan_module
from vaeguard.tuning import search
from vaeguard.tuning import search_space as search_space_module
from vaeguard.tuning import trials as tuning_trials
from vaeguard.tuning.plan import make_plan
from vaeguard.tuning.report import Outcome
from vaeguard.tuning.search_space import search_space
from vaeguard.tuning.study import JOURNAL_NAME, Trial, ask, finished, open_study, tell

pytestmark = pytest.mark.slow

MODEL = vaeguard.ModelSpec(hidden=(16,), latent=4, pseudo_classes=0)
TRAINING = vaeguard.TrainSpec(epochs=2)


def tune(images, labels=None, **options):
    return vaeguard.tune(images, labels, **{"model": MODEL, "training": TRAINING, "trials": 2, **options})


def results(found):
    return [(trial.settings, trial.objective, trial.roc_auc, trial.error) for trial in found.trials]


@pytest.fixture(autouse=True, scope="module")
def small():
    """Search small models only, which are fitted in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_space_module, "HIDDEN", ("8", "24", "16,8"))
        patch.setattr(search_space_module, "LATENT", (2, 8))
        yield


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search") / "tuning"
    return tune(*bars(), trials=4, folder=folder), folder


def space_of(model, training=TRAINING, shape=(1, 8, 8), epochs=40, **more):
    return search_space(model, training, model.resolved(shape, (), **more), epochs)


def test_shares_of_images_add_up_to_the_roc_auc():
    generator = np.random.default_rng(0)
    normal = generator.integers(0, 20, 60).astype(float)
    spoilt = normal + generator.integers(-3, 9, 60)
    truth = np.repeat([0, 1], 60)
    shares = roc_auc_by_image(normal, spoilt)
    assert shares.mean() == pytest.approx(roc_auc_score(truth, np.concatenate([normal, spoilt])))
    assert (roc_auc_by_image(normal, normal + 100) == 1).all()


def test_their_variance_is_that_of_the_roc_auc_over_samples():
    generator = np.random.default_rng(0)
    areas, variances = [], []
    for _ in range(400):
        normal = generator.normal(size=80)
        shares = roc_auc_by_image(normal, normal + generator.normal(0.7, 0.8, 80))
        areas.append(shares.mean())
        variances.append(shares.var(ddof=1) / 80)
    assert np.mean(variances) == pytest.approx(np.var(areas), rel=0.2)


def test_only_what_the_model_has_is_searched():
    spec = vaeguard.ModelSpec
    assert list(space_of(spec()).ranges) == ["latent", "hidden", "likelihood", "beta", "kl_warmup", "learning_rate"]
    assert "width" in space_of(spec(), shape=(3, 32, 32)).ranges
    assert "hidden" not in space_of(spec(), shape=(3, 32, 32)).ranges
    assert not {"beta", "kl_warmup"} & set(space_of(spec(autoencoder=True)).ranges)
    assert "beta" not in space_of(spec(), vaeguard.TrainSpec(beta=0)).ranges
    for model, shape, more in ((spec(), (1, 1, 9), {"vectors": True}), (spec(patch=4), (1, 16, 16), {})):
        choices = space_of(model, shape=shape, **more).ranges["likelihood"].choices
        assert all(name.startswith("gaussian") for name in choices)
    binary = space_of(spec(), vaeguard.TrainSpec(binarise=True))
    assert "likelihood" not in binary.ranges
    assert space_of(spec()).ranges["kl_warmup"].high == 10


@pytest.mark.parametrize("name", PRESETS)
def test_every_start_is_within_the_ranges_and_stays_as_it_is(name):
    chosen = vaeguard.preset(name)
    resolved = chosen.model.resolved((1, 32, 32), ("a", "b"))
    space = search_space(chosen.model, chosen.training, resolved, 20)
    for setting, value in space.base.items():
        each = space.ranges[setting]
        assert each._contains(each.to_internal_repr(value)), setting
    assert space.specs(space.settings(space.base)) == (chosen.model, chosen.training)


def test_whole_numbers_serve_where_a_fraction_is_meant():
    space = space_of(MODEL, from_dict(vaeguard.TrainSpec, {"beta": 2, "learning_rate": 1}))
    assert (space.ranges["beta"].low, space.ranges["beta"].high) == (0.1, 10)
    assert (space.ranges["learning_rate"].low, space.ranges["learning_rate"].high) == (1e-4, 1)


def test_settings_become_specs():
    space = space_of(MODEL)
    settings = space.settings({**space.base, "hidden": "400,200", "beta": 1.23456, "likelihood": "gaussian"})
    model, training = space.specs(settings)
    assert (model.hidden, model.likelihood, training.beta) == ((400, 200), "gaussian", 1.23)
    assert (model.latent, training.learning_rate) == (MODEL.latent, TRAINING.learning_rate)


def test_the_first_trial_is_the_start_and_the_best_is_no_worse(searched):
    found, _ = searched
    first = found.trials[0]
    assert first.settings == {
        "latent": 4, "hidden": "16", "likelihood": "bernoulli", "beta": 1.0, "kl_warmup": 0, "learning_rate": 1e-3,
    }  # fmt: skip
    assert len(found.trials) == 4
    assert len({json.dumps(trial.settings) for trial in found.trials}) == 4
    assert found.best.objective == max(trial.objective for trial in found.trials)
    for trial in found.trials:
        assert trial.objective == pytest.approx(np.mean(list(trial.roc_auc.values())))
        assert set(trial.figures) == {"neg_elbo", "recon_error", "class_accuracy", "active_units", "best_epoch"}


def test_the_objective_is_not_saturated(searched):
    found, _ = searched
    assert all(0.3 < trial.objective < 0.97 for trial in found.trials)


def test_the_comparison_is_of_untouched_images(searched):
    found, _ = searched
    if found.comparison is None:
        assert found.best.number == 0
        return
    compared = found.comparison
    assert compared.low <= compared.difference <= compared.high
    assert compared.difference == pytest.approx(compared.best_objective - compared.start_objective)
    assert compared.images == 48


def test_files_hold_what_was_found(searched):
    found, folder = searched
    written = tomllib.loads((folder / "best.toml").read_text())
    assert from_dict(vaeguard.ModelSpec, written["model"]) == found.model
    assert from_dict(vaeguard.TrainSpec, written["training"]) == found.training
    table = read_table(folder / "trials.csv")
    assert table["objective"].tolist() == [trial.objective for trial in found.trials]
    assert [str(value) for value in table["hidden"]] == [trial.settings["hidden"] for trial in found.trials]
    assert vaeguard.read_report(folder)["trials"][2]["objective"] == found.trials[2].objective
    assert not list(folder.glob("*.pkl"))


def test_images_of_other_classes_are_not_looked_at():
    images, labels = bars()
    ruined = np.where((labels == 2)[:, None, None, None], 255 - images, images)
    one, other = (tune(each, labels, normal_classes=["0", "1"]) for each in (images, ruined))
    assert results(one) == results(other)
    assert one.comparison == other.comparison
    assert one.report["normal_classes"] == ["0", "1"]


def test_images_of_the_comparison_touch_no_trial():
    images, labels = bars()
    image_set = vaeguard.from_array(images, labels)
    plan = make_plan(image_set, None, None, MODEL, TRAINING)
    parts = (plan.fitted, plan.judging, plan.compared)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(images)))
    ruined = images.copy()
    ruined[plan.compared] = 255 - ruined[plan.compared]
    assert results(tune(images, labels)) == results(tune(ruined, labels))


def test_a_search_goes_on_as_if_it_had_not_stopped(searched, tmp_path):
    whole, _ = searched
    folder = tmp_path / "tuning"
    tune(*bars(), trials=2, folder=folder)
    assert results(tune(*bars(), trials=4, folder=folder)) == results(whole)


def test_a_kill_in_the_middle_of_a_line_costs_no_finished_trial(searched, tmp_path):
    whole, done = searched
    folder = tmp_path / "tuning"
    folder.mkdir()
    lines = (done / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if b'"found"' in line]
    # Killed in the first trial, while the third was being started, and between the lines that end the second.
    cuts = (lines[: ends[0]], [*lines[: ends[1] + 2], lines[ends[1] + 2][:40]], lines[: ends[1] + 1])
    for cut in map(b"".join, cuts):
        (folder / JOURNAL_NAME).write_bytes(cut)
        os.symlink(JOURNAL_NAME, folder / f"{JOURNAL_NAME}.lock")
        assert results(tune(*bars(), trials=3, folder=folder)) == results(whole)[:3]


def test_the_comparison_is_made_once(tmp_path, monkeypatch):
    folder = tmp_path / "tuning"
    calls = []
    monkeypatch.setattr(tuning_trials, "fit", lambda *args, **more: calls.append(1) or vaeguard.fit(*args, **more))
    first = tune(*bars(), trials=3, folder=folder)
    made = len(calls)
    assert made == (3 if first.comparison is None else 9)
    again = tune(*bars(), trials=3, folder=folder)
    assert len(calls) == made
    assert again.comparison == first.comparison


@pytest.fixture
def quick(monkeypatch):
    """Trials that are not fitted, each better than the one before; the names of the settings that comparisons fit."""

    def measured(plan, settings, number, progress):
        return Trial(number, settings, 0.6 + number / 100, dict.fromkeys(plan.kinds, 0.6 + number / 100))

    def shares(plan, settings, seed, progress):
        return np.random.default_rng(seed).uniform(size=(len(plan.kinds), len(plan.compared)))

    monkeypatch.setattr(search, "measured", measured)
    monkeypatch.setattr(tuning_trials, "_shares", shares)


def test_comparisons_on_the_same_images_are_counted(quick, tmp_path):
    folder = tmp_path / "tuning"
    counts, notes = [], []
    for trials in (1, 3, 3, 5):
        found = tune(*bars(), trials=trials, folder=folder)
        counts.append(found.report["comparisons"])
        notes.append([note for note in verdict(found.report).notes if "on the same images" in note])
    assert counts == [0, 1, 1, 2]
    assert [len(each) for each in notes] == [0, 0, 0, 1]
    assert "comparison 2" in notes[-1][0]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), vaeguard.VaeguardError("lost")])
def test_a_comparison_that_fails_is_made_again(quick, tmp_path, monkeypatch, error):
    folder = tmp_path / "tuning"

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(tuning_trials, "_shares", fail)
        failed = tune(*bars(), trials=3, folder=folder)
    assert failed.comparison is None
    said = verdict(failed.report)
    assert "not compared" in said.headline
    assert (str(error) or "out of memory") in said.sentence
    assert tune(*bars(), trials=3, folder=folder).comparison is not None


def test_what_was_found_is_written_before_the_comparison(quick, tmp_path, monkeypatch):
    folder = tmp_path / "tuning"

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning_trials, "_shares", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tune(*bars(), trials=3, folder=folder)
    report = vaeguard.read_report(folder)
    assert (report["best"], report["comparison"]) == (2, None)
    assert "interrupted before" in verdict(report).sentence
    assert tomllib.loads((folder / "best.toml").read_text()).keys() == {"model", "training"}
    assert len(read_table(folder / "trials.csv")["trial"]) == 3


def test_another_search_is_refused(searched, tmp_path):
    _, folder = searched
    images, labels = bars()
    others = (
        ("a search that differs in data, normal classes or seed;", {"images": images[::-1].copy()}),
        ("a search that differs in data, normal classes or seed;", {"normal_classes": "0,1"}),
        (
            "a search that differs in model settings;",
            {"model": vaeguard.ModelSpec(hidden=(16,), latent=5, pseudo_classes=0)},
        ),
        ("a search that differs in training settings;", {"training": vaeguard.TrainSpec(epochs=3)}),
    )
    before = (folder / JOURNAL_NAME).read_bytes()
    for message, change in others:
        with pytest.raises(vaeguard.UsageError, match=message):
            tune(**{"images": images, "labels": labels, "folder": folder, **change})
    assert (folder / JOURNAL_NAME).read_bytes() == before


def test_a_search_goes_on_elsewhere(searched, tmp_path):
    found, done = searched
    folder = tmp_path / "tuning"
    shutil.copytree(done, folder)
    elsewhere = replace(TRAINING, device="cpu", threads=1)
    assert results(tune(*bars(), trials=4, folder=folder, training=elsewhere)) == results(found)
    assert not {"device", "threads"} & set(tomllib.loads((folder / "best.toml").read_text())["training"])


def test_a_damaged_journal_is_refused(searched, tmp_path):
    _, done = searched
    folder = tmp_path / "tuning"
    folder.mkdir()
    content = (done / JOURNAL_NAME).read_bytes()
    for damaged in (b"no journal\n" + content, content.replace(b'"op_code"', b'"op"', 3), b"[]\n" + content):
        (folder / JOURNAL_NAME).write_bytes(damaged)
        with pytest.raises(vaeguard.RefusedError, match="damaged"):
            tune(*bars(), folder=folder)


def test_two_at_once_and_other_reports_are_refused(searched):
    from filelock import FileLock

    _, folder = searched
    with FileLock(folder / ".study.lock"), pytest.raises(vaeguard.VaeguardError, match="another search is writing"):
        tune(*bars(), folder=folder)


def test_files_of_no_search_are_kept(tmp_path):
    (tmp_path / "best.toml").write_text("mine")
    with pytest.raises(vaeguard.UsageError, match=r"best\.toml' does not belong to a search and would be overwritten"):
        tune(*bars(), folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best.toml"]


def test_a_fit_that_fails_is_listed_and_the_search_goes_on(monkeypatch, tmp_path):
    def fit(*args, training, **more):
        if training.learning_rate != TRAINING.learning_rate:
            raise DivergedError("training diverged in epoch 1")
        return vaeguard.fit(*args, training=training, **more)

    monkeypatch.setattr(tuning_trials, "fit", fit)
    found = tune(*bars(), trials=3, folder=tmp_path / "tuning")
    assert [trial.error for trial in found.trials] == ["", *["training diverged in epoch 1"] * 2]
    assert found.best.number == 0
    assert found.comparison is None
    assert "2 of 3 trials failed" in verdict(found.report).notes[0]
    assert np.isnan(read_table(tmp_path / "tuning" / "trials.csv")["objective"].iloc[1])


def test_a_trial_that_kills_the_search_twice_has_failed(searched, tmp_path, monkeypatch):
    whole, _ = searched
    folder = tmp_path / "tuning"
    tune(*bars(), trials=1, folder=folder)

    def die(*_):
        raise SystemExit

    for _ in range(2):  # a killed process closes no trial
        with monkeypatch.context() as patch:
            patch.setattr(search, "measured", die)
            patch.setattr(search, "stop", lambda *_: None)
            with pytest.raises(SystemExit):
                tune(*bars(), trials=2, folder=folder)
    found = tune(*bars(), trials=2, folder=folder)
    assert found.trials[1].settings == whole.trials[1].settings
    assert found.trials[1].objective is None
    assert "killed 2 times" in found.trials[1].error
    again = tune(*bars(), trials=3, folder=folder)
    assert results(again)[:2] == results(found)
    assert again.trials[2].objective is not None


def test_interrupting_a_trial_says_nothing_against_it(searched, tmp_path, monkeypatch):
    whole, _ = searched
    folder = tmp_path / "tuning"
    tune(*bars(), trials=1, folder=folder)

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search, "measured", interrupt)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                tune(*bars(), trials=2, folder=folder)
    assert results(tune(*bars(), trials=2, folder=folder)) == results(whole)[:2]


def test_the_sampler_learns_of_failures():
    space = space_of(MODEL)
    with open_study(None, {}) as study:
        trial = ask(study, space, 0)
        tell(study, trial, Trial(0, space.settings(trial.params), None, error="out of memory"))
        assert [(each.state.name, each.value) for each in study.get_trials()] == [("COMPLETE", 0.5)]
        assert finished(study)[0].objective is None


def test_a_start_that_fails_ends_the_search():
    with pytest.raises(vaeguard.UsageError, match="`training.batch_size` is 1"):
        tune(*bars(60, size=16), model=vaeguard.ModelSpec(), training=vaeguard.TrainSpec(epochs=1, batch_size=1))
    with pytest.raises(vaeguard.UsageError, match="`trials` is 0; it must be at least 1"):
        tune(*bars(), trials=0)


def test_too_few_images_are_refused_before_anything_is_made(tmp_path):
    folder = tmp_path / "tuning"
    with pytest.raises(vaeguard.UsageError, match=r"'array' has 30 normal images, but a search.* at least 40"):
        tune(bars(30)[0], folder=folder)
    images, _ = bars(120)
    names = np.where(np.arange(120) < 4, "b", "a")
    with pytest.raises(
        vaeguard.UsageError, match="class 'b' .* has 4 images, but a search needs 5 of each normal class"
    ):
        tune(images, names, folder=folder)
    assert not folder.exists()


def test_what_is_enough_for_a_search_is_enough_for_its_fits():
    images, _ = bars(plan_module.LEAST_NORMAL)
    for size in range(plan_module.LEAST_PER_CLASS, plan_module.LEAST_NORMAL + 1):
        labels = np.arange(len(images)) // size
        if (np.bincount(labels) >= plan_module.LEAST_PER_CLASS).all():
            make_plan(vaeguard.from_array(images, labels), None, None, MODEL, TRAINING)


def test_the_warm_up_keeps_its_share_of_the_epochs(tmp_path):
    images, labels = bars(1800)
    training = vaeguard.TrainSpec(kl_warmup=2)
    plan = make_plan(vaeguard.from_array(images, labels), None, None, MODEL, training)
    assert plan.space.epochs == 333  # 864 images are 6 steps of an epoch
    assert plan.final_epochs == 182  # 1440 images are 11
    assert plan.space.ranges["kl_warmup"].high == 83
    chosen = {**plan.space.base, "kl_warmup": 60}
    assert plan.space.specs(chosen)[1].kl_warmup == 60
    model, best = plan.space.specs(chosen, plan.final_epochs)
    assert best.kl_warmup == 33
    assert plan.space.specs(plan.space.base, plan.final_epochs) == (replace(MODEL, features=""), training)
    trial = Trial(3, chosen, 0.8)
    settings = {"model": changed(model), "training": changed(best)}
    text = Outcome(plan, (trial,), settings, None).toml()
    assert "33 of 182" in text
    assert "60 of 333" in text
    assert tomllib.loads(text)["training"] == {"kl_warmup": 33}


def test_no_trial_begins_that_cannot_end_in_time(searched):
    found = tune(*bars(), trials=9, seconds=0.001)
    assert "a single trial is not a search" in verdict(found.report).notes[0]
    assert len(found.trials) == 1
    assert found.comparison is None
    trial = found.trials[0]
    assert search._in_time([trial], 10.0, 10.1 + trial.seconds)
    assert not search._in_time([trial], 10.0, 9.9 + trial.seconds)
    assert search._in_time([trial], 1e9, None)


def test_groups_stay_together():
    images, labels = bars()
    groups = np.arange(len(images)) // 6 * 3 + labels
    plan = make_plan(vaeguard.from_array(images, labels), groups, None, MODEL, TRAINING)
    parts = [set(groups[rows]) for rows in (plan.fitted, plan.judging, plan.compared)]
    assert sum(map(len, parts)) == len(set(groups))
    assert (plan.groups == groups[plan.fitted]).all()


def test_vectors_are_searched_as_well():
    generator = np.random.default_rng(0)
    table = generator.normal(size=(200, 3)) @ generator.normal(size=(3, 8)) + 0.1 * generator.normal(size=(200, 8))
    found = tune(table.astype(np.float32), trials=2)
    assert list(found.best.roc_auc) == ["swap"]
    assert found.best.objective > 0.6


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(vaeguard.VaeguardError, match=r"pip install 'vaeguard\[tune\]'"):
        tune(*bars())


@pytest.mark.parametrize(
    ("low", "high", "headline"), [(0.01, 0.03, "Better"), (-0.01, 0.03, "No clear difference"), (-0.03, -0.01, "Worse")]
)
def test_the_verdict_follows_the_interval(searched, low, high, headline):
    found, _ = searched
    sides = {"start": {}, "best": {}, "start_objective": 0.8, "best_objective": 0.8 + (low + high) / 2}
    compared = {**sides, "difference": (low + high) / 2, "low": low, "high": high, "images": 48, "fits": 3}
    said = verdict({**found.report, "comparison": compared})
    assert said.headline.startswith(headline)
    assert f"{low:+.3f} to {high:+.3f}" in said.sentence

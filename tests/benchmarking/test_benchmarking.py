"""Benchmarks: protocols, cells that are measured once, and reports whose numbers are those of NumPy."""

import itertools
import json
import shutil
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from toy import bars

import vaeguard
from vaeguard.benchmarking import baselines, methods, plan
from vaeguard.benchmarking.aggregate import alarms_of, means_of, rows_of
from vaeguard.benchmarking.cells import Cell, CellFile, Job
from vaeguard.benchmarking.protocols import BASELINES, BENCHMARKS, CELL_BASELINES
from vaeguard.benchmarking.published import Published, published
from vaeguard.benchmarking.running import LOCK_NAME
from vaeguard.benchmarking.tasks import ImageTask, limited_rows
from vaeguard.errors import UsageError, VaeguardError
from vaeguard.reports.kinds import verdict
from vaeguard.reports.report_file import remake_page
from vaeguard.statistics.false_alarms import expected_interval, from_count
from vaeguard.storage.files import locked

pytestmark = pytest.mark.slow

QUICK = {"model": vaeguard.ModelSpec(hidden=(8,), latent=2), "training": vaeguard.TrainSpec(epochs=1, threads=1)}
TIMES = ("seconds", "command")


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """An .npz of three classes of bars with a training and a test part."""
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    (x, y), (other_x, other_y) = bars(150), bars(90, seed=1)
    np.savez(path, x_train=x, y_train=y, x_test=other_x, y_test=other_y)
    return str(path)


@pytest.fixture(scope="module")
def spec(stripes):
    return vaeguard.BenchmarkSpec("one-class-out", data=stripes, seeds=2)


def quick_plan(spec):
    return plan.make_plan(spec, QUICK["model"], QUICK["training"])


def without_times(folder):
    content = json.loads((folder / "report.json").read_text())
    for environment in content["environments"]:
        environment.pop("date")
    return json.dumps({name: value for name, value in content.items() if name not in TIMES}, indent=2)


@pytest.mark.parametrize(("name", "out"), [("one-class-out", True), ("one-class", False)])
def test_each_class_takes_its_turn_and_training_sees_normal_classes_only(stripes, name, out):
    (x, y), (_, test_y) = bars(150), bars(90, seed=1)
    cases = BENCHMARKS[name].cases(vaeguard.BenchmarkSpec(name, data=stripes), stripes)
    assert [case.name for case in cases] == ["0", "1", "2"]
    for turn, case in enumerate(cases):
        task = case.task(0)
        normal = y != turn if out else y == turn
        np.testing.assert_array_equal(task.vectors()[0], x[normal].reshape(-1, 64).astype(np.float32) / 255)
        np.testing.assert_array_equal(task.anomalous, (test_y == turn) == out)


def test_the_seed_is_outermost_and_baselines_repeat_only_where_it_matters(spec):
    cells = [job.cell for job in quick_plan(spec).jobs]
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    methods = {method: {cell.seed for cell in cells if cell.method == method} for method in {c.method for c in cells}}
    assert set(methods) == {"guided", "unlabelled", "classifier", *BASELINES, "brightness"}
    assert {name for name, seeds in methods.items() if seeds == {0}} == {"pca", "knn", "brightness"}


@pytest.mark.nightly
def test_an_interrupted_run_goes_on_and_ends_with_the_same_report(spec, tmp_path, monkeypatch):
    spec = replace(spec, classes="0,2")
    whole = vaeguard.benchmark(spec, tmp_path / "whole", **QUICK)
    assert len(whole.cells) == len(whole.plan.jobs)
    assert not whole.failures
    assert len(whole.to_dict()["fits"]) == 2, "guided and unlabelled, the same settings whichever class is anomalous"
    calls, measure = itertools.count(), plan.measured

    def interrupted(*arguments):
        if next(calls) == 11:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(plan, "measured", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vaeguard.benchmark(spec, tmp_path / "parts", **QUICK)
    half = json.loads((tmp_path / "parts/report.json").read_text())["cells"]
    assert 0 < half["finished"] < half["planned"]
    kept = (tmp_path / "parts/cells.jsonl").read_text()
    assert kept.count("\n") == half["finished"]
    vaeguard.benchmark(spec, tmp_path / "parts", **QUICK)
    assert (tmp_path / "parts/cells.jsonl").read_text().startswith(kept)
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")
    # Nothing is left to do, also for a reader of another folder.
    monkeypatch.setattr(plan, "measured", None)
    vaeguard.benchmark(spec, tmp_path / "whole", **QUICK)


def test_a_failing_cell_is_listed_and_the_others_go_on(spec, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such luck")

    for name in ("guided", "unlabelled"):
        monkeypatch.setitem(methods.METHODS, name, replace(methods.METHODS[name], measure=fail))
    report = vaeguard.benchmark(replace(spec, seeds=1, classes="0"), tmp_path, **QUICK)
    assert len(report.failures) == 2
    assert "no such luck" in next(iter(report.failures.values()))
    assert len(report.cells) == len(report.plan.jobs) - 2
    assert "stripes, 0, guided, seed 0: RuntimeError: no such luck" in (tmp_path / "report.html").read_text()


def rare_class(folder, trained, tested):
    """Three classes of bars, of which the last has so many images in the two parts."""
    parts = {}
    for part, (images, labels), count in (("train", bars(150), trained), ("test", bars(90, seed=1), tested)):
        kept = (labels < 2) | (np.cumsum(labels == 2) <= count)
        parts |= {f"x_{part}": images[kept], f"y_{part}": labels[kept]}
    np.savez(folder / "rare.npz", **parts)
    return str(folder / "rare.npz")


def test_a_case_that_cannot_be_split_is_listed_and_the_others_go_on(tmp_path):
    spec = vaeguard.BenchmarkSpec("one-class", data=rare_class(tmp_path, 10, 30), seeds=1)
    report = vaeguard.benchmark(spec, tmp_path / "r", **QUICK)
    ((name, why),) = report.failures.items()
    assert name == "rare, 2, unlabelled, seed 0"
    assert "has 10 normal images; a fit needs at least 20" in why
    assert "add images" in why
    assert {cell["case"] for cell in report.cells if cell["method"] == "unlabelled"} == {"0", "1"}
    assert {cell["case"] for cell in report.cells if cell["method"] == "pca"} == {"0", "1", "2"}
    with pytest.raises(VaeguardError, match="at least 20"):
        next(job for job in report.plan.jobs if str(job.cell) == name).measure(print)


def test_a_case_without_test_images_is_listed_and_the_others_go_on(tmp_path):
    spec = vaeguard.BenchmarkSpec("one-class-out", data=rare_class(tmp_path, 50, 0), seeds=1, fits=("unlabelled",))
    report = vaeguard.benchmark(spec, tmp_path / "r", **QUICK)
    assert {cell["case"] for cell in report.cells} == {"0", "1"}
    assert {name.split(", ")[1] for name in report.failures} == {"2"}
    assert all("are normal" in why for why in report.failures.values())


def test_where_no_fit_is_possible_the_advice_can_be_followed():
    with pytest.raises(UsageError, match="raise `limit`") as caught:
        quick_plan(vaeguard.BenchmarkSpec("one-class-out", data="digits", limit=20))
    assert "normal_classes" not in str(caught.value).replace("-", "_")
    assert quick_plan(vaeguard.BenchmarkSpec("one-class-out", data="digits", limit=100)).jobs


def test_the_report_says_what_the_cells_say(spec, tmp_path):
    report = vaeguard.benchmark(replace(spec, baselines=False), tmp_path, **QUICK)
    content = json.loads((tmp_path / "report.json").read_text())
    guided = [cell for cell in report.cells if cell["method"] == "guided"]
    areas = np.array([[c["scores"]["score"]["roc_auc"] for c in guided if c["case"] == case] for case in "012"])
    rows = {(row["case"], row["method"], row["score"]): row["roc_auc"] for row in content["rows"]}
    for case, values in zip("012", areas, strict=True):
        assert rows[case, "guided", "score"]["mean"] == pytest.approx(values.mean(), abs=1e-12)
        assert rows[case, "guided", "score"]["std"] == pytest.approx(values.std(ddof=1), abs=1e-12)
    means = {(row["method"], row["score"]): row["roc_auc"] for row in content["means"]}
    assert means["guided", "score"]["mean"] == pytest.approx(areas.mean(), abs=1e-12)
    assert means["guided", "score"]["std"] == pytest.approx(areas.mean(0).std(ddof=1), abs=1e-12)
    best = next(row for row in content["best_terms"] if (row["method"], row["case"]) == ("guided", None))
    assert best["best"] == max(mean["mean"] for (m, s), mean in means.items() if m == "guided" and s != "score")
    assert best["difference"] == best["combined"] - best["best"]
    text = (tmp_path / "report.html").read_text()
    assert f"{areas.mean():.3f}</span><br><small>± {areas.mean(0).std(ddof=1):.4f}</small>" in text
    assert "Clopper-Pearson" in text


@pytest.mark.filterwarnings("ignore:posterior collapse")
def test_cells_measure_what_a_fit_and_an_evaluation_do(stripes, tmp_path):
    spec = vaeguard.BenchmarkSpec("one-class-out", data=stripes, classes="1", seeds=1, baselines=False)
    (cell,) = (c for c in vaeguard.benchmark(spec, tmp_path, **QUICK).cells if c["method"] == "unlabelled")
    train, test = (vaeguard.open_images(stripes, split=split) for split in ("train", "test"))
    model = replace(QUICK["model"], guided=False)
    detector = vaeguard.fit(train, normal_classes="0,2", model=model, training=QUICK["training"])
    evaluation = vaeguard.evaluate(detector, test, fpr=0.1)
    for row in evaluation.metrics:
        assert cell["scores"][row.name]["roc_auc"] == row.roc_auc
    assert cell["false_alarms"][2]["count"] == evaluation.false_alarm_rate.count
    assert cell["false_alarms"][2]["low"] == evaluation.false_alarm_rate.low
    assert cell["fit_split_sha256"] == detector.info.record.data.split.sha256 == cell["settings"]["fit_split"]
    assert cell["images"] == {"train": 100, "normal": 60, "anomalous": 30}


def test_another_report_is_not_overwritten(spec, stripes, tmp_path):
    vaeguard.benchmark(replace(spec, seeds=1, classes="0", baselines=False), tmp_path, **QUICK)
    with pytest.raises(UsageError, match="a different benchmark"):
        vaeguard.benchmark(vaeguard.BenchmarkSpec("one-class", data=stripes), tmp_path)


def job_of(settings, found=1):
    return Job(Cell("b", "d/../x", "c", "m", 0), settings, lambda _: {"found": found})


def test_a_cell_is_read_only_with_its_own_settings(tmp_path):
    assert CellFile(tmp_path).cells == {}
    cell = CellFile(tmp_path).measure(job_of({"epochs": 1}), print)
    kept = CellFile(tmp_path).cells
    assert kept == {job_of({"epochs": 1}).digest(): cell}
    assert job_of({"epochs": 2}).digest() not in kept


@given(st.integers(1, 400))
def test_a_file_of_cells_that_is_cut_off_keeps_its_whole_lines(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cells")
    first, second, third = (job_of({"epochs": epochs}) for epochs in (1, 2, 3))
    cells = [CellFile(folder).measure(job, print) for job in (first, second)]
    path = folder / "cells.jsonl"
    lines = path.read_bytes()
    path.write_bytes(lines[:-cut])
    whole = [
        cell for cell, end in zip(cells, (lines.index(b"\n"), len(lines) - 1), strict=True) if len(lines) - cut >= end
    ]
    assert list(CellFile(folder).cells.values()) == whole
    CellFile(folder).measure(third, print)
    assert [json.loads(line)["settings"] for line in path.read_text().splitlines()] == [
        *(cell["settings"] for cell in whole), third.settings
    ]  # fmt: skip


def test_where_a_fit_runs_does_not_make_another_cell(spec):
    digests = [
        [job.digest() for job in plan.make_plan(spec, QUICK["model"], training).jobs]
        for training in (QUICK["training"], replace(QUICK["training"], threads=2, device="cpu"))
    ]
    assert digests[0] == digests[1]
    longer = plan.make_plan(spec, QUICK["model"], replace(QUICK["training"], epochs=2)).jobs
    changed = [job.cell.method for job, digest in zip(longer, digests[0], strict=True) if job.digest() != digest]
    assert set(changed) == {"guided", "unlabelled", "classifier"}


def test_means_leave_out_seeds_that_are_not_complete():
    def cell(case, seed, area):
        scores = {"score": {"roc_auc": area, "average_precision": area}}
        return {"data": "d", "case": case, "method": "guided", "seed": seed, "scores": scores}

    cells = [cell("a", 0, 0.5), cell("b", 0, 0.7), cell("a", 1, 0.9)]
    (mean,) = means_of(cells, {"d": {"a", "b"}})
    assert means_of(cells, {"d": {"a", "b", "c"}}) == []  # no mean of other cases than those of the other methods
    assert mean.roc_auc.values == (0.6,)
    assert mean.roc_auc.std is None
    assert [row.roc_auc.values for row in rows_of(cells)] == [(0.5, 0.9), (0.7,)]
    assert alarms_of(cells) == []


@pytest.mark.parametrize(("calibration", "fpr"), [(19, 0.05), (540, 0.05), (540, 0.01)])
def test_the_expected_rate_is_that_of_split_conformal_prediction(calibration, fpr):
    generator = np.random.default_rng(0)
    held_out, fresh = generator.random((4000, calibration)), generator.random((4000, 200))
    # p-value = (1 + held-out images at least as strange) / (n + 1), as the calibration has it.
    stranger = np.stack([len(a) - np.searchsorted(np.sort(a), b) for a, b in zip(held_out, fresh, strict=True)])
    rates = ((1 + stranger) / (calibration + 1) <= fpr + 1e-9).mean(1)
    low, high = expected_interval(200, calibration, fpr)
    assert np.mean((low <= rates) & (rates <= high)) > 0.94
    assert low == pytest.approx(np.quantile(rates, 0.025), abs=0.006)
    assert high == pytest.approx(np.quantile(rates, 0.975), abs=0.006)


def test_a_rate_below_what_held_out_images_can_flag_expects_nothing():
    assert expected_interval(100, 18, 0.05) == (0.0, 0.0)
    assert expected_interval(100, 19, 0.05) > (0.0, 0.0)
    found = from_count(5, 100, 199, 0.05)
    assert found.stated_inside
    assert found.as_expected
    assert not from_count(50, 100, 199, 0.05).as_expected


def test_baselines_call_the_strange_strange_and_repeat_themselves():
    generator = np.random.default_rng(0)
    normal = generator.normal(size=(300, 10)).astype(np.float32) * ([3] * 5 + [0.1] * 5)
    strange = (normal[:50] + generator.normal(size=(50, 10)) * 3 + 4).astype(np.float32)
    test = np.concatenate([normal[250:], strange]).astype(np.float32)
    for name in (*BASELINES, "brightness"):
        fit = getattr(baselines, name)
        first, again = (fit(normal[:250].astype(np.float32), 3)(test) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        scores = first.mean(1) if first.ndim == 2 else first
        assert roc_auc_score(np.arange(100) >= 50, scores) > 0.9, name


def test_the_baselines_on_cells_point_at_the_strange_place():
    generator = np.random.default_rng(0)
    normal = generator.normal(size=(40, 6, 8)).astype(np.float16)
    strange = normal[:5].copy()
    strange[:, 2] += 6
    for name in CELL_BASELINES:
        fit = getattr(baselines, name)
        first, again = (fit(normal, 3)(strange) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert (first.argmax(1) == 2).all(), name


def test_padim_knows_places_and_the_others_do_not():
    cells = np.random.default_rng(0).normal(size=(60, 2, 4)).astype(np.float16) + np.float16([[[0], [9]]])
    swapped = cells[:10, ::-1]
    assert baselines.padim(cells, 0)(swapped).min() > 9 > np.median(baselines.gaussian(cells, 0)(swapped))
    # The bank has every cell, as there are fewer than it may hold.
    assert baselines.patchcore(cells, 0)(swapped).max() < 0.1


def test_the_pca_baseline_is_the_residual_of_a_projection():
    generator = np.random.default_rng(1)
    train, test = (generator.normal(size=(n, 6)).astype(np.float32) for n in (50, 7))
    mean = train.mean(0)
    axes = np.linalg.svd(train - mean, full_matrices=False)[2][:3]
    residual = (test - mean) - (test - mean) @ axes.T @ axes
    np.testing.assert_allclose(baselines.pca(train, 0)(test), np.square(residual), rtol=1e-3, atol=1e-6)


def test_limited_rows_keep_every_group():
    groups = np.repeat([0, 1, 2], [80, 15, 5])
    rows = limited_rows(groups, 20)
    assert np.bincount(groups[rows]).tolist() == [16, 3, 1]
    assert len(np.unique(rows)) == len(rows)
    assert limited_rows(groups, None).tolist() == list(range(100))


def test_a_task_needs_both_kinds_and_a_set_needs_a_test_part(stripes, tmp_path):
    images = vaeguard.open_images(stripes)
    with pytest.raises(UsageError, match="are normal"):
        ImageTask(images, None, images.images, np.zeros(len(images), bool))
    np.savez(tmp_path / "one.npz", images=bars()[0], labels=bars()[1])
    for data, fact in (("one.npz", "test part"), ("a,b", "one data set")):
        where = str(tmp_path / data) if "npz" in data else data
        with pytest.raises(UsageError, match=fact):
            quick_plan(vaeguard.BenchmarkSpec("one-class", data=where))
    with pytest.raises(UsageError, match="classes"):
        quick_plan(vaeguard.BenchmarkSpec("one-class", data=stripes, classes="7"))


@pytest.mark.parametrize(
    ("settings", "fact"),
    [
        ({"name": "mnist"}, "one-class-out"),
        ({"name": "one-class", "fits": ("guided",)}, "`fits`"),
        ({"name": "ood", "classes": "1"}, "`classes`"),
        ({"name": "ood", "size": (8, 8)}, "`size`"),
        ({"name": "ood", "seeds": 0}, "`seeds`"),
        ({"name": "ood", "limit": 1}, "`limit`"),
        ({"name": "defects", "size": (8,)}, "`size`"),
        ({"name": "defects", "size": (8, 0)}, "`size`"),
        ({"name": "ood", "fits": "guided"}, "`fits` is 'guided'; it must be of type tuple of str"),
        ({"name": "ood", "seeds": 1.5}, "`seeds` is 1.5; it must be of type int or None"),
        ({"name": "one-class", "classes": 9}, "`classes` is 9; it must be of type str or None"),
        ({"name": "ood", "baselines": "no"}, "`baselines` is 'no'; it must be of type bool"),
        ({"name": "ood", "data_dir": 3}, "`data_dir` is 3; it must be of type str or Path or None"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, fact):
    with pytest.raises(UsageError, match=fact):
        vaeguard.BenchmarkSpec(**settings)


def test_lists_and_numbers_of_numpy_become_plain_ones(tmp_path):
    found = vaeguard.BenchmarkSpec("defects", fits=["patches"], seeds=np.int64(2), size=[8, 8], data_dir=tmp_path)
    assert found == vaeguard.BenchmarkSpec("defects", fits=("patches",), seeds=2, size=(8, 8), data_dir=tmp_path)
    assert type(found.seeds) is int


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ({"data": "mnist"}, "one-class-out-mnist"),
        ({}, "one-class-out-mnist"),
        ({"classes": "9"}, "one-class-out-mnist-9"),
        ({"classes": "0-2"}, "one-class-out-mnist-0-2"),
        ({"classes": "0, 2"}, "one-class-out-mnist-0+2"),
        ({"fits": ("guided", "unlabelled")}, "one-class-out-mnist-guided+unlabelled"),
        ({"data": "a/b", "classes": "x/y", "fits": ("guided",), "limit": 5}, "one-class-out-a-b-x-y-guided-trial"),
        ({"data": "a" * 300, "classes": "9"}, f"one-class-out-{'a' * 86}-9"),
    ],
)
def test_other_classes_and_fits_have_another_folder_by_default(settings, folder):
    (command,) = entry_points(group="console_scripts", name="vaeguard")
    module = import_module(".benchmark", command.module.rpartition(".")[0])
    assert module._default_folder(vaeguard.BenchmarkSpec("one-class-out", **settings)) == folder


def method(part, name, mean, cells=(None, None)):
    return {"part": part, "name": name, "mean": mean and {"mean": mean, "std": None}, "cells": list(cells)}


def test_the_verdict_sets_each_fit_beside_methods_that_know_as_much():
    methods = [
        method("ours", "guided", 0.98),
        method("ours", "unlabelled", 0.9),
        method("simple", "classifier, max_logit", 0.97),
        method("simple", "knn", 0.8),
        method("published", "theirs", 0.7),
        method("published", "theirs (unverified)", 0.95),
    ]
    report = {"kind": "benchmark", "cells": {"finished": 6, "planned": 6}, "trial": False, "spec": {"limit": None},
              "rows": [], "means": []}  # fmt: skip
    found = verdict({**report, "comparison": [{"data": "d", "cases": ["0", "1"], "methods": methods}]}).sentence
    guided, unlabelled = found.split(" d, ")
    assert guided == "d, guided: ROC-AUC 0.980 (best other method on the same split 0.970, classifier, max_logit)."
    assert unlabelled == (
        "unlabelled: ROC-AUC 0.900 (best other method on the same split 0.800, knn; best published, by its own protocol"
        " 0.950, theirs (unverified))."
    )
    methods[0]["mean"] = methods[1]["mean"] = None
    found = verdict({**report, "comparison": [{"data": "d", "cases": ["0", "1"], "methods": methods}]}).sentence
    assert found == "d: none of our methods has been measured on every case yet."


def test_published_means_are_of_the_cases_that_are_measured(spec):
    row = Published("one-class-out", "stripes", "m", "p", "s", verified=True, mean=0.7, cases={"0": 0.5, "1": 0.9})

    def means(classes):
        chosen = replace(spec, classes=classes)
        cases = list(dict.fromkeys(job.cell.case for job in quick_plan(chosen).jobs))
        return [plan._over(each, cases, chosen).mean for each in (row, replace(row, cases={}))]

    assert means("0") == [0.5, None]
    assert means("0,1") == [0.7, None]
    assert means("0,1,2") == [None, None]
    assert means(None) == [None, 0.7]


def test_a_report_of_which_nothing_could_be_kept_is_not_replaced(spec, tmp_path, monkeypatch):
    few = replace(spec, seeds=1, classes="0", fits=("unlabelled",), baselines=False)
    vaeguard.benchmark(few, tmp_path, **QUICK)
    before = (tmp_path / "report.json").read_bytes()
    monkeypatch.setattr("vaeguard.benchmarking.cells.METHOD", 10**6)
    with pytest.raises(UsageError, match="contains 1 measurement.*choose a different `output`"):
        vaeguard.benchmark(few, tmp_path, **QUICK)
    assert (tmp_path / "report.json").read_bytes() == before


def test_a_report_is_extended_without_measuring_its_cells_again(spec, tmp_path):
    few = replace(spec, seeds=1, fits=("unlabelled",), classes="0", baselines=False)
    vaeguard.benchmark(few, tmp_path, **QUICK)
    older = json.loads((tmp_path / "report.json").read_text())
    del older["notes"]  # there were none at first
    (tmp_path / "report.json").write_text(json.dumps(older))
    remake_page(tmp_path)
    for more in ({"classes": "0,1"}, {"seeds": 2}, {"fits": ()}, {"baselines": True}):
        few = replace(few, **more)
        before = (tmp_path / "cells.jsonl").read_text()
        found = vaeguard.benchmark(few, tmp_path, **QUICK).to_dict()["cells"]
        assert found["finished"] == found["planned"] > before.count("\n")
        assert (tmp_path / "cells.jsonl").read_text().startswith(before)
    (tmp_path / "cells.jsonl").unlink()
    with pytest.raises(UsageError, match=r"cells\.jsonl is missing"):
        vaeguard.benchmark(few, tmp_path, **QUICK)


@pytest.fixture(scope="module")
def measured(spec, tmp_path_factory):
    """A finished report of two classes, two seeds, one fit, and the simple methods."""
    folder = tmp_path_factory.mktemp("measured")
    spec = replace(spec, classes="0,1", fits=("unlabelled",))
    vaeguard.benchmark(spec, folder, **QUICK)
    return spec, folder


@pytest.mark.parametrize(
    ("changes", "training", "words"),
    [
        ({"classes": "1"}, {}, "stripes, 0, .* is not among.*`classes`"),
        ({"classes": "1,2"}, {}, "stripes, 0, .* is not among.*`classes`"),
        ({"seeds": 1}, {}, "seed 1' is not among.*`seeds`"),
        ({"fits": ("guided",)}, {}, "unlabelled, seed 0' is not among.*`fits`"),
        ({"baselines": False}, {}, "is not among.*`baselines`"),
        ({"limit": 90}, {}, "different settings"),
        # The simple methods are the same, whatever the settings of a fit.
        (
            {},
            {"epochs": 2},
            "this run would remove 4 of them, because 'stripes, 0, unlabelled, seed 0' was measured with",
        ),
    ],
)
def test_no_cell_of_a_report_is_lost(measured, changes, training, words):
    spec, folder = measured
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    settings = {**QUICK, "training": replace(QUICK["training"], **training)}
    with pytest.raises(UsageError, match=rf"contains 18 measurements.*{words}") as caught:
        vaeguard.benchmark(replace(spec, **changes), folder, **settings)
    assert "choose a different `output`, or " in str(caught.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_cell_whose_line_is_damaged_is_measured_again(measured, tmp_path):
    spec, folder = measured
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy/cells.jsonl"
    first, *others = file.read_text().splitlines(keepends=True)
    file.write_text("".join([first[:-20] + "\n", *others]))
    assert len(vaeguard.benchmark(spec, tmp_path / "copy", **QUICK).cells) == 18
    *kept, again = file.read_text().splitlines(keepends=True)
    assert kept == others
    assert json.loads(again)["digest"] == json.loads(first)["digest"]


def test_two_processes_do_not_measure_into_one_folder(spec, tmp_path):
    with locked(tmp_path, LOCK_NAME, "busy"), pytest.raises(VaeguardError, match="another process is writing to"):
        vaeguard.benchmark(spec, tmp_path, **QUICK)


def test_published_numbers_are_whole():
    for name, data in (("one-class-out", "mnist"), ("one-class-out", "fashion-mnist"), ("one-class", "mnist")):
        rows = published(name, data)
        assert rows
        for row in rows:
            assert row.source
            assert row.protocol
            if len(row.cases) == 10:
                assert np.mean(list(row.cases.values())) == pytest.approx(row.mean, abs=0.002), row.method
    assert any(not row.verified for row in published("one-class-out", "mnist"))
    assert published("ood", "image sets")

"""Reports side by side, and methods side by side in a benchmark."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from vaeguard.benchmarking.aggregate import means_of, rows_of
from vaeguard.benchmarking.comparison import comparison_of
from vaeguard.benchmarking.published import Published
from vaeguard.errors import UsageError
from vaeguard.reports.comparison import compare_reports
from vaeguard.reports.kinds import verdict
from vaeguard.reports.report_file import heading, write_report
from vaeguard.reports.terminal import show_report
from vaeguard.statistics.metrics import Metrics, auc_difference, share_of
from vaeguard.storage.tables import write_table


def cell(case: str, method: str, area: float, half: float, seed: int = 0) -> dict:
    score = "score" if method == "guided" else method
    metrics = {"roc_auc": area, "roc_auc_low": area - half, "roc_auc_high": area + half, "average_precision": area}
    return {
        "data": "d",
        "case": case,
        "method": method,
        "seed": seed,
        "digest": "0123456789",
        "scores": {score: metrics},
    }


def table(cells: list[dict], published: tuple = ()) -> dict:
    rows = rows_of(cells)
    means = means_of(cells, {"d": {cell["case"] for cell in cells}})
    return comparison_of(rows, means, cells, published)[0]


def test_the_best_is_separated_only_beyond_the_intervals():
    cells = [cell("a", "guided", 0.9, 0.02), cell("a", "pca", 0.85, 0.02), cell("b", "guided", 0.9, 0.04),
             cell("b", "pca", 0.85, 0.02)]  # fmt: skip
    ours, pca = table(cells)["methods"]
    assert [entry["separated"] for entry in ours["cells"]] == [True, False]
    assert [entry["separated"] for entry in pca["cells"]] == [False, False]
    # Of the mean: half-widths 0.02 and 0.04 together are 0.0447 / 2, against 0.0283 / 2.
    assert ours["mean"]["high"] - ours["mean"]["mean"] == pytest.approx(np.hypot(0.02, 0.04) / 2)
    assert ours["mean"]["separated"]


def test_figures_of_pixels_are_not_compared_with_those_of_whole_images():
    cells = [cell("a", "guided", 0.9, 0.01), cell("a", "pca", 0.5, 0.01)]
    cells[1]["pixels"] = {"roc_auc": 0.7, "pro": 0.6}
    cells[0]["pixels"] = {"roc_auc": 0.6, "pro": 0.6}
    ours, pca = table(cells)["methods"]
    assert (ours["mean"] or ours["cells"][0])["separated"]
    assert pca["name"] == "pca"


def test_seeds_that_differ_widen_the_interval():
    areas = [0.80, 0.90, 0.85]
    cells = [cell("a", "guided", area, 0.001, seed) for seed, area in enumerate(areas)]
    cells += [cell("b", "guided", area, 0.001, seed) for seed, area in enumerate(areas)]
    (ours,) = table(cells)["methods"]
    half = 4.302653 * np.std(areas, ddof=1) / np.sqrt(3)  # Student's t for two degrees of freedom
    assert ours["mean"]["high"] - ours["mean"]["mean"] == pytest.approx(half, rel=1e-5)
    assert (ours["cells"][0]["low"], ours["cells"][0]["high"]) == pytest.approx((0.799, 0.901))
    assert ours["cells"][0]["values"] == tuple(areas)
    assert not ours["mean"]["separated"]  # there is nothing to be better than


def test_published_numbers_stand_beside_ours_but_are_never_compared():
    cells = [cell("a", "guided", 0.9, 0.01), cell("a", "pca", 0.8, 0.01)]
    other = Published("one-class", "d", "theirs", "their protocol", "a paper", False, None, {"a": 0.99})
    elsewhere = Published("one-class", "d", "nothing here", "p", "s", True, None, {"z": 0.5})
    methods = table(cells, (other, elsewhere))["methods"]
    assert [row["name"] for row in methods] == ["guided", "pca", "theirs (unverified)"]
    assert methods[0]["cells"][0]["separated"]
    assert methods[2]["cells"][0]["mean"] == 0.99
    assert methods[2]["protocol"] == "their protocol; a paper"


def evaluation(area: float, half: float, **fit) -> dict:
    rate = vars(share_of(5, 10))
    score = vars(Metrics("score", area, area - half, area + half, area, 0.1, 0.1))
    return {**heading("evaluation", "e"), "metrics": [score], "detection_rate": rate, "false_alarm_rate": rate,
            "fingerprint": str(area), "threshold": None, "classes": [],
            "pixels": None, "note": None, "independent": True, "histogram": {"edges": [0, 1], "counts": {}},
            "expected_false_alarms": None, "simple_measures": None,
            "curves": {"score": {"fpr": [0, 1], "tpr": [0, 1], "recall": [0, 1], "precision": [1, 1]}}, "data": "d",
            "fpr": 0.05, "normal_classes": ["a"], "fit": {"model": {"latent": 8, **fit}, "training": {}}}  # fmt: skip


@pytest.mark.parametrize(("half", "words"), [(0.01, "do not overlap"), (0.05, "may be chance")])
def test_evaluations_side_by_side(half, words, tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.reports.report_file.page", lambda _: "")
    for name, report in (("x", evaluation(0.9, half, latent=8)), ("y", evaluation(0.95, half, latent=16))):
        write_report(tmp_path / name / "report.json", report)
    found = compare_reports([tmp_path / "x", tmp_path / "y"])
    assert found["columns"][0] == "ROC-AUC"
    assert [run["values"][0] for run in found["runs"]] == [0.9, 0.95]
    assert found["differences"] == {"model: latent": [8, 16]}
    sentence = verdict(found).sentence
    assert "0.950, for" in sentence
    assert words in sentence


def test_evaluations_of_the_same_images_are_compared_image_by_image(tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.reports.report_file.page", lambda _: "")
    rng = np.random.default_rng(0)
    normal = np.arange(400) < 300
    hard = np.where(normal, 0.0, 2.0) + rng.standard_normal(400)
    scores = {"x": hard + 0.5 * rng.standard_normal(400), "y": hard + 0.05 * rng.standard_normal(400)}
    paths = [f"{number}.png" for number in range(400)]
    for name, values in scores.items():
        area = roc_auc_score(~normal, values)
        write_report(tmp_path / name / "report.json", {**evaluation(area, 0.05), "fingerprint": "f"})
        write_table(tmp_path / name / "scores.csv", {"path": paths, "score": values, "normal": normal})
    found = compare_reports([tmp_path / "x", tmp_path / "y"])
    pair = found["best_two"]
    assert (pair["best"], pair["second"], pair["images"]) == (1, 0, 400)
    assert pair["difference"] == pytest.approx(
        roc_auc_score(~normal, scores["y"]) - roc_auc_score(~normal, scores["x"])
    )
    assert 0 < pair["low"] < pair["difference"] < pair["high"]
    assert "on the same 400 images, the two ROC-AUCs differ by +0.0" in verdict(found).sentence
    assert "more than chance" in verdict(found).sentence
    assert verdict(compare_reports([tmp_path / "y", tmp_path / "y"])).sentence.endswith("which may be chance.")
    copied = {**evaluation(roc_auc_score(~normal, scores["y"]), 0.05), "fingerprint": "g"}
    write_report(tmp_path / "z" / "report.json", copied)
    (tmp_path / "z" / "scores.csv").write_bytes((tmp_path / "y" / "scores.csv").read_bytes())
    assert compare_reports([tmp_path / "x", tmp_path / "z"])["best_two"] is None, "images of other pixels"
    shuffled = {"path": paths, "score": scores["x"][::-1], "normal": normal}
    write_table(tmp_path / "x" / "scores.csv", shuffled)
    assert compare_reports([tmp_path / "x", tmp_path / "y"])["best_two"] is None, "scores of another evaluation"
    other = {"path": paths, "score": scores["x"], "normal": ~normal}
    write_table(tmp_path / "x" / "scores.csv", other)
    assert compare_reports([tmp_path / "x", tmp_path / "y"])["best_two"] is None
    (tmp_path / "x" / "scores.csv").unlink()
    assert compare_reports([tmp_path / "x", tmp_path / "y"])["best_two"] is None


@pytest.mark.parametrize("areas", [(0.98, 0.99), (0.5, 0.95), (0.95, 0.5)])
@pytest.mark.parametrize(("anomalies", "normals"), [(8, 100), (200, 200)])
def test_the_interval_of_a_difference_holds_it(anomalies, normals, areas):
    """Without images that only one of the two tells it holds it in 0.7 of the trials where images are few."""
    rng = np.random.default_rng(0)
    anomalous = np.arange(anomalies + normals) < anomalies
    held, trials, widths = 0, 300, []
    for _ in range(trials):
        common = rng.standard_normal(len(anomalous))
        first, second = (
            shift * anomalous + 0.9**0.5 * common + 0.1**0.5 * rng.standard_normal(len(anomalous))
            for shift in 2**0.5 * norm.ppf(areas)
        )
        difference, low, high = auc_difference(anomalous, first, second)
        assert auc_difference(anomalous, second, first) == pytest.approx((-difference, -high, -low))
        held += low <= areas[1] - areas[0] <= high
        widths.append(high - low)
    assert held >= 0.93 * trials
    assert anomalies < 200 or np.mean(widths) < 0.12, "an interval that holds everything tells nothing"
    assert auc_difference(np.arange(9) == 0, np.arange(9.0), -np.arange(9.0)) == (1.0, -1.0, 1.0)


@pytest.mark.parametrize("runs", [2, 3, 5, 9])
def test_a_terminal_shows_every_value_of_runs_side_by_side(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.reports.report_file.page", lambda _: "")
    paths = [tmp_path / f"runs-with-a-long-name/digits-conv-20261231-23595{number}" for number in range(runs)]
    for number, path in enumerate(paths):
        write_report(path / "report.json", evaluation(0.9 + number / 1000, 0.01, latent=number))
    found = compare_reports(paths)
    found["runs"][0]["values"][1] = 12345.678  # as seconds of a fit may be
    console = Console(width=80, file=io.StringIO())
    show_report(found, console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line or "..." in line for line in lines)
    for place, name in enumerate(found["columns"]):
        values = [value for line in lines if line.startswith(f"{name} ") for value in line[len(name) :].split()]
        assert values == [f"{run['values'][place]:.3f}" for run in found["runs"]]


def test_reports_of_different_kinds_do_not_stand_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr("vaeguard.reports.report_file.page", lambda _: "")
    write_report(tmp_path / "x" / "report.json", evaluation(0.9, 0.01))
    write_report(tmp_path / "y" / "report.json", heading("scores", "s"))
    with pytest.raises(UsageError, match="is a scores report; give reports of evaluations"):
        compare_reports([tmp_path / "x", tmp_path / "y"])
    with pytest.raises(UsageError, match="is a scores report"):
        compare_reports([tmp_path / "y", tmp_path / "y"])

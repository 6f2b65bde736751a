"""A fit with images that a person found to be normal."""

from __future__ import annotations

import csv
import json

import numpy as np
import onnx
import pytest
from toy import bars, onnx_network

import vaeguard
from vaeguard import UsageError
from vaeguard.data.image_set import digests_of, from_array
from vaeguard.data.split import split_normal
from vaeguard.storage.files import digest_of
from vaeguard.workflows import Reporter, refit_run


def test_images_for_training_only_neither_stop_a_training_nor_calibrate():
    images, labels = bars(120)
    mask = np.arange(120) % 5 == 0
    split = split_normal(
        from_array(images, labels), (0, 1), validation=0.2, calibration=0.2, seed=0, training_only=mask
    )
    assert not mask[np.concatenate([split.validation, split.calibration])].any()
    normal = np.flatnonzero(labels < 2)
    assert np.isin(normal[mask[normal]], split.training).all()
    assert sorted(np.concatenate([split.training, split.validation, split.calibration])) == normal.tolist()


def labelled(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "flagged", "audit", "batch", "class"], *rows])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
def test_a_model_that_was_fitted_with_groups_is_not_refitted_without_them(tmp_path):
    images, _ = bars(40)
    vaeguard.fit(images, groups=np.arange(40) // 2, run=tmp_path / "run", epochs=1, device="cpu")
    labelled(tmp_path / "labels.csv", [["a.png", "normal", 1, 0, 1, ""]])
    with pytest.raises(UsageError, match="give `groups` again"):
        vaeguard.refit(tmp_path / "run", tmp_path / "labels.csv", tmp_path)


@pytest.mark.slow
def test_a_refit_learns_from_confirmed_images_and_from_no_defect(bars_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, labels = bars()
    np.savez(tmp_path / "bars.npz", images=images, labels=labels)
    batch, _ = bars(8, seed=1)
    batch[7] = images[0]  # lies among the data, and is marked as a defect
    np.save(tmp_path / "batch.npy", batch)
    marks = [("normal", 1, 0), ("normal", 1, 0), ("normal", 0, 1), ("normal", 0, 1), ("defect", 1, 0), ("unsure", 1, 0)]
    rows = [[f"batch.npy/{at:05d}", *mark, 10 if mark[1] else 90, "01"[at % 2]] for at, mark in enumerate(marks)]
    labelled(
        tmp_path / "labels.csv",
        [*rows, ["batch.npy/00007", "defect", 1, 0, 10, ""], ["gone.png", "defect", 1, 0, 10, ""]],
    )
    said = []
    done = refit_run(str(bars_run), "labels.csv", "bars.npz", "new", Reporter(said.append))
    assert [path for path, _ in done.errors] == ["gone.png"]
    assert "Removed from the data: 1 image marked as a defect" in said
    info = done.result.info
    assert info.record.lineage.model == digest_of(bars_run / "model.safetensors")
    assert info.record.lineage.labels == digest_of(tmp_path / "labels.csv")
    split, before = info.record.data.split, vaeguard.load(bars_run, "cpu").info.record.data.split
    counts = split.training + split.validation + split.calibration
    assert counts == before.training + before.validation + before.calibration - 1 + 4
    learned = np.isin(digests_of(batch), info.fitted_on)
    assert learned[:2].all()
    assert not learned[4:].any()
    facts = json.loads((tmp_path / "new" / "report.json").read_text())["refit"]
    assert (facts["training_only"], facts["audited"], facts["defects"], facts["unsure"]) == (2, 2, 3, 1)
    assert facts["false_alarm_rate"]["value"] == pytest.approx(4 / 94)
    assert facts["caught"]["low"] < facts["caught"]["value"] == 1
    assert vaeguard.load("new", "cpu").info.record.of_fit == info.record
    # A refit of the refit has what was confirmed before, each image once, and takes the data from where they were.
    labelled(
        tmp_path / "more.csv",
        [["batch.npy/00000", "normal", 1, 0, 10, "0"], ["batch.npy/00001", "defect", 1, 0, 10, ""]],
    )
    again = refit_run("new", "more.csv", None, "newer", Reporter(said.append))
    assert again.report["source"] == str(tmp_path / "bars.npz")
    assert (again.report["refit"]["training_only"], again.report["refit"]["audited"]) == (1, 2)
    assert again.report["refit"]["false_alarm_rate"] is None


@pytest.mark.parametrize(
    ("rows", "data", "said"),
    [
        ([["x.npy/0", "normal", 1, 0, 1, ""]], None, "none of the images in `labels` can be read, such as 'x.npy/0'"),
        ([["batch.npy/00000", "normal", 1, 0, 1, ""]], None, "`data` is missing, and the run .* does not record where"),
        (
            [["batch.npy/00000", "normal", 1, 0, 1, "2"]],
            "bars.npz",
            "for 'batch.npy/00000', `labels` names none of the",
        ),
    ],
)
def test_what_a_refit_needs_and_nobody_says_is_asked_for(rows, data, said, bars_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, labels = bars()
    np.savez(tmp_path / "bars.npz", images=images, labels=labels)
    np.save(tmp_path / "batch.npy", bars(3, seed=1)[0])
    labelled(tmp_path / "labels.csv", rows)
    with pytest.raises(UsageError, match=said):
        vaeguard.refit(bars_run, "labels.csv", data, run="new")
    assert not (tmp_path / "new").exists()


def test_an_exported_model_is_not_fitted_again():
    with pytest.raises(UsageError, match="exported file, which cannot be fitted again"):
        vaeguard.refit("model.ONNX", "labels.csv")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
def test_a_refit_takes_the_network_from_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx_network(), "network.onnx")
    np.save("images.npy", np.random.default_rng(0).integers(0, 256, (20, 32, 32)).astype(np.uint8))
    parts = vaeguard.open_images("images.npy")
    old = vaeguard.fit(parts, features="network.onnx", epochs=1, device="cpu", run="old")
    (tmp_path / "network.onnx").unlink()
    labelled(tmp_path / "labels.csv", [["images.npy/00000", "unsure", 0, 1, 20, ""]])
    new = vaeguard.refit("old", "labels.csv", run="new")
    assert new.info.record.backbone == old.info.record.backbone
    assert new.inspect(parts.images).score == pytest.approx(old.inspect(parts.images).score, rel=1e-3, abs=1e-3)

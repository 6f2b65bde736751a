"""Images that appear in a watched folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_scoring import FakeDetector

from vaeguard import UsageError, watching
from vaeguard.scoring import score_files
from vaeguard.tables import read_table
from vaeguard.watching import watch_files


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.0)


def put(folder, name, age=10):
    """A file that has not changed for `age` seconds."""
    path = folder / name
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(path, "PNG")
    stamp = time.time() - age
    os.utime(path, (stamp, stamp))


def test_a_watch_scores_what_comes_once_and_in_the_order_in_which_it_came(tmp_path):
    folder, table = tmp_path / "in", tmp_path / "s.csv"
    folder.mkdir()
    said = []
    watch_files(FakeDetector(), [folder], table, rounds=1, report=said.append)
    assert not table.exists()
    put(folder, "b.png")
    put(folder, "fresh.png", age=0)
    watch_files(FakeDetector(), [folder], table, rounds=2, report=said.append)
    put(folder, "a.png")
    (folder / "bad.png").write_bytes(b"nothing")
    os.utime(folder / "bad.png", (1, 1))
    detector = FakeDetector()
    watch_files(detector, [folder], table, rounds=3, report=said.append)
    assert [path.rpartition("/")[2] for path in read_table(table)["path"]] == ["b.png", "a.png"]
    assert [summary.images for summary in said] == [1, 1]
    assert sum(detector.batches) == 1
    (error,) = read_table(f"{table}.errors.csv")["path"]
    assert error.endswith("bad.png")
    put(folder, "bad.png", age=20)
    watch_files(FakeDetector(), [folder], table, rounds=2, report=said.append)
    assert len(read_table(table)) == 3
    assert not (tmp_path / "s.csv.errors.csv").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"in", "s.csv", "s.csv.watch.json"}


def test_a_watch_of_another_models_table_is_refused(tmp_path):
    put(tmp_path, "a.png")
    watch_files(FakeDetector(), [tmp_path], tmp_path / "s.csv", rounds=1)
    for detector, options in ((FakeDetector(fingerprint="other"), {}), (FakeDetector(), {"fpr": 0.1})):
        with pytest.raises(UsageError, match="choose another table"):
            watch_files(detector, [tmp_path], tmp_path / "s.csv", rounds=1, **options)
    (tmp_path / "t.csv").write_text("path,score\na.png,1.0\n")
    with pytest.raises(UsageError, match="choose another table"):
        watch_files(FakeDetector(), [tmp_path], tmp_path / "t.csv", rounds=1)
    with pytest.raises(UsageError, match="is the table of a watch; go on with --watch"):
        score_files(FakeDetector(), [tmp_path / "a.png"], tmp_path / "s.csv")
    with pytest.raises(UsageError, match="--fpr"):
        watch_files(FakeDetector(), [tmp_path / "empty"], tmp_path / "u.csv", rounds=1, fpr=5)
    with pytest.raises(UsageError, match="lies among the images"):
        watch_files(FakeDetector(), [tmp_path], tmp_path / "u.csv", rounds=1, heatmaps=tmp_path / "seen")


def test_an_image_that_is_overwritten_is_scored_again(tmp_path):
    folder, table = tmp_path / "in", tmp_path / "s.csv"
    folder.mkdir()
    put(folder, "cam.png", age=60)
    put(folder, "other.png", age=60)

    def overwrite(summary):
        if summary.images == 2:
            put(folder, "cam.png", age=20)

    watch_files(FakeDetector(), [folder], table, rounds=3, report=overwrite)
    assert [Path(path).name for path in read_table(table)["path"]] == ["cam.png", "other.png", "cam.png"]
    watch_files(FakeDetector(), [folder], table, rounds=2)  # what lies there when it goes on was scored
    assert len(read_table(table)) == 3


def test_odd_names_and_containers_are_not_scored_again(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    put(folder, "x\udcff.png")
    np.save(folder / "a.npy", np.zeros((3, 8, 8), np.uint8))
    for _ in range(3):
        watch_files(FakeDetector(), [folder, folder / "a.npy"], tmp_path / "s.jsonl", rounds=1)
    assert len(read_table(tmp_path / "s.jsonl")) == 1

"""Images that appear in a watched folder."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_scoring import FakeDetector

from vaeguard import UsageError
from vaeguard.data import source
from vaeguard.evaluation import watching
from vaeguard.evaluation.scoring import score_files
from vaeguard.evaluation.watching import watch_files
from vaeguard.reports.heatmaps import HeatmapFolder
from vaeguard.storage.tables import read_table, write_table


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(watching, "SETTLED_SECONDS", 8.0)  # so that a fresh file stays fresh on a slow machine
    monkeypatch.setattr(watching, "DAMAGED_SECONDS", 3600.0)


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
        with pytest.raises(UsageError, match="choose a different table"):
            watch_files(detector, [tmp_path], tmp_path / "s.csv", rounds=1, **options)
    (tmp_path / "t.csv").write_text("path,score\na.png,1.0\n")
    with pytest.raises(UsageError, match="choose a different table"):
        watch_files(FakeDetector(), [tmp_path], tmp_path / "t.csv", rounds=1)
    with pytest.raises(UsageError, match="was written by `vaeguard watch`; continue that watch"):
        score_files(FakeDetector(), [tmp_path / "a.png"], tmp_path / "s.csv")
    with pytest.raises(UsageError, match="`fpr`"):
        watch_files(FakeDetector(), [tmp_path / "empty"], tmp_path / "u.csv", rounds=1, fpr=5)
    with pytest.raises(UsageError, match="where the images are"):
        watch_files(FakeDetector(), [tmp_path], tmp_path / "u.csv", rounds=1, heatmaps=HeatmapFolder(tmp_path / "seen"))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_whose_columns_somebody_changed_is_not_gone_on_with(tmp_path, suffix):
    table = tmp_path / f"s{suffix}"
    put(tmp_path, "a.png")
    watch_files(FakeDetector(), [tmp_path], table, rounds=1)
    own = {name: cells.tolist() for name, cells in read_table(table).items()}
    put(tmp_path, "b.png")
    for names in ((*own, "verdict"), reversed(own)):
        cells = {name: own.get(name, ["fine"]) for name in names}
        write_table(table, {name: each if isinstance(each[0], str) else np.array(each) for name, each in cells.items()})
        before = table.read_bytes()
        with pytest.raises(UsageError, match="the columns of .* have changed .*; choose a different table"):
            watch_files(FakeDetector(), [tmp_path], table, rounds=1)
        assert table.read_bytes() == before


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


def names(table):
    return [Path(path).name for path in read_table(table)["path"]]


def test_a_file_that_is_completed_while_others_are_scored_is_not_lost(tmp_path):
    folder, table = tmp_path / "in", tmp_path / "s.csv"
    folder.mkdir()
    (folder / "slow.png").write_bytes(b"half")
    os.utime(folder / "slow.png", (1, 1))
    put(folder, "a.png", age=60)

    class CompletesMeanwhile(FakeDetector):
        def inspect(self, images):
            if len(self.batches) == 1:  # of the second round
                put(folder, "slow.png", age=20)
            return super().inspect(images)

    def one_more(summary):
        if summary.images == 1 and not (folder / "b.png").exists():
            put(folder, "b.png", age=30)

    watch_files(CompletesMeanwhile(), [folder], table, rounds=4, report=one_more)
    assert names(table) == ["a.png", "b.png", "slow.png"]
    assert not Path(f"{table}.errors.csv").exists()


def test_an_image_that_is_overwritten_by_a_damaged_one_is_an_error_until_it_is_well(tmp_path):
    folder, table = tmp_path / "in", tmp_path / "s.csv"
    folder.mkdir()
    put(folder, "cam\udcff.png", age=60)

    def break_it(summary):
        (folder / "cam\udcff.png").write_bytes(b"nothing")
        os.utime(folder / "cam\udcff.png", (5, 5))

    watch_files(FakeDetector(), [folder], table, rounds=3, report=lambda summary: summary.images and break_it(summary))
    assert len(read_table(f"{table}.errors.csv")) == len(names(table)) == 1
    put(folder, "cam\udcff.png", age=30)
    watch_files(FakeDetector(), [folder], table, rounds=2)
    assert len(names(table)) == 2
    assert not Path(f"{table}.errors.csv").exists()


def test_a_file_of_the_future_is_scored_once_it_stays_as_it_is(tmp_path):
    folder, table = tmp_path / "in", tmp_path / "s.csv"
    folder.mkdir()
    put(folder, "a.png", age=-3600)
    watch_files(FakeDetector(), [folder], table, rounds=1)
    assert not table.exists()
    watch_files(FakeDetector(), [folder], table, rounds=3)
    assert names(table) == ["a.png"]


def test_a_round_is_no_longer_than_what_an_interruption_may_lose(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "SHARD_ROWS", 16)
    folder, table = tmp_path / "in", tmp_path / "s.csv"
    folder.mkdir()
    for number in range(20):
        put(folder, f"{number:02d}.png", age=60)
    watch_files(FakeDetector(), [folder], table, rounds=1)
    assert len(names(table)) == 16
    watch_files(FakeDetector(), [folder], table, rounds=1)
    assert names(table) == [f"{number:02d}.png" for number in range(20)]


def test_a_watch_that_scored_nothing_leaves_no_trace_for_batches(tmp_path):
    folder, table = tmp_path / "in", tmp_path / "s.csv"
    folder.mkdir()
    watch_files(FakeDetector(), [folder], table, rounds=1)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    put(folder, "a.png")
    watch_files(FakeDetector(), [folder], table, rounds=1)
    table.unlink()
    for _ in range(2):
        score_files(FakeDetector(), [folder], table)
    with pytest.raises(UsageError, match="was written by `vaeguard watch` with a different"):
        watch_files(FakeDetector(), [folder], table, rounds=1)


def test_odd_names_and_containers_are_not_scored_again(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    put(folder, "x\udcff.png")
    np.save(folder / "a.npy", np.zeros((3, 8, 8), np.uint8))
    for _ in range(3):
        watch_files(FakeDetector(), [folder, folder / "a.npy"], tmp_path / "s.jsonl", rounds=1)
    assert len(read_table(tmp_path / "s.jsonl")) == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_that_grows_slowly_is_listed_once(whole, tmp_path, monkeypatch):
    folder, table = tmp_path / "in", tmp_path / "s.csv"
    folder.mkdir()
    put(folder, "slow.png")
    content = (folder / "slow.png").read_bytes()
    (folder / "slow.png").unlink()
    sizes = [*range(10, len(content), 20), *([len(content)] * whole)]
    told = []

    def grow(seconds):
        assert not Path(f"{table}.errors.csv").exists()
        if sizes:
            (folder / "slow.png").write_bytes(content[: sizes.pop(0)])
            stamp = time.time() - 30 + len(content) / 1000 - len(sizes)
            os.utime(folder / "slow.png", (stamp, stamp))
        elif not whole:  # a minute later, in which nothing more came
            monkeypatch.setattr(time, "sleep", lambda _: None)
            monkeypatch.setattr(watching, "DAMAGED_SECONDS", 0.0)

    monkeypatch.setattr(time, "sleep", grow)
    watch_files(FakeDetector(), [folder], table, rounds=len(sizes) + 5, report=told.append)
    assert [(summary.images, len(summary.errors)) for summary in told] == [(1, 0) if whole else (0, 1)]
    assert Path(f"{table}.errors.csv").exists() != whole


def test_a_round_names_what_it_flags(tmp_path):
    folder, told = tmp_path / "in", []
    folder.mkdir()
    put(folder, "grey.png")
    Image.new("L", (8, 8), 255).save(folder / "white.png")
    os.utime(folder / "white.png", (1, 1))
    watch_files(FakeDetector(), [folder], tmp_path / "s.csv", rounds=2, report=told.append)
    assert [summary.flagged for summary in told] == [((str(folder / "white.png"), 0.0),)]


def draw_images(folder, count, level, first=0, side=8):
    """Images of about this grey level, in the order of their names."""
    draw = np.random.default_rng(first)
    for number in range(first, first + count):
        noise = draw.normal(level, level / 10) + draw.normal(0, 8, (side, side))
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04d}.png")
        os.utime(folder / f"{number:04d}.png", (1, 1))


class Calm(FakeDetector):
    """p-values that do not depend on what the images show."""

    def inspect(self, images, **options):
        sums = images.astype(np.int64).sum((1, 2, 3))
        return replace(super().inspect(images, **options), p_value=(sums * 7919 % 100 + 1).astype(np.float32) / 100)


def test_drift_is_told_once_with_its_cause_and_a_later_watch_goes_on(tmp_path):
    folder, table, told = tmp_path / "in", tmp_path / "s.csv", []
    folder.mkdir()
    watch = partial(watch_files, Calm(), [folder], table, rounds=1, report=told.append)
    draw_images(folder, 150, 150)
    watch()
    assert told.pop().drift == ()
    assert not Path(f"{table}.drift.jsonl").exists()
    draw_images(folder, 20, 75, 150)
    watch()
    drift = {item.what: item for item in told.pop().drift}
    assert drift["brightness"].since == pytest.approx(151, abs=3)
    assert "darker by " in str(drift["brightness"])
    assert drift["brightness"].after / drift["brightness"].before == pytest.approx(0.5, abs=0.15)
    lines = [json.loads(line) for line in Path(f"{table}.drift.jsonl").read_text().splitlines()]
    assert [line["what"] for line in lines] == [*drift]
    draw_images(folder, 20, 75, 170, side=16)
    watch()
    later = [item.what for item in told.pop().drift]
    assert "size" in later
    assert len(Path(f"{table}.drift.jsonl").read_text().splitlines()) == len(lines) + len(later)
    table.unlink()
    score_files(FakeDetector(), [folder], table)
    assert not Path(f"{table}.drift.jsonl").exists()


def test_the_drift_of_rows_that_a_killed_watch_left_is_made_up_for(tmp_path):
    folder, table = tmp_path / "in", tmp_path / "s.csv"
    folder.mkdir()
    draw_images(folder, 30, 100)
    watch_files(FakeDetector(), [folder], table, rounds=1)
    settings = Path(f"{table}.watch.json")
    before = settings.read_text()
    draw_images(folder, 30, 100, 30)
    watch_files(FakeDetector(), [folder], table, rounds=1)
    settings.write_text(before)  # killed before it could write these
    draw_images(folder, 1, 100, 60)
    watch_files(FakeDetector(), [folder], table, rounds=1)
    record = json.loads(settings.read_text())["monitor"]
    assert record["images"] == record["p_value"]["steps"] == len(read_table(table)) == 61
    assert record["brightness"]["steps"] == 31
    settings.write_text(json.dumps({**json.loads(before), "monitor": {}}))
    with pytest.raises(UsageError, match="is damaged, so this watch cannot be continued; choose a different table"):
        watch_files(FakeDetector(), [folder], table, rounds=1)
    with pytest.raises(UsageError, match="`drift_chance`"):
        watch_files(FakeDetector(), [folder], table, rounds=1, drift_chance=0)


def test_a_list_of_drift_that_belongs_to_no_watch_is_not_lost(tmp_path):
    Path(tmp_path / "s.csv.drift.jsonl").write_text("mine")
    with pytest.raises(UsageError, match="was not written by `vaeguard watch`"):
        watch_files(FakeDetector(), [tmp_path], tmp_path / "s.csv", rounds=1)

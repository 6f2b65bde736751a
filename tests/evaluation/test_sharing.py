"""Tables of scores whose parts several processes make."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_scoring import FakeDetector

import vaeguard
from vaeguard import UsageError, VaeguardError
from vaeguard.data import source
from vaeguard.evaluation.gathering import gather_scores
from vaeguard.evaluation.scoring import score_files
from vaeguard.evaluation.sharing import score_share
from vaeguard.storage.files import temporary_beside
from vaeguard.storage.plan import Share
from vaeguard.storage.store import job_folder


@pytest.fixture
def images(tmp_path, monkeypatch):
    """130 images in pieces of 16, of which two are broken."""
    monkeypatch.setattr(source, "SHARD_ROWS", 16)
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    draw = np.random.default_rng(0)
    for number in range(130):
        Image.fromarray(draw.integers(0, 255, (8, 8), np.uint8)).save(f"images/{number:03d}.png")
    for number in (3, 77):
        Path(f"images/{number:03d}.png").write_bytes(b"no image")
    return "images"


@pytest.fixture
def detector():
    return FakeDetector()


def shared(detector, images, output, numbers, of, **options):
    return [score_share(detector, [images], output, Share(number, of), **options) for number in numbers]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_the_joined_table_is_that_of_one_process(suffix, images, detector):
    whole, output = Path(f"whole.{suffix}"), Path(f"s.{suffix}")
    score_files(detector, images, whole)
    done = shared(detector, images, output, (3, 1, 2), 3)
    assert [summary.finished for summary in done] == [3, 6, 9]
    assert sum(summary.inputs for summary in done) == 130
    assert sorted(path for summary in done for path, _ in summary.errors) == ["images/003.png", "images/077.png"]
    assert shared(detector, images, output, (2,), 3)[0].resumed == 48
    place = job_folder(output) if suffix == "csv" else output
    gathered = gather_scores(place).summary
    assert (gathered.images, len(gathered.errors)) == (128, 2)
    assert output.read_bytes() == whole.read_bytes()
    assert Path(f"{output}.errors.csv").read_bytes() == Path(f"{whole}.errors.csv").read_bytes()
    assert not job_folder(output).exists()
    assert gather_scores(output).summary.images == 128  # a scheduler may start it again
    assert shared(detector, images, output, (2,), 3)[0].resumed == 48
    assert not job_folder(output).exists()


def test_a_table_that_was_joined_is_made_again_at_another_rate_only(images, detector):
    score_files(detector, images, "whole.csv", fpr=0.6)
    shared(detector, images, "s.csv", (1, 2), 2)
    shutil.copytree(job_folder("s.csv"), "kept")
    gather_scores("s.csv")
    shutil.move("kept", job_folder("s.csv"))
    next(job_folder("s.csv").glob("*.csv")).unlink()  # the gathering was killed while it removed the parts
    assert gather_scores("s.csv").summary.images == 128
    assert not job_folder("s.csv").exists()
    shared(detector, images, "s.csv", (1, 2), 2, fpr=0.6)
    assert gather_scores("s.csv").summary.fpr == 0.6
    assert Path("s.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_what_is_missing_is_named_and_the_plain_command_does_it(images, detector):
    score_files(detector, images, "whole.csv")
    shared(detector, images, "s.csv", (1,), 5)
    said = r"7 of 9 parts are missing: 'images/016.png' to 'images/031.png', .* and \d more"
    with pytest.raises(VaeguardError, match=said):
        gather_scores("s.csv")
    assert score_files(detector, images, "s.csv").resumed == 31
    assert Path("s.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not job_folder("s.csv").exists()
    with pytest.raises(UsageError, match="there are no parts to combine"):
        gather_scores("other.csv")


def test_a_share_of_other_images_or_of_another_rate_is_refused(images, detector):
    shared(detector, images, "s.csv", (1,), 2)
    with pytest.raises(UsageError, match=r"its false-alarm rate is '0\.05', but here it is '0\.2'"):
        shared(detector, images, "s.csv", (2,), 2, fpr=0.2)
    shutil.copy("images/000.png", "images/129.png")
    with pytest.raises(UsageError, match=r"inputs in 'images/128\.png' to 'images/129\.png' have changed"):
        shared(detector, images, "s.csv", (2,), 2)
    Path("images/129.png").unlink()
    with pytest.raises(UsageError, match="it has 130 inputs, but here there are 129"):
        shared(detector, images, "s.csv", (2,), 2)


def test_parts_that_are_not_of_the_plan_or_not_whole_do_not_count(images, detector):
    score_files(detector, images, "whole.csv")
    shared(detector, images, "s.csv", (1, 2), 2)
    parts = sorted(job_folder("s.csv").glob("*.csv"))
    shutil.copy(parts[0], job_folder("s.csv") / "stray.csv")
    shutil.copy(f"{parts[0].with_suffix('')}.json", job_folder("s.csv") / "stray.json")
    parts[1].write_bytes(parts[1].read_bytes()[:-9])
    with pytest.raises(VaeguardError, match="1 of 9 parts is missing"):
        gather_scores("s.csv")
    shared(detector, images, "s.csv", (1, 2), 2)
    gather_scores("s.csv")
    assert Path("s.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_large_table_becomes_a_folder_of_parts(suffix, images, detector):
    score_files(detector, images, "whole.parquet")
    shared(detector, images, f"s.{suffix}", (1, 2), 2)
    summary = gather_scores(f"s.{suffix}", "parts").summary
    assert (summary.images, summary.output) == (128, "parts")
    assert pq.read_table("parts").equals(pq.read_table("whole.parquet"))
    assert Path("parts.errors.csv").exists()
    assert not job_folder(f"s.{suffix}").exists()
    Path("parts/notes.txt").touch()
    shared(detector, images, f"s.{suffix}", (1, 2), 2)
    with pytest.raises(UsageError, match="'parts' contains other files"):
        gather_scores(f"s.{suffix}", "parts")


def test_the_parts_of_another_program_stay(images, detector):
    shared(detector, images, "s.csv", (1, 2), 2)
    Path("parts").mkdir()
    pq.write_table(pa.table({"mine": [1]}), "parts/part-000000.parquet")
    with pytest.raises(UsageError, match="'parts' contains other files"):
        gather_scores("s.csv", "parts")
    Path("parts/part-000000.parquet").unlink()
    temporary_beside(Path("parts/part-000000.parquet")).touch()  # a gathering was killed
    assert gather_scores("s.csv", "parts").summary.images == 128
    assert pq.read_table("parts").num_rows == 128


SHARE = """
import sys, time
import vaeguard
from vaeguard.data import source
from vaeguard.evaluation.sharing import score_share
from vaeguard.storage.plan import Share
source.SHARD_ROWS = 16
detector = vaeguard.load(sys.argv[1], "cpu", threads=1)
inspect = detector.inspect
detector.inspect = lambda *given, **named: (time.sleep(0.03), inspect(*given, **named))[1]
score_share(detector, ["images"], "s.csv", Share(int(sys.argv[2]), 2))
"""


@pytest.mark.slow
def test_shares_that_are_killed_lose_and_double_nothing(images, bars_onnx):
    score_files(vaeguard.load(bars_onnx, "cpu", threads=1), images, "whole.csv")
    draw = np.random.default_rng(0)
    ended, kills = set(), 0
    while len(ended) < 2:
        both = {
            number: subprocess.Popen([sys.executable, "-c", SHARE, str(bars_onnx), str(number)])
            for number in {1, 2} - ended
        }
        while kills < 6 and not list(job_folder("s.csv").glob("*.csv")):
            time.sleep(0.01)
        time.sleep(0.1 * draw.random())
        for number, process in both.items():
            if kills < 6:
                process.send_signal(signal.SIGKILL)
                kills += 1
            if process.wait() == 0:
                ended.add(number)
    gather_scores("s.csv")
    assert Path("s.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not job_folder("s.csv").exists()

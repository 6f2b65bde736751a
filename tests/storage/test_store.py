"""Jobs that are killed, raced, resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaeguard import UsageError, VaeguardError
from vaeguard.data import source
from vaeguard.data.arrays import Npy
from vaeguard.data.folders import Files
from vaeguard.data.source import SHARD_ROWS, pieces_of
from vaeguard.data.streams import ahead
from vaeguard.evaluation.scoring import score_files
from vaeguard.storage.files import temporary_beside
from vaeguard.storage.store import Store, is_job, open_job
from vaeguard.storage.tables import read_table

JOB = """
import os, signal, sys, time
import numpy as np
from vaeguard.data import source
from toy import toy_info
from vaeguard.engines.inspection import Inspection
from vaeguard.evaluation.scoring import score_files

class Brightness:
    info = toy_info()
    fingerprint = "brightness"
    parallel = 1
    least = 16
    inspected = 0
    slow = 0.0

    def inspect(self, images, *, pictures=False):
        time.sleep(self.slow)
        self.inspected += len(images)
        score = images.mean((1, 2, 3), dtype=np.float64).astype(np.float32) / 255
        return Inspection(score, np.float32(1) - score, {"recon_error": score ** 2})

"""
ALONE = """
source.SHARD_ROWS = 20
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background ignores it
"""
CRASH = """
import pathlib, shutil, vaeguard.storage.files
left = int(sys.argv[1])

def crashing(function):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os._exit(137)
        return function(*arguments, **options)
    return wrapped

os.fsync, os.replace, os.open = crashing(os.fsync), crashing(os.replace), crashing(os.open)
pathlib.Path.replace, shutil.rmtree = crashing(pathlib.Path.replace), crashing(shutil.rmtree)
score_files(Brightness(), "images", sys.argv[2], batch_size=8)
"""
# Imports take most of a process's time, so the processes that are killed are forks of one that has them.
FORKS = """
import PIL.PngImagePlugin, pyarrow.csv, pyarrow.parquet, vaeguard.data.inputs
for line in sys.stdin:
    sys.argv[1:] = line.split()
    child = os.fork()
    if child == 0:
        exec(CRASH)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
exec(compile(JOB, "job", "exec"))  # the same detector here as in the processes that are killed


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(source, "SHARD_ROWS", 20)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder `images` with 50 files, two of them unreadable, and the tables of unbroken jobs on it."""
    home = tmp_path_factory.mktemp("jobs")
    (home / "images").mkdir()
    for number in range(50):
        Image.fromarray(np.full((8, 8), 5 * number, np.uint8)).save(home / "images" / f"{number:02d}.png")
    for number in (3, 44):
        (home / "images" / f"{number:02d}.png").write_bytes(b"no image")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(home)
        monkeypatch.setattr(source, "SHARD_ROWS", 20)
        for suffix in ("csv", "parquet", "jsonl"):
            score_files(Brightness(), "images", f"whole.{suffix}", batch_size=8)  # noqa: F821
    return home


@pytest.fixture(autouse=True)
def _inside(home, monkeypatch):
    monkeypatch.chdir(home)


def started(code, **pipes):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", JOB + ALONE + code], stderr=subprocess.PIPE, env=environment, **pipes
    )


@pytest.fixture(scope="module")
def crashed(home):
    """Runs a job on a table in a process that crashes at a step, if it takes so many, and gives its exit code."""
    forks = started(f"CRASH = {CRASH!r}{FORKS}", cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def crash(step, name):
        print(step, name, file=forks.stdin, flush=True)
        return int(forks.stdout.readline())

    yield crash
    forks.communicate()


def finished(name):
    """The shards that the job on the table `name` has finished: their manifests lie there before their tables."""
    return [part for part in Store(Path(f"{name}.job")).parts() if part.whole]


def assert_as_unbroken(name):
    suffix = Path(name).suffix
    assert Path(name).read_bytes() == Path(f"whole{suffix}").read_bytes()
    assert Path(f"{name}.errors.csv").read_bytes() == Path(f"whole{suffix}.errors.csv").read_bytes()
    assert not Path(f"{name}.job").exists()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [pytest.param("csv", marks=pytest.mark.nightly), "parquet", "jsonl"])
def test_a_job_killed_at_any_step_resumes_to_the_same_bytes(suffix, crashed):
    name = f"killed.{suffix}"
    step, whole = 0, False
    while not whole:
        step += 1 if suffix == "csv" else 7
        code = crashed(step, name)
        assert code in (0, 137)
        whole = code == 0
        if Path(name).exists():  # whole or not at all
            assert Path(name).read_bytes() == Path(f"whole.{suffix}").read_bytes()
        detector = Brightness()  # noqa: F821
        summary = score_files(detector, "images", name, batch_size=8)
        assert summary.images == 48
        assert_as_unbroken(name)
        left = {path.name for path in Path().iterdir() if "killed" in path.name}
        assert left == {name, f".{name}.json", f"{name}.errors.csv"}
        for path in left:
            Path(path).unlink()
    assert step > 30


@pytest.mark.nightly
def test_a_job_killed_at_random_moments_resumes_and_redoes_one_shard_at_most():
    generator = np.random.default_rng(0)
    slow = "Brightness.slow = 0.3\nscore_files(Brightness(), 'images', 'random.csv', batch_size=8)"
    for _ in range(5):
        process = started(slow)
        while not finished("random.csv"):
            time.sleep(0.001)
        time.sleep(0.02 * generator.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        shards = len(finished("random.csv"))
        summary = score_files(Brightness(), "images", "random.csv", batch_size=8)  # noqa: F821
        assert summary.resumed == (0, 19, 39, 48)[shards] > 0
        assert_as_unbroken("random.csv")
        Path("random.csv").unlink()


def test_only_what_changed_is_done_again(tmp_path):
    for number in range(60):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number:02d}.png")

    class Failing(Brightness):  # noqa: F821
        def inspect(self, images, *, pictures=False):
            if images.max() >= 45:
                raise VaeguardError("stop")
            return super().inspect(images, pictures=pictures)

    (tmp_path / "25.png").write_bytes(b"broken")
    with pytest.raises(VaeguardError, match="stop"):
        score_files(Failing(), tmp_path, tmp_path / "s.csv")
    assert len(list((tmp_path / "s.csv.job").glob("*.csv"))) == 2
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(tmp_path / "05.png")
    detector = Brightness()  # noqa: F821
    assert score_files(detector, tmp_path, tmp_path / "s.csv").resumed == 19  # of 20 files
    assert detector.inspected == 40
    assert read_table(tmp_path / "s.csv")["recon_error"][5] == pytest.approx((200 / 255) ** 2)


def test_a_shard_that_was_changed_is_done_again(tmp_path):
    (tmp_path / "s.csv.job").mkdir()

    class Stopping(Brightness):  # noqa: F821
        def inspect(self, images, *, pictures=False):
            if self.inspected >= 18:
                raise VaeguardError("stop")
            return super().inspect(images, pictures=pictures)

    with pytest.raises(VaeguardError):
        score_files(Stopping(), "images", tmp_path / "s.csv")
    (shard,) = (tmp_path / "s.csv.job").glob("*.csv")
    shard.write_bytes(shard.read_bytes()[:-3])
    assert score_files(Brightness(), "images", tmp_path / "s.csv").resumed == 0  # noqa: F821
    assert (tmp_path / "s.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_a_second_job_on_the_same_table_is_refused_at_once_and_a_dead_ones_lock_is_no_hindrance():
    process = started("Brightness.slow = 1\nscore_files(Brightness(), 'images', 'raced.csv', batch_size=8)")
    while not Path("raced.csv.job/lock").exists():
        time.sleep(0.01)
    time.sleep(0.1)
    begun = time.monotonic()
    with pytest.raises(VaeguardError, match=r"another job is writing to 'raced\.csv'"):
        score_files(Brightness(), "images", "raced.csv")  # noqa: F821
    assert time.monotonic() - begun < 1
    process.kill()
    process.communicate()
    assert score_files(Brightness(), "images", "raced.csv").images == 48  # noqa: F821
    assert_as_unbroken("raced.csv")


def test_an_interrupted_job_ends_at_once_and_resumes():
    slow = "Brightness.slow = 0.3\nscore_files(Brightness(), 'images', 'int.csv', batch_size=8)"
    process = started(slow)
    while not finished("int.csv"):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=10)[1]
    assert not Path("int.csv").exists()
    assert score_files(Brightness(), "images", "int.csv").resumed >= 18  # noqa: F821
    assert_as_unbroken("int.csv")


def test_a_table_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VaeguardError, match="choose a different folder"):
        score_files(Brightness(), "images", tmp_path / "file" / "s.csv")  # noqa: F821


def test_pieces_are_the_same_each_time_and_smaller_of_large_images(monkeypatch):
    monkeypatch.setattr(source, "SHARD_ROWS", SHARD_ROWS)
    files = Files([f"{number}.png" for number in range(10_000)])
    small, large = pieces_of([files], 784), pieces_of([files], 3 * 512 * 512)
    assert [piece.count for piece in small] == [4096, 4096, 1808]
    assert {piece.count for piece in large[:-1]} == {85}
    assert sum(piece.count for piece in large) == 10_000
    keys = {piece.key("settings") for piece in large}
    assert len(keys) == len(large)
    assert keys == {piece.key("settings") for piece in pieces_of([files], 3 * 512 * 512)}
    assert keys.isdisjoint(piece.key("others") for piece in large)


def test_a_container_that_changes_has_other_keys(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 8, 8), np.uint8))
    one = [piece.key("") for piece in pieces_of([Npy(str(tmp_path / "a.npy"))], 64)]
    np.save(tmp_path / "a.npy", np.ones((6, 8, 8), np.uint8))
    assert one != [piece.key("") for piece in pieces_of([Npy(str(tmp_path / "a.npy"))], 64)]


def test_the_folder_goes_with_the_job_and_stays_with_its_shards(tmp_path):
    with open_job(tmp_path / "s.csv") as store:
        assert is_job(store.folder)
    assert not store.folder.exists()
    with pytest.raises(KeyError), open_job(tmp_path / "s.csv"):
        raise KeyError
    assert not store.folder.exists()
    with pytest.raises(KeyError), open_job(tmp_path / "s.csv") as store:
        put_pair(store, "1")
        raise KeyError
    assert store.get("1")
    with open_job(tmp_path / "s.csv", files=("more.csv",)) as store:
        (store.folder / "more.csv").write_text("of the job")
        (store.folder / "notes.txt").write_text("somebody else's")
    assert {path.name for path in store.folder.iterdir()} == {"notes.txt", ".vaeguard-job"}
    with open_job(tmp_path / "s.csv"):
        (store.folder / "notes.txt").unlink()
        (store.folder / f"{'0a' * 20}.csv").write_text("a part whose manifest was removed before it")
    assert not store.folder.exists()


@pytest.mark.parametrize("names", [(), ("lock",), ("lock", "mark")])
def test_a_job_killed_before_its_mark_is_no_hindrance(tmp_path, names):
    folder = tmp_path / "s.csv.job"
    folder.mkdir()
    for name in names:
        (temporary_beside(folder / ".vaeguard-job") if name == "mark" else folder / name).touch()
    assert is_job(folder) == bool(names)
    with open_job(tmp_path / "s.csv") as store:
        assert is_job(store.folder)
    assert not folder.exists()


def _hold(folder, name):
    folder.mkdir()
    (folder / name).write_text("mine")


FOREIGN = {
    "a folder": lambda folder: _hold(folder, "notes.txt"),
    "a hidden file": lambda folder: _hold(folder, ".profile"),
    "another mark": lambda folder: _hold(folder, ".vaeguard-job"),
    "a file": lambda folder: folder.write_text("mine"),
    "a link": lambda folder: folder.symlink_to(folder.parent / "home"),
    "a dangling link": lambda folder: folder.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_folder_of_somebody_else_is_refused_and_stays(tmp_path, kind):
    _hold(tmp_path / "home", ".profile")
    FOREIGN[kind](tmp_path / "s.csv.job")
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused = pytest.raises(UsageError, match=r"s\.csv\.job.*rename what is there, or choose a different output")
    with refused, open_job(tmp_path / "s.csv"):
        pass
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def put_pair(store, name, one=b"1", two=b"2", **facts):
    with store.put(name) as part:
        part.file(Path(name).name).write_bytes(one)
        part.file("two.bin").write_bytes(two)
        part.finish({"written": part.digests(), **facts})


def test_a_part_is_finished_until_a_file_of_it_differs(tmp_path):
    store = Store(tmp_path, ("written", "rows"))
    assert store.get("deep/one.bin") is None
    put_pair(store, "deep/one.bin", rows=3)
    assert store.get("deep/one.bin")["rows"] == 3
    assert [part.path for part in store.parts()] == [tmp_path / "deep/one.bin"]
    assert not [*store.parts(without={"deep/one.bin"})]
    assert Store(tmp_path, ("written", "columns")).get("deep/one.bin") is None  # some other kind of manifest
    (tmp_path / "deep/two.bin").write_bytes(b"changed")
    part = store.part("deep/one.bin")
    assert (part.whole, part.retouched, part.missing) == (False, False, [])
    assert part.changed == [tmp_path / "deep/two.bin"]
    assert not part.remove()
    (tmp_path / "deep/two.bin").unlink()
    part = store.part("deep/one.bin")
    assert (part.whole, part.changed, part.missing) == (False, [], [tmp_path / "deep/two.bin"])
    assert part.remove()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_part_that_fails_leaves_the_one_before(tmp_path):
    store = Store(tmp_path)
    put_pair(store, "one.bin", rows=3)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyError), store.put("one.bin") as part:
        part.file("one.bin").write_bytes(b"other")
        raise KeyError
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_manifest_is_there_before_the_files(tmp_path, monkeypatch):
    names, replace = [], Path.replace

    def noted(path, target):
        names.append(Path(target).name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    put_pair(Store(tmp_path), "one.bin")
    assert names[0] == "one.bin.json"
    assert set(names[1:]) == {"one.bin", "two.bin"}


def test_ahead_is_bounded_ordered_and_hands_errors_on():
    others = threading.enumerate()  # a job that failed may keep its thread until Python collects its garbage
    taken = []

    def numbers():
        for number in range(10):
            taken.append(number)
            yield number
        raise ValueError("at the end")

    found = []
    with pytest.raises(ValueError, match="at the end"):
        for number in ahead(numbers(), 3):
            found.append(number)
            time.sleep(0.01)
            assert len(taken) <= number + 5
    assert found == list(range(10))
    some = ahead(iter(range(100)), 2)
    assert next(some) == 0
    some.close()
    for thread in set(threading.enumerate()) - set(others):
        thread.join(10)  # nobody waits for it, but it ends by itself
        assert not thread.is_alive()

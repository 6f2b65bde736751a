"""Buckets as inputs, models and outputs, on a server of S3 in another process."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pickle
import select
import socket
import socketserver
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import run
from PIL import Image
from toy import bars

import vaeguard
from vaeguard import workflows
from vaeguard.cluster import scores as cluster_scores
from vaeguard.errors import RefusedError, UnreadableError, UsageError, VaeguardError
from vaeguard.settings.cluster import ClusterSettings
from vaeguard.storage import places
from vaeguard.storage.files import writing
from vaeguard.storage.published import published
from vaeguard.workflows.outcome import Reporter

pytestmark = pytest.mark.slow
COUNT = 40


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    """Each test reads its objects itself."""
    monkeypatch.setattr(places, "_recent", places._Recent())


def png(image):
    file = io.BytesIO()
    Image.fromarray(image[0]).save(file, "PNG")
    return file.getvalue()


def write_kinds(folder):
    """The same images in every kind of place, the fourth of them cut short."""
    images = bars()[0][:COUNT]
    files = [png(image) for image in images]
    files[3] = files[3][:50]
    (folder / "files" / "below").mkdir(parents=True)
    (folder / "tables").mkdir()
    with tarfile.open(folder / "packed.tar", "w") as archive:
        for row, content in enumerate(files):
            name = f"{'below/' if row % 2 else ''}{row:03d}.png"
            (folder / "files" / name).write_bytes(content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for name, part in (("a", files[:25]), ("b", files[25:])):
        pq.write_table(pa.table({"image": pa.array(part, pa.binary())}), folder / "tables" / f"{name}.parquet")
    np.save(folder / "images.npy", images)
    return folder


@pytest.fixture(scope="session")
def kinds(once, store):
    folder = once("kinds", write_kinds)
    store.put_tree(folder, "kinds")
    return folder


@pytest.fixture(scope="session")
def detector(bars_onnx):
    return vaeguard.load(bars_onnx, "cpu")


@pytest.mark.parametrize(
    ("name", "gets"),
    [
        ("files", COUNT),
        ("packed.tar", 1),
        ("tables", 2),
        ("tables/*.parquet", 2),
        ("files/**/*.png", COUNT),
        ("images.npy", 1),
    ],
)
def test_a_bucket_gives_the_table_of_a_folder(kinds, store, detector, tmp_path, name, gets):
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    expected = vaeguard.score_files(detector, str(kinds / name), here)
    with store.counted() as requests:
        summary = vaeguard.score_files(detector, f"s3://bucket/kinds/{name}", there)
    assert summary.images == expected.images == COUNT - (name != "images.npy")
    assert there.read_text() == here.read_text().replace(str(kinds), "s3://bucket/kinds")
    assert [(path.replace(str(kinds), "s3://bucket/kinds"), why) for path, why in expected.errors] == [*summary.errors]
    assert requests["GET"] == gets
    assert requests.get("LIST", 1) == 1


def test_an_earlier_table_of_a_bucket_is_only_flagged_anew(kinds, store, detector, tmp_path):
    given = [f"s3://bucket/kinds/{name}" for name in ("files/000.png", "files/below/001.png", "tables/b.parquet")]
    vaeguard.score_files(detector, given, tmp_path / "scores.csv")
    with store.counted() as requests:
        summary = vaeguard.score_files(detector, given, tmp_path / "scores.csv", fpr=0.3)
    assert summary.resumed == summary.images == 17
    assert "GET" not in requests


def test_an_object_that_cannot_be_read_is_listed(store, detector, tmp_path, monkeypatch):
    for row in range(3):
        store.put(f"gone/{row}.png", png(bars()[0][row]))
    read = places.read

    def vanished(url):
        if url.endswith("1.png"):
            store.client.delete_object(Bucket="bucket", Key="gone/1.png")
        return read(url)

    monkeypatch.setattr(places, "read", vanished)
    summary = vaeguard.score_files(detector, "s3://bucket/gone", tmp_path / "scores.csv")
    assert summary.images == 2
    assert summary.errors == (("s3://bucket/gone/1.png", "the object does not exist"),)


class Relay(socketserver.ThreadingTCPServer):
    """A way to the store that breaks after some bytes have come back."""

    daemon_threads = True

    def __init__(self, port, most):
        self.store, self.left = port, most
        super().__init__(("127.0.0.1", 0), None)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def finish_request(self, request, client_address):
        with socket.create_connection(("127.0.0.1", self.store)) as there, contextlib.suppress(OSError):
            while self.left > 0 and (ready := select.select([request, there], [], [], 10)[0]):
                for one in ready:
                    if not (content := one.recv(65536)):
                        return
                    (there if one is request else request).sendall(content)
                    self.left -= len(content) * (one is there)


def test_a_job_stops_when_the_store_is_gone_and_goes_on_when_it_is_back(kinds, store, detector, tmp_path, monkeypatch):
    relay = Relay(store.port, 30_000)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{relay.server_address[1]}")
        patch.setattr(places, "ATTEMPTS", 2)
        places._system.cache_clear()
        with pytest.raises(VaeguardError, match="'s3://bucket/kinds/files/.*': the storage service does not answer"):
            vaeguard.score_files(detector, "s3://bucket/kinds/files", tmp_path / "there.csv")
    relay.shutdown()
    relay.server_close()
    places._system.cache_clear()
    assert not (tmp_path / "there.csv").exists()
    summary = vaeguard.score_files(detector, "s3://bucket/kinds/files", tmp_path / "there.csv")
    assert summary.images == COUNT - 1


@pytest.mark.parametrize("answer", ["AWS Error SLOW_DOWN during GetObject operation: wait", "HTTP status 503"])
def test_a_busy_store_blames_no_object(answer):
    said = "'s3://bucket/a.png': the storage service is too busy"
    with pytest.raises(VaeguardError, match=said) as stopped, places._while_answering("s3://bucket/a.png"):
        raise OSError(answer)
    assert not isinstance(stopped.value, UnreadableError)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/none", "nothing exists at 's3://bucket/none'"),
        ("s3://bucket/none.png", "nothing exists at 's3://bucket/none.png'"),
        ("s3://no-such-bucket/images", "'s3://no-such-bucket/images': the bucket does not exist"),
        ("s3://bucket/kinds/*.jpg", "no file matches 's3://bucket/kinds/\\*.jpg'"),
        ("wasp://bucket/images", "'wasp://bucket/images': unknown kind of URL"),
        ("az://container/images", "set AZURE_STORAGE_ACCOUNT_NAME"),
        ("s3://", "'s3://' has no bucket name"),
        ("s3://*/images", "'s3://\\*/images' has no bucket name"),
    ],
)
def test_a_place_that_cannot_be_read_is_named(store, detector, tmp_path, monkeypatch, url, said):
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises((UsageError, RefusedError), match=said):
        vaeguard.score_files(detector, url, tmp_path / "scores.csv")


def test_a_file_url_is_the_file(kinds, detector, tmp_path):
    summary = vaeguard.score_files(detector, f"file://{kinds}/files", tmp_path / "scores.csv")
    assert summary.images == COUNT - 1


def test_an_object_may_be_named_like_a_glob(store, detector, tmp_path):
    store.put("odd/a[1].png", png(bars()[0][0]))
    assert vaeguard.score_files(detector, "s3://bucket/odd/a[1].png", tmp_path / "scores.csv").images == 1


def test_a_table_appears_in_a_bucket_with_all_that_belongs_to_it(kinds, store, bars_onnx, tmp_path):
    store.put("models/m.onnx", bars_onnx.read_bytes())
    here = run(tmp_path, "score", kinds / "files", "-m", bars_onnx, "-o", "scores.csv")
    arguments = ["score", "s3://bucket/kinds/files", "-m", "s3://bucket/models/m.onnx", "-o", "s3://bucket/out/s.csv"]
    there = run(tmp_path, *arguments)
    assert here.returncode == there.returncode == 3
    assert "see s3://bucket/out/s.csv.errors.csv" in there.stderr
    table = (tmp_path / "scores.csv").read_text().replace(str(kinds), "s3://bucket/kinds")
    assert store.get("out/s.csv").decode() == table
    beside = [".s.csv.json", "s.csv", "s.csv.errors.csv", "s.csv.report.html", "s.csv.report.json"]
    assert [key for key in store.keys("out/") if not key.endswith("/")] == [f"out/{name}" for name in beside]
    assert not any(b"/vaeguard-" in store.get(f"out/{name}") for name in beside)
    with store.counted() as requests:
        again = run(tmp_path, *arguments, "--fpr", "0.3", "--no-report")
    assert "39 of them in earlier runs" in again.stdout
    assert requests["GET"] <= 7  # the model, and what lay at the output: no image but the broken one
    assert [key for key in store.keys("out/") if not key.endswith("/")] == [f"out/{name}" for name in beside[:3]]
    named = run(
        tmp_path, "score", "s3://bucket/kinds/tables", "-m", bars_onnx, "-o", "s3://bucket/kinds/tables/a.parquet"
    )
    assert named.returncode == 2
    assert "'s3://bucket/kinds/tables/a.parquet' is one of the inputs" in named.stderr


SMALL_PARTS = "import vaeguard.data.source as s; s.SHARD_ROWS = 16; from vaeguard_cli.main import main; {}main()"
KILLED = """
import os, vaeguard.storage.store as store
whole = store.publish
def publish(paths):
    paths = list(paths)
    whole(paths)
    if paths[-1].suffix == ".json":
        os.kill(os.getpid(), 9)
store.publish = publish
"""


def test_a_killed_writer_leaves_whole_parts_which_are_taken_up_again(kinds, store, bars_onnx, tmp_path):
    files = ["score", "s3://bucket/kinds/files", "-m", str(bars_onnx), "--no-report", "-o"]
    run(tmp_path, *files, "scores.csv")
    arguments = [*files, "s3://bucket/killed/scores.csv"]
    killed = [sys.executable, "-c", SMALL_PARTS.format(f"exec({KILLED!r}); "), *arguments]
    assert subprocess.run(killed, check=False, cwd=tmp_path, capture_output=True).returncode == -9
    keys = store.keys("killed/scores.csv.job/")
    manifests = [json.loads(store.get(key)) for key in keys if key.endswith(".json")]
    assert manifests
    for name, digest in (item for manifest in manifests for item in manifest["written"].items()):
        assert sha256(store.get(f"killed/scores.csv.job/{name}")).hexdigest() == digest
    assert all(store.get(key).endswith(b"\n") for key in keys if key.endswith(".csv"))
    again = [sys.executable, "-c", SMALL_PARTS.format(""), *arguments]
    last = subprocess.run(again, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert "of them in earlier runs" in last.stdout
    assert store.get("killed/scores.csv") == (tmp_path / "scores.csv").read_bytes()
    assert not store.keys("killed/scores.csv.job")


def test_an_error_in_the_middle_of_writing_publishes_nothing(store, tmp_path):
    output = published("s3://bucket/half/out.csv", "out.csv".__eq__)
    with pytest.raises(RuntimeError), output as path, writing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert store.keys("half/") == []


def test_a_fit_reads_and_writes_buckets(kinds, store, tmp_path):
    files = sorted((kinds / "files").rglob("*.png"))
    for place, path in enumerate(files):
        store.put(f"classes/{'ok' if place % 3 else 'bad'}/{path.name}", path.read_bytes())
        target = tmp_path / "classes" / ("ok" if place % 3 else "bad") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    fit = ["--normal-classes", "ok", "--epochs", "2", "--latent", "3", "--set", "model.hidden=8", "--device", "cpu"]
    here = run(tmp_path, "fit", "classes", *fit, "-o", "run")
    with store.counted() as requests:
        there = run(tmp_path, "fit", "s3://bucket/classes", *fit, "-o", "s3://bucket/runs/one")
    assert here.returncode == there.returncode == 3, there.stderr
    assert "skipped: 's3://bucket/classes/" in there.stderr
    assert requests["GET"] == COUNT
    assert store.get("runs/one/model.safetensors") == (tmp_path / "run" / "model.safetensors").read_bytes()
    assert {key.rpartition("/")[2] for key in store.keys("runs/one/")} == {p.name for p in (tmp_path / "run").iterdir()}
    assert (tmp_path / "runs" / "latest").resolve() == (tmp_path / "run").resolve()
    refused = run(tmp_path, "fit", "s3://bucket/classes", *fit, "-o", "s3://bucket/runs/one")
    assert "'s3://bucket/runs/one' contains a finished model" in refused.stderr
    measured = run(tmp_path, "evaluate", "s3://bucket/classes", "-m", "s3://bucket/runs/one", "-o", "s3://bucket/ev")
    assert measured.returncode == 3, measured.stderr
    assert {"ev/report.html", "ev/report.json"} <= {*store.keys("ev/")}
    bare = run(tmp_path, "evaluate", "s3://bucket/classes", "-m", "s3://bucket/runs/one")
    assert bare.returncode == 2
    assert "-o is missing" in bare.stderr or "--output" in bare.stderr
    store.put("runs/one/model.safetensors", store.get("runs/one/model.safetensors")[:-1] + b"x")
    damaged = run(tmp_path, "evaluate", "s3://bucket/classes", "-m", "s3://bucket/runs/one", "-o", "s3://bucket/ev")
    assert damaged.returncode == 4
    assert "model file 's3://bucket/runs/one/model.safetensors' is damaged" in damaged.stderr


def test_an_evaluation_above_its_images_leaves_them_there(store, bars_onnx, tmp_path):
    for row, image in enumerate(bars()[0][:8]):
        store.put(f"above/images/{'ok' if row % 2 else 'bad'}/{row}.png", png(image))
    before = store.keys("above/")
    given = ["--normal-classes", "ok", "-m", bars_onnx, "-o", "s3://bucket/above"]
    done = run(tmp_path, "evaluate", "s3://bucket/above/images", *given)
    assert done.returncode == 0, done.stderr
    assert {*before, "above/report.json"} <= {*store.keys("above/")}


def test_what_is_copied_only_in_part_is_not_read(store, monkeypatch, tmp_path):
    import pyarrow.fs

    store.put("parts/1.png", png(bars()[0][0]))

    def copied_in_part(error, source, copy, **_):
        Path(copy).write_bytes(b"half")
        raise error

    full = OSError(errno.ENOSPC, "No space left on device")
    for error, kind, said in (
        (full, VaeguardError, "not enough space for a copy of 's3://bucket/parts/1.png'"),
        (OSError("cut"), UnreadableError, "cut"),
    ):
        monkeypatch.setattr(pyarrow.fs, "copy_files", partial(copied_in_part, error))
        with pytest.raises(kind, match=said) as raised:
            vaeguard.open_images("s3://bucket/parts/1.png")
        assert type(raised.value) is kind
        assert not places.local_path("s3://bucket/parts/1.png", places.STAGED).exists()


def test_threads_that_copy_a_model_share_one_folder(store, bars_run, monkeypatch):
    store.put_tree(bars_run, "raced/run")
    monkeypatch.setattr(places, "_copies", cache(places._copies.__wrapped__))
    monkeypatch.setattr(places, "_sweep_copies", lambda: time.sleep(0.1))
    assert vaeguard.load("s3://bucket/raced/run", "cpu").info.record.finished_epochs
    places._copies(os.getpid()).cleanup()


def test_an_export_appears_in_a_bucket(store, bars_run, translated_once, tmp_path):
    store.put_tree(bars_run, "exported/run")
    done = run(tmp_path, "export", "-m", "s3://bucket/exported/run", "-o", "s3://bucket/exported/m.onnx")
    assert done.returncode == 0, done.stderr
    assert "Exported to s3://bucket/exported/m.onnx" in done.stdout
    assert "exported/m.onnx" in store.keys("exported/")


def test_scans_are_cleaned_from_a_bucket_into_a_bucket(store, printed, tmp_path):
    (tmp_path / "scans" / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a.png", "below/b.png")):
        page = 255 * (1 - printed(96, 120, number)) + rng.normal(0, 10, (96, 120))
        Image.fromarray(page.clip(0, 255).astype(np.uint8)).save(tmp_path / "scans" / name)
    (tmp_path / "scans" / "c.png").write_bytes((tmp_path / "scans" / "a.png").read_bytes()[:99])
    store.put_tree(tmp_path / "scans", "scans")
    here = run(tmp_path, "denoise", "scans", "-o", "clean")
    there = run(tmp_path, "denoise", "s3://bucket/scans", "-o", "s3://bucket/clean")
    assert here.returncode == there.returncode == 3, there.stderr
    for name in ("a.png", "below/b.png", "pages.csv"):
        assert store.get(f"clean/{name}") == (tmp_path / "clean" / name).read_bytes()
    assert "s3://bucket/scans/c.png" in store.get("clean/pages.csv.errors.csv").decode()
    assert json.loads(store.get("clean/a.png.json"))["root"] == "s3://bucket/scans"
    again = run(tmp_path, "denoise", "s3://bucket/scans", "-o", "s3://bucket/clean")
    assert "2 of the files in earlier runs" in again.stdout
    mixed = [run(tmp_path, "denoise", "s3://bucket/scans", "-o", "local") for _ in range(2)]
    assert "2 of the files in earlier runs" in mixed[1].stdout
    assert "'s3://bucket/clean' is a URL" in run(tmp_path, "undo", "s3://bucket/clean").stderr


def test_no_url_no_file_system(tmp_path, bars_onnx, kinds):
    code = (
        "import sys, vaeguard; d = vaeguard.load(sys.argv[1], 'cpu'); vaeguard.score_files(d, sys.argv[2], 's.csv');"
        "sys.exit('pyarrow.fs' in sys.modules or 'pyarrow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(bars_onnx), str(kinds / "files" / "000.png")]
    assert subprocess.run(command, check=False, cwd=tmp_path).returncode == 0


def test_a_fit_in_a_bucket_goes_on_from_its_checkpoint(store, tmp_path, monkeypatch):
    from vaeguard.training import checkpoint

    monkeypatch.setattr(checkpoint, "PUBLISHED_SECONDS", 0.0)
    monkeypatch.setattr("vaeguard.storage.published.Mirror.settle", lambda _: None)  # as after SIGKILL
    write = checkpoint.Checkpoint.write

    def killed(self, state):
        write(self, state)
        raise KeyboardInterrupt

    fit = ["fit", "digits", "--normal-classes", "0", "--epochs", "2", "--latent", "3", "--set", "model.hidden=8"]
    fit += ["--device", "cpu", "-o"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "write", killed)
        assert run(tmp_path, *fit, "s3://bucket/stopped/run").returncode == 130
    assert store.keys("stopped/") == ["stopped/run/checkpoint.safetensors"]
    monkeypatch.undo()
    assert "contains an interrupted fit" in run(tmp_path, *fit, "s3://bucket/stopped/run").stderr
    done = run(tmp_path, *fit, "s3://bucket/stopped/run", "--resume")
    assert done.returncode == 0, done.stderr
    run(tmp_path, *fit, "run")
    assert store.get("stopped/run/model.safetensors") == (tmp_path / "run" / "model.safetensors").read_bytes()
    assert "stopped/run/checkpoint.safetensors" not in store.keys("stopped/")


def test_a_store_that_lets_nobody_in_stops_the_job(kinds, store, detector, tmp_path, monkeypatch):
    def denied(url):
        raise OSError("AWS Error ACCESS_DENIED during HeadObject operation")

    monkeypatch.setattr(
        places, "_located", lambda url, located=places._located: denied(url) if "." in url else located(url)
    )
    with pytest.raises(VaeguardError, match="access was denied; check the credentials"):
        vaeguard.score_files(detector, "s3://bucket/kinds/files", tmp_path / "scores.csv")


def test_copies_of_killed_processes_are_swept_and_those_of_living_ones_stay(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    locks = [tmp_path / f"{places.COPIES}{name}" / places.LOCK for name in ("dead", "living")]
    for lock in locks:
        lock.parent.mkdir()
        lock.touch()
    with locks[1].open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        places._sweep_copies()
    assert [lock.exists() for lock in locks] == [False, True]


@pytest.mark.parametrize(
    "arguments",
    [
        ("watch", "s3://bucket/kinds", "-m", "MODEL", "-o", "s.csv"),
        ("score", "s3://bucket/kinds", "-m", "MODEL", "--heatmaps", "s3://bucket/look"),
        ("sample", "-m", "MODEL", "-o", "s3://bucket/s.png"),
        ("tune", "digits", "-o", "s3://bucket/tuned"),
        ("report", "s3://bucket/ev"),
        ("undo", "s3://bucket/clean"),
        ("unpack", "s3://bucket/kinds/packed.tar", "-o", "files"),
    ],
)
def test_what_works_on_local_files_only_refuses_a_url(tmp_path, bars_onnx, arguments):
    done = run(tmp_path, *(str(bars_onnx) if given == "MODEL" else given for given in arguments))
    assert done.returncode == 2
    assert "is a URL; copy the files to a local folder" in done.stderr
    assert not any(path.name.startswith("s3:") for path in tmp_path.iterdir())


def test_shares_of_a_job_meet_in_a_bucket_and_are_joined_there(kinds, store, bars_onnx, tmp_path):
    images = [f"s3://bucket/kinds/{name}" for name in ("files", "packed.tar", "tables")]
    run(tmp_path, "score", *images, "-m", bars_onnx, "-o", "scores.csv", "--no-report")
    shared = ["-m", bars_onnx, "-o", "s3://bucket/shared/scores.csv"]
    for share in ("2/2", "1/2"):
        early = run(tmp_path, "gather", "s3://bucket/shared/scores.csv")
        assert early.returncode in (1, 2)
        assert "'s3://bucket/shared/scores.csv'" in early.stderr
        done = run(tmp_path, "score", *images, *shared, "--piece", share)
        assert done.returncode in (0, 3), done.stderr
    joined = run(tmp_path, "gather", "s3://bucket/shared/scores.csv.job")
    assert joined.returncode == 3, joined.stderr
    assert store.get("shared/scores.csv") == (tmp_path / "scores.csv").read_bytes()
    assert not store.keys("shared/scores.csv.job/")
    other = run(tmp_path, "denoise", "s3://bucket/kinds/files", "-o", "s3://bucket/c", "--piece", "1/2")
    assert "is a URL; copy the files to a local folder" in other.stderr


class Elsewhere:
    """A cluster whose tasks run in a process of their own, which shares nothing with this one but the store."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def each(self, function, job, items):
        module, _, name = function.partition(":")
        code = (
            "import importlib, pickle, sys\n"
            "if __name__ == '__main__':\n"
            "    module, name, job, item = pickle.load(sys.stdin.buffer)\n"
            "    getattr(importlib.import_module(module), name)(job, item)\n"
        )
        for number, item in enumerate(items):
            task = pickle.dumps((module, name, job, item))
            subprocess.run([sys.executable, "-c", code], input=task, check=True)
            yield number, "there"


def test_tasks_of_a_cluster_put_their_parts_into_a_bucket(kinds, store, bars_onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_scores, "open_cluster", Elsewhere)
    settings = ClusterSettings()
    options = {"model": str(bars_onnx), "report": False}
    images = ["s3://bucket/kinds/files", "s3://bucket/kinds/packed.tar"]
    workflows.score_table(images, str(tmp_path / "here.csv"), Reporter(), **options)
    cluster_scores.score_on_cluster(
        images, "s3://bucket/spread/there.csv", Reporter(), cluster="local", settings=settings, **options
    )
    assert store.get("spread/there.csv") == (tmp_path / "here.csv").read_bytes()
    keys = [key.removeprefix("spread/") for key in store.keys("spread/") if not key.endswith("/")]
    assert keys == [".there.csv.json", "there.csv", "there.csv.errors.csv"]

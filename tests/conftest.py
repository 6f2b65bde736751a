from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings

# Tests are never timed: the machine may be busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

CHECKOUT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    """Files with slow tests go first, so that no worker is left alone with one at the end; a nightly test is slow."""
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker("slow")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the data sets; it may lack any of them, and a test then skips."""
    given = os.environ.get("VAEGUARD_DATA")
    shared = CHECKOUT.parent / "shared" / "data"
    return Path(given) if given else shared if shared.is_dir() else CHECKOUT / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or leaves anything in the user's cache."""
    monkeypatch.setenv("VAEGUARD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch):
    """No test's files outlive a power cut, and waiting for the disk would take a third of the time of all tests."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Calls `make(folder)` once for all workers of a test run and gives the folder; copy it before you write to it."""
    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "shared"
    shared.mkdir(exist_ok=True)

    def made(name, make):
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def bars_run(once):
    """The run folder of a small `mlp` on `bars`, whose classes 0 and 1 are normal."""
    from toy import bars

    import vaeguard

    def make(folder):
        images, labels = bars()
        model = vaeguard.ModelSpec(hidden=(16,), latent=3)
        training = vaeguard.TrainSpec(epochs=25, beta=0.1, learning_rate=3e-3, device="cpu")
        vaeguard.fit(images, labels, normal_classes="0,1", model=model, training=training, run=folder / "run")

    return once("bars", make) / "run"


@pytest.fixture(scope="session")
def bars_onnx(once, bars_run):
    """`bars_run` as an ONNX file, its encoder and decoder beside it."""
    import vaeguard
    from vaeguard.engines.run_folder import calibration_images

    def make(folder):
        images = calibration_images(bars_run)
        vaeguard.export(vaeguard.load(bars_run, "cpu"), folder / "model.onnx", images=images, parts=True)

    return once("bars-onnx", make) / "model.onnx"


class Store:
    """A server of S3 in a process of its own, with one bucket, `s3://bucket`."""

    def __init__(self, folder):
        import boto3

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._log = folder / "requests.log"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.env = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
            os.environ.pop(name, None)
        os.environ.update(self.env)
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            time.sleep(0.1)
        self.client = boto3.client("s3")
        self.client.create_bucket(Bucket="bucket")

    def put(self, key, content):
        self.client.put_object(Bucket="bucket", Key=key, Body=content)

    def put_tree(self, folder, key):
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder)}", path.read_bytes())

    def keys(self, prefix=""):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def get(self, key):
        return self.client.get_object(Bucket="bucket", Key=key)["Body"].read()

    @contextlib.contextmanager
    def counted(self):
        """The requests for objects and listings that are made within the block."""
        before, counts = self._log.stat().st_size, {}
        yield counts
        with self._log.open("rb") as log:
            log.seek(before)
            lines = re.findall(rb"(GET|PUT|DELETE|POST|HEAD) (\S+) HTTP", log.read())
        for verb, path in lines:
            kind = "LIST" if b"list-type" in path else verb.decode()
            counts[kind] = counts.get(kind, 0) + 1


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A server of S3, one for the session."""
    pytest.importorskip("moto.server", reason="no server of S3: moto or flask is not installed")
    pytest.importorskip("flask", reason="no server of S3: moto or flask is not installed")
    before = dict(os.environ)
    server = Store(tmp_path_factory.mktemp("store"))
    yield server
    server.process.terminate()
    server.process.wait()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def translated_once(bars_onnx, monkeypatch):
    """Exports of `bars_run` take the graphs of `bars_onnx`: PyTorch needs seconds to translate a model."""
    import onnx_ir

    from vaeguard.engines import exported_parts, exporting

    def part(module, inputs, *_):
        return onnx_ir.load(paths["encoder" if "image" in inputs else "decoder"])

    paths = exported_parts.part_paths(bars_onnx)
    monkeypatch.setattr(exporting, "_translated", lambda *_: onnx_ir.load(bars_onnx))
    monkeypatch.setattr(exported_parts, "translated", part)


@pytest.fixture(scope="session")
def printed():
    """Draws a clean page of text, float32 (height, width), 1 paper to 0 ink."""
    from PIL import Image, ImageDraw, ImageFont

    def draw(height=160, width=200, seed=0):
        rng = np.random.default_rng(seed)
        page = Image.new("L", (width, height), 255)
        font = ImageFont.load_default(14)
        for top in range(4, height, 18):
            letters = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz     "), 60))
            ImageDraw.Draw(page).text((4, top), letters, fill=0, font=font)
        return np.asarray(page, np.float32) / np.float32(255)

    return draw


FAULTS = {
    "crash": ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed (SIGSEGV)"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "was killed"),
    "hang": ("time.sleep(1000)", "takes more than 3 s"),
    "memory": ("bytearray(2**40)", "takes more than 2 GB of memory"),
}
"""What a decoder does with a file that ends in `fault`, and what is said of the file."""


@pytest.fixture(params=FAULTS)
def faulty(request, monkeypatch):
    """A decoder that crashes, hangs or swells on PNGs that end in `fault`: what is said of them."""
    from vaeguard.data import decoding, limits, workers

    fault, said = FAULTS[request.param]
    prelude = f"""
import os, signal, time
from PIL.PngImagePlugin import PngImageFile
opened = PngImageFile._open
def faulty(image):
    content = image.fp.getvalue() if hasattr(image.fp, "getvalue") else b""
    if content.endswith(b"fault"):
        {fault}
    opened(image)
PngImageFile._open = faulty
"""
    monkeypatch.setattr(workers, "_idle", {})
    monkeypatch.setattr(workers, "_MAIN", workers._MAIN.replace("from vae", f"exec({prelude!r}); from vae", 1))
    if request.param == "hang":
        monkeypatch.setenv("VAEGUARD_MAX_SECONDS", "3")
        monkeypatch.setattr(decoding, "MAX_SECONDS", 3.0)
        monkeypatch.setattr(limits, "MAX_SECONDS", 3.0)
    yield said
    workers.end_all()

"""Jobs on a Ray cluster. Ray opens sockets, so it runs in a network of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from command import run
from PIL import Image

from vaeguard import UsageError, VaeguardError, denoise_scans
from vaeguard.cluster import ray_cluster, scores, worker
from vaeguard.cluster import scans as scan_tasks
from vaeguard.cluster.scores import ScoreJob
from vaeguard.data.inputs import open_container
from vaeguard.data.objects import Fetched
from vaeguard.data.source import Piece
from vaeguard.errors import RefusedError
from vaeguard.packages import PACKAGES, installed
from vaeguard.restoration.gathering import denoise_share
from vaeguard.settings.cluster import ClusterSettings
from vaeguard.storage import places
from vaeguard.storage.plan import Share
from vaeguard.storage.store import job_folder

SMALL_PIECES = """
import sys, time
from vaeguard.data import source
source.SHARD_ROWS = 16
sys.argv[1:] = {arguments!r}
from vaeguard_cli.main import main
main()
"""


class Network:
    """A network of its own, with the loopback alone, in which commands run and a Ray node listens."""

    def __init__(self, home):
        self.home, self.holder, self.nodes = home, None, []

    def open(self):
        self.holder = subprocess.Popen(
            ["unshare", "-rn", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"], stdout=subprocess.PIPE
        )
        if self.holder.stdout.readline() != b"up\n":
            pytest.skip("this machine gives no network of its own (unshare -rn)")

    def start(self, command, **options):
        inside = ["nsenter", "-t", str(self.holder.pid), "-U", "-n", "--preserve-credentials"]
        environment = (
            os.environ | {"OMP_NUM_THREADS": "1", "VAEGUARD_CACHE": str(self.home / "cache")} | ray_cluster.QUIET
        )
        environment |= {"RAY_raylet_start_wait_time_s": "90", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
        return subprocess.Popen([*inside, *command], env=environment, text=True, **options)

    def ray_node(self, *options):
        """Start a node in a process group of its own, and return its process."""
        ray = str(Path(sys.executable).with_name("ray"))
        ray = [ray] if Path(ray).exists() else [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
        given = ["--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", "--object-store-memory=80000000"]
        node = self.start(
            [*ray, "start", *given, *options],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.nodes.append(node)
        return node

    def wait_for(self, port):
        """Wait until somebody listens; a busy machine takes long to start a node."""
        knock = [sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}))"]
        deadline = time.monotonic() + 120
        while self.start(knock, stderr=subprocess.DEVNULL).wait():
            assert time.monotonic() < deadline, "the Ray node did not start"
            time.sleep(0.2)

    def vaeguard(self, *arguments):
        """Start the command, with pieces of 16 images."""
        code = SMALL_PIECES.format(arguments=list(map(str, arguments)))
        return self.start([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def close(self):
        for node in self.nodes:
            kill_group(node)
        if self.holder:
            self.holder.kill()
            self.holder.communicate()


def kill_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def network():
    if util.find_spec("ray") is None:
        pytest.skip("Ray is not installed; pip install 'vaeguard[cluster]'")
    if not (shutil.which("unshare") and shutil.which("nsenter") and shutil.which("ip")):
        pytest.skip("a network of its own needs unshare, nsenter and ip")
    # The paths of Ray's sockets below this folder have to be short, or the node does not start.
    home = tempfile.mkdtemp(prefix="ray-")
    network = Network(Path(home))
    try:
        network.open()
        network.ray_node("--head", "--port=6399", "--num-cpus=1", "--include-dashboard=false",
                         f"--temp-dir={network.home}")  # fmt: skip
        network.wait_for(6399)
        yield network
    finally:
        network.close()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory, bars_onnx):
    """A folder with a model and 200 images, of which two are broken."""
    home = tmp_path_factory.mktemp("home")
    (home / "images").mkdir()
    draw = np.random.default_rng(0)
    for number in range(200):
        Image.fromarray(draw.integers(0, 255, (8, 8), np.uint8)).save(home / f"images/{number:03d}.png")
    for number in (3, 77):
        (home / f"images/{number:03d}.png").write_bytes(b"no image")
    shutil.copy(bars_onnx, home / "model.onnx")
    assert run(home, "score", "images", "-m", "model.onnx", "-o", "whole.csv", "--no-report").returncode == 3
    return home


@pytest.fixture(autouse=True)
def _inside(request, monkeypatch):
    if "home" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("home"))


def workers_of(network):
    """The processes of Ray that run tasks in this network."""
    inside = os.readlink(f"/proc/{network.holder.pid}/ns/net")
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(folder / "ns/net") == inside and b"ray::call" in (folder / "cmdline").read_bytes():
                yield int(folder.name)


ADDRESS = ("--cluster", "127.0.0.1:6399")


def as_whole(output):
    return (
        Path(output).read_bytes() == Path("whole.csv").read_bytes()
        and Path(f"{output}.errors.csv").read_bytes() == Path("whole.csv.errors.csv").read_bytes()
        and not job_folder(output).exists()
    )


@pytest.mark.slow
def test_a_cluster_goes_on_with_shares_through_killed_workers_and_drivers_to_the_same_bytes(network, home):
    score = ("score", "images", "-m", "model.onnx", "-o", "s.csv", "--no-report")
    share = network.vaeguard(*score, "--piece", "2/4")
    _, error = share.communicate()
    assert share.returncode == 0, error
    finished = len(list(job_folder("s.csv").glob("*.csv")))
    driver, killed = network.vaeguard(*score, *ADDRESS), 0
    while driver.poll() is None and not killed:
        for worker_id in workers_of(network):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker_id, signal.SIGKILL)
                killed += 1
        time.sleep(0.01)
    while driver.poll() is None and len(list(job_folder("s.csv").glob("*.csv"))) <= finished:
        time.sleep(0.01)
    driver.kill()
    driver.communicate()
    last = network.vaeguard(*score, *ADDRESS, "--json")
    out, error = last.communicate()
    assert last.returncode == 3, error
    facts = json.loads(out)
    assert (facts["images"], [item["path"] for item in facts["errors"]]) == (198, ["images/003.png", "images/077.png"])
    assert facts["resumed"] >= 48
    assert killed
    assert as_whole("s.csv")


@pytest.mark.slow
@pytest.mark.nightly
def test_a_node_that_dies_is_done_without_and_where_none_can_take_a_task_the_job_says_so(network, home):
    score = ("score", "images", "-m", "model.onnx", "-o", "n.csv", "--no-report", *ADDRESS)
    big = network.vaeguard(*score, "--set", "cluster.cpus=64", "--set", "cluster.patience=1")
    _, error = big.communicate()
    assert big.returncode == 1
    assert (
        "the cluster cannot run a task that needs 64 CPU cores: none of its nodes (1) is large enough, and no such node"
        " was added within 1 s" in error
    )
    assert "Traceback" not in error
    node = network.ray_node("--address=127.0.0.1:6399", "--num-cpus=2")
    driver = network.vaeguard(*score)
    while driver.poll() is None and not list(job_folder("n.csv").glob("*.csv")):
        time.sleep(0.01)
    kill_group(node)
    _, error = driver.communicate()
    assert driver.returncode == 3, error
    assert as_whole("n.csv")


@pytest.mark.slow
@pytest.mark.nightly
def test_a_cluster_of_this_machine_alone_makes_the_same_table_and_leaves_nothing(network, home):
    driver = network.vaeguard("score", "images", "-m", "model.onnx", "-o", "l.csv", "--no-report", "--cluster", "local")
    _, error = driver.communicate()
    assert driver.returncode == 3, error
    assert as_whole("l.csv")


@pytest.mark.slow
@pytest.mark.nightly
def test_scans_are_cleaned_to_the_same_tree(network, home, printed):
    for number in range(3):
        Path("scans/box").mkdir(parents=True, exist_ok=True)
        page = np.clip(215 * printed(60, 80, number), 0, 255).astype(np.uint8)
        Image.fromarray(page).save(f"scans/box/{number}{('.png', '.tif', '.pdf')[number]}")
    Path("scans/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    denoise = ("denoise", "scans", "--no-report", "-o")
    assert run(home, *denoise, "whole").returncode == 3
    driver = network.vaeguard(*denoise, "clean", *ADDRESS)
    _, error = driver.communicate()
    assert driver.returncode == 3, error
    trees = [
        {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        for folder in ("whole", "clean")
    ]
    assert trees[0] == trees[1]


class Here:
    """Calls tasks in this process."""

    def each(self, function, job, items):
        for number, item in enumerate(items):
            yield number, getattr(scan_tasks, function.rpartition(":")[2])(job, item)


def test_a_finished_scan_keeps_its_clean_file_from_one_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scan_tasks, "open_cluster", lambda *given: contextlib.nullcontext(Here()))
    Path("scans").mkdir()
    draw = np.random.default_rng(0)
    for name in ("a.jpg", "a.jpg.png"):  # both become a.jpg.png
        Image.fromarray(draw.integers(0, 255, (40, 50), np.uint8)).save(f"scans/{name}")
    denoise_share("scans", "clean", Share(1, 2), device="cpu")
    spread = scan_tasks.ScanSpread("local", ClusterSettings(), None)
    done = denoise_scans("scans", "clean", device="cpu", spread=spread)
    assert done.errors == (("scans/a.jpg.png", "it would be written to the same file as 'a.jpg'; rename one of them"),)
    assert json.loads(Path("clean/a.jpg.png.json").read_text())["source"] == "a.jpg"


def test_ray_is_imported_for_a_cluster_alone(home):
    code = (
        "import sys\n"
        "sys.argv[1:] = ['score', 'images', '-m', 'model.onnx', '-o', 'plain.csv', '--no-report']\n"
        "from vaeguard_cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    print(*[name for name in sys.modules if name.split('.')[0] == 'ray' or 'vaeguard.cluster' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("address", ["", "nowhere", "host:", ":6379", "host:port", "ray://host:1"[:3]])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UsageError, match="`cluster` is "):
        ray_cluster.check_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:99999", ".:1", "ray://127.0.0.1:1"])
def test_an_address_that_ray_would_try_for_minutes_is_refused_at_once(address, tmp_path, monkeypatch):
    if util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    monkeypatch.setenv("RAY_ADDRESS", address)
    with (
        pytest.raises(VaeguardError, match="there is no Ray cluster at"),
        ray_cluster.open_cluster("auto", ClusterSettings(), "cpu", tmp_path),
    ):
        pass


def test_where_nobody_listens_and_without_ray_one_sentence_says_what_to_do(home, monkeypatch):
    done = run(home, "score", "images", "-m", "model.onnx", "-o", "x.csv", "--cluster", "127.0.0.1:1")
    if util.find_spec("ray"):
        assert done.returncode == 1
        assert "error: there is no Ray cluster at '127.0.0.1:1'" in done.stderr
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    done = run(home, "score", "images", "-m", "model.onnx", "-o", "x.csv", "--cluster", "local")
    assert done.returncode == 2
    assert "error: --cluster needs Ray, which is not installed; run: pip install 'vaeguard[cluster]'" in done.stderr
    both = run(home, "score", "images", "-m", "model.onnx", "-o", "x.csv", "--cluster", "local", "--piece", "1/2")
    assert "--piece does one share of a job, and --cluster does the whole job" in both.stderr


def test_a_worker_of_another_version_or_with_another_model_refuses(home):
    versions = {**installed(PACKAGES), "vaeguard": "0.0.1"}
    kind, said, _ = worker.call(versions, "os:getcwd", None, None)
    assert (kind, said.split(";")[0]) == (
        "refused",
        f"vaeguard is {installed(PACKAGES)['vaeguard']}, but 0.0.1 on the machine that started the job",
    )
    job = ScoreJob(str(home), "model.onnx", "cpu", None, "onnx cpu other", "s.csv.job", ".csv", 0.05, 256, 1)
    said = r"'model\.onnx' has the digest 'onnx cpu \w+', but on the machine that started the job 'onnx cpu other'"
    with pytest.raises(RefusedError, match=said):
        scores.score_piece(job, (None, "key"))
    cuda = ScoreJob(str(home), "model.onnx", "cuda", None, "onnx cuda 1", "s.csv.job", ".csv", 0.05, 256, 1)
    with pytest.raises((UsageError, RefusedError), match="cuda|other"):
        scores.score_piece(cuda, (None, "key"))


def test_a_container_in_a_bucket_is_sent_without_its_copy(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8), np.uint8))
    monkeypatch.setattr(places, "fetch", lambda url, path: shutil.copy(tmp_path / "a.npy", path))
    given = Fetched("s3://bucket/a.npy", open_container)
    source = pickle.loads(pickle.dumps(Piece(given, 0, 0).alone())).source
    given.close()
    with source._copy() as copied:
        assert (source.path, copied.count) == ("s3://bucket/a.npy", 3)


def test_a_part_that_a_file_system_shows_late_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster.time, "sleep", lambda seconds: None)
    late = iter([None, None, None, "part"])
    assert ray_cluster.seen(lambda: next(late), "node", tmp_path) == "part"
    with pytest.raises(VaeguardError, match="node node wrote a part to .*, which this machine does not see"):
        ray_cluster.seen(lambda: None, "node", tmp_path)


def test_a_folder_that_a_node_does_not_have_is_named():
    job = ScoreJob("/nowhere", "model.onnx", "cpu", None, "", "s.csv.job", ".csv", 0.05, 256, 1)
    kind, said, _ = worker.call(installed(PACKAGES), "vaeguard.cluster.scores:score_piece", job, None)
    assert (kind, "'/nowhere'; use paths under which all nodes find" in said) == ("failed", True)


@pytest.mark.parametrize("settings", [{"cpus": 0}, {"gpus": -1.0}, {"patience": 0.0}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(UsageError, match=f"`{next(iter(settings))}`"):
        ClusterSettings(**settings)

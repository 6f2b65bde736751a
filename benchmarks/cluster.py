"""Jobs on a Ray cluster against the same jobs on one machine: bytes, kills, CPU seconds, and the driver's memory.

Ray runs in a network of its own, with the loopback alone. CPU seconds are those of every process of a job, and they
are compared within one run, since the machine may be busy.

python -m benchmarks.cluster [--only NAME ...] [--rows 100000] [--many 1000000]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

import vaeguard
from benchmarks.common import write_result
from vaeguard.cluster.ray_cluster import QUIET
from vaeguard.data.data_sets import open_images
from vaeguard.data.source import SHARD_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PORT = 6397
ADDRESS = ["--cluster", f"127.0.0.1:{PORT}"]
INSIDE = "VAEGUARD_BENCHMARK_INSIDE"
FILES, SCANS, BROKEN = 20_000, 40, 1000
WORKER_KILLS, DRIVER_KILLS = 20, 5
SETTLED = 2.0
"""Seconds after the end of a command in which the workers of its job end."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    """A command that ended: its exit code, what it said, CPU seconds of all processes, and its own peak in MB.

    `daemons` are the CPU seconds of Ray's own processes, which grow with the wall time.
    """

    code: int
    said: str
    cpu: float
    daemons: float
    peak: float
    seconds: float


def main() -> None:
    """Run the measurements that are asked for, and write each table when it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    options = parser.parse_args()
    if INSIDE not in os.environ:
        command = [sys.executable, "-m", "benchmarks.cluster", *sys.argv[1:]]
        wrapped = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
        os.execvpe(wrapped[0], wrapped, os.environ | {INSIDE: "1"})  # noqa: S606  (our own command)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the node of Ray ends, too
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # orphans of a job become children of this process, so their CPU is known
    os.environ.update(QUIET | {"RAY_raylet_start_wait_time_s": "90", "OMP_NUM_THREADS": "1"})
    with tempfile.TemporaryDirectory(prefix="vb-") as name, contextlib.chdir(name):
        make_model()
        with ray_node(
            "--head", f"--port={PORT}", "--num-cpus=1", "--include-dashboard=false", f"--temp-dir={name}/ray"
        ):
            for table in options.only:
                rows, notes = TABLES[table](options)
                write_result(f"cluster/{table}", TITLES[table], rows, notes)


def make_model() -> None:
    """Fit for a moment, since what a job costs does not depend on what was learnt, and export."""
    images = np.stack([digit(number) for number in range(1700)])[:, None]
    model = vaeguard.preset("mlp-400-400-20").model
    detector = vaeguard.fit(images, model=model, training=vaeguard.TrainSpec(epochs=2, device="cpu"))
    vaeguard.export(detector, "model.onnx")


_DIGITS: list[Any] = []


def digit(number: int) -> Any:
    """An image of 28x28, which is another one for each number."""
    if not _DIGITS:
        _DIGITS.extend(open_images("digits").images[:, 0])
    image = np.pad(_DIGITS[number % len(_DIGITS)].repeat(3, 0).repeat(3, 1), 2)
    image.reshape(-1)[:4] = list(number.to_bytes(4, "big"))
    return image


def encoded(number: int, broken: bool) -> bytes:
    """A PNG, or what looks like one."""
    buffer = io.BytesIO()
    Image.fromarray(digit(number)).save(buffer, "PNG")
    return buffer.getvalue()[:-40] if broken else buffer.getvalue()


def make_files(folder: str, count: int, broken: int = 0) -> None:
    """Image files, of which every `broken`-th is cut."""
    Path(folder).mkdir()
    for number in range(count):
        content = encoded(number, bool(broken) and number % broken == 7)
        Path(folder, f"{number:06d}.png").write_bytes(content)


def make_parquet(path: str, count: int) -> None:
    """A Parquet file of images, in row groups of a few thousand."""
    schema = pa.schema({"image": pa.binary()})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, 4096):
            cells = [encoded(number, broken=False) for number in range(start, min(start + 4096, count))]
            writer.write_table(pa.table({"image": cells}, schema))


def make_scans(folder: str) -> None:
    """Scans as TIFF of two pages, PDF and PNG, and one that is broken."""
    Path(folder, "box").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(SCANS):
        page = Image.new("L", (320, 240), 225)
        ImageDraw.Draw(page).text((10, 30), f"page number {number} of a box", fill=30)
        noisy = np.clip(np.asarray(page) + 8 * draw.standard_normal((240, 320)), 0, 255).astype(np.uint8)
        suffix = (".tif", ".pdf", ".png")[number % 3]
        more: dict[str, Any] = {"save_all": True, "append_images": [page]} if suffix == ".tif" else {}
        Image.fromarray(noisy).save(Path(folder, "box" if number % 2 else "", f"{number:02d}{suffix}"), **more)
    Path(folder, "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")


@contextlib.contextmanager
def ray_node(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node of Ray in a process group of its own."""
    ray = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block"]
    given = ["--disable-usage-stats", "--node-ip-address=127.0.0.1", "--object-store-memory=80000000", *options]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    node = subprocess.Popen([*ray, *given], start_new_session=True, **quiet)  # noqa: S603 -- our own command
    time.sleep(8)
    try:
        yield node
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def alive() -> dict[int, list[str]]:
    """The state of every process below this one, by its number."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            stats[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()
    below = {os.getpid()}
    while more := {number for number, stat in stats.items() if int(stat[1]) in below} - below:
        below |= more
    return {number: stats[number] for number in below - {os.getpid()}}


class Meter:
    """CPU seconds of all processes below this one, looked at often: the node of Ray does not wait for its workers."""

    def __init__(self) -> None:
        self._before = self._spent()
        self._last: dict[int, float] = {}
        self._daemons: dict[int, bool] = {}

    def look(self) -> None:
        """Note what each process has spent so far."""
        self._last.update(self._spent())
        for number in self._last.keys() - self._daemons.keys():
            self._daemons[number] = _is_daemon(number)

    def seconds(self, *, daemons: bool = False) -> float:
        """What all of them have spent since the beginning, or only the daemons of Ray."""
        spent = {number: spent - self._before.get(number, 0.0) for number, spent in self._last.items()}
        return sum(seconds for number, seconds in spent.items() if not daemons or self._daemons[number])

    @staticmethod
    def _spent() -> dict[int, float]:
        return {number: sum(map(int, stat[11:13])) / TICKS for number, stat in alive().items()}


def _is_daemon(number: int) -> bool:
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{number}/cmdline").read_bytes()
        return any(
            name in command
            for name in (b"raylet/raylet", b"gcs_server", b"ray::RuntimeEnv", b"ray/_private", b"ray.scripts")
        )
    return False


def workers() -> list[int]:
    """The processes of Ray that run a task."""
    found = []
    for number in alive():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{number}/cmdline").read_bytes().startswith(b"ray::call"):
                found.append(number)
    return found


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the command."""
    command = [str(Path(sys.executable).with_name("vaeguard")), *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603


def run(*arguments: str) -> Run:
    """Run the command."""
    meter, begun = Meter(), time.monotonic()
    process = start(*arguments)
    peak, ended = 0.0, 0.0
    while not ended or time.monotonic() - ended < SETTLED:
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.partition("RssAnon:")[2].split()[0]) / 1024)
        meter.look()
        time.sleep(0.02)
        if not ended and process.poll() is not None:
            ended = time.monotonic()
    assert process.stderr
    said = process.stderr.read()
    process.stderr.close()
    return Run(process.returncode, said, meter.seconds(), meter.seconds(daemons=True), peak, ended - begun)


def score(images: str, output: str, *more: str) -> list[str]:
    """The arguments of a job of scores."""
    return ["score", images, "-m", "model.onnx", "--device", "cpu", "-o", output, "--no-report", *more]


def same(one: str, other: str) -> bool:
    """Whether two tables and their lists of errors have the same bytes."""
    pairs = [(Path(one), Path(other)), (Path(f"{one}.errors.csv"), Path(f"{other}.errors.csv"))]
    return all(a.exists() == b.exists() and (not a.exists() or a.read_bytes() == b.read_bytes()) for a, b in pairs)


def same_tree(one: str, other: str) -> bool:
    """Whether two folders have the same files with the same bytes."""
    trees = [
        {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
        for folder in (one, other)
    ]
    return trees[0] == trees[1]


def equality(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare tables and trees, and CPU seconds."""
    make_files("files", FILES, BROKEN)
    make_parquet("rows.parquet", options.rows)
    make_files("one", 1)
    make_scans("scans")
    first = {where: run(*score("one", f"one-{where}.csv", *more)) for where, more in (("local", []), ("ray", ADDRESS))}
    begin = first["ray"].cpu - first["local"].cpu
    rows = []
    for what, images in (
        (f"{FILES:,} PNG, 1 in {BROKEN:,} broken", "files"),
        (f"{options.rows:,} rows", "rows.parquet"),
    ):
        local, ray = run(*score(images, f"{images}.l.csv")), run(*score(images, f"{images}.r.csv", *ADDRESS))
        rows.append(
            {
                "job": what,
                "bytes equal": same(f"{images}.l.csv", f"{images}.r.csv"),
                "exit codes": f"{local.code}, {ray.code}",
                "left out": sum(1 for line in _lines(f"{images}.r.csv.errors.csv")),
                "CPU s, one machine": local.cpu,
                "CPU s, cluster": ray.cpu,
                "of these Ray's daemons": ray.daemons,
                "wall s, cluster": ray.seconds,
                "ratio without the start of Ray": (ray.cpu - begin) / local.cpu,
            }
        )
    denoise = ["denoise", "scans", "--device", "cpu", "--no-report", "-o"]
    local, ray = run(*denoise, "clean"), run(*denoise, "clean-ray", *ADDRESS)
    rows.append(
        {
            "job": f"{SCANS} scans and a broken one",
            "bytes equal": same_tree("clean", "clean-ray"),
            "exit codes": f"{local.code}, {ray.code}",
            "left out": sum(1 for line in _lines("clean-ray/pages.csv.errors.csv")),
            "CPU s, one machine": local.cpu,
            "CPU s, cluster": ray.cpu,
            "of these Ray's daemons": ray.daemons,
            "wall s, cluster": ray.seconds,
            "ratio without the start of Ray": (ray.cpu - begin) / local.cpu,
        }
    )
    return rows, [f"One worker. Joining the cluster costs {begin:.1f} CPU s, measured on one image."]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()[1:] if Path(path).exists() else []


def kills(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Kill workers, drivers and a node at random moments."""
    del options
    if not Path("files").is_dir():
        make_files("files", FILES, BROKEN)
    run(*score("files", "whole.csv"))
    draw = random.Random(0)  # noqa: S311  (no secret)
    rows = [
        _killed("a worker", WORKER_KILLS, draw, _kill_worker),
        _killed("the driver", DRIVER_KILLS, draw, lambda process: process.kill()),
    ]
    with ray_node(f"--address=127.0.0.1:{PORT}", "--num-cpus=1") as node:
        rows.append(_killed("a node", 1, draw, lambda _: os.killpg(node.pid, signal.SIGKILL)))
    return rows, [f"{FILES:,} PNG in pieces of 4,096. A job whose driver was killed is started again."]


def _kill_worker(_: subprocess.Popen[str]) -> bool:
    for number in workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
            return True
    return False


def _killed(what: str, count: int, draw: random.Random, kill: Callable[[Any], object]) -> dict[str, Any]:
    done = jobs = wrong = 0
    while done < count:
        jobs += 1
        for path in Path().glob("*k.csv*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        code = None
        while code not in (0, 3):
            process = start(*score("files", "k.csv", *ADDRESS))
            while process.poll() is None:
                if done < count and _begun("k.csv.job"):
                    time.sleep(draw.uniform(0, 1.5))
                    done += (kill(process) is not False and process.poll() is None) or what == "a node"
                time.sleep(0.05)
            assert process.stderr
            said = process.stderr.read()
            process.stderr.close()
            code = process.wait()
            if code not in (0, 3, -signal.SIGKILL):
                print(code, said, flush=True)
                wrong += 1
                break
        wrong += not same("k.csv", "whole.csv") or Path("k.csv.job").exists()
    return {"killed": what, "times": done, "jobs": jobs, "tables that differ or lie unfinished": wrong}


def _begun(job: str) -> bool:
    return bool(workers()) and Path(job).is_dir()


def memory(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure the driver's peak for few and for many rows."""
    rows: list[dict[str, Any]] = []
    few = 0.0
    for count in (1000, options.many):
        make_parquet(f"{count}.parquet", count)
        done = run(*score(f"{count}.parquet", f"{count}.csv", *ADDRESS))
        rows.append(
            {
                "rows": f"{count:,}",
                "exit code": done.code,
                "rows written": len(_lines(f"{count}.csv")),
                "driver's peak of private memory, MB": done.peak,
                "against few": done.peak / (few := few or done.peak),
                "CPU s": done.cpu,
            }
        )
    return rows, ["Without the report; `RssAnon` of the command, looked at 20 times a second."]


def parallel(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure one and two workers on images that cost some milliseconds each, in four pieces."""
    del options
    Path("large").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (640, 768, 3), np.uint8)
    for number in range(4 * SHARD_ROWS):
        path = Path(f"large/{number:05d}.jpg")
        if number < 256:
            Image.fromarray(np.roll(noise, number, 0)).save(path, quality=90)
        else:
            path.hardlink_to(f"large/{number % 256:05d}.jpg")
    seconds = [run(*score("large", "large-1.csv", *ADDRESS)).seconds]
    with ray_node(f"--address=127.0.0.1:{PORT}", "--num-cpus=1"):
        seconds.append(run(*score("large", "large-2.csv", *ADDRESS)).seconds)
    row = {"1 worker, s": seconds[0], "2 workers, s": seconds[1], "times as fast": seconds[0] / seconds[1]}
    return [row], [f"{4 * SHARD_ROWS:,} JPEG of 768x640; wall time, start of the command included."]


TABLES: dict[str, Callable[[argparse.Namespace], tuple[list[dict[str, Any]], list[str]]]] = {
    "equality": equality,
    "kills": kills,
    "memory": memory,
    "parallel": parallel,
}
TITLES = {
    "equality": "Jobs on a cluster against the same jobs on one machine",
    "kills": "Jobs on a cluster whose processes are killed at random moments",
    "memory": "Memory of the driver",
    "parallel": "One worker and two",
}

if __name__ == "__main__":
    main()

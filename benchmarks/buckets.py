"""Requests for images in a bucket, and what killed writers leave there: a server of S3 on this machine, by moto.

python -m benchmarks.buckets
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import vaeguard
from benchmarks.common import write_result

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = 4_000
KILLED_IMAGES, SCANS = 1_000, 12
KILLS = {"score": 35, "denoise": 15}
BUCKET = "images"
SMALL_PARTS = "import vaeguard.data.source as s; s.SHARD_ROWS = 50; from vaeguard_cli.main import main; main()"


class Server:
    """A server of S3 in a process of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log = folder / "requests.log"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 -- our own command
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        self.client = boto3.client("s3")
        self.client.create_bucket(Bucket=BUCKET)

    def put_tree(self, folder: Path, key: str) -> None:
        """Upload a folder."""
        for path in filter(Path.is_file, folder.rglob("*")):
            name = f"{key}/{path.relative_to(folder)}"
            self.client.put_object(Bucket=BUCKET, Key=name, Body=path.read_bytes())

    def objects(self, prefix: str) -> dict[str, bytes]:
        """What lies below a prefix, without the marks of folders."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", ()) if not found["Key"].endswith("/")]
        return {key: self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def clear(self, prefix: str) -> None:
        """Remove what lies below a prefix."""
        for key in self.objects(prefix):
            self.client.delete_object(Bucket=BUCKET, Key=key)

    @contextlib.contextmanager
    def counted(self) -> Iterator[dict[str, int]]:
        """The requests within the block, by kind."""
        counts: dict[str, int] = {"LIST": 0, "HEAD": 0, "GET": 0}
        before = self.log.stat().st_size
        yield counts
        for verb, path in re.findall(rb"(GET|PUT|DELETE|POST|HEAD) (\S+) HTTP", self.log.read_bytes()[before:]):
            kind = "LIST" if b"list-type" in path else verb.decode()
            counts[kind] = counts.get(kind, 0) + 1


def write_inputs(home: Path) -> None:
    """Images as files, in two tars and in two Parquet files; and a few scans."""
    rng = np.random.default_rng(0)
    files = []
    for pixels in rng.integers(0, 256, (IMAGES, 7, 7), dtype=np.uint8).repeat(4, 1).repeat(4, 2):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        files.append(file.getvalue())
    for name in ("files", "tars", "tables", "some", "scans"):
        (home / name).mkdir()
    for row, content in enumerate(files):
        (home / "files" / f"{row:05d}.png").write_bytes(content)
        if row < KILLED_IMAGES:
            (home / "some" / f"{row:05d}.png").write_bytes(content)
    half = IMAGES // 2
    for part in range(2):
        with tarfile.open(home / "tars" / f"{part}.tar", "w") as archive:
            for row in range(part * half, (part + 1) * half):
                member = tarfile.TarInfo(f"{row:05d}.png")
                member.size = len(files[row])
                archive.addfile(member, io.BytesIO(files[row]))
        cells = pa.array(files[part * half : (part + 1) * half], pa.binary())
        pq.write_table(pa.table({"image": cells}), home / "tables" / f"{part}.parquet")
    for number in range(SCANS):
        page = np.clip(rng.normal(230, 12, (160, 200)), 0, 255).astype(np.uint8)
        Image.fromarray(page).save(home / "scans" / f"{number:02d}.png")


def command(*arguments: str) -> list[str]:
    """`vaeguard` with small parts, so that a kill finds some."""
    return [sys.executable, "-c", SMALL_PARTS, *arguments]


def run(*arguments: str) -> None:
    """Run a command to its end."""
    subprocess.run(command(*arguments), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603


def requests(server: Server, home: Path, model: str) -> list[dict[str, Any]]:
    """The requests for each kind of place, and whether the table is that of local files."""
    rows = []
    for name, given in (
        ("files", "files"),
        ("tars", "tars/*.tar"),
        ("tables", "tables"),
        ("files and report", "files"),
    ):
        here, there = home / "here.csv", home / "there.csv"
        report = [] if "report" in name else ["--no-report"]
        run("score", str(home / given), "-m", model, "-o", str(here), *report)
        with server.counted() as counts:
            run("score", f"s3://{BUCKET}/{given}", "-m", model, "-o", str(there), *report)
        same = there.read_text() == here.read_text().replace(str(home), f"s3://{BUCKET}")
        rows.append(
            {
                "images": name,
                "listings": counts["LIST"],
                "GETs an image": counts["GET"] / IMAGES,
                "HEADs an image": counts["HEAD"] / IMAGES,
                "table as of local files": same,
            }
        )
        for path in home.glob("*here.csv*"):
            path.unlink()
    return rows


def halves(objects: dict[str, bytes], whole: dict[str, bytes]) -> int:
    """Objects that are not whole: other bytes than in an unbroken job, or a manifest without what it promises."""
    count = 0
    for key, content in objects.items():
        if key in whole:
            count += content != whole[key] and not key.endswith(("report.json", "report.html"))
        elif key.endswith(".json") and ".job/" in key:
            written = json.loads(content).get("written", {})
            folder = key.rpartition("/")[0]
            digests = (sha256(objects.get(f"{folder}/{name}", b"")).hexdigest() for name in written)
            count += [*digests] != [*written.values()]
        elif key.endswith(".csv") and ".job/" in key:
            count += content.count(b"\n") != 51 or not content.endswith(b"\n")
    return count


def killed(server: Server, kind: str, arguments: list[str], out: str) -> dict[str, Any]:
    """Kill a writer at random moments, look at what is visible, and have the last one end."""
    rng = np.random.default_rng(1)
    started = time.perf_counter()
    run(*arguments)
    seconds = time.perf_counter() - started
    whole = server.objects(out)
    server.clear(out)
    kills = visible = objects = different = 0
    while kills < KILLS[kind]:
        process = subprocess.Popen(  # noqa: S603 -- our own command
            command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(rng.uniform(0.3, 1.05) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            found = server.objects(out)
            objects, visible = objects + len(found), visible + halves(found, whole)
        else:
            different += process.returncode != 0 or _differ(server.objects(out), whole)
            server.clear(out)
    run(*arguments)
    different += _differ(server.objects(out), whole)
    return {
        "writer": kind,
        "killed": kills,
        "objects looked at": objects,
        "half objects": visible,
        "results that differ in the end": different,
    }


def _differ(found: dict[str, bytes], whole: dict[str, bytes]) -> bool:
    """Whether a finished output has other objects, or other bytes, apart from times in reports."""
    return found.keys() != whole.keys() or bool(halves(found, whole))


def main() -> None:
    """Measure, and write both tables."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        server = Server(home)
        try:
            write_inputs(home)
            for folder in ("files", "tars", "tables", "some", "scans"):
                server.put_tree(home / folder, folder)
            model = str(home / "model.onnx")
            images = np.random.default_rng(2).integers(0, 256, (1000, 1, 28, 28), dtype=np.uint8)
            fitted = vaeguard.fit(
                images, model=vaeguard.preset("mlp-400-400-20").model, training=vaeguard.TrainSpec(epochs=1)
            )
            vaeguard.export(fitted, model)
            rows = requests(server, home, model)
            notes = [f"{IMAGES:,} images of 28x28; pyarrow sends a HEAD before it reads an object."]
            write_result("buckets/requests", "requests for images in a bucket", rows, notes)
            score = ["score", f"s3://{BUCKET}/some", "-m", model, "-o", f"s3://{BUCKET}/out/scores.csv"]
            denoise = ["denoise", f"s3://{BUCKET}/scans", "-o", f"s3://{BUCKET}/clean"]
            rows = [
                killed(server, "score", [*score, "--no-report"], "out/"),
                killed(server, "denoise", [*denoise, "--no-report"], "clean/"),
            ]
            notes = [f"{KILLED_IMAGES:,} images in parts of 50, {SCANS} scans; killed by SIGKILL at random moments."]
            write_result("buckets/kills", "what killed writers leave in a bucket", rows, notes)
        finally:
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()

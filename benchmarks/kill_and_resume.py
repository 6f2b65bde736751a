"""Kill `vaeguard score` at 100 random moments, start it again each time, and compare the table with an unbroken job's.

python -m benchmarks.kill_and_resume
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import vaeguard
from benchmarks.common import write_result

KILLS = 100
IMAGES = 40_000


def main() -> None:
    """Kill, resume, compare, and write the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, 1, 7, 7), dtype=np.uint8).repeat(4, 2).repeat(4, 3)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        np.save(home / "images.npy", images)
        training = vaeguard.TrainSpec(epochs=2)
        detector = vaeguard.fit(images[:2000], model=vaeguard.preset("mlp-400-400-20").model, training=training)
        vaeguard.export(detector, home / "model.onnx")
        command = [str(Path(sys.executable).with_name("vaeguard")), "score", str(home / "images.npy")]
        command += ["-m", str(home / "model.onnx"), "--device", "cpu", "-o"]
        started = time.perf_counter()
        _run([*command, str(home / "whole.csv")])
        whole = time.perf_counter() - started
        jobs = kills = torn = 0
        while kills < KILLS:
            jobs += 1
            while not (home / "killed.csv").exists():
                process = subprocess.Popen(  # noqa: S603 -- our own command
                    [*command, str(home / "killed.csv")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                try:
                    process.wait(generator.uniform(0, whole))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    kills += 1
            torn += (home / "killed.csv").read_bytes() != (home / "whole.csv").read_bytes()
            _run([*command, str(home / "killed.csv")])  # what a kill after the last rename left is swept up
            torn += (home / "killed.csv").read_bytes() != (home / "whole.csv").read_bytes()
            left = {path.name for path in home.iterdir()} - {"images.npy", "model.onnx", "whole.csv", "killed.csv"}
            torn += len(left)
            (home / "killed.csv").unlink()
    row = {"kills": kills, "jobs that they hit": jobs, "tables torn or different, files left behind": torn}
    notes = [f"{IMAGES:,} packed images; an unbroken job takes {whole:.1f} s; each is killed until it ends."]
    write_result("kill_and_resume", "score killed at random moments", [row], notes)
    if torn:
        raise SystemExit(f"{torn} tables or files are wrong")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 -- our own command


if __name__ == "__main__":
    main()

"""Kill commands at random moments, run them again, and count what is torn, lost or left.

Each command is killed twenty times with SIGKILL, at moments spread over its usual time. Then it runs to its end, and
its folder is compared with that of a run that nobody killed: the files that must be equal, and no temporary file, lock
or job left.

Usage: python -m benchmarks.killed [COMMAND ...]    (fit export score denoise tune)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

KILLS = 20
FIT = ["fit", "digits", "--normal-classes", "0-8", "--epochs", "3", "--set", "model.pseudo_classes=0", "-o"]


@dataclass(frozen=True)
class Case:
    """A command, how it goes on after a kill, and the files that must come out equal."""

    command: list[str]
    again: list[str]
    equal: str


CASES = {
    "fit": Case([*FIT, "run"], [*FIT, "run", "--resume"], "run/model.safetensors"),
    "export": Case(["export", "-m", "../fitted", "-o", "m.onnx"], [], "m.onnx"),
    "score": Case(["score", "../images", "-m", "../m.onnx", "-o", "s.csv"], [], "s.csv"),
    "denoise": Case(["denoise", "../scans", "-o", "clean"], [], "clean/**/*.png"),
    "tune": Case(["tune", "digits", "--normal-classes", "0-8", "--trials", "2", "-o", "study"], [], "study/best.toml"),
}


def vaeguard(arguments: list[str], folder: Path, seconds: float | None = None) -> tuple[int, str]:
    """Run a command in `folder`, killed after `seconds`; return its exit code and what it said."""
    command = [str(Path(sys.executable).with_name("vaeguard")), *arguments]
    with subprocess.Popen(  # noqa: S603  (our own command)
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            said = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said = process.communicate()[1]
    return process.returncode, said


def inputs(folder: Path) -> None:
    """Images, scans, a fitted model and its export."""
    generator = np.random.default_rng(0)
    for name, size in (("images", 8), ("scans", 96)):
        (folder / name).mkdir()
        for number in range(12 if name == "scans" else 200):
            pixels = generator.integers(100, 140, (size, size)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    for arguments in ([*FIT, "fitted"], ["export", "-m", "fitted", "-o", "m.onnx"]):
        assert vaeguard(arguments, folder)[0] == 0


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """The digest of each file that must be equal."""
    found = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def remains(folder: Path) -> list[str]:
    """Temporary files, locks and folders of jobs."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return [name for name in names if "-vaeguard-" in name or name.endswith((".job", ".lock", "lock"))]


def measure(name: str, root: Path, generator: np.random.Generator) -> dict[str, int]:
    """Kill a command `KILLS` times and count the outcomes."""
    case, whole = CASES[name], root / f"{name}-whole"
    whole.mkdir()
    started = time.monotonic()
    code, said = vaeguard(case.command, whole)
    assert code == 0, said
    usual, expected = time.monotonic() - started, digests(whole, case.equal)
    assert expected, f"{name} wrote no {case.equal}"
    counts = dict.fromkeys(("killed", "finished before", "left something", "failed again", "torn", "left for good"), 0)
    for number in range(KILLS):
        folder = root / f"{name}-{number}"
        folder.mkdir()
        code, _ = vaeguard(case.command, folder, generator.uniform(0.2, 1.0) * usual)
        counts["killed" if code == -signal.SIGKILL else "finished before"] += 1
        counts["left something"] += bool(remains(folder))
        begun = digests(folder, case.equal)
        counts["torn"] += any(digest != expected.get(path) for path, digest in begun.items())
        if name == "fit" and begun and code != -signal.SIGKILL:
            continue  # a finished run is not fitted again
        code, said = vaeguard(case.again or case.command, folder)
        done = code == 0 or (name == "fit" and "holds a finished model" in said)
        counts["failed again"] += not done
        counts["torn"] += digests(folder, case.equal) != expected
        counts["left for good"] += bool(remains(folder))
        if not done or remains(folder) or digests(folder, case.equal) != expected:
            print(name, number, code, said.strip()[-300:], remains(folder), file=sys.stderr)
        shutil.rmtree(folder)
    return counts


def main() -> None:
    """Measure the commands that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=", ".join(CASES))
    chosen = parser.parse_args().commands
    with tempfile.TemporaryDirectory() as folder:
        inputs(Path(folder))
        for name in chosen or CASES:
            print(name, measure(name, Path(folder), np.random.default_rng(0)), flush=True)


if __name__ == "__main__":
    main()

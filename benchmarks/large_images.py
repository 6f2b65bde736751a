"""Images of 48 million pixels by tiles: the peak memory of all processes, and whether a defect of 12 pixels is found.

python -m benchmarks.large_images [--height 6000] [--width 8000] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import write_result

NORMAL = 20
DEFECT = 12
"""Side of a defect in pixels."""


def main() -> None:
    """Make the images, fit, export and score in processes of their own, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=6000)
    parser.add_argument("--width", type=int, default=8000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).absolute()
        places = _make(folder, (options.height, options.width))
        run, size = f"{folder}/run", f"{options.height}x{options.width}"
        rows = [
            _measured("fit", f"{folder}/fit", "-o", run, "--features", "efficientnet-lite0", "--size", size),
            _measured("export", "-m", run, "-o", f"{folder}/model.onnx"),
            _measured("score", f"{folder}/new", "-m", f"{folder}/model.onnx", "-o", f"{folder}/scores.csv"),
        ]
        with Path(f"{folder}/scores.csv").open(encoding="utf-8", newline="") as file:
            scores = {Path(row["path"]).stem: float(row["score"]) for row in csv.DictReader(file)}
        rows[-1] |= {f"score of {name}": score for name, score in sorted(scores.items())}
        found = _found(f"{folder}/model.onnx", folder / "new", places)
        write_result("large_images", f"Images of {options.width} x {options.height} pixels by tiles", rows, [found])


def _make(folder: Path, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Woven textures with noise, and in two new ones a darker square of 12 pixels at the places returned."""
    places = {"defect-1": (size[0] // 3, size[1] // 2), "defect-2": (size[0] - 40, size[1] - 60)}
    for number, name in enumerate([*(f"fit/{n:02d}" for n in range(NORMAL)), "new/good-1", "new/good-2", *places]):
        path = folder / (f"new/{name}.tif" if name in places else f"{name}.tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        rows, columns = (np.sin(np.arange(side) / 3 + rng.uniform(0, 6)).astype(np.float32) for side in size)
        image = 128 + 20 * rows[:, None] * columns + rng.normal(0, 6, size).astype(np.float32)
        if name in places:
            top, left = places[name]
            image[top : top + DEFECT, left : left + DEFECT] -= 50
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return places


def _measured(*arguments: str) -> dict[str, float | str]:
    """Run a command of vaeguard: its seconds, and the peak of the memory of all its processes."""
    started, most = time.perf_counter(), 0.0
    program = Path(sys.executable).with_name("vaeguard")
    process = subprocess.Popen([program, *arguments])  # noqa: S603
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.3):
            most = max(most, _memory(process.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    failed = process.wait()
    done.set()
    thread.join()
    if failed:
        raise SystemExit(f"vaeguard {' '.join(arguments)} ended with {failed}")
    return {"command": arguments[0], "s": time.perf_counter() - started, "peak of all processes, MB": most}


def _memory(pid: int) -> float:
    """The proportional memory of a process and of all that it started, in MB, without pages of mapped files."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        threads = Path(f"/proc/{pid}/task").iterdir()
        children += [c for thread in threads for c in (thread / "children").read_text(encoding="utf-8").split()]
    except OSError:  # it has ended
        return 0.0
    own = sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1024
    return own + sum(_memory(int(child)) for child in set(children))


def _found(model: str, folder: Path, places: dict[str, tuple[int, int]]) -> str:
    """Where the heatmap of an image with a defect is hottest, beside where the defect is."""
    import vaeguard

    detector, texts = vaeguard.load(model, "cpu"), []
    for name, (top, left) in places.items():
        image = np.asarray(Image.open(folder / f"{name}.tif"))[None, None]
        heatmap = detector.inspect(image, pictures=True).heatmap
        assert heatmap is not None
        at = np.unravel_index(heatmap[0].argmax(), heatmap[0].shape)
        texts.append(f"{name}: centre at {top + DEFECT // 2}, {left + DEFECT // 2}, hottest at {at[0]}, {at[1]}")
    return "; ".join(texts)


if __name__ == "__main__":
    main()

"""ONNX Runtime against PyTorch, files and packed images against their limits, start-up, memory: all in one run.

python -m benchmarks.inference
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from PIL import Image

import vaeguard
from benchmarks.common import data_dir, write_result
from vaeguard.data.folders import list_images
from vaeguard.engines.run_folder import calibration_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaeguard import Detector

BATCHES = (1, 7, 64, 256)
ROUNDS = 3
FILES, LARGE_FILES = 10_000, 400
PACKED = 60_000
MEMORY_IMAGES = (1_000, 100_000)
NOTE = (
    "Relative errors are against the value or the output's mean magnitude, the larger of the two, on calibration "
    "images and noise. Decoding alone is Pillow, in one thread or one per core, whichever is faster; the model "
    "alone is a bare session of ONNX Runtime with all cores. GPU: not measured."
)
RUN_CODE = """
import resource, sys, vaeguard
before = resource.getrusage(resource.RUSAGE_SELF)
detector = vaeguard.load(sys.argv[1], "cpu", threads=1)
vaeguard.score_files(detector, [sys.argv[2]], sys.argv[3])
after = resource.getrusage(resource.RUSAGE_SELF)
peak = next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak, after.ru_utime + after.ru_stime, "torch" in sys.modules)
"""


def fit_models(home: Path) -> dict[str, Path]:
    """One model of each kind and size, fitted briefly, and exported."""
    mnist = vaeguard.open_images("mnist", data_dir=data_dir())
    some = vaeguard.from_array(mnist.images[:12_000], np.asarray(mnist.labels)[:12_000])
    large, wide = (photographs(size, count) for size, count in ((64, 600), (256, 120)))
    settings: dict[str, tuple[Any, Any, Any]] = {
        "mlp-400-400-20": (some, vaeguard.preset("mlp-400-400-20").model, {"epochs": 5}),
        "mlp": (some, vaeguard.ModelSpec(kind="mlp", guided=True), {"epochs": 5}),
        "conv 28x28": (some, vaeguard.ModelSpec(kind="conv", guided=True), {"epochs": 3}),
        "conv 64x64x3": (large, vaeguard.ModelSpec(kind="conv"), {"epochs": 40}),
        "conv 256x256x3": (wide, vaeguard.ModelSpec(kind="conv"), {"epochs": 15, "batch_size": 8}),
        "patches 64x64x3": (large, vaeguard.preset("patches").model, {"epochs": 3}),
    }
    runs = {}
    for name, (images, model, changed) in settings.items():
        runs[name] = home / name.replace(" ", "-")
        training = vaeguard.TrainSpec(**changed)
        vaeguard.fit(images, normal_classes=None, model=model, training=training, run=runs[name])
        vaeguard.export(
            vaeguard.load(runs[name], "cpu"),
            runs[name] / "model.onnx",
            images=calibration_images(runs[name]),
        )
    return runs


def photographs(size: int, count: int) -> vaeguard.ImageSet:
    """Smooth colour images with a texture, which compress about as photographs do."""
    generator = np.random.default_rng(0)
    coarse = generator.uniform(0, 255, (count, 3, 3, 3)).astype(np.uint8)
    smooth = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in coarse]
    noisy = np.stack(smooth).astype(np.float32) + generator.normal(0, 4, (count, size, size, 1))
    return vaeguard.from_array(np.clip(noisy, 0, 255).astype(np.uint8))


def engines(runs: dict[str, Path], _: Path) -> list[dict[str, Any]]:
    """Parity and speed of both engines on one thread, for every model and batch size."""
    import torch

    torch.set_num_threads(1)
    rows = []
    for name, run in runs.items():
        eager, exported = vaeguard.load(run, "cpu"), vaeguard.load(run / "model.onnx", "cpu")
        images = calibration_images(run)
        assert images is not None
        parity = vaeguard.verify(exported, eager, images)
        session = bare_session(run / "model.onnx")
        small = images[0].size < 10_000 and "patches" not in name
        for size in BATCHES if small else BATCHES[:3]:
            batch = np.resize(images, (size, *images.shape[1:]))
            torch_rate, onnx_rate = rates(batch, eager_run(eager, batch), partial(session, {"image": batch}))
            rows.append({
                "model": name,
                "batch": size,
                "largest relative error": max(error for key, error in parity.errors.items() if key != "p_value"),
                "of the score": parity.errors["score"],
                "images out of order": parity.swapped,
                "decisions differ": parity.decisions,
                "same bits in any batch": parity.same_bits,
                "PyTorch eager, images/s": torch_rate,
                "ONNX Runtime, images/s": onnx_rate,
                "ratio": onnx_rate / torch_rate,
            })  # fmt: skip
    return rows


def eager_run(detector: Detector, batch: np.ndarray[Any, Any]) -> Callable[[], object]:
    """PyTorch's own pass through the graph, without the detector's blocks."""
    import torch

    def run() -> object:
        with torch.inference_mode():
            return detector.graph(torch.from_numpy(batch))  # type: ignore[attr-defined]

    return run


def bare_session(path: Path, threads: int = 1) -> Callable[[dict[str, Any]], object]:
    """ONNX Runtime as one would call it without vaeguard; score, p-value and terms only."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = [each.name for each in session.get_outputs() if each.name not in ("restored", "heatmap", "anomaly")]
    return lambda feeds: session.run(wanted, feeds)


def rates(batch: np.ndarray[Any, Any], *runs: Callable[[], object]) -> list[float]:
    """Images per second of each of `runs`, in turns; the median of the rounds."""
    repeats = max(1, 256 // len(batch))
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS + 1):
        for run, taken in zip(runs, seconds, strict=True):
            started = time.perf_counter()
            for _ in range(repeats):
                run()
            taken.append((time.perf_counter() - started) / repeats)
    return [len(batch) / statistics.median(taken[1:]) for taken in seconds]


def end_to_end(runs: dict[str, Path], home: Path) -> list[dict[str, Any]]:
    """Files through the whole job, against decoding alone and the model alone, each with all cores."""
    mnist = vaeguard.open_images("mnist", data_dir=data_dir()).images[:FILES]
    photos = photographs(256, LARGE_FILES).images
    cases = [
        ("PNG 28x28", "mlp-400-400-20", write(mnist, home / "png28", "png")),
        ("PNG 28x28", "mlp", home / "png28"),
        ("PNG 28x28", "conv 28x28", home / "png28"),
        ("PNG 256x256", "conv 256x256x3", write(photos, home / "png256", "png")),
        ("JPEG 256x256", "conv 256x256x3", write(photos, home / "jpg256", "jpg")),
    ]
    rows = []
    for files, name, folder in cases:
        model = runs[name] / "model.onnx"
        images = mnist if "28x28" in files else photos
        taken = [
            (decode_seconds(folder), model_seconds(model, images), score_seconds(model, folder, home / "scores.csv"))
            for _ in range(ROUNDS)
        ]
        decode, inspect, score = (statistics.median(column) for column in zip(*taken, strict=True))
        ratio = statistics.median(max(one, two) / whole for one, two, whole in taken)
        rows.append({
            "files": files,
            "model": name,
            "decoding alone, images/s": len(images) / decode,
            "model alone, images/s": len(images) / inspect,
            "score, images/s": len(images) / score,
            "score rate / rate of the slower": ratio,
        })  # fmt: skip
    return rows


def write(images: Any, folder: Path, suffix: str) -> Path:
    """The images as files."""
    folder.mkdir()
    for number, image in enumerate(images):
        pixels = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / f"{number:05d}.{suffix}", quality=90)
    return folder


def decode_seconds(folder: Path) -> float:
    """Seconds to decode every file with Pillow: in one thread or in one per core, whichever is faster here."""
    paths = list_images([folder])

    def decode(some: list[str]) -> None:
        for path in some:
            with Image.open(path) as image:
                np.asarray(image)

    seconds = []
    for threads in (1, cores()):
        started = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, [paths[start::threads] for start in range(threads)]))
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def model_seconds(model: Path, images: Any) -> float:
    """Seconds of the bare session for all images, with all cores."""
    session = bare_session(model, cores())
    started = time.perf_counter()
    size = 256 if images.shape[2] < 100 else 16
    for start in range(0, len(images), size):
        session({"image": np.ascontiguousarray(images[start : start + size])})
    return time.perf_counter() - started


def score_seconds(model: Path, images: Path, table: Path) -> float:
    """Seconds that the command reports for the whole job: list, decode, inspect, write; start-up left out."""
    command = [str(Path(sys.executable).with_name("vaeguard")), "score", str(images), "--device", "cpu"]
    return float(json.loads(output([*command, "-m", str(model), "-o", str(table), "--json"]))["seconds"])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def packed(runs: dict[str, Path], home: Path) -> list[dict[str, Any]]:
    """Packed images through the whole job, bound to one core, against the bare session bound to one core."""
    images = vaeguard.open_images("mnist", data_dir=data_dir()).images[:PACKED]
    np.save(home / "packed.npy", images[:, 0])
    np.savez(home / "packed.npz", images=images[:, 0])
    idx = b"\0\0\x08\x03" + np.array([PACKED, 28, 28], ">u4").tobytes() + images.tobytes()
    (home / "packed-idx3-ubyte").write_bytes(idx)
    mine = os.sched_getaffinity(0)
    rows = []
    for name in ("mlp-400-400-20", "mlp"):
        for file in ("packed.npy", "packed.npz", "packed-idx3-ubyte"):
            model = runs[name] / "model.onnx"
            os.sched_setaffinity(0, {min(mine)})
            pairs = [
                (model_seconds(model, images), score_seconds(model, home / file, home / "s.csv")) for _ in range(3)
            ]
            os.sched_setaffinity(0, mine)
            rows.append({
                "model": name,
                "packed in": file.removeprefix("packed"),
                "bare session, images/s": PACKED / statistics.median(one for one, _ in pairs),
                "score, images/s and core": PACKED / statistics.median(two for _, two in pairs),
                "ratio": statistics.median(one / two for one, two in pairs),
            })  # fmt: skip
    return rows


def start_up(runs: dict[str, Path], home: Path) -> list[dict[str, Any]]:
    """CPU seconds from process start to the row of one image."""
    folder = write(vaeguard.open_images("digits", split="test").images[:1], home / "one", "png")
    rows = []
    for name in ("mlp-400-400-20", "conv 28x28"):
        command = [str(Path(sys.executable).with_name("vaeguard")), "score", str(folder), "--device", "cpu"]
        command += ["-m", str(runs[name] / "model.onnx"), "-o", str(home / "one.csv")]
        seconds = []
        for _ in range(ROUNDS):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            output(command)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        rows.append({"model": name, "CPU s, start to row": statistics.median(seconds)})
    return rows


def memory(runs: dict[str, Path], home: Path) -> list[dict[str, Any]]:
    """Peak memory of a job on few and on many images, as files and packed."""
    images = np.tile(vaeguard.open_images("mnist", data_dir=data_dir()).images, (2, 1, 1, 1))
    rows = []
    for kind in ("PNG files", ".npy", ".npz"):
        peaks = []
        for count in MEMORY_IMAGES:
            target = home / f"memory-{count}{kind if kind.startswith('.') else ''}"
            if kind == "PNG files":
                write(images[:count], target, "png")
            else:
                (np.save if kind == ".npy" else np.savez)(target, images[:count])
            code = [sys.executable, "-c", RUN_CODE, str(runs["mlp"] / "model.onnx"), str(target), str(home / "m.csv")]
            peak, _, torch_loaded = output(code).split()
            assert torch_loaded == "False"
            peaks.append(float(peak))
        row = {f"peak MB, {count:,} images": peak for count, peak in zip(MEMORY_IMAGES, peaks, strict=True)}
        rows.append({"input": kind, **row, "growth": peaks[1] / peaks[0] - 1})
    return rows


def output(command: list[str]) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 -- our own command


def main() -> None:
    """Measure in turns; each table is written as soon as it is measured."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    stages = (
        ("start", "From process start to the row of one image", start_up),
        ("packed", "Packed images, one core", packed),
        ("files", "Files through the whole job", end_to_end),
        ("memory", "Peak memory of a job", memory),
        ("engines", "ONNX Runtime against PyTorch, one thread", engines),
    )
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        runs = fit_models(home)
        for key, title, measure in stages:
            write_result(f"inference/{key}", title, measure(runs, home), [NOTE], rounds=ROUNDS)


if __name__ == "__main__":
    main()

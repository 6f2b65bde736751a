"""False alarms of the drift that `vaeguard watch` tells of, and the number of images until a darker lamp is told.

python -m benchmarks.drift alarms [RUNS] [IMAGES]     # simulated streams without drift; half an hour
python -m benchmarks.drift lamp                       # simulated images and real ones, whose lamp gets 10 % darker

Each run draws a calibration set anew, of 20 to 1,000 images, and a stream from the same distribution. The real images
are the sound magnetic tiles, the model is one of features, and the stream is drawn from images that it never saw.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common import data_dir, write_result
from vaeguard.devices import cores
from vaeguard.evaluation.drift import DriftMonitor
from vaeguard.settings.evaluation import DRIFT_CHANCE
from vaeguard.statistics.appearance import appearance
from vaeguard.statistics.metrics import share_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (20, 50, 200, 1000)
DARKER = 0.9
SPREAD = 0.05
"""How much the brightness of simulated images varies, as a share."""
MOST = 20_000
"""A lamp that is not told after so many images counts as missed."""
SEEDS = 10
TILES = 450
SIDES = (256, 224)


def simulated(images: int, seed: int) -> tuple[DriftMonitor, Iterator[tuple[float, dict[str, float]]]]:
    """A monitor with a simulated reference of so many images, and an endless stream like it: p-values, properties."""
    draw = np.random.default_rng([seed, images])
    scores = np.sort(draw.normal(size=images))

    def properties(count: int) -> dict[str, np.ndarray]:
        spread = {"brightness": SPREAD, "sharpness": 0.2}
        middle = {"brightness": 0.4, "sharpness": 0.5}
        return {name: middle[name] * np.exp(spread[name] * draw.normal(size=count)) for name in spread}

    def stream() -> Iterator[tuple[float, dict[str, float]]]:
        while True:
            stranger = images - np.searchsorted(scores, draw.normal(size=1000), "left")
            sizes = draw.choice([640 * 480.0, 1280 * 960.0], 1000)
            columns = {**properties(1000), "size": sizes}
            for row, p_value in enumerate((1 + stranger) / (1 + images)):
                yield float(p_value), {name: float(values[row]) for name, values in columns.items()}

    known = {name: tuple(values[:256].tolist()) for name, values in properties(images).items()}
    return monitor(images, known), stream()


def monitor(images: int, known: dict[str, tuple[float, ...]]) -> DriftMonitor:
    """The monitor of a model that was calibrated on so many images, of which these properties are known."""
    record: Any = SimpleNamespace(calibration=SimpleNamespace(**known))
    info: Any = SimpleNamespace(view=SimpleNamespace(pictures=True), calibrated_on=images, record=record)
    return DriftMonitor(info, DRIFT_CHANCE)


def false_alarm(seed: int, images: int) -> list[str]:
    """What a stream without drift makes the monitor tell of."""
    watched, stream = simulated(SIZES[seed % len(SIZES)], seed)
    told: list[str] = []
    for _ in range(images):
        told += [drift.what for drift in watched.add(*next(stream))]
    return told


def alarms(runs: int = 200, images: int = 100_000) -> None:
    """Count the runs with a false alarm, and write."""
    with ProcessPoolExecutor(min(2, cores())) as pool:
        told = list(pool.map(false_alarm, range(runs), [images] * runs))
    count = sum(map(bool, told))
    found = share_of(count, runs)
    rows = [{
        "runs": runs, "images each": images, "stated chance": DRIFT_CHANCE, "runs with a false alarm": count,
        "share": found.value, "95 % from": found.low, "to": found.high, "told of": ", ".join(chain(*told)) or "nothing",
    }]  # fmt: skip
    write_result("drift/alarms", "False alarms of drift", rows, [f"Calibration sets of {SIZES} images in turn."])


def until_told(watched: DriftMonitor, stream: Iterator[tuple[float, dict[str, float]]], before: int) -> Any:
    """The first drift after `before` images, from 1; None if there is none, or one before."""
    for _ in range(before):
        if watched.add(*next(stream)):
            return None
    return next((drift for _ in range(MOST) for drift in watched.add(*next(stream))), None)


def darker(stream: Iterator[tuple[float, dict[str, float]]], before: int) -> Iterator[tuple[float, dict[str, float]]]:
    """The stream with darker images from number `before` on."""
    for number, (p_value, measured) in enumerate(stream):
        share = DARKER if number >= before else 1.0
        yield p_value, measured | {"brightness": measured["brightness"] * share}


def row_of(name: str, reference: int, before: int, told: list[Any]) -> dict[str, Any]:
    """The row of a table for the drifts that the seeds found."""
    found = [drift for drift in told if drift]
    images = sorted(drift.told - before for drift in found)
    return {
        "images": name, "reference": reference, "images before": before, "told": f"{len(found)} of {len(told)}",
        "images until told, median": float(np.median(images)), "at most": images[-1],
        "error of since, median": float(np.median([abs(drift.since - before - 1) for drift in found])),
        "message": str(found[0]),
    }  # fmt: skip


def lamp() -> None:
    """Darken the lamp of simulated and of real streams, and write."""
    rows = []
    for images in SIZES:
        for before in (0, 100, 1000, 50_000):
            told = []
            for seed in range(SEEDS if before < 50_000 else 4):
                watched, stream = simulated(images, 1000 + seed)
                told.append(until_told(watched, darker(stream, before), before))
            rows.append(row_of(f"simulated, vary by {SPREAD:.0%}", images, before, told))
    rows += real_rows()
    note = (
        f"Real images: sound magnetic tiles at {SIDES[0]}x{SIDES[1]}, which vary in brightness by themselves, and a"
        " model of features; the pixels are multiplied by 0.9."
    )
    write_result("drift/lamp", "Images until a lamp that is 10 % darker is told", rows, [note])


def real_rows() -> list[dict[str, Any]]:
    """The rows for magnetic tiles: a third of them is the stream, the others are fitted on."""
    import vaeguard

    rule = vaeguard.ImageRule(size=SIDES)
    tiles = vaeguard.open_images(str(data_dir() / "magnetic-tile" / "MT_Free" / "*.jpg"), rule=rule)
    pixels = tiles.images[np.random.default_rng(0).permutation(len(tiles))[:TILES]]
    third = len(pixels) // 3
    spread = np.std([image.mean() / pixels.mean() for image in pixels])
    detector = vaeguard.fit(pixels[third:])
    streams = []
    for share in (1.0, DARKER):
        images = np.round(pixels[:third] * share).astype(np.uint8)
        streams.append((vaeguard.score_set(detector, images).p_value, appearance(images)))
    rows = []
    for before in (0, 100, 1000):
        told = []
        for seed in range(SEEDS):
            watched = DriftMonitor(detector.info, DRIFT_CHANCE)
            told.append(until_told(watched, real_stream(streams, before, seed), before))
        rows.append(row_of(f"magnetic tiles, vary by {spread:.0%}", detector.info.calibrated_on or 0, before, told))
    return rows


def real_stream(streams: list[Any], before: int, seed: int) -> Iterator[tuple[float, dict[str, float]]]:
    """Images drawn at random, from number `before` on the darker ones."""
    draw, number = np.random.default_rng(seed), 0
    while True:
        p_values, properties = streams[number >= before]
        row = draw.integers(len(p_values))
        yield float(p_values[row]), {name: values[row] for name, values in properties.items()} | {"size": 1.0}
        number += 1


if __name__ == "__main__":
    {"alarms": alarms, "lamp": lamp}[sys.argv[1]](*map(int, sys.argv[2:]))

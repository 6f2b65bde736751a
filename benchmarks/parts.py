"""Photographs of parts as a user has them: folders of files, and the commands with nothing but their defaults.

python -m benchmarks.parts WORK [--sets boards tiles screws] [--seeds 0 1 2] [--likelihood gaussian-pixel]

Boards and tiles are split by group as in `vaeguard benchmark defects`; screws keep their own parts, so the seed changes
nothing. Files are linked, not changed. WORK keeps the folders, runs and reports. With another likelihood, such as one
that learns its variance, the name of a row ends in it.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from benchmarks.common import data_dir, rows_before, write_result
from vaeguard.benchmarking.defects import PCB_FOLDER, open_deeppcb, open_magnetic_tile, split_surfaces
from vaeguard.settings.choice import DEFAULT_FEATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TITLE = "Photographs of parts in folders: vaeguard fit FOLDER --normal-classes good, vaeguard evaluate"
NOTES = ["All sets were in view while the method was chosen. Flagged where p_value <= 0.05."]
COMMAND = Path(sys.executable).with_name("vaeguard")


def boards(folder: Path, seed: int) -> None:
    """Defect-free boards of half of the pairs to fit on; both boards of the other pairs to test."""
    surfaces = open_deeppcb(data_dir(), (640, 640))
    assert surfaces.masks is not None
    fitted = split_surfaces(surfaces, seed).groups
    for group, kind, mask in zip(surfaces.groups, surfaces.kinds, surfaces.masks, strict=True):
        name = f"{group}_{'test' if kind else 'temp'}.jpg"
        source = Path(data_dir()) / PCB_FOLDER / "77000" / name
        _link(source, folder, fitted=group in fitted, kind=kind and "bad")
        if kind and group not in fitted:
            place = folder / "masks" / "bad" / Path(name).with_suffix(".png")
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(place)


def tiles(folder: Path, seed: int) -> None:
    """Defect-free images of half of the tiles to fit on; all images of the others to test."""
    surfaces = open_magnetic_tile(data_dir(), (64, 64))
    fitted, home = split_surfaces(surfaces, seed).groups, Path(data_dir()) / "magnetic-tile"
    with (home / "groups.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, kind in zip(rows, surfaces.kinds, strict=True):
        source = home / row["image"]
        _link(source, folder, fitted=row["group"] in fitted, kind=kind)
        if kind and row["group"] not in fitted:
            _link_to(source.with_suffix(".png"), folder / "masks" / kind)


def screws(folder: Path, _: int) -> None:
    """The parts of the set."""
    for part in ("train/good", "test/good", "test/bad"):
        for source in sorted((Path(data_dir()) / "screws" / part).glob("*.*")):
            _link_to(source, folder / part)


SETS: dict[str, Callable[[Path, int], None]] = {"boards": boards, "tiles": tiles, "screws": screws}


def _link(source: Path, folder: Path, *, fitted: bool, kind: str) -> None:
    if not fitted:
        _link_to(source, folder / "test" / (kind or "good"))
    elif not kind:
        _link_to(source, folder / "train" / "good")


def _link_to(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / source.name).symlink_to(source.resolve())


def measure(folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """Fit with these options and evaluate; CPU seconds are those of the fit, with all of its processes."""
    run, masks = folder / "run", folder / "masks"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run("fit", folder / "train", "--normal-classes", "good", "-o", run, *options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(
        "evaluate",
        folder / "test",
        "-m",
        run,
        "-o",
        folder / "evaluation",
        *(("--masks", masks) if masks.exists() else ()),
    )
    report = json.loads((folder / "evaluation" / "report.json").read_text("utf-8"))
    pixels = report.get("pixels") or {}
    return {
        "roc_auc": report["metrics"][0]["roc_auc"],
        "pixel_roc_auc": pixels.get("roc_auc"),
        "overlap": pixels.get("pro"),
        "false_alarms": report["false_alarm_rate"]["value"],
        "caught": report["detection_rate"]["value"],
        "fit_cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
    }


def _run(*arguments: object) -> None:
    subprocess.run([COMMAND, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def main() -> None:
    """Measure every set and seed, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--likelihood")
    given = parser.parse_args()
    asked: Sequence[str] = ()
    ending = ""
    if given.likelihood:
        asked = ("--features", DEFAULT_FEATURES, "--set", f"model.likelihood={given.likelihood}")
        ending = f"-{given.likelihood}"
    rows = rows_before("parts", "name")
    for name in given.sets:
        for seed in given.seeds[:1] if name == "screws" else given.seeds:
            folder = given.work / f"{name}-{seed}{ending}"
            shutil.rmtree(folder, ignore_errors=True)
            SETS[name](folder, seed)
            rows[folder.name] = {"name": folder.name, **measure(folder, asked)}
            print(json.dumps(rows[folder.name]), flush=True)
            write_result("parts", TITLE, sorted(rows.values(), key=lambda row: row["name"]), NOTES)


if __name__ == "__main__":
    main()

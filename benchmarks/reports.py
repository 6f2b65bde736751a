"""Pages of reports on real data: how large they are, and how long a browser takes to open them without a network.

python -m benchmarks.reports [--chromium PATH]

One page of each kind, and two of a run of 100,000 images (MNIST over and over, each copy with noise of its own). Needs
`playwright` and a Chromium; opening is timed from the request to the last chart, the median of five.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import vaeguard
from benchmarks.common import RESULTS, data_dir, write_result
from vaeguard.reports.comparison import compare_reports
from vaeguard.reports.report_file import report_path, write_report
from vaeguard.reports.scans import write_scan_report
from vaeguard.reports.scores import write_score_report

MANY = 100_000
OPENINGS = 5
LARGEST_MB, SLOWEST = 3.0, 2.0


def pages(home: Path) -> dict[str, Path]:
    """Make one report of each kind below `home`, from real data."""
    train = vaeguard.open_images("mnist", split="train", data_dir=str(data_dir()))
    test = vaeguard.open_images("mnist", split="test", data_dir=str(data_dir()))
    quick = vaeguard.TrainSpec(epochs=3)
    detector = vaeguard.fit(train, normal_classes="0-8", training=quick, run=home / "run")
    vaeguard.write_evaluation(vaeguard.evaluate(detector, test), detector, home / "evaluation")
    many = _many(test)
    np.save(home / "many.npy", many.images)
    found = {"fit": home / "run", "evaluation, 10,000 images": home / "evaluation"}
    evaluation = vaeguard.evaluate(detector, many)
    vaeguard.write_evaluation(evaluation, detector, home / "many")
    found[f"evaluation, {MANY:,} images"] = home / "many"
    summary = vaeguard.score_files(detector, home / "many.npy", home / "scores.csv")
    write_score_report(summary, detector, model=home / "run")
    found[f"scores, {MANY:,} images"] = home / "scores.csv"
    scans = data_dir() / "dirty-documents" / "train"
    done = vaeguard.denoise_scans(scans, home / "clean", outputs=vaeguard.DenoiseOutputs(uncertainty=True))
    write_scan_report(done)
    found[f"scans, {done.pages} pages"] = home / "clean"
    for name in sorted(path.parent.name for path in RESULTS.glob("*/report.json")):
        write_report(RESULTS / name / "report.json", vaeguard.read_report(RESULTS / name))
        found[f"benchmark {name}"] = RESULTS / name
    comparison = compare_reports([home / "evaluation", home / "many"])
    write_report(home / "comparison" / "report.json", comparison)
    found["comparison"] = home / "comparison"
    return {name: report_path(path).with_suffix(".html") for name, path in found.items()}


def _many(test: vaeguard.ImageSet) -> vaeguard.ImageSet:
    rows = np.arange(MANY) % len(test.images)
    noise = np.random.default_rng(0).integers(0, 20, (MANY, *test.images.shape[1:]), dtype=np.uint8)
    images = np.minimum(test.images[rows].astype(np.uint16) + noise, 255).astype(np.uint8)
    assert test.labels is not None
    return vaeguard.from_array(images, np.array(test.class_names)[test.labels[rows]])


def opening_seconds(browser: Any, page_file: Path) -> float:
    """Median seconds until the page is loaded and its charts are drawn."""
    times = []
    for _ in range(OPENINGS):
        context = browser.new_context(offline=True)
        page = context.new_page()
        started = time.perf_counter()
        page.goto(page_file.resolve().as_uri())
        page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
        times.append(time.perf_counter() - started)
        context.close()
    return statistics.median(times)


def main() -> None:
    """Make the pages, open each, and write `benchmarks/results/reports.json`."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        for name, page_file in pages(Path(folder)).items():
            size, seconds = page_file.stat().st_size / 1e6, opening_seconds(browser, page_file)
            met = size < LARGEST_MB and seconds < SLOWEST
            rows.append({"report": name, "page, MB": size, "opens in, s": seconds, "met": "yes" if met else "NO"})
        version = browser.version
        browser.close()
    target = f"Targets: below {LARGEST_MB:g} MB, open in less than {SLOWEST:g} s."
    notes = [f"{target} Each page holds D3 and Observable Plot (0.49 MB)."]
    write_result("reports", "Pages of reports: size and opening", rows, notes, chromium=version, openings=OPENINGS)


if __name__ == "__main__":
    main()

"""The pictures of reports in `docs/`: what a browser shows of the first screen, on a desk and on a phone.

python -m benchmarks.report_pictures [--chromium PATH]

The evaluation is of MNIST with 9 anomalous, fitted with the defaults; the scans are the first dirty documents and old
photographs; the benchmark is the committed one. Needs `playwright` and a Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import vaeguard
from benchmarks.common import RESULTS, data_dir
from vaeguard.reports.scans import write_scan_report

DOCS = Path(__file__).parent.parent / "docs"
SCREENS: dict[str, tuple[int, int, Literal["light", "dark"]]] = {
    "desk-light": (1280, 1120, "light"),
    "desk-dark": (1280, 1120, "dark"),
    "phone-light": (390, 844, "light"),
}
PICTURES = (("evaluation", "desk-light"), ("benchmark", "desk-dark"), ("scans", "phone-light"))
SCANS = 6


def pages(home: Path) -> dict[str, Path]:
    """An evaluation, a batch of scans and a benchmark."""
    train, test = (vaeguard.open_images("mnist", split=part, data_dir=str(data_dir())) for part in ("train", "test"))
    detector = vaeguard.fit(train, normal_classes="0-8", run=home / "run")
    evaluation = vaeguard.evaluate(detector, test)
    vaeguard.write_evaluation(evaluation, detector, home / "evaluation", command="vaeguard evaluate mnist")
    (home / "scans").mkdir()
    for folder in (data_dir() / "dirty-documents" / "train", data_dir() / "old-photos" / "old"):
        for path in sorted(folder.iterdir())[:SCANS]:
            shutil.copy(path, home / "scans")
    done = vaeguard.denoise_scans(home / "scans", home / "clean", outputs=vaeguard.DenoiseOutputs(uncertainty=True))
    write_scan_report(done, command="vaeguard denoise scans/ --uncertainty")
    return {
        "evaluation": home / "evaluation" / "report.html",
        "scans": home / "clean" / "report.html",
        "benchmark": RESULTS / "one-class-out-mnist" / "report.html",
    }


def main() -> None:
    """Write `docs/report-<kind>-<screen>.png`."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        files = pages(Path(folder))
        for kind, screen in PICTURES:
            width, height, theme = SCREENS[screen]
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
            page = context.new_page()
            page.goto(files[kind].resolve().as_uri())
            if kind == "scans":
                page.evaluate("document.querySelector('.compare').scrollIntoView()")
            target = DOCS / f"report-{kind}-{screen}.png"
            page.screenshot(path=target)
            context.close()
            with Image.open(target) as picture:
                picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(target, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()

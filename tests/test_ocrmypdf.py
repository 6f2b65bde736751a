"""The plugin of OCRmyPDF, by OCRmyPDF itself."""

import shutil
import subprocess
import sys
from importlib.metadata import entry_points

import numpy as np
import pikepdf
import pytest
from PIL import Image, ImageDraw, ImageFont

pytest.importorskip("ocrmypdf")
# An installation that is older than the plugin does not name it.
NAMED = [] if entry_points(group="ocrmypdf", name="vaeguard") else ["--plugin", "vaeguard.ocrmypdf"]
PLAIN = [*NAMED, "--output-type", "pdf", "--quiet", "--jobs", "1"]


def run(*arguments):
    command = [sys.executable, "-m", "ocrmypdf", *PLAIN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A PDF of one page of text on stained paper, and where there is paper alone."""
    from vaeguard.restoration.networks.degrade import degrade_document

    path = tmp_path_factory.mktemp("scan") / "scan.pdf"
    page, font = Image.new("L", (620, 300), 255), ImageFont.load_default(19)
    for line in range(8):
        text = "what can be read today should be read tomorrow as well"
        ImageDraw.Draw(page).text((22, 22 + 32 * line), text, fill=30, font=font)
    worn, _ = degrade_document(np.asarray(page, np.float32) / np.float32(255), np.random.default_rng(1))
    Image.fromarray(np.round(255 * worn).astype(np.uint8)).save(path, resolution=100, quality=85)
    return path, np.asarray(page) > 240


def picture_of(pdf):
    with pikepdf.open(pdf) as opened:
        page = opened.pages[0]
        (picture,) = page.get_images().values()
        return [float(side) for side in page.mediabox], pikepdf.PdfImage(picture).as_pil_image().convert("L")


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.skipif(not shutil.which("tesseract"), reason="tesseract is not installed")
def test_pages_are_cleaned_only_if_asked_and_keep_their_size(scan, tmp_path):
    scan, paper = scan
    for name, asked in (("plain", []), ("ocr", ["--vaeguard", "ocr"]), ("page", ["--vaeguard", "page"])):
        done = run("--force-ocr", *asked, scan, tmp_path / f"{name}.pdf")
        assert done.returncode == 0, done.stderr
    (box, plain), (ocr_box, ocr), (page_box, page) = (
        picture_of(tmp_path / f"{n}.pdf") for n in ("plain", "ocr", "page")
    )
    assert box == ocr_box == page_box
    assert plain.size == ocr.size == page.size
    assert np.array_equal(plain, ocr)
    dirty, clean = (float(np.std(np.asarray(image)[paper])) for image in (plain, page))
    assert clean < 0.5 * dirty
    assert (tmp_path / "page.pdf").stat().st_size <= 1.3 * (tmp_path / "plain.pdf").stat().st_size


@pytest.mark.skipif(not shutil.which("tesseract"), reason="tesseract is not installed")
def test_clean_pages_that_nobody_would_write_are_refused(scan, tmp_path):
    done = run("--vaeguard", "page", scan[0], tmp_path / "out.pdf")
    assert done.returncode == 1
    assert "add --force-ocr, or use --vaeguard ocr" in done.stderr
    assert not (tmp_path / "out.pdf").exists()

"""What would be done to scans is what is done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaeguard import RestoreSettings, denoise_scans, plan_scans
from vaeguard.storage.tables import read_table


@pytest.fixture
def scans(tmp_path, printed, monkeypatch):
    """Files of every kind in a tree: pages, photographs, clean, bilevel, damaged ones, and what is no scan."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("scans/box").mkdir(parents=True)
    page = np.clip(216 * printed(100, 120, 0) + 8 * rng.standard_normal((100, 120)), 0, 255).astype(np.uint8)
    photo = np.clip(100 + 20 * rng.standard_normal((90, 70, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(page).save("scans/page.png", dpi=(100, 100))
    Image.fromarray(photo).save("scans/box/photo.jpg", quality=95)
    pages = [Image.fromarray(each) for each in (photo, photo[..., 0], page > 128)]
    pages[0].save("scans/box/three.tif", save_all=True, append_images=pages[1:])
    large = Image.fromarray(np.tile(photo, (2, 2, 1)))
    large.save("scans/book.pdf", save_all=True, append_images=[large.convert("L"), large.convert("1")])
    large.convert("1").save("scans/bare.pdf")
    Image.fromarray(page > 128).save("scans/fax.png")
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save("scans/even.png")
    Path("scans/broken.png").write_bytes(Path("scans/page.png").read_bytes()[:-300])
    Path("scans/notes.txt").write_text("no scan")
    return tmp_path / "scans"


def listed(plan):
    """What a plan says of each page."""
    return sorted(
        (scan.path, page.page, page.kind, page.action, page.reason) for scan in plan.scans for page in scan.pages
    )


def told():
    """What the run said of each page."""
    table = read_table("out/pages.csv")
    return sorted(zip(*(table[name] for name in ("path", "page", "kind", "action", "reason")), strict=True))


def test_a_plan_and_the_run_agree_page_by_page(scans):
    plan = plan_scans("scans", "out", device="cpu")
    assert not Path("out").exists()
    done = denoise_scans("scans", "out", device="cpu")
    assert (plan.files, plan.pages, plan.finished, plan.errors) == (done.files, done.pages, 0, done.errors)
    assert plan.megapixels == done.megapixels
    assert listed(plan) == told()
    assert {page[2] for page in listed(plan)} == {"document", "photo", "untouched"}
    assert {scan.path: scan.bytes for scan in plan.scans} == {
        name: Path("scans", name).stat().st_size
        for name in ("page.png", "box/photo.jpg", "box/three.tif", "book.pdf", "bare.pdf", "fax.png", "even.png")
    }
    sizes = {scan.path: [(page.width, page.height) for page in scan.pages] for scan in plan.scans}
    assert sizes["page.png"] == [(120, 100)]
    assert sizes["book.pdf"] == [(140, 180)] * 2
    assert sizes["bare.pdf"] == []
    assert json.loads(json.dumps(plan.to_dict()))["scans"][0]["path"] == "bare.pdf"


@pytest.mark.nightly
def test_a_plan_over_a_tree_that_is_half_done_agrees_with_the_run(scans):
    denoise_scans("scans", "out", device="cpu")
    Image.fromarray(np.full((50, 40), 80, np.uint8)).save("scans/even.png")
    Path("out/fax.png").unlink()
    for given in ("scans", "scans/box/photo.jpg"):
        plan = plan_scans(given, "out", device="cpu")
        done = denoise_scans(given, "out", device="cpu")
        assert plan.finished == done.resumed
        assert plan.files + plan.finished == done.files
        assert plan.errors == done.errors
        assert listed(plan) == told()
        assert plan.pages == done.pages - sum(len(scan.pages) for scan in plan.scans if scan.finished)


def test_the_time_grows_with_the_pages_and_is_none_for_what_is_left(scans):
    plan = plan_scans("scans", "out", RestoreSettings(kind="photo"), device="cpu", jobs=1)
    seconds = {scan.path: scan.seconds for scan in plan.scans}
    assert plan.seconds == pytest.approx(sum(seconds.values()))
    assert seconds["book.pdf"] > seconds["box/photo.jpg"] > 0
    denoise_scans("scans", "out", RestoreSettings(kind="photo"), device="cpu")
    again = plan_scans("scans", "out", RestoreSettings(kind="photo"), device="cpu")
    assert again.seconds == 0


def test_progress_of_a_plan_ends_with_everything(scans):
    calls = []
    plan_scans("scans", "out", device="cpu", progress=lambda *call: calls.append(call))
    assert (
        calls[-1][0] == calls[-1][1] == sum(path.stat().st_size for path in scans.rglob("*.*") if path.suffix != ".txt")
    )

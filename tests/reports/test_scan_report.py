"""The report of a batch of scans."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from vaeguard import DenoiseOutputs, RestoreSettings, denoise_scans
from vaeguard.reports.report_file import read_report
from vaeguard.reports.scans import DETAIL, OTHERS, WORST, _most_changed, write_scan_report
from vaeguard.restoration.reasons import BILEVEL


def noisy(seed: int, shape=(90, 120)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (120 + 12 * generator.standard_normal(shape)).clip(0, 255).astype(np.uint8)


def test_pages_of_every_kind_are_drawn_and_counted(tmp_path):
    scans = tmp_path / "scans"
    (scans / "deep").mkdir(parents=True)
    pages = [Image.fromarray(noisy(n)) for n in range(3)]
    pages[0].save(scans / "deep" / "three.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(noisy(4, (90, 120, 3))).save(scans / "colour.jpg", quality=95)
    Image.fromarray(noisy(5).astype(np.uint16) * 257).save(scans / "deep16.png")
    Image.fromarray(noisy(6) > 128).save(scans / "bilevel.png")
    (scans / "broken.png").write_text("no scan")
    outputs = DenoiseOutputs(uncertainty=True)
    done = denoise_scans(scans, tmp_path / "clean", RestoreSettings(kind="photo"), outputs=outputs, device="cpu")
    report = write_scan_report(done, command="vaeguard denoise scans")
    assert read_report(tmp_path / "clean") == report
    assert (report["pages"], report["files"], report["errors"]["count"]) == (6, 4, 1)
    assert report["actions"] == {"restored": 5, "untouched": 1}
    assert len(report["table"]) == len(report["shown"]) == 6
    drawn = {(row["path"], row["page"]): report["pictures"][row["pictures"]] for row in report["shown"]}
    assert set(drawn) == {(row["path"], row["page"]) for row in report["table"]}
    for (path, _), pictures in drawn.items():
        assert ("uncertainty" in pictures) == (path != "bilevel.png")
        assert (pictures["before"] == pictures["after"]) == (path == "bilevel.png")
        assert ("detail_before" in pictures) == (path != "bilevel.png")
    assert report["left"] == [{"reason": BILEVEL, "pages": 1}]
    html = (tmp_path / "clean" / "report.html").read_text()
    assert html.count(f"left unchanged: {BILEVEL}") == 1
    assert f"1 page was left unchanged because {BILEVEL}" in html


def test_what_was_put_back_is_marked_at_its_place(tmp_path, printed):
    page = 230 * printed(600, 700)
    shades = ndimage.gaussian_filter(np.random.default_rng(0).random((240, 300)), 4)
    page[60:300, 40:340] = 25 + 150 * (shades - shades.min()) / np.ptp(shades)  # a picture
    page = np.clip(page + np.random.default_rng(1).normal(0, 2, page.shape), 0, 255).astype(np.uint8)
    (tmp_path / "scans").mkdir()
    Image.fromarray(page).save(tmp_path / "scans" / "mixed.png", dpi=(100, 100))
    done = denoise_scans(tmp_path / "scans", tmp_path / "clean", RestoreSettings(kind="document"), device="cpu")
    report = write_scan_report(done)
    (marks,) = [row["marks"] for row in report["shown"]]
    covered = np.zeros(marks["size"], np.bool_)
    for top, left, bottom, right in marks["put_back"]:
        covered[top:bottom, left:right] = True
    assert covered.shape == page.shape
    assert covered[80:280, 60:320].all()
    assert covered.mean() < 0.7
    top, left, bottom, right = marks["put_back"][0]
    html = (tmp_path / "clean" / "report.html").read_text()
    assert f"M{left} {top}H{right}V{bottom}H{left}Z" in html
    assert report["look_first"] == 1
    assert report["table"][0]["look"].startswith("ink or detail was put back in ")


def test_scans_that_are_gone_are_not_drawn(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    Image.fromarray(noisy(0)).save(scans / "a.png")
    done = denoise_scans(scans / "a.png", tmp_path / "clean", device="cpu")
    (scans / "a.png").unlink()
    report = write_scan_report(done)
    assert report["pictures"] == {}
    assert "the files no longer exist" in (tmp_path / "clean" / "report.html").read_text()


def test_many_pages_are_sampled_those_to_look_at_first(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(30):
        Image.fromarray(noisy(number, (20, 24))).save(scans / f"{number:02d}.png")
    done = denoise_scans(scans, tmp_path / "clean", RestoreSettings(kind="photo"), device="cpu")
    report = write_scan_report(done)
    shown = [row["path"] for row in report["shown"]]
    assert len(shown) == WORST + OTHERS
    assert shown[:WORST] == [row["path"] for row in report["table"]][:WORST]
    assert len(set(shown)) == len(shown)


def test_the_square_that_changed_most_is_found():
    before = np.zeros((3 * DETAIL, 2 * DETAIL), np.uint8)
    after = before.copy()
    after[DETAIL + 50 : DETAIL + 90, 300:340] = 9
    rows, columns = _most_changed(before, after)
    assert np.abs(before[rows, columns].astype(int) - after[rows, columns]).sum() == 40 * 40 * 9
    assert (rows.stop - rows.start, columns.stop - columns.start) == (DETAIL, DETAIL)
    small = np.zeros((5, 7, 3), np.uint8)
    assert _most_changed(small, small) is None
    changed = small.copy()
    changed[4, 6] = 1
    assert small[_most_changed(small, changed)].shape == small.shape

"""Whole trees of scans."""

import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from toy import bars

import vaeguard
from vaeguard import DenoiseOutputs, RestoreSettings, UsageError, VaeguardError, denoise_scans, plan_scans, undone
from vaeguard.errors import UnreadableError
from vaeguard.reports.scans import write_scan_report
from vaeguard.restoration.formats.isolated import rewrite, scan_pages
from vaeguard.restoration.page import STRIP, PageReport, RestoredPage
from vaeguard.restoration.places import default_output
from vaeguard.restoration.reasons import (
    BILEVEL,
    CLEAN,
    FEWER_WORDS,
    MUCH_LIGHTENED,
    NO_STRENGTH,
    left_clause,
    why_look,
    worth_a_look,
)
from vaeguard.restoration.records import COLUMNS
from vaeguard.storage.files import temporary_beside
from vaeguard.storage.store import open_job
from vaeguard.storage.tables import read_table


@pytest.fixture
def scans(tmp_path, printed, monkeypatch):
    """Pages and photographs in a tree, and two files that are none."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number in range(6):
        page = 255 * printed(100, 120, number) * np.float32(0.85) + 8 * rng.standard_normal((100, 120))
        put(f"scans/box-{number % 2}/{number}.png", np.clip(page, 0, 255).astype(np.uint8), dpi=(100, 100))
    photo = np.clip(100 + 20 * rng.standard_normal((90, 70, 3)), 0, 255).astype(np.uint8)
    put("scans/photo.jpg", photo, quality=95)
    put("scans/box-0/two.tif", photo, save_all=True, append_images=[Image.fromarray(photo[..., 0])])
    Path("scans/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    Path("scans/notes.txt").write_text("no scan")
    return tmp_path / "scans"


def put(path, pixels, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()
    }


def test_the_tree_is_mirrored_and_the_scans_are_untouched(scans):
    before = tree(scans)
    done = denoise_scans("scans", device="cpu")
    assert tree(scans) == before
    assert done.output == "scans-clean"
    assert (done.files, done.pages, done.resumed) == (8, 9, 0)
    assert [path for path, _ in done.errors] == ["scans/broken.png"]
    written = {name for name in tree("scans-clean") if not name.endswith(".json")}
    pages = {f"box-{number % 2}/{number}.png" for number in range(6)}
    assert written == {*pages, "photo.jpg.png", "box-0/two.tif", "pages.csv", "pages.csv.errors.csv"}
    rows = read_table("scans-clean/pages.csv")
    assert sorted(rows["path"])[-3:] == ["box-1/3.png", "box-1/5.png", "photo.jpg"]
    assert set(rows["kind"]) == {"document", "photo"}
    assert list(rows["reverted"]) == sorted(rows["reverted"], reverse=True)
    record = json.loads(Path("scans-clean/photo.jpg.png.json").read_text())
    assert record["source"] == "photo.jpg"
    assert record["pages"][0]["action"] == "restored"


def test_a_second_run_does_nothing_and_a_changed_scan_or_setting_is_done_again(scans):
    denoise_scans("scans", device="cpu")
    first = tree("scans-clean")
    assert denoise_scans("scans", device="cpu").resumed == 8
    assert tree("scans-clean") == first
    put("scans/box-1/1.png", np.full((40, 40), 90, np.uint8))
    Path("scans-clean/box-1/3.png").unlink()
    assert denoise_scans("scans", device="cpu").resumed == 6
    assert tree("scans-clean")["box-1/3.png"] == first["box-1/3.png"]
    assert denoise_scans("scans", settings=RestoreSettings(strength=0.5), device="cpu").resumed == 0


def test_what_somebody_changed_is_kept_and_said(scans):
    denoise_scans("scans", device="cpu")
    edited = Path("scans-clean/box-1/3.png")
    written, record = edited.read_bytes(), Path(f"{edited}.json").read_bytes()
    edited.write_bytes(b"retouched by hand")

    done = denoise_scans("scans", device="cpu")
    assert (done.files, done.pages, done.resumed) == (8, 9, 8)
    expected = (
        "1 clean file was changed by hand and kept: 'scans-clean/box-1/3.png'; to clean these scans again,"
        " move the files away"
    )
    assert expected in done.notes
    assert "box-1/3.png" in set(read_table("scans-clean/pages.csv")["path"])

    def kept(**settings):
        done = denoise_scans("scans", settings=RestoreSettings(**settings), device="cpu")
        assert (edited.read_bytes(), Path(f"{edited}.json").read_bytes()) == (b"retouched by hand", record)
        assert done.files == 7
        return done.resumed, dict(done.errors)["scans/box-1/3.png"]

    expected = "'scans-clean/box-1/3.png' has changed since it was written; to have it written again, move it away"
    assert kept(strength=0.5) == (0, expected)
    (scans / "box-1/3.png").rename("scan.png")
    (scans / "box-1/3.png").symlink_to("nowhere")
    assert kept()[1].endswith("; the earlier clean file was kept")
    Path("scan.png").rename(scans / "box-1/3.png")
    edited.rename("mine.png")
    assert denoise_scans("scans", device="cpu").resumed == 7
    assert edited.read_bytes() == written


def test_a_file_without_a_record_is_not_written_over(scans):
    denoise_scans("scans", device="cpu")
    clean, record = Path("scans-clean/box-1/3.png"), Path("scans-clean/box-1/3.png.json")
    written = record.read_bytes()
    record.unlink()
    clean.write_bytes(b"retouched by hand")
    done = denoise_scans("scans", device="cpu")
    reason = (
        "'scans-clean/box-1/3.png' exists without a record that shows where it came from; to have it"
        " written again, move it away"
    )
    assert dict(done.errors)["scans/box-1/3.png"].startswith(reason)
    assert clean.read_bytes() == b"retouched by hand"
    clean.unlink()
    record.write_bytes(written)  # a run that was killed before its files took their names
    assert denoise_scans("scans", device="cpu").resumed == 7
    assert record.read_bytes() == written
    assert clean.exists()


def cut_off(do, left):
    """`do`, a method of paths, until `left` is used up by files in the tree; then the process is interrupted."""

    def either(path, *arguments, **options):
        if "/cut/" in str(path.absolute()) and ".job/" not in str(path) and next(left, None) is None:
            raise KeyboardInterrupt
        return do(path, *arguments, **options)

    return either


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (DenoiseOutputs(residual=True), DenoiseOutputs(residual=True, uncertainty=True)),
        (DenoiseOutputs(), DenoiseOutputs(residual=True)),
        (DenoiseOutputs(uncertainty=True), DenoiseOutputs(uncertainty=True, jpeg=95)),
        (DenoiseOutputs(), DenoiseOutputs(derive=("bilevel", "deskewed"))),
        (DenoiseOutputs(derive=("bilevel", "deskewed")), DenoiseOutputs(jpeg=95, derive=("bilevel", "deskewed"))),
    ],
)
def test_interrupted_between_any_two_files_it_ends_with_the_same_tree(tmp_path, monkeypatch, before, after):
    """Over the files of earlier settings, also where these had other names."""
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    grey = np.random.default_rng(0).integers(80, 120, (40, 40)).astype(np.uint8)
    Image.fromarray(grey).save("scans/a.jpg", quality=95)

    def denoise(outputs):
        return denoise_scans("scans", "cut", outputs=outputs, jobs=1, device="cpu")

    denoise(after)
    whole = tree("cut")
    shutil.rmtree("cut")
    denoise(before)
    Path("cut").rename("earlier")
    for count in range(50):
        shutil.rmtree("cut", ignore_errors=True)
        shutil.copytree("earlier", "cut")
        try:
            with monkeypatch.context() as patch:
                left = iter(range(count))
                patch.setattr(Path, "replace", cut_off(Path.replace, left))
                patch.setattr(Path, "unlink", cut_off(Path.unlink, left))
                denoise(after)
            break
        except KeyboardInterrupt:
            done = denoise(after)
            assert (done.errors, done.notes) == ((), ()), count
            assert tree("cut") == whole, count
    assert 5 < count < 49


@pytest.mark.parametrize(
    ("outputs", "named"), [({"residual": True}, "`residual`"), ({"derive": ("deskewed",)}, "`derive=deskewed`")]
)
def test_a_run_that_would_remove_what_an_earlier_one_wrote_is_refused(scans, outputs, named):
    denoise_scans("scans/box-0", "clean", outputs=DenoiseOutputs(**outputs), device="cpu")
    before = tree("clean")
    for run in (denoise_scans, plan_scans):
        with pytest.raises(UsageError, match=named):
            run("scans/box-0", "clean", outputs=DenoiseOutputs(uncertainty=True), device="cpu")
    assert tree("clean") == before
    done = denoise_scans("scans/box-0", "clean", outputs=DenoiseOutputs(**outputs, uncertainty=True), device="cpu")
    assert not done.errors
    assert before.keys() < tree("clean").keys()


def test_the_last_copy_of_a_page_stays_until_the_new_one_is_there(scans):
    denoise_scans("scans", device="cpu")
    clean, record = Path("scans-clean/photo.jpg.png"), Path("scans-clean/photo.jpg.png.json")
    told = json.loads(record.read_text())
    # A run with other settings was cut off when it had written the record alone, and then the scan broke.
    told |= {"written": {"photo.jpg": "0" * 64}}
    Path("scans-clean/photo.jpg.json").write_text(json.dumps(told))
    (scans / "photo.jpg").write_bytes(b"broken")
    before = clean.read_bytes()
    denoise_scans("scans", outputs=DenoiseOutputs(jpeg=95), device="cpu")
    assert clean.read_bytes() == before
    assert record.exists()


def test_what_is_retouched_while_it_is_made_anew_stays(scans, monkeypatch):
    denoise_scans("scans/box-0/0.png", "clean", device="cpu")
    from vaeguard.restoration import work

    rewrite = work.rewrite

    def meanwhile(*arguments, **options):
        Path("clean/0.png").write_bytes(b"retouched")
        return rewrite(*arguments, **options)

    monkeypatch.setattr(work, "rewrite", meanwhile)
    done = denoise_scans("scans/box-0/0.png", "clean", RestoreSettings(strength=0.5), device="cpu")
    assert "has changed since it was written" in done.errors[0][1]
    assert Path("clean/0.png").read_bytes() == b"retouched"


def test_a_page_that_was_moved_away_is_made_again_or_said(scans):
    outputs = DenoiseOutputs(residual=True)
    denoise_scans("scans", outputs=outputs, device="cpu")
    Path("scans-clean/box-1/3.png").rename("mine.png")
    Path("scans-clean/box-1/3.png.page-1.residual.png").write_bytes(b"other")
    done = denoise_scans("scans", outputs=outputs, device="cpu")
    assert "3.png.page-1.residual.png' has changed" in dict(done.errors)["scans/box-1/3.png"]
    assert dict(plan_scans("scans", outputs=outputs, device="cpu").errors) == dict(done.errors)


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_bytes_do_not_depend_on_how_many_work(scans, jobs):
    outputs = DenoiseOutputs(residual=True, uncertainty=True)
    denoise_scans("scans", "one", outputs=outputs, jobs=2, device="cpu")
    denoise_scans("scans", "two", outputs=outputs, jobs=jobs, device="cpu")
    assert tree("one") == tree("two")


def test_the_original_can_be_had_back(scans):
    denoise_scans("scans", outputs=DenoiseOutputs(residual=True), device="cpu")
    for name in ("box-0/0.png", "box-1/5.png"):
        clean, residual = (np.asarray(Image.open(f"scans-clean/{name}{end}")) for end in ("", ".page-1.residual.png"))
        np.testing.assert_array_equal(undone(clean, residual), np.asarray(Image.open(scans / name)))
        assert clean.tobytes() != (clean + residual).tobytes()


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_tree(scans):
    denoise_scans("scans", "whole", outputs=DenoiseOutputs(residual=True), device="cpu")
    code = (
        "import vaeguard\n"
        "outputs = vaeguard.DenoiseOutputs(residual=True)\n"
        "vaeguard.denoise_scans('scans', 'killed', outputs=outputs, device='cpu', jobs=2)"
    )
    generator = random.Random(0)
    kills = 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", code])
        begun = Path("killed/pages.csv.job")
        while process.poll() is None and not begun.exists():
            time.sleep(0.002)
        try:
            process.wait(generator.uniform(0, 0.1) * (1 + kills))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        break
    assert kills
    assert tree("killed") == tree("whole")


@pytest.mark.parametrize("target", ["scans", "scans/clean", ".", "scans/../scans"])
def test_scans_are_never_written_to(scans, target):
    before = tree(scans)
    with pytest.raises(UsageError, match="choose a separate folder"):
        denoise_scans("scans", target)
    link = Path("link")
    link.symlink_to(scans)
    with pytest.raises(UsageError, match="choose a separate folder"):
        denoise_scans("link", "scans/inside")
    assert tree(scans) == before


def test_folders_that_cannot_work(scans):
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="contains other files"):
        denoise_scans("scans", "full")
    with pytest.raises(UsageError, match="is a file"):
        denoise_scans("scans", "full/thesis.txt")
    with pytest.raises(UsageError, match="'nowhere' does not exist"):
        denoise_scans("nowhere", "out")
    Path("empty").mkdir()
    with pytest.raises(UsageError, match=r"\.pdf"):
        denoise_scans("empty", "out")
    assert not Path("out").exists()


def test_two_jobs_at_once_are_refused(scans):
    with open_job("scans-clean/pages.csv"), pytest.raises(VaeguardError, match="another job"):
        denoise_scans("scans")


def test_a_plan_writes_nothing(scans):
    plan = plan_scans("scans")
    assert (plan.files, plan.pages) == (8, 9)
    assert len(plan.errors) == 1
    assert not Path("scans-clean").exists()


def test_one_file_is_a_tree_too(scans):
    done = denoise_scans("scans/photo.jpg", "out", outputs=DenoiseOutputs(jpeg=90), device="cpu")
    assert done.pages == 1
    assert {"photo.jpg", "photo.jpg.json", "pages.csv", ".pages.csv.json"} == set(tree("out"))
    os.chdir(scans)
    assert denoise_scans("photo.jpg", device="cpu").output == "photo-clean"
    with pytest.raises(UsageError, match="choose a separate folder"):
        denoise_scans("photo.jpg", ".")
    with pytest.raises(UsageError, match="`residual` needs exact pixels"):
        DenoiseOutputs(jpeg=90, residual=True)


def test_one_file_made_anew_in_a_clean_tree_leaves_the_others_in_its_tables(scans):
    done = denoise_scans("scans", "out", device="cpu")
    before = tree("out")
    put("scans/box-0/0.png", np.full((40, 40), 90, np.uint8))
    once = denoise_scans("scans/box-0/0.png", "other", device="cpu")
    assert (once.files, once.pages, once.resumed) == (1, 1, 0)
    put("scans/photo.jpg", np.full((90, 70, 3), 90, np.uint8), quality=95)
    again = denoise_scans("scans/photo.jpg", "out", device="cpu")
    assert (again.files, again.pages, again.resumed) == (done.files, done.pages, done.files - 1)
    after = tree("out")
    assert after["pages.csv.errors.csv"] == before["pages.csv.errors.csv"]
    assert sorted(read_table("out/pages.csv")["path"]) == sorted(row["path"] for row in rows_of(before["pages.csv"]))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["", "absolute", "../old/"])
def test_several_scans_make_one_tree(scans, start):
    Path("old").mkdir()
    os.chdir("old")
    scans = {"": Path("../scans"), "absolute": scans, "../old/": Path("../old/../scans")}[start]
    inputs = [scans / "photo.jpg", scans / "box-0", str(scans / "box-1/1.png"), scans / "broken.png"]
    done = denoise_scans(inputs, device="cpu")
    assert Path(done.output).resolve() == scans.resolve().with_name("scans-clean")
    assert Path(done.root).resolve() == scans.resolve()
    assert (done.files, done.pages, len(done.errors), done.notes) == (6, 7, 1, ())
    names = {"photo.jpg.png", "box-0/0.png", "box-0/2.png", "box-0/4.png", "box-0/two.tif", "box-1/1.png"}
    assert {name for name in tree(done.output) if name.endswith((".png", ".tif"))} == names
    assert plan_scans(inputs, done.output).finished == 6
    assert plan_scans(inputs, scans.with_name("new")).pages == 7
    whole = denoise_scans(scans, done.output, device="cpu")
    assert (whole.files, whole.resumed) == (8, 6)
    for target in (scans, scans / "box-0/clean"):
        with pytest.raises(UsageError, match="choose a separate folder"):
            denoise_scans(inputs, target)


def test_each_scan_keeps_its_place_whatever_part_of_the_tree_is_given(scans):
    denoise_scans("scans", "out", device="cpu")
    before = tree("out")
    put("scans/box-0/0.png", np.full((40, 40), 90, np.uint8))
    again = denoise_scans("scans/box-0", "out", device="cpu")
    assert (again.files, again.pages, again.resumed) == (8, 9, 7)
    after = tree("out")
    assert {name for name in after if before[name] != after[name]} == {
        "box-0/0.png",
        "box-0/0.png.json",
        "pages.csv",
        ".pages.csv.json",
    }
    put("scans/box-0/0.png", np.full((40, 40), 80, np.uint8))
    os.chdir("scans/box-0")
    assert denoise_scans("0.png", "../../out", device="cpu").resumed == 7
    os.chdir("../..")
    assert tree("out").keys() == before.keys()
    assert np.asarray(Image.open("out/box-0/0.png")).max() == 80


def test_scans_of_another_folder_never_take_the_place_of_others(scans):
    denoise_scans("scans/box-0", "out", device="cpu")
    before = tree("out")
    for other in ("scans/box-1", "scans", "scans/photo.jpg", ["scans/box-0/0.png", "scans/box-1/1.png"]):
        with pytest.raises(UsageError, match=r"'out' contains the clean scans of '.*box-0'; choose a different folder"):
            denoise_scans(other, "out", device="cpu")
    assert tree("out") == before
    scans.rename(scans.with_name("moved"))  # the earlier folder is gone: these may be the same scans
    assert denoise_scans("moved/box-0", "out", device="cpu").resumed == 4


def test_only_temporary_files_of_its_own_are_swept(scans):
    denoise_scans("scans", "out", device="cpu")
    mark = "-vaeguard-"
    kept = [
        Path(f"out/._photo{mark}00000001.jpg"),
        Path(f"out/box-0/.notes{mark}20240101.txt"),
        Path("out/.photo-20240101.jpg"),
    ]
    names = ("photo.jpg.png", "box-0/two.tif.json", "photo.jpg", "box-0/two.tif.page-2.residual.png", "report.html")
    left = [temporary_beside(Path("out", name)) for name in names]
    for path in kept + left:
        path.write_bytes(b"x")
    write_scan_report(denoise_scans("scans", "out", device="cpu"))
    assert [path.exists() for path in kept + left] == [True] * 3 + [False] * 5


def test_files_of_other_kinds_are_counted(scans):
    Path("scans/box-0/plan.JXL").write_bytes(b"a picture of a kind that is not read")
    Path("scans/box-0/plate.jxl").write_bytes(b"another")
    Path("scans/README").write_text("what is in the boxes")
    Path("scans/.hidden").write_text("nothing")
    note = "4 files skipped (unsupported type): 2 .jxl, 1 without a suffix, 1 .txt"
    assert plan_scans("scans").notes == (note,)


def rows_of(table):
    return csv.DictReader(io.StringIO(table.decode()))


def test_a_name_that_is_too_long_is_listed_and_the_others_go_on(scans):
    rng = np.random.default_rng(0)
    picture = np.clip(100 + 20 * rng.standard_normal((40, 40)), 0, 255).astype(np.uint8)
    put("long/b.png", picture)
    for length in (246, 250, 251):
        put(f"long/{'x' * (length - 4)}.png", picture)
    done = denoise_scans("long", device="cpu")
    assert (done.files, len(done.errors)) == (3, 1)
    assert "1 bytes too long" in done.errors[0][1]
    assert plan_scans("long", outputs=DenoiseOutputs(residual=True), device="cpu").files == 1


def test_a_folder_that_is_called_like_a_file_is_refused(scans):
    with pytest.raises(UsageError, match=r"'out\.pdf' is a file, or named like one, but clean scans need a folder"):
        denoise_scans("scans/photo.jpg", "out.pdf")


def test_pictures_of_a_pdf_that_stay_are_said(scans):
    grey = Image.fromarray(np.full((90, 80), 90, np.uint8))
    Path("pdfs").mkdir()
    grey.convert("1").save("pdfs/bilevel.pdf", save_all=True, append_images=[grey, grey.convert("CMYK")])
    for _ in range(2):
        done = denoise_scans("pdfs", device="cpu")
        assert (done.files, done.pages) == (1, 1)
        assert any(
            "1 PDF has pictures that were not changed" in note and "'bilevel.pdf'" in note for note in done.notes
        )
    assert done.resumed == 1
    grey.convert("1").save("pdfs/bare.pdf")
    done = denoise_scans("pdfs", device="cpu")
    assert done.notes[-1] == "1 PDF was copied unchanged, because it has no picture to restore: 'bare.pdf'"
    assert write_scan_report(done)["notes"] == list(done.notes)


def test_scans_that_would_be_one_file_are_said(scans):
    put("scans/photo.jpg.png", np.full((40, 40), 90, np.uint8))
    assert any("same file as 'photo.jpg'" in reason for _, reason in plan_scans("scans", device="cpu").errors)
    done = denoise_scans("scans", device="cpu", jobs=3)
    assert any("same file as 'photo.jpg'" in reason for _, reason in done.errors)
    assert denoise_scans("scans", device="cpu").resumed == done.files


def test_what_was_written_for_a_scan_stays_when_the_scan_breaks(scans):
    outputs = DenoiseOutputs(residual=True)
    denoise_scans("scans", outputs=outputs, device="cpu")
    before = {path: path.read_bytes() for path in Path("scans-clean/box-0").glob("0.png*")}
    original = (scans / "box-0/0.png").read_bytes()
    (scans / "box-0/0.png").write_bytes(original[:-200])
    Path("scans-clean/box-0/2.png.page-1.residual.png").unlink()
    done = denoise_scans("scans", outputs=outputs, device="cpu")
    assert done.resumed == 6
    assert dict(done.errors)["scans/box-0/0.png"].endswith("; the earlier clean file was kept")
    assert len(before) == 3
    assert all(path.read_bytes() == content for path, content in before.items())
    assert Path("scans-clean/box-0/2.png.page-1.residual.png").exists()
    (scans / "box-0/0.png").write_bytes(original)
    assert denoise_scans("scans", outputs=outputs, device="cpu").resumed == 8


def test_what_lies_beside_the_first_pages_goes_when_a_later_one_breaks(scans, monkeypatch):
    def breaks(content, name, temporary, restore, **coding):
        restore(next(scan_pages(content, name)))
        raise UnreadableError(name, "page 2 is damaged")

    monkeypatch.setattr("vaeguard.restoration.work.rewrite", breaks)
    done = denoise_scans("scans/box-0/two.tif", "clean", outputs=DenoiseOutputs(residual=True), device="cpu")
    assert [reason for _, reason in done.errors] == ["page 2 is damaged"]
    assert set(tree("clean")) == {"pages.csv", ".pages.csv.json", "pages.csv.errors.csv"}


def test_a_link_to_the_clean_scans_is_not_followed(scans):
    denoise_scans("scans", device="cpu")
    (scans / "link").symlink_to(Path("scans-clean").resolve())
    assert denoise_scans("scans", device="cpu").pages == 9


def test_clean_files_without_a_scan_are_named_and_stay(scans):
    denoise_scans("scans", device="cpu")
    (scans / "box-0/0.png").unlink()
    (scans / "photo.jpg").unlink()
    before = tree("scans-clean")
    done = denoise_scans("scans", device="cpu")
    gone = "'scans-clean/box-0/0.png', 'scans-clean/photo.jpg.png'"
    assert f"2 clean files no longer have a scan: {gone}; delete them if you do not need them" in done.notes
    assert set(tree("scans-clean")) == set(before)
    assert denoise_scans("scans/box-1/1.png", "scans-clean", device="cpu").notes == ()


def test_a_scan_that_is_written_under_another_name_leaves_nothing_under_the_first(scans):
    put("scans/other.jpg", np.asarray(Image.open("scans/photo.jpg")))
    denoise_scans("scans", device="cpu")
    edited = Path("scans-clean/other.jpg.png")
    edited.write_bytes(b"retouched by hand")
    done = denoise_scans("scans", outputs=DenoiseOutputs(jpeg=95), device="cpu")
    assert {name for name in tree("scans-clean") if name.startswith("photo")} == {"photo.jpg", "photo.jpg.json"}
    assert edited.read_bytes() == b"retouched by hand"
    assert str(edited) in done.notes[-1]


def test_clean_scans_among_the_scans_are_no_scans(scans):
    outputs = DenoiseOutputs(residual=True)
    for name in ("box-0/0.png", "box-0/2.png"):
        denoise_scans(f"scans/{name}", outputs=outputs, device="cpu")
    Path("scans/box-1/begun").mkdir(parents=True)
    with pytest.raises(KeyError), open_job("scans/box-1/begun/pages.csv", keep=True):
        raise KeyError
    put("scans/box-1/begun/deep/1.png", np.full((40, 40), 90, np.uint8))
    done = denoise_scans("scans", device="cpu")
    assert (done.files, done.pages) == (8, 9)
    assert done.notes == (
        "1 file skipped (unsupported type): 1 .txt",
        (
            "3 folders were skipped, because clean scans are already in them: "
            "'scans/box-0/0-clean', 'scans/box-0/2-clean', 'scans/box-1/begun'"
        ),
    )
    assert plan_scans("scans", "new").pages == 9
    assert denoise_scans("scans/box-0/0-clean", "again", device="cpu").pages == 2  # who names it means it


def test_somebody_elses_table_is_not_replaced(scans):
    Path("mine").mkdir()
    Path("mine/pages.csv").write_text("image,page\n1.png,1\n")
    with pytest.raises(UsageError, match="contains other files"):
        denoise_scans("scans", "mine")


def test_a_disk_that_is_full_ends_the_job(scans, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vaeguard.restoration.work.rewrite", full)
    with pytest.raises(VaeguardError, match="No space left"):
        denoise_scans("scans", device="cpu")


def test_one_bit_pages_are_copied_and_listed(scans):
    Image.new("1", (50, 60)).save("scans/fax.tif", compression="group4")
    done = denoise_scans("scans", device="cpu")
    assert done.pages == 10 == plan_scans("scans", "new").pages
    assert Path("scans-clean/fax.tif").read_bytes() == Path("scans/fax.tif").read_bytes()
    rows = read_table("scans-clean/pages.csv")
    assert [a for a, p in zip(rows["action"], rows["path"], strict=True) if p == "fax.tif"] == ["untouched"]


def test_names_of_outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("old scans").mkdir()
    assert default_output("old scans") == Path("old scans-clean")
    assert default_output("old scans/") == Path("old scans-clean")
    assert default_output("a/page.tif") == Path("a/page-clean")
    monkeypatch.chdir("old scans")
    assert default_output(".") == tmp_path / "old scans-clean"


def test_words_that_would_be_lost_keep_a_page(scans, monkeypatch):
    monkeypatch.setattr("vaeguard.restoration.pipeline.words_lost", lambda before, after, dpi, language: True)
    done = denoise_scans("scans", outputs=DenoiseOutputs(ocr=True), device="cpu")
    assert {row["action"] for row in done.look_first} == {"reverted"}
    np.testing.assert_array_equal(
        np.asarray(Image.open("scans-clean/box-0/0.png")), np.asarray(Image.open("scans/box-0/0.png"))
    )


def test_a_page_on_which_tesseract_fails_is_kept_and_the_others_go_on(scans, monkeypatch):
    def fails(before, after, dpi, language):
        if before.ndim == 3:
            raise VaeguardError("tesseract failed (out of words); leave out `ocr`")
        return False

    monkeypatch.setattr("vaeguard.restoration.pipeline.words_lost", fails)
    before = np.asarray(Image.open("scans/photo.jpg"))
    for resumed in (0, 8):
        done = denoise_scans("scans", outputs=DenoiseOutputs(ocr=True), device="cpu")
        assert (done.files, done.pages, done.resumed) == (8, 9, resumed)
        note, _ = done.notes
        assert note.startswith("2 pages were left unchanged: page 1 of ")
        for name in ("box-0/two.tif", "photo.jpg"):
            assert f"page 1 of '{name}' (tesseract failed" in note
        np.testing.assert_array_equal(np.asarray(Image.open("scans-clean/photo.jpg.png")), before)
    assert done.look_first[0]["action"] == "reverted"
    rows = read_table("scans-clean/pages.csv")
    assert list(rows["action"]).count("reverted") == 2

    def missing(*_):
        raise UsageError("`ocr` needs the program tesseract")

    monkeypatch.setattr("vaeguard.restoration.pipeline.words_lost", missing)
    with pytest.raises(UsageError, match="needs the program"):
        denoise_scans("scans", "other", outputs=DenoiseOutputs(ocr=True), device="cpu")


def test_progress_ends_with_everything(scans):
    calls = []
    denoise_scans("scans", progress=lambda *call: calls.append(call), device="cpu")
    done, total, text = calls[-1]
    assert done == total > 0
    assert text.startswith("9 pages")


def test_denoising_needs_neither_torch_nor_scikit_learn(scans):
    code = (
        "import sys, vaeguard\n"
        "assert vaeguard.denoise_scans('scans', 'out', device='cpu').pages == 9\n"
        "loaded = {'torch', 'sklearn', 'pandas', 'onnx'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_anomaly_model_restores_images_of_its_size(tmp_path, monkeypatch, bars_run, bars_onnx):
    monkeypatch.chdir(tmp_path)
    images, detector = bars(200)[0], vaeguard.load(bars_run, "cpu")
    for number in range(3):
        put(f"small/{number}.png", images[number, 0])
    put("small/large.png", np.zeros((20, 20), np.uint8))
    put("small/deep.png", images[0, 0].astype(np.uint16) * 257 + 3)
    expected = np.round(255 * detector.inspect(images[:3], pictures=True).restored[:, 0])
    for model_path in (bars_run, bars_onnx):
        done = denoise_scans("small", f"out-{model_path.stem}", model=model_path, device="cpu")
        assert done.pages == 4
        found = np.asarray(Image.open(f"out-{model_path.stem}/deep.png"))
        np.testing.assert_allclose(found / 257, expected[0], atol=1)
        assert "the model takes 8x8 and 1" in done.errors[0][1]
        for number in range(3):
            found = np.asarray(Image.open(f"out-{model_path.stem}/{number}.png"))
            np.testing.assert_allclose(found, expected[number], atol=1)
    everything = RestoreSettings(kind="document", noise=10, paper="white", gate=False, samples=2, strength=0.5)
    with pytest.raises(UsageError, match="`kind`, `noise`, `paper`, `gate`, `samples` have no effect"):
        denoise_scans("small", "refused", everything, model=bars_run, device="cpu")
    with pytest.raises(UsageError, match="^`uncertainty` has no effect if `model` is an anomaly model; remove it"):
        denoise_scans("small", "refused", outputs=DenoiseOutputs(uncertainty=True), model=bars_run, device="cpu")
    vectors = np.random.default_rng(0).normal(size=(60, 3))
    vaeguard.fit(
        vectors,
        model=vaeguard.ModelSpec(hidden=(8,), latent=2, autoencoder=True),
        training=vaeguard.TrainSpec(epochs=1),
        run="v",
    )
    with pytest.raises(UsageError, match="`model` works on vectors"):
        denoise_scans("small", "refused", model="v", device="cpu")
    assert not Path("refused").exists()


def test_scans_that_are_not_there_now_keep_their_clean_files(scans):
    denoise_scans("scans/box-0", "out", device="cpu")
    before = tree("out")
    scans.joinpath("box-0").rename("away")  # as a disk that is taken out
    with pytest.raises(UsageError, match=r"clean scans of '.*box-0', which was not found; make it available"):
        denoise_scans("scans/box-1", "out", device="cpu")
    assert tree("out") == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (IndexError("tuple index"), "this is a bug in vaeguard (IndexError: tuple index); please report it"),
        (MemoryError("not enough memory on cpu for a tile"), "not enough memory on cpu for a tile"),
        (MemoryError(), "set `jobs` to 1"),
    ],
)
def test_whatever_is_odd_about_one_scan_the_others_go_on(scans, monkeypatch, error, said):
    def odd(content, name, *arguments, **options):
        if name.endswith("3.png"):
            raise error
        return rewrite(content, name, *arguments, **options)

    monkeypatch.setattr("vaeguard.restoration.work.rewrite", odd)
    done = denoise_scans("scans", device="cpu")
    reasons = {Path(path).name: reason for path, reason in done.errors}
    assert said in reasons["3.png"]
    assert done.files == 7


@pytest.mark.parametrize("saved", ["path,page,kind,action,mine\n", "\ufeffpath;page;kind;action;noise;mine\n", None])
def test_a_table_that_somebody_works_with_is_kept(scans, saved):
    denoise_scans("scans", device="cpu")
    table = Path("scans-clean/pages.csv")
    if saved is None:  # one cell
        saved = table.read_text(encoding="utf-8").replace("document", "checked", 1)
        table.write_text(saved, encoding="utf-8")
    else:
        table.write_text(saved + "0.png,1,document,restored,looked at\n", encoding="utf-8")
    shutil.copytree("scans-clean", "scans/clean")
    done = denoise_scans("scans", device="cpu")
    assert done.resumed == 8
    kept = Path("scans-clean/pages-edited-1.csv")
    assert kept.read_text(encoding="utf-8").startswith(saved)
    assert len(read_table(table)) == 9
    assert any(str(kept) in note for note in done.notes)
    assert not any("edited" in note for note in denoise_scans("scans", device="cpu").notes)
    assert any("because clean scans are already in them" in note for note in done.notes)


def test_a_plan_counts_what_is_finished(scans):
    denoise_scans("scans/box-0", "out", device="cpu")
    plan = plan_scans("scans/box-0", "out", device="cpu")
    assert (plan.files, plan.pages, plan.megapixels, plan.finished) == (0, 0, 0, 4)
    plan = plan_scans("scans/box-0", "out", RestoreSettings(strength=0.5), device="cpu")
    assert (plan.files, plan.finished) == (4, 0)


def test_the_record_says_which_squares_went_back_and_by_which_version(scans, printed):
    page = 230 * printed(600, 700)
    shades = ndimage.gaussian_filter(np.random.default_rng(0).random((240, 300)), 4)
    page[60:300, 40:340] = 25 + 150 * (shades - shades.min()) / np.ptp(shades)  # a picture
    page = np.clip(page + np.random.default_rng(1).normal(0, 2, page.shape), 0, 255).astype(np.uint8)
    put("scans/box-0/mixed.png", page, dpi=(100, 100))
    denoise_scans("scans/box-0/mixed.png", "out", RestoreSettings(kind="document"), device="cpu")
    record = json.loads(Path("out/mixed.png.json").read_text())
    assert record["vaeguard"] == version("vaeguard")
    squares = record["put_back"]["pages"]["1"]
    assert record["put_back"]["square"] == 32
    assert (len(squares), len(squares[0])) == (19, 22)
    assert squares[5][5] == "#"
    assert squares[0][0] == "."


def test_paper_is_for_documents():
    with pytest.raises(UsageError, match="`paper` is 'white', which is for documents"):
        RestoreSettings(kind="photo", paper="white")


def test_dark_areas_that_may_have_been_pictures_are_to_be_looked_at(scans):
    page = np.full((300, 300), 230, np.uint8)
    page[20:280:12, 20:280] = 20
    page[100:260, 100:260] = 130
    put("scans/box-0/shade.png", page, dpi=(100, 100))
    done = denoise_scans("scans", settings=RestoreSettings(kind="document"), device="cpu")
    row = next(row for row in done.look_first if row["path"] == "box-0/shade.png")
    assert row["lightened"] > MUCH_LIGHTENED
    assert f"{100 * row['lightened']:.1f} % of it was made as bright as paper" in why_look(row)


def test_every_page_that_is_left_says_why(scans, monkeypatch):
    put("scans/even.png", np.full((90, 80), 90, np.uint8))
    Image.new("1", (50, 60)).save("scans/fax.png")
    monkeypatch.setattr(
        "vaeguard.restoration.pipeline.words_lost", lambda before, after, dpi, language: before.ndim == 3
    )
    done = denoise_scans("scans", outputs=DenoiseOutputs(ocr=True), device="cpu")
    table = read_table("scans-clean/pages.csv")
    assert list(table.columns) == list(COLUMNS)
    reasons = dict(zip(zip(table["path"], table["page"], strict=True), table["reason"], strict=True))
    left = {("even.png", 1): CLEAN, ("fax.png", 1): BILEVEL, ("photo.jpg", 1): FEWER_WORDS,
            ("box-0/two.tif", 1): FEWER_WORDS}  # fmt: skip
    assert {key: reason for key, reason in reasons.items() if reason} == left
    assert (table["action"] != "restored").tolist() == [reason != "" for reason in table["reason"]]
    assert {each["reason"]: each["pages"] for each in done.left} == {FEWER_WORDS: 2, CLEAN: 1, BILEVEL: 1}
    record = json.loads(Path("scans-clean/fax.png.json").read_text())
    assert record["pages"][0]["reason"] == BILEVEL
    nothing = denoise_scans("scans/photo.jpg", "none", RestoreSettings(strength=0), device="cpu")
    assert nothing.left == ({"reason": NO_STRENGTH, "pages": 1},)
    assert nothing.look_first == ()


def test_what_a_page_says_of_its_region_and_its_removed_marks_is_carried_on(scans, monkeypatch):
    def odd(pixels, *_, **__):
        report = PageReport("document", 1.0, 2.0, 0, 3.0, np.float32(0.25), region=(1, 2, 30, 40), removed=0.5)
        return RestoredPage(pixels ^ 1, report)

    monkeypatch.setattr("vaeguard.restoration.restorer.restore_page", odd)
    done = denoise_scans("scans/photo.jpg", "out", device="cpu")
    record = json.loads(Path("out/photo.jpg.png.json").read_text())
    assert record["pages"][0]["region"] == [1, 2, 30, 40]
    assert record["pages"][0]["size"] == [90, 70]
    table = read_table("out/pages.csv")
    assert [table[name][0] for name in ("reverted", "lightened", "removed", "reason")] == [0, 0.25, 0.5, ""]
    assert [row["path"] for row in done.look_first] == ["photo.jpg"]
    (shown,) = write_scan_report(done)["shown"]
    assert shown["marks"] == {"size": [90, 70], "put_back": [], "region": [1, 2, 30, 40]}


def test_the_list_to_look_at_holds_what_was_left_in_doubt_or_much_changed():
    row = {"path": "a", "page": 1, "action": "restored", "reason": "", "uncertainty": 0.0,
           "reverted": 0.0, "lightened": 0.0, "removed": 0.0}  # fmt: skip
    fine = [
        {**row, "reverted": 0.01},
        {**row, "action": "untouched", "reason": CLEAN},
        {**row, "action": "untouched", "reason": BILEVEL},
    ]
    doubt = {**row, "action": "untouched", "reason": "its paper was not found"}
    look = [{**row, "removed": 0.5}, {**row, "lightened": 0.4}, {**row, "reverted": 0.02}, doubt]
    assert [why_look(each) for each in fine] == ["", "", ""]
    assert [why_look(each) for each in look] == [
        "50.0 % of it was cleared of marks", "40.0 % of it was made as bright as paper",
        "ink or detail was put back in 2.0 % of it",
        "left unchanged because its paper was not found",
    ]  # fmt: skip
    assert sorted([*fine, *look[::-1]], key=worth_a_look)[:4] == look
    one, two = {"reason": BILEVEL, "pages": 1}, {"reason": "its paper was not found", "pages": 2}
    assert left_clause([one]) == "1 page was left unchanged because it has only two grey levels"
    assert left_clause([two]) == "2 pages were left unchanged because their paper was not found"
    assert left_clause([two, one]) == (
        "3 pages were left unchanged: 2 because their paper was not found, 1 because it has only two grey levels"
    )


def large_page():
    """So many rows that it is restored in several strips."""
    rng = np.random.default_rng(0)
    return np.clip(100 + 20 * rng.standard_normal((3 * STRIP, 40)), 0, 255).astype(np.uint8)


def test_progress_moves_within_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put("scans/page.png", large_page())
    calls = []
    denoise_scans("scans", progress=lambda *call: calls.append(call), device="cpu")
    size = Path("scans/page.png").stat().st_size
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert {round(size * share) for share in (1 / 3, 2 / 3, 1)} <= set(done)
    assert {call[1] for call in calls} == {size}
    assert calls[-1] == (size, size, "1 page, 0.1 MP")


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_ends_within_a_page_and_leaves_no_part_of_a_file(tmp_path, monkeypatch, jobs):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        put(f"scans/{name}.png", large_page())
    outputs = DenoiseOutputs(residual=True)
    denoise_scans("scans", "whole", outputs=outputs, device="cpu")
    calls = []

    def interrupt(done, total, text):
        calls.append(done)
        if done >= total / 7:  # a strip of one of the two pages
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        denoise_scans("scans", "cut", outputs=outputs, jobs=jobs, progress=interrupt, device="cpu")
    assert len(calls) <= 2 * jobs
    assert {str(path.relative_to("cut")) for path in Path("cut").rglob("*")} == {
        "pages.csv.job",
        "pages.csv.job/.vaeguard-job",
    }
    denoise_scans("scans", "cut", outputs=outputs, device="cpu")
    assert tree("cut") == tree("whole")


@pytest.mark.slow
def test_a_scan_that_ends_its_decoder_is_left_out(scans, faulty):
    path = scans / "box-0/0.png"
    path.write_bytes(path.read_bytes() + b"fault")
    done = denoise_scans("scans", device="cpu")
    assert done.files == 7
    assert faulty in dict(done.errors)["scans/box-0/0.png"]
    assert not Path("scans-clean/box-0/0.png").exists()


@pytest.mark.parametrize("link", ["clean", "clean/deep"])
def test_nothing_is_written_through_a_link(tmp_path, link):
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    Image.fromarray(np.full((64, 64), 200, np.uint8)).save(tmp_path / "scans" / "deep" / "a.png")
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    if link != "clean":
        with open_job(tmp_path / "clean" / "pages.csv", keep=True):
            (tmp_path / "clean" / "pages.csv").write_text("path,page,kind,action\n")
    with pytest.raises(UsageError, match=f"{link}' is a link"):
        denoise_scans(tmp_path / "scans", tmp_path / "clean")
    assert not [*(tmp_path / "elsewhere").iterdir()]

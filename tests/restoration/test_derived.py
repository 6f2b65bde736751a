"""Copies of clean pages, in black and white and turned straight."""

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pikepdf
import pytest
from PIL import Image
from vaeguard_cli.main import vaeguard as cli

from vaeguard import DenoiseOutputs, RestoreSettings, UsageError, check_scans, denoise_scans, undo_scans
from vaeguard.restoration.derived import Turn, turned, white_of
from vaeguard.restoration.formats.isolated import rewrite_bilevel, scan_pages
from vaeguard.restoration.gathering import denoise_share, gather_scans
from vaeguard.restoration.skew import LEAST_ANGLE, skew_of
from vaeguard.storage.plan import Share

BOTH = DenoiseOutputs(derive=("deskewed", "bilevel"))
HEIGHT, WIDTH = 300, 400
PAPER = 220


@pytest.fixture(scope="module")
def skewed(printed):
    """A page of print that must be turned by `angle` degrees to be straight."""

    def draw(angle, seed=0):
        page = np.round(PAPER * printed(HEIGHT, WIDTH, seed)).astype(np.uint8)
        return turned(page, Turn(-angle, (float(PAPER),)))

    return draw


@pytest.fixture(scope="module")
def home(tmp_path_factory, skewed):
    """Scans of every kind of file, noisy and skewed by 2, -3 and 0 degrees, and their clean tree with copies."""
    folder = tmp_path_factory.mktemp("derived")
    scans = folder / "scans"
    scans.mkdir()
    rng = np.random.default_rng(0)
    pages = [skewed(angle) + rng.normal(0, 6, (HEIGHT, WIDTH)) for angle in (2, -3, 0)]
    first, *rest = (Image.fromarray(np.clip(page, 0, 255).astype(np.uint8)) for page in pages)
    first.save(scans / "page.png", dpi=(150, 150))
    first.convert("RGB").save(scans / "colour.jpg", dpi=(150, 150), quality=95)
    several = {"save_all": True, "append_images": rest}
    first.save(scans / "three.tif", **several, dpi=(150, 100), tiffinfo={270: "page", 274: 1})
    first.save(scans / "book.pdf", **several, resolution=150, quality=95)
    first.point(lambda level: 255 * (level > 128)).convert("1").save(scans / "two.png")
    done = denoise_scans(scans, folder / "clean", outputs=BOTH, device="cpu")
    assert (done.files, done.pages, done.errors) == (5, 9, ())
    return folder


@pytest.fixture
def scans(home, tmp_path, monkeypatch):
    """A copy of the scans and of their clean tree in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    return tmp_path / "scans"


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def derived(path):
    return json.loads(Path(f"{path}.json").read_text())["derived"]


@pytest.mark.parametrize("angle", [0, 0.5, -1.37, 3.3, -5, 7])
@pytest.mark.parametrize("quarters", [0, 1])
def test_the_angle_is_found(skewed, angle, quarters):
    page = np.ascontiguousarray(np.rot90(skewed(angle), quarters))
    assert skew_of(page) == pytest.approx(angle, abs=LEAST_ANGLE)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("deviation", [0, 20, 80])
def test_noise_and_paper_have_no_angle(seed, deviation):
    noise = np.random.default_rng(seed).normal(160, deviation, (500, 400))
    assert skew_of(np.clip(noise, 0, 255).astype(np.uint8)) is None


def test_a_dark_border_of_the_scanner_is_not_the_text(skewed):
    page = skewed(2)
    page[:, :6] = page[:, -6:] = page[:6] = page[-6:] = 10
    assert skew_of(page) == pytest.approx(2, abs=LEAST_ANGLE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_point_is_found_in_the_copy_by_the_angle_and_the_centre(dtype, channels):
    full = np.iinfo(dtype).max
    page = np.full((120, 200, channels), full, dtype)
    page[:, :, : max(1, channels - (channels in (2, 4)))] = full // 2
    page[20:23, 150:153, 0] = 0
    angle, copy = math.radians(4), turned(page, Turn(4.0, (full // 2,) * (3 if channels > 2 else 1)))
    depth = full // 2 - copy[..., 0].astype(float)
    rows, columns = (np.arange(side) + 0.5 for side in depth.shape)
    found = (depth.sum(0) @ columns / depth.sum(), depth.sum(1) @ rows / depth.sum())
    x, y = 151.5 - 100, 21.5 - 60
    expected = (100 + math.cos(angle) * x + math.sin(angle) * y, 60 - math.sin(angle) * x + math.cos(angle) * y)
    assert found == pytest.approx(expected, abs=0.1)
    assert (copy[0, 0, 0], copy[-1, -1, -1]) == (page[0, 0, 0], page[-1, -1, -1])


@pytest.mark.slow
def test_copies_lie_beside_the_same_clean_files(scans):
    denoise_scans("scans", "plain", device="cpu")
    plain, clean = tree("plain"), tree("clean")
    names = {
        *("page.png.bilevel.tif", "page.png.deskewed.png", "colour.jpg.png.bilevel.tif", "colour.jpg.png.deskewed.png"),
        *("three.tif.bilevel.tif", "three.tif.deskewed.tif", "book.pdf.bilevel.pdf", "book.pdf.deskewed.pdf"),
        *("two.png.bilevel.tif", "two.png.deskewed.png"),
    }
    assert clean.keys() - plain.keys() == names
    records = {name for name in plain if name.endswith(".json")} - {".pages.csv.json"}
    assert {name for name in plain if plain[name] != clean[name]} == records
    assert check_scans("clean") == (15, [])
    assert denoise_scans("scans", "clean", outputs=BOTH, device="cpu").resumed == 5
    assert tree("clean") == clean
    assert denoise_scans("clean", "again", device="cpu").files == 5
    with pytest.raises(UsageError, match="contains only clean scans"):
        denoise_scans("clean/page.png.bilevel.tif", "more", device="cpu")


def test_pages_resolution_and_words_of_a_bilevel_copy_are_those_of_the_scan(scans):
    with Image.open("clean/three.tif.bilevel.tif") as copy:
        assert (copy.n_frames, copy.mode, copy.info["dpi"]) == (3, "1", (150, 100))
        assert (copy.info["compression"], copy.tag_v2[270], copy.tag_v2[274]) == ("group4", "page", 1)
        for number in range(3):
            copy.seek(number)
            with Image.open("clean/three.tif") as master:
                master.seek(number)
                window = derived("clean/three.tif")["bilevel"]["windows"][str(number + 1)]
                assert np.array_equal(np.asarray(copy), white_of(np.asarray(master), window))
    with Image.open("clean/two.png.bilevel.tif") as copy, Image.open("scans/two.png") as scan:
        assert np.array_equal(np.asarray(copy), np.asarray(scan))
    with pikepdf.open("clean/book.pdf") as master, pikepdf.open("clean/book.pdf.bilevel.pdf") as copy:
        assert len(copy.pages) == 3
        for number, (before, after) in enumerate(zip(master.pages, copy.pages, strict=True), 1):
            (grey,), (bits,) = ([*page.get_images().values()] for page in (before, after))
            window = derived("clean/book.pdf")["bilevel"]["windows"][str(number)]
            white = white_of(np.asarray(pikepdf.PdfImage(grey).as_pil_image()), window)
            assert bits.Filter == pikepdf.Name.CCITTFaxDecode
            assert np.array_equal(np.asarray(pikepdf.PdfImage(bits).as_pil_image().convert("1")), white)


def test_deskewed_pages_are_straight_and_straight_ones_are_not_turned(scans):
    (row,) = derived("clean/page.png")["deskewed"]["pages"]
    assert row["angle"] == pytest.approx(2, abs=LEAST_ANGLE)
    assert (row["centre"], row["size"]) == ([WIDTH / 2, HEIGHT / 2], [WIDTH, HEIGHT])
    with Image.open("clean/page.png.deskewed.png") as copy:
        assert round(copy.info["dpi"][0]) == 150
        pixels = np.asarray(copy)
    assert skew_of(pixels) == pytest.approx(0, abs=LEAST_ANGLE)
    assert all(abs(int(corner) - PAPER) < 12 for corner in pixels[[0, 0, -1, -1], [0, -1, 0, -1]])
    rows = derived("clean/three.tif")["deskewed"]["pages"]
    assert [row["angle"] for row in rows] == pytest.approx([2, -3, 0], abs=LEAST_ANGLE)
    assert "straight" in rows[2]["reason"]
    clean, copy = (
        list(scan_pages(Path(path).read_bytes(), path)) for path in ("clean/three.tif", "clean/three.tif.deskewed.tif")
    )
    assert [np.array_equal(*(page.pixels for page in pair)) for pair in zip(clean, copy, strict=True)] == [
        False,
        False,
        True,
    ]
    assert derived("clean/two.png")["deskewed"]["pages"][0]["reason"] == "it has only two grey levels"


def test_a_page_of_a_pdf_is_turned_with_everything_on_it(scans):
    facts = derived("clean/book.pdf")["deskewed"]
    assert facts["unit"] == "point"
    assert [row["angle"] for row in facts["pages"]] == pytest.approx([2, -3, 0], abs=LEAST_ANGLE)
    with pikepdf.open("clean/book.pdf") as master, pikepdf.open("clean/book.pdf.deskewed.pdf") as copy:
        for row, before, after in zip(facts["pages"], master.pages, copy.pages, strict=True):
            (old,), (new,) = ([*page.get_images().values()] for page in (before, after))
            assert old.read_raw_bytes() == new.read_raw_bytes()
            matrices = [pikepdf.Matrix(step.operands) for step in pikepdf.parse_content_stream(after, "cm")]
            if not row["angle"]:
                assert len(matrices) == 1
                continue
            turn = math.radians(row["angle"])
            assert matrices[0].shorthand[:2] == pytest.approx((math.cos(turn), math.sin(turn)), abs=1e-6)
            assert matrices[0].transform(tuple(row["centre"])) == pytest.approx(row["centre"], abs=1e-4)
            assert tuple(row["size"]) == pytest.approx((72 * WIDTH / 150, 72 * HEIGHT / 150))


@pytest.mark.slow
def test_pages_that_are_stored_turned_or_mirrored_are_straight_when_shown(tmp_path, skewed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    page = Image.fromarray(skewed(2))
    stored = {
        2: page.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 3: page.transpose(Image.Transpose.ROTATE_180),
        5: page.transpose(Image.Transpose.TRANSPOSE), 6: page.transpose(Image.Transpose.ROTATE_90),
    }  # fmt: skip
    for orientation, picture in stored.items():
        exif = Image.Exif()
        exif[274] = orientation
        picture.save(f"scans/{orientation}.png", exif=exif)
    denoise_scans("scans", outputs=BOTH, device="cpu")
    for orientation in stored:
        (copy,) = scan_pages(Path(f"scans-clean/{orientation}.png.deskewed.png").read_bytes(), "copy.png")
        assert skew_of(copy.upright(copy.pixels)) == pytest.approx(0, abs=LEAST_ANGLE), orientation


@pytest.mark.parametrize("kind", ["white is zero", "palette"])
def test_white_stays_white_where_it_is_stored_as_zero(tmp_path, kind):
    import tifffile

    white = np.random.default_rng(0).random((90, 70)) > 0.3
    if kind == "palette":
        name = "a.png"
        picture = Image.fromarray((~white).astype(np.uint8), "P")
        picture.putpalette([255, 255, 255, 0, 0, 0])
        picture.save(tmp_path / name)
    else:
        name = "a.tif"
        tifffile.imwrite(tmp_path / name, ~white, photometric="miniswhite")
    rewrite_bilevel((tmp_path / name).read_bytes(), name, tmp_path / "copy.tif", lambda page: page.pixels)
    with Image.open(tmp_path / "copy.tif") as copy:
        assert np.array_equal(np.asarray(copy), white)


@pytest.mark.slow
def test_no_copy_takes_the_name_of_another_file(scans):
    for name in ("colour.jpg", "three.tif", "book.pdf", "two.png"):
        Path("scans", name).unlink()
    Image.new("L", (80, 80), 200).save("scans/page.png.bilevel.tif")
    outputs = DenoiseOutputs(derive=("bilevel",))
    (error,) = denoise_scans("scans", "copies", outputs=outputs, device="cpu").errors
    assert error == (
        "scans/page.png.bilevel.tif", "it would be written to the same file as 'page.png'; rename one of them"
    )  # fmt: skip
    denoise_scans("scans", "other", device="cpu")
    before = tree("other")
    errors = dict(denoise_scans("scans/page.png", "other", outputs=outputs, device="cpu").errors)
    assert "'other/page.png.bilevel.tif' already exists" in errors["scans/page.png"]
    assert tree("other")["page.png.bilevel.tif"] == before["page.png.bilevel.tif"]


def test_a_copy_that_somebody_changed_is_kept_and_said(scans):
    Path("clean/page.png.bilevel.tif").write_bytes(b"by hand")
    (error,) = denoise_scans(
        "scans/page.png", "clean", RestoreSettings(strength=0.5), outputs=BOTH, device="cpu"
    ).errors
    assert "page.png.bilevel.tif' has changed since it was written" in error[1]
    assert Path("clean/page.png.bilevel.tif").read_bytes() == b"by hand"


@pytest.mark.slow
def test_shares_write_the_same_copies_and_undo_leaves_them_out(scans):
    outputs = DenoiseOutputs(residual=True, derive=("bilevel", "deskewed"))
    denoise_scans("scans", "alone", outputs=outputs, device="cpu")
    for piece in (1, 2):
        denoise_share("scans", "shared", Share(piece, 2), outputs=outputs, device="cpu")
    gather_scans(Path("shared"))
    assert tree("shared") == tree("alone")
    assert undo_scans("shared", "back") == (5, [])
    assert {path.name for path in Path("back").iterdir()} >= {"page.png", "three.tif", "book.pdf"}
    assert not list(Path("back").glob("*bilevel*"))


@pytest.mark.slow
def test_the_command_takes_several_copies_and_refuses_others(scans, capsys):
    assert DenoiseOutputs(derive=["bilevel", "deskewed", "bilevel"]) == BOTH
    with pytest.raises(UsageError, match="`derive` is 'jbig2'; choose from bilevel, deskewed"):
        DenoiseOutputs(derive=("jbig2",))
    command = ["denoise", "scans/page.png", "-o", "one", "--device", "cpu", "--no-report"]
    cli([*command, "--derive", "deskewed", "--derive", "bilevel"], standalone_mode=False)
    assert {"bilevel", "deskewed"} == derived("one/page.png").keys()
    with pytest.raises(UsageError, match="with --derive deskewed, wrote files next to"):
        cli([*command, "--set", "outputs.derive=bilevel"], standalone_mode=False)
    assert Path("one/page.png.deskewed.png").exists()


def test_a_missing_package_is_said(scans, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "doxapy" else find(name))
    with pytest.raises(UsageError, match=r"pip install 'vaeguard\[derive\]'"):
        denoise_scans("scans", outputs=BOTH, device="cpu")
    assert not Path("scans-clean").exists()


@pytest.mark.slow
def test_first_copies_in_several_threads_do_not_wait_for_each_other():
    code = (
        "import sys, threading, numpy as np; from vaeguard.restoration.derived import white_of\n"
        "sys.setswitchinterval(1e-6)\n"
        "threads = [threading.Thread(target=white_of, args=(np.eye(200, dtype=np.uint8), 31)) for _ in range(8)]\n"
        "for do in ('start', 'join'):\n    for thread in threads: getattr(thread, do)()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

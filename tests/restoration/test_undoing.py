"""The originals of clean scans."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaeguard import DenoiseOutputs, UsageError, check_scans, denoise_scans, undo_scans
from vaeguard.restoration.formats.scans import facts_of, scan_pages


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """A clean tree with residuals, of scans of many kinds."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    grey = np.clip(100 + 20 * rng.standard_normal((90, 70)), 0, 255).astype(np.uint8)
    colours = np.clip(100 + 20 * rng.standard_normal((90, 70, 4)), 0, 255).astype(np.uint8)
    Path("scans/box").mkdir(parents=True)
    Image.fromarray(grey).save("scans/box/grey.png", dpi=(150, 150))
    Image.fromarray(grey.astype(np.uint16) * 200).save("scans/deep.png")
    Image.fromarray(colours).save("scans/opaque.png")
    Image.fromarray(colours[..., :3]).save("scans/photo.jpg", quality=95, dpi=(300, 300))
    Image.fromarray(grey).save("scans/photo.webp", lossless=True)
    bilevel = Image.fromarray(grey > 100)
    Image.fromarray(colours[..., :3]).save(
        "scans/box/pages.tif", save_all=True, append_images=[Image.fromarray(grey), bilevel]
    )
    Image.fromarray(colours[..., :3]).save("scans/book.pdf", save_all=True, append_images=[Image.fromarray(grey)])
    done = denoise_scans("scans", "clean", outputs=DenoiseOutputs(residual=True), device="cpu")
    assert (done.files, done.errors) == (7, ())
    return Path("clean")


def test_an_interrupted_undo_goes_on(clean, monkeypatch):
    def stop(done, total, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        undo_scans(clean, progress=stop)
    assert undo_scans(clean) == (7, [])
    assert not Path("clean-originals.job").exists()
    with pytest.raises(UsageError, match="already exists"):
        undo_scans(clean)


def test_single_originals_join_others_in_a_folder(clean):
    for name in ("deep.png", "photo.webp"):
        assert undo_scans(clean / name, "some") == (1, [])
    assert {path.name for path in Path("some").iterdir()} == {"deep.png", "photo.webp"}


def pages(path):
    return [page.pixels for page in scan_pages(Path(path).read_bytes(), str(path))]


def test_the_pixels_of_every_page_are_those_of_the_scan(clean):
    calls = []
    assert undo_scans(clean, progress=lambda *call: calls.append(call)) == (7, [])
    assert calls[-1] == (7, 7, "7 files")
    changed = 0
    for path in sorted(Path("scans").rglob("*.*")):
        name = str(path.relative_to("scans")) + ".png" * (path.suffix == ".jpg")
        for before, cleaned, after in zip(
            pages(path), pages(clean / name), pages(f"clean-originals/{name}"), strict=True
        ):
            assert after.dtype == before.dtype
            np.testing.assert_array_equal(after, before)
            changed += not np.array_equal(before, cleaned)
        if path.suffix != ".pdf":
            assert facts_of(Path("clean-originals", name).read_bytes(), name) == facts_of(
                (clean / name).read_bytes(), name
            )
    assert changed >= 7
    assert len(list(Path("clean-originals").rglob("*.*"))) == 7


def test_a_single_clean_file_is_undone(clean):
    assert undo_scans(clean / "box/grey.png", "one") == (1, [])
    assert [str(path) for path in Path("one").rglob("*")] == ["one/grey.png"]
    np.testing.assert_array_equal(pages("one/grey.png"), pages("scans/box/grey.png"))
    assert undo_scans(clean / "deep.png") == (1, [])
    assert undo_scans(clean / "box") == (2, [])
    names = sorted(str(path) for path in Path("clean-originals").rglob("*.*"))
    assert names == [f"clean-originals/{name}" for name in ("box/grey.png", "box/pages.tif", "deep.png")]
    with pytest.raises(UsageError, match="give a clean file"):
        undo_scans("scans/box/grey.png", "other")


@pytest.mark.parametrize("damage", [lambda text: text + "a,b\n", lambda text: text.replace(",", ";")])
def test_a_damaged_table_does_not_end_a_check(clean, damage):
    table = clean / "pages.csv"
    table.write_text(damage(table.read_text()))
    intact, errors = check_scans(clean)
    assert intact > 7
    assert [path for path, _ in errors] == [str(table)]
    assert "clean the scans again" in errors[0][1]


def test_a_tree_is_checked_against_its_records(clean):
    calls = []
    pages = {"box/pages.tif": 2, "book.pdf": 2}  # and a bilevel one, which has no residual
    files = 7 + sum(pages.get(str(path.relative_to("scans")), 1) for path in Path("scans").rglob("*.*"))
    before = {path: path.read_bytes() for path in clean.rglob("*.*")}
    assert check_scans(clean, progress=lambda *call: calls.append(call)) == (files, [])
    assert calls[-1] == (7, 7, "7 files")
    (clean / "deep.png").write_bytes(before[clean / "deep.png"] + b" ")
    (clean / "opaque.png.page-1.residual.png").unlink()
    assert check_scans("clean") == (files - 2, [
        ("clean/deep.png", "it has changed since it was written"),
        ("clean/opaque.png.page-1.residual.png", "it is missing"),
    ])  # fmt: skip
    record = Path("clean/photo.webp.json")
    record.write_bytes(record.read_bytes()[:-50])
    Path("clean/book.pdf.json").unlink()
    Path("clean/book.pdf").unlink()
    told = dict(check_scans("clean")[1])
    assert "its record is damaged" in told["clean/photo.webp"]
    assert "it lists 'book.pdf'" in told["clean/pages.csv"] or "it lists 'photo.webp'" in told["clean/pages.csv"]
    with pytest.raises(UsageError, match="'scans' contains no clean scans"):
        check_scans("scans")


def test_what_cannot_be_had_back_is_listed(clean):
    (clean / "deep.png").write_bytes(b"retouched by hand")
    (clean / "opaque.png.page-1.residual.png").unlink()
    files, errors = undo_scans(clean, "out")
    reasons = dict(errors)
    assert files == 5
    assert "'clean/deep.png' has changed since it was written" in reasons["clean/deep.png"]
    assert set(reasons) == {"clean/deep.png", "clean/opaque.png"}
    assert not Path("out/deep.png").exists()
    denoise_scans("scans/deep.png", "bare", device="cpu")
    ((_, reason),) = undo_scans("bare")[1]
    assert "without its residual" in reason


def test_pixels_that_would_not_be_those_of_the_scan_are_refused(clean):
    record = clean / "deep.png.json"
    told = json.loads(record.read_text())
    told["pixels_sha256"]["1"] = "0" * 64
    record.write_text(json.dumps(told))
    ((path, reason),) = undo_scans(clean, "out")[1]
    assert path.endswith("deep.png")
    assert "page 1 would differ from the original" in reason


def test_clean_files_may_be_larger_than_what_is_read_of_others(clean, monkeypatch):
    monkeypatch.setattr("vaeguard.data.images.MAX_BYTES", 100)
    assert undo_scans(clean) == (7, [])


def test_folders_that_cannot_work(clean):
    for output in ("clean", "clean/out", "."):
        with pytest.raises(UsageError, match="overlaps the folder of the clean scans"):
            undo_scans(clean, output)
    with pytest.raises(UsageError, match="'scans/.*' already exists"):
        undo_scans(clean, "scans")
    Path("file").touch()
    with pytest.raises(UsageError, match="is a file"):
        undo_scans(clean, "file")
    for nothing in ("scans", "nowhere"):
        with pytest.raises(UsageError, match="contains no clean scans"):
            undo_scans(nothing)

from __future__ import annotations

import contextlib
import shutil
import sys
import tarfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from toy import toy_record

import vaeguard
from vaeguard.data import source
from vaeguard.data.image_set import ImageSet
from vaeguard.engines.inspection import DetectorInfo, Inspection
from vaeguard.engines.record import CalibrationRecord
from vaeguard.errors import UnreadableError, UsageError, VaeguardError
from vaeguard.evaluation import scoring
from vaeguard.evaluation.scoring import SPOT_COLUMNS, score_files, score_set, spots_table
from vaeguard.evaluation.watching import watch_files
from vaeguard.reports.heatmaps import HeatmapFolder, heatmap_path
from vaeguard.reports.pictures import heat_picture
from vaeguard.statistics.false_alarms import can_flag, fewest_calibration, flag, fpr_note, lowest_fpr
from vaeguard.storage.tables import columns_of, read_table, write_table

if TYPE_CHECKING:
    from pathlib import Path

CALIBRATION_IMAGES = 99


def info(images: int = 0, hottest: float | None = None, peaks: tuple[float, ...] = ()) -> DetectorInfo:
    return DetectorInfo(toy_record(calibration=CalibrationRecord(images, hottest, peaks)), ("recon_error", "kl"))


@dataclass
class FakeDetector:
    """The mean brightness in [0, 1] is the score, one minus it the p-value."""

    info: DetectorInfo = field(default_factory=lambda: info(CALIBRATION_IMAGES))
    batches: list[int] = field(default_factory=list)
    broken: bool = False
    fingerprint: str = "fake"
    parallel: int = 1
    least: int = 16

    def inspect(self, images: np.ndarray, *, pictures: bool = False) -> Inspection:
        self.batches.append(len(images))
        score = images.mean((1, 2, 3), dtype=np.float64).astype(np.float32) / 255
        if self.broken:
            score[-1] = np.nan
        drawn = {"restored": images / np.float32(255), "heatmap": images[:, 0] / np.float32(255)} if pictures else {}
        return Inspection(score, np.float32(1) - score, {"kl": score * 2, "recon_error": score**2}, **drawn)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "b").mkdir(parents=True)
    for index, name in enumerate(["z.png", "b/1.png", "b/0.png", "a.png", "b.png"]):
        Image.fromarray(np.full((8, 8), index * 60, np.uint8)).save(folder / name)
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_rows_are_in_sorted_path_order_with_the_promised_columns(suffix: str, folder: Path, tmp_path: Path) -> None:
    detector = FakeDetector()
    summary = score_files(detector, [folder], tmp_path / f"scores{suffix}", fpr=0.1, batch_size=2)
    table = read_table(tmp_path / f"scores{suffix}")
    assert list(table.columns) == ["path", "score", "p_value", "anomaly", "recon_error", "kl"]
    assert table["path"].tolist() == sorted(str(path) for path in folder.rglob("*.png"))
    by_name = dict(zip(table["path"], table["score"], strict=True))
    assert by_name[str(folder / "b.png")] == pytest.approx(240 / 255)
    assert np.array_equal(table["anomaly"], table["p_value"] <= 0.1)
    assert table["anomaly"].dtype == bool
    assert (summary.images, summary.anomalies, summary.errors, summary.note) == (5, 1, (), None)
    assert summary.output == str(tmp_path / f"scores{suffix}")
    assert summary.seconds > 0


def test_batches_do_not_change_the_file(folder: Path, tmp_path: Path) -> None:
    score_files(FakeDetector(), [folder], tmp_path / "a.csv", batch_size=2)
    score_files(FakeDetector(), folder, tmp_path / "b.csv", batch_size=256)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_unreadable_inputs_are_listed_and_the_list_goes_when_they_do(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    seen = []
    summary = score_files(FakeDetector(), [folder], tmp_path / "s.csv", progress=lambda *step: seen.append(step))
    errors = read_table(tmp_path / "s.csv.errors.csv")
    assert list(errors.columns) == ["path", "error"]
    assert errors["path"].tolist() == [str(folder / "broken.png")]
    assert tuple(zip(errors["path"], errors["error"], strict=True)) == summary.errors
    assert summary.to_dict()["errors"] == errors.to_dict("records")
    assert summary.images == len(read_table(tmp_path / "s.csv")) == 5
    assert seen[-1] == (6, 6, "6 of 6 images")
    (folder / "broken.png").unlink()
    assert score_files(FakeDetector(), [folder], tmp_path / "s.csv").errors == ()
    assert not (tmp_path / "s.csv.errors.csv").exists()


def refuse(kind: str, files: list[str], *others: object) -> list[tuple[str, UnreadableError, None]]:
    return [(name, UnreadableError(name, "nobody may read it"), None) for name in files]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_another_rate_flags_a_finished_table_anew_without_reading_its_images(
    suffix: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    monkeypatch.setattr("vaeguard.storage.tables.ROW_GROUP", 2)
    outcomes = []
    for place, rates in (("again", (0.1, 0.5)), ("fresh", (0.5,))):
        for rate in rates:
            detector, heatmaps = FakeDetector(), HeatmapFolder(tmp_path / place / f"heatmaps-{rate}")
            table = tmp_path / place / f"s{suffix}"
            summary = score_files(detector, [folder], table, fpr=rate, batch_size=2, heatmaps=heatmaps)
        assert score_files(FakeDetector(), [folder], table, fpr=rate).resumed == 5
        outcomes.append(
            (summary.images, summary.anomalies, summary.errors, table.read_bytes(), contents(heatmaps.path))
        )
        assert sum(detector.batches) == (summary.anomalies if place == "again" else 5 + summary.anomalies)
    assert outcomes[0] == outcomes[1]
    assert not list((tmp_path / "again").glob("*.job"))


def test_a_table_is_made_anew_where_anything_that_it_depends_on_has_changed(folder: Path, tmp_path: Path) -> None:
    def scored(fingerprint: str = "fake") -> int:
        detector = FakeDetector(fingerprint=fingerprint)
        score_files(detector, [folder], tmp_path / "s.csv", fpr=0.5)
        return sum(detector.batches)

    assert (scored(), scored(), scored("other"), scored()) == (5, 0, 5, 5)
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(folder / "more.png")
    assert scored() == 6
    with Image.open(folder / "a.png") as image:
        image.copy().save(folder / "a.png")
    assert scored() == 6
    (tmp_path / "s.csv").write_text((tmp_path / "s.csv").read_text().replace("more.png", "less.png"))
    assert (scored(), scored()) == (6, 0)


def test_what_can_be_read_again_is_scored(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("vaeguard.data.streams.read_each", refuse)
        assert len(score_files(FakeDetector(), [folder], tmp_path / "s.csv").errors) == 5
    assert score_files(FakeDetector(), [folder], tmp_path / "s.csv").images == 5


def test_where_nothing_can_be_read_the_table_has_only_its_header(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    detector = FakeDetector()
    summary = score_files(detector, [tmp_path / "x.png"], tmp_path / "s.csv")
    assert (summary.images, len(summary.errors), sum(detector.batches)) == (0, 1, 0)
    assert (tmp_path / "s.csv").read_text() == "path,score,p_value,anomaly,recon_error,kl\n"


def test_a_failure_leaves_the_old_table(folder: Path, tmp_path: Path) -> None:
    score_files(FakeDetector(), [folder], tmp_path / "s.csv")
    before = (tmp_path / "s.csv").read_bytes()
    with pytest.raises(VaeguardError, match=r"no valid score for '.*z\.png'"):
        score_files(FakeDetector(broken=True, fingerprint="broken"), [folder], tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".s.csv.json", "images", "s.csv"]


def test_no_table_is_written_over_the_images_that_it_tells_of(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with Image.new("L", (8, 8), 9) as image:
        image.save(tmp_path / "one.png")
    content = pa.table({"image": [(tmp_path / "one.png").read_bytes()]})
    pq.write_table(content, tmp_path / "frames.parquet")
    before = (tmp_path / "frames.parquet").read_bytes()
    with pytest.raises(UsageError, match=r"frames\.parquet' is one of the inputs"):
        score_files(FakeDetector(), [tmp_path / "frames.parquet"], tmp_path / "a.csv" / ".." / "frames.parquet")
    assert (tmp_path / "frames.parquet").read_bytes() == before


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_only_tables_of_scores_are_replaced(suffix: str, tmp_path: Path) -> None:
    with Image.new("L", (8, 8), 9) as image:
        image.save(tmp_path / "one.png")
    table = tmp_path / f"s{suffix}"
    score_files(FakeDetector(), [tmp_path / "one.png"], table)
    score_files(FakeDetector(), [tmp_path / "one.png"], table)
    own = {name: read_table(table)[name].tolist() for name in columns_of(table)}
    other = "not a table of scores and would be overwritten"
    for columns, said in (
        ({**own, "class": ["good"]}, "has a column 'class', which vaeguard did not write"),
        ({**own, "verdict": ["fine"]}, "has a column 'verdict', which vaeguard did not write"),
        ({"path": ["a"], "z0": np.ones(1)}, other),
        ({"part": ["7"], "operator": ["me"]}, other),
    ):
        write_table(
            table, {name: cells if isinstance(cells[0], str) else np.array(cells) for name, cells in columns.items()}
        )
        before = table.read_bytes()
        with pytest.raises(UsageError, match=said):
            score_files(FakeDetector(), [tmp_path / "one.png"], table)
        assert table.read_bytes() == before
    table.unlink()
    table.mkdir()
    with pytest.raises(UsageError, match="is a folder; name a table in this folder"):
        score_files(FakeDetector(), [tmp_path / "one.png"], table)


def test_flagged_images_are_drawn_under_their_paths_and_below_the_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "b")
    score_files(FakeDetector(), ["..", "0.png"], tmp_path / "s.csv", fpr=0.1, heatmaps=HeatmapFolder(tmp_path / "seen"))
    drawn = sorted((tmp_path / "seen").rglob("*.png"))
    assert drawn == [tmp_path / "seen/_/b.png.overlay.png", tmp_path / "seen/_/b.png.png"]
    with Image.open(drawn[1]) as image:
        assert image.size[0] > 300
    score_files(FakeDetector(), ["../b.png", "../z.png"], tmp_path / "t.csv", fpr=0.01)
    assert not (tmp_path / "t.csv.job").exists()


def test_heatmaps_are_drawn_on_the_scale_of_the_fit(tmp_path: Path) -> None:
    images = np.stack([np.full((1, 8, 8), value, np.uint8) for value in (51, 255)])

    def colours(name: str, hottest: float | None) -> set[tuple[int, ...]]:
        detector = FakeDetector()
        detector.info = info(hottest=hottest)
        for image, path in zip(images, ("quiet.png", "loud.png"), strict=True):
            seen = detector.inspect(image[None], pictures=True)
            HeatmapFolder(tmp_path).draw(detector.info, source.Original(path, image, image, (8, 8)), seen, ())
        with Image.open(tmp_path / f"{name}.png") as picture:
            return {tuple(pixel) for pixel in np.asarray(picture.convert("RGB"))[60:100].reshape(-1, 3).tolist()}

    def colour(heat: float) -> tuple[int, ...]:
        return tuple(np.asarray(heat_picture(np.full((1, 1), heat, np.float32)))[0, 0].tolist())

    for hottest, drawn in ((1.0, 0.2), (0.5, 0.4)):  # a quiet image's pixels are 51 of 255
        assert colour(drawn) in colours("quiet.png", hottest)
        assert colour(1) not in colours("quiet.png", hottest)
        assert colour(1) in colours("loud.png", hottest)
    assert colour(1) in colours("quiet.png", None)  # its own maximum


def test_heatmaps_are_not_drawn_where_they_would_be_images(folder: Path, tmp_path: Path) -> None:
    for images in (folder, f"{tmp_path}/**/*.png", f"{tmp_path}/im*", f"{folder}/[ab]"):
        with pytest.raises(UsageError, match="where the images are"):
            score_files(FakeDetector(), [images], tmp_path / "s.csv", heatmaps=HeatmapFolder(folder / "b" / "seen"))
    score_files(
        FakeDetector(), [folder / "b" / "0.png"], tmp_path / "s.csv", fpr=0.5, heatmaps=HeatmapFolder(folder / "seen")
    )


def test_a_job_that_was_interrupted_before_its_first_shard_remembers_that_it_drew(folder: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, text: str) -> None:
        raise KeyboardInterrupt

    for heatmaps, left in ((None, False), (tmp_path / "seen", True)):
        with pytest.raises(KeyboardInterrupt):
            score_files(
                FakeDetector(),
                [folder],
                tmp_path / "s.csv",
                fpr=0.5,
                heatmaps=heatmaps and HeatmapFolder(heatmaps),
                progress=stop,
            )
        assert (tmp_path / "s.csv.job").exists() == left


def test_heatmaps_that_went_away_while_a_job_lay_are_drawn_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "DRAWN", 16)
    more = folder / "more"
    more.mkdir()
    for number in range(40):
        shutil.copy(folder / "b.png", more / f"{number:02d}.png")
    seen, table = tmp_path / "seen", tmp_path / "s.csv"

    def stop(done: int, total: int, text: str) -> None:
        if text.startswith("drawing 32 "):
            raise KeyboardInterrupt

    def again() -> int:
        with pytest.raises(KeyboardInterrupt):
            score_files(detector, [more], table, fpr=0.5, heatmaps=HeatmapFolder(seen), progress=stop)
        return len(list(seen.rglob("*.overlay.png")))

    detector = FakeDetector()
    assert (again(), sum(detector.batches)) == (32, 40 + 32)
    assert (again(), sum(detector.batches)) == (32, 40 + 32)  # nothing is done twice
    shutil.rmtree(seen)
    summary = score_files(FakeDetector(), [more], table, fpr=0.5, heatmaps=HeatmapFolder(seen))
    assert len(list(seen.rglob("*.overlay.png"))) == summary.anomalies == 40


PHOTOGRAPHS = {
    "grey.png": ("L", {}),
    "colour.jpg": ("RGB", {"quality": 95}),
    "deep.png": ("I;16", {}),
    "palette.png": ("P", {}),
    "page.tif": ("L", {"compression": "tiff_deflate"}),
    "turned.jpg": ("L", {"quality": 95, "exif": True}),
}


def photograph(name: str) -> Image.Image:
    """A dark photograph of 160x80 pixels with a bright part: columns 60 to 79, rows 20 to 29."""
    mode, options = PHOTOGRAPHS[name]
    values = np.zeros((80, 160), np.uint8)
    values[20:30, 60:80] = 255
    if "exif" in options:  # stored turned, as cameras do
        values = np.rot90(values, -1)
    image = Image.fromarray(values.astype(np.uint16) * 257 if mode == "I;16" else values)
    return image if mode == "I;16" else image.convert(mode)


def written(folder: Path) -> None:
    folder.mkdir()
    for name, (_, options) in PHOTOGRAPHS.items():
        exif = Image.Exif()
        exif[0x0112] = 8
        photograph(name).save(folder / name, **{**options, **({"exif": exif} if "exif" in options else {})})


@pytest.fixture(params=["folder", "tar", "parquet", "npy"])
def photographs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Photographs of many kinds with the same spot, in several kinds of places."""
    folder = tmp_path / "photographs"
    written(folder)
    if request.param == "tar":
        with tarfile.open(tmp_path / "photographs.tar", "w") as archive:
            archive.add(folder, "")
        return tmp_path / "photographs.tar"
    if request.param == "parquet":
        images = [path.read_bytes() for path in sorted(folder.iterdir())]
        pq.write_table(pa.table({"image": images}), tmp_path / "photographs.parquet")
        return tmp_path / "photographs.parquet"
    if request.param == "npy":
        np.save(tmp_path / "photographs.npy", np.stack([np.asarray(photograph("grey.png"))] * len(PHOTOGRAPHS)))
        return tmp_path / "photographs.npy"
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_spots_are_placed_in_the_originals_whatever_these_are(suffix: str, photographs: Path, tmp_path: Path) -> None:
    detector = FakeDetector(info(9, 0.5, tuple(np.linspace(0.1, 0.5, 9).tolist())))
    detector.info = replace(detector.info, record=replace(detector.info.record, model=spec_of((1, 16, 32))))
    for fpr in (0.995, 0.99):  # a table that is made, and one that is flagged anew
        output, seen = tmp_path / f"scores{suffix}", tmp_path / f"seen-{fpr}"
        summary = score_files(detector, photographs, output, fpr=fpr, heatmaps=HeatmapFolder(seen))
        table = read_table(tmp_path / f"spots{suffix}")
        assert summary.spots == str(tmp_path / f"spots{suffix}")
        assert list(table.columns) == [*SPOT_COLUMNS]
        assert table["path"].tolist() == read_table(output)["path"].tolist()
        assert set(table["rank"]) == set(table["spots"]) == {1}
        assert table[["left", "top", "width", "height", "area"]].drop_duplicates().values.tolist() == [
            [60, 20, 20, 10, 200]
        ]
        assert np.allclose(table[["x", "y"]], (70, 25), atol=0.5)
        assert np.allclose(table["p_value"], 1 / 10)
        overlays = sorted(seen.rglob("*.overlay.png"))
        assert len(overlays) == len(PHOTOGRAPHS)
        for path in overlays:
            with Image.open(path) as picture:
                assert (picture.size, picture.mode) == ((160, 80), "RGB")
                pixels = np.asarray(picture).astype(int)
            assert np.ptp(pixels[25, 70]) > 100, "no heat"
            assert (pixels[60:, 100:] < 30).all(), "the photograph is changed where it is normal"
    score_files(detector, photographs, tmp_path / f"scores{suffix}", fpr=0.99)
    assert not (tmp_path / f"spots{suffix}").exists(), "it is of an earlier table"


def spec_of(shape: tuple[int, int, int]) -> vaeguard.ModelSpec:
    return vaeguard.ModelSpec().resolved(shape, ())


def test_a_table_without_spots_is_empty_and_no_other_file_is_lost(folder: Path, tmp_path: Path) -> None:
    for name in ("spots.csv", "a.spots.csv"):
        output = tmp_path / ("scores.csv" if name == "spots.csv" else "a.csv")
        assert spots_table(output) == tmp_path / name
        (tmp_path / name).write_text("path,who\na.png,me\n")
        with pytest.raises(UsageError, match="not a table of spots and would be overwritten"):
            score_files(FakeDetector(), folder, output, fpr=0.5, heatmaps=HeatmapFolder(tmp_path / "seen"))
        score_files(FakeDetector(), folder, output, fpr=0.5)
        assert (tmp_path / name).read_text().endswith("me\n")
        (tmp_path / name).unlink()
        score_files(FakeDetector(), folder, output, fpr=0.5, heatmaps=HeatmapFolder(tmp_path / "seen"))
        assert len(read_table(tmp_path / name)) == 0


@pytest.mark.parametrize("name", ["../../etc/x.png", "/etc/x.png", "a/../../x.png", "x" * 250, "new\nline.png"])
def test_a_heatmap_lies_below_its_folder_whatever_the_image_is_called(name: str, tmp_path: Path) -> None:
    path = heatmap_path(tmp_path, name)
    assert path.resolve().is_relative_to(tmp_path.resolve())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_absolute_names_of_images_take_no_other_heatmaps_place(tmp_path: Path) -> None:
    assert heatmap_path(tmp_path, "/x/a.png") != heatmap_path(tmp_path, "x/a.png")


@pytest.mark.parametrize("fpr", [0, 1, -0.1, 1.5, float("nan")])
def test_a_false_alarm_rate_outside_0_to_1_is_refused(fpr: float, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`fpr`"):
        score_files(FakeDetector(), [folder], tmp_path / "s.csv", fpr=fpr)


def test_an_unknown_suffix_is_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    detector = FakeDetector()
    with pytest.raises(UsageError, match=r"\.csv, \.parquet or \.jsonl"):
        score_files(detector, [folder], tmp_path / "scores.xlsx")
    assert detector.batches == []


@given(images=st.integers(1, 10_000))
def test_the_note_comes_exactly_where_the_smallest_p_value_is_not_flagged(images: int) -> None:
    record = info(images)
    smallest = np.float32(1) / np.float32(images + 1)
    for fpr in (1 / (images + 1), 0.5 / (images + 1), min(1.5 / (images + 1), 0.9)):
        assert (fpr_note(record.calibrated_on, fpr) is None) == flag(np.array([smallest]), fpr).all()
    assert fpr_note(record.calibrated_on, 1 / (images + 1)) is None
    assert "no image can be flagged" in (fpr_note(record.calibrated_on, 0.5 / (images + 1)) or "")


@given(images=st.integers(1, 100_000), fpr=st.floats(1e-5, 0.9))
def test_the_ways_out_of_a_rate_that_flags_nothing_are_the_nearest(images: int, fpr: float) -> None:
    assert can_flag(images, lowest_fpr(images))
    assert lowest_fpr(images) < 1.11 / (images + 1)
    fewest = fewest_calibration(fpr)
    assert can_flag(fewest, fpr)
    assert not can_flag(fewest - 1, fpr)
    note = fpr_note(info(8).calibrated_on, 0.05) or ""
    assert "this rate needs 19 calibration images; raise the false-alarm rate to 0.12, fit with more images" in note


def test_no_note_where_the_calibration_is_unknown() -> None:
    assert fpr_note(info().calibrated_on, 1e-9) is None


def test_the_p_value_at_the_rate_itself_is_flagged() -> None:
    one_in_twenty = np.array([1], np.float32) / np.float32(20)
    assert float(one_in_twenty[0]) > 0.05
    assert flag(one_in_twenty, 0.05).all()
    assert not flag(np.nextafter(one_in_twenty, np.float32(1)), 0.05).any()


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_score_set_joins_batches_in_order(batch_size: int) -> None:
    images = np.arange(7, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), np.uint8)
    detector = FakeDetector()
    found = score_set(detector, ImageSet("set", images, None, (), [str(i) for i in range(7)], ""), batch_size)
    assert max(detector.batches) <= batch_size
    assert found.score.tobytes() == detector.inspect(images).score.tobytes()
    assert set(found.terms) == {"recon_error", "kl"}


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(UsageError, match="'nothing' has no images"):
        score_set(FakeDetector(), ImageSet("nothing", np.zeros((0, 1, 8, 8), np.uint8), None, (), [], ""))


def test_torch_is_not_imported() -> None:
    import subprocess

    modules = ("evaluation.scoring", "evaluation.evaluating", "reports.pictures", "doctor")
    code = f"import sys, {', '.join(f'vaeguard.{name}' for name in modules)}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "sklearn", "pandas", "matplotlib", "pyarrow", "scipy"} & set(ran.stdout.split())


@pytest.mark.slow
def test_an_image_that_ends_its_decoder_is_one_error_row(folder: Path, tmp_path: Path, faulty: str) -> None:
    path = folder / "b.png"
    path.write_bytes(path.read_bytes() + b"fault")
    summary = score_files(FakeDetector(), [folder], tmp_path / "scores.csv")
    assert summary.images == 4
    ((name, reason),) = summary.errors
    assert name == str(path)
    assert faulty in reason


@pytest.mark.parametrize("name", ["s.csv.errors.csv", "s.csv.watch.json"])
def test_files_of_somebody_else_beside_a_table_stay(tmp_path, bars_onnx, name):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / "a.png")
    (tmp_path / name).write_text('{"mine": 1}')
    detector = vaeguard.load(bars_onnx, "cpu")
    with contextlib.suppress(UsageError):
        score_files(detector, tmp_path / "images", tmp_path / "s.csv")
    with contextlib.suppress(UsageError):
        watch_files(detector, [tmp_path / "images"], tmp_path / "s.csv", rounds=1)
    assert (tmp_path / name).read_text() == '{"mine": 1}'

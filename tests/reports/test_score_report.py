"""The report of a table of scores, whatever the images lie in."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from toy import toy_info

from vaeguard.data.images import ImageRule
from vaeguard.data.inputs import find_sources
from vaeguard.data.source import pick
from vaeguard.engines.inspection import Inspection
from vaeguard.evaluation.scoring import score_files
from vaeguard.reports.gallery import GROUP
from vaeguard.reports.report_file import read_report
from vaeguard.reports.scores import AUDITED, P_BINS, count_p_values, write_score_report
from vaeguard.storage.tables import read_table, table_chunks

RULE = ImageRule(size=(6, 6), channels=1)


class FakeDetector:
    """Three times the mean brightness is the score."""

    info = toy_info((1, 6, 6), ("kl",), images=99)
    fingerprint = "fake"
    device = "cpu"
    parallel = 1
    least = 16

    def inspect(self, images: np.ndarray, *, pictures: bool = False) -> Inspection:
        bright = images.mean((1, 2, 3), dtype=np.float64).astype(np.float32) / 255
        unit = images.astype(np.float32) / 255
        drawn = (unit, unit[:, 0]) if pictures else (None, None)
        return Inspection(3 * bright, np.float32(1) - bright, {"kl": bright}, *drawn)


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 6), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(params=["folder", "array", "archive", "tar", "parquet"])
def inputs(request, tmp_path):
    """The same 41 images of brightness 0, 6, 12, ... in five kinds of places."""
    values = range(0, 246, 6)
    images = np.stack([np.full((6, 6), value, np.uint8) for value in values])
    if request.param == "folder":
        folder = tmp_path / "images"
        folder.mkdir()
        for value in values:
            (folder / f"{value:03d}.png").write_bytes(png(value))
        return folder
    if request.param == "array":
        np.save(tmp_path / "images.npy", images)
        return tmp_path / "images.npy"
    if request.param == "archive":
        np.savez_compressed(tmp_path / "images.npz", images=images)
        return tmp_path / "images.npz"
    if request.param == "tar":
        with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as archive:
            for value in values:
                member = tarfile.TarInfo(f"{value:03d}.png")
                member.size = len(png(value))
                archive.addfile(member, io.BytesIO(png(value)))
        return tmp_path / "images.tar.gz"
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [png(value) for value in values]}), tmp_path / "images.parquet")
    return tmp_path / "images.parquet"


def test_images_are_found_again_by_their_names(inputs, tmp_path):
    score_files(FakeDetector(), inputs, tmp_path / "scores.csv")
    table = read_table(tmp_path / "scores.csv")
    wanted = dict(zip(table["path"][[3, 40, 17]], table["score"][[3, 40, 17]], strict=True))
    batches = list(pick(find_sources([inputs]), set(wanted), RULE))
    found = {path: image.mean() for each in batches for path, image in zip(each.paths, each.images, strict=True)}
    assert found == {path: pytest.approx(score / 3 * 255, abs=1e-3) for path, score in wanted.items()}


@pytest.mark.parametrize("calibration", [19, 99, 999, 5999])
@pytest.mark.parametrize("width", [np.float32, np.float64])
def test_evenly_spread_p_values_fill_all_bins_alike(calibration, width):
    p = (np.arange(1, calibration + 2) / (calibration + 1)).astype(np.float32)
    p = np.array([float(str(value)) for value in p], width)  # as a text table gives them back
    assert (count_p_values(p, P_BINS) == len(p) // P_BINS).all()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_the_report_says_what_the_table_says(suffix, inputs, tmp_path):
    output = tmp_path / f"scores{suffix}"
    summary = score_files(FakeDetector(), inputs, output, fpr=0.2)
    report = write_score_report(summary, FakeDetector())
    assert read_report(output)["images"] == 41
    table = read_table(output)
    assert report["anomalies"]["count"] == int(table["anomaly"].sum()) == summary.anomalies
    assert report["threshold"] == pytest.approx(float(table["score"][table["anomaly"]].min()))
    assert sum(report["histogram"]["counts"]["batch"]) == sum(report["p_values"]["counts"]) == 41
    groups = {each["name"]: each["items"] for each in report["gallery"]}
    strangest = table.sort_values("score", ascending=False)["path"].tolist()
    assert [item["path"] for item in groups["most_anomalous"]] == strangest[:GROUP]
    assert [item["path"] for item in groups["most_normal"]] == strangest[::-1][:GROUP]
    items = report["review"]["items"]
    flagged = table[table["anomaly"]].sort_values("score", ascending=False)["path"].tolist()
    names = [item["path"] for item in items]
    assert names[: len(flagged)] == [item["path"] for item in items if item["flagged"]] == flagged
    assert sum(item["audit"] for item in items) == report["review"]["audited"] == AUDITED
    assert all(item["audit"] for item in items if not item["flagged"])
    assert write_score_report(summary, FakeDetector())["review"] == report["review"]
    near = sorted(item["score"] for item in groups["borderline"])
    assert near[GROUP // 2] == pytest.approx(report["threshold"])
    assert all(item["pictures"] in report["pictures"] for items in groups.values() for item in items)


@pytest.mark.parametrize("count", [5, 12, 41])
def test_no_picture_is_shown_again_where_nothing_is_flagged(count, tmp_path):
    np.save(tmp_path / "i.npy", np.stack([np.full((6, 6), 40 + value, np.uint8) for value in range(count)]))
    report = write_score_report(score_files(FakeDetector(), tmp_path / "i.npy", tmp_path / "s.csv"), FakeDetector())
    shown = [item["path"] for group in report["gallery"] for item in group["items"]]
    assert report["anomalies"]["count"] == 0
    assert len(shown) == len(set(shown)) == min(count, 2 * GROUP)


def test_chunks_are_the_table(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6), dtype=np.uint8)
    np.save(tmp_path / "i.npy", images)
    for suffix in (".csv", ".parquet", ".jsonl"):
        score_files(FakeDetector(), tmp_path / "i.npy", tmp_path / f"s{suffix}")
        table = read_table(tmp_path / f"s{suffix}")
        chunks = list(table_chunks(tmp_path / f"s{suffix}", ("path", "score", "anomaly"), 7))
        assert len(chunks) > 1 or suffix == ".parquet"
        assert [path for chunk in chunks for path in chunk["path"]] == table["path"].tolist()
        np.testing.assert_array_equal(np.concatenate([chunk["score"] for chunk in chunks]), table["score"])
        np.testing.assert_array_equal(np.concatenate([chunk["anomaly"] for chunk in chunks]), table["anomaly"])


def test_names_that_are_no_text_and_a_table_of_errors_alone(tmp_path):
    import os

    folder = tmp_path / "images"
    folder.mkdir()
    odd = os.fsencode(folder) + b"/\xff.png"
    with open(odd, "wb") as file:
        file.write(png(200))
    summary = score_files(FakeDetector(), folder, tmp_path / "s.csv")
    report = write_score_report(summary, FakeDetector())
    assert report["gallery"][0]["items"][0]["path"].endswith("\\udcff.png")
    (folder / "broken.png").write_text("no image")
    os.remove(odd)
    summary = score_files(FakeDetector(), folder, tmp_path / "s.csv")
    report = write_score_report(summary, FakeDetector())
    assert (report["images"], report["errors"]["count"], report["gallery"]) == (0, 1, [])
    assert report["drift"]["warning"] is None

"""Buckets as inputs, models and outputs, on a server of S3 in another process."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from toy import bars

import vaeguard
from vaeguard.errors import RefusedError, UsageError
from vaeguard.storage import places

pytestmark = pytest.mark.slow
COUNT = 40


def png(image):
    file = io.BytesIO()
    Image.fromarray(image[0]).save(file, "PNG")
    return file.getvalue()


def write_kinds(folder):
    """The same images in every kind of place, the fourth of them cut short."""
    images = bars()[0][:COUNT]
    files = [png(image) for image in images]
    files[3] = files[3][:50]
    (folder / "files" / "below").mkdir(parents=True)
    (folder / "tables").mkdir()
    with tarfile.open(folder / "packed.tar", "w") as archive:
        for row, content in enumerate(files):
            name = f"{'below/' if row % 2 else ''}{row:03d}.png"
            (folder / "files" / name).write_bytes(content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    for name, part in (("a", files[:25]), ("b", files[25:])):
        pq.write_table(pa.table({"image": pa.array(part, pa.binary())}), folder / "tables" / f"{name}.parquet")
    np.save(folder / "images.npy", images)
    return folder


@pytest.fixture(scope="session")
def kinds(once, store):
    folder = once("kinds", write_kinds)
    store.put_tree(folder, "kinds")
    return folder


@pytest.fixture(scope="session")
def detector(bars_onnx):
    return vaeguard.load(bars_onnx, "cpu")


@pytest.mark.parametrize(
    ("name", "gets"),
    [
        ("files", COUNT),
        ("packed.tar", 1),
        ("tables", 2),
        ("tables/*.parquet", 2),
        ("files/**/*.png", COUNT),
        ("images.npy", 1),
    ],
)
def test_a_bucket_gives_the_table_of_a_folder(kinds, store, detector, tmp_path, name, gets):
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    expected = vaeguard.score_files(detector, str(kinds / name), here)
    with store.counted() as requests:
        summary = vaeguard.score_files(detector, f"s3://bucket/kinds/{name}", there)
    assert summary.images == expected.images == COUNT - (name != "images.npy")
    assert there.read_text() == here.read_text().replace(str(kinds), "s3://bucket/kinds")
    assert [(path.replace(str(kinds), "s3://bucket/kinds"), why) for path, why in expected.errors] == [*summary.errors]
    assert requests["GET"] == gets
    assert requests.get("LIST", 1) == 1


def test_an_earlier_table_of_a_bucket_is_only_flagged_anew(kinds, store, detector, tmp_path):
    given = [f"s3://bucket/kinds/{name}" for name in ("files/000.png", "files/below/001.png", "tables/b.parquet")]
    vaeguard.score_files(detector, given, tmp_path / "scores.csv")
    with store.counted() as requests:
        summary = vaeguard.score_files(detector, given, tmp_path / "scores.csv", fpr=0.3)
    assert summary.resumed == summary.images == 17
    assert "GET" not in requests


def test_an_object_that_cannot_be_read_is_listed(store, detector, tmp_path, monkeypatch):
    for row in range(3):
        store.put(f"gone/{row}.png", png(bars()[0][row]))
    read = places.read

    def vanished(url):
        if url.endswith("1.png"):
            store.client.delete_object(Bucket="bucket", Key="gone/1.png")
        return read(url)

    monkeypatch.setattr(places, "read", vanished)
    summary = vaeguard.score_files(detector, "s3://bucket/gone", tmp_path / "scores.csv")
    assert summary.images == 2
    assert summary.errors == (("s3://bucket/gone/1.png", "there is no such object"),)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/none", "there is no object at 's3://bucket/none'"),
        ("s3://bucket/none.png", "there is no object at 's3://bucket/none.png'"),
        ("s3://no-such-bucket/images", "'s3://no-such-bucket/images': there is no such bucket"),
        ("s3://bucket/kinds/*.jpg", "nothing matches 's3://bucket/kinds/\\*.jpg'"),
        ("wasp://bucket/images", "'wasp://bucket/images': no store has such a URL"),
        ("az://container/images", "set AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_a_place_that_cannot_be_read_is_named(store, detector, tmp_path, monkeypatch, url, said):
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises((UsageError, RefusedError), match=said):
        vaeguard.score_files(detector, url, tmp_path / "scores.csv")


def test_a_file_url_is_the_file(kinds, detector, tmp_path):
    summary = vaeguard.score_files(detector, f"file://{kinds}/files", tmp_path / "scores.csv")
    assert summary.images == COUNT - 1

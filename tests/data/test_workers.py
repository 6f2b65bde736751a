"""A file that crashes, hangs or swells a decoder costs one row, and processes end with the one that started them."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from itertools import chain
from pathlib import Path

import numpy as np
import pikepdf
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vaeguard import ImageRule, RefusedError, UnreadableError, UsageError, open_images
from vaeguard.data import limits, workers
from vaeguard.data.images import write_png
from vaeguard.data.inputs import find_sources
from vaeguard.data.source import read
from vaeguard.data.streams import stream_images
from vaeguard.restoration.formats.isolated import scan_pages

RULE = ImageRule((8, 8), 1)


def png(value=0):
    file = io.BytesIO()
    write_png(file, np.full((1, 8, 8), value, np.uint8))
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(length):
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(length >> 20)), packer.flush()])


@pytest.fixture
def many(tmp_path):
    """61 images, one of which is faulty for `faulty`."""
    for number in range(61):
        (tmp_path / f"{number:02d}.png").write_bytes(png(number) + (b"fault" if number == 30 else b""))
    return tmp_path


@pytest.mark.slow
def test_a_file_that_ends_its_process_is_one_error(many, faulty):
    batches = list(stream_images(map(str, sorted(many.iterdir())), RULE, jobs=2))
    values = np.concatenate([batch.images for batch in batches])[:, 0, 0, 0]
    assert values.tolist() == [number for number in range(61) if number != 30]
    ((path, reason),) = chain.from_iterable(batch.errors for batch in batches)
    assert path == str(many / "30.png")
    assert faulty in reason


@pytest.mark.nightly
def test_data_for_a_fit_are_read_without_it(many, faulty, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VAEGUARD_CACHE", str(tmp_path_factory.mktemp("cache")))
    images = open_images(many)
    assert len(images.images) == 60
    ((_, reason),) = images.errors
    assert faulty in reason


@pytest.mark.slow
def test_files_in_a_container_go_on_after_it(many, faulty):
    with tarfile.open(many / "all.tar", "w") as archive:
        for path in sorted(many.glob("*.png")):
            archive.add(path, path.name)
    (source,) = find_sources([many / "all.tar"])
    batches = list(read(source, 0, 61, (1, 8, 8), rule=RULE, batch_size=16, jobs=1))
    source.close()
    assert sum(len(batch.paths) for batch in batches) == 60
    assert faulty in next(chain.from_iterable(batch.errors for batch in batches))[1]


def pdf(content=b"q 100 0 0 100 0 0 cm /Im Do Q", data=b"", **entries):
    with pikepdf.new() as made:
        picture = pikepdf.Stream(made, data)
        facts = {"Subtype": pikepdf.Name.Image, "ColorSpace": pikepdf.Name.DeviceGray, "BitsPerComponent": 8}
        for key, value in {**facts, "Width": 128, "Height": 128, "Filter": pikepdf.Name.FlateDecode, **entries}.items():
            picture[f"/{key}"] = value
        page = made.add_blank_page()
        page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im=picture))
        page.Contents = pikepdf.Stream(made, content)
        file = io.BytesIO()
        made.save(file, compress_streams=False, stream_decode_level=pikepdf.StreamDecodeLevel.none)
    return file.getvalue()


BOMB = 400 * 2**20
"""Bytes, more than the processes of these tests may take."""


@pytest.fixture
def narrow(monkeypatch):
    """Processes that may take a quarter of a gigabyte only."""
    monkeypatch.setenv("VAEGUARD_MAX_MEMORY", "0.25")
    monkeypatch.setattr(workers, "_idle", {})
    yield
    workers.end_all()


@pytest.mark.slow
def test_a_raised_limit_is_the_only_one(monkeypatch, tmp_path):
    side = 13_500  # more pixels than Pillow takes on its own
    Image.new("1", (side, side), 1).save(tmp_path / "large.tif", compression="group4")
    (refused,) = stream_images([str(tmp_path / "large.tif")], RULE)
    assert [reason for _, reason in refused.errors] == [
        f"it has {side} x {side} pixels, more than the limit of 100 million; shrink it"
    ]
    monkeypatch.setenv("VAEGUARD_MAX_MEMORY", "4")
    monkeypatch.setattr(workers, "_idle", {})
    (batch,) = stream_images([str(tmp_path / "large.tif")], RULE)
    workers.end_all()
    assert batch.errors == []
    assert (batch.images == 255).all()


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_picture_in_a_pdf_that_unpacks_to_gigabytes_is_refused(narrow, times):
    data = zeros(BOMB) if times == 1 else zlib.compress(zeros(BOMB))
    content = pdf(data=data, Filter=pikepdf.Array([pikepdf.Name.FlateDecode] * times))
    with pytest.raises(UnreadableError, match="more than 0.25 GB of memory"):
        list(scan_pages(content, "a.pdf"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "place"), [(b"zTXt", len(png())), (b"iCCP", 33)])
def test_texts_that_unpack_to_gigabytes_take_no_memory(narrow, kind, place):
    content = png()[:place] + chunk(kind, b"Raw profile type 8bim\0\0" + zeros(BOMB)) + png()[place:]
    with contextlib.suppress(UnreadableError):
        (page,) = scan_pages(content, "a.png")
        assert not page.pixels.any()


def container(kind, path):
    """Write a container whose second image swells, and return the number of images before it."""
    if kind == "cells.parquet":
        pq.write_table(pa.table({"image": [png(), bytes(BOMB)]}), path, compression="zstd", row_group_size=1)
        return 1
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("a.png", png()), ("b.png", bytes(BOMB))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["members.tar.gz", pytest.param("cells.parquet", marks=pytest.mark.nightly)])
def test_a_container_with_a_part_that_swells_gives_the_others(narrow, kind, tmp_path):
    before = container(kind, tmp_path / kind)
    (source,) = find_sources([tmp_path / kind])
    batches = list(read(source, 0, source.count, (1, 8, 8), rule=RULE, batch_size=16, jobs=1))
    source.close()
    assert sum(len(batch.paths) for batch in batches) == before
    assert sum(len(batch.errors) for batch in batches) == source.count - before


def header(shape, length=128):
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x02\0" + struct.pack("<I", length) + text.ljust(length)


@pytest.mark.slow
def test_headers_of_arrays_are_believed_within_reason(tmp_path):
    (tmp_path / "count.npy").write_bytes(header((10**12, 8, 8)) + bytes(6400))
    (tmp_path / "side.npy").write_bytes(header((1, 10**5, 10**5)) + bytes(6400))
    (tmp_path / "negative.npy").write_bytes(header((-1, 8, 8)) + bytes(6400))
    with zipfile.ZipFile(tmp_path / "header.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header((5, 8, 8), 2**22))
    with (
        zipfile.ZipFile(tmp_path / "side.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((1, 2**15, 2**15)))
        for _ in range(64):
            member.write(bytes(2**24))
    for source in find_sources(sorted(tmp_path.iterdir())):
        assert source.count == 1, source.path
        with pytest.raises(RefusedError):
            open_images(source.path)


@pytest.mark.slow
def test_no_process_outlives_the_one_that_started_it(tmp_path):
    script = tmp_path / "plain.py"
    script.write_text(
        "import sys, time\n"
        "from vaeguard.data import workers\n"
        "from vaeguard.data.decoding import PIXELS, read_one\n"
        "from vaeguard import ImageRule\n"
        f"read_one(PIXELS, {str(tmp_path / 'a.png')!r}, ImageRule((8, 8), 1))\n"
        "print(workers._idle[workers.os.getpid()][0]._process.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    (tmp_path / "a.png").write_bytes(png())
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() if sys.platform == "linux" else not alive(child):
            return
        time.sleep(0.05)
    pytest.fail("the process for decoding is still there")


def alive(process):
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def test_a_worker_that_somebody_ended_is_replaced(many):
    paths = [str(many / "00.png")]
    list(stream_images(paths, RULE))
    os.kill(workers._idle[os.getpid()][-1]._process.pid, signal.SIGKILL)
    (batch,) = stream_images(paths, RULE)
    assert batch.paths == paths


@pytest.mark.parametrize("value", ["much", "0", "-1", "nan"])
def test_a_limit_is_a_number_above_zero(monkeypatch, value):
    monkeypatch.setenv("VAEGUARD_MAX_SECONDS", value)
    with pytest.raises(UsageError, match="VAEGUARD_MAX_SECONDS is"):
        limits.check_limits()


@pytest.mark.parametrize("kind", ["cells.parquet", "members.tar"])
def test_a_piece_of_a_container_leaves_its_process_for_the_next(kind, tmp_path):
    images = [png(value) for value in range(6)]
    if kind == "cells.parquet":
        pq.write_table(pa.table({"image": images}), tmp_path / kind)
    else:
        with tarfile.open(tmp_path / kind, "w") as archive:
            for number, content in enumerate(images):
                member = tarfile.TarInfo(f"{number}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    workers.end_all()
    (whole,) = find_sources([tmp_path / kind])
    seen, processes = [], set()
    for start, stop in ((0, 2), (2, 4), (4, 6)):
        source, first, last = whole.alone(start, stop)
        batches = read(source, first, last, (1, 8, 8), rule=RULE, batch_size=1, jobs=1)
        seen += [int(image.flat[0]) for batch in batches for image in batch.images]
        source.close()
        processes |= {worker._process.pid for worker in workers._idle[os.getpid()]}
    assert seen == list(range(6))
    assert len(processes) == 2  # one goes through the container, one decodes

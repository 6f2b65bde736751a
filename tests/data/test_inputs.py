"""Everything that `score` reads."""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import os
import struct
import sys
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vaeguard import ImageRule, RefusedError, UsageError, VaeguardError, open_images
from vaeguard.data.arrays import Npy
from vaeguard.data.folders import Files
from vaeguard.data.inputs import find_sources, read_list
from vaeguard.data.source import Unreadable, pick, read

RULE = ImageRule(size=(6, 5), channels=1)
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 5)).astype(np.uint8)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def contents(source, start=0, stop=None, rule=RULE, batch_size=7):
    batches = list(source.batches(start, source.count if stop is None else stop, rule, batch_size, 2))
    source.close()
    names = [name for batch in batches for name in batch.paths]
    return names, np.concatenate([batch.images for batch in batches]), [e for batch in batches for e in batch.errors]


def write(kind, folder):
    """All of `IMAGES` in one container."""
    if kind == "npy":
        np.save(folder / "a.npy", IMAGES)
    elif kind == "npz":
        np.savez(folder / "a.npz", images=IMAGES, labels=np.arange(40))
    elif kind == "npz compressed":
        np.savez_compressed(folder / "a.npz", arr_0=IMAGES[:, None])
    elif kind.startswith("idx"):
        content = b"\0\0\x08\x03" + struct.pack(">3I", *IMAGES.shape) + IMAGES.tobytes()
        if kind == "idx gz":
            (folder / "a-idx3-ubyte.gz").write_bytes(gzip.compress(content))
        else:
            (folder / "a-idx3-ubyte").write_bytes(content)
    elif kind.startswith("tar"):
        with tarfile.open(folder / ("a.tar" if kind == "tar" else "a.tar.gz"), "w" if kind == "tar" else "w:gz") as tar:
            for number, image in enumerate(IMAGES):
                add(tar, f"b/{number:02d}.png", png(image))
                add(tar, f"b/{number:02d}.txt", b"not asked for")
    else:
        files = [png(image) for image in IMAGES]
        cells = [{"bytes": file, "path": "x"} for file in files] if kind == "parquet struct" else files
        pq.write_table(pa.table({"label": list(range(40)), "image": cells}), folder / "a.parquet", row_group_size=11)
    (path,) = folder.iterdir()
    return str(path)


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


KINDS = ["npy", "npz", "npz compressed", "idx", "idx gz", "tar", "tar.gz", "parquet", "parquet struct"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_gives_its_images_in_any_pieces(kind, tmp_path):
    path = write(kind, tmp_path)
    (source,) = find_sources([path])
    assert source.count == 40
    names, images, errors = contents(source)
    np.testing.assert_array_equal(images, IMAGES[:, None])
    assert not errors
    assert len(set(names)) == 40
    assert all(name.startswith(f"{path}/") for name in names)
    for start, stop in ((0, 3), (10, 12), (11, 33), (39, 40)):
        part = contents(source, start, stop)
        assert part[0] == names[start:stop]
        np.testing.assert_array_equal(part[1], IMAGES[start:stop, None])


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_one_after_the_other_read_on_where_the_last_one_ended(kind, tmp_path):
    (source,) = find_sources([write(kind, tmp_path)])
    for start, stop in ((0, 3), (3, 20), (20, 21), (30, 40), (5, 9)):
        batches = list(source.batches(start, stop, RULE, 4, 1))
        np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), IMAGES[start:stop, None])
    source.close()


@pytest.mark.parametrize("kind", ["npy", "npz", "tar", "parquet"])
def test_images_are_brought_to_the_rule(kind, tmp_path):
    (source,) = find_sources([write(kind, tmp_path)])
    rule = ImageRule(size=(3, 4), channels=3)
    Image.fromarray(IMAGES[7]).save(tmp_path / "7.png")
    expected = contents(Files([str(tmp_path / "7.png")]), rule=rule)[1]
    np.testing.assert_array_equal(contents(source, 7, 8, rule=rule)[1], expected)


def test_sources_are_in_sorted_path_order(tmp_path):
    for name in ("a.png", "c.png", "e/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGES[0]).save(tmp_path / name)
    np.save(tmp_path / "b.npy", IMAGES)
    np.save(tmp_path / "d.npy", IMAGES)
    sources = find_sources([tmp_path / "d.npy", tmp_path, tmp_path / "b.npy"])
    assert [type(source) for source in sources] == [Files, Npy, Files, Npy, Files]
    assert [name for source in sources for name in contents(source)[0]] == sorted(
        name for source in sources for name in contents(source)[0]
    )


def test_globs_and_lists_of_files(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "deep/er/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(IMAGES[0]).save(tmp_path / name)
    (source,) = find_sources([str(tmp_path / "**" / "*.png")])
    assert source.paths == [str(tmp_path / "a.png"), str(tmp_path / "deep/er/c.png")]
    with pytest.raises(UsageError, match="no file matches"):
        find_sources([str(tmp_path / "*.tif")])
    (tmp_path / "list").write_bytes(b"a.png\r\n\nmissing \xff.png\n")
    assert read_list(str(tmp_path / "list")) == ["a.png", "missing \udcff.png"]
    (tmp_path / "list").write_bytes(codecs.BOM_UTF8 + b"a.png\r\nb.png\r\n")
    assert read_list(str(tmp_path / "list")) == ["a.png", "b.png"]
    (tmp_path / "list").write_bytes(b"with\nnewline.png\0b.png\0")
    assert read_list(str(tmp_path / "list")) == ["with\nnewline.png", "b.png"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x.png\n")))
    assert read_list("-") == ["x.png"]
    (source,) = find_sources([], ["gone.png", str(tmp_path / "a.png")])
    names, _, errors = contents(source)
    assert names == [str(tmp_path / "a.png")]
    assert errors == [("gone.png", "the file does not exist")]
    (tmp_path / "empty").write_bytes(b"\n")
    for given, message in (("empty", "is empty; give a file"), ("nowhere", "cannot be read")):
        with pytest.raises(UsageError, match=message):
            read_list(str(tmp_path / given))
    with pytest.raises(UsageError, match="nothing to score"):
        find_sources([])


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.npy", b"no array", "damaged"),
        ("a.npz", b"no archive", "damaged"),
        ("a.tar", b"no archive", "damaged"),
        ("a.tar", tarfile.NUL * 10_240, "no image"),
        ("a.parquet", b"no table", "Parquet"),
        ("a-idx3-ubyte", b"\0\0\x08\x03", "damaged"),
    ],
)
def test_a_broken_container_is_one_error(name, content, reason, tmp_path):
    (tmp_path / name).write_bytes(content)
    Image.fromarray(IMAGES[0]).save(tmp_path / "z.png")
    broken, files = find_sources([tmp_path / name, tmp_path / "z.png"])
    assert isinstance(broken, Unreadable)
    names, images, errors = contents(broken)
    assert (names, images.shape, len(errors)) == ([], (0, 1, 6, 5), 1)
    assert errors[0][0] == str(tmp_path / name)
    assert reason in errors[0][1]
    assert contents(files)[0] == [str(tmp_path / "z.png")]


@pytest.mark.parametrize("more", [0, 7])
def test_an_array_that_breaks_off_gives_the_images_before(tmp_path, more):
    np.save(tmp_path / "a.npy", IMAGES)
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[: len(content) - IMAGES[1:].nbytes + more])
    names, images, errors = contents(find_sources([tmp_path / "a.npy"])[0])
    assert names == [f"{tmp_path}/a.npy/00000"]
    np.testing.assert_array_equal(images[:, 0], IMAGES[:1])
    assert len(errors) == len(IMAGES) - 1
    assert all("is cut short" in reason for _, reason in errors)


@pytest.mark.parametrize("channels", [3, 4])
def test_one_image_in_colour_is_no_stack_of_thin_ones(channels, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((64, 48, channels), np.uint8))
    (found,) = find_sources([tmp_path / "a.npy"])
    assert isinstance(found, Unreadable)
    assert "looks like one image in colour" in found.reason


def test_arrays_and_tables_that_hold_no_images_are_errors(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), np.int64))
    np.savez(tmp_path / "b.npz", labels=np.arange(3))
    np.save(tmp_path / "c.npy", np.array([object()]), allow_pickle=True)
    pq.write_table(pa.table({"image": [1]}), tmp_path / "d.parquet")
    found = find_sources(sorted(tmp_path.iterdir()))
    assert all(isinstance(source, Unreadable) for source in found)
    for source, reason in zip(
        found, ("int64", "no array of images", "object", "has int64 values in its column"), strict=True
    ):
        assert reason in source.reason.lower() or reason in source.reason


@pytest.mark.parametrize("members", [("x_train", "x_test"), ("train_images", "test_images"), ("images", "X_test"),
                                     (None, "x_train"), (None, "data")])  # fmt: skip
def test_of_the_parts_of_an_npz_the_one_to_test_on_is_read(members, tmp_path):
    other, chosen = members
    np.savez(
        tmp_path / "a.npz", **({other: IMAGES[:3] // 2} if other else {}), **{chosen: IMAGES}, y_train=np.arange(3)
    )
    (source,) = find_sources([tmp_path / "a.npz"])
    np.testing.assert_array_equal(contents(source)[1], IMAGES[:, None])
    if other:
        np.testing.assert_array_equal(open_images(tmp_path / "a.npz", split="test").images, IMAGES[:, None])


@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_arrays_in_fortran_order_are_read(save, tmp_path):
    save(tmp_path / ("a.npy" if save is np.save else "a.npz"), np.asfortranarray(IMAGES))
    (source,) = find_sources(list(tmp_path.iterdir()))
    assert source.count == 40
    np.testing.assert_array_equal(contents(source, 5, 33)[1], IMAGES[5:33, None])


def test_one_unreadable_member_or_cell_is_one_error(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "0.png", png(IMAGES[0]))
        add(tar, "1.png", b"nothing")
        for name, kind in (("2.png", tarfile.LNKTYPE), ("3.png", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "0.png"
            tar.addfile(link)
    pq.write_table(pa.table({"image": [png(IMAGES[0]), None, b"nothing"]}), tmp_path / "b.parquet")
    tar, parquet = find_sources([tmp_path / "a.tar", tmp_path / "b.parquet"])
    assert contents(tar)[0] == [f"{tmp_path}/a.tar/0.png"]
    errors = dict(contents(tar)[2])
    assert list(errors) == [f"{tmp_path}/a.tar/{number}.png" for number in (1, 2, 3)]
    assert errors[f"{tmp_path}/a.tar/2.png"].startswith("it is a link in the archive")
    assert [name for name, _ in contents(parquet)[2]] == [f"{tmp_path}/b.parquet/00001", f"{tmp_path}/b.parquet/00002"]


@pytest.mark.parametrize("rule", [RULE, ImageRule(size=(3, 4), channels=3), None])
def test_a_row_with_bad_values_is_one_error(rule, tmp_path):
    rows = np.random.default_rng(0).random((40, 6, 5) if rule else (40, 7))
    bad = {0: np.nan, 10: 1.0001 if rule else np.inf, 39: -np.inf}
    for row, value in bad.items():
        rows[row].flat[3] = value
    np.save(tmp_path / "a.npy", rows)
    (source,) = find_sources([tmp_path / "a.npy"], vectors=rule is None)
    shape = (rule.channels, *rule.size) if rule else (1, 1, 7)
    batches = list(read(source, 0, 40, shape, rule=rule, batch_size=7, jobs=1))
    source.close()
    errors = [error for batch in batches for error in batch.errors]
    assert [name for name, _ in errors] == [f"{tmp_path}/a.npy/{row:05d}" for row in bad]
    assert all("NaN" in reason and name in reason for name, reason in errors)
    names = [name for batch in batches for name in batch.paths]
    assert names == [f"{tmp_path}/a.npy/{row:05d}" for row in range(40) if row not in bad]
    np.save(tmp_path / "good.npy", np.delete(rows, list(bad), 0))
    (good,) = find_sources([tmp_path / "good.npy"], vectors=rule is None)
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), contents(good, rule=rule)[1])


def test_a_batch_of_bad_rows_only_is_empty(tmp_path):
    np.save(tmp_path / "a.npy", np.full((3, 6, 5), np.nan))
    (source,) = find_sources([tmp_path / "a.npy"])
    names, images, errors = contents(source)
    assert (names, images.shape, images.dtype, len(errors)) == ([], (0, 1, 6, 5), np.uint8, 3)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_where_a_container_breaks_off_the_rest_of_it_are_errors(kind, tmp_path):
    many = np.tile(IMAGES, (400, 1, 1))
    if kind == "npy":
        np.save(tmp_path / "a.npy", many)
        os.truncate(tmp_path / "a.npy", many.nbytes // 2)
    else:
        np.savez(tmp_path / "a.npz", images=many)
        content = bytearray((tmp_path / "a.npz").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "a.npz").write_bytes(content)
    (source,) = find_sources(list(tmp_path.iterdir()))
    assert source.count == len(many)
    rows = errors = 0
    for start in range(0, len(many), 4000):
        for batch in read(source, start, start + 4000, (1, 6, 5), rule=RULE, batch_size=300, jobs=1):
            assert len(batch.paths) == len(batch.images)
            rows += len(batch.paths)
            errors += len(batch.errors)
    source.close()
    assert rows + errors == len(many)
    assert min(rows, errors) > 0


def test_a_tar_that_breaks_off_is_an_error_and_hidden_members_are_no_images(tmp_path):
    path = write("tar", tmp_path)
    content = bytearray(Path(path).read_bytes())
    (tmp_path / "cut.tar").write_bytes(content[: 512 * 40])
    content[512 * 20 : 512 * 21] = b"x" * 512
    (tmp_path / "broken.tar").write_bytes(content)
    for source in find_sources([tmp_path / "cut.tar", tmp_path / "broken.tar"]):
        assert isinstance(source, Unreadable)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "a/._1.png", b"a fork")
        add(tar, "a/1.png", png(IMAGES[0]))
    (source,) = find_sources([tmp_path / "a.tar"])
    assert source.count == 1


def test_a_container_with_an_odd_name_has_a_stamp(tmp_path):
    path = f"{tmp_path}/x\udcff.npy"
    np.save(path, IMAGES)
    (source,) = find_sources([path])
    assert source.stamp(0, 3) != source.stamp(3, 6)


def test_vectors_and_images_are_not_mistaken_for_each_other(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((5, 3)))
    np.save(tmp_path / "i.npy", IMAGES)
    (source,) = find_sources([tmp_path / "v.npy"], vectors=True)
    names, vectors, _ = contents(source, rule=None)
    assert vectors.shape == (5, 1, 1, 3)
    assert names[0] == f"{tmp_path}/v.npy/00000"
    for path, vectors in (("v.npy", False), ("i.npy", True)):
        with pytest.raises(UsageError, match="give the kind of data that the model was fitted on"):
            find_sources([tmp_path / path], vectors=vectors)


@pytest.mark.parametrize("kind", ["npz", "npz compressed", "tar"])
def test_memory_does_not_grow_with_a_container(kind, tmp_path):
    many = np.zeros((3000, 60, 60), np.uint8)
    if kind == "tar":
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            content = png(many[0])
            for number in range(3000):
                add(tar, f"{number}.png", content)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(tmp_path / "a.npz", images=many)
    tracemalloc.start()
    (source,) = find_sources(list(tmp_path.iterdir()))
    rows = sum(len(batch.paths) for batch in source.batches(0, source.count, ImageRule((60, 60), 1), 50, 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    source.close()
    assert rows == 3000
    assert peak < many.nbytes / 3


def test_the_stamp_of_files_follows_size_and_time(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"1")
    files = Files([str(path), "gone.png"])
    before = files.stamp(0, 2)
    assert before == files.stamp(0, 2) != files.stamp(0, 1)
    os.utime(path, ns=(1, 1))
    assert files.stamp(0, 2) != before


def test_a_fault_of_the_machine_is_no_error_of_good_files(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(IMAGES[0]))
    (source,) = find_sources([tmp_path])

    def short_of_memory(*arguments, **options):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("vaeguard.data.workers._idle", {})
    monkeypatch.setattr("subprocess.Popen", short_of_memory)
    with pytest.raises(VaeguardError, match="cannot start a process that decodes images .Cannot allocate memory"):
        list(read(source, 0, source.count, (1, 6, 5), rule=RULE, batch_size=7, jobs=1))


def test_single_images_are_read_again_by_their_names(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, value in (("x.png", 10), ("x.png", 20), ("y.png", 30), ("z.png", 40)):
            file = io.BytesIO()
            Image.fromarray(np.full((4, 4), value, np.uint8)).save(file, "PNG")
            member = tarfile.TarInfo(name)
            member.size = file.tell()
            file.seek(0)
            archive.addfile(member, file)
    rule = ImageRule(size=(4, 4), channels=1)
    wanted = {f"{tmp_path}/a.tar/{name}" for name in ("x.png", "y.png")}
    (batch,) = pick(find_sources([tmp_path / "a.tar"]), wanted, rule)
    assert batch.paths == sorted(wanted)
    assert batch.images[:, 0, 0, 0].tolist() == [10, 30]


LABELLED = ["folder", "tar", "tar.gz", "parquet", "parquets", "npz", "idx"]


def write_labelled(kind, folder):
    """All of `IMAGES` with classes "0", "1" and "2", in this order, as one data set."""
    names = [f"{label}/{number:02d}.png" for label in range(3) for number in range(12)]
    images, labels = IMAGES[:36], np.repeat(np.arange(3), 12)
    path = folder / {"tar": "a.tar", "tar.gz": "a.tar.gz", "parquet": "a.parquet", "npz": "a.npz"}.get(kind, "set")
    if kind == "folder":
        for name, image in zip(names, images, strict=True):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(png(image))
    elif kind.startswith("tar"):
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            for name, image in zip(names, images, strict=True):
                add(tar, f"./packed/{name}", png(image))
    elif kind.startswith("parquet"):
        path.mkdir() if kind == "parquets" else None
        parts = [slice(0, 36)] if kind == "parquet" else [slice(0, 12), slice(12, 17), slice(17, 36)]
        for number, part in enumerate(parts):
            table = pa.table({"label": labels[part], "image": [png(image) for image in images[part]]})
            pq.write_table(table, path / f"{number}.parquet" if kind == "parquets" else path)
    elif kind == "npz":
        np.savez(path, images=images, labels=labels)
    else:
        path.mkdir()
        for split in ("train", "t10k"):
            for name, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
                header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
                (path / f"{split}-{name}-ubyte").write_bytes(header + array.tobytes())
    return path


@pytest.mark.parametrize("kind", LABELLED)
def test_the_same_images_are_the_same_set_whatever_holds_them_to_fit_and_to_score(kind, tmp_path):
    (tmp_path / "folder").mkdir()
    folder = open_images(write_labelled("folder", tmp_path / "folder"))
    path = write_labelled(kind, tmp_path)
    for _ in range(2):  # the second time from the cache
        found = open_images(path)
        assert (found.fingerprint, found.class_names) == (folder.fingerprint, ("0", "1", "2"))
        np.testing.assert_array_equal(found.labels, np.repeat(np.arange(3), 12))
        assert len(set(found.paths)) == len(found) == 36
    assert open_images(path, split="test").fingerprint == folder.fingerprint
    sources = find_sources([path])
    parts = [contents(source) for source in sources]
    np.testing.assert_array_equal(np.concatenate([images for _, images, _ in parts]), folder.images)
    if kind != "idx":  # of which the one part is to fit, the other to score
        assert [name for names, _, _ in parts for name in names] == list(found.paths)


def test_a_tar_archive_is_read_as_the_folder_that_was_packed(tmp_path):
    def opened(*names, split="train"):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for number, name in enumerate(names):
                add(tar, name, png(IMAGES[number]))
        found = open_images(tmp_path / "a.tar", split=split)
        return found.class_names, None if found.labels is None else found.labels.tolist(), len(found)

    assert opened("1.png", "2.png") == opened("./1.png", "./2.png") == ((), None, 2)
    assert opened("good/1.png", "good/2.png") == opened("deep/good/1.png", "deep/good/2.png") == (("good",), [0, 0], 2)
    assert opened("deep/b/1.png", "deep/a/x/1.png", "deep/a/y/2.png") == (("a", "b"), [1, 0, 0], 3)
    halves = ("part/test/bad/1.png", "part/train/good/1.png", "part/test/good/1.png", "part/ground_truth/bad/1.png")
    assert opened(*halves) == (("bad", "good"), [1], 1)
    assert opened(*halves, split="test") == (("bad", "good"), [0, 1], 2)
    assert [source.count for source in find_sources([tmp_path / "a.tar"])] == [4]
    with pytest.raises(UsageError, match="'1.png'.*'a'.*put every image"):
        opened("a/2.png", "1.png")


def test_unreadable_images_of_a_container_are_listed_and_leave_no_holes(tmp_path):
    files = [png(image) for image in IMAGES[:5]]
    files[1], files[3] = b"nothing", None
    pq.write_table(pa.table({"class": list("abcab"), "image": files}), tmp_path / "a.parquet")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, image in (("a/x.png", IMAGES[0]), ("a/x.png", None), ("b/y.png", IMAGES[2]), ("b/z.png", IMAGES[4])):
            add(tar, name, b"" if image is None else png(image))
    for _ in range(2):
        table, archive = open_images(tmp_path / "a.parquet"), open_images(tmp_path / "a.tar")
        np.testing.assert_array_equal(table.images[:, 0], IMAGES[[0, 2, 4]])
        np.testing.assert_array_equal(archive.images[:, 0], IMAGES[[0, 2, 4]])
        assert table.errors[0] == (
            f"{tmp_path}/a.parquet/00001",
            "it is not a supported image (PNG, JPEG, JPEG 2000, TIFF, BMP or WEBP)",
        )
        assert [path for path, _ in table.errors] == [f"{tmp_path}/a.parquet/{row:05d}" for row in (1, 3)]
        assert [table.class_names[label] for label in table.labels] == ["a", "c", "b"]
        assert archive.errors == ((f"{tmp_path}/a.tar/a/x.png", "it is empty"),)
        assert archive.paths == tuple(f"{tmp_path}/a.tar/{name}" for name in ("a/x.png", "b/y.png", "b/z.png"))


def test_a_broken_file_in_a_folder_of_parquet_files_is_one_error(tmp_path):
    path = write_labelled("parquets", tmp_path)
    whole = open_images(path)
    (path / "3.parquet").write_bytes(b"no table")
    found = open_images(path)
    assert found.fingerprint == whole.fingerprint
    assert [name for name, _ in found.errors] == [str(path / "3.parquet")]
    for part in path.iterdir():
        part.write_bytes(b"no table")
    with pytest.raises(RefusedError, match="not a Parquet file"):
        open_images(path)


def test_train_and_test_are_told_apart_by_the_names_of_parquet_files(tmp_path):
    path = write_labelled("parquets", tmp_path)
    for old, new in (("0", "train-00000-of-00002"), ("1", "train-00001-of-00002"), ("2", "test-00000-of-00001")):
        (path / f"{old}.parquet").rename(path / f"{new}.parquet")
    assert [len(open_images(path, split=split)) for split in ("train", "test")] == [17, 19]
    assert sum(source.count for source in find_sources([path])) == 36


def test_a_named_set_is_scored_by_its_test_images_unless_a_path_has_its_name(tmp_path, monkeypatch):
    digits = open_images("digits", split="test")
    (source,) = find_sources(["digits"])
    names, images, _ = contents(source, rule=ImageRule((8, 8), 1))
    np.testing.assert_array_equal(images, digits.images)
    assert names == list(digits.paths)
    assert source.stamp(0, 10) != source.stamp(10, 20)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "1.png").write_bytes(png(IMAGES[0]))
    monkeypatch.chdir(tmp_path)
    assert [source.path for source in find_sources(["digits"])] == ["digits/1.png"]


def test_a_file_or_a_glob_is_a_set_of_these_files(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(IMAGES[number]))
    found = open_images(f"{tmp_path}/*.png")
    assert (found.name, found.labels, len(found)) == (tmp_path.name, None, 3)
    assert found.fingerprint == open_images(tmp_path).fingerprint
    one = open_images(tmp_path / "1.png")
    assert (one.name, one.paths) == ("1", (str(tmp_path / "1.png"),))
    np.save(tmp_path / "a.npy", IMAGES[:3])
    np.save(tmp_path / "b.npy", IMAGES[3:5])
    assert open_images(f"{tmp_path}/?.npy").images.shape == (5, 1, 6, 5)
    with pytest.raises(UsageError, match="both arrays and image files"):
        open_images(f"{tmp_path}/*")
    np.save(tmp_path / "b.npy", IMAGES[3:5, 1:])
    with pytest.raises(RefusedError, match="different shapes"):
        open_images(f"{tmp_path}/?.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.tar", "a.parquet", "a-idx3-ubyte"])
def test_a_broken_container_is_refused_to_fit_with_the_reason_that_it_has_to_score(name, tmp_path):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    (broken,) = find_sources([tmp_path / name])
    with pytest.raises(RefusedError) as refused:
        open_images(tmp_path / name)
    assert broken.reason in str(refused.value)
    assert name in str(refused.value)


def table_of(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def as_bytes(kind):
    """Four small PNG files in a column of this type."""
    files = []
    for number in range(4):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(file, "PNG")
        files.append(file.getvalue())
    if kind == "dictionary":
        return pa.array(files, pa.binary()).dictionary_encode()
    if kind == "struct of a dictionary":
        return pa.StructArray.from_arrays([as_bytes("dictionary")], ["bytes"])
    lists = {"list": pa.list_(pa.uint8()), "large list": pa.large_list(pa.uint8())}
    return pa.array([list(file) for file in files], lists[kind]) if kind in lists else pa.array(files, kind)


@pytest.mark.parametrize(
    "kind",
    ["dictionary", "struct of a dictionary", "list", "large list", pa.binary(), pa.large_binary(), pa.binary_view()],
)
def test_bytes_are_read_in_any_type_of_column(tmp_path, kind):
    images = open_images(table_of(tmp_path / "a.parquet", image=as_bytes(kind)))
    assert images.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"image": pa.array([], pa.binary())}, "has no rows"),
        ({"image": pa.array(["iVBORw0KGgo="])}, "has string values in its column 'image', which are not supported"),
        ({"image": pa.array([[[1]]])}, "has list.* values in its column 'image', which are not supported"),
        (
            {"photo": pa.array([b"x"])},
            "no image column with a known name .*'photo'.*; rename the image column to 'image'",
        ),
        ({"pixel": pa.array([1])}, "no column with the bytes of image files"),
    ],
)
def test_a_table_without_images_is_refused_with_what_it_holds(tmp_path, columns, reason):
    with pytest.raises(RefusedError, match=reason):
        open_images(table_of(tmp_path / "a.parquet", **columns))


def test_a_table_of_paths_alone_is_told(tmp_path):
    cells = pa.array([{"bytes": None, "path": "1.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    with pytest.raises(VaeguardError, match=r"the table contains only the path '1\.png' of this image"):
        open_images(table_of(tmp_path / "a.parquet", image=cells))

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaeguard.data import cache, named_sets
from vaeguard.data.data_sets import data_of_fit, open_images, open_packed
from vaeguard.data.folders import list_images
from vaeguard.data.idx import read_idx
from vaeguard.data.image_set import ImageSet, from_array, write_images
from vaeguard.data.images import ImageRule, write_png
from vaeguard.data.named_sets import find_sets
from vaeguard.errors import RefusedError, UsageError, VaeguardError

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (12, 6, 8), dtype=np.uint8)
LABELS = np.arange(12) % 3


def idx_bytes(array):
    kind = {"uint8": 8, "int8": 9, "int16": 0x0B, "int32": 0x0C}[array.dtype.name]
    big = array.astype(array.dtype.newbyteorder(">"))
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + big.tobytes()


def write_idx(folder, prefix="train", pixels=PIXELS, labels=LABELS, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images-idx3", pixels), ("labels-idx1", labels.astype(np.uint8))):
        content = idx_bytes(array)
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder / f"{prefix}-images-idx3-ubyte{'.gz' if packed else ''}"


def png(path, value=0, size=(6, 8), channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, np.full((channels, *size), value, np.uint8))


def forbidden(*_args, **_options):
    raise AssertionError("decoded again")


def test_digits_are_embedded_split_by_class_and_complete():
    train, test = (open_images("digits", split=split) for split in ("train", "test"))
    assert len(train) + len(test) == 1797
    assert train.images.shape[1:] == (1, 8, 8)
    assert train.images.max() == 255
    for label in range(10):
        share = np.mean(test.labels == label) / np.mean(train.labels == label)
        assert share == pytest.approx(1, abs=0.02)
    assert 0.32 < len(test) / 1797 < 0.34
    assert train.class_names == tuple("0123456789")
    assert train.paths[17] == "digits/train/00017"
    assert train.fingerprint == open_images("digits").fingerprint != test.fingerprint


@pytest.mark.parametrize("packed", [False, True])
def test_idx_pairs(tmp_path, packed):
    path = write_idx(tmp_path / "mine", packed=packed)
    found = open_images(path)
    np.testing.assert_array_equal(found.images[:, 0], PIXELS)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert found.class_names == ("0", "1", "2")
    assert found.name == "mine"
    assert isinstance(found.images, np.memmap) is not packed
    assert open_images(tmp_path / "mine").fingerprint == found.fingerprint
    for labels in (tmp_path / "mine").glob("*labels*"):
        labels.unlink()
    assert open_images(path).labels is None


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32"])
def test_idx_numbers_are_big_endian(tmp_path, dtype):
    values = np.array([0, 1, 127, 5], dtype)
    (tmp_path / "x").write_bytes(idx_bytes(values))
    np.testing.assert_array_equal(read_idx(tmp_path / "x"), values)


@settings(max_examples=60)
@given(st.booleans(), st.integers(0, 10**6), st.integers(0, 255))
def test_cut_or_changed_idx_files_are_refused_or_read(tmp_path_factory, packed, place, value):
    path = tmp_path_factory.mktemp("idx") / "train-images-idx3-ubyte"
    content = idx_bytes(PIXELS)
    content = gzip.compress(content) if packed else content
    path.write_bytes(content[: place % len(content)])
    with pytest.raises(RefusedError, match="damaged"):
        open_images(path)
    changed = bytearray(content)
    changed[place % min(len(content), 30)] = value
    path.write_bytes(changed)
    try:
        open_images(path)
    except RefusedError as error:
        assert str(path) in str(error)  # noqa: PT017


def test_idx_files_that_do_not_belong_together_are_refused(tmp_path):
    path = write_idx(tmp_path, labels=LABELS[:5])
    with pytest.raises(RefusedError, match="5.*12 images|shape \\(5,\\) for the 12 images"):
        open_images(path)
    with pytest.raises(RefusedError, match="give the file with the images"):
        open_images(tmp_path / "train-labels-idx1-ubyte")


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "MNIST"])
def test_named_sets_are_found_in_every_layout(tmp_path, folder, monkeypatch):
    write_idx(tmp_path / folder)
    write_idx(tmp_path / folder, "t10k", PIXELS[:4], LABELS[:4], packed=True)
    found = open_images("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(found.images[:, 0], PIXELS)
    assert found.paths[3] == "mnist/train/00003"
    assert found.class_names == tuple("0123456789")
    monkeypatch.setenv("VAEGUARD_DATA", str(tmp_path))
    assert len(open_images("mnist", split="test")) == 4
    assert find_sets() == find_sets(tmp_path) == ["mnist"]


def test_emnist_is_turned_upright(tmp_path):
    folder = tmp_path / "EMNIST" / "raw"
    write_idx(folder, "emnist-balanced-train")
    found = open_images("emnist", data_dir=tmp_path)
    np.testing.assert_array_equal(found.images[:, 0], PIXELS.swapaxes(1, 2))
    assert len(found.class_names) == len(set(found.class_names)) == 47


def test_cifar10_is_read_from_its_binary_version_only(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(VaeguardError, match="is never read for safety.*cifar-10-binary.tar.gz"):
        open_images("cifar10", data_dir=tmp_path, download=True)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    records = RANDOM.integers(0, 256, (10, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(10)
    for number in range(5):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(records[2 * number : 2 * number + 2].tobytes())
    found = open_images("cifar10", data_dir=tmp_path)
    np.testing.assert_array_equal(found.images, records[:, 1:].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(found.labels, np.arange(10))
    (folder / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(RefusedError, match="test_batch.bin.*3073"):
        open_images("cifar10", split="test", data_dir=tmp_path)


def test_svhn(tmp_path):
    from scipy.io import savemat

    pixels = RANDOM.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    (tmp_path / "svhn").mkdir()
    savemat(tmp_path / "svhn" / "train_32x32.mat", {"X": pixels, "y": np.array([[1], [10], [9], [2]], np.uint8)})
    found = open_images("svhn", data_dir=tmp_path)
    np.testing.assert_array_equal(found.images, pixels.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(found.labels, [1, 0, 9, 2])
    (tmp_path / "svhn" / "test_32x32.mat").write_bytes(b"nonsense" * 40)
    with pytest.raises(RefusedError, match="test_32x32.mat"):
        open_images("svhn", split="test", data_dir=tmp_path)


def test_a_missing_set_says_where_it_was_looked_for_and_what_is_there(tmp_path):
    write_idx(tmp_path / "kmnist")
    with pytest.raises(VaeguardError, match=r"MNIST/raw.*`download`.*`data_dir`.*available data sets: digits, kmnist"):
        open_images("mnist", data_dir=tmp_path)
    with pytest.raises(VaeguardError, match="the test part of data set 'kmnist'"):
        open_images("kmnist", split="test", data_dir=tmp_path)


def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")

    def fail(**options):
        raise RuntimeError("Error downloading x\nmore")

    monkeypatch.setattr(datasets, "MNIST", fail)
    with pytest.raises(
        VaeguardError, match=r"cannot download 'mnist'.*\(Error downloading x\).*data/README.md"
    ) as caught:
        open_images("mnist", data_dir=tmp_path, download=True)
    assert "\n" not in str(caught.value)


def test_a_download_is_read_afterwards_and_only_once(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    monkeypatch.setattr(datasets, "MNIST", lambda root, train, download: write_idx(Path(root) / "MNIST" / "raw"))
    assert len(open_images("mnist", data_dir=tmp_path, download=True)) == 12
    monkeypatch.setattr(datasets, "MNIST", forbidden)
    assert len(open_images("mnist", data_dir=tmp_path, download=True)) == 12


@pytest.mark.parametrize(("name", "per_class"), [("mnist", None), ("fashion-mnist", 6000)])
def test_real_sets(data_dir, name, per_class):
    if name not in find_sets(data_dir):
        pytest.skip(f"{name} is not in {data_dir}")
    train, test = (open_images(name, split=split, data_dir=data_dir) for split in ("train", "test"))
    assert (train.images.shape, test.images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    counts = np.bincount(train.labels)
    mnist = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_array_equal(counts, mnist if per_class is None else [per_class] * 10)
    assert len(set(train.class_names)) == 10


LAYOUTS = {"NHW": PIXELS, "NCHW": np.stack([PIXELS] * 3, 1), "NHWC": np.stack([PIXELS] * 3, -1)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
def test_npy_layouts_and_types(tmp_path, layout, kind):
    array = LAYOUTS[layout] if kind == "uint8" else (LAYOUTS[layout] / 255).astype(kind)
    np.save(tmp_path / "x.npy", array)
    found = open_images(tmp_path / "x.npy")
    assert found.images.shape == (12, 1 if layout == "NHW" else 3, 6, 8)
    np.testing.assert_array_equal(found.images[:, 0], PIXELS)
    assert found.labels is None
    assert found.paths[1].endswith("x.npy/00001")
    assert isinstance(found.images, np.memmap) is (kind == "uint8")


@pytest.mark.parametrize(
    ("train", "labels", "test"),
    [("x_train", "y_train", "x_test"), ("train_images", "train_labels", "test_images"), ("images", "labels", None),
     ("X", "y", None), ("arr_0", "arr_1", None)],
)  # fmt: skip
def test_npz_keys(tmp_path, train, labels, test):
    arrays = {train: PIXELS, labels: LABELS[:, None]} | ({test: PIXELS[:5]} if test else {})
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    found = open_images(tmp_path / "x.npz")
    np.testing.assert_array_equal(found.images[:, 0], PIXELS)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert len(open_images(tmp_path / "x.npz", split="test")) == (5 if test else 12)


def test_one_colour_image_is_not_taken_for_many_grey_ones(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(RefusedError, match=r"looks like one image in colour; save it as \(1, H, W, C\)"):
        open_images(tmp_path / "one.npy")
    np.save(tmp_path / "thin.npy", np.zeros((48, 7, 3), np.uint8))
    assert open_images(tmp_path / "thin.npy").images.shape == (48, 1, 7, 3)


def test_npz_classes_agree_between_train_and_test(tmp_path):
    names = np.array(["good"] * 12), np.array(["bad"] * 6 + ["good"] * 6)
    np.savez(tmp_path / "x.npz", x_train=PIXELS, y_train=names[0], x_test=PIXELS, y_test=names[1])
    train, test = (open_images(tmp_path / "x.npz", split=split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("bad", "good")
    assert set(train.labels) == {1}
    np.testing.assert_array_equal(test.labels, [0] * 6 + [1] * 6)


@pytest.mark.parametrize(
    ("arrays", "fact"),
    [
        ({"images": np.array([1, "a", None], object)}, "Python objects"),
        ({"images": PIXELS.astype(np.int64)}, "int64 values; save the images as uint8"),
        ({"images": PIXELS.astype(np.float32)}, "outside 0 to 1"),
        ({"images": np.full((2, 4, 4), np.nan)}, "NaN"),
        ({"images": np.zeros((5, 7), int)}, r"shape \(5, 7\)"),
        ({"images": np.zeros((0, 7, 7))}, r"shape \(0, 7, 7\)"),
        ({"images": PIXELS, "labels": LABELS[:3]}, "3 labels for 12 images"),
        ({"images": PIXELS, "labels": LABELS + 0.5}, "fractions"),
        ({"pictures": PIXELS}, "its arrays: pictures"),
    ],
)
def test_npz_contents_that_are_no_images_are_refused(tmp_path, arrays, fact):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(RefusedError, match=fact):
        open_images(tmp_path / "x.npz")


@settings(max_examples=100)
@given(st.sampled_from(["npz", "npy"]), st.integers(0, 10**6), st.none() | st.integers(0, 255))
def test_damaged_arrays_are_refused_or_read(tmp_path_factory, suffix, place, value):
    path = tmp_path_factory.mktemp("arrays") / f"x.{suffix}"
    np.savez(path, images=PIXELS, labels=LABELS) if suffix == "npz" else np.save(path, PIXELS)
    content = bytearray(path.read_bytes())
    if value is None:
        path.write_bytes(content[: place % len(content)])
        with pytest.raises(RefusedError):
            open_images(path)
        return
    content[place % min(len(content), 200)] = value
    path.write_bytes(content)
    try:
        open_images(path)
    except RefusedError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_the_rule_applies_to_packed_sets(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    found = open_images(tmp_path / "x.npy", rule=ImageRule((3, 4), 3))
    expected = [np.asarray(Image.fromarray(image).resize((4, 3), Image.Resampling.BILINEAR)) for image in PIXELS]
    np.testing.assert_array_equal(found.images, np.stack([expected] * 3, 1))


def test_a_folder_of_classes(tmp_path, monkeypatch):
    for number, name in enumerate(["b", "a", "c"]):
        for deep in ("1.png", "sub/2.PNG"):
            png(tmp_path / "set" / name / deep, 10 * number)
    for ignored in ("a/.hidden.png", "a/notes.txt", ".git/x.png", "empty/readme.md"):
        (tmp_path / "set" / ignored).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / ignored).touch()
    found = open_images(tmp_path / "set")
    assert (found.name, found.class_names) == ("set", ("a", "b", "c"))
    np.testing.assert_array_equal(found.labels, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], [10, 10, 0, 0, 20, 20])
    assert found.paths[1] == str(tmp_path / "set" / "a" / "sub" / "2.PNG")
    assert found.errors == ()
    monkeypatch.setattr(cache, "read", forbidden)
    again = open_images(tmp_path / "set")
    assert again.fingerprint == found.fingerprint
    np.testing.assert_array_equal(again.labels, found.labels)


def test_a_flat_folder_has_no_labels_and_lists_its_errors(tmp_path):
    for number in range(5):
        png(tmp_path / f"{number}.png", number)
    (tmp_path / "2.png").write_bytes(b"text")
    found = open_images(tmp_path)
    assert (found.labels, found.class_names) == (None, ())
    np.testing.assert_array_equal(found.images[:, 0, 0, 0], [0, 1, 3, 4])
    assert [path for path, _ in found.errors] == [str(tmp_path / "2.png")]
    assert [os.path.basename(path) for path in found.paths] == ["0.png", "1.png", "3.png", "4.png"]


def test_train_and_test_folders_number_their_classes_alike(tmp_path):
    for name in ("train/good", "test/bad", "test/good"):
        png(tmp_path / name / "1.png")
    train, test = (open_images(tmp_path, split=split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("bad", "good")
    assert (list(train.labels), list(test.labels)) == ([1], [0, 1])


@pytest.mark.parametrize(
    ("sizes", "rule", "shape"),
    [
        ([(6, 8)] * 2, ImageRule(), (1, 6, 8)),
        ([(128, 20)] * 2, ImageRule(), (1, 128, 20)),
        ([(300, 600)] * 2, ImageRule(), (1, 300, 600)),
        ([(150, 1400)] * 2, ImageRule(), (1, 150, 1400)),
        ([(90, 1400)] * 2, ImageRule(), (1, 8, 128)),
        ([(300, 600)] * 2, ImageRule(longest=128), (1, 64, 128)),
        ([(119, 150), (121, 150), (120, 151), (120, 149), (120, 150)], ImageRule(), (1, 120, 150)),
        ([(1000, 1)], ImageRule(), (1, 128, 1)),
        ([(6, 8), (9, 9)], ImageRule((5, 4)), (1, 5, 4)),
        ([(6, 8)], ImageRule(channels=3), (3, 6, 8)),
    ],
)
def test_the_shape_of_a_folder(tmp_path, sizes, rule, shape):
    for number, size in enumerate(sizes):
        png(tmp_path / f"{number}.png", size=size)
    assert open_images(tmp_path, rule=rule).images.shape[1:] == shape


def test_images_that_were_shrunk_unasked_are_told_of_with_their_own_size(tmp_path):
    for name, size in (("large", (90, 900)), ("fits", (128, 64)), ("small", (6, 8))):
        png(tmp_path / name / "a" / "1.png", size=size)
    for _ in range(2):  # the second time from the cache
        note = open_images(tmp_path / "large").note
        assert all(part in note for part in ("90x900", "13x128", "`size`", "large"))
    assert open_images(tmp_path / "large", rule=ImageRule((128, 128))).note is None
    assert open_images(tmp_path / "fits").note is open_images(tmp_path / "small").note is None


def test_one_colour_file_makes_a_folder_coloured(tmp_path):
    png(tmp_path / "1.png")
    png(tmp_path / "2.png", channels=3)
    assert open_images(tmp_path).images.shape == (2, 3, 6, 8)


def test_images_of_different_sizes_get_the_median_of_the_normal_ones_and_are_told_of(tmp_path):
    for number, size in enumerate([(20, 30), (21, 30), (22, 31), (22, 31), (26, 31)]):
        png(tmp_path / "set" / "good" / f"{number}.png", size=size)
        png(tmp_path / "set" / "bad" / f"{number}.png", size=(90, 60))
    (tmp_path / "set" / "good" / "3.png").write_bytes(b"\x89PNG broken")
    found = open_images(tmp_path / "set", normal_classes="good")
    assert found.images.shape == (9, 1, 22, 30)
    assert "20x30 to 26x31 pixels (height x width) and were scaled to 22x30, which distorts some of them" in found.note
    assert open_images(tmp_path / "set").images.shape[2:] != (22, 30)  # nor does the cache mix them
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "set", "set")
    with pytest.raises(UsageError, match="from 20x30 to 90x60 .* only images of one size are unpacked"):
        open_packed(tmp_path / "set.tar")


def test_folders_that_cannot_be_a_data_set(tmp_path):
    with pytest.raises(UsageError, match=r"no images in .*\.png, \.jpg"):
        open_images(tmp_path)
    png(tmp_path / "a" / "1.png")
    png(tmp_path / "2.png")
    with pytest.raises(UsageError, match="'2.png'.*'a'.*put every image"):
        open_images(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UsageError, match="is not a data set"):
        open_images(tmp_path / "notes.txt")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"rows.csv': tables must be \.npz or \.npy files of floats"):
        open_images(tmp_path / "rows.csv")
    with pytest.raises(UsageError, match="did you mean 'mnist'"):
        open_images("mnits")
    with pytest.raises(UsageError, match="split"):
        open_images("digits", split="valid")


def test_a_folder_goes_by_its_own_name_before_that_of_a_link(tmp_path):
    for name in ("parts/a/deep", "parts/z", "elsewhere/far"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").write_bytes(b"x")
    (tmp_path / "parts/a/deep/link").symlink_to(tmp_path / "parts/z")
    (tmp_path / "parts/b").symlink_to(tmp_path / "parts/z")
    (tmp_path / "parts/y").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/far/back").symlink_to(tmp_path / "parts")
    found = [str(Path(path).relative_to(tmp_path)) for path in list_images([tmp_path / "parts"])]
    assert found == ["parts/a/deep/1.png", "parts/y/far/1.png", "parts/z/1.png"]


def test_run_folders_among_the_images_are_left_out(tmp_path):
    for name in ("a.png", "runs/x/reconstructions.png", "runs/x/deep/more.png", "runs/y/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "runs/x/model.safetensors").write_bytes(b"x")
    (tmp_path / "runs/x/report.json").write_bytes(b"{}")
    (tmp_path / "runs/latest").symlink_to("x")
    found = [str(Path(path).relative_to(tmp_path)) for path in list_images([tmp_path])]
    assert found == ["a.png", "runs/y/1.png"]
    assert len(list_images([tmp_path / "runs/x"])) == 2  # who names it means it


def test_link_loops_end(tmp_path):
    png(tmp_path / "a" / "1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    assert list_images([tmp_path]) == [str(tmp_path / "a" / "1.png"), str(tmp_path / "a" / "self.png")]


def test_listing_takes_named_files_as_they_are_and_each_path_once(tmp_path):
    names = ["b\nc.png", "=cmd.JPG", os.fsdecode(b"\xff\xfe.png"), "sub/a.webp"]
    for name in [*names, "odd.gif", "sub/.hidden.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = sorted(str(tmp_path / name) for name in names)
    assert list_images([tmp_path, tmp_path / "sub"]) == expected
    assert list_images([str(tmp_path / "odd.gif"), tmp_path]) == sorted([*expected, str(tmp_path / "odd.gif")])
    with pytest.raises(UsageError, match="does not exist"):
        list_images([tmp_path / "gone"])
    with pytest.raises(UsageError, match="no images in"):
        list_images([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images in .*empty"):
        list_images([tmp_path / "empty"])


def test_odd_names_survive_a_folder(tmp_path):
    names = sorted(["b\nc.png", os.fsdecode(b"\xff\xfe.png"), "ü.png"])
    for number, name in enumerate(names):
        png(tmp_path / name, number)
    (tmp_path / os.fsdecode(b"\xfe.png")).touch()
    for _ in range(2):
        found = open_images(tmp_path)
        assert list(found.paths) == [str(tmp_path / name) for name in names]
        assert found.errors[0][0] == str(tmp_path / os.fsdecode(b"\xfe.png"))


@given(st.lists(st.integers(0, 11), max_size=20))
def test_selecting_equals_indexing(rows):
    paths = [str(number) for number in range(12)]
    whole = ImageSet("x", PIXELS[:, None], LABELS, ("a", "b", "c"), paths, "0" * 64)
    part = whole.select(rows)
    np.testing.assert_array_equal(part.images, PIXELS[np.array(rows, int)][:, None])
    np.testing.assert_array_equal(part.labels, LABELS[np.array(rows, int)])
    assert list(part.paths) == [paths[row] for row in rows]
    assert len(part) == len(rows)


def test_selecting_takes_masks_and_changes_the_fingerprint():
    whole = ImageSet("x", PIXELS[:, None], LABELS, ("a", "b", "c"), [str(number) for number in range(12)], "0" * 64)
    part = whole.select(LABELS == 1)
    assert set(part.labels) == {1}
    assert part.fingerprint == whole.select(np.flatnonzero(LABELS == 1)).fingerprint
    assert len({whole.fingerprint, part.fingerprint, whole.select([1]).fingerprint}) == 3


def test_written_folders_read_back(tmp_path):
    digits = open_images("digits", split="test").select(range(60))
    write_images(digits, tmp_path / "out" / "digits")
    found = open_images(tmp_path / "out" / "digits")
    order = [int(os.path.basename(path)[:5]) for path in found.paths]
    np.testing.assert_array_equal(found.images, digits.images[order])
    np.testing.assert_array_equal(found.labels, digits.labels[order])
    assert os.listdir(tmp_path / "out") == ["digits"]
    with pytest.raises(UsageError, match="not an empty folder"):
        write_images(digits, tmp_path / "out" / "digits")
    (tmp_path / "empty").mkdir()
    write_images(ImageSet("x", PIXELS[:, None], None, (), [""] * 12, ""), tmp_path / "empty")
    assert open_images(tmp_path / "empty").labels is None


@pytest.mark.parametrize("names", [("a/b", "a-b"), (".x", "x"), (".", "class")])
def test_classes_that_would_share_a_folder_are_refused(tmp_path, names):
    images = ImageSet("x", PIXELS[:, None], np.arange(12) % 2, names, [""] * 12, "")
    with pytest.raises(UsageError, match=f"{names[0]!r} and {names[1]!r} would share"):
        write_images(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_images_is_not_packed(tmp_path):
    png(tmp_path / "photos" / "1.png")
    with pytest.raises(UsageError, match="photos' is already a folder of files"):
        open_packed(tmp_path / "photos")
    write_idx(tmp_path / "idx")
    assert len(open_packed(tmp_path / "idx")) == len(open_packed("digits", split="test").select(range(12))) == 12


def test_opening_never_imports_torch(tmp_path):
    png(tmp_path / "1.png")
    code = (
        "import sys; from vaeguard.data.data_sets import open_images; open_images(sys.argv[1]); "
        "assert not {'torch', 'pandas', 'sklearn', 'scipy'} & set(sys.modules); "
        "open_images('digits'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_every_named_set_has_distinct_usable_class_names():
    for known in named_sets.NAMED_SETS.values():
        assert len(set(known.class_names)) == len(known.class_names) >= 10
        assert not any(set(name) & set(",/ ") for name in known.class_names)


@pytest.mark.parametrize("sorted_half", ["train", "test"])
def test_one_flat_half_beside_one_with_classes_is_said_to_be_so(tmp_path, sorted_half):
    for half in ("train", "test"):
        place = tmp_path / half / "good" if half == sorted_half else tmp_path / half
        place.mkdir(parents=True)
        write_png(place / "a.png", np.zeros((1, 4, 4), np.uint8))
    for split in ("train", "test"):
        with pytest.raises(UsageError, match="has no class sub-folders, but .* does;"):
            open_images(tmp_path, split=split)


def test_the_rows_of_a_table_are_vectors_in_their_own_units(tmp_path):
    table = 1000 * RANDOM.normal(size=(30, 5))
    found = from_array(table, LABELS.repeat(3)[:30])
    assert found.vectors
    assert found.images.dtype == np.float32
    np.testing.assert_array_equal(found.images, table.astype(np.float32).reshape(30, 1, 1, 5))
    assert found.fingerprint == from_array(table.astype(np.float32), LABELS.repeat(3)[:30]).fingerprint
    assert found.fingerprint != from_array(table + 1, LABELS.repeat(3)[:30]).fingerprint
    np.testing.assert_array_equal(found.select([3, 1]).images, found.images[[3, 1]])
    assert not from_array(PIXELS).vectors
    with pytest.raises(UsageError, match="vectors"):
        write_images(found, tmp_path / "out")


@pytest.mark.parametrize(
    ("table", "fact"),
    [
        (np.array([[1.0, np.nan]]), "NaN"),
        (np.array([[1.0, -np.inf]]), "infinity"),
        (np.array([[1.0, 1e300]]), "too large for float32"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        (np.zeros((4, 0)), r"shape \(4, 0\)"),
        (np.zeros((4, 3), np.int64), "int64.*a table of floats"),
        (np.zeros(4), r"shape \(4,\)"),
    ],
)
def test_tables_that_are_no_vectors_are_refused(table, fact):
    with pytest.raises(RefusedError, match=fact):
        from_array(table)


def test_a_file_called_like_a_named_set_is_not_taken_for_it(tmp_path):
    np.savez(tmp_path / "digits.npz", images=np.zeros((12, 8, 8), np.uint8), labels=LABELS)
    of_file, of_name = open_images(tmp_path / "digits.npz"), open_images("digits")
    with pytest.raises(UsageError, match="not a named data set"):
        data_of_fit(of_file.name, named=of_file.named)
    assert data_of_fit(of_name.name, named=of_name.named) == "digits"


def test_names_of_a_data_frame_are_classes():
    names = np.array(["b", "a", "b"], dtype=object).repeat(4)
    assert from_array(PIXELS, names).class_names == ("a", "b")
    with pytest.raises(RefusedError, match="type object; use whole numbers or names"):
        from_array(PIXELS, np.array(["b", 1, "b"], dtype=object).repeat(4))


@pytest.mark.parametrize("name", ["mnist", Path("scans")])
def test_a_name_where_an_array_is_wanted_says_what_opens_it(name):
    with pytest.raises(UsageError, match=f"'{name}' is a name.*open_images"):
        from_array(name)


def test_packed_images_are_opened_in_their_own_size(tmp_path):
    png(tmp_path / "large" / "a" / "1.png", 7, size=(300, 90))
    with tarfile.open(tmp_path / "large.tar", "w") as archive:
        archive.add(tmp_path / "large", "large")
    assert open_images(tmp_path / "large.tar").images.shape == (1, 1, 128, 38)
    assert open_packed(tmp_path / "large.tar").images.shape == (1, 1, 300, 90)

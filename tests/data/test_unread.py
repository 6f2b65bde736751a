from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vaeguard.data.data_sets import open_images
from vaeguard.data.inputs import find_sources
from vaeguard.errors import UsageError

RANDOM = np.random.default_rng(0)
MASK = np.zeros((24, 24), np.uint8)
MASK[4:9, 6:20] = 255


def photograph():
    return Image.fromarray(RANDOM.integers(0, 256, (24, 24), dtype=np.uint8))


def soft_mask():
    return Image.fromarray(MASK).resize((96, 96), Image.Resampling.BICUBIC)


def names_read(folder):
    (source,) = find_sources([folder])
    return sorted(str(name).removeprefix(f"{folder}/") for name in source.names)


@pytest.fixture(params=["flat", "classes"])
def place(tmp_path, request):
    """A flat folder, or one of two class folders, that holds the photographs 0 to 3."""
    inside = tmp_path / "good" if request.param == "classes" else tmp_path
    (tmp_path / "bad" if request.param == "classes" else tmp_path).mkdir(exist_ok=True)
    inside.mkdir(exist_ok=True)
    if request.param == "classes":
        photograph().save(tmp_path / "bad" / "9.jpg", quality=95)
    for number in range(4):
        photograph().save(inside / f"{number}.jpg", quality=95)
    return tmp_path, inside


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        *(
            (f"1{mark}.png", Image.fromarray(MASK))
            for mark in ("_mask", "-mask", ".mask", "_gt", "_GT", "_label", "_mask_1", "-roi")
        ),
        ("mask_1.png", Image.fromarray(MASK)),
        ("1.png", Image.fromarray(MASK)),
        ("1.bmp", Image.fromarray(MASK // 255)),
        ("1.png", Image.fromarray(MASK // 255).convert("P")),
        ("1.tif", Image.fromarray(MASK.astype(np.uint16) * 257)),
        ("1_mask.jpg", soft_mask()),
        ("1_mask.png", soft_mask()),
    ],
)
def test_masks_beside_images_are_told_and_not_read(place, name, mask):
    folder, inside = place
    before = names_read(folder)
    mask.save(inside / name)
    assert names_read(folder) == before
    assert f"1 file skipped (mask of a different image): '{inside / name}'" in find_sources([folder])[0].left_out
    images = open_images(folder)
    assert len(images) == len(before)
    assert name in images.left_out


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/1.png", "masks/1.png"),
        ("test/crack/1.png", "ground_truth/crack/1_mask.png"),
        ("a/x/1.png", "GT/x/1.bmp"),
    ],
)
def test_masks_in_a_folder_of_masks_are_not_read(tmp_path, image, mask):
    for name, picture in ((image, photograph()), (mask, Image.fromarray(MASK))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / name)
    assert names_read(tmp_path) == [image]
    photograph().save(tmp_path / mask)  # of many colours
    assert names_read(tmp_path) == sorted([image, mask])


@pytest.mark.parametrize(
    ("names", "pictures"),
    [
        (["1_mask.png"], [photograph()]),  # many colours
        (["1.png"], [photograph()]),
        (["7_mask.png"], [Image.fromarray(MASK)]),  # no image beside it
        (["7.png", "7.bmp"], [Image.fromarray(MASK)] * 2),  # both have few colours
        (["mask.png"], [Image.fromarray(MASK)]),
        (["1.png"], [Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) // 4)]),  # tiny
        (["other/1.png"], [Image.fromarray(MASK)]),
    ],
)
def test_one_sign_alone_makes_no_mask(tmp_path, names, pictures):
    (tmp_path / "here" / "other").mkdir(parents=True)
    photograph().save(tmp_path / "here" / "1.jpg", quality=95)
    for name, picture in zip(names, pictures, strict=True):
        picture.save(tmp_path / "here" / name)
    (source,) = find_sources([tmp_path])
    assert source.count == 1 + len(names)
    assert source.left_out is None


def test_images_that_are_not_read_are_counted_and_hidden_ones_are_not(tmp_path):
    photograph().save(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    for name in ("b.gif", "sub/c.GIF", "d.heic", ".hidden.gif", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    note = "3 files skipped (unsupported type): 2 .gif, 1 .heic"
    assert find_sources([tmp_path])[0].left_out == open_images(tmp_path).left_out == note
    (tmp_path / "a.png").unlink()
    for read in (lambda: find_sources([tmp_path]), lambda: open_images(tmp_path)):
        with pytest.raises(UsageError, match=r"no images in .*2 \.gif, 1 \.heic"):
            read()


def test_containers_in_a_folder_of_images_are_counted(tmp_path):
    photograph().save(tmp_path / "a.png")
    for name in ("b.npy", "c.tar", "d.PARQUET"):
        (tmp_path / name).write_bytes(b"x")
    (source,) = find_sources([tmp_path])
    note = "3 files skipped (unsupported type): 1 .npy, 1 .parquet, 1 .tar"
    assert source.left_out == open_images(tmp_path).left_out == note


def test_links_in_a_circle_are_told(tmp_path):
    photograph().save(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (source,) = find_sources([tmp_path])
    assert source.count == 1
    link = tmp_path / "sub" / "up"
    assert source.left_out == f"1 link skipped (folder already read): '{link}'"


def test_a_broken_archive_does_not_hide_what_is_not_read(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"no archive")
    (tmp_path / "images").mkdir()
    photograph().save(tmp_path / "images" / "1.jpg")
    Image.fromarray(MASK).save(tmp_path / "images" / "1_mask.png")
    images = open_images(f"{tmp_path}/*")
    assert len(images.errors) == 1
    assert "1_mask.png" in images.left_out

"""Regions of single images: the masks `7_roi.png` beside `7.png`."""

import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from vaeguard.data.data_sets import open_images
from vaeguard.data.images import ImageRule
from vaeguard.data.inputs import find_sources
from vaeguard.data.source import originals, pick

SIZE = (24, 30)
LOOKS = ImageRule(regions=True)


def mask():
    region = np.zeros(SIZE, np.uint8)
    region[4:20, 5:20] = 255
    return region


@pytest.fixture
def folder(tmp_path):
    """Three photographs, of which 1 has a region."""
    draw = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.fromarray(draw.integers(0, 256, SIZE, np.uint8)).save(tmp_path / "images" / f"{number}.png")
    Image.fromarray(mask()).save(tmp_path / "images" / "1_roi.png")
    return tmp_path / "images"


def test_the_last_channel_is_the_region(folder):
    images = open_images(folder, rule=LOOKS)
    assert images.regions
    assert images.images.shape == (3, 2, *SIZE)
    assert images.left_out is None
    assert np.array_equal(images.images[1, 1], mask())
    assert (images.images[[0, 2], 1] == 255).all()
    assert np.array_equal(images.images[:, :1], open_images(folder).images)
    small = open_images(folder, rule=ImageRule(size=(12, 15), regions=True)).images
    assert set(np.unique(small[1, 1])) == {0, 255}  # the nearest pixel
    Image.fromarray(255 - mask()).save(folder / "1_roi.png")  # is not taken from the cache
    assert np.array_equal(open_images(folder, rule=LOOKS).images[1, 1], 255 - mask())


def test_a_rule_that_leaves_it_open_follows_the_data(folder, tmp_path):
    assert open_images(folder, rule=ImageRule(regions=None)).regions
    (folder / "1_roi.png").unlink()
    assert not open_images(folder, rule=ImageRule(regions=None)).regions


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no picture", "its region mask '1_roi.png' cannot be read: it is not a supported image"),
        (
            np.full((24, 31), 255, np.uint8),
            "24x31 pixels (height x width), but the image has 24x30; save the mask at the size of the image",
        ),
        (np.zeros(SIZE, np.uint8), "its region mask '1_roi.png' marks no pixel; make the part that matters white"),
    ],
)
def test_a_region_that_cannot_be_used_is_an_error_of_its_image(folder, content, reason):
    if isinstance(content, bytes):
        (folder / "1_roi.png").write_bytes(content)
    else:
        Image.fromarray(content).save(folder / "1_roi.png")
    images = open_images(folder, rule=LOOKS)
    assert len(images) == 2
    ((path, why),) = images.errors
    assert path == str(folder / "1.png")
    assert reason in why
    assert len(open_images(folder)) == 3  # a model of whole images does not need it


@pytest.mark.parametrize("place", ["{}", "{}/*.png", "{}/?*.png"])
def test_regions_are_no_images_and_are_named_if_they_are_not_used(folder, place):
    place = place.format(folder)
    (source,) = find_sources([place], looks=True)
    assert [*source.names] == [str(folder / f"{number}.png") for number in range(3)]
    assert source.left_out is None
    (source,) = find_sources([place])
    assert len(source.names) == 3
    note = f"1 region mask of single images not used (this model looks at whole images): '{folder / '1_roi.png'}'"
    assert source.left_out == note == open_images(place).left_out


def test_a_photograph_of_that_name_is_an_image(folder):
    shutil.copy(folder / "0.png", folder / "1_roi.png")
    images = open_images(folder, rule=LOOKS)
    assert len(images) == 4
    assert (images.images[:, 1] == 255).all()


def test_a_region_of_the_size_that_the_model_takes(folder):
    Image.fromarray(mask()[::2, ::2]).save(folder / "1_roi.png")
    images = open_images(folder, rule=ImageRule(size=(12, 15), regions=True))
    assert np.array_equal(images.images[1, 1], mask()[::2, ::2])


def packed(folder, name, mode):
    """An archive of the files of a folder, masks first."""
    with tarfile.open(folder.parent / name, mode) as archive:
        for path in sorted(folder.iterdir(), key=lambda path: ("roi" not in path.name, path)):
            archive.add(path, path.name)
    return str(folder.parent / name)


@pytest.mark.parametrize(("name", "mode"), [("images.tar", "w"), ("images.tar.gz", "w:gz")])
def test_an_archive_is_read_like_its_folder(folder, name, mode):
    place = packed(folder, name, mode)
    expected = open_images(folder, rule=LOOKS).images
    images = open_images(place, rule=ImageRule(regions=None))
    assert images.regions
    assert np.array_equal(images.images, expected)
    (source,) = find_sources([place], looks=True)
    assert [*source.names] == [f"{place}/{number}.png" for number in range(3)]
    assert source.left_out is None
    rule = ImageRule(SIZE, 1, regions=True)
    (batch,) = pick([source], {f"{place}/1.png"}, rule)
    (original,) = originals([source], {f"{place}/1.png"}, rule)
    assert np.array_equal(batch.images[0], expected[1])
    assert np.array_equal(original.pixels, expected[1])
    assert np.array_equal(original.picture, expected[1, :1])
    (source,) = find_sources([place])
    assert f"'{place}/1_roi.png'" in source.left_out
    (folder / "1_roi.png").write_bytes(b"no picture")
    ((path, why),) = open_images(packed(folder, name, mode), rule=LOOKS).errors
    assert path == f"{place}/1.png"
    assert "its region mask '1_roi.png' cannot be read: it is not a supported image" in why

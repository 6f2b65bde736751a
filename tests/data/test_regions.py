import json

import numpy as np
import pytest
from PIL import Image

from vaeguard import RefusedError, UsageError
from vaeguard.data.regions import covered, read_region

SIZE = (40, 60)
LABELME = {"imageHeight": 80, "imageWidth": 120}
BOX = [[20, 10], [60, 10], [60, 50], [20, 50]]


def saved(tmp_path, content):
    path = tmp_path / "region.json"
    path.write_text(json.dumps(content))
    return path


def coco(annotation):
    return {"images": [{"id": 7, "height": 80, "width": 120}], "annotations": [{"image_id": 7, **annotation}]}


@pytest.mark.parametrize(
    "content",
    [
        {**LABELME, "shapes": [{"points": BOX, "shape_type": "polygon"}]},
        {**LABELME, "shapes": [{"points": [BOX[0], BOX[2]], "shape_type": "rectangle"}]},
        coco({"segmentation": [[number for point in BOX for number in point]]}),
        coco({"segmentation": [], "bbox": [20, 10, 40, 40]}),
    ],
)
def test_polygons_are_scaled_to_the_images(tmp_path, content):
    inside = read_region(saved(tmp_path, content), SIZE)
    assert inside.shape == SIZE
    assert inside[6:25, 11:30].all()
    assert abs(int(inside.sum()) - 400) < 60


def test_a_circle_counts(tmp_path):
    shape = {"points": [[60, 40], [80, 40]], "shape_type": "circle"}
    inside = read_region(saved(tmp_path, {**LABELME, "shapes": [shape]}), SIZE)
    assert abs(int(inside.sum()) - 314) < 40


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_a_mask_of_any_size_is_scaled_by_the_nearest_pixel(tmp_path, mode):
    mask = np.zeros((80, 120), np.uint8)
    mask[:, 60:] = 255
    Image.fromarray(mask).convert(mode).save(tmp_path / "mask.png")
    inside = read_region(tmp_path / "mask.png", SIZE)
    assert np.array_equal(inside, np.broadcast_to(np.arange(60) >= 30, SIZE))
    assert np.array_equal(inside, read_region(mask, SIZE))
    assert read_region(np.ones((3, 3), bool), SIZE) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "contains no polygons"),
        ({"shapes": []}, "contains no polygons"),
        ({**LABELME, "shapes": [{"points": [[1, 2]], "shape_type": "point"}]}, "a point of 1 points"),
        ({**LABELME, "shapes": [{"points": [[1e30, 2], [3, 4], [5, 6]]}]}, "not a position in an image"),
        ({"imageHeight": 0, "imageWidth": 0, "shapes": [{"points": BOX}]}, "contains no polygons"),
        (coco({"segmentation": {"counts": [1], "size": [80, 120]}}), "run-length"),
        (coco({"segmentation": [[1, 2, 3]]}), "contains no polygons"),
    ],
)
def test_files_without_polygons_are_refused(tmp_path, content, message):
    with pytest.raises(RefusedError, match=message):
        read_region(saved(tmp_path, content), SIZE)


def test_a_region_that_cannot_be_read_or_is_empty_is_refused(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(RefusedError, match="`roi` .*broken.png' cannot be read"):
        read_region(tmp_path / "broken.png", SIZE)
    with pytest.raises(UsageError, match="does not exist"):
        read_region(tmp_path / "missing.png", SIZE)
    with pytest.raises(UsageError, match="does not exist"):
        read_region(tmp_path / "missing.json", SIZE)
    with pytest.raises(UsageError, match="marks no pixel"):
        read_region(saved(tmp_path, {**LABELME, "shapes": []}), SIZE)
    with pytest.raises(UsageError, match="array of float64"):
        read_region(np.zeros(SIZE), SIZE)


def test_pixels_outside_are_covered_in_maps_as_in_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 4, 6)).astype(np.uint8)
    inside = np.arange(24).reshape(4, 6) % 3 > 0
    images.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=images.shape)
    expected = np.where(inside, images, 128)
    assert np.array_equal(covered(images, inside), expected)
    assert np.array_equal(covered(mapped, inside), expected)
    own = np.concatenate([images, np.where(inside, 128, 127).astype(np.uint8)[None, None].repeat(5, 0)], 1)
    own.tofile(tmp_path / "own")
    assert np.array_equal(covered(own, regions=True), expected)
    assert np.array_equal(covered(np.memmap(tmp_path / "own", np.uint8, "r", shape=own.shape), regions=True), expected)
    assert covered(images) is images

"""Masks beside test images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_evaluation import FakeDetector

from vaeguard import RefusedError, UsageError
from vaeguard.data.image_set import ImageSet
from vaeguard.engines.inspection import Inspection
from vaeguard.engines.record import CalibrationRecord
from vaeguard.evaluation.defect_masks import find_masks, mask_of, masks_below, read_mask, scaled_mask
from vaeguard.evaluation.evaluating import evaluate


class Bright(FakeDetector):
    """Its heatmap is the image itself."""

    def inspect(self, images, *, pictures=False):
        plain = super().inspect(images)
        heat = images[:, 0].astype(np.float32) if pictures else None
        return Inspection(
            plain.score, plain.p_value, plain.terms, images.astype(np.float32) if pictures else None, heat
        )


@pytest.fixture
def parts(tmp_path):
    """Eight images of 4x4, bright where their masks are; two cracks have masks by two names, the third has none."""
    images = np.random.default_rng(0).integers(0, 90, (8, 1, 4, 4)).astype(np.uint8)
    images[4:, 0, 1:3, 2] = 255
    (tmp_path / "truth" / "crack").mkdir(parents=True)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 4:6] = 255
    Image.fromarray(mask).save(tmp_path / "truth" / "crack" / "4.png")
    Image.fromarray(mask // 255).save(tmp_path / "truth" / "crack" / "5_mask.png")
    Image.fromarray(mask).save(tmp_path / "truth" / "crack" / "6_mask.png")
    paths = [f"parts/{'crack' if i > 3 else 'cat'}/{i}.png" for i in range(8)]
    labels = np.repeat([0, 1], 4)
    return ImageSet("parts", images, labels, ("cat", "crack"), paths, "")


def test_heatmaps_that_point_at_the_defects_are_told_from_others(parts, tmp_path):
    found = evaluate(Bright(), parts, masks=tmp_path / "truth").pixels
    assert (found.roc_auc, found.pro) == pytest.approx((1.0, 1.0), abs=1e-6)
    assert (found.images, found.masks, found.without) == (7, 3, 1)
    parts.images[...] = 255 - parts.images
    worse = evaluate(Bright(), parts, masks=tmp_path / "truth").pixels
    assert (worse.roc_auc, worse.pro) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_defects_in_spots_are_counted(parts, tmp_path):
    assert evaluate(Bright(), parts, masks=tmp_path / "truth").pixels.hit is None
    detector = Bright()
    calibration = CalibrationRecord(9, peaks=(95.0,) * 9)
    detector.info = replace(detector.info, record=replace(detector.info.record, calibration=calibration))
    parts.images[0, 0, 0, 0] = 99  # a false alarm
    parts.images[5, 0, 1:3, 2] = 9  # a defect that is not seen
    found = evaluate(detector, parts, masks=tmp_path / "truth").pixels
    assert (found.defects, found.hit, found.false_spots) == (3, 2, 0.25)


def test_without_masks_nothing_is_said_of_pixels(parts, tmp_path):
    assert evaluate(Bright(), parts).to_dict()["pixels"] is None
    with pytest.raises(UsageError, match=r"no mask of an anomalous image.*crack/4_mask\.png"):
        find_masks(tmp_path, parts, parts.labels == 1)


def test_the_longest_path_that_fits_is_taken_and_never_the_image_itself(tmp_path):
    (tmp_path / "parts" / "crack").mkdir(parents=True)
    image = tmp_path / "parts" / "crack" / "1.png"
    image.write_bytes(b"")
    assert mask_of(str(image), masks_below(tmp_path / "parts")) is None
    (tmp_path / "1.png").write_bytes(b"")
    assert mask_of(str(image), masks_below(tmp_path)) == tmp_path / "1.png"


def test_a_mask_that_would_be_of_two_images_is_refused(parts, tmp_path):
    (tmp_path / "flat").mkdir()
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "flat" / "7.png")
    paths = (*parts.paths[:6], "parts/scratch/7.png", "parts/crack/7.png")
    with pytest.raises(
        UsageError, match=r"mask of both 'parts/scratch/7\.png' and 'parts/crack/7\.png'; sort the masks"
    ):
        find_masks(tmp_path / "flat", replace(parts, paths=paths), parts.labels == 1)


def test_all_kinds_of_defects_in_a_mask_count(tmp_path):
    kinds = np.array([[0, 1], [2, 7]], np.uint8)
    Image.fromarray(kinds).save(tmp_path / "kinds.png")
    assert read_mask(tmp_path / "kinds.png", (2, 2)).tolist() == [[False, True], [True, True]]
    Image.fromarray(kinds * 36).save(tmp_path / "grey.png")
    assert read_mask(tmp_path / "grey.png", (2, 2)).tolist() == [[False, False], [False, True]]


DEFECTS = np.zeros((40, 40), np.uint8)
DEFECTS[4:12, 4:12], DEFECTS[20:30, 20:30], DEFECTS[35, 2:30] = 2, 4, 3
COLOURS = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]], np.uint8)


def in_palette(index, colours, **facts):
    picture = Image.fromarray(index)
    picture.putpalette(colours.tobytes())
    picture.info.update(facts)
    return picture


def over(background):
    colours = COLOURS.copy()
    colours[0] = background
    return colours


PICTURES = {
    "labels": Image.fromarray(DEFECTS),
    "bright labels": Image.fromarray(DEFECTS * 60),
    "many labels": Image.fromarray(np.where(DEFECTS, DEFECTS * 40 + np.arange(40, dtype=np.uint8)[:, None] // 2, 0)),
    "labels of 16 bits": Image.fromarray(DEFECTS.astype(np.uint16) * 9000),
    "all or nothing in 16 bits": Image.fromarray((DEFECTS > 0).astype(np.uint16) * 65535),
    "bits": Image.fromarray(DEFECTS > 0),
    "palette of VOC": in_palette(DEFECTS, COLOURS),
    "palette of a dark colour": in_palette(DEFECTS, COLOURS // 127),
    "palette without black": in_palette(DEFECTS, over((200, 200, 200))),
    "palette that begins with a defect": Image.fromarray(COLOURS[DEFECTS]).quantize(8),
    "colours": Image.fromarray(COLOURS[DEFECTS]),
    "colours on white": Image.fromarray(over((255, 255, 255))[DEFECTS]),
    "colours on nothing": Image.fromarray(np.dstack([over((9, 9, 9))[DEFECTS], (DEFECTS > 0) * np.uint8(255)])),
    "black on nothing": Image.fromarray(np.dstack([COLOURS[DEFECTS] * 0, (DEFECTS > 0) * np.uint8(255)])),
    "colours on opaque black": Image.fromarray(np.dstack([COLOURS[DEFECTS], np.full((40, 40), 255, np.uint8)])),
}


@pytest.mark.parametrize("kind", sorted(PICTURES))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_every_pixel_but_the_background_is_a_defect(tmp_path, kind, suffix):
    PICTURES[kind].save(tmp_path / f"m.{suffix}")
    np.testing.assert_array_equal(read_mask(tmp_path / f"m.{suffix}", (40, 40)), DEFECTS > 0)


def test_a_mask_of_one_value_is_all_or_nothing(tmp_path):
    for number, value in enumerate((0, 1, 255)):
        plain = Image.fromarray(np.full((4, 4), value, np.uint8))
        for picture in (plain, plain.convert("RGB"), in_palette(np.full((4, 4), min(value, 4), np.uint8), COLOURS)):
            picture.save(tmp_path / f"{number}.png")
            assert read_mask(tmp_path / f"{number}.png", (4, 4)).all() == (value > 0)


@pytest.mark.parametrize("suffix", ["jpg", "png", "jp2"])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0)])
def test_soft_edges_are_cut_at_half(tmp_path, suffix, colour):
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[16:40, 8:32] = colour
    soft = Image.fromarray(mask)
    if suffix != "jpg":
        soft = soft.resize((61, 61), Image.Resampling.BICUBIC).resize((64, 64), Image.Resampling.BICUBIC)
    soft.save(tmp_path / f"m.{suffix}")
    marked = read_mask(tmp_path / f"m.{suffix}", (64, 64))
    assert np.count_nonzero(marked != mask.any(-1)) <= 24  # a quarter of the edge


@pytest.mark.parametrize(
    "ending", ["_mask.jpg", "-mask.png", "_gt.bmp", "_GT.png", "_label.tif", ".mask.png", "_label.PNG", ".TIF"]
)
def test_masks_are_found_by_their_usual_names(tmp_path, ending):
    (tmp_path / f"7{ending}").write_bytes(b"")
    assert mask_of("parts/crack/7.png", masks_below(tmp_path)) == tmp_path / f"7{ending}"


@pytest.mark.parametrize("size", [(16, 16), (7, 5), (1, 1), (64, 3), (3, 200), (64, 100)])
def test_a_scratch_of_one_pixel_is_not_lost(size):
    for row, column in ((0, 0), (63, 99), (1, 50), (40, 17)):
        mask = np.zeros((64, 100), bool)
        mask[row, column] = True
        rows, columns = np.nonzero(scaled_mask(mask, size))
        assert len(rows)
        for found, at, wanted, whole in ((rows, row, size[0], 64), (columns, column, size[1], 100)):
            assert found.max() - found.min() <= max(1, wanted // whole)
            assert abs((found.mean() + 0.5) / wanted - (at + 0.5) / whole) <= 1 / min(wanted, whole)
    assert not scaled_mask(np.zeros((64, 100), bool), size).any()


def test_masks_that_the_nearest_pixels_show_are_scaled_by_these_alone():
    mask = np.random.default_rng(0).random((64, 100)) < 0.1
    nearest = Image.fromarray(mask.astype(np.uint8)).resize((20, 30), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(scaled_mask(mask, (30, 20)), np.asarray(nearest) > 0)


def test_a_mask_that_cannot_be_read_is_named_with_one_advice(tmp_path):
    (tmp_path / "m.png").write_text("none")
    with pytest.raises(RefusedError, match=r"m\.png.*download it again"):
        read_mask(tmp_path / "m.png", (4, 4))
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(RefusedError, match=r"m\.tif.*convert it to 8 or 16 bit$"):
        read_mask(tmp_path / "m.tif", (4, 4))

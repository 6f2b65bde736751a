from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
from PIL import Image
from toy import toy_info

from vaeguard.data.source import Original
from vaeguard.engines.inspection import Inspection
from vaeguard.engines.record import CalibrationRecord
from vaeguard.reports.gallery import GROUP, LARGE, SIDES, Drawn, data_uri, draw, fitting, gallery, group, rows_to_show
from vaeguard.reports.pictures import heat_picture


def inspected(images: np.ndarray) -> Inspection:
    unit = images.astype(np.float32) / 255
    scores = unit.mean((1, 2, 3))
    return Inspection(scores, 1 - scores, {"kl": scores}, unit, unit.mean(1))


class FakeDetector:
    def __init__(self, hottest: float | None = None, peaks: tuple[float, ...] = ()) -> None:
        self.info = toy_info((1, 9, 7))
        calibration = CalibrationRecord(len(peaks), hottest, peaks)
        self.info = replace(self.info, record=replace(self.info.record, calibration=calibration))

    def inspect(self, images: np.ndarray, *, pictures: bool = False) -> Inspection:
        assert pictures
        return inspected(images)


def drawn(detector: FakeDetector, images: np.ndarray, rows: list[int]) -> dict[int, Drawn]:
    originals = (Original(f"{row}.png", images[row], images[row], images[row].shape[1:]) for row in rows)
    return draw(detector, originals, {f"{row}.png": row for row in rows})


def decoded(uri: str) -> Image.Image:
    head, content = uri.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_a_group_holds_the_strangest_candidates_in_order():
    strangeness = np.array([5, 1, 9, 9, 3], np.float32)
    found = group("g", "G", np.array([True, True, False, True, True]), strangeness)
    assert found.rows.tolist() == [3, 0, 4, 1]
    assert found.found == 4
    many = group("g", "G", np.ones(50, bool), np.arange(50, dtype=np.float32))
    assert many.rows.tolist() == list(range(49, 49 - GROUP, -1))
    assert many.found == 50


def test_small_pictures_keep_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decoded(data_uri(Image.fromarray(pixels), 256)).convert("RGB")), pixels)
    assert max(decoded(data_uri(Image.new("RGB", (1000, 300)), 256)).size) == 256


def test_heatmaps_are_shown_on_the_scale_of_the_fit():
    images = np.full((1, 1, 8, 8), 51, np.uint8)  # a fifth

    def shown(hottest: float | None) -> Image.Image:
        report = gallery(
            [group("all", "All", np.ones(1, bool), np.ones(1))], {}, {}, drawn(FakeDetector(hottest), images, [0])
        )
        return decoded(report["pictures"]["row-0"]["heatmap"])

    def colour(heat: float) -> Image.Image:
        return decoded(data_uri(heat_picture(np.full((8, 8), heat, np.float32)), 8))

    for hottest, heat in ((0.4, 0.5), (0.1, 1.0), (None, 1.0)):
        assert np.array_equal(np.asarray(shown(hottest)), np.asarray(colour(heat)))


def test_a_gallery_shows_what_the_detector_says():
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 9, 7), dtype=np.uint8)
    inspection = inspected(images)
    top = group("top", "Top", np.ones(20, bool), inspection.score)
    none = group("none", "None", np.zeros(20, bool), inspection.score)
    facts = {"path": [f"{i}.png" for i in range(20)], "score": inspection.score}
    pictures = drawn(FakeDetector(), images, rows_to_show([top, none]))
    report = gallery([top, none], facts, inspection.terms, pictures)
    assert [each["name"] for each in report["gallery"]] == ["top"]
    items = report["gallery"][0]["items"]
    assert [item["score"] for item in items] == sorted(inspection.score.tolist(), reverse=True)[:GROUP]
    for row, item in zip(top.rows.tolist(), items, strict=True):
        assert item["path"] == f"{row}.png"
        shown = np.asarray(decoded(report["pictures"][item["pictures"]]["input"]).convert("L"))
        assert np.array_equal(shown, images[row, 0])


def test_a_large_image_is_shown_whole_with_its_spots():
    image = np.zeros((1, LARGE, LARGE * 6), np.uint8)
    image[0, 30:50, 100:130] = 255
    (shown,) = drawn(FakeDetector(0.5, (0.5,)), image[None], [0]).values()
    assert set(shown.pictures) == {"overlay"}
    assert shown.pictures["overlay"].size == (SIDES[0], SIDES[0] // 6)
    report = gallery([group("all", "All", np.ones(1, bool), np.ones(1))], {}, {}, {0: shown})
    (spot,), found = report["gallery"][0]["items"][0]["spots"], report["gallery"][0]["items"][0]["spots_found"]
    assert (found, spot["left"], spot["top"], spot["width"], spot["height"], spot["p_value"]) == (
        1,
        100,
        30,
        30,
        20,
        0.5,
    )


def test_vectors_have_no_pictures():
    report = gallery([group("g", "G", np.ones(5, bool), np.arange(5.0))], {"path": list("abcde")}, {})
    assert report["pictures"] == {}
    expected = {"path": "e", "terms": {}, "pictures": None, "spots": [], "spots_found": 0}
    assert report["gallery"][0]["items"][0] == expected


def test_pictures_shrink_until_they_fit_and_the_last_are_left_out():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    drawn = {f"{i}": {"input": Image.fromarray(noise)} for i in range(10)}
    whole = sum(len(uri) for each in fitting(drawn, (256,), 10**9).values() for uri in each.values())
    for budget in (whole, whole // 3, whole // 40):
        found = fitting(drawn, (256, 96), budget)
        assert sum(len(uri) for each in found.values() for uri in each.values()) <= budget
        assert list(found) == list(drawn)[: len(found)]
    assert len(fitting(drawn, (256, 96), whole // 3)) == 10

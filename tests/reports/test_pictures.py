from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vaeguard.engines.inspection import Inspection
from vaeguard.errors import UsageError
from vaeguard.reports import pictures
from vaeguard.reports.pictures import draw_reconstructions, pick_examples

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def inspection_of(images: np.ndarray, heatmap: np.ndarray) -> Inspection:
    scores = np.arange(len(images), dtype=np.float32)
    return Inspection(scores, 1 / (1 + scores), {}, (images / 255).astype(np.float32), heatmap.astype(np.float32))


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 50))
def test_examples_are_the_lowest_the_middle_and_the_highest(values: list[int], n: int) -> None:
    scores = np.array(values, dtype=np.float32)
    picked = pick_examples(scores, n)
    assert len(picked) == len(set(picked.tolist())) == min(n, len(scores))
    assert np.all(np.diff(scores[picked]) >= 0)
    if n >= 3 and len(scores) >= 3:
        assert scores[picked[0]] == scores.min()
        assert scores[picked[-1]] == scores.max()


def test_the_middle_examples_surround_the_median() -> None:
    assert pick_examples(np.arange(101.0), 3).tolist() == [0, 50, 100]


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (1, 28, 28), (2, 9, 5), (3, 32, 32), (4, 40, 30), (3, 500, 700), (1, 1, 1)]
)
def test_reconstructions_of_any_shape_are_readable(shape: tuple[int, int, int], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    found = inspection_of(images, np.ones((5, *shape[1:])))
    draw_reconstructions(tmp_path / "r.png", images, found, [4, 0], [f"{i}.png" for i in range(5)])
    height, width, _ = read(tmp_path / "r.png").shape
    assert height > 150
    assert 300 < width < 1300


def test_heatmaps_share_one_scale(tmp_path: Path) -> None:
    images = np.zeros((2, 1, 28, 28), np.uint8)
    heatmap = np.stack([np.full((28, 28), 1.0), np.full((28, 28), 0.25)])
    draw_reconstructions(tmp_path / "r.png", images, inspection_of(images, heatmap), [0, 1], ["a", "b"])
    picture = read(tmp_path / "r.png")

    def pixels_of(value: float) -> int:
        colour = np.asarray(pictures.heat_picture(np.full((1, 1), value, np.float32)))[0, 0]
        return int((picture == colour).all(-1).sum())

    assert pixels_of(1.0) >= 112 * 112
    assert pixels_of(0.25) >= 112 * 112


def test_small_images_are_enlarged_by_whole_factors_without_blur() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8)
    tile = np.asarray(pictures._enlarge(pictures.picture_of(image)))
    assert tile.shape == (112, 112, 3)
    assert np.array_equal(tile[..., 0], image[0].repeat(4, 0).repeat(4, 1))


def test_the_heatmap_grows_brighter_with_strangeness() -> None:
    ramp = np.asarray(pictures.heat_picture(np.linspace(0, 1, 256, dtype=np.float32)[None]))[0].astype(int)
    brightness = ramp @ [299, 587, 114]
    assert np.all(np.diff(brightness) >= -600)  # but for rounding
    assert ramp[0].tolist() == list(pictures.HEATMAP_COLOURS[0])
    assert ramp[-1].tolist() == list(pictures.HEATMAP_COLOURS[-1])


def test_odd_names_do_not_stop_the_drawing(tmp_path: Path) -> None:
    images = np.zeros((3, 1, 8, 8), np.uint8)
    names = [b"\xff.png".decode("utf-8", "surrogateescape"), "line\nbreak\t.png", "x" * 300 + "数字.png"]
    draw_reconstructions(tmp_path / "r.png", images, inspection_of(images, np.zeros((3, 8, 8))), [0, 1, 2], names)
    assert read(tmp_path / "r.png").shape[1] < 1300


def test_reconstructions_need_pictures_and_an_image(tmp_path: Path) -> None:
    images = np.zeros((1, 1, 8, 8), np.uint8)
    bare = Inspection(np.zeros(1, np.float32), np.ones(1, np.float32), {})
    with pytest.raises(UsageError, match="pictures=True"):
        draw_reconstructions(tmp_path / "r.png", images, bare, [0], ["a"])
    with pytest.raises(UsageError, match="at least one image"):
        draw_reconstructions(tmp_path / "r.png", images, inspection_of(images, np.zeros((1, 8, 8))), [], ["a"])
    assert not list(tmp_path.iterdir())


def test_a_failed_drawing_leaves_the_old_picture(tmp_path: Path) -> None:
    (tmp_path / "r.png").write_bytes(b"old")
    images = np.zeros((1, 1, 8, 8), np.uint8)
    with pytest.raises(IndexError):
        draw_reconstructions(tmp_path / "r.png", images, inspection_of(images, np.zeros((1, 8, 8))), [3], ["a"])
    assert (tmp_path / "r.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1

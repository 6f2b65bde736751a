from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vaeguard import pictures
from vaeguard.errors import UsageError
from vaeguard.inspection import Inspection
from vaeguard.pictures import draw_histogram, draw_history, draw_reconstructions, draw_roc, pick_examples

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
        from matplotlib import colormaps

        colour = np.array(colormaps[pictures.HEATMAP_COLOURS](value, bytes=True)[:3])
        return int((picture == colour).all(-1).sum())

    assert pixels_of(1.0) >= 112 * 112
    assert pixels_of(0.25) >= 112 * 112


def test_small_images_are_enlarged_by_whole_factors_without_blur() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8)
    tile = np.asarray(pictures._tile(image))
    assert tile.shape == (112, 112, 3)
    assert np.array_equal(tile[..., 0], image[0].repeat(4, 0).repeat(4, 1))


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


@pytest.mark.parametrize("top", [0.0, 1.0, 14.0, 300.0, 1e6])
def test_histograms_of_any_reach(top: float, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    draw_histogram(tmp_path / "h.png", generator.random(50), generator.random(9) * top, 0.9)
    assert read(tmp_path / "h.png").std() > 0
    edges = pictures._edges(np.array([0.1, top]))
    assert np.all(np.diff(edges) > 0)
    assert edges[0] <= 0
    assert edges[-1] >= top


def test_histograms_of_little(tmp_path: Path) -> None:
    draw_histogram(tmp_path / "h.png", np.zeros(3), np.zeros(0), None)
    draw_histogram(tmp_path / "h.png", np.array([1.0]), np.array([np.inf]), None)


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        anomalous = np.arange(40) % 4 == 0
        draw_roc(tmp_path / name, {"score": (anomalous, np.arange(40.0)), "kl": (anomalous, np.full(40, np.inf))})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pyplot_is_left_alone(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; from vaeguard.pictures import draw_histogram;"
        f"draw_histogram({str(tmp_path / 'h.png')!r}, np.ones(3), np.ones(3), 1);"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_history_draws_the_columns_that_are_there(tmp_path: Path) -> None:
    row = {"epoch": 1, "learning_rate": 1e-3, "loss": 3.0, "valid_loss": 4.0, "rate": 1.0, "active_units": 3}
    draw_history(tmp_path / "all.png", [row, row | {"epoch": 2, "rate": None}, {"epoch": 3, "loss": float("nan")}])
    draw_history(tmp_path / "one.png", [{"loss": 1.0}, {"loss": 0.5}])
    assert read(tmp_path / "all.png").shape[0] > read(tmp_path / "one.png").shape[0]
    with pytest.raises(UsageError, match="loss, distortion, rate, active_units"):
        draw_history(tmp_path / "none.png", [{"epoch": 1, "learning_rate": 0.1}])


def test_a_failed_drawing_leaves_the_old_picture(tmp_path: Path) -> None:
    (tmp_path / "roc.png").write_bytes(b"old")
    with pytest.raises(ValueError, match="inconsistent"):
        draw_roc(tmp_path / "roc.png", {"score": (np.ones(3, bool), np.zeros(4))})
    assert (tmp_path / "roc.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1

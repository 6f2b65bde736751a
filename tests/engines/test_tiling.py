import itertools

import numpy as np
import pytest
import torch

import vaeguard
from vaeguard import ModelSpec, UsageError
from vaeguard.engines.detector import Detector
from vaeguard.engines.inspection import DetectorInfo
from vaeguard.engines.tiling import Tiling
from vaeguard.models.calibration import Calibration
from vaeguard.models.patches import random_windows
from vaeguard.models.shares import Draws
from vaeguard.settings.tiles import starts, tile_for


def spec_of(shape, **settings):
    return ModelSpec(**{"features": "efficientnet-lite0", **settings}).resolved(shape, (), feature_count=256)


class Echo(Detector):
    """A detector whose heatmap is the first channel, and whose score is its largest value."""

    def __init__(self, spec):
        record = type("Record", (), {"model": spec})
        super().__init__(record, ("recon_error",), "cpu")
        self.info = DetectorInfo(record, ("recon_error",))
        self.shapes = set()

    fingerprint = "echo"

    def run(self, images, wanted, first):
        assert first is None
        self.shapes.add(images.shape)
        heat = images[:, 0].astype(np.float32)
        peak = heat.max((1, 2))
        results = {"score": peak, "p_value": 1 / (1 + peak), "recon_error": -peak, "heatmap": heat}
        return {name: results[name] for name in wanted}


@pytest.mark.parametrize("side", [641, 700, 1216, 1217, 6000, 8000])
def test_large_images_are_cut_into_equal_tiles_that_overlap(side):
    tile, _ = tile_for((side, side))
    first = starts(side, tile, 64)
    assert tile <= 640
    assert first[0] == 0
    assert first[-1] + tile == side
    assert all(before + tile - after >= 64 for before, after in itertools.pairwise(first))
    assert len(first) == -(-(side - 64) // (640 - 64))
    assert spec_of((3, side, 200)).graph_shape == (3, tile, 200)


@pytest.mark.parametrize(
    ("settings", "size", "tile"),
    [
        ({}, (640, 480), None),
        ({"tile": (256,)}, (300, 200), (256, 200)),
        ({"tile": (256, 128)}, (300, 200), (256, 128)),
        ({"tile": (4000,)}, (3000, 200), None),
    ],
)
def test_a_tile_is_no_larger_than_the_image(settings, size, tile):
    spec = spec_of((1, *size), **settings)
    assert spec.tile == tile
    assert (spec.overlap is None) == (tile is None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": (64,), "features": None}, "works only with features or patches"),
        ({"tile": (64,), "overlap": 33}, "`overlap` is 33, but it must be at most half of .* tile, 64 pixels"),
        ({"tile": (0,)}, "`tile` is"),
        ({"tile": (16,)}, "at least 32 pixels a side, not 16x16"),
    ],
)
def test_tiles_that_cannot_work_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        spec_of((1, 300, 200), **settings)


def test_the_strangest_tile_decides_and_heatmaps_are_joined_without_seams():
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 150, 230)).astype(np.uint8)
    echo = Echo(spec_of((1, 150, 230), tile=(64, 100), overlap=20))
    seen = echo.inspect(images, pictures=True)
    assert echo.shapes == {(1, 1, 64, 100)}
    assert np.allclose(seen.heatmap, images[:, 0], atol=1e-3)
    peaks = images.reshape(3, -1).max(1)
    assert np.array_equal(seen.score, peaks)
    assert np.allclose(seen.p_value, 1 / (1 + peaks.astype(float)))
    assert (seen.terms["recon_error"] >= -peaks.astype(float)).all()
    assert len(echo.inspect(images[:0], pictures=True).heatmap) == 0


def test_examples_of_a_comparison_are_tiles():
    spec = spec_of((1, 150, 230), tile=(64, 100))
    images = np.arange(2 * 150 * 230, dtype=np.uint32).reshape(2, 1, 150, 230)
    tiles, first = Tiling(spec).spread(images, np.array([1]), 3)
    assert first[[0, -1]].tolist() == [[0, 0], [86, 130]]
    assert tiles.shape == (3, 1, 64, 100)
    assert tiles[0, 0, 0, 0] == images[1, 0, 0, 0]
    assert tiles[-1, 0, -1, -1] == images[1, 0, -1, -1]


def test_images_are_ranked_by_their_strangest_tile():
    draw = np.random.default_rng(0)
    shaping, ranking = (draw.normal(size=(n, 6, 2)).astype(np.float32) for n in (50, 99))
    calibration = Calibration([1.0, 0.0], 99)
    calibration.fit_terms(shaping)
    calibration.fit_ranks(ranking)
    fresh = torch.from_numpy(draw.normal(size=(2000 * 6, 2)).astype(np.float32))
    p_values = calibration(fresh)[1].view(2000, 6).amin(1)
    assert abs((p_values <= 0.1).float().mean() - 0.1) < 0.05


def test_training_patches_lie_in_tiles_and_have_no_surroundings_beyond():
    images = np.tile(np.arange(200, dtype=np.uint8), (1, 1, 200, 1))
    tiles = [([0, 40, 80], 60), ([100], 60)]
    rows = np.zeros(300, np.int64)
    windows = random_windows(images, rows, 16, Draws(torch.Generator().manual_seed(0)), tiles)
    assert windows.shape == (300, 1, 46, 46)
    assert windows.min() == 100
    assert windows.max() == 159


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
def test_a_model_of_tiles_finds_a_defect_and_is_the_same_from_a_file_and_exported(tmp_path):
    draw = np.random.default_rng(0)
    images = (120 + 10 * np.sin(np.arange(110) / 3) + draw.normal(0, 4, (32, 1, 90, 110))).astype(np.uint8)
    images[28:, :, 70:78, 70:78] = 20
    settings = {"tile": (64, 64), "overlap": 24, "epochs": 1, "device": "cpu"}
    detector = vaeguard.fit(images[:24], model=vaeguard.preset("patches").model, run=tmp_path, **settings)
    seen = detector.inspect(images[24:], pictures=True)
    assert seen.heatmap.shape == (8, 90, 110)
    assert seen.score[4:].min() > seen.score[:4].max()
    assert all(abs(at - 74) <= 12 for at in np.unravel_index(seen.heatmap[4].argmax(), (90, 110)))
    read = vaeguard.load(tmp_path).inspect(images[27:28], pictures=True)
    assert np.array_equal(read.heatmap[0], seen.heatmap[3])
    vaeguard.export(detector, tmp_path / "model.onnx", images=images[24:26])
    exported = vaeguard.load(tmp_path / "model.onnx")
    alone, together = (exported.inspect(images[24:stop], pictures=True) for stop in (25, 32))
    assert np.array_equal(alone.heatmap[0], together.heatmap[0])
    assert np.allclose(together.score, seen.score, rtol=1e-4, atol=1e-4)

"""Models that look at the region of each image: fit, score, watch and export agree."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaeguard
from vaeguard.data.data_sets import open_images
from vaeguard.data.images import ImageRule
from vaeguard.evaluation.watching import watch_files
from vaeguard.storage.tables import read_table

SIDE = 24
TRAINING = vaeguard.TrainSpec(epochs=15, beta=0.1, learning_rate=3e-3, device="cpu")
MODELS = {
    "whole": {"kind": "mlp", "hidden": (16,), "latent": 2, "without": ("latent_distance",)},
    "patches by tiles": {"patch": 8, "latent": 2, "hidden": (8,), "tile": (16, 20)},
}


def write(path, seed, *, outside=False, inside=False):
    """An even image with its region, in which a defect may lie, as may one outside."""
    draw = np.random.default_rng(seed)
    top, left = draw.integers(0, 8, 2)
    image = (draw.integers(60, 180) + draw.integers(0, 40, (SIDE, SIDE)) * draw.uniform(0.2, 1)).astype(np.uint8)
    region = np.zeros_like(image)
    region[top : top + 16, left : left + 16] = 255
    if outside:
        image[region == 0] = draw.integers(0, 256, np.count_nonzero(region == 0))
    if inside:
        image[top + 4 : top + 12, left + 4 : left + 12] = 250
    Image.fromarray(image).save(path)
    Image.fromarray(region).save(path.with_name(f"{path.stem}_roi.png"))


def table_of(detector, folder, output):
    summary = vaeguard.score_files(detector, [folder], output)
    table = read_table(output)
    return summary, {name: dict(zip(table["path"], table[name], strict=True)) for name in table}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_fit_score_watch_and_export_look_at_the_same_pixels(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    for folder in ("train", "plain", "cluttered"):
        Path(folder).mkdir()
    for seed in range(160):
        write(Path("train", f"{seed}.png"), seed, outside=seed % 2 == 0)
    for seed in range(100, 104):
        write(Path("plain", f"{seed}.png"), seed, inside=seed == 103)
        write(Path("cluttered", f"{seed}.png"), seed, inside=seed == 103, outside=True)
    data = open_images("train", rule=ImageRule(regions=None))
    fitted = vaeguard.fit(data, model=vaeguard.ModelSpec(**MODELS[kind]), training=TRAINING, run="run")
    assert fitted.info.record.model.regions
    vaeguard.export(fitted, "model.onnx", images=data.images, tolerance=0.01)
    scores = {}
    for name, detector in {"torch": vaeguard.load("run", "cpu"), "onnx": vaeguard.load("model.onnx", "cpu")}.items():
        (_, plain), (_, cluttered) = (table_of(detector, at, f"{at}-{name}.csv") for at in ("plain", "cluttered"))
        for column, values in plain.items():
            if column != "path":
                assert [*values.values()] == [*cluttered[column].values()], column
        assert max(plain["score"], key=plain["score"].get) == os.path.join("plain", "103.png")
        scores[name] = np.array([*plain["score"].values()], float)
        watch_files(detector, ["plain"], f"watch-{name}.csv", rounds=3)
        assert [*read_table(f"watch-{name}.csv")["score"]] == [*plain["score"].values()]
    assert np.allclose(scores["torch"], scores["onnx"], rtol=1e-3)
    Path("plain", "100_roi.png").write_bytes(b"broken")
    summary, table = table_of(vaeguard.load("model.onnx", "cpu"), "plain", "broken.csv")
    assert [path for path, _ in summary.errors] == [os.path.join("plain", "100.png")]
    assert len(table["path"]) == 3


def test_a_model_of_whole_images_says_that_it_uses_no_region(tmp_path, bars_run):
    write(tmp_path / "7.png", 7)
    summary = vaeguard.score_files(vaeguard.load(bars_run, "cpu"), [tmp_path], tmp_path / "scores.csv")
    assert summary.images == 1
    assert "1 region mask of single images not used (this model looks at whole images)" in summary.left_out

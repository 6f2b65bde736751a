from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import bars, toy_record

import vaeguard
from vaeguard import ModelSpec
from vaeguard.engines import exporting
from vaeguard.engines.onnx_checking import check_graph
from vaeguard.engines.onnx_detector import OnnxDetector
from vaeguard.engines.record import BackboneRecord
from vaeguard.engines.sessions import Session
from vaeguard.engines.torch_detector import TorchDetector
from vaeguard.models.backbones import Lite0
from vaeguard.models.graph import InferenceGraph
from vaeguard.models.patches import random_windows
from vaeguard.models.region import NOWHERE, strongest_mean
from vaeguard.models.shares import Draws
from vaeguard.models.vae import VAE

SIZE = (72, 90)
VIEWS = {
    "whole": {"kind": "mlp"},
    "conv": {"kind": "conv", "width": 2, "likelihood": "gaussian", "sampled_elbo": True},
    "patches": {"patch": 8},
    "features": {"features": "efficientnet-lite0"},
    "patches by tiles": {"patch": 8, "tile": (40, 40)},
    "features by tiles": {"features": "efficientnet-lite0", "tile": (40, 50)},
}


def inside():
    region = np.zeros(SIZE, bool)
    region[10:60, 20:70] = True
    region[30:40, 30:40] = False
    return region


def with_own(images):
    """Images whose last channel is their region."""
    return np.concatenate([images, np.where(inside(), 255, 0).astype(np.uint8)[None, None].repeat(len(images), 0)], 1)


def detector_of(settings, shape=(1, *SIZE)):
    """A model of the region that was never fitted."""
    spec = ModelSpec(**{"latent": 3, "hidden": (16,), "region": "digest", **settings})
    count = sum(Lite0.channels) if spec.features else 0
    record = toy_record(shape, images=9)
    spec = spec.resolved(shape, (), feature_count=count)
    network = BackboneRecord(spec.features, "0", "", Lite0.channels) if spec.features else None
    record = replace(record, model=spec, backbone=network)
    torch.manual_seed(0)
    graph = InferenceGraph(VAE(spec), 9, 4)
    if spec.features:
        graph.places.backbone.read_pretrained()  # fresh weights see nothing
    if graph.region is not None:
        graph.region.inside.copy_(torch.from_numpy(inside()))
    return TorchDetector(graph, record)


OWN = {"region": None, "regions": True}
"""A model that looks at the region of each image, not at one of all images."""


@pytest.fixture(scope="module", params=[*VIEWS, *(f"{view}, own regions" for view in VIEWS)])
def detector(request):
    view, _, own = request.param.partition(", own")
    return detector_of(VIEWS[view] | (OWN if own else {}))


def results_of(detector, images):
    if detector.info.record.model.regions:
        images = with_own(images)
    seen = detector.inspect(images, pictures=True)
    return {"score": seen.score, "p_value": seen.p_value, **seen.terms, "heatmap": seen.heatmap}


def test_no_bit_depends_on_pixels_outside_of_the_region(detector):
    images = np.random.default_rng(0).integers(0, 256, (2, 1, *SIZE)).astype(np.uint8)
    other = np.where(inside(), images, 255 - images)
    before, after = results_of(detector, images), results_of(detector, other)
    for name, values in before.items():
        assert np.array_equal(values, after[name]), name
    assert not before["heatmap"][:, ~inside()].any()
    assert before["heatmap"][:, inside()].any()
    changed = images.copy()
    changed[:, :, 45:55, 50:60] = 0
    assert not np.array_equal(results_of(detector, changed)["neg_elbo"], before["neg_elbo"])


def test_each_image_has_its_region(detector):
    if not detector.info.record.model.regions:
        return
    images = np.random.default_rng(0).integers(0, 256, (2, 1, *SIZE)).astype(np.uint8)
    both = with_own(images)
    both[1, -1] = 255
    apart = [detector.inspect(both[:1], pictures=True), detector.inspect(images[1:], pictures=True)]
    seen = detector.inspect(both, pictures=True)
    assert np.array_equal(seen.score, np.concatenate([one.score for one in apart]))
    assert np.array_equal(seen.heatmap, np.concatenate([one.heatmap for one in apart]))
    assert seen.heatmap[1, ~inside()].any()  # an image without a region counts as a whole


def test_only_what_both_regions_have_counts():
    both, one = detector_of({"patch": 8, "regions": True}), detector_of({"patch": 8})
    images = np.random.default_rng(0).integers(0, 256, (2, 1, *SIZE)).astype(np.uint8)
    white = np.concatenate([images, np.full_like(images, 255)], 1)
    assert np.array_equal(both.inspect(white).terms["neg_elbo"], one.inspect(images).terms["neg_elbo"])
    white[:, -1, :40] = 0
    seen = both.inspect(white, pictures=True).heatmap
    assert not seen[:, :40].any()
    assert not seen[:, ~inside()].any()
    assert seen[:, 45:55].any()


@pytest.mark.slow
@pytest.mark.parametrize("view", ["whole", "patches", "features by tiles"])
@pytest.mark.parametrize("own", [{}, OWN])
def test_an_exported_model_has_the_region(view, own):
    detector = detector_of(VIEWS[view] | own)
    settings = {"pixels": "uint8", "fp16": False, "fpr": 0.05, "opset": 20}
    content = exporting.onnx_bytes(detector.graph, detector, settings)
    check_graph(content, "ours")
    exported = OnnxDetector(Session(content, "ours", "cpu"))
    images = np.random.default_rng(1).integers(0, 256, (2, 1, *SIZE)).astype(np.uint8)
    before, after = results_of(detector, images), results_of(exported, images)
    assert all(np.allclose(values, after[name], rtol=1e-3, atol=1e-4) for name, values in before.items())
    other = np.where(inside(), images, 7).astype(np.uint8)
    assert all(np.array_equal(values, results_of(exported, other)[name]) for name, values in after.items())


def test_only_places_that_count_decide():
    values = torch.tensor([[1.0, 9.0, 2.0, 3.0], [4.0, 5.0, 6.0, torch.nan]])
    counted = torch.tensor([[True, False, True, False]])
    assert strongest_mean(values, 5, counted).tolist() == [1.5, 5.0]
    assert strongest_mean(values, 5, torch.zeros(1, 4, dtype=torch.bool)).tolist() == [np.float32(NOWHERE)] * 2
    assert strongest_mean(values, 1, torch.ones(1, 4, dtype=torch.bool))[1].isnan()


def test_training_patches_have_their_centres_in_the_region():
    images = np.where(inside(), np.arange(SIZE[1], dtype=np.uint8), 0).astype(np.uint8)[None, None]
    draw = Draws(torch.Generator().manual_seed(0))
    windows = random_windows(images, np.zeros(500, np.int64), 8, draw, inside=lambda _, *at: inside()[at])
    assert (windows[:, 0, 15 + 4, 15 + 4] > 0).float().mean() > 0.99


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
def test_a_fit_looks_only_at_its_region(tmp_path):
    images, _ = bars(classes=1)
    region = np.ones((8, 8), bool)
    region[:, 4:] = False
    noisy = images.copy()
    noisy[..., 4:] = np.random.default_rng(0).integers(0, 256, noisy[..., 4:].shape)
    settings = {"epochs": 3, "hidden": (16,), "latent": 2, "device": "cpu"}
    plain, other = (
        vaeguard.fit(data, roi=region, run=tmp_path / str(n), **settings) for n, data in enumerate((images, noisy))
    )
    assert np.array_equal(plain.inspect(images).score, other.inspect(noisy).score)
    assert plain.info.record.model.region_share == 0.5
    read = vaeguard.load(tmp_path / "0").inspect(noisy, pictures=True)
    assert np.array_equal(read.score, plain.inspect(images).score)
    assert not read.heatmap[..., 4:].any()
    assert "The model looks at 50.0 % of each image" in (tmp_path / "0" / "report.html").read_text()

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import bars

import vaeguard
from vaeguard import ModelSpec, TrainSpec, UsageError
from vaeguard.restoration.denoiser import shipped_denoiser

pytestmark = pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")


@pytest.fixture(scope="module", params=["mlp", "conv"])
def detector(request):
    images, labels = bars(size=12)
    model = ModelSpec(kind=request.param, hidden=(64, 32), latent=5, width=4)
    return vaeguard.fit(images, labels, normal_classes="0,1", model=model, training=TrainSpec(epochs=3))


IMAGES = bars(150, size=12, seed=4)[0]


def everything(inspection):
    return {"score": inspection.score, "p_value": inspection.p_value, "restored": inspection.restored,
            "heatmap": inspection.heatmap, **inspection.terms}  # fmt: skip


@given(st.lists(st.integers(1, 70), max_size=4), st.permutations(range(20)))
@settings(max_examples=15, deadline=None)
def test_an_image_has_the_same_bits_whatever_the_batch_around_it(detector, cuts, order):
    whole = everything(detector.inspect(IMAGES, pictures=True))
    for part in np.split(np.arange(len(IMAGES)), np.unique(np.cumsum(cuts))):
        for name, values in everything(detector.inspect(IMAGES[part], pictures=True)).items():
            np.testing.assert_array_equal(values, whole[name][part])
    mixed = everything(detector.inspect(IMAGES[list(order)], pictures=True))
    for name, values in mixed.items():
        np.testing.assert_array_equal(values, whole[name][list(order)])


def test_results_have_the_promised_shapes_ranges_and_types(detector):
    found = detector.inspect(IMAGES, pictures=True)
    assert len(found) == len(IMAGES)
    for name, values in everything(found).items():
        assert values.dtype == np.float32, name
        assert np.isfinite(values).all(), name
    assert tuple(found.terms) == detector.info.term_names
    assert found.restored.shape == IMAGES.shape
    assert found.heatmap.shape == (len(IMAGES), 12, 12)
    assert 0 <= found.restored.min() <= found.restored.max() <= 1
    assert 0 < found.p_value.min() <= found.p_value.max() <= 1
    assert min(found.score.min(), found.heatmap.min(), found.terms["kl"].min()) >= 0


def test_terms_are_what_their_names_say(detector):
    found, image = detector.inspect(IMAGES, pictures=True), IMAGES.astype(np.float64) / 255
    np.testing.assert_allclose(
        found.terms["recon_error"], ((image - found.restored) ** 2).mean((1, 2, 3)), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(found.heatmap.mean((1, 2)), found.terms["recon_error"], rtol=1e-4)
    cross_entropy = -(image * np.log(found.restored) + (1 - image) * np.log1p(-found.restored.astype(np.float64)))
    np.testing.assert_allclose(found.terms["neg_elbo"], cross_entropy.sum((1, 2, 3)) + found.terms["kl"], rtol=1e-3)
    n_classes = 2
    assert (found.terms["class_surprise"] <= math.log(n_classes) + 1e-5).all()


def test_uint8_and_float_pixels_are_the_same_image(detector):
    one, two = detector.inspect(IMAGES), detector.inspect(IMAGES.astype(np.float32) / 255)
    np.testing.assert_array_equal(one.score, two.score)


def test_grey_images_need_no_axis_of_channels(detector):
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12), dtype=np.uint8)
    assert detector.inspect(images).score.tolist() == detector.inspect(images[:, None]).score.tolist()


def test_pictures_come_only_when_asked_for(detector):
    found = detector.inspect(IMAGES[:3])
    assert found.restored is None
    assert found.heatmap is None
    assert len(detector.inspect(IMAGES[:0], pictures=True)) == 0


def test_extreme_images_get_finite_scores(detector):
    for value in (0, 255):
        found = detector.inspect(np.full((2, 1, 12, 12), value, np.uint8))
        assert np.isfinite(found.score).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 1, 8, 8), np.uint8), r"\(N, 1, 12, 12\)"),
        (np.zeros((12, 12), np.uint8), "shape"),
        (np.zeros((2, 1, 12, 12), np.int64), "int64"),
        (np.full((2, 1, 12, 12), 2.0), r"\[0, 1\]"),
        (np.full((2, 1, 12, 12), np.nan, np.float32), "NaN"),
    ],
)
def test_other_arrays_are_refused(detector, images, message):
    with pytest.raises(UsageError, match=message):
        detector.inspect(images)


def test_inspecting_leaves_torchs_random_state_alone(detector):
    before = torch.get_rng_state()
    detector.inspect(IMAGES)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["gpu", "cuda:1", "CUDA"])
def test_devices_that_do_not_exist_are_refused_by_every_engine(detector, name, tmp_path):
    vaeguard.save(detector, tmp_path / "model.safetensors")
    for opened in (
        lambda: vaeguard.load(tmp_path / "model.safetensors", name),
        lambda: shipped_denoiser("photo", name),
        lambda: vaeguard.DenoiserSpec(device=name),
    ):
        with pytest.raises(UsageError, match="; choose from auto, cpu, cuda"):
            opened()

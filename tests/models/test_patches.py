"""Patches: cutting and folding are inverse, small defects stand out, and nothing else about a fit changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vaeguard
from vaeguard import ModelSpec, TrainSpec, UsageError
from vaeguard.data.split import split_normal
from vaeguard.models import patches
from vaeguard.models.likelihoods import LIKELIHOODS
from vaeguard.models.patches import Patches, local_contrast, random_windows, surrounded, undo_contrast
from vaeguard.models.shares import Draws

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")]

MODEL = ModelSpec(patch=8, hidden=(64,), latent=4, activation="gelu")
TRAINING = TrainSpec(epochs=2, threads=1, augment_flip=True, augment_noise=0.01)
DEFECT = (slice(32, 34), slice(11, 19))


def textured(n=60, size=(48, 44), seed=0):
    """Slanted stripes of random phase and contrast, brighter on one side, uint8 (n, 1, H, W)."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    phase, strength, tilt = generator.uniform([0, 10, -1], [6.28, 16, 1], (n, 3)).T[:, :, None, None]
    waves = strength * np.sin((x + y) / 2 + phase)
    noise = generator.normal(0, 4, (n, *size))
    return np.clip(120 + waves + tilt * x + noise, 0, 255).astype(np.uint8)[:, None]


def defective(images):
    """The same with a scratch of 2x8 pixels, darker by 45 of 255."""
    spoilt = images.copy()
    spoilt[:, :, DEFECT[0], DEFECT[1]] = np.maximum(images[:, :, DEFECT[0], DEFECT[1]], 45) - 45
    return spoilt


@pytest.fixture(autouse=True)
def _short_epochs(monkeypatch):
    monkeypatch.setattr("vaeguard.training.plan.TRAINING_CROPS", 2560)
    monkeypatch.setattr("vaeguard.training.examples.VALIDATION_CROPS", 256)


@pytest.fixture(scope="module")
def detector():
    return vaeguard.fit(textured(), model=MODEL, training=replace(TRAINING, epochs=5))


def weights(detector):
    return detector.graph.state_dict()


def assert_same_bits(one, two):
    images = textured(5, seed=8)
    a, b = weights(one), weights(two)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    found, again = (d.inspect(images, pictures=True) for d in (one, two))
    np.testing.assert_array_equal(found.score, again.score)
    np.testing.assert_array_equal(found.restored, again.restored)
    np.testing.assert_array_equal(found.heatmap, again.heatmap)


sides = st.integers(4, 12)
shapes = st.tuples(st.integers(1, 3), st.integers(24, 50), st.integers(24, 50))


@settings(max_examples=30)
@given(shapes, sides)
def test_folding_the_patches_of_an_image_returns_it(shape, side):
    image = torch.rand(2, *shape)
    grid = Patches(shape, side)
    cut = grid.cut(image)
    assert cut.shape == (2 * grid.grid[0] * grid.grid[1], shape[0], side, side)
    torch.testing.assert_close(grid.fold(cut), image)


@given(shapes, sides, st.data())
def test_a_patch_is_where_its_row_and_column_say(shape, side, data):
    image = torch.rand(2, *shape)
    grid = Patches(shape, side)
    row, column = (data.draw(st.integers(0, (size - side) // grid.stride)) for size in shape[1:])
    top, left = row * grid.stride, column * grid.stride
    cut = grid.cut(image).view(2, *grid.grid, shape[0], side, side)
    assert torch.equal(cut[1, row, column], image[1, :, top : top + side, left : left + side])


@given(shapes, sides, st.data())
def test_the_heatmap_is_a_patchs_value_at_its_centre(shape, side, data):
    grid = Patches(shape, side)
    row, column = (data.draw(st.integers(1, count - 2)) for count in grid.grid)
    values = torch.zeros(2, *grid.grid)
    values[1, row, column] = 1
    heat = grid.heatmap(values.flatten())
    assert heat.shape == (2, *shape[1:])
    assert heat[0].max() == 0
    centre = [min(at * grid.stride + side // 2, size - 1) for at, size in zip((row, column), shape[1:], strict=True)]
    assert heat[1, centre[0], centre[1]] == heat[1].max() == 1


def test_an_image_is_as_strange_as_its_five_strangest_inner_patches():
    grid = Patches((1, 40, 32), 8)
    values = torch.rand(3, *grid.grid)
    values[:, 0] = values[:, -1] = values[:, :, 0] = values[:, :, -1] = 100.0
    largest = np.sort(values[:, 1:-1, 1:-1].reshape(3, -1).numpy(), 1)[:, -5:].mean(1)
    np.testing.assert_allclose(grid.strongest(values.flatten()), largest, rtol=1e-6)


def test_contrast_is_that_of_the_definition_and_can_be_undone():
    image = torch.rand(1, 1, 40, 37)
    contrast, mean = local_contrast(surrounded(image))
    logs = np.log(np.pad(image[0, 0].double().numpy(), patches.RADIUS, mode="edge") + 0.03)
    for y, x in ((0, 0), (20, 11), (39, 36)):
        ratio = np.exp(logs[y + 15, x + 15] - logs[y : y + 31, x : x + 31].mean())
        assert contrast[0, 0, y, x].item() == pytest.approx(ratio**2 / (1 + ratio**2), rel=1e-4)
    torch.testing.assert_close(undo_contrast(contrast, mean), image, rtol=0, atol=1e-4)


def test_a_random_patch_is_one_of_the_whole_image():
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 20, 24), dtype=np.uint8)
    rows = np.array([2, 0, 1, 2, 2])
    windows = random_windows(images, rows, 8, Draws(torch.Generator().manual_seed(3)))
    assert windows.shape == (5, 2, 38, 38)
    whole = surrounded(torch.from_numpy(images).float()).to(torch.uint8)
    for row, window in zip(rows, windows, strict=True):
        places = whole[row].unfold(1, 38, 1).unfold(2, 38, 1)
        assert (places == window[:, None, None]).all(-1).all(-1).all(0).sum() == 1


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_no_distortion_is_below_the_least(name):
    spec = ModelSpec(likelihood=name, patch=8, sigma=0.5)
    family = LIKELIHOODS[name]
    found = family.from_decoder(8 * torch.randn(20, family.channels, 8, 8), spec)
    assert -found.log_prob(found.mean).min() >= family.least_distortion(spec) - 1e-4


def test_a_small_defect_raises_the_score_and_the_heatmap_peaks_on_it(detector):
    good = textured(30, seed=1)
    bad = defective(good)
    found, strange = (detector.inspect(images, pictures=True) for images in (good, bad))
    assert np.median(strange.score) > np.quantile(found.score, 0.95)
    assert found.heatmap.min() >= 0
    peaks = [np.unravel_index(heat.argmax(), heat.shape) for heat in strange.heatmap]
    near = [abs(y - 33) <= 6 and abs(x - 15) <= 8 for y, x in peaks]
    assert np.mean(near) > 0.8
    assert np.abs(found.restored - good / 255).mean() < 0.05


def test_a_change_of_exposure_changes_little(detector):
    good = textured(30, seed=1).astype(np.float32) / 255
    terms = [detector.inspect(images).terms["neg_elbo"] for images in (good, 0.7 * good)]
    assert np.abs(terms[0] - terms[1]).mean() < 0.25 * terms[0].std() + 0.05 * np.abs(terms[0]).mean()


def test_an_image_has_the_same_bits_in_any_batch(detector):
    images = textured(7, seed=2)
    together = detector.inspect(images, pictures=True)
    alone = [detector.inspect(images[i : i + 1], pictures=True) for i in range(len(images))]
    for name in ("score", "p_value", "heatmap", "restored"):
        np.testing.assert_array_equal(getattr(together, name), np.concatenate([getattr(one, name) for one in alone]))


def test_save_then_load_gives_the_same_bits(detector, tmp_path):
    vaeguard.save(detector, tmp_path)
    assert_same_bits(detector, vaeguard.load(tmp_path))


def test_a_killed_fit_resumes_to_the_same_bits(tmp_path, monkeypatch):
    unbroken = vaeguard.fit(textured(), model=MODEL, training=TRAINING)
    monkeypatch.setattr("vaeguard.training.loop.CHECKPOINT_SECONDS", 0.0)

    def kill(done, total, text):
        if done > total * 0.6:
            raise SystemError

    with pytest.raises(SystemError):
        vaeguard.fit(textured(), model=MODEL, training=TRAINING, run=tmp_path, progress=kill)
    vaeguard.fit(textured(), model=MODEL, training=TRAINING, run=tmp_path, resume=True)
    assert_same_bits(unbroken, vaeguard.load(tmp_path))


@pytest.mark.parametrize(
    "change",
    [{"kind": "conv", "width": 2}, {"autoencoder": True}, {"sampled_elbo": True}, {"likelihood": "bernoulli"}],
)
def test_other_models_can_be_of_patches_too(change):
    detector = vaeguard.fit(textured(20), model=replace(MODEL, **change), training=replace(TRAINING, epochs=1))
    found = detector.inspect(textured(3, seed=4), pictures=True)
    assert np.isfinite(found.score).all()
    assert found.heatmap.min() >= 0


def test_colour_images_of_any_size_are_taken():
    images = np.concatenate([textured(20, (33, 51), seed) for seed in range(3)], axis=1)
    found = vaeguard.fit(images, model=MODEL, training=replace(TRAINING, epochs=1)).inspect(images, pictures=True)
    assert found.restored.shape == images.shape
    assert found.heatmap.shape == (20, 33, 51)


@pytest.mark.parametrize(
    ("spec", "images", "message"),
    [
        ({"patch": 3}, None, "`patch` is 3; it must be at least 4"),
        ({"patch": 8, "guided": True}, None, "remove `patch`, or remove `guided`"),
        ({"patch": 8, "prior": "per-class"}, None, "remove `guided` and `prior`"),
        ({"patch": 32}, textured(20), "at least 64 pixels"),
        ({"patch": 8}, np.zeros((40, 9)), "vectors"),
    ],
)
def test_what_patches_cannot_do_is_one_clear_sentence(spec, images, message):
    with pytest.raises(UsageError, match=message):
        vaeguard.fit(images, model=ModelSpec(**spec))


def test_classes_do_not_guide_patches():
    spec = ModelSpec(patch=8).resolved((1, 32, 32), ("a", "b"), images=1000)
    assert not spec.guided
    assert spec.pseudo_classes == 0
    assert spec.vae_shape == (1, 8, 8)
    assert (spec.kind, spec.likelihood) == ("mlp", "gaussian-pixel")


@given(st.lists(st.integers(1, 9), min_size=6, max_size=40), st.integers(0, 5))
def test_groups_stay_together_and_the_shares_are_roughly_kept(sizes, seed):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    if len(groups) < 20:
        return
    image_set = vaeguard.from_array(np.zeros((len(groups), 4, 4), np.uint8))
    split = split_normal(image_set, (), validation=0.2, calibration=0.1, seed=seed, groups=groups)
    parts = [split.training, split.validation, split.calibration]
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    assert not any(set(groups[a]) & set(groups[b]) for a in parts for b in parts if a is not b)
    for part, share in ((split.validation, 0.2), (split.calibration, 0.1)):
        assert 0 < len(part) <= max(round(share * len(groups)), min(sizes) + 9)
        assert len(part) > share * len(groups) - 9


def test_three_groups_of_any_size_fill_three_parts():
    image_set = vaeguard.from_array(np.zeros((20, 4, 4), np.uint8))
    for sizes in ((18, 1, 1), (1, 1, 18), (1, 18, 1)):
        for seed in range(5):
            groups = np.repeat(np.arange(3), sizes)
            split = split_normal(image_set, (), validation=0.1, calibration=0.1, seed=seed, groups=groups)
            assert min(len(split.training), len(split.validation), len(split.calibration)) > 0


def test_groups_of_one_image_each_are_no_groups():
    labels = np.repeat([0, 1], [50, 100])
    image_set = vaeguard.from_array(np.zeros((150, 4, 4), np.uint8), labels)
    shares = {"validation": 0.2, "calibration": 0.1, "seed": 0}
    alone = split_normal(image_set, (0, 1), **shares)
    split = split_normal(image_set, (0, 1), **shares, groups=np.arange(150))
    assert [len(split.training), len(split.validation)] == [len(alone.training), len(alone.validation)]
    assert (split.calibration < 50).sum() == (alone.calibration < 50).sum()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.arange(30) % 2, "has 2 groups"),
        (np.arange(29), "one group for each"),
        (np.arange(30) % 15, "two normal classes"),
    ],
)
def test_groups_that_cannot_be_split_are_refused(groups, message):
    with pytest.raises(UsageError, match=message):
        vaeguard.fit(np.zeros((30, 8, 8), np.uint8), np.repeat(["a", "b"], 15), groups=groups)

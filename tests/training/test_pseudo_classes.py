import numpy as np
import pytest
from toy import bars

from vaeguard.settings.model import PSEUDO_HEADS
from vaeguard.training.pseudo_classes import SIDE, _small, pseudo_labels

CLUSTERS = 12
IMAGES = bars(200)[0]
TRAINING, OTHERS = np.arange(160), np.arange(160, 200)


def labels_of(images, training=TRAINING, others=OTHERS, clusters=CLUSTERS, seed=0):
    return pseudo_labels(images, training, others, clusters, seed)


def test_labels_have_the_promised_shape_type_and_range():
    for found, rows in zip(labels_of(IMAGES), (TRAINING, OTHERS), strict=True):
        assert found.shape == (len(rows), PSEUDO_HEADS)
        assert found.dtype == np.int64
        assert 0 <= found.min() <= found.max() < CLUSTERS


def test_the_seed_alone_settles_the_labels():
    one, two, other = (labels_of(IMAGES, seed=seed) for seed in (3, 3, 4))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[0], other[0])


def test_clusterings_differ_from_each_other():
    columns = labels_of(IMAGES)[0].T
    together = [column[:, None] == column for column in columns]
    assert all(not np.array_equal(together[0], one) for one in together[1:])


def test_a_cluster_holds_images_of_one_kind():
    images, classes = bars(200)
    found = labels_of(images)[0]
    for column in found.T:
        same = [np.bincount(classes[TRAINING][column == label]).max() for label in np.unique(column)]
        assert sum(same) > 0.95 * len(TRAINING)


def test_other_images_get_the_label_of_an_identical_training_image():
    found, others = labels_of(np.concatenate([IMAGES, IMAGES]), others=200 + TRAINING[::-1])
    np.testing.assert_array_equal(others, found[::-1])


def test_only_the_named_training_rows_make_the_clusters():
    changed = IMAGES.copy()
    changed[OTHERS] = 255 - changed[OTHERS]
    np.testing.assert_array_equal(labels_of(changed)[0], labels_of(IMAGES)[0])


@pytest.mark.parametrize("contrast", [0.25, 0.6, 1.5])
def test_contrast_around_the_mean_image_does_not_change_the_label(contrast):
    images = IMAGES[TRAINING].astype(np.float32)
    changed = images.mean(0) + contrast * (images - images.mean(0))
    found, others = labels_of(np.concatenate([images, changed]), others=160 + TRAINING)
    np.testing.assert_array_equal(others, found)


@pytest.mark.parametrize("factor", [2, 3])
def test_large_images_are_averaged_down(factor):
    images = bars(200, size=SIDE)[0]
    large = images.repeat(factor, axis=2).repeat(factor, axis=3)
    np.testing.assert_allclose(_small(large, TRAINING), _small(images, TRAINING), rtol=1e-6)
    for a, b in zip(labels_of(large), labels_of(images), strict=True):
        np.testing.assert_array_equal(a, b)


def test_averaging_is_over_whole_blocks():
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2 * SIDE, SIDE)).astype(np.uint8)
    expected = (images[:, :, ::2].astype(float) + images[:, :, 1::2]) / 2 / 255
    np.testing.assert_allclose(_small(images, np.arange(4)), expected.reshape(4, -1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (33, 31), (40, 100), (1, 65), (200, 257)])
def test_no_side_is_larger_than_promised_and_brightness_stays(size):
    found = _small(np.full((3, 2, *size), 51, np.uint8), np.arange(3))
    assert found.shape[1] <= 2 * SIDE * SIDE
    np.testing.assert_allclose(found, 0.2, rtol=1e-5)


def test_a_memory_map_gives_the_same_labels(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    for a, b in zip(labels_of(mapped), labels_of(IMAGES), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fewer_distinct_images_than_clusters_are_fine():
    images = np.tile(IMAGES[:3], (40, 1, 1, 1))
    found, others = labels_of(images, np.arange(99), np.arange(99, 120))
    # Several clusters may lie on one image, and which of them is nearest to its copies is a matter of rounding.
    for column in np.concatenate([found, others]).T:
        first, second, third = (set(column[k::3].tolist()) for k in range(3))
        assert first.isdisjoint(second | third)
        assert second.isdisjoint(third)

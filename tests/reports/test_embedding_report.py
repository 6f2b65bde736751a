from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

import vaeguard
from vaeguard.reports.embedding import in_plane, write_embedding_report
from vaeguard.reports.report_file import read_report


def groups(n=40, units=6):
    """Three far groups of latents."""
    generator = np.random.default_rng(0)
    centres = 20 * np.eye(units)[:3].repeat(n, 0)
    return centres + generator.normal(0, 1, centres.shape), np.arange(3).repeat(n)


@pytest.mark.parametrize("projection", ["pca", pytest.param("tsne", marks=pytest.mark.nightly)])
def test_neighbours_in_the_latent_are_neighbours_in_the_plane(projection):
    means, labels = groups()
    points, how, explained = in_plane(means, projection)
    assert how == projection
    assert (explained is None) == (projection == "tsne")
    nearest = NearestNeighbors(n_neighbors=6).fit(points).kneighbors(return_distance=False)
    assert (labels[nearest] == labels[:, None]).all()


def test_a_latent_of_two_units_is_shown_as_it_is():
    means, _ = groups(units=4)
    points, how, explained = in_plane(means[:, :2], "tsne")
    assert np.array_equal(points, means[:, :2])
    assert (how, explained) == ("none", None)


@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (30, 1), (3, 4)])
def test_few_images_and_a_single_unit_have_places_too(shape):
    for projection in ("pca", "tsne"):
        points, _, _ = in_plane(np.random.default_rng(0).normal(0, 1, shape), projection)
        assert points.shape == (shape[0], 2)
        assert np.isfinite(points).all()


def test_the_report_without_classes(tmp_path):
    images = vaeguard.from_array(np.zeros((20, 1, 8, 8), np.uint8))
    means = np.random.default_rng(0).normal(0, 1, (20, 5))
    columns = {f"mean_{unit}": values for unit, values in enumerate(means.T)}
    page = write_embedding_report(tmp_path / "latents.csv", images, columns, "pca")
    report = read_report(tmp_path / "latents.csv")
    assert report["points"]["class"] is None
    assert report["classes"] == []
    assert len(report["points"]["x"]) == 20
    assert "20 latents of 5 units" in page.read_text()

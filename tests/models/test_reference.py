import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors

from vaeguard.models.reference import (
    LowRankGaussian,
    Neighbours,
    Reference,
    features_of,
    movement_of,
    neighbour_directions,
)


def mixing(values, seed):
    """A well-conditioned linear map."""
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.normal(size=(values, values)))[0] for _ in range(2))
    return left * np.linspace(0.5, 2, values) @ right


def correlated(n=500, values=6, seed=0):
    """Rows of one correlated Gaussian; the seed picks the rows only."""
    rows = np.random.default_rng(seed).normal(size=(n, values)) @ mixing(values, 100)
    return torch.from_numpy(rows + np.arange(values) % 3).float()


def gaussian(values):
    fitted = LowRankGaussian(values.shape[1])
    fitted.fit(values)
    return fitted


def neighbours(values, centres):
    fitted = Neighbours(centres, values.shape[1])
    fitted.fit(values, seed=0)
    return fitted


def reference(latent=4, features=9, movements=12, images=60, pixels=(1, 5, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    fitted = Reference(pixels, (features, movements, latent), images // 3)
    shapes = (pixels, (images, features), (images, movements), (images, latent))
    fitted.fit(*(torch.randn(shape, generator=generator).square() for shape in shapes), seed=0)
    return fitted


def test_with_all_directions_it_is_the_mahalanobis_distance():
    normal, fresh = correlated(), 3 * correlated(40, seed=1)
    centred = fresh.double().numpy() - normal.double().numpy().mean(0)
    inverse = np.linalg.inv(np.cov(normal.double().numpy().T, bias=True))
    expected = np.einsum("ni,ij,nj->n", centred, inverse, centred) / normal.shape[1]
    np.testing.assert_allclose(gaussian(normal)(fresh), expected, rtol=1e-3)


def test_with_all_directions_no_affine_map_changes_the_distance():
    normal, fresh = correlated(), correlated(40, seed=1)
    linear = torch.from_numpy(mixing(6, 7)).float()
    moved = gaussian(normal @ linear + 5)(fresh @ linear + 5)
    torch.testing.assert_close(moved, gaussian(normal)(fresh), rtol=1e-3, atol=1e-4)


def test_with_few_directions_no_rotation_shift_or_scale_changes_the_distance():
    normal, fresh = correlated(400, 200), correlated(40, 200, seed=1)
    turn = torch.linalg.qr(torch.randn(200, 200, generator=torch.Generator().manual_seed(2))).Q
    moved = gaussian(7 * normal @ turn + 5)(7 * fresh @ turn + 5)
    torch.testing.assert_close(moved, gaussian(normal)(fresh), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("values", [1, 2, 6, 128, 129, 130, 200])
def test_the_distance_of_the_normal_values_themselves_is_1_on_average(values):
    normal = correlated(600, values)
    assert gaussian(normal)(normal).mean().item() == pytest.approx(1, rel=1e-3)


def test_a_value_that_never_varied_leaves_the_distance_finite():
    normal = correlated()
    normal[:, 2] = 4
    changed = normal.clone()
    changed[:, 2] += 1
    fitted = gaussian(normal)
    assert torch.isfinite(fitted(changed)).all()
    assert (fitted(changed) > fitted(normal)).all()
    assert torch.isfinite(gaussian(torch.zeros(30, 4))(torch.ones(2, 4))).all()


@pytest.mark.parametrize("centres", [60, 5, 1])
def test_the_distance_is_that_to_the_nearest_of_scikit_learns_centres(centres):
    values, fresh = correlated(200, 7), correlated(30, 7, seed=1)
    found = neighbours(values, centres)
    centres = found.centres + found.mean
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(centres.double().numpy())
    expected = search.kneighbors(fresh.double().numpy())[0][:, 0]
    np.testing.assert_allclose(found(fresh), expected, rtol=1e-4)
    assert found(centres).max() < 1e-5


def test_as_many_centres_as_points_are_these_points():
    values = correlated(20, 7)
    assert neighbours(values, 20)(values).max() < 1e-5


def test_the_latent_distance_looks_at_the_direction_of_the_mean_only():
    fitted = reference()
    mean = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    centres = fitted.latents.centres + fitted.latents.mean
    expected = torch.cdist(F.normalize(mean, dim=1), centres).amin(1)
    for scale in (0.01, 1, 50):
        torch.testing.assert_close(fitted.latent_distance(scale * mean), expected, rtol=1e-4, atol=1e-4)
    assert centres.norm(dim=1).max() <= 1 + 1e-6
    assert expected.max() <= 2


def test_neighbour_directions_keep_what_parts_clusters_and_leave_out_noise():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(800, 22, generator=generator)
    features[:, :2] += 30 * torch.randint(0, 3, (800, 2), generator=generator)
    directions = neighbour_directions(features, 2)
    assert directions.shape == (22, 2)
    assert directions[2:].norm(dim=1).max() < 0.1 * directions[:2].norm(dim=1).min()
    assert torch.linalg.matrix_rank(directions[:2]) == 2


def test_a_clusters_direction_is_kept_though_noise_varies_more():
    generator = torch.Generator().manual_seed(0)
    features = 3 * torch.randn(1000, 5, generator=generator)
    features[:, 0] = 4.0 * torch.randint(0, 2, (1000,), generator=generator)
    features[:, 0] += 0.05 * torch.randn(1000, generator=generator)
    assert features.var(0).argmin() == 0
    direction = neighbour_directions(features, 1)[:, 0].abs()
    assert direction[1:].max() < 0.1 * direction[0]


def test_neighbour_directions_depend_on_differences_only():
    features = correlated(300, 8)
    there, here = (neighbour_directions(some, 3) for some in (features + 4, features))
    torch.testing.assert_close(there.abs(), here.abs(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("features", [torch.zeros(40, 5), torch.ones(40, 1), torch.eye(6)[torch.arange(40) % 6]])
def test_neighbour_directions_of_equal_images_are_finite(features):
    assert torch.isfinite(neighbour_directions(features, 1)).all()


def test_the_error_ratio_of_the_normal_images_is_about_1():
    generator = torch.Generator().manual_seed(0)
    error = torch.rand(200, 2, 4, 4, generator=generator) * torch.linspace(0.2, 2, 32).reshape(2, 4, 4)
    fitted = Reference((2, 4, 4), (3, 3, 2), 5)
    fitted.fit(error.mean(0), *(torch.randn(5, size, generator=generator) for size in (3, 3, 2)), seed=0)
    ratio = fitted.error_ratio(error)
    assert ratio.mean().item() == pytest.approx(1, abs=0.25)
    torch.testing.assert_close(fitted.error_ratio(3 * error), 3 * ratio)


def test_the_same_error_counts_more_where_normal_images_have_little():
    fitted = Reference((1, 1, 2), (3, 3, 2), 5)
    generator = torch.Generator().manual_seed(0)
    fitted.fit(
        torch.tensor([[[0.01, 1.0]]]), *(torch.randn(5, size, generator=generator) for size in (3, 3, 2)), seed=0
    )
    easy, hard = fitted.error_ratio(torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]]))
    assert easy > 5 * hard


@pytest.mark.parametrize("height", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_activations_become_means_on_a_grid_of_2x2(height, width):
    values = torch.randn(3, 4, height, width, generator=torch.Generator().manual_seed(0))
    found = features_of([values]).reshape(3, 4, min(height, 2), min(width, 2))
    torch.testing.assert_close(features_of([torch.full_like(values, 7.0)]), torch.full((3, found[0].numel()), 7.0))
    rows, columns = -(-height // 2), -(-width // 2)
    torch.testing.assert_close(found[:, :, 0, 0], values[:, :, :rows, :columns].mean((2, 3)))
    torch.testing.assert_close(found[:, :, -1, -1], values[:, :, -rows:, -columns:].mean((2, 3)))


def test_what_is_encoded_alike_again_has_not_moved():
    hidden = [torch.randn(3, 2, 5, 5), torch.randn(3, 7)]
    mean = torch.randn(3, 4)
    moved = movement_of(hidden, hidden, mean, mean)
    assert moved.shape == (3, 2 * 4 + 7 + 4)
    assert moved.abs().max() == 0
    assert torch.equal(movement_of(hidden, hidden, mean, mean - 1)[:, -4:], (mean - (mean - 1)))


def test_more_values_and_directions_than_images_still_make_a_distance():
    values = torch.randn(20, 2000, generator=torch.Generator().manual_seed(0))
    fitted = gaussian(values)
    assert torch.isfinite(fitted(values)).all()
    assert fitted(values + 5).min() > fitted(values).max()

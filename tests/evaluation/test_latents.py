from __future__ import annotations

import numpy as np
import pytest
import torch

from vaeguard.evaluation.latents import STEPS, TRAVERSED, latent_units
from vaeguard.models.graph import InferenceGraph
from vaeguard.models.objective import nearest_kl
from vaeguard.models.vae import VAE
from vaeguard.settings.model import ModelSpec


def graph_of(shape=(1, 8, 8), **settings) -> InferenceGraph:
    torch.manual_seed(0)
    spec = ModelSpec(kind="mlp", hidden=(32,), latent=12, pseudo_classes=0, **settings).resolved(
        shape, ("a", "b"), images=100
    )
    return InferenceGraph(VAE(spec)).eval()


def images_of(count: int = 50) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize("prior", ["standard", "per-class"])
def test_the_rates_of_the_units_add_up_to_the_rate(prior):
    graph, images = graph_of(prior=prior), images_of()
    found = latent_units(graph, images)
    with torch.no_grad():
        whole = nearest_kl(graph.vae, graph.vae.posterior(torch.from_numpy(images).float() / 255))
    assert found.rate.sum() == pytest.approx(whole.mean().item(), rel=1e-5)
    assert found.rate[found.traversed].tolist() == sorted(found.rate.tolist(), reverse=True)[:TRAVERSED]


def test_a_traversal_passes_through_the_mean_image_and_moves_one_unit():
    graph = graph_of()
    with torch.no_grad():
        graph.vae.posterior_mean.weight[3] = 0  # unit 3 says the same of every image
        graph.vae.posterior_mean.bias[3] = 0
    found = latent_units(graph, images_of())
    assert found.traversals.shape == (TRAVERSED, len(STEPS), 1, 8, 8)
    middle = found.traversals[:, STEPS.index(0.0)]
    assert (middle == middle[0]).all()
    assert not found.active[3]
    assert found.variance[3] == 0
    for unit, strip in zip(found.traversed.tolist(), found.traversals, strict=True):
        assert (strip == strip[0]).all() == (unit == 3)

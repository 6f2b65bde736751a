import math

import pytest
import torch
import torch.nn.functional as F

from vaeguard.models.likelihoods import Gaussian
from vaeguard.models.objective import Losses, distortion, gaussian_kl, losses, nearest_kl, objective
from vaeguard.models.vae import VAE, Posterior
from vaeguard.settings.model import PSEUDO_HEADS, ModelSpec
from vaeguard.settings.training import TrainSpec

CLASSES = ("a", "b", "c")


def small_vae(**settings):
    torch.manual_seed(0)
    spec = ModelSpec(**{"kind": "mlp", "hidden": (16,), "latent": 3, "pseudo_classes": 0} | settings)
    return VAE(spec.resolved((1, 6, 5), CLASSES, images=600))


def random_posterior(n=4, latent=3):
    torch.manual_seed(1)
    return Posterior(torch.randn(n, latent, dtype=torch.double), torch.randn(n, latent, dtype=torch.double))


def test_closed_form_kl_equals_monte_carlo():
    posterior, prior_mean = random_posterior(), torch.tensor([0.5, -1.0, 2.0], dtype=torch.double)
    sigma = (0.5 * posterior.logvar).exp()
    q = torch.distributions.Normal(posterior.mean, sigma)
    p = torch.distributions.Normal(prior_mean, torch.ones(3, dtype=torch.double))
    z = q.sample((200_000,))
    estimate = (q.log_prob(z) - p.log_prob(z)).mean(0)
    torch.testing.assert_close(gaussian_kl(posterior, prior_mean), estimate, atol=0.03, rtol=0.01)


def test_gradient_of_the_kl_at_the_mean_is_the_mean():
    posterior = random_posterior()
    mean = posterior.mean.requires_grad_()
    (gradient,) = torch.autograd.grad(gaussian_kl(Posterior(mean, posterior.logvar)).sum(), mean)
    torch.testing.assert_close(gradient, mean.detach())


def test_kl_is_zero_only_at_the_prior():
    zero = torch.zeros(2, 3)
    assert gaussian_kl(Posterior(zero, zero)).abs().max() == 0
    assert gaussian_kl(random_posterior()).min() > 0


def test_mean_elbo_is_at_most_the_importance_weighted_bound():
    vae, image = small_vae(guided=False).double().eval(), torch.rand(7, 1, 6, 5, dtype=torch.double)
    with torch.no_grad():
        posterior = vae.posterior(image)
        noise = torch.randn(64, 7, 3, dtype=torch.double)
        z = posterior.mean + (0.5 * posterior.logvar).exp() * noise
        log_q = torch.distributions.Normal(posterior.mean, (0.5 * posterior.logvar).exp()).log_prob(z).sum(2)
        log_p = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(2)
        log_x = torch.stack([-distortion(vae.likelihood(one), image) for one in z])
        weights = log_x + log_p - log_q
    elbo, bound = weights.mean(0), weights.logsumexp(0) - torch.tensor(64.0).log()
    assert (elbo <= bound + 1e-9).all()


def test_elbo_is_the_likelihood_minus_the_gap_to_the_true_posterior():
    """For x | z ~ N(w z, s²) all is known: E_q log p(x|z) − KL(q ‖ p(z)) = log p(x) − KL(q ‖ p(z|x))."""
    w, s, x, mean, logvar = (torch.tensor(value, dtype=torch.double) for value in (1.7, 0.6, 0.9, 0.2, -1.1))
    expected = Gaussian(w * mean, s).log_prob(x) - 0.5 * w**2 * logvar.exp() / s**2
    rate = gaussian_kl(Posterior(mean.reshape(1, 1), logvar.reshape(1, 1))).sum()
    evidence = torch.distributions.Normal(0.0, (w**2 + s**2).sqrt()).log_prob(x)
    true = torch.distributions.Normal(w * x / (w**2 + s**2), s / (w**2 + s**2).sqrt())
    gap = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (0.5 * logvar).exp()), true)
    torch.testing.assert_close(expected - rate, evidence - gap)


def test_losses_are_per_example():
    vae, image = small_vae(guided=True).double().eval(), torch.rand(6, 1, 6, 5, dtype=torch.double)
    noise, labels = torch.randn(6, 3, dtype=torch.double), torch.tensor([0, 1, 2, 0, 1, 2])
    together = losses(vae, image, image, noise, labels)
    alone = losses(vae, image[2:3], image[2:3], noise[2:3], labels[2:3])
    for name in ("distortion", "kl", "class_loss", "correct"):
        torch.testing.assert_close(getattr(together, name)[2:3], getattr(alone, name))


def test_objective_is_distortion_plus_beta_rate():
    found = Losses(torch.zeros(2, 3), torch.tensor([10.0, 20.0]), torch.tensor([[1.0, 2, 3], [3, 2, 1]]))
    assert objective(found, TrainSpec(), 0.5, pixels=30) == 15 + 0.5 * 6
    assert objective(found, TrainSpec(reduction="mean"), 0.5, pixels=30) == 15 / 30 + 0.5 * 6 / 3


def test_free_bits_spare_a_unit_until_it_costs_more():
    kl = torch.tensor([[0.1, 2.0]], requires_grad=True)
    loss = objective(Losses(torch.zeros(1, 2), torch.zeros(1), kl), TrainSpec(free_bits=0.5), 1.0, pixels=1)
    assert loss.item() == pytest.approx(2.5)
    (gradient,) = torch.autograd.grad(loss, kl)
    assert gradient.tolist() == [[0, 1]]


def test_rate_of_a_prior_per_class_is_the_smallest_over_the_classes():
    vae = small_vae(prior="per-class", guided=False)
    posterior = vae.posterior(torch.rand(5, 1, 6, 5))
    each = torch.stack([gaussian_kl(posterior, mean).sum(1) for mean in vae.prior_means])
    torch.testing.assert_close(nearest_kl(vae, posterior), each.min(0).values)


def test_an_autoencoder_has_no_rate_and_no_noise():
    vae, image = small_vae(autoencoder=True, guided=False), torch.rand(5, 1, 6, 5)
    one = losses(vae, image, image, torch.randn(5, 3), None)
    other = losses(vae, image, image, torch.randn(5, 3), None)
    assert torch.equal(one.distortion, other.distortion)
    assert one.kl.abs().max() == 0


def pseudo_example(clusters=12, n=6, **settings):
    """A model with pseudo-classes, images, noise and pseudo-classes of the images."""
    vae, generator = small_vae(pseudo_classes=clusters, **settings).double().eval(), torch.Generator().manual_seed(2)
    image = torch.rand(n, 1, 6, 5, dtype=torch.double, generator=generator)
    noise = torch.randn(n, 3, dtype=torch.double, generator=generator)
    return vae, image, noise, torch.randint(clusters, (n, PSEUDO_HEADS), generator=generator)


@pytest.mark.parametrize("clusters", [10, 12, 100])
def test_logits_that_say_nothing_cost_the_log_of_the_number_of_pseudo_classes(clusters):
    vae, image, noise, pseudo = pseudo_example(clusters)
    torch.nn.init.zeros_(vae.pseudo_head.weight)
    torch.nn.init.zeros_(vae.pseudo_head.bias)
    found = losses(vae, image, image, noise, None, pseudo)
    torch.testing.assert_close(found.pseudo_loss, torch.full((6,), math.log(clusters), dtype=torch.double))


def test_every_clustering_has_logits_of_its_own():
    vae, image, noise, pseudo = pseudo_example()
    mean = vae.posterior(image).mean
    parts = F.linear(mean, vae.pseudo_head.weight, vae.pseudo_head.bias).chunk(PSEUDO_HEADS, dim=1)
    each = [F.cross_entropy(part, label, reduction="none") for part, label in zip(parts, pseudo.T, strict=True)]
    found = losses(vae, image, image, noise, None, pseudo).pseudo_loss
    torch.testing.assert_close(found, torch.stack(each).mean(0))


def test_the_pseudo_loss_is_per_example_and_without_noise():
    vae, image, noise, pseudo = pseudo_example(guided=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    together = losses(vae, image, image, noise, labels, pseudo)
    alone = losses(vae, image[2:3], image[2:3], 5 * noise[2:3], labels[2:3], pseudo[2:3])
    torch.testing.assert_close(together.pseudo_loss[2:3], alone.pseudo_loss)
    assert not torch.equal(together.distortion[2:3], alone.distortion)


def test_without_pseudo_classes_there_is_no_pseudo_loss():
    vae, image, noise, _ = pseudo_example()
    assert losses(vae, image, image, noise, None).pseudo_loss is None
    assert losses(small_vae().double(), image, image, noise, torch.zeros(6, dtype=torch.long)).pseudo_loss is None


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_class_terms_are_weighed_alike_and_added_to_the_distortion(reduction):
    vae, image, noise, pseudo = pseudo_example(guided=True)
    found = losses(vae, image, image, noise, torch.tensor([0, 1, 2, 0, 1, 2]), pseudo)
    plain = Losses(found.posterior_mean, found.distortion, found.kl)
    spec, pixels = TrainSpec(guide_weight=3.0, reduction=reduction), 30
    added = 3 * (found.class_loss.mean() + found.pseudo_loss.mean()) / (pixels if reduction == "mean" else 1)
    torch.testing.assert_close(objective(found, spec, 0.5, pixels), objective(plain, spec, 0.5, pixels) + added)


@pytest.mark.parametrize("spec", [TrainSpec(), TrainSpec(free_bits=0.5), TrainSpec(reduction="mean")])
def test_weights_do_what_repetition_does(spec):
    generator = torch.Generator().manual_seed(0)
    found = Losses(
        torch.zeros(3, 2), torch.rand(3, generator=generator), torch.rand(3, 2, generator=generator),
        class_loss=torch.rand(3, generator=generator),
    )  # fmt: skip
    rows = torch.tensor([0, 1, 1, 2, 2, 2])
    repeated = Losses(found.posterior_mean[rows], found.distortion[rows], found.kl[rows], found.class_loss[rows])
    weighted = objective(found, spec, 0.5, 7, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(weighted, objective(repeated, spec, 0.5, 7))

"""The classic settings, each against a short reference written here with plain torch functions."""

import math

import pytest
import torch
import torch.nn.functional as F

from vaeguard.models.objective import losses, objective
from vaeguard.models.vae import VAE
from vaeguard.settings.presets import preset

CLASSES = tuple("012345678")


def build(name, shape, n=8):
    chosen = preset(name)
    torch.manual_seed(3)
    vae = VAE(chosen.model.resolved(shape, CLASSES)).double()
    image = torch.rand(n, *shape, dtype=torch.double)
    noise = torch.randn(n, vae.spec.latent, dtype=torch.double)
    return chosen, vae, image, noise


def assert_same_loss_and_gradients(vae, loss, reference):
    parameters = list(vae.parameters())
    ours, theirs = (torch.autograd.grad(value, parameters, retain_graph=True) for value in (loss, reference))
    torch.testing.assert_close(loss, reference, rtol=1e-9, atol=0)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def reference_mlp(weights, image, noise, prior_mean=0.0):
    """Reconstruction and summed KL of an MLP VAE, from its weights in order."""
    pairs = list(zip(weights[::2], weights[1::2], strict=True))
    *encoder, mean_head, logvar_head = pairs
    h = image.flatten(1)
    for w, b in encoder:
        h = torch.relu(h @ w.T + b)
    mu, logvar = h @ mean_head[0].T + mean_head[1], h @ logvar_head[0].T + logvar_head[1]
    kl = -0.5 * torch.sum(1 + logvar - (mu - prior_mean) ** 2 - logvar.exp())
    return mu + torch.exp(logvar / 2) * noise, kl


def decode_mlp(weights, z):
    *hidden, last = list(zip(weights[::2], weights[1::2], strict=True))
    for w, b in hidden:
        z = torch.relu(z @ w.T + b)
    return torch.sigmoid(z @ last[0].T + last[1])


def mlp_weights(vae):
    encoder = [*vae.stages.parameters(), *vae.posterior_mean.parameters(), *vae.posterior_logvar.parameters()]
    return encoder, list(vae.decoder.parameters())


@pytest.mark.parametrize("name", ["mlp-400-400-20", "mlp-128-2"])
def test_bce_presets_equal_the_tutorial(name):
    chosen, vae, image, noise = build(name, (1, 28, 28))
    found = losses(vae, image, image, noise, None)
    loss = objective(found, chosen.training, 1.0, 784)
    encoder, decoder = mlp_weights(vae)
    z, kl = reference_mlp(encoder, image, noise)
    bce = F.binary_cross_entropy(decode_mlp(decoder, z), image.flatten(1), reduction="sum")
    assert_same_loss_and_gradients(vae, loss, (bce + kl) / len(image))


def test_the_mnist_presets_have_the_named_sizes():
    sizes = {
        name: [
            layer.out_features for layer in build(name, (1, 28, 28))[1].modules() if isinstance(layer, torch.nn.Linear)
        ]
        for name in ("mlp-400-400-20", "mlp-128-2", "mlp-400-20-mse")
    }
    assert sizes["mlp-400-400-20"] == [400, 400, 400, 400, 784, 20, 20]
    assert sizes["mlp-128-2"] == [128, 128, 784, 2, 2]
    assert sizes["mlp-400-20-mse"] == [400, 400, 784, 20, 20]


def test_mse_preset_equals_the_tutorial_up_to_the_likelihoods_constant():
    chosen, vae, image, noise = build("mlp-400-20-mse", (1, 28, 28))
    loss = objective(losses(vae, image, image, noise, None), chosen.training, 1.0, 784)
    encoder, decoder = mlp_weights(vae)
    z, kl = reference_mlp(encoder, image, noise)
    squared = F.mse_loss(decode_mlp(decoder, z), image.flatten(1), reduction="sum")
    constant = 784 * 0.5 * math.log(math.pi)
    assert_same_loss_and_gradients(vae, loss, (squared + kl) / len(image) + constant)


def test_per_class_preset_equals_the_simple_conditional_vae():
    chosen, vae, image, noise = build("mlp-per-class", (1, 28, 28))
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 8, 8])
    loss = objective(losses(vae, image, image, noise, labels), chosen.training, 1.0, 784)
    encoder, decoder = mlp_weights(vae)
    z, kl = reference_mlp(encoder, image, noise, vae.prior_means[labels])
    bce = F.binary_cross_entropy(decode_mlp(decoder, z), image.flatten(1), reduction="sum")
    assert_same_loss_and_gradients(vae, loss, (bce + kl) / len(image))


def reference_conv(p, image, noise):
    """The CIFAR-10 ConvVAE in training mode, from its named parameters."""
    h = image
    for i in range(4):
        h = F.conv2d(h, p[f"stages.{i}.{i == 0:d}.weight"], p[f"stages.{i}.{i == 0:d}.bias"], stride=2, padding=1)
        if i:
            h = F.batch_norm(h, None, None, p[f"stages.{i}.1.weight"], p[f"stages.{i}.1.bias"], training=True)
        h = F.relu(h)
    h = h.flatten(1)
    mu = F.linear(h, p["posterior_mean.weight"], p["posterior_mean.bias"])
    logvar = F.linear(h, p["posterior_logvar.weight"], p["posterior_logvar.bias"])
    z = mu + torch.exp(logvar / 2) * noise
    h = F.linear(z, p["decoder.0.weight"], p["decoder.0.bias"]).view(-1, 512, 2, 2)
    for i in (2, 3, 4):
        h = F.conv_transpose2d(h, p[f"decoder.{i}.0.weight"], p[f"decoder.{i}.0.bias"], stride=2, padding=1)
        h = F.relu(F.batch_norm(h, None, None, p[f"decoder.{i}.1.weight"], p[f"decoder.{i}.1.bias"], training=True))
    h = F.conv_transpose2d(h, p["decoder.5.weight"], p["decoder.5.bias"], stride=2, padding=1)
    return torch.sigmoid(h), mu, logvar


@pytest.mark.parametrize("name", ["conv-128", "conv-128-mean"])
@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.nightly
def test_conv_presets_equal_the_cifar_reference(name, beta):
    chosen, vae, image, noise = build(name, (3, 32, 32), n=4)
    loss = objective(losses(vae, image, image, noise, None), chosen.training, beta, 3072)
    restored, mu, logvar = reference_conv(dict(vae.named_parameters()), image, noise)
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp())
    constant = 0.5 * math.log(math.pi)
    if name.endswith("mean"):
        reference = F.mse_loss(restored, image) + constant + beta * kl.mean()
    else:
        squared = F.mse_loss(restored, image, reduction="sum")
        reference = (squared + beta * kl.sum()) / len(image) + 3072 * constant
    assert_same_loss_and_gradients(vae, loss, reference)


def test_conv_preset_has_the_named_channels():
    vae = build("conv-128", (3, 32, 32))[1]
    convolutions = [m for m in vae.stages.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 128, 256, 512]
    assert {(m.kernel_size, m.stride, m.padding) for m in convolutions} == {((4, 4), (2, 2), (1, 1))}
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in vae.stages.modules()) == 3
    assert vae.posterior_mean.out_features == 128


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (4, 1, 1), (1, 17, 50), (2, 33, 16), (1, 8, 8)])
@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian-pixel"])
def test_any_image_shape_goes_through(shape, kind, likelihood):
    spec = preset("mlp-128-2").model.__class__(kind=kind, hidden=(8,), width=2, latent=3, likelihood=likelihood)
    vae = VAE(spec.resolved(shape, ())).eval()
    image = torch.rand(2, *shape)
    posterior = vae.posterior(image)
    assert posterior.mean.shape == posterior.logvar.shape == (2, 3)
    mean = vae.likelihood(posterior.mean).mean
    assert mean.shape == image.shape
    assert 0 <= mean.min() <= mean.max() <= 1

"""The network that tells how strong the noise is."""

import numpy as np
import pytest
import torch

from vaeguard import RefusedError
from vaeguard.engines.sessions import Session
from vaeguard.restoration.denoiser import Denoiser
from vaeguard.restoration.networks.direct import ColourDenoiser, DirectDenoiser
from vaeguard.restoration.networks.estimator import NoiseEstimator, estimator_loss
from vaeguard.restoration.networks.exporting import DenoiserNetworks, denoiser_bytes, read_estimator
from vaeguard.restoration.noise import FLOOR


def file_of(planes, estimator=None):
    torch.manual_seed(1)
    grey = DirectDenoiser(6, 2)
    net = grey if planes == 1 else ColourDenoiser(grey)
    content = denoiser_bytes(DenoiserNetworks(direct=net, kind="photo", interval=2.0, card={}, estimator=estimator))
    return content, Denoiser(Session(content, "net", "cpu", 1))


@pytest.fixture(scope="module", params=[1, pytest.param(3, marks=pytest.mark.nightly)])
def estimator(request):
    torch.manual_seed(0)
    return NoiseEstimator(request.param).eval()


@pytest.mark.slow
def test_the_file_says_what_the_network_says(estimator, tmp_path):
    planes = estimator.planes
    content, made = file_of(planes, estimator)
    image = np.random.default_rng(0).random((planes, 67, 133), np.float32)
    with torch.no_grad():
        expected = estimator(torch.from_numpy(image[None, :, :64, :128]))
    for said, wanted in zip(made.estimate(image), expected, strict=True):
        assert said.shape == (1 if planes == 1 else 2, 8, 16)
        np.testing.assert_allclose(said, wanted[0].numpy(), atol=1e-4)
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    back = read_estimator(path)
    for name, value in estimator.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value)


@pytest.mark.slow
def test_a_file_without_one_says_so(tmp_path):
    content, made = file_of(1)
    assert not made.estimates
    with pytest.raises(RefusedError, match="cannot estimate noise"):
        made.estimate(np.zeros((1, 64, 64), np.float32))
    (tmp_path / "net.onnx").write_bytes(content)
    assert read_estimator(tmp_path / "net.onnx") is None


def test_training_and_use_agree(estimator):
    image = torch.rand(2, estimator.planes, 64, 64)
    with torch.no_grad():
        used = estimator(image)[0]
        trained = estimator.train()(image)[0]
    torch.testing.assert_close(used, trained)
    estimator.eval()


def test_a_constant_image_has_the_same_energies_whatever_its_brightness(estimator):
    dark, bright = (
        estimator._features(torch.full((1, estimator.planes, 96, 96), level))[:, estimator.planes + 2 :, 4:-4, 4:-4]
        for level in (0.2, 0.7)
    )
    torch.testing.assert_close(dark, bright, atol=1e-3, rtol=0)


def test_the_loss_is_least_where_it_is_right(estimator):
    image = torch.rand(2, estimator.planes, 64, 64)
    with torch.no_grad():
        right = estimator(image)[0].exp() - FLOOR
        assert estimator_loss(estimator, image, right) < estimator_loss(estimator, image, 1.5 * right + 1)

from itertools import pairwise

import pytest
import torch

from vaeguard.models.shares import Draws
from vaeguard.settings.training import TrainSpec
from vaeguard.training.augment import add_noise, augment


def generator():
    return torch.Generator().manual_seed(0)


def draws():
    return Draws(generator())


def smooth_images(n=64, size=17):
    """Blobs near the middle, so that little leaves the frame."""
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    centre = 0.2 * torch.randn(n, 2, 1, 1, generator=generator())
    return torch.exp(-8 * ((x - centre[:, 0]) ** 2 + 2 * (y - centre[:, 1]) ** 2))[:, None]


def ramps(n=64, size=24):
    """Images whose two channels are the position across and down, from 0 to 1."""
    axis = (torch.arange(size) + 0.5) / size
    return torch.stack([axis.expand(size, size), axis[:, None].expand(size, size)]).expand(n, -1, -1, -1)


@pytest.mark.parametrize("spec", [TrainSpec(), TrainSpec(augment_warp=0.0)])
def test_nothing_asked_for_changes_nothing(spec):
    image, drawn = smooth_images(), draws()
    assert augment(image, spec, drawn) is image
    assert torch.equal(drawn.generator.get_state(), generator().get_state())


def test_a_shift_moves_whole_pixels_and_by_no_more_than_asked():
    image = torch.zeros(500, 1, 15, 15)
    image[:, :, 7, 7] = 1
    moved = augment(image, TrainSpec(augment_shift=2), draws())
    where = (moved[:, 0] > 0.999).nonzero()
    assert len(where) == 500
    steps = where[:, 1:] - 7
    assert {tuple(step) for step in steps.tolist()} == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}


def test_a_rotation_keeps_the_middle_and_turns_by_no_more_than_asked():
    image = torch.zeros(300, 1, 41, 41)
    image[:, :, 20, 20:38] = 1
    turned = augment(image, TrainSpec(augment_rotate=20.0), draws())[:, 0]
    axis = torch.arange(41.0) - 20
    mass = turned.sum((1, 2))
    y = (turned * axis[:, None]).sum((1, 2)) / mass
    x = (turned * axis[None, :]).sum((1, 2)) / mass
    angle = torch.rad2deg(torch.atan2(y, x))
    assert angle.abs().max() <= 20.5
    assert angle.max() > 15
    assert angle.min() < -15


def test_a_rotation_keeps_the_shape_of_an_image_that_is_not_square():
    image = torch.zeros(1, 1, 20, 60)
    image[:, :, 10, 20:40] = 1
    turned = augment(image.expand(200, -1, -1, -1), TrainSpec(augment_rotate=30.0), draws())[:, 0]
    lengths = ((turned > 0.3).float().amax(1).sum(1) ** 2 + (turned > 0.3).float().amax(2).sum(1) ** 2).sqrt()
    assert lengths.min() > 17
    assert lengths.max() < 26


def test_about_half_of_the_images_are_mirrored():
    image = torch.rand(1000, 2, 3, 4, generator=generator())
    flipped = augment(image, TrainSpec(augment_flip=True), draws())
    mirrored = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(image, flipped, strict=True)])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(image, flipped, strict=True)])
    assert (mirrored ^ same).all()
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_noise_has_the_sigma_asked_for_and_keeps_the_range():
    image = torch.full((200, 1, 10, 10), 0.5)
    assert (add_noise(image, 0.05, draws()) - image).std().item() == pytest.approx(0.05, rel=0.03)
    rough = augment(image, TrainSpec(augment_noise=2.0), draws())
    assert rough.min() == 0
    assert rough.max() == 1


def test_the_same_generator_gives_the_same_images():
    spec = TrainSpec(augment_warp=1.0, augment_shift=1, augment_rotate=5.0, augment_noise=0.1, augment_flip=True)
    image = smooth_images()
    assert torch.equal(augment(image, spec, draws()), augment(image, spec, draws()))


@pytest.mark.parametrize("shape", [(40, 1, 17, 17), (40, 3, 20, 9), (40, 1, 1, 5)])
def test_a_warp_keeps_shape_and_range(shape):
    image = torch.rand(shape, generator=generator())
    warped = augment(image, TrainSpec(augment_warp=4.0), draws())
    assert warped.shape == image.shape
    assert 0 <= warped.min() <= warped.max() <= 1
    flat = torch.full(shape, 0.3)
    torch.testing.assert_close(augment(flat, TrainSpec(augment_warp=4.0), draws()), flat)


@pytest.mark.parametrize("left_out", [("BEND",), ("DEGREES", "SCALE", "SHEAR", "SHIFT")])
def test_a_warp_deforms_every_image_in_its_own_way(monkeypatch, left_out):
    for part in left_out:
        monkeypatch.setattr(f"vaeguard.training.augment.WARP_{part}", 0.0)
    image = smooth_images(1).expand(20, -1, -1, -1)
    warped = augment(image, TrainSpec(augment_warp=1.0), draws()).flatten(1)
    apart = torch.cdist(warped, warped) + torch.eye(20)
    assert apart.min() > 1e-3
    assert (warped - image.flatten(1)).abs().amax(1).min() > 1e-3


def test_a_warp_moves_further_the_stronger_it_is():
    image = ramps()

    def moved(strength):
        warped = augment(image, TrainSpec(augment_warp=strength), draws())
        return (warped - image).square().sum(1).sqrt()[:, 6:-6, 6:-6].mean().item()

    distances = [moved(strength) for strength in (0.125, 0.25, 0.5, 1.0)]
    for less, more in pairwise(distances):
        assert more == pytest.approx(2 * less, rel=0.1)
    assert distances[-1] < 0.1


def test_a_warp_is_smooth():
    warped = augment(ramps(), TrainSpec(augment_warp=1.0), draws())
    step = 1 / ramps().shape[-1]
    across = warped[:, 0, 6:-6, 6:-6].diff(dim=2) / step
    assert across.min() > 0.3
    assert across.max() < 1.7

"""Checkpoints of a small network."""

import pytest
import torch

from vaeguard import UsageError
from vaeguard.training import checkpoint as checkpoints
from vaeguard.training.checkpoint import Checkpoint
from vaeguard.training.loop import State, copy_weights

SETTINGS = {"training": {"epochs": 3, "sizes": (4, 2)}}


def state(seed):
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(net.parameters(), 0.1)
    return State(net, optimizer, copy_weights(net), {"order": torch.Generator().manual_seed(seed)})


def step(trained):
    values = torch.rand(5, 3, generator=trained.generators["order"]) + torch.rand(5, 3)
    trained.optimizer.zero_grad()
    trained.net(values).square().mean().backward()
    trained.optimizer.step()
    return copy_weights(trained.net)


def assert_same(one, two):
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_training_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", SETTINGS)
    first, other = state(0), state(1)
    checkpoint.read(first)  # there is none yet, and nothing changes
    first.weights = step(first)
    first.history, first.best_loss, first.best_epoch = [{"loss": 0.1}], 0.1, 0
    first.restored = {1: torch.zeros(1, 1, 2, 2, dtype=torch.uint8)}
    checkpoint.write(first)
    expected = step(first)
    checkpoint.read(other)
    assert_same(other.weights, first.weights)
    assert (other.history, other.best_loss, other.best_epoch) == (first.history, 0.1, 0)
    assert torch.equal(other.restored[1], first.restored[1])
    assert_same(step(other), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training": {"epochs": 4, "sizes": (4, 2)}}, r"epochs \(was 3, now 4\);"),
        ({**SETTINGS, "data": {"fingerprint": "a"}}, r"fingerprint \(was None, now 'a'\);"),
        ({**SETTINGS, "denoiser": {}}, "it is a checkpoint; choose a different folder"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, settings, message):
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint(path, SETTINGS).write(state(0))
    with pytest.raises(UsageError, match=message):
        Checkpoint(path, settings).read(state(0))


def test_a_checkpoint_of_another_format_is_refused(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", SETTINGS)
    checkpoint.write(state(0))
    monkeypatch.setattr(checkpoints, "FORMAT", 99)
    with pytest.raises(UsageError, match=r"format \(was 2, now 99\);"):
        checkpoint.read(state(0))

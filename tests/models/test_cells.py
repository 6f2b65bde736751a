import hashlib

import numpy as np
import onnxruntime
import pytest
import torch

import vaeguard
from vaeguard import RefusedError, UsageError, VaeguardError
from vaeguard.models import backbones
from vaeguard.models.backbones import LITE0
from vaeguard.models.cells import Cells
from vaeguard.models.pretrained import backbone
from vaeguard.models.whiten import Whiten


def test_whitened_cells_have_no_correlation():
    draw = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=draw)).Q
    cells = torch.randn(5000, 6, generator=draw) * torch.linspace(1, 5, 6) @ turn + 3
    whiten = Whiten(6)
    whiten.fit(cells)
    values = whiten(cells)
    assert values.mean(0).abs().max() < 1e-4
    assert torch.allclose(values.T @ values / len(values), torch.eye(6), atol=0.1)


def test_a_backbone_reads_the_published_weights_only(monkeypatch, tmp_path):
    network = backbone(LITE0).eval()
    before = network.stem[0].conv.weight.clone()
    network.read_pretrained()
    assert not torch.equal(before, network.stem[0].conv.weight)
    monkeypatch.setattr(backbones, "LITE0_SHA256", "0" * 64)
    with pytest.raises(RefusedError, match="not contain the published weights"):
        network.read_pretrained()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match="not on this machine"):
        backbone("resnet18").read_pretrained()


def test_weights_are_fetched_once_and_their_digest_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    network = backbone("shufflenet_v2_x0_5")
    network.url = (tmp_path / "none-12345678.pth").as_uri()
    with pytest.raises(VaeguardError, match="cannot be downloaded from file:.*; try again, or save the file in"):
        network.read_pretrained(download=True)
    torch.save(network.network.state_dict(), tmp_path / "weights")
    digest = hashlib.sha256((tmp_path / "weights").read_bytes()).hexdigest()
    path = (tmp_path / "weights").rename(tmp_path / f"net-{digest[:8]}.pth")
    network.url = path.as_uri()
    network.read_pretrained(download=True)
    path.unlink()
    network.read_pretrained()
    assert network.sha256 == digest


@pytest.mark.parametrize(
    ("name", "message"), [("resnet19", "such as resnet18"), ("vit_b_16", "no feature maps at 1/4, 1/8 or 1/16")]
)
def test_a_network_without_fine_maps_is_refused(name, message):
    with pytest.raises(UsageError, match=message):
        backbone(name)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 70, 45)])
def test_every_place_of_an_image_has_a_cell(shape):
    cells = Cells(shape, backbone(LITE0)).eval()
    image = torch.rand(2, *shape)
    seen, undo = cells.see(image)
    rows, columns = cells.grid
    assert (rows, columns) == (-(-shape[1] // 8), -(-shape[2] // 8))
    assert seen.shape == (2 * rows * columns, 1, 1, 256)
    assert undo is None
    values = torch.zeros(2, rows, columns)
    values[1, 3, 2] = 5.0
    assert cells.strongest(values.flatten()).tolist() == [0.0, 1.0]
    heat = cells.heatmap(values.flatten())
    assert heat.shape == (2, *shape[1:])
    assert not heat[0].any()
    assert abs(divmod(int(heat[1].argmax()), shape[2])[0] - 28) <= 4


@pytest.mark.parametrize(
    ("shape", "whole", "margins"),
    [((1, 96, 64), True, (1, 1)), ((1, 96, 56), True, (1, 0)), ((1, 96, 64), False, (0, 0))],
)
def test_the_rim_of_a_whole_image_does_not_decide(shape, whole, margins):
    cells = Cells(shape, backbone(LITE0), whole=whole)
    assert cells.margins == margins
    rows, columns = cells.grid
    rim = torch.zeros(2, rows, columns)
    rim[0, 0, 3] = rim[1, 5, columns - 1] = 5.0
    assert cells.strongest(rim.flatten()).tolist() == [0.0 if margin else 1.0 for margin in margins]
    inside = torch.zeros(1, 1, *shape[1:], dtype=torch.bool)
    inside[..., :8, :] = True
    assert cells.counted(inside).sum() == columns
    assert cells.decides(inside).any() != bool(margins[0])
    counted = torch.ones(1, rows * columns, dtype=torch.bool)
    assert cells.strongest(rim.flatten(), counted).tolist() == cells.strongest(rim.flatten()).tolist()


def textures(count, seed):
    rng = np.random.default_rng(seed)
    plain = 120 + 10 * np.sin(np.arange(64) / 3)
    return (plain + rng.normal(0, 4, (count, 1, 64, 64))).clip(0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::vaeguard.training.loop.TrainingWarning")
def test_a_model_of_features_finds_a_defect_and_is_the_same_from_a_file_and_exported(tmp_path):
    detector = vaeguard.fit(textures(60, 0), features=LITE0, epochs=2, device="cpu", run=tmp_path)
    tested = textures(12, 1)
    tested[6:, :, 30:38, 30:38] = 20
    seen = detector.inspect(tested, pictures=True)
    assert seen.score[6:].min() > seen.score[:6].max()
    assert seen.restored is None
    assert all(abs(at - 34) <= 12 for at in np.unravel_index(seen.heatmap[6].argmax(), (64, 64)))
    read = vaeguard.load(tmp_path).inspect(tested, pictures=True)
    vaeguard.export(detector, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].type == "tensor(uint8)"
    exported = vaeguard.load(tmp_path / "model.onnx").inspect(tested[3:4], pictures=True)
    assert np.array_equal(read.score, seen.score)
    assert np.array_equal(read.heatmap, seen.heatmap)
    assert np.allclose(exported.score, seen.score[3:4], rtol=1e-4)
    assert exported.restored is None

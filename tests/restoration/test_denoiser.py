"""Tiles and the network behind them."""

import numpy as np
import pytest
import torch

from vaeguard import RefusedError
from vaeguard.engines.sessions import Session
from vaeguard.restoration import denoiser
from vaeguard.restoration.denoiser import Denoiser, read_denoiser, shipped_denoiser
from vaeguard.restoration.networks import exporting
from vaeguard.restoration.networks.batches import draw_grain
from vaeguard.restoration.networks.direct import GRID, DirectDenoiser
from vaeguard.restoration.networks.exporting import DenoiserNetworks, denoiser_bytes, read_networks, write_denoiser
from vaeguard.restoration.networks.ladder import LadderVAE
from vaeguard.restoration.noise import grain_of

pytestmark = pytest.mark.slow


def net(seed=0, width=6, depth=4):
    torch.manual_seed(seed)
    made = DirectDenoiser(width, depth)
    for parameter in made.parameters():  # also those that begin at zero
        torch.nn.init.normal_(parameter, std=0.15)
    return made.eval()


def opened(content, threads=1):
    return Denoiser(Session(content, "net", "cpu", threads))


def ladder(seed=0):
    torch.manual_seed(seed)
    made = LadderVAE(6, (2, 3, 4))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return made.eval()


def bytes_of(**more):
    return denoiser_bytes(DenoiserNetworks(direct=net(), kind="photo", interval=2.0, card={}, **more))


@pytest.fixture(scope="module")
def content():
    return bytes_of()


@pytest.fixture(scope="module")
def both():
    return bytes_of(ladder=ladder())


@pytest.fixture
def plane():
    return np.random.default_rng(0).random((203, 331), np.float32)


def test_the_file_says_what_the_network_says(content, plane):
    image = torch.from_numpy(plane[:200, :328].copy())[None, None]
    with torch.no_grad():
        restored, log_variance = net()(image, torch.full((1, 1, 1, 1), 0.1))
    made = opened(content)
    found, spread = made.restore(plane[:200, :328], 0.1, spread=True)
    np.testing.assert_allclose(found, restored[0, 0].numpy(), atol=1e-5)
    np.testing.assert_allclose(spread, 2.0 * torch.exp(0.5 * log_variance)[0, 0].numpy(), rtol=1e-4)


def test_a_file_appears_only_if_it_says_what_the_network_says(content, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "denoiser_bytes", lambda _: content)
    other = DenoiserNetworks(direct=net(seed=1), kind="photo", interval=2.0, card={})
    with pytest.raises(RefusedError, match=r"restored has a relative error of .*update torch"):
        write_denoiser(other, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
    parity = write_denoiser(DenoiserNetworks(direct=net(), kind="photo", interval=2.0, card={}), tmp_path / "a.onnx")
    assert set(parity.errors) == {"restored", "spread"}
    assert (tmp_path / "a.onnx").read_bytes() == content


@pytest.mark.parametrize("tile", [64, 100, 168])
@pytest.mark.parametrize("threads", [1, 2])
def test_tiles_give_the_bits_of_the_whole(content, plane, tile, threads):
    made = opened(content, threads)
    whole, spread = made.restore(plane, 0.1, spread=True)
    made._tile = tile
    tiled, tiled_spread = made.restore(plane, 0.1, spread=True)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-6)
    np.testing.assert_allclose(tiled_spread, spread, rtol=1e-5)


def test_nothing_beyond_the_halo_matters():
    made = net()
    image = torch.rand(1, 1, 160, 160, requires_grad=True)
    made(image, torch.full((1, 1, 1, 1), 0.1))[0][0, 0, 80, 80].backward()
    rows, columns = np.nonzero(image.grad[0, 0].numpy())
    assert max(np.abs(rows - 80).max(), np.abs(columns - 80).max()) <= made.halo
    assert made.halo % GRID == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (4, 4), (57, 2)])
def test_planes_of_any_size(content, shape):
    restored, spread = opened(content).restore(np.full(shape, 0.5, np.float32), 0.0)
    assert restored.shape == shape
    assert spread is None


def test_where_memory_runs_out_tiles_shrink(content, plane, monkeypatch):
    made = opened(content)
    whole, _ = made.restore(plane, 0.1)
    run = made._direct.run
    shapes = []

    def with_little(wanted, feeds, expected):
        shapes.append(feeds["image"].shape[2:])
        if max(shapes[-1]) > room:
            raise MemoryError
        return run(wanted, feeds, expected)

    monkeypatch.setattr(made._direct, "run", with_little)
    room = 260
    np.testing.assert_allclose(made.restore(plane, 0.1)[0], whole, atol=1e-6)
    assert max(shapes[-1]) <= 260
    room = 10
    with pytest.raises(MemoryError, match="not enough memory on cpu for a tile of"):
        made.restore(plane, 0.1)
    assert made._tile > denoiser.SMALLEST_TILE // 2


def test_a_damaged_or_other_file_is_refused(content, tmp_path):
    (tmp_path / "a.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RefusedError, match="a.onnx"):
        read_denoiser(tmp_path / "a.onnx")
    import vaeguard

    (tmp_path / "b.onnx").write_bytes(content)
    assert read_denoiser(tmp_path / "b.onnx").kind == "photo"
    with pytest.raises(RefusedError, match="cleans scans"):
        vaeguard.load(tmp_path / "b.onnx")


@pytest.mark.parametrize("kind", ["photo", "document"])
def test_the_shipped_weights_are_small_and_say_where_they_come_from(kind):
    made = shipped_denoiser(kind, "cpu", 1)
    assert made.kind == kind
    assert (denoiser.SHIPPED / f"{kind}.onnx").stat().st_size < 3_000_000
    assert made.card["recipe"]


@pytest.mark.parametrize("sigma", [10, 25, 50])
def test_the_shipped_photo_denoiser_removes_most_of_the_noise(sigma):
    rng = np.random.default_rng(sigma)
    y, x = np.mgrid[:160, :160] / np.float32(160)
    clean = (0.5 + 0.3 * np.sin(8 * x) * np.cos(5 * y) + 0.1 * (x > 0.5)).astype(np.float32)
    noisy = clean + np.float32(sigma / 255) * rng.standard_normal(clean.shape, np.float32)
    restored, spread = shipped_denoiser("photo", "cpu", 1).restore(noisy, sigma / 255, spread=True)
    assert np.square(restored - clean).mean() < 0.06 * np.square(noisy - clean).mean()
    assert spread.shape == clean.shape


@pytest.mark.nightly
def test_a_ladder_beside_it_changes_no_direct_pass(content, both, plane):
    alone, beside = opened(content), opened(both)
    plane = plane[:200, :328]  # the ladder wants multiples of 8
    np.testing.assert_allclose(beside.restore(plane, 0.1)[0], alone.restore(plane, 0.1)[0], atol=1e-6)


@pytest.mark.parametrize(("start", "stop"), [(0, 64), (64, 128), (128, 203), (196, 203)])
def test_strips_give_the_bits_of_the_whole(content, plane, start, stop):
    made = opened(content)
    whole, spread = made.restore(plane, 0.1, spread=True)
    halo = made.halo()
    first, last = max(0, start - halo), min(len(plane), stop + halo)
    context = start - first, last - stop
    strip, of_strip = made.restore_rows(plane[first:last], 0.1, spread=True, start=start, context=context)
    np.testing.assert_allclose(strip, whole[start:stop], rtol=0, atol=1e-6)
    np.testing.assert_allclose(of_strip, spread[start:stop], rtol=1e-5)


@pytest.mark.parametrize("tile", [232, 336])
def test_samples_are_the_same_in_tiles_and_strips(both, plane, tile):
    made = opened(both)
    whole, spread = made.restore(plane, 0.1, samples=2, spread=True)
    again, _ = made.restore(plane, 0.1, samples=2)
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_allclose(spread, made.restore(plane, 0.1, spread=True)[1], rtol=1e-5)
    made._tile = tile
    np.testing.assert_allclose(made.restore(plane, 0.1, samples=2)[0], whole, atol=1e-5)
    start = made.halo(2) + 24
    lower, of_lower = made.restore_rows(plane[24:], 0.1, samples=2, spread=True, start=start, context=(start - 24, 0))
    np.testing.assert_allclose(lower, whole[start:], atol=1e-5)
    np.testing.assert_allclose(of_lower, spread[start:], rtol=1e-5)
    assert np.abs(whole - made.restore(plane, 0.1, samples=1)[0]).max() > 1e-3


def test_the_file_draws_what_the_ladder_draws(both):
    from vaeguard.restoration.denoiser import _LatentNoise

    made = opened(both)
    rows = np.random.default_rng(1).random((256, 264), np.float32)
    latent_noise = _LatentNoise(0, 0, rows.shape, (2, 3, 4)).within(0, 0, *rows.shape)
    drawn = [torch.from_numpy(values) for values in latent_noise.values()]
    with torch.no_grad():
        expected = ladder()(torch.from_numpy(rows)[None, None], torch.full((1, 1, 1, 1), 0.1), drawn).restored
    found, _ = made.restore_rows(rows, 0.1, samples=1)
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-5)
    values = np.concatenate([values.ravel() for values in latent_noise.values()])
    assert abs(values.mean()) < 0.02
    assert values.std() == pytest.approx(1, rel=0.02)


def test_without_a_ladder_there_are_no_samples(content, plane):
    with pytest.raises(RefusedError, match="set `samples` to 0"):
        opened(content).restore(plane, 0.1, samples=4)


def test_the_networks_are_read_back(both, tmp_path):
    (tmp_path / "a.onnx").write_bytes(both)
    for read, made in zip(read_networks(tmp_path / "a.onnx"), (net(), ladder()), strict=True):
        for name, weights in made.state_dict().items():
            torch.testing.assert_close(read.state_dict()[name], weights, rtol=0, atol=0)


def test_an_adapted_denoiser_measures_noise_by_its_own_grain(content):
    generator = torch.Generator().manual_seed(0)
    grain = 0.1 * draw_grain(torch.Size((1, 1, 300, 300)), 0.8, generator)[0, 0].numpy()
    plane = 0.5 + grain
    own = opened(bytes_of(grain=grain_of([plane])))
    assert own.noise_of(plane) == pytest.approx(0.1, rel=0.1)
    assert opened(content).noise_of(plane) < 0.05

"""The restoration of single photographs."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vaeguard import RefusedError, RestoreSettings
from vaeguard.restoration import photos
from vaeguard.restoration.denoiser import shipped_denoiser
from vaeguard.restoration.noise import CELL, FLOOR, NoiseCurve, fitted_curve
from vaeguard.restoration.paper import interpolated
from vaeguard.restoration.photos import restore_photo
from vaeguard.restoration.reasons import CLEAN, IN_DOUBT, NO_STRENGTH, ONLY_DETAIL, TOO_SMALL

SETTINGS = RestoreSettings(kind="photo")


class Stub:
    """A denoiser that changes images by a function of each pixel, and estimates a fixed noise."""

    grid, estimates, kind = 4, True, "photo"

    def __init__(self, planes=3, change=lambda rows, noise: rows, noise=10.0, halo=8):
        self.planes, self.change, self.noise, self.reach = planes, change, noise, halo
        self.levels = 1 if planes == 1 else 2

    def halo(self, samples):
        if samples:
            raise RefusedError("no ladder VAE")
        return self.reach

    def estimate(self, image):
        shape = self.levels, image.shape[1] // CELL, image.shape[2] // CELL
        return np.full(shape, np.log(self.noise + FLOOR), np.float32), np.zeros(shape, np.float32)

    def restore_rows(self, rows, noise, *, spread=False, samples=0, start=0, context=(0, 0)):
        inside = rows[..., context[0] : rows.shape[-2] - context[1], :]
        return self.change(inside.copy(), noise), np.full(inside.shape[-2:], 0.02, np.float32) if spread else None


class Blur(Stub):
    """A denoiser whose pixels depend on their neighbours within the halo."""

    def restore_rows(self, rows, noise, *, spread=False, samples=0, start=0, context=(0, 0)):
        smooth = ndimage.uniform_filter(rows, (1,) * (rows.ndim - 2) + (17, 17), mode="nearest")
        inside = smooth[..., context[0] : rows.shape[-2] - context[1], :]
        return inside, np.full(inside.shape[-2:], 0.02, np.float32) if spread else None


def scene(height=200, width=264, channels=3, seed=0):
    """A picture with smooth parts, edges and texture, 0 to 255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / np.float32(40)
    planes = [120 + 70 * np.sin(x + k) * np.cos(y - k) + 30 * (np.sin(3 * x + y) > 0.5) for k in range(channels)]
    texture = ndimage.gaussian_filter(rng.standard_normal((height, width)), 1.2)
    return np.stack(planes, -1) + (30 * texture * (x > 4))[..., None]


def levels(image, dtype=np.uint8):
    full = np.iinfo(dtype).max
    return np.clip(np.round(image * (full / 255)), 0, full).astype(dtype)


def noisy(clean, sigma, seed=1, dtype=np.uint8):
    return levels(clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape), dtype)


def psnr(clean, estimate):
    return -10 * np.log10(np.square(clean / 255.0 - estimate / 255.0).mean())


def shipped(kind):
    return shipped_denoiser(kind, "cpu", 1)


def restored(pixels, stub, **settings):
    return restore_photo(pixels, lambda _: stub, RestoreSettings(kind="photo", **settings))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("channels", "planes"), [(1, 1), (3, 3), (3, 1), (1, 3)])
def test_the_identity_returns_the_photograph(dtype, channels, planes):
    pixels = noisy(scene(71, 93, channels), 10, dtype=dtype)
    result = restored(pixels, Stub(planes))
    assert result.pixels.dtype == dtype
    np.testing.assert_allclose(result.pixels, pixels, atol=0 if dtype == np.uint8 else 1)
    assert result.noise == pytest.approx(10, rel=1e-3) or (channels, planes) in {(3, 1), (1, 3)}
    assert not result.put_back.any()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_photograph_without_noise_keeps_its_bits(channels):
    pixels = levels(scene(channels=channels))
    result = restored(pixels, Stub(channels, change=lambda rows, noise: rows * 0, noise=0.3))
    assert result.pixels is pixels
    assert result.reason == CLEAN


@pytest.mark.parametrize(("settings", "reason"), [({"strength": 0}, NO_STRENGTH), ({"noise": 0}, CLEAN)])
def test_nothing_is_done_when_nothing_is_asked_for(settings, reason):
    pixels = noisy(scene(), 10)
    result = restored(pixels, Stub(change=lambda rows, noise: rows * 0), **settings)
    assert result.pixels is pixels
    assert result.reason == reason


@pytest.mark.parametrize("shape", [(9, 200), (200, 15), (1, 1), (1, 50), (7, 3)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("noise", [None, 20])
def test_a_photograph_smaller_than_two_cells_keeps_its_bits(shape, channels, noise):
    pixels = noisy(scene(*shape, channels), 10)
    result = restored(pixels, Stub(channels, change=lambda rows, noise: rows * 0), noise=noise)
    assert result.pixels is pixels
    assert result.reason == TOO_SMALL


@pytest.mark.parametrize(("channels", "planes"), [(1, 1), (3, 3), (3, 1)])
def test_the_noise_is_estimated_or_given(channels, planes):
    pixels, levels_of_noise = noisy(scene(64, 96, channels), 10), []

    def noted(rows, noise):
        levels_of_noise.append(noise)
        return rows

    scales = np.linalg.norm(photos.DIFFERENCES, axis=1) if channels != planes else [1]
    assert restored(pixels, Stub(planes, change=noted), noise=25.5).noise == pytest.approx(25.5)
    for noise, scale in zip(levels_of_noise, scales, strict=True):
        np.testing.assert_allclose(noise, 0.1 * scale, rtol=1e-5)
    levels_of_noise.clear()
    restored(pixels, Stub(planes, change=noted, noise=12.75))
    assert len(levels_of_noise) == len(scales)
    for noise in levels_of_noise:
        np.testing.assert_allclose(noise, 0.05, rtol=1e-3)


def test_the_strength_is_a_share_of_the_correction():
    pixels = noisy(scene(), 10)
    stub = Stub(change=lambda rows, noise: rows - 0.02)
    whole, half = (restored(pixels, stub, strength=share).pixels.astype(int) for share in (1, 0.5))
    inside = (pixels > 20) & (pixels < 235)
    np.testing.assert_allclose((pixels - half)[inside], (pixels - whole)[inside] / 2, atol=1)


def test_the_original_is_put_back_where_far_more_than_noise_was_removed():
    pixels = noisy(scene(), 10)

    def wiped(rows, noise):
        rows[..., 64:96, 96:128] = 0
        return rows

    result = restored(pixels, Stub(change=wiped))
    assert result.put_back[2, 3]
    np.testing.assert_array_equal(result.pixels[64:96, 96:128], pixels[64:96, 96:128])
    assert not restored(pixels, Stub(change=wiped), gate=False).put_back.any()


def test_a_photograph_that_is_wholly_put_back_has_a_reason():
    pixels = noisy(scene(), 10)
    result = restored(pixels, Stub(change=lambda rows, noise: 1 - rows))
    assert result.pixels is pixels
    assert result.reason == ONLY_DETAIL


def test_squares_that_are_put_back_have_no_seam():
    pixels = levels(np.full((256, 256, 3), 128.0))

    def changed(rows, noise):
        rows += np.float32(0.03)
        rows[..., 96:128, 96:128] += np.float32(0.5)
        return rows

    result = restored(pixels, Stub(change=changed), noise=8)
    assert result.put_back[3, 3]
    for axis in (0, 1):
        assert np.abs(np.diff(result.pixels.astype(int), axis=axis)).max() <= 1


@pytest.mark.parametrize("size", [(200, 264), (97, 64), (64, 97), (33, 200)])
@pytest.mark.parametrize(("channels", "planes"), [(1, 1), (3, 3), (3, 1)])
def test_strips_have_the_bits_of_the_whole(monkeypatch, channels, planes, size):
    pixels = noisy(scene(*size, channels), 12)
    stub = Stub(planes, change=lambda rows, noise: rows * (1 - np.float32(np.mean(noise))))
    whole = restored(pixels, stub)
    monkeypatch.setattr(photos, "STRIP", 32)
    np.testing.assert_array_equal(restored(pixels, stub).pixels, whole.pixels)


@pytest.mark.parametrize(("channels", "planes"), [(1, 1), (3, 3), (3, 1)])
def test_no_seam_between_strips(monkeypatch, channels, planes):
    pixels = noisy(scene(channels=channels), 12)
    whole = restored(pixels, Blur(planes), gate=False).pixels.astype(int)
    monkeypatch.setattr(photos, "STRIP", 64)
    assert np.abs(restored(pixels, Blur(planes), gate=False).pixels - whole).max() <= 1


def test_harm_in_the_last_strip_is_wholly_put_back(monkeypatch):
    monkeypatch.setattr(photos, "STRIP", 64)
    pixels = levels(np.full((320, 128, 1), 128.0))
    pixels[262:282, 40:60, 0] = np.random.default_rng(1).choice([0, 255], (20, 20))
    result = restored(pixels, Stub(1, change=lambda rows, noise: np.full_like(rows, 0.52)), noise=8)
    np.testing.assert_array_equal(result.pixels[256:288, 32:64], pixels[256:288, 32:64])
    assert (result.pixels[:200] != pixels[:200]).mean() > 0.9
    expected = np.zeros((10, 4), np.bool_)
    expected[8, 1] = True
    np.testing.assert_array_equal(result.put_back, expected)


@pytest.mark.parametrize("size", [(200, 1000), (257, 700), (600, 300)])
@pytest.mark.nightly
def test_bands_represent_a_large_photograph(monkeypatch, size):
    pixels = noisy(scene(*size), 12)
    whole = restore_photo(pixels, shipped, SETTINGS)
    monkeypatch.setattr(photos, "SAMPLE_PIXELS", 40_000)
    bands = restore_photo(pixels, shipped, SETTINGS)
    assert bands.noise == pytest.approx(whole.noise, rel=0.1)
    assert np.abs(bands.pixels.astype(int) - whole.pixels).mean() < 1


@pytest.mark.parametrize(("kind", "channels"), [("photo", 1), ("colour", 3), ("photo", 3)])
def test_strips_and_tiles_of_shipped_denoisers_equal_the_whole(monkeypatch, kind, channels):
    clean = scene(channels=channels)
    shade = 0.7 + clean.mean(-1, keepdims=True) / 250  # noise as a curve over brightness
    pixels = levels(clean + 10 * shade * np.random.default_rng(0).standard_normal(clean.shape))
    engine = shipped(kind)
    whole = restore_photo(pixels, lambda _: engine, SETTINGS, uncertainty=True)
    monkeypatch.setattr(photos, "STRIP", 64)
    engine._tile = 168
    parts = restore_photo(pixels, lambda _: engine, SETTINGS, uncertainty=True)
    np.testing.assert_allclose(parts.pixels.astype(int), whole.pixels, atol=1)
    assert (parts.pixels != whole.pixels).mean() < 1e-3
    np.testing.assert_allclose(parts.uncertainty.astype(int), whole.uncertainty, atol=1)


def test_each_strip_ticks_and_can_end_the_work(monkeypatch):
    monkeypatch.setattr(photos, "STRIP", 64)
    rows = []
    restore_photo(noisy(scene(), 10), lambda _: Stub(), SETTINGS, tick=rows.append)
    assert rows == [0, 0.32, 0.64, 0.96, 1]

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_photo(noisy(scene(), 10), lambda _: Stub(), SETTINGS, tick=stop)


def test_samples_need_a_ladder():
    with pytest.raises(RefusedError, match="ladder"):
        restored(noisy(scene(), 10), Stub(), samples=2)


@pytest.mark.parametrize("sigma", [8, 15, 25, 50])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.nightly
def test_estimated_noise_is_nearly_as_good_as_given_noise(channels, sigma):
    clean = np.clip(2 * scene(channels=channels) - 110, 0, 255)  # some parts are black or white
    pixels = noisy(clean, sigma)
    blind = restore_photo(pixels, shipped, SETTINGS)
    informed = restore_photo(pixels, shipped, RestoreSettings(kind="photo", noise=sigma))
    assert psnr(clean, blind.pixels) > psnr(clean, informed.pixels) - 0.3
    assert psnr(clean, blind.pixels) > psnr(clean, pixels) + 3
    assert blind.noise == pytest.approx(sigma, rel=0.12)


@pytest.mark.parametrize("wide", [1, 2, 4])
def test_noise_of_colours_is_removed_for_any_width_of_grain(wide):
    rng = np.random.default_rng(0)
    shade = np.linspace(0.3, 0.6, 256)[:, None, None] * np.array([1, 0.9, 0.7])
    clean = np.broadcast_to(255 * shade, (256, 256, 3))
    some = rng.standard_normal((3, 256 // wide, 256 // wide)).astype(np.float32)
    # A JPEG leaves grain in the colours alone, interpolated linearly.
    grain = np.stack([interpolated(plane, wide, 0, 256, 256) for plane in some], 2)
    pixels = levels(clean + 8 * (grain - grain.mean(2, keepdims=True)))
    before, after = (
        float(np.sqrt(np.square(image - clean).mean()))
        for image in (pixels, restore_photo(pixels, shipped, SETTINGS).pixels)
    )
    assert after < 0.55 * before


@pytest.mark.parametrize("quality", [None, 90, 75])
@pytest.mark.parametrize("channels", [1, 3])
def test_clean_photographs_and_jpegs_keep_their_bits(channels, quality):
    pixels = levels(scene(channels=channels))
    if quality:
        file = io.BytesIO()
        Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=quality)
        pixels = np.asarray(Image.open(file)).reshape(pixels.shape)
    assert restore_photo(pixels, shipped, SETTINGS).pixels is pixels


def test_shot_noise_is_a_curve_over_brightness():
    clean = np.tile(np.linspace(10, 245, 512, dtype=np.float32)[None, :, None], (256, 1, 1))
    deviation = np.sqrt(clean)
    pixels = levels(clean + deviation * np.random.default_rng(0).standard_normal(clean.shape))
    curve = photos._Photo(pixels, shipped("photo"), SETTINGS)._estimated_curves()[0]
    deviations = 255 * curve.at(clean[..., 0] / 255)[0]
    np.testing.assert_allclose(deviations[:, 64:-64], deviation[:, 64:-64, 0], rtol=0.35)


def test_the_noise_of_a_colour_follows_from_brightness_and_differences():
    curve = NoiseCurve(np.zeros((2, 8), np.float32), (0.3, 0.6), (0.3, 0.6))
    assert curve.of_each_colour() == pytest.approx(np.sqrt((0.3**2 + 2 * 0.6**2) / 3))
    assert NoiseCurve.constant(0.1, 2).of_each_colour() == pytest.approx(0.1)


def test_cells_without_evidence_do_not_count():
    log_deviation = np.log(np.array([[[20.0, 3.0]]], np.float32) + FLOOR)
    precision = np.array([[[4.0, -4.0]]], np.float32)
    brightness = np.array([[0.3, 0.9]], np.float32)
    curve = fitted_curve([(log_deviation, precision)], [brightness])
    assert 255 * curve.at(np.full((2, 2), 0.3, np.float32))[0] == pytest.approx(20, rel=0.02)
    assert 255 * curve.overall[0] == pytest.approx(20, rel=0.1)


def test_a_photograph_whose_noise_may_be_texture_is_left_in_doubt(monkeypatch):
    """Only a photograph that was judged clean counts as clean."""
    pixels = noisy(scene(96, 128, 1), 10)
    monkeypatch.setattr(photos, "FAINT", {1: 255, 3: 255})
    assert restored(pixels, Stub(1, noise=10)).reason == IN_DOUBT
    assert restored(pixels, Stub(1, noise=1)).reason == CLEAN

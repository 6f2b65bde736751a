"""One page at a time."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from vaeguard import DenoiseOutputs, DenoiserSpec, RestoreSettings, UsageError, restore_page, shipped_denoiser
from vaeguard.restoration import page as restoration
from vaeguard.restoration.degrade import stain
from vaeguard.restoration.noise import photo_noise, print_noise
from vaeguard.restoration.paper import interpolated


class Stub:
    """A denoiser that changes planes by a function of each pixel."""

    grid, kind = 4, "document"

    def __init__(self, change=lambda rows, noise: rows):
        self.change, self.seen = change, []

    def noise_of(self, plane):
        return photo_noise(plane) if self.kind == "photo" else print_noise(plane)

    def halo(self, samples):
        return 8

    def restore(self, plane, noise):
        return self.restore_rows(plane, noise)

    def restore_rows(self, rows, noise, *, spread=False, samples=0, start=0, context=(0, 0)):
        inside = rows[context[0] : len(rows) - context[1]]
        self.seen.append(noise)
        return self.change(inside.copy(), noise), np.full(inside.shape, 0.02, np.float32) if spread else None


def restored(pixels, stub=None, **settings):
    stub = stub or Stub()

    def of_kind(kind):
        stub.kind = kind
        return stub

    return restore_page(pixels, of_kind, RestoreSettings(**settings), dpi=170)


def noisy_picture(shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    full = np.iinfo(dtype).max
    y = np.linspace(0.2, 0.5, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return np.clip(full * (y + 0.1 * rng.standard_normal(shape)), 0, full).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(70, 90), (70, 90, 1), (70, 90, 2), (70, 90, 3), (70, 90, 4)])
def test_the_identity_returns_the_page(dtype, shape):
    page = noisy_picture(shape, dtype)
    found = restored(page, kind="photo", gate=False)
    np.testing.assert_array_equal(found.pixels, page)
    assert found.pixels.dtype == dtype
    assert found.report.change == 0


@pytest.mark.parametrize("strip", [32, 64, 320])
def test_strips_do_not_show(strip, monkeypatch, printed):
    page = (255 * printed(180, 200) * np.float32(0.8)).astype(np.uint8)
    rng = np.random.default_rng(0)
    page = np.clip(page + 6 * rng.standard_normal(page.shape), 0, 255).astype(np.uint8)
    stub = Stub(lambda rows, noise: np.float32(0.5) * rows + np.float32(0.3))
    whole = restored(page, stub).pixels
    monkeypatch.setattr(restoration, "STRIP", strip)
    np.testing.assert_array_equal(restored(page, stub).pixels, whole)


def test_opacity_stays_and_strength_mixes():
    page = noisy_picture((64, 64, 4))
    black = Stub(lambda rows, noise: np.zeros_like(rows) if rows.mean() > 0 else rows)
    grey = noisy_picture((64, 64))
    half = restored(grey, black, kind="photo", strength=0.5, gate=False).pixels
    np.testing.assert_allclose(half, grey / 2, atol=0.51)
    np.testing.assert_array_equal(restored(page, black, kind="photo", gate=False).pixels[..., 3], page[..., 3])
    np.testing.assert_array_equal(restored(grey, black, strength=0).pixels, grey)


def test_documents_and_photographs_are_told_apart(printed):
    rng = np.random.default_rng(0)
    page = printed(320, 400) * (1 - stain((320, 400), rng)) * np.float32(0.9)
    page = np.clip(255 * page + 4 * rng.standard_normal(page.shape), 0, 255).astype(np.uint8)
    assert restored(page).report.kind == "document"
    assert restored(noisy_picture((320, 400))).report.kind == "photo"


@pytest.mark.parametrize(("paper", "expected"), [("white", 255), ("keep", 219), ("as-is", None)])
def test_paper(paper, expected, printed):
    light = np.linspace(0.7, 0.9, 300, dtype=np.float32)
    page = np.round(255 * printed(200, 300) * light).astype(np.uint8)
    white = Stub(lambda rows, noise: np.ones_like(rows))
    found = restored(page, white, kind="document", paper=paper, gate=False).pixels
    if expected:
        np.testing.assert_allclose(found, expected, atol=4)
    else:
        np.testing.assert_allclose(found[:, 20:-20], np.broadcast_to(255 * light, page.shape)[:, 20:-20], atol=8)


def test_the_tint_of_the_paper_stays(printed):
    tint = np.array([0.95, 0.9, 0.75])
    page = np.round(255 * printed(160, 200)[..., None] * tint).astype(np.uint8)
    page = np.clip(page + np.random.default_rng(0).normal(0, 4, page.shape), 0, 255).astype(np.uint8)
    found = restored(page, Stub(lambda rows, noise: np.ones_like(rows)), kind="document", gate=False).pixels
    np.testing.assert_allclose(found.reshape(-1, 3).mean(0), 255 * tint, atol=4)


def test_a_clean_page_is_left_alone(printed):
    page = np.round(255 * printed()).astype(np.uint8)
    found = restored(page, Stub(lambda rows, noise: np.zeros_like(rows)))
    np.testing.assert_array_equal(found.pixels, page)
    assert found.report.kind == "untouched"


def test_ink_that_would_be_lost_or_invented_stays(printed):
    page = printed(320, 400) * np.float32(0.9)
    noisy = np.clip(255 * page + 5 * np.random.default_rng(0).standard_normal(page.shape), 0, 255).astype(np.uint8)

    def erase(rows, noise):
        rows[100:200, 100:200] = 1
        return rows

    def invent(rows, noise):
        rows[rows > 0.85] = 1
        rows[36:56, 104:300] = 0
        return rows

    for change in (erase, invent):
        kept = restored(noisy, Stub(change), kind="document")
        lost = restored(noisy, Stub(change), kind="document", gate=False)
        assert 0 < kept.report.reverted < 0.5
        assert lost.report.reverted == 0
        ink = noisy < 60
        assert (kept.pixels[ink] < 150).mean() > 0.99
        if change is erase:
            assert (lost.pixels[ink] < 150).mean() < 0.97
        assert kept.report.change < lost.report.change


def test_detail_is_not_taken_for_noise():
    page = noisy_picture((128, 128))
    page[40:80, 40:80] = np.random.default_rng(1).choice([0, 255], (40, 40))
    flat = Stub(lambda rows, noise: np.full_like(rows, rows.mean()))
    found = restored(page, flat, kind="photo")
    assert 0 < found.report.reverted < 0.5
    assert np.abs(found.pixels[50:70, 50:70].astype(int) - page[50:70, 50:70]).mean() < 20


def test_the_noise_is_estimated_or_given():
    estimated, given = Stub(), Stub()
    by_itself = restored(noisy_picture((128, 128, 3)), estimated, kind="photo").report.noise
    stated = restored(noisy_picture((128, 128, 3)), given, kind="photo", noise=25.5).report.noise
    np.testing.assert_allclose(estimated.seen[-3:], given.seen, rtol=0.15)
    assert given.seen[0] == pytest.approx(0.1 / 3**0.5, rel=1e-5)
    assert stated == 25.5
    assert by_itself == pytest.approx(25.5, rel=0.1)


@pytest.mark.parametrize("wide", [1, 2, 4])
def test_noise_of_colours_is_cleaned_however_wide_its_grain(wide):
    rng = np.random.default_rng(0)
    y = np.linspace(0.3, 0.6, 256)[:, None, None] * np.array([1, 0.9, 0.7])
    clean = np.broadcast_to(255 * y, (256, 256, 3))
    some = rng.standard_normal((3, 256 // wide, 256 // wide)).astype(np.float32)
    # Of the colours alone and brought to pixels linearly, as JPEG leaves it.
    grain = np.stack([interpolated(each, wide, 0, 256, 256) for each in some], 2)
    noisy = np.round(clean + 8 * (grain - grain.mean(2, keepdims=True))).astype(np.uint8)
    found = restore_page(noisy, shipped_denoiser, RestoreSettings(kind="photo"))
    before, after = (float(np.sqrt(((page - clean) ** 2).mean())) for page in (noisy, found.pixels))
    assert after < 0.55 * before
    untouched = restore_page(np.round(clean).astype(np.uint8), shipped_denoiser, RestoreSettings(kind="photo"))
    assert untouched.report.change < 0.3


@pytest.mark.parametrize("size", [(97, 64), (64, 97), (33, 200)])
def test_colours_come_out_the_same_in_strips(size, monkeypatch):
    page = noisy_picture((*size, 3))
    halve = Stub(lambda rows, noise: np.float32(0.5) * rows + np.float32(0.2))
    whole = restored(page, halve, kind="photo", gate=False).pixels
    monkeypatch.setattr(restoration, "STRIP", 32)
    np.testing.assert_array_equal(restored(page, halve, kind="photo", gate=False).pixels, whole)


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "page"}, {"paper": "black"}, {"strength": 1.5}, {"strength": -0.1}, {"noise": -1}, {"noise": 300}],
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong))}"):
        RestoreSettings(**wrong)


def test_settings_of_another_type_are_refused():
    for of, name, wrong in (
        (RestoreSettings, "strength", "0.5"), (RestoreSettings, "samples", 2.5), (DenoiseOutputs, "jpeg", 90.5),
        (DenoiserSpec, "steps", "many"), (DenoiserSpec, "latent", (1.5, 2, 3)),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=f"setting '{name}' must be "):
            of(**{name: wrong})
    assert DenoiserSpec(latent=[8, 12, 16]).latent == (8, 12, 16)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 3), (33, 31, 3)])
def test_tiny_pages(shape):
    page = noisy_picture(shape)
    assert restored(page, noise=20).pixels.shape == page.shape


def test_grey_stored_as_colour_costs_one_plane_and_stays_grey():
    grey = noisy_picture((64, 64))
    one, three = Stub(lambda rows, noise: 0.5 * rows), Stub(lambda rows, noise: 0.5 * rows)
    found = restored(np.repeat(grey[..., None], 3, 2), three, kind="photo", gate=False).pixels
    assert len(three.seen) == 1
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], restored(grey, one, kind="photo", gate=False).pixels)


class Blur(Stub):
    """A denoiser whose pixels depend on their neighbours, as far as the halo."""

    def restore_rows(self, rows, noise, *, spread=False, samples=0, start=0, context=(0, 0)):
        inside = ndimage.uniform_filter(rows, 17, mode="nearest")[context[0] : len(rows) - context[1]]
        return inside, np.full(inside.shape, 0.02, np.float32) if spread else None


@pytest.mark.parametrize("kind", ["photo", "document"])
def test_no_seam_between_strips(kind, monkeypatch):
    page = noisy_picture((300, 120))
    whole = restored(page, Blur(), kind=kind, gate=False).pixels.astype(int)
    monkeypatch.setattr(restoration, "STRIP", 64)
    assert np.abs(restored(page, Blur(), kind=kind, gate=False).pixels - whole).max() <= 1


def test_a_picture_on_a_page_of_print_goes_back_to_what_it_was(printed):
    page = np.tile(255 * printed(200, 200) * np.float32(0.9), (2, 3)).astype(np.uint8)
    shades = np.linspace(20, 180, 240)[:, None] + 20 * np.sin(np.arange(240) / 5)
    page[80:320, 160:400] = np.clip(shades, 0, 255)
    found = restored(page, Stub(), kind="document")
    np.testing.assert_array_equal(found.pixels[96:300, 170:390], page[96:300, 170:390])
    assert found.report.squares[5][8] == "#"
    assert found.report.squares[0][0] == "."
    lost = restored(page, Stub(), kind="document", gate=False)
    assert lost.report.squares == ()
    assert found.report.lightened < 0.01 < 0.15 < lost.report.lightened
    assert (lost.pixels[96:300, 170:390] != page[96:300, 170:390]).mean() > 0.5


def test_harm_in_the_last_strip_is_put_back_there_whole(monkeypatch):
    monkeypatch.setattr(restoration, "STRIP", 64)
    page = noisy_picture((320, 128))
    page[262:282, 40:60] = np.random.default_rng(1).choice([0, 255], (20, 20))
    found = restored(page, Stub(lambda rows, noise: np.full_like(rows, 0.35)), kind="photo")
    np.testing.assert_array_equal(found.pixels[256:288, 32:64], page[256:288, 32:64])
    assert (found.pixels[:200] != page[:200]).mean() > 0.9
    assert found.report.reverted == pytest.approx(1 / 40)


def test_coloured_ink_is_guarded_like_black_ink(printed):
    page = np.repeat(np.round(230 * printed(320, 400)).astype(np.uint8)[..., None], 3, 2)
    page[..., 0] = 230  # red print
    page = np.clip(page + np.random.default_rng(0).normal(0, 3, page.shape), 0, 255).astype(np.uint8)
    found = restored(page, Stub(lambda rows, noise: np.ones_like(rows)), kind="document")
    assert found.report.reverted > 0.5


def test_a_black_bar_on_a_page_stays_black(printed):
    page = printed(320, 400) * np.float32(0.9)
    page[40:140, 20:380] = 0.08
    page = np.clip(255 * page + 3 * np.random.default_rng(0).standard_normal(page.shape), 0, 255).astype(np.uint8)
    found = restored(page, kind="document", gate=False)
    assert found.pixels[50:130, 40:360].mean() < 80


@pytest.mark.parametrize("dpi", [0.001, 30_000, 1e9])
def test_an_unlikely_resolution_is_not_believed(dpi, printed):
    page = np.round(255 * printed()).astype(np.uint8)
    stub = Stub()
    expected = restore_page(page, lambda _: stub, RestoreSettings(kind="document", noise=5))
    found = restore_page(page, lambda _: stub, RestoreSettings(kind="document", noise=5), dpi=dpi)
    np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_a_wide_flat_page(monkeypatch):
    monkeypatch.setattr(restoration, "SAMPLE_PIXELS", 40_000)
    for shape in ((200, 1000), (257, 700), (600, 300)):
        assert restored(noisy_picture(shape)).pixels.shape == shape


def test_levels_are_those_of_the_page(printed):
    page = printed(320, 400) * np.float32(0.5)
    page = np.clip(255 * page + 6 * np.random.default_rng(0).standard_normal(page.shape), 0, 255).astype(np.uint8)
    found = restore_page(page, lambda _: Stub(), RestoreSettings(kind="document"), dpi=170, uncertainty=True)
    assert found.report.noise == pytest.approx(6, rel=0.4)
    assert found.report.uncertainty == pytest.approx(255 * 0.02 * 0.5, rel=0.1)
    assert found.uncertainty.mean() == pytest.approx(255 * 0.02 * 0.5, abs=0.6)
    white = restored(np.round(255 * printed() * np.float32(0.8)).astype(np.uint8), kind="document", paper="white")
    assert white.report.kind == "document"
    assert np.median(white.pixels) >= 254


def test_thick_dark_things_among_shades_are_no_ink():
    """A bright picture of dark balls with soft rims; the same share of ink in thin lines is a document."""
    rows, columns = np.mgrid[:300, :420]
    balls, lines = np.full((300, 420), 235.0), np.full((300, 420), 235.0)
    for top, left in itertools.product(range(20, 300, 40), range(20, 420, 40)):
        distance = np.hypot(rows - top, columns - left)
        balls = np.minimum(balls, np.interp(distance, [0, 4, 5, 7, 8], [60, 60, 165, 180, 235]))
    for top in range(12, 300, 24):
        for left in range(12, 420, 24):
            ink = (np.abs(rows - top) < 2) & (np.abs(columns - left) < 6)
            rim = (np.abs(rows - top) < 3) & (np.abs(columns - left) < 8)
            lines[rim] = 170
            lines[ink] = 60
    kinds = []
    for picture in (balls, lines):
        divided = picture / 235
        ink, shade = (divided < 0.6).mean(), ((divided >= 0.6) & (divided < 0.85)).mean()
        assert 0.01 < ink < shade < 2 * ink
        kinds.append(restoration.page_kind(picture.astype(np.uint8), 100))
        opacity = np.zeros_like(picture)
        kinds.append(restoration.page_kind(np.stack([picture, opacity], 2).astype(np.uint8), 100))
    assert kinds == ["photo", "photo", "document", "document"]


def test_large_dark_areas_that_are_made_bright_are_told(printed):
    page = np.tile(255 * printed(200, 200) * np.float32(0.9), (2, 3)).astype(np.uint8)
    page[80:320, 160:400] = np.round(page[80:320, 160:400] * 0.55)  # a broad stain, not too dark for paper
    found = restored(page, Stub(), kind="document")
    assert found.report.lightened == pytest.approx(240 * 240 / page.size, rel=0.1)
    assert restored(page, Stub(), kind="document", paper="as-is").report.lightened == 0
    assert restored(page, Stub(), kind="photo").report.lightened == 0

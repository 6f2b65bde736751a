"""The cleaning of pages of print and handwriting, without the loss of a stroke."""

import numpy as np
import pytest
from scipy import ndimage

from vaeguard import RestoreSettings
from vaeguard.restoration import documents, paper
from vaeguard.restoration.denoiser import shipped_denoiser
from vaeguard.restoration.documents import PageView, restore_document
from vaeguard.restoration.networks.degrade import stain
from vaeguard.restoration.noise import print_noise
from vaeguard.restoration.reasons import CLEAN

TINT = np.array([0.95, 0.9, 0.75], np.float32)


class Stub:
    """A denoiser that changes planes by a function of each pixel."""

    def __init__(self, change=lambda rows: rows):
        self.change, self.noises = change, []

    def noise_of(self, plane):
        return print_noise(plane)

    def halo(self, samples):
        return 8

    def restore_rows(self, rows, noise, *, spread=False, samples=0, start=0, context=(0, 0)):
        self.noises.append(noise)
        inside = rows[context[0] : len(rows) - context[1]]
        return self.change(inside.copy()), np.full(inside.shape, 0.02, np.float32)


class Blur(Stub):
    """A denoiser whose pixels depend on their neighbours within the halo."""

    def restore_rows(self, rows, noise, *, spread=False, samples=0, start=0, context=(0, 0)):
        inside = ndimage.uniform_filter(rows, 17, mode="nearest")[context[0] : len(rows) - context[1]]
        return inside, np.full(inside.shape, 0.02, np.float32)


ERASER = Stub(np.ones_like)


def levels(page, noise=0.0, seed=0):
    page = page if page.ndim == 3 else page[..., None]
    page = 255 * page + noise * np.random.default_rng(seed).standard_normal(page.shape)
    return np.clip(np.round(page), 0, 255).astype(np.uint8)


def cleaned(pixels, denoiser=None, **settings):
    return restore_document(PageView.of(pixels), denoiser or Stub(), RestoreSettings(kind="document", **settings))


def contrast(pixels, paper):
    """The darkness of each pixel in its darkest colour, as a share of the paper."""
    return (1 - pixels / (255 * paper)).max(axis=2)


@pytest.mark.parametrize("ink", [(0.1, 0.1, 0.1), (0.85, 0.25, 0.2), (0.3, 0.35, 0.8), (0.35, 0.7, 0.4)])
@pytest.mark.parametrize("strength", [1, 0.4])
def test_no_stroke_is_lost_even_if_the_denoiser_erases_it(printed, ink, strength):
    depth = strength * (1 - printed(320, 400)[..., None]) * (1 - np.array(ink, np.float32))
    light = np.linspace(0.8, 1, 400, dtype=np.float32)[:, None]
    page = levels(TINT * (1 - depth) * light)
    result = cleaned(page, ERASER)
    strokes = printed(320, 400) < 0.3
    tint = np.quantile(result.pixels, 0.9, axis=(0, 1)) / 255
    before, after = contrast(page, TINT * light)[strokes], contrast(result.pixels, tint)[strokes]
    assert (after > 0.8 * before).mean() > 0.98
    assert result.put_back.mean() > 0.5
    assert cleaned(page, ERASER, gate=False).pixels.min() > 150


def test_no_hue_changes(printed):
    ink = np.array([0.75, 0.25, 0.2], np.float32)
    page = levels(TINT * (1 - (1 - printed(320, 400)[..., None]) * (1 - ink)))
    for denoiser in (Stub(), ERASER, Stub(lambda rows: rows**2)):
        result = cleaned(page, denoiser, noise=2).pixels.astype(int)
        strokes = printed(320, 400) < 0.3
        shift = (result[..., :2] - result[..., 2:])[strokes] - (page[..., :2].astype(int) - page[..., 2:])[strokes]
        assert np.abs(shift).mean() < 3


def test_nothing_becomes_darker_than_it_was(printed):
    page = levels(0.9 * printed(320, 400))
    result = cleaned(page, Stub(np.zeros_like), noise=1)
    assert (page.astype(int) - result.pixels).max() < 6


@pytest.mark.parametrize("colour", [(0.15, 0.15, 0.15), (0.85, 0.3, 0.25)])
def test_a_filled_heading_stays_filled(printed, colour):
    page = printed(480, 600)[..., None] * TINT
    page[100:190] = TINT
    for left in (60, 200, 340):
        page[100:190, left : left + 60] = colour
    page = levels(page, noise=2)
    result = cleaned(page, shipped_denoiser("document", "cpu", 1))
    for left in (60, 200, 340):
        part = slice(105, 185), slice(left + 5, left + 55)
        np.testing.assert_allclose(result.pixels[part].mean((0, 1)), page[part].mean((0, 1)), atol=8)


@pytest.mark.parametrize("border", [8, 32])
def test_a_lid_stays_and_does_not_affect_the_page(printed, border):
    page = printed(320, 400) * (1 - stain((320, 400), np.random.default_rng(1))) * np.float32(0.9)
    plain = levels(page, noise=3)
    around = np.pad(plain, ((border, border), (border, border), (0, 0)), constant_values=20)
    denoiser = shipped_denoiser("document", "cpu", 1)
    whole, result = cleaned(plain, denoiser), cleaned(around, denoiser)
    inside = slice(border, border + 320), slice(border, border + 400)
    np.testing.assert_array_equal(result.pixels[inside], whole.pixels)
    outside = np.ones(around.shape[:2], np.bool_)
    outside[inside] = False
    np.testing.assert_array_equal(result.pixels[outside], around[outside])
    assert result.region == (border, border, border + 320, border + 400)
    assert whole.region is None


@pytest.mark.parametrize("strip", [32, 64, 96])
def test_strips_have_the_bits_of_the_whole(strip, printed, monkeypatch):
    page = levels(printed(200, 260)[..., None] * TINT * np.float32(0.9), noise=4)
    smooth = Stub(lambda rows: np.float32(0.5) * rows + np.float32(0.5))
    whole = cleaned(page, smooth)
    monkeypatch.setattr(documents, "STRIP", strip)
    parts = cleaned(page, smooth)
    np.testing.assert_array_equal(parts.pixels, whole.pixels)
    np.testing.assert_array_equal(parts.put_back, whole.put_back)


@pytest.mark.parametrize("gate", [True, False])
def test_no_seam_between_strips(printed, monkeypatch, gate):
    page = levels(printed(300, 120) * np.float32(0.9), noise=4)
    whole = cleaned(page, Blur(), gate=gate).pixels.astype(int)
    monkeypatch.setattr(documents, "STRIP", 64)
    assert np.abs(cleaned(page, Blur(), gate=gate).pixels - whole).max() <= 1


def test_only_squares_that_had_lost_ink_count_as_put_back(printed, monkeypatch):
    page = levels(printed(320, 400) * np.float32(0.9), noise=5)

    def erased(rows):
        lengths.append(len(rows))
        first = 256 - (sum(lengths[:-1]) if sum(lengths) == 320 else 320)
        if first >= 0:  # these rows are in this strip
            rows[first : first + 32, 96:192] = 1
        return rows

    for strip in (640, 64):
        monkeypatch.setattr(documents, "STRIP", strip)
        lengths = []
        result = cleaned(page, Stub(erased))
        expected = np.zeros((10, 13), np.bool_)
        expected[8, 3:6] = True
        np.testing.assert_array_equal(result.put_back, expected)
        ink = page[256:288, 96:192] < 60
        assert (result.pixels[256:288, 96:192][ink] < 150).all()
    lengths = []
    lost = cleaned(page, Stub(erased), gate=False)
    assert not lost.put_back.any()
    assert (lost.pixels[256:288, 96:192] > 220).all()


@pytest.mark.parametrize("noise", [0, 3, 8])
@pytest.mark.parametrize("denoiser", [Stub(), ERASER])
def test_a_black_bar_stays_black(printed, noise, denoiser):
    page = printed(320, 400) * np.float32(0.9)
    page[40:140, 20:380] = 0.08
    result = cleaned(levels(page, noise=noise), denoiser, noise=max(noise, 1))
    assert result.pixels[45:135, 25:375].mean() < 60
    assert result.lightened == 0


def test_a_dark_shadow_with_writing_is_no_bar(printed):
    shadow = np.full((320, 400), 0.9, np.float32)
    shadow[100:260, 150:] = 0.4
    shadow = ndimage.gaussian_filter(shadow, 12)
    result = cleaned(levels(printed(320, 400) * shadow, noise=3))
    bare = ndimage.minimum_filter(printed(320, 400), 9) > 0.95
    assert np.median(result.pixels[140:220, 220:][bare[140:220, 220:]]) > 200


def test_a_picture_stays_as_it_is(printed):
    page = printed(600, 700) * np.float32(0.9)
    shades = ndimage.gaussian_filter(np.random.default_rng(0).random((240, 300)), 4)
    page[60:300, 40:340] = 0.1 + 0.6 * (shades - shades.min()) / np.ptp(shades)
    page = levels(page, noise=2)
    result = cleaned(page, ERASER)
    np.testing.assert_array_equal(result.pixels[70:290, 50:330], page[70:290, 50:330])
    assert result.put_back[5, 5]


@pytest.mark.parametrize(("paper", "expected"), [("white", 255), ("keep", 219), ("as-is", None)])
def test_paper(paper, expected, printed):
    light = np.linspace(0.7, 0.9, 300, dtype=np.float32)
    page = levels(printed(200, 300) * light)
    bare = ndimage.minimum_filter(printed(200, 300), 9) > 0.95
    result = cleaned(page, ERASER, paper=paper).pixels[..., 0]
    if expected:
        np.testing.assert_allclose(result[bare], expected, atol=5)
    else:
        np.testing.assert_allclose(result[bare], np.broadcast_to(255 * light, result.shape)[bare], atol=9)


@pytest.mark.parametrize("paper_kind", ["keep", "as-is"])
def test_the_tint_of_the_paper_stays(printed, paper_kind):
    page = levels(printed(160, 200)[..., None] * TINT, noise=4)
    bare = ndimage.minimum_filter(printed(160, 200), 9) > 0.95
    result = cleaned(page, ERASER, paper=paper_kind).pixels
    np.testing.assert_allclose(result[bare].mean(0), 255 * TINT, atol=4)


def test_the_noise_is_estimated_or_given(printed):
    page = levels(0.8 * printed(320, 400), noise=6)
    estimated, given = Stub(), Stub()
    assert cleaned(page, estimated).noise == pytest.approx(6, rel=0.4)
    assert cleaned(page, given, noise=10.2).noise == pytest.approx(10.2)
    tint = PageView.of(page).paper.tint(documents.TINT_QUANTILE).mean()
    assert given.noises == [pytest.approx(10.2 / 255 / tint)]
    assert estimated.noises == [pytest.approx(6 / 255 / tint, rel=0.4)]


@pytest.mark.parametrize("shape", [(200, 1000), (257, 700), (600, 300)])
def test_bands_represent_a_large_page(shape, printed, monkeypatch):
    page = levels(0.8 * printed(*shape), noise=5)
    whole = cleaned(page)
    monkeypatch.setattr(paper, "SAMPLE_PIXELS", 40_000)
    monkeypatch.setattr(documents, "INK_SAMPLE", 40_000)
    bands = cleaned(page)
    assert bands.noise == pytest.approx(whole.noise, rel=0.1)
    assert np.abs(bands.pixels.astype(int) - whole.pixels).mean() < 1


def test_a_clean_page_stays_as_it_is(printed):
    page = levels(printed())
    result = cleaned(page, Stub(np.zeros_like))
    assert result.reason == CLEAN
    assert result.pixels is page


def test_a_small_stain_on_a_page_without_noise_is_still_cleaned(printed):
    page = 0.9 * printed(600, 700)
    page[200:300, 300:400] *= 0.8
    assert not cleaned(levels(page)).reason


def test_large_dark_areas_that_are_brightened_are_reported(printed):
    page = np.tile(printed(200, 200) * np.float32(0.9), (2, 3))
    page[80:320, 160:400] *= 0.55
    result = cleaned(levels(page))
    assert result.lightened == pytest.approx(240 * 240 / page.size, rel=0.1)
    assert cleaned(levels(page), paper="as-is").lightened == 0


def test_marks_that_are_removed_are_reported(printed):
    page = printed(400, 500)
    soft = ndimage.gaussian_filter((1 - printed(400, 500, seed=3)[:, ::-1]), 1.6)
    through = levels(0.9 * (page - 0.6 * soft * (page > 0.9)), noise=2)
    plain = levels(0.9 * page, noise=2)
    assert cleaned(through, ERASER).removed > 0.01
    assert cleaned(plain, Stub(), noise=2).removed < 0.002


def test_noise_and_uncertainty_are_in_levels_of_the_page(printed):
    page = levels(printed(320, 400) * np.float32(0.5), noise=6)
    result = restore_document(PageView.of(page), Stub(), RestoreSettings(), uncertainty=True)
    assert result.noise == pytest.approx(6, rel=0.4)
    assert result.spread == pytest.approx(255 * 0.02 * 0.5, rel=0.1)
    assert result.uncertainty.mean() == pytest.approx(255 * 0.02 * 0.5, abs=0.6)


def test_documents_and_photographs_are_distinguished(printed):
    rng = np.random.default_rng(0)
    page = printed(320, 400) * (1 - stain((320, 400), rng)) * np.float32(0.9)
    assert PageView.of(levels(page, noise=4)).is_document()
    shades = ndimage.gaussian_filter(rng.random((320, 400)), 6)
    shades = (shades - shades.min()) / np.ptp(shades)
    assert not PageView.of(levels(shades, noise=4)).is_document()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 50, 1), (7, 3, 3), (33, 31, 3)])
def test_tiny_pages(shape):
    page = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    assert cleaned(page, noise=20).pixels.shape == shape


def test_ticks_reach_the_end(printed, monkeypatch):
    monkeypatch.setattr(documents, "STRIP", 64)
    shares = []
    view = PageView.of(levels(0.8 * printed(320, 400), noise=4))
    restore_document(view, Stub(), RestoreSettings(), tick=shares.append)
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert len(shares) == 6

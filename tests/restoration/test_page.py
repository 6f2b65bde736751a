"""The restoration of single pages of any kind."""

import itertools

import numpy as np
import pytest

from vaeguard import DenoiseOutputs, DenoiserSpec, RestoreSettings, UsageError, restore_page
from vaeguard.restoration import page as restoration
from vaeguard.restoration.networks.degrade import stain
from vaeguard.restoration.noise import CELL, FLOOR, print_noise
from vaeguard.restoration.reasons import CLEAN, NO_STRENGTH, ONLY_DETAIL, TOO_SMALL

SHAPES = [(70, 90), (70, 90, 1), (70, 90, 2), (70, 90, 3), (70, 90, 4)]


class Stub:
    """A denoiser of one kind that changes images by a function, and estimates noise of 20 levels."""

    grid, estimates, levels = 4, True, 1

    def __init__(self, kind, change=lambda rows: rows):
        self.kind, self.change, self.shapes = kind, change, []
        self.planes = 3 if kind == "colour" else 1

    def noise_of(self, plane):
        return print_noise(plane)

    def halo(self, samples):
        return 8

    def estimate(self, image):
        shape = self.levels, image.shape[1] // CELL, image.shape[2] // CELL
        return np.full(shape, np.log(20 + FLOOR), np.float32), np.zeros(shape, np.float32)

    def restore_rows(self, rows, noise, *, spread=False, samples=0, start=0, context=(0, 0)):
        inside = rows[..., context[0] : rows.shape[-2] - context[1], :]
        self.shapes.append(inside.shape)
        return self.change(inside.copy()), np.full(inside.shape[-2:], 0.02, np.float32) if spread else None


class Engines:
    """Denoisers by kind, with a record of those asked for."""

    def __init__(self, change=lambda rows: rows):
        self.change, self.asked = change, {}

    def __call__(self, kind):
        return self.asked.setdefault(kind, Stub(kind, self.change))


def restored(pixels, engines=None, **settings):
    return restore_page(pixels, engines or Engines(), RestoreSettings(**settings))


def noisy_picture(shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    full = np.iinfo(dtype).max
    y = np.linspace(0.2, 0.5, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return np.clip(full * (y + 0.08 * rng.standard_normal(shape)), 0, full).astype(dtype)


def noisy_print(page, noise=4.0):
    page = 255 * page + noise * np.random.default_rng(0).standard_normal(page.shape)
    return np.clip(np.round(page), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_identity_returns_the_photograph(dtype, shape):
    page = noisy_picture(shape, dtype)
    result = restored(page, kind="photo")
    assert result.pixels.dtype == dtype
    assert result.pixels.shape == shape
    np.testing.assert_allclose(result.pixels, page, atol=0 if dtype == np.uint8 else 1)
    assert (result.report.kind, result.report.reason) == ("photo", "")
    assert result.report.change < 0.01


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["photo", "document"])
def test_shape_type_and_opacity_stay(kind, dtype, shape):
    page = noisy_picture(shape, dtype)
    result = restored(page, Engines(lambda rows: np.float32(0.5) * rows + np.float32(0.2)), kind=kind, gate=False)
    assert (result.pixels.shape, result.pixels.dtype) == (shape, dtype)
    assert result.report.kind == kind
    assert result.report.change > 1
    if shape[-1] in (2, 4):
        np.testing.assert_array_equal(result.pixels[..., -1], page[..., -1])
        assert (result.pixels[..., 0] != page[..., 0]).mean() > 0.5


@pytest.mark.parametrize("kind", ["auto", "photo", "document"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_strength_returns_the_same_object_with_a_reason(kind, shape):
    page = noisy_picture(shape)
    result = restored(page, Engines(np.zeros_like), kind=kind, strength=0)
    assert result.pixels is page
    assert (result.report.kind, result.report.reason, result.report.change) == ("untouched", NO_STRENGTH, 0)


def test_an_untouched_page_has_a_reason(printed):
    white = np.round(255 * printed()).astype(np.uint8)
    cases = [
        (white, {"kind": "document"}, CLEAN),
        (noisy_picture((64, 64)), {"kind": "photo", "noise": 0}, CLEAN),
        (noisy_picture((9, 200)), {"kind": "photo"}, TOO_SMALL),
        (noisy_picture((64, 64)), {"kind": "photo"}, ONLY_DETAIL),
    ]
    for page, settings, reason in cases:
        result = restored(page, Engines(lambda rows: 1 - rows), **settings)
        assert result.pixels is page
        assert (result.report.kind, result.report.reason) == ("untouched", reason)


def test_documents_and_photographs_are_distinguished(printed):
    page = printed(320, 400) * (1 - stain((320, 400), np.random.default_rng(0))) * np.float32(0.9)
    for pixels, kind in ((noisy_print(page), "document"), (noisy_picture((320, 400)), "photo")):
        engines = Engines()
        assert restored(pixels, engines).report.kind == kind == restoration.page_kind(pixels)
        assert list(engines.asked) == [kind]


def test_a_given_kind_is_used(printed):
    assert restored(noisy_print(0.9 * printed(320, 400)), kind="photo").report.kind == "photo"
    assert restored(noisy_picture((320, 400)), kind="document").report.kind == "document"


def test_colours_are_restored_by_the_colour_denoiser():
    for shape, kind in (((64, 64), "photo"), ((64, 64, 2), "photo"), ((64, 64, 3), "colour"), ((64, 64, 4), "colour")):
        engines = Engines()
        restored(noisy_picture(shape), engines, kind="photo")
        assert list(engines.asked) == [kind]


@pytest.mark.parametrize("kind", ["photo", "document"])
def test_grey_stored_as_colour_costs_one_plane_and_stays_grey(kind, printed):
    grey = noisy_picture((64, 64)) if kind == "photo" else noisy_print(0.9 * printed(64, 64))
    engines = Engines(lambda rows: np.float32(0.9) * rows)
    result = restored(np.repeat(grey[..., None], 3, 2), engines, kind=kind).pixels
    assert list(engines.asked) == [kind]
    assert engines.asked[kind].shapes == [(64, 64)]
    alone = restored(grey, Engines(lambda rows: np.float32(0.9) * rows), kind=kind).pixels
    for channel in range(3):
        np.testing.assert_array_equal(result[..., channel], alone)
    assert (alone != grey).mean() > 0.5


def test_squares_that_were_put_back_are_marked(printed):
    page = noisy_print(0.9 * printed(320, 400))

    def erase(rows):
        rows[96:192, 96:192] = 1
        return rows

    report = restored(page, Engines(erase), kind="document").report
    assert [len(row) for row in report.squares] == 10 * [13]
    put_back = np.array([list(row) for row in report.squares]) == "#"
    assert put_back[3:6, 3:6].all()
    assert put_back.sum() == 9
    assert report.reverted == pytest.approx(9 / 130)
    assert restored(page, Engines(), kind="document").report.squares == ()


def test_the_change_is_reported_in_levels():
    page = noisy_picture((64, 64), np.uint16)
    result = restored(page, Engines(lambda rows: rows + np.float32(10 / 255)), kind="photo")
    assert result.report.change == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "page"}, {"paper": "black"}, {"strength": 1.5}, {"strength": -0.1}, {"noise": -1}, {"noise": 300}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=f"^`{next(iter(wrong))}`"):
        RestoreSettings(**wrong)


def test_settings_of_another_type_are_refused():
    for of, name, wrong in (
        (RestoreSettings, "strength", "0.5"), (RestoreSettings, "samples", 2.5), (DenoiseOutputs, "jpeg", 90.5),
        (DenoiserSpec, "steps", "many"), (DenoiserSpec, "latent", (1.5, 2, 3)),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=f"^`{name}` is .*; it must be of type"):
            of(**{name: wrong})
    assert DenoiserSpec(latent=[8, 12, 16]).latent == (8, 12, 16)


def test_thick_dark_objects_among_shades_are_no_ink():
    """A picture of dark balls with soft rims is a photograph; an equal share of ink in thin lines is a document."""
    rows, columns = np.mgrid[:300, :420]
    balls, lines = np.full((300, 420), 235.0), np.full((300, 420), 235.0)
    for top, left in itertools.product(range(35, 300, 70), range(35, 420, 70)):
        distance = np.hypot(rows - top, columns - left)
        balls = np.minimum(balls, np.interp(distance, [0, 8, 9, 13, 14], [60, 60, 165, 180, 235]))
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
        kinds.append(restoration.page_kind(picture.astype(np.uint8)))
        opacity = np.zeros_like(picture)
        kinds.append(restoration.page_kind(np.stack([picture, opacity], 2).astype(np.uint8)))
    assert kinds == ["photo", "photo", "document", "document"]

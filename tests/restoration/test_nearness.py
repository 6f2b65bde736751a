"""Damage to a small part of a page is noticed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaeguard import DenoiseOutputs, RestoreSettings, denoise_scans
from vaeguard.restoration.formats import scans
from vaeguard.restoration.nearness import LARGEST_DIFFERENCE, LARGEST_IN_A_SQUARE, difference, keeps_squares

JUST_LESS, JUST_MORE = LARGEST_IN_A_SQUARE - 1, LARGEST_IN_A_SQUARE + 1


@pytest.mark.parametrize("shape", [(1300, 200), (1300, 200, 3)])
@pytest.mark.parametrize("square", [(0, 0), (640, 96), (1280, 192)])
def test_a_differing_square_is_noticed_anywhere(shape, square):
    page = np.full(shape, 100, np.uint8)
    for levels, near in ((JUST_LESS, True), (JUST_MORE, False)):
        other = page.copy()
        other[square[0] : square[0] + 32, square[1] : square[1] + 32] += np.uint8(levels)
        assert keeps_squares(page, other) is near
        assert keeps_squares(other, page) is near
        assert difference(page, other) < LARGEST_DIFFERENCE


def test_a_jpeg_of_usual_quality_keeps_print(printed):
    page = np.round(255 * printed(300, 400)).astype(np.uint8)
    for quality, near in ((80, True), (10, False)):
        file = io.BytesIO()
        Image.fromarray(page).save(file, "JPEG", quality=quality)
        assert keeps_squares(page, np.asarray(Image.open(file))) is near


@pytest.mark.parametrize(("outputs", "asked"), [(DenoiseOutputs(), True), (DenoiseOutputs(jpeg=80), False)])
def test_a_page_that_would_be_damaged_is_written_with_less_loss(outputs, asked, printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = []

    def never(restored, decoded):
        calls.append((restored.copy(), decoded.copy()))
        return False

    monkeypatch.setattr("vaeguard.restoration.nearness.keeps_squares", never)
    monkeypatch.setattr("vaeguard.restoration.work.rewrite", scans.rewrite)  # in this process
    rng = np.random.default_rng(0)
    pages = [
        Image.fromarray(np.clip(216 * printed(200, 240, seed) + 8 * rng.standard_normal((200, 240)), 0, 255))
        .convert("L")
        for seed in range(2)
    ]  # fmt: skip
    Path("scans").mkdir()
    pages[0].save("scans/book.pdf", save_all=True, append_images=pages[1:], resolution=100)
    denoise_scans("scans", "out", RestoreSettings(kind="document"), outputs=outputs, device="cpu")
    codecs = json.loads(Path("out/book.pdf.json").read_text())["codecs"]
    assert set(codecs.values()) == ({"Flate"} if asked else {"JPEG"})
    assert bool(calls) is asked
    for restored, decoded in calls:  # the decoded page belongs to the page restored just before
        assert difference(restored, decoded) <= LARGEST_DIFFERENCE

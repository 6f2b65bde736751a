from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Tests are never timed: the machine may be busy.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the data sets; it may lack any of them, and a test then skips."""
    given = os.environ.get("VAEGUARD_DATA")
    shared = CHECKOUT.parent / "shared" / "data"
    return Path(given) if given else shared if shared.is_dir() else CHECKOUT / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or leaves anything in the user's cache."""
    monkeypatch.setenv("VAEGUARD_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def printed():
    """Draws a clean page of text, float32 (height, width), 1 paper to 0 ink."""
    from PIL import Image, ImageDraw, ImageFont

    def draw(height=160, width=200, seed=0):
        rng = np.random.default_rng(seed)
        page = Image.new("L", (width, height), 255)
        font = ImageFont.load_default(14)
        for top in range(4, height, 18):
            letters = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz     "), 60))
            ImageDraw.Draw(page).text((4, top), letters, fill=0, font=font)
        return np.asarray(page, np.float32) / np.float32(255)

    return draw

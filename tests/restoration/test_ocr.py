"""Reading pages with tesseract."""

import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from vaeguard import UsageError, VaeguardError
from vaeguard.restoration import ocr
from vaeguard.restoration.ocr import read_text

needs_tesseract = pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")


def page(text="several methods design documents"):
    image = Image.new("L", (900, 120), 255)
    ImageDraw.Draw(image).text((20, 30), text, fill=0, font=ImageFont.load_default(40))
    return np.asarray(image)


@needs_tesseract
def test_words_are_read_and_a_lost_word_is_noticed():
    assert read_text(page()).split() == ["several", "methods", "design", "documents"]
    gone = page().copy()
    gone[:, 450:] = 255
    assert ocr.words_lost(page(), gone, 150)
    assert not ocr.words_lost(gone, page(), 150)
    assert not ocr.words_lost(page(), page(), None)


@needs_tesseract
def test_a_changed_number_counts_as_lost():
    assert ocr.words_lost(page("paid 1897 in silver"), page("paid 1397 in silver"), 150)
    assert not ocr.words_lost(page("paid 1897 in silver"), page("paid, 1897; in silver"), 150)


@needs_tesseract
def test_a_missing_language_is_named():
    ocr.check_tesseract("eng")
    with pytest.raises(
        UsageError, match=r"`ocr_language` contains 'xyz', which tesseract does not know.* tesseract-ocr-xyz"
    ):
        ocr.check_tesseract("eng+xyz")


def test_a_missing_or_failing_tesseract_gives_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="`ocr` needs the program tesseract"):
        ocr.check_tesseract()
    fake = tmp_path / "tesseract"
    fake.write_text("#!/bin/sh\nread nothing\necho out of words >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(VaeguardError, match="out of words"):
        read_text(page())


@pytest.mark.parametrize(("dpi", "given"), [(None, 150), (300, 300), (71.6, 72), (0.5, 150), (1e30, 150)])
def test_an_odd_resolution_is_not_told_to_tesseract(dpi, given, tmp_path, monkeypatch):
    fake = tmp_path / "tesseract"
    fake.write_text('#!/bin/sh\ncat > /dev/null\necho "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert f"--dpi {given} " in read_text(page(), dpi)

from __future__ import annotations

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaeguard.data import images
from vaeguard.data.images import (
    ImageRule,
    decode_bytes,
    decode_image,
    read_header,
    reduced,
    shape_array,
    write_png,
)
from vaeguard.errors import UnreadableError, UsageError

H, W = 5, 7
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (H, W), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (H, W, 3), dtype=np.uint8)
ALPHA = RANDOM.integers(0, 256, (H, W), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (H, W)).astype(np.uint16)
BITS = RANDOM.integers(0, 2, (H, W)).astype(bool)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def luma(rgb):
    red, green, blue = (np.asarray(rgb, np.int64)[..., k] for k in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


def over_white(pixels, alpha):
    alpha = alpha[..., None] if pixels.ndim == 3 else alpha
    return np.floor((pixels.astype(float) * alpha + 255.0 * (255 - alpha)) / 255 + 0.5).astype(np.uint8)


def first(pixels):
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def huge_webp():
    content = bytearray(encoded(Image.fromarray(RGB), "WEBP", lossless=True))
    content[21:25] = struct.pack("<I", 2**28 - 1)  # 16384 x 16384
    return bytes(content)


CASES = {
    "grey": (Image.fromarray(GREY), GREY),
    "1 bit": (Image.fromarray(BITS), np.where(BITS, 255, 0).astype(np.uint8)),
    "16 bit": (Image.fromarray(DEEP), np.floor(DEEP * 255.0 / 65535 + 0.5).astype(np.uint8)),
    "rgb": (Image.fromarray(RGB), RGB),
    "grey + alpha": (Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), over_white(GREY, ALPHA)),
    "rgb + alpha": (Image.fromarray(np.dstack([RGB, ALPHA])), over_white(RGB, ALPHA)),
}
LOSSLESS = [
    *(("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("WEBP", {"lossless": True})),
    *(("JPEG2000", {}), ("JPEG2000", {"no_jp2": True})),
]
STORES = {
    "PNG": set(CASES),
    "TIFF": set(CASES),
    "BMP": {"grey", "1 bit", "rgb"},
    "JPEG2000": set(CASES) - {"1 bit"},
    "WEBP": {"rgb"},  # WEBP turns grey into colour, and may change colours under full transparency
}


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [(name, kind, options) for kind, options in LOSSLESS for name in CASES if name in STORES[kind]],
)
def test_every_mode_gives_the_pixels_that_its_rule_says(name, kind, options):
    image, expected = CASES[name]
    content = encoded(image, kind, **options)
    np.testing.assert_array_equal(decode_bytes(content, ImageRule()), first(expected))
    grey = luma(expected) if expected.ndim == 3 else expected
    np.testing.assert_array_equal(decode_bytes(content, ImageRule(channels=1)), first(grey))
    colour = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, -1)
    np.testing.assert_array_equal(decode_bytes(content, ImageRule(channels=3)), first(colour))


def test_webp_grey_is_read_as_the_colours_that_it_stores():
    content = encoded(Image.fromarray(GREY), "WEBP", lossless=True)
    np.testing.assert_array_equal(decode_bytes(content, ImageRule()), np.stack([GREY] * 3))


def test_palettes_are_expanded_and_their_transparency_laid_over_white():
    image = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    expected = np.array([[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [100, 110, 120]]], np.uint8)
    np.testing.assert_array_equal(decode_bytes(encoded(image), ImageRule()), first(expected))
    content = encoded(image, transparency=bytes([0, 255, 255, 128]))
    expected[0, 0] = 255
    expected[1, 1] = over_white(expected[1:, 1], np.array([128]))[0]
    np.testing.assert_array_equal(decode_bytes(content, ImageRule()), first(expected))


def test_a_transparent_value_is_white():
    for image, value in ((Image.fromarray(GREY), int(GREY[0, 0])), (Image.fromarray(DEEP), int(DEEP[0, 0]))):
        plain = decode_bytes(encoded(image), ImageRule())
        found = decode_bytes(encoded(image, transparency=value), ImageRule())
        clear = np.asarray(image) == value
        np.testing.assert_array_equal(found[0], np.where(clear, 255, plain[0]))


def test_four_channels_keep_alpha_and_opaque_files_get_255():
    image, _ = CASES["rgb + alpha"]
    np.testing.assert_array_equal(decode_bytes(encoded(image), ImageRule(channels=4)), first(np.asarray(image)))
    found = decode_bytes(encoded(Image.fromarray(GREY)), ImageRule(channels=4))
    np.testing.assert_array_equal(found, np.stack([GREY, GREY, GREY, np.full_like(GREY, 255)]))


def test_16_bit_colour_takes_the_upper_byte():
    deep = RANDOM.integers(0, 65536, (H, W, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    np.testing.assert_array_equal(decode_bytes(content, ImageRule()), first((deep >> 8).astype(np.uint8)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, kind, orientation):
    blocks = np.kron(np.array([[0, 80, 160], [255, 200, 30]], np.uint8), np.ones((16, 16), np.uint8))
    expected = {
        1: blocks, 2: blocks[:, ::-1], 3: blocks[::-1, ::-1], 4: blocks[::-1], 5: blocks.T,
        6: blocks.T[:, ::-1], 7: blocks[::-1, ::-1].T, 8: blocks.T[::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "image"
    Image.fromarray(np.stack([blocks] * 3, -1)).save(path, format=kind, exif=exif, lossless=True, quality=100)
    found = decode_image(path, ImageRule(channels=1))[0]
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=2)
    assert read_header(path) == (expected.shape, 3)


def test_broken_exif_says_nothing_about_the_pixels():
    content = encoded(Image.fromarray(GREY), exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(decode_bytes(content, ImageRule()), GREY[None])


def test_scaling_is_antialiased_and_crops_nothing():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    small = decode_bytes(encoded(Image.fromarray(stripes)), ImageRule(size=(16, 8)))
    assert small.shape == (1, 16, 8)
    assert np.all(np.abs(small[..., 1:-1].astype(int) - 128) <= 8)
    one = np.zeros((40, 60), np.uint8)
    one[0, 0] = one[-1, -1] = 255
    small = decode_bytes(encoded(Image.fromarray(one)), ImageRule(size=(8, 12)))[0]
    assert small[0, 0] == small[-1, -1] > 0


def test_an_array_becomes_what_a_file_with_its_pixels_becomes():
    for pixels in (GREY[None], first(RGB), first(np.dstack([RGB, ALPHA]))):
        content = encoded(Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))
        for rule in (ImageRule((3, 4), 1), ImageRule((9, 9), 3), ImageRule((4, 4), 4), ImageRule(None, 3)):
            np.testing.assert_array_equal(shape_array(pixels, rule), decode_bytes(content, rule))
    with pytest.raises(UsageError, match="2 channels"):
        shape_array(np.zeros((2, 4, 4), np.uint8), ImageRule((2, 2)))


@given(st.sampled_from([1, 3, 4]), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_png_round_trip(channels, height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)
    file = io.BytesIO()
    write_png(file, pixels)
    found = decode_bytes(file.getvalue(), ImageRule(channels=channels))
    np.testing.assert_array_equal(found, pixels)
    assert found.flags.writeable
    assert found.flags.c_contiguous


def multipage():
    return encoded(Image.fromarray(GREY), "TIFF", save_all=True, append_images=[Image.fromarray(GREY)] * 2)


def animated(kind):
    others = [Image.fromarray(255 - RGB)]
    return encoded(Image.fromarray(RGB), kind, save_all=True, append_images=others)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is only text", "not a supported image"),
        (b"\x89PNG\r\n\x1a\n", "damaged or cut short"),
        (encoded(Image.fromarray(RGB), "GIF"), "GIF, which is not supported; convert it to PNG"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "print profile; convert it to RGB"),
        (encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "print profile; convert it to RGB"),
        (encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "32-bit"),
        (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "floating-point"),
        (multipage(), "3 pages; save each page"),
        (animated("PNG"), "2 frames"),
        (animated("WEBP"), "2 frames"),
        (huge_webp(), "it has too many pixels, more than the limit of 100 million"),
        (huge_png(40_000, 40_000), "more than the limit of 100 million"),
        (huge_png(2_000_000_000, 2_000_000_000), "more than the limit of 100 million"),
        (encoded(Image.fromarray(RGB))[:-12], "cut short"),
        (encoded(Image.fromarray(RGB), "JPEG")[:-40], "cut short"),
    ],
)
def test_bad_content_is_refused_with_its_reason(tmp_path, content, reason):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(UnreadableError, match=reason) as caught:
        decode_image(path, ImageRule())
    assert time.perf_counter() - started < 1
    assert caught.value.path == str(path)
    assert "\n" not in caught.value.reason
    with pytest.raises(UnreadableError):
        decode_bytes(content, ImageRule())


def test_bad_files_are_refused_without_waiting(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "big.png").write_bytes(b"\x89PNG")
    monkeypatch.setattr(images, "MAX_BYTES", 3)
    cases = {"fifo.png": "not a regular file", "loop.png": "cannot be opened", "big.png": "more than", ".": "folder"}
    for name, reason in {**cases, "gone.png": "does not exist", "a\0b.png": "NUL"}.items():
        with pytest.raises(UnreadableError, match=reason):
            decode_image(str(tmp_path / name), ImageRule())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "image.png"
    write_png(path, GREY[None])
    path.chmod(0)
    with pytest.raises(UnreadableError, match="Permission denied"):
        decode_image(path, ImageRule())


CONTENTS = {
    "PNG": encoded(Image.fromarray(RGB)),
    "PNG palette": encoded(Image.fromarray(GREY).convert("P")),
    "JPEG": encoded(Image.fromarray(np.kron(RGB, np.ones((8, 8, 1), np.uint8))), "JPEG", exif=b"Exif\0\0II*\0"),
    "TIFF": encoded(Image.fromarray(RGB), "TIFF"),
    "TIFF LZW": encoded(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"),
    "BMP": encoded(Image.fromarray(RGB), "BMP"),
    "WEBP": encoded(Image.fromarray(RGB), "WEBP"),
    "JPEG2000": encoded(Image.fromarray(RGB), "JPEG2000"),
    "JPEG2000 stream": encoded(Image.fromarray(RGB), "JPEG2000", no_jp2=True),
}


@given(st.sampled_from(sorted(set(CONTENTS) - {"BMP"})), st.data())  # a BMP may end with padding
def test_cut_files_are_never_read(kind, data):
    content = CONTENTS[kind]
    with pytest.raises(UnreadableError):
        decode_bytes(content[: data.draw(st.integers(0, len(content) - 1))], ImageRule())


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(CONTENTS)),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8),
    st.integers(0, 2**16),
)
def test_damaged_files_are_read_or_refused_and_nothing_else(kind, changes, length):
    content = bytearray(CONTENTS[kind])
    for place, value in changes:
        content[place % len(content)] = value
    try:
        found = decode_bytes(bytes(content[: 1 + length % (2 * len(content))]), ImageRule((6, 6), 3))
    except UnreadableError:
        return
    assert found.shape == (3, 6, 6)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("grey", [GREY, GREY.astype(np.uint16) * 257])
def test_white_is_the_largest_value_whatever_a_tiff_says_of_zero(grey, photometric, orientation):
    file = io.BytesIO()
    extra = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(file, grey, photometric=photometric, extratags=extra)
    upright = np.rot90(GREY, -1) if orientation == 6 else GREY
    expected = upright if photometric == "minisblack" else 255 - upright
    np.testing.assert_array_equal(decode_bytes(file.getvalue(), ImageRule())[0], expected)


def test_headers_tell_what_decoding_gives(tmp_path):
    for name, (image, _) in CASES.items():
        path = tmp_path / f"{name}.png"
        image.save(path)
        decoded = decode_image(path, ImageRule())
        assert read_header(path) == (decoded.shape[1:], decoded.shape[0])


@pytest.mark.parametrize("rule", [(0, 1), (1,), (-3, 4)])
def test_impossible_rules_are_usage_errors(rule):
    with pytest.raises(UsageError, match="size"):
        ImageRule(size=rule)
    with pytest.raises(UsageError, match="channels"):
        ImageRule(channels=5)
    with pytest.raises(UsageError, match="not 2"):
        decode_bytes(CONTENTS["PNG"], ImageRule(channels=2))


def test_a_file_without_permission_is_refused_with_the_systems_reason(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(path)

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(UnreadableError, match=r"a\.png.*cannot be opened \(Permission denied\)"):
        decode_image(path, ImageRule())


@pytest.mark.parametrize("shape", [(1, 30, 7), (3, 9, 40), (2, 12, 12)])
def test_a_picture_for_people_keeps_its_shape_and_its_channels(shape):
    image = np.full(shape, 80, np.uint8)
    assert reduced(image, max(shape)) is image
    small = reduced(image, 10)
    assert (small.shape[0], max(small.shape[1:])) == (shape[0], 10)
    assert small.shape[1] / small.shape[2] == pytest.approx(shape[1] / shape[2], rel=0.2)
    assert (small == 80).all()

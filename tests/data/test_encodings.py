from __future__ import annotations

import io
import re
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from vaeguard.data.data_sets import open_images
from vaeguard.data.images import ImageRule, decode_bytes, read_header
from vaeguard.errors import UnreadableError, UsageError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind, **options)
    return file.getvalue()


def first(pixels):
    return pixels.transpose(2, 0, 1)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG = encoded(RGB)
LONG = bytes(2**21)
TEXTS = {
    "profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(LONG)),
    "packed text": chunk(b"zTXt", b"x\0\0" + zlib.compress(LONG)),
    "packed unicode": chunk(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(LONG)),
    "many texts": chunk(b"tEXt", b"x\0" + LONG) * 33,
}


@pytest.mark.parametrize("kind", sorted(TEXTS))
def test_long_texts_and_profiles_of_a_png_change_no_pixel(tmp_path, kind):
    for content in (PNG[:33] + TEXTS[kind] + PNG[33:], PNG[:-12] + TEXTS[kind] + PNG[-12:]):
        np.testing.assert_array_equal(decode_bytes(content, ImageRule()), first(RGB))
        (tmp_path / "a.png").write_bytes(content)
        assert read_header(tmp_path / "a.png") == (RGB.shape[:2], 3)


def test_a_long_text_leaves_the_orientation():
    exif = Image.Exif()
    exif[0x0112] = 3
    content = encoded(RGB, exif=exif)
    turned = decode_bytes(content[:33] + TEXTS["packed text"] + content[33:], ImageRule())
    np.testing.assert_array_equal(turned, first(RGB)[:, ::-1, ::-1])


SMOOTH = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (imagecodecs.jpegls_encode(SMOOTH), "JPEG-LS"),
        (imagecodecs.jpeg8_encode(SMOOTH.astype(np.uint16) * 16, bitspersample=12), "JPEG of 12 bits"),
        (imagecodecs.jpeg8_encode(SMOOTH.astype(np.uint16) * 256, lossless=True), "lossless JPEG"),
        (imagecodecs.jpegxl_encode(SMOOTH), "JPEG XL"),
        (b"8BPS\0\1" + bytes(40), "PSD"),
        (
            encoded(SMOOTH, "BMP")[:30] + b"\4" + encoded(SMOOTH, "BMP")[31:],
            "of an unsupported kind",
        ),
    ],
)
def test_kinds_that_are_not_read_are_not_called_damaged(content, reason):
    with pytest.raises(UnreadableError, match=f"{reason}.*convert (it|the file) to PNG") as caught:
        decode_bytes(content, ImageRule())
    assert "its image data is damaged" not in str(caught.value)


DEEP = np.random.default_rng(0).integers(0, 65536, (9, 8, 4)).astype(np.uint16)


def tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        pixels,
        photometric="rgb" if pixels.shape[2:] > (2,) or options.get("planarconfig") else "minisblack",
        **options,
    )
    return file.getvalue()


RANGED = {
    "png grey": (imagecodecs.png_encode(DEEP[..., 0].copy()), DEEP[..., :1]),
    "png colour": (imagecodecs.png_encode(DEEP[..., :3].copy()), DEEP[..., :3]),
    "png opacity": (imagecodecs.png_encode(DEEP), DEEP),
    "tiff grey": (tiff(DEEP[..., 0]), DEEP[..., :1]),
    "tiff big-endian": (tiff(DEEP[..., 0], byteorder=">"), DEEP[..., :1]),
    "tiff colour": (tiff(DEEP[..., :3]), DEEP[..., :3]),
    "tiff planes": (tiff(DEEP[..., :3].transpose(2, 0, 1), planarconfig="separate"), DEEP[..., :3]),
    "jpeg 2000 grey": (imagecodecs.jpeg2k_encode(DEEP[..., 0].copy(), level=0, reversible=True), DEEP[..., :1]),
    "jpeg 2000 colour": (imagecodecs.jpeg2k_encode(DEEP[..., :3].copy(), level=0, reversible=True), DEEP[..., :3]),
}


def test_grey_with_opacity_of_16_bits_is_grey(tmp_path):
    grey, opacity = DEEP[..., 0] >> 8, DEEP[..., 1] >> 8
    right = np.floor(grey * (opacity / 255) + 255 - opacity + 0.5)[None]
    contents = imagecodecs.png_encode(DEEP[..., :2].copy()), tiff(DEEP[..., :2], extrasamples=["unassalpha"])
    for content in contents:
        np.testing.assert_array_equal(decode_bytes(content, ImageRule()), right)
        np.testing.assert_array_equal(decode_bytes(content, ImageRule(channels=3)), np.repeat(right, 3, 0))
        assert read_header("a", content) == (grey.shape, 1)
    ranged = [decode_bytes(content, ImageRule(pixel_range=(0, 30000))) for content in contents]
    np.testing.assert_array_equal(*ranged)


@pytest.mark.parametrize("black_white", [(0, 4095), (20000, 30001), (0, 65535)])
@pytest.mark.parametrize("kind", sorted(RANGED))
def test_a_range_of_pixels_goes_from_black_to_white(kind, black_white):
    content, pixels = RANGED[kind]
    black, white = black_white
    colours = np.floor(np.clip((pixels.astype(float) - black) / (white - black), 0, 1) * 255 + 0.5)
    if pixels.shape[2] == 4:
        opacity = (pixels[..., 3:] >> 8) / 255
        colours = np.floor(colours[..., :3] * opacity + 255 * (1 - opacity) + 0.5)
    decoded = decode_bytes(content, ImageRule(pixel_range=black_white))
    np.testing.assert_array_equal(decoded, colours.transpose(2, 0, 1))


def test_a_range_leaves_8_bits_alone_and_turns_deep_pixels_upright():
    rule = ImageRule(pixel_range=(0, 4095))
    np.testing.assert_array_equal(decode_bytes(PNG, rule), first(RGB))
    turned = [(274, "H", 1, 3, True)]
    right = decode_bytes(tiff(DEEP[..., 0]), rule)[:, ::-1, ::-1]
    np.testing.assert_array_equal(decode_bytes(tiff(DEEP[..., 0], extratags=turned), rule), right)


@pytest.mark.parametrize("pixel_range", [(5,), (3, 3), (-1, 5), (0, 65536), (1, 2, 3)])
def test_an_impossible_range_is_a_usage_error(pixel_range):
    with pytest.raises(UsageError, match="pixel_range"):
        ImageRule(pixel_range=pixel_range)


@pytest.mark.parametrize(
    ("low", "high", "note"),
    [
        (1400, 1950, "values from 1400 to 1950, so as 8-bit images they use only [34] .*`model.pixel_range`=0,4095"),
        (29000, 31000, "model.pixel_range`=27000,33000"),
        (22000, 32000, None),
        (0, 65535, None),
    ],
)
@pytest.mark.parametrize("colour", [False, True])
def test_deep_images_with_few_grey_levels_are_told(tmp_path, low, high, note, colour):
    pixels = np.linspace(low, high, 40 * 40).astype(np.uint16).reshape(40, 40)
    for number in range(3):
        (tmp_path / f"{number}.tif").write_bytes(tiff(np.stack([pixels] * 3, -1) if colour else pixels))
    told = open_images(tmp_path).note
    assert (told is None) if note is None else re.search(note, told)
    assert open_images(tmp_path, rule=ImageRule(pixel_range=(low, high))).note is None

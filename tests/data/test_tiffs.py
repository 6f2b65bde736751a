from __future__ import annotations

import contextlib
import io
import itertools

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vaeguard.data.images import ImageRule, decode_bytes, open_picture, read_header
from vaeguard.errors import UnreadableError

HEIGHT, WIDTH = 24, 19
RANDOM = np.random.default_rng(0)
LOSSLESS = (None, "lzw", "deflate", "packbits", "zstd", "lzma")
EXTRAS = {1: None, 2: ["unassalpha"], 3: None, 4: ["unassalpha"]}


def smooth(channels, kind):
    """A picture that lossy compressions hardly change, (H, W, C), over the whole range of `kind`."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    planes = [rows, columns, (rows + columns) / 2, 1 - rows / 2][:channels]
    if kind == np.bool_:
        return np.stack(planes, -1) > 0.4
    if kind.kind == "f":
        return np.stack(planes, -1).astype(kind)
    return (np.stack(planes, -1) * np.iinfo(kind).max).astype(kind)


def written(pixels, *, planar=False, white=False, **options):
    channels = pixels.shape[2]
    photometric = "rgb" if channels > 2 else "miniswhite" if white else "minisblack"
    if channels > 1:
        options["planarconfig"] = "separate" if planar else "contig"
        options["extrasamples"] = EXTRAS[channels]
    pixels = pixels.transpose(2, 0, 1) if planar else pixels
    file = io.BytesIO()
    tifffile.imwrite(file, pixels[0] if planar and channels == 1 else pixels, photometric=photometric, **options)
    return file.getvalue()


def expected(pixels, *, white=False):
    """The pixels (C, H, W) by the rule of depth and colour: opacity over white."""
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if white:
        pixels = pixels.copy()
        pixels[..., 0] = np.iinfo(pixels.dtype).max - pixels[..., 0]
    if pixels.dtype == np.uint16:
        alone = pixels.shape[2] == 1
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535 if alone else pixels >> 8).astype(np.uint8)
    if pixels.shape[2] in (2, 4):
        opacity = pixels[..., -1:] / 255
        pixels = np.floor(pixels[..., :-1] * opacity + 255 * (1 - opacity) + 0.5).astype(np.uint8)
    return pixels.transpose(2, 0, 1)


def stored(content, channels):
    """The pixels (H, W, C) as tifffile decodes them."""
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        planes = tiff.pages[0].asarray(squeeze=False)
    return np.moveaxis(planes, 0, -2)[0].reshape(HEIGHT, WIDTH, channels)


def check(pixels, tolerance=0, *, white=False, **options):
    content = written(pixels, white=white, **options)
    right = expected(stored(content, pixels.shape[2]) if tolerance else pixels, white=white)
    decoded = decode_bytes(content, ImageRule())
    assert decoded.shape == right.shape, options
    assert np.abs(decoded.astype(int) - right).max() <= tolerance, options
    assert read_header("a.tif", content) == (right.shape[1:], right.shape[0])


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
def test_lossless_pixels_are_those_of_the_rule(compression, channels, depth):
    pixels = RANDOM.integers(0, 2**depth, (HEIGHT, WIDTH, channels)).astype(f"u{depth // 8}")
    layouts = ({}, {"rowsperstrip": 7}, {"tile": (16, 16)})
    predictors = (False,) if compression in (None, "packbits") else (False, True)
    whites = (False, True) if channels == 1 else (False,)
    for planar, order, layout, predictor, white in itertools.product((False, True), "<>", layouts, predictors, whites):
        options = {"byteorder": order, "compression": compression, "predictor": predictor, **layout}
        check(pixels, planar=planar, white=white, **options)


@pytest.mark.parametrize(
    ("compression", "depth"), [("jpeg", 8), ("webp", 8), *itertools.product(("jpegxl", "jpeg2000", "lerc"), (8, 16))]
)
def test_lossy_pixels_are_those_of_tifffile(compression, depth):
    for channels, planar, layout in itertools.product((1, 2, 3, 4), (False, True), ({}, {"tile": (16, 16)})):
        pixels = smooth(channels, np.dtype(f"u{depth // 8}"))
        try:
            written(pixels, planar=planar, compression=compression, **layout)
        except ValueError:  # the codec has no such pixels
            continue
        check(pixels, 3, planar=planar, compression=compression, **layout)


@pytest.mark.parametrize("compression", [None, "packbits", "lzw", "deflate", "group3", "group4"])
@pytest.mark.parametrize("white", [False, True])
def test_bits_are_black_or_white(compression, white):
    bits = smooth(1, np.dtype(bool))
    if compression in ("group3", "group4"):
        file = io.BytesIO()
        Image.fromarray(bits[..., 0]).save(file, "TIFF", compression=compression, tiffinfo={262: 0 if white else 1})
        content, white = file.getvalue(), False  # Pillow turns the bits as well
    else:
        content = written(bits, white=white, compression=compression)
    np.testing.assert_array_equal(decode_bytes(content, ImageRule()), expected(bits ^ white))


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_fill_the_whole_range(bits):
    values = RANDOM.integers(0, 2**bits, (HEIGHT, 16, 1)).astype(np.uint8)
    content = written(values, bitspersample=bits)
    np.testing.assert_array_equal(decode_bytes(content, ImageRule()), expected(values * (255 // (2**bits - 1))))


@pytest.mark.parametrize("compression", ["lzw", "zstd"])  # Pillow reads the one, tifffile the other
def test_palettes_are_expanded(compression):
    colours = RANDOM.integers(0, 256, (3, 256)).astype(np.uint16)
    index = RANDOM.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(file, index, photometric="palette", colormap=colours * 257, compression=compression)
    np.testing.assert_array_equal(decode_bytes(file.getvalue(), ImageRule()), colours[:, index])
    assert open_picture(file.getvalue(), "a.tif").mode == "P"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("planar", [False, True])
def test_any_kind_is_turned_upright(tmp_path, orientation, planar):
    pixels = smooth(3, np.dtype(np.uint16))
    content = written(pixels, planar=planar, extratags=[(274, "H", 1, orientation, True)])
    right = decode_bytes(
        written(smooth(3, np.dtype(np.uint8)), extratags=[(274, "H", 1, orientation, True)]), ImageRule()
    )
    decoded = decode_bytes(content, ImageRule())
    assert decoded.shape == right.shape
    assert np.abs(decoded.astype(int) - right).max() <= 1
    (tmp_path / "a.tif").write_bytes(content)
    assert read_header(tmp_path / "a.tif") == read_header("a.tif", content) == (right.shape[1:], 3)


def test_colours_that_were_multiplied_by_opacity_lie_over_white():
    opacity = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 1))
    colours = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3)) * opacity // 255
    pixels = np.concatenate([colours, opacity], -1).astype(np.uint8)
    right = (colours + 255 - opacity).transpose(2, 0, 1)
    for kind, planes in itertools.product((1, 257), ("contig", "separate")):
        file, values = io.BytesIO(), pixels.astype(np.uint8 if kind == 1 else np.uint16) * kind
        values = values if planes == "contig" else values.transpose(2, 0, 1)
        tifffile.imwrite(file, values, photometric="rgb", planarconfig=planes, extrasamples=["assocalpha"])
        assert np.abs(decode_bytes(file.getvalue(), ImageRule()).astype(int) - right).max() <= 1


GREY8, RGB8 = (smooth(channels, np.dtype(np.uint8)) for channels in (1, 3))
REFUSED = {
    "floating-point": [GREY8[..., 0].astype(kind) for kind in ("f2", "f4", "f8")],
    "32-bit or signed": [GREY8[..., 0].astype(kind) for kind in ("i1", "i2", "u4", "i4")],
}


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("reason", sorted(REFUSED))
def test_numbers_without_black_and_white_are_refused_by_name(reason, order, compression):
    for pixels in REFUSED[reason]:
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, byteorder=order, compression=compression, photometric="minisblack")
        with pytest.raises(UnreadableError, match=reason):
            decode_bytes(file.getvalue(), ImageRule())


@pytest.mark.parametrize(
    ("pixels", "options", "reason"),
    [
        (RGB8, {"photometric": "cielab"}, "CIELAB"),
        (np.dstack([RGB8, GREY8]), {"photometric": "separated", "planarconfig": "contig"}, "CMYK"),
        (np.dstack([RGB8, GREY8]).transpose(2, 0, 1), {"photometric": "separated"}, "CMYK"),
        (RGB8, {"photometric": "minisblack", "planarconfig": "contig"}, "3 channels, which are neither"),
        (GREY8[..., 0], {"photometric": "cfa"}, "CFA"),
        (
            GREY8[..., 0].astype(np.uint16),
            {"photometric": "palette", "colormap": np.zeros((3, 2**16), np.uint16)},
            "palette has 16 bits; convert the file to RGB",
        ),
        (GREY8[..., 0].astype(np.uint16), {"photometric": "minisblack", "compression": "jpeg"}, "12 bits"),
        (np.stack([RGB8] * 3), {"photometric": "rgb", "volumetric": True, "tile": (16, 16, 16)}, "volume"),
    ],
)
def test_other_kinds_are_refused_by_name(pixels, options, reason):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    with pytest.raises(UnreadableError, match=reason) as caught:
        decode_bytes(file.getvalue(), ImageRule())
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("kinds", [(0, 1, 1), (1, 0), (0,)])
def test_smaller_copies_and_masks_are_no_pages(kinds):
    """In a TIFF of several resolutions, the whole picture is read."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for number, kind in enumerate(kinds):
            page = RGB8 if kind == 0 else RGB8[:: number + 2, :: number + 2]
            tiff.write(page, photometric="rgb", subfiletype=kind)
    content = file.getvalue()
    np.testing.assert_array_equal(decode_bytes(content, ImageRule()), RGB8.transpose(2, 0, 1))
    assert read_header("a.tif", content) == (RGB8.shape[:2], 3)


def test_an_unknown_compression_is_refused_by_its_number():
    content = bytearray(written(GREY8))
    place = content.find(bytes([3, 1, 3, 0, 1, 0, 0, 0]))  # tag 259 of type 3, once
    content[place + 8 : place + 10] = (60001).to_bytes(2, "little")
    with pytest.raises(UnreadableError, match=r"compression \(60001\) is not supported"):
        decode_bytes(bytes(content), ImageRule())


WHOLE = {
    "planes": written(smooth(3, np.dtype(np.uint16)), planar=True),
    "strips": written(smooth(3, np.dtype(np.uint16)), planar=True, compression="lzw", rowsperstrip=7),
    "tiles": written(RGB8, compression="zstd", tile=(16, 16)),
    "bits": written(smooth(1, np.dtype(np.uint16)), white=True),
}


@given(st.sampled_from(sorted(WHOLE)), st.floats(0, 1, exclude_max=True))
def test_cut_files_are_never_read(kind, share):
    with pytest.raises(UnreadableError):
        decode_bytes(WHOLE[kind][: int(share * len(WHOLE[kind]))], ImageRule())


@settings(max_examples=200)
@given(st.sampled_from(sorted(WHOLE)), st.lists(st.tuples(st.integers(0, 2**12), st.integers(0, 255)), max_size=8))
def test_damaged_files_are_read_or_refused_and_nothing_else(kind, changes):
    content = bytearray(WHOLE[kind])
    for place, value in changes:
        content[place % len(content)] = value
    with contextlib.suppress(UnreadableError):
        assert decode_bytes(bytes(content), ImageRule((6, 6), 3)).shape == (3, 6, 6)

"""JPEG 2000 files are written without loss, and all that stands around their pixels is copied."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from vaeguard import UnreadableError
from vaeguard.restoration.formats.jpeg2000 import boxes, codestream_of
from vaeguard.restoration.formats.scans import facts_of, page_sizes, rewrite, scan_pages

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pixels(channels=3, dtype=np.uint8, height=70, width=50):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def encoded(image, **options):
    return bytes(imagecodecs.jpeg2k_encode(image, level=0, reversible=True, **{"codecformat": "jp2", **options}))


def box(kind, data):
    return struct.pack(">I4s", 8 + len(data), kind) + data


def with_boxes(content, inner=(), outer=(), *, drop=b""):
    """A file with more boxes in its header and at its end."""
    made = b""
    for kind, head, data in boxes(content):
        if kind == b"jp2h":
            own = b"".join(box(name, more) for name, _, more in boxes(data) if name != drop)
            made += box(kind, own + b"".join(box(*more) for more in inner))
        else:
            made += head + data
    return made + b"".join(box(*more) for more in outer)


def inverted(page):
    return np.iinfo(page.pixels.dtype).max - page.pixels


def exif():
    made = Image.Exif()
    made[274] = 6
    return b"JpgTiffExif->JP2" + made.tobytes().removeprefix(b"Exif\0\0")


SHOWN, SCANNED = (1, 1, 1, 1, 0, 0), (11811, 1, 11811, 2, 0, 0)
RESOLUTION = (
    b"res ",
    b"".join(box(kind, struct.pack(">4Hbb", *data)) for kind, data in ((b"resd", SHOWN), (b"resc", SCANNED))),
)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
OUTER = [
    (b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP),
    (b"uuid", exif()),
    (b"xml ", b"<a/>"),
]


@pytest.mark.parametrize("codecformat", ["jp2", "j2k"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_are_written_without_loss(channels, dtype, codecformat, tmp_path):
    name = f"a.{codecformat}"
    content, target = encoded(pixels(channels, dtype), codecformat=codecformat), tmp_path / name
    assert page_sizes(content, name) == [(70, 50)]
    (before,) = scan_pages(content, name)
    assert np.array_equal(before.pixels, pixels(channels, dtype))
    rewrite(content, name, target, inverted)
    (after,) = scan_pages(target.read_bytes(), name)
    assert np.array_equal(after.pixels, inverted(before))
    assert facts_of(target.read_bytes(), name) == facts_of(content, name)


def test_profile_resolution_and_all_other_boxes_are_copied(tmp_path):
    profile = (b"colr", b"\x02\0\0" + ICC)
    content = with_boxes(encoded(pixels()), [profile, RESOLUTION], OUTER, drop=b"colr")
    target = tmp_path / "a.jp2"
    rewrite(content, "a.jp2", target, inverted)
    (page,), (facts,) = scan_pages(target.read_bytes(), "a.jp2"), facts_of(target.read_bytes(), "a.jp2")
    assert (page.dpi, page.orientation) == (pytest.approx(150, abs=0.01), 6)
    assert (facts.dpi, facts.icc, facts.xmp) == ((150, 300), ICC, XMP)
    old, new = (
        [(kind, data) for kind, _, data in boxes(file) if kind != b"jp2c"] for file in (content, target.read_bytes())
    )
    assert old == new
    with Image.open(target) as image:
        assert image.info["dpi"] == pytest.approx((150, 300), abs=0.01)


@pytest.mark.parametrize("resolution", [(0, 0, 0, 0, 0, 0), (0, 1, 300, 0, 0, 0), (1, 1, 65535, 1, 127, 127), ()])
def test_any_resolution_is_kept(resolution, tmp_path):
    data = struct.pack(">4Hbb", *resolution) if resolution else b""
    content = with_boxes(encoded(pixels()), [(b"res ", box(b"resc", data))])
    rewrite(content, "a.jp2", tmp_path / "a.jp2", inverted)
    assert box(b"resc", data) in (tmp_path / "a.jp2").read_bytes()


def test_comments_among_the_pixels_are_kept(tmp_path):
    stream = encoded(pixels(), codecformat="j2k")
    comment = b"\xff\x64" + struct.pack(">HH", 4 + 5, 1) + b"hello"
    size = 4 + int.from_bytes(stream[4:6])
    content = stream[:size] + comment + stream[size:]
    rewrite(content, "a.j2k", tmp_path / "a.j2k", inverted)
    written = (tmp_path / "a.j2k").read_bytes()
    assert written.count(comment) == 1
    assert written.count(b"OpenJPEG") == content.count(b"OpenJPEG")


def test_a_page_that_does_not_change_is_copied(tmp_path):
    content = with_boxes(encoded(pixels()), outer=OUTER)
    rewrite(content, "a.jp2", tmp_path / "a.jp2", lambda page: page.pixels)
    assert (tmp_path / "a.jp2").read_bytes() == content


def of_bits(bits):
    content = bytearray(encoded(pixels()))
    content[content.index(b"\xff\x4f\xff\x51") + 42] = bits
    return bytes(content)


PALETTE = (b"pclr", struct.pack(">HB", 1, 3) + b"\7\7\7" + bytes(3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(pixels(), colorspace="SYCC"), "its pixels are YCbCr; convert it"),
        (encoded(pixels(4), colorspace="CMYK"), "its pixels are CMYK; convert it"),
        (encoded(pixels(1, np.uint16) >> 4, bitspersample=12), "its pixels are of 12 bits; convert it"),
        (of_bits(0x87), "its pixels are signed; convert it"),
        (with_boxes(encoded(pixels(1)), [PALETTE]), "its pixels are indexed; convert it"),
        (
            with_boxes(encoded(pixels(4)), [(b"colr", b"\2\0\0" + ICC.replace(b"RGB ", b"CMYK"))], drop=b"colr"),
            "are CMYK",
        ),
        (with_boxes(encoded(pixels()), [(b"colr", b"\2\0\0" + ICC.replace(b"RGB ", b"HSV "))], drop=b"colr"), "other"),
        (
            with_boxes(encoded(pixels()), [(b"cdef", struct.pack(">10H", 3, 0, 0, 3, 1, 0, 2, 2, 0, 1))]),
            "other colours",
        ),
        (with_boxes(encoded(pixels(4)), [(b"cdef", struct.pack(">4H", 1, 0, 1, 0) + bytes(18))]), "other colours"),
        (encoded(pixels())[:-500], "longer than the file"),
        (codestream_of(encoded(pixels()))[:-500], "damaged or cut short"),
        (encoded(pixels())[:30], "damaged or cut short"),
    ],
)
def test_other_kinds_are_refused_by_name(content, message, tmp_path):
    with pytest.raises(UnreadableError, match=message):
        rewrite(content, "a.jp2", tmp_path / "a.jp2", inverted)


@pytest.mark.parametrize("kind", ["jpeg2000", "aperio_jp2000_rgb"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_jpeg_2000_in_a_tiff_stays_without_loss(dtype, kind, tmp_path):
    file, image = io.BytesIO(), pixels(3, dtype)
    options = {"compressionargs": {"level": 0, "reversible": True}, "iccprofile": ICC, "resolution": (300, 300)}
    tifffile.imwrite(file, image, photometric="rgb", compression=kind, **options)
    rewrite(file.getvalue(), "a.tif", tmp_path / "a.tif", inverted)
    with tifffile.TiffFile(tmp_path / "a.tif") as written:
        assert written.pages[0].compression == tifffile.COMPRESSION.JPEG2000
        assert np.array_equal(written.asarray(), np.iinfo(dtype).max - image)
    assert facts_of((tmp_path / "a.tif").read_bytes(), "a.tif") == facts_of(file.getvalue(), "a.tif")

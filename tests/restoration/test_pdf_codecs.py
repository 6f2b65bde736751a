"""Pictures in PDFs keep their codec."""

import base64
import io
import zlib

import imagecodecs
import numpy as np
import pikepdf
import pytest
from pikepdf import Array, Dictionary, Name
from PIL import Image, JpegImagePlugin

from vaeguard.restoration.formats.jpeg2000 import boxes
from vaeguard.restoration.formats.pdf_codecs import Source, decoded, replace, source_of
from vaeguard.restoration.formats.scan_format import Coding
from vaeguard.restoration.nearness import difference

AS_IT_CAME = Coding()


@pytest.fixture
def scene():
    """A smooth picture in colour with edges and a little grain."""
    rows, columns = np.mgrid[:120, :160]
    plane = 120 + 60 * np.sin(columns / 17) + 40 * np.cos(rows / 11)
    plane[30:60, 40:90] = 230
    colours = np.stack([plane, 0.8 * plane + 20, 255 - plane], -1)
    return np.clip(colours + np.random.default_rng(0).normal(0, 3, colours.shape), 0, 255).astype(np.uint8)


def stream(data, shape, **entries):
    """A PDF and its picture; the document must stay alive while the picture is used."""
    document = pikepdf.new()
    picture = pikepdf.Stream(document, data)
    space = Name.DeviceRGB if len(shape) == 3 else Name.DeviceGray
    entries = {"Width": shape[1], "Height": shape[0], "BitsPerComponent": 8, "ColorSpace": space, **entries}
    picture.stream_dict = Dictionary(Type=Name.XObject, Subtype=Name.Image, **entries)
    document.pages.append(pikepdf.Page(Dictionary(Type=Name.Page, MediaBox=[0, 0, 9, 9])))
    document.pages[0].Resources = Dictionary(XObject=Dictionary(image=document.make_indirect(picture)))
    return document, document.pages[0].Resources.XObject.image


def jpeg(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def header(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [
    {"quality": 40, "subsampling": 2}, {"quality": 75, "subsampling": 1, "progressive": True},
    {"quality": 95, "subsampling": 0},
])  # fmt: skip
def test_a_jpeg_keeps_its_tables_subsampling_and_size(channels, options, scene):
    pixels = scene if channels == 3 else scene[..., 0]
    before = jpeg(pixels, **options)
    _document, picture = stream(before, pixels.shape, Filter=Name.DCTDecode)
    original, source = decoded(picture), source_of(picture)
    assert replace(picture, original, source, AS_IT_CAME, 1) == "JPEG"
    after = bytes(picture.read_raw_bytes())
    assert picture.Filter == Name.DCTDecode
    assert header(after).quantization == header(before).quantization
    assert JpegImagePlugin.get_sampling(header(after)) == JpegImagePlugin.get_sampling(header(before))
    assert ("progressive" in header(after).info) == ("progressive" in header(before).info)
    assert len(after) <= 1.02 * len(before)
    assert difference(decoded(picture), original) < 3  # equal quantisation loses almost nothing


def test_finer_steps_lose_less_and_the_last_nothing(scene):
    before = jpeg(scene, quality=50)
    _document, picture = stream(before, scene.shape, Filter=Name.DCTDecode)
    source, lost = source_of(picture), []
    for finer in AS_IT_CAME.steps:
        codec = replace(picture, scene, source, AS_IT_CAME, finer)
        assert codec == {0: "Flate", 1: "JPEG"}.get(finer, "JPEG with less loss")
        lost.append(difference(decoded(picture), scene))
        if finer:
            steps = np.array(header(before).quantization[0]) / finer
            assert header(bytes(picture.read_raw_bytes())).quantization[0] == pytest.approx(steps, abs=0.5)
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] == 0


def test_a_jpeg_has_the_given_quality(scene):
    _document, picture = stream(jpeg(scene, quality=50), scene.shape, Filter=Name.DCTDecode)
    replace(picture, scene, source_of(picture), Coding(jpeg=90), 1)
    assert header(bytes(picture.read_raw_bytes())).quantization == header(jpeg(scene, quality=90)).quantization


@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_2000_keeps_its_size_and_wavelet(channels, reversible, scene):
    pixels = scene if channels == 3 else scene[..., 0]
    before = imagecodecs.jpeg2k_encode(pixels, level=0 if reversible else 40, reversible=reversible, codecformat="jp2")
    _document, picture = stream(bytes(before), pixels.shape, Filter=Name.JPXDecode)
    smooth = pixels // 4 * 4
    assert replace(picture, smooth, source_of(picture), AS_IT_CAME, 1) == "JPEG 2000"
    after = bytes(picture.read_raw_bytes())
    assert picture.Filter == Name.JPXDecode
    assert len(after) <= 1.05 * len(before) + 100
    assert (after[after.index(b"\xff\x52") + 13] == 1) == reversible
    assert difference(decoded(picture), smooth) < 3


@pytest.mark.parametrize("finer", [1, 0])
def test_the_boxes_of_a_jpeg_2000_are_kept(finer, scene):
    data = bytes(imagecodecs.jpeg2k_encode(scene, level=40, codecformat="jp2"))
    more = b"\0\0\0\x0cxml <a/>" + b"\0\0\0\x18uuid" + bytes(16)
    _document, picture = stream(data + more, scene.shape, Filter=Name.JPXDecode)
    replace(picture, scene, source_of(picture), AS_IT_CAME, finer)
    files = data + more, bytes(picture.read_raw_bytes())
    before, after = ([box for box in boxes(file) if box[0] != b"jp2c"] for file in files)
    assert before == after
    assert finer or np.array_equal(decoded(picture), scene)


def test_low_strips_stay_jpeg_2000(scene):
    strip = scene[:9]
    _document, picture = stream(bytes(imagecodecs.jpeg2k_encode(strip, level=40)), strip.shape, Filter=Name.JPXDecode)
    assert replace(picture, strip, source_of(picture), AS_IT_CAME, 1) == "JPEG 2000"


@pytest.mark.parametrize("print_", [True, False])
def test_lossless_pictures_are_predicted_if_that_is_smaller(print_, scene):
    rng = np.random.default_rng(1)
    # Prediction hides the repetition of letters.
    letters = np.kron(np.tile(rng.integers(0, 2, (15, 5)), (1, 4)), np.full((8, 8), 255))
    speckled = np.where(rng.random(letters.shape) < 0.02, 90, letters).astype(np.uint8)
    pixels = speckled if print_ else scene
    _document, picture = stream(zlib.compress(pixels.tobytes()), pixels.shape, Filter=Name.FlateDecode)
    assert replace(picture, pixels, source_of(picture), AS_IT_CAME, 1) == "Flate"
    assert np.array_equal(decoded(picture), pixels)
    assert (Name.DecodeParms in picture) != print_
    assert len(picture.read_raw_bytes()) <= 1.02 * len(zlib.compress(pixels.tobytes(), 6))


def test_entries_of_an_old_filter_are_removed(scene):
    grey = scene[..., 0]
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    entries = Dictionary(Predictor=15, Colors=1, BitsPerComponent=8, Columns=grey.shape[1])
    _document, picture = stream(zlib.compress(rows), grey.shape, Filter=Name.FlateDecode, DecodeParms=entries)
    noise = np.random.default_rng(0).integers(0, 256, grey.shape).astype(np.uint8)  # noise cannot be predicted
    replace(picture, noise, source_of(picture), AS_IT_CAME, 1)
    assert np.array_equal(decoded(picture), noise)


@pytest.mark.parametrize("adobe", [True, False])
def test_a_jpeg_of_rgb_is_read_as_rgb(adobe, scene):
    scene[20:60, 20:60] = (200, 30, 40)
    data = bytearray(imagecodecs.jpeg_encode(scene, level=95, colorspace="RGB", outcolorspace="RGB", subsampling="444"))
    if not adobe:  # only the PDF states the colour transform
        start = data.find(b"\xff\xee")
        del data[start : start + 2 + int.from_bytes(data[start + 2 : start + 4])]
        for mark, first, step in ((b"\xff\xc0", 9, 3), (b"\xff\xda", 4, 2)):
            place = data.find(mark) + first
            for channel in range(3):
                data[place + 1 + step * channel] = channel + 1
    entries = {} if adobe else {"DecodeParms": Dictionary(ColorTransform=0)}
    _document, picture = stream(bytes(data), scene.shape, Filter=Name.DCTDecode, **entries)
    assert difference(decoded(picture), scene) < 3
    assert replace(picture, scene, source_of(picture), AS_IT_CAME, 1) == "JPEG"
    assert difference(decoded(picture), scene) < 3
    # A viewer that ignores the entry of the PDF shows the same colours.
    assert difference(np.asarray(header(bytes(picture.read_raw_bytes()))), scene) < 3


def test_the_colour_transform_of_a_jpeg_overrides_that_of_the_pdf(scene):
    data = jpeg(scene, quality=90)
    marked = data[:2] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x01" + data[2:]
    entries = Dictionary(ColorTransform=0)
    _document, picture = stream(marked, scene.shape, Filter=Name.DCTDecode, DecodeParms=entries)
    assert np.array_equal(decoded(picture), np.asarray(header(data)))


@pytest.mark.parametrize("packed", [
    (zlib.compress, [Name.FlateDecode], None),
    (lambda data: base64.a85encode(zlib.compress(data)) + b"~>", [Name.ASCII85Decode, Name.FlateDecode], None),
    (zlib.compress, [Name.FlateDecode], [None, Dictionary(ColorTransform=1)]),
    (lambda data: zlib.compress(b"".join(b"\0%c" % byte for byte in data)), [Name.FlateDecode],
     [Dictionary(Predictor=15, Columns=1), None]),
])  # fmt: skip
def test_a_jpeg_that_is_packed_once_more_is_recognised(packed, scene):
    pack, filters, entries = packed
    data = jpeg(scene, quality=60)
    more = {"DecodeParms": Array(entries)} if entries else {}
    _document, picture = stream(pack(data), scene.shape, Filter=Array([*filters, Name.DCTDecode]), **more)
    assert source_of(picture) == Source("/DCTDecode", data)
    assert replace(picture, scene, source_of(picture), AS_IT_CAME, 1) == "JPEG"
    assert header(bytes(picture.read_raw_bytes())).quantization == header(data).quantization


def test_near_pictures_are_accepted(scene):
    far = scene ^ 16
    assert difference(scene, far) == 16
    assert AS_IT_CAME.accepts(scene, scene)
    assert not AS_IT_CAME.accepts(scene, far)
    assert Coding(jpeg=5).accepts(scene, far)  # the quality was asked for
    assert (Coding(lossless=True).steps, Coding(jpeg=5).steps) == ((0,), (1, 0))

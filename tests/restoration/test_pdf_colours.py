"""Pictures of a PDF have the colours that viewers show, before and after, or stay as they are."""

import io
import shutil
import subprocess
import zlib

import imagecodecs
import numpy as np
import pikepdf
import pytest
from pikepdf import Array, Dictionary, Name, Stream
from PIL import Image, ImageCms

from vaeguard.restoration.formats.scans import rewrite, scan_pages

HEIGHT, WIDTH = 96, 112
PATCHES = {(10, 10): (200, 30, 40), (10, 80): (20, 160, 60), (80, 10): (30, 60, 190), (48, 56): (150, 150, 150)}
WHITE_POINT = Dictionary(WhitePoint=Array([0.95, 1, 1.09]))
LAB = [Name.Lab, WHITE_POINT]
PALETTE = [Name.Indexed, Name.DeviceRGB, 255, pikepdf.String(bytes(range(256)) * 3)]


def scene():
    image = np.full((HEIGHT, WIDTH, 3), 150, np.uint8)
    for (row, column), colour in PATCHES.items():
        image[row - 8 : row + 8, column - 8 : column + 8] = colour
    return image


GREY = scene()[..., 0].copy()


def jpeg(image, stored="YCbCr", *, ids=None, adobe=None, jfif=False):
    """A JPEG with none but the given statements of its colours."""
    space = "GRAYSCALE" if image.ndim == 2 else stored
    own = "GRAYSCALE" if image.ndim == 2 else "RGB" if image.shape[2] == 3 else "CMYK"
    data = imagecodecs.jpeg8_encode(image, level=97, colorspace=own, outcolorspace=space, subsampling="444")
    at, rest = 2, bytearray()
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        rest += data[at:end] if data[at + 1] not in (0xE0, 0xEE) else b""
        at = end
    head = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" * jfif
    head += b"" if adobe is None else b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([adobe])
    made = bytearray(data[:2] + head + rest + data[at:])
    for mark, first, step in ((b"\xff\xc0", 9, 3), (b"\xff\xda", 4, 2)):
        place = made.find(mark) + first
        for channel in range(made[place]):
            made[place + 1 + step * channel] = ids[channel] if ids else channel + 1
    return bytes(made)


def jp2(image, **options):
    return bytes(imagecodecs.jpeg2k_encode(image, level=0, reversible=True, **{"codecformat": "jp2", **options}))


def flate(image):
    return zlib.compress(np.ascontiguousarray(image).tobytes())


def profile(kind, channels, **entries):
    """A colour space whose profile is of a kind that Pillow makes, or is broken."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile(kind)).tobytes() if kind else b"broken"
    return lambda made: Array([Name.ICCBased, made.make_indirect(Stream(made, data, N=channels, **entries))])


def opacity(**entries):
    return lambda made: made.make_indirect(
        Stream(made, flate(GREY), Type=Name.XObject, Subtype=Name.Image, Width=WIDTH, Height=HEIGHT,
               BitsPerComponent=8, ColorSpace=Name.DeviceGray, Filter=Name.FlateDecode, **entries)
    )  # fmt: skip


def document(data, entries):
    made = pikepdf.new()
    picture = Stream(made, data)
    default = {"Type": Name.XObject, "Subtype": Name.Image, "Width": WIDTH, "Height": HEIGHT, "BitsPerComponent": 8}
    for key, value in {**default, **entries}.items():
        picture[f"/{key}"] = value(made) if callable(value) else Array(value) if isinstance(value, list) else value
    page = made.add_blank_page(page_size=(WIDTH, HEIGHT))
    page.Resources = Dictionary(XObject=Dictionary(Im0=made.make_indirect(picture)))
    page.Contents = made.make_stream(b"q %d 0 0 %d 0 0 cm /Im0 Do Q" % (WIDTH, HEIGHT))
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


def dct(data, *, space=Name.DeviceRGB, **entries):
    return data, {"Filter": Name.DCTDecode, "ColorSpace": space, **entries}


def jpx(data, *, space=Name.DeviceRGB, **entries):
    return data, {"Filter": Name.JPXDecode, **({"ColorSpace": space} if space else {}), **entries}


def raw(data, *, space=Name.DeviceRGB, **entries):
    return data, {"Filter": Name.FlateDecode, "ColorSpace": space, **entries}


def transform(value):
    return Dictionary(ColorTransform=value)


RGB = scene()
AS_RGB = jpeg(RGB, "RGB")
RESTORED = {
    "YCbCr": dct(jpeg(RGB)),
    "YCbCr in JFIF": dct(jpeg(RGB, jfif=True)),
    "YCbCr by Adobe against the PDF": dct(jpeg(RGB, adobe=1), DecodeParms=transform(0)),
    "RGB by the PDF": dct(AS_RGB, DecodeParms=transform(0)),
    "RGB by the PDF in JFIF": dct(jpeg(RGB, "RGB", jfif=True), DecodeParms=transform(0)),
    "RGB by the PDF in a list": dct(AS_RGB, DecodeParms=[transform(0)], Filter=[Name.DCTDecode]),
    "RGB by the PDF with a profile": dct(AS_RGB, DecodeParms=transform(0), space=profile("sRGB", 3)),
    "RGB packed once more": dct(
        zlib.compress(AS_RGB), Filter=[Name.FlateDecode, Name.DCTDecode], DecodeParms=[None, transform(0)]
    ),
    "RGB by Adobe": dct(jpeg(RGB, "RGB", adobe=0)),
    "RGB by Adobe in JFIF": dct(jpeg(RGB, "RGB", adobe=0, jfif=True)),
    "RGB by Adobe against the PDF": dct(jpeg(RGB, "RGB", adobe=0), DecodeParms=transform(1)),
    "RGB by the names of components": dct(jpeg(RGB, "RGB", ids=b"RGB")),
    "YCbCr by the PDF against the names": dct(jpeg(RGB, ids=b"RGB"), DecodeParms=transform(1)),
    "YCbCr, parameters that viewers ignore": dct(jpeg(RGB), DecodeParms=[transform(0)]),
    "YCbCr behind a few bytes": dct(b"\r\n" + jpeg(RGB)),
    "YCbCr by an abbreviation": dct(jpeg(RGB), Filter=Name.DCT),
    "grey": dct(jpeg(GREY), space=Name.DeviceGray, DecodeParms=transform(0)),
    "JPEG 2000": jpx(jp2(RGB)),
    "JPEG 2000 stream": jpx(jp2(RGB, codecformat="j2k"), space=profile("sRGB", 3)),
    "JPEG 2000 by itself": jpx(jp2(RGB), space=None),
    "grey JPEG 2000": jpx(jp2(GREY), space=Name.DeviceGray),
    "raw": raw(flate(RGB)),
    "raw grey": raw(flate(GREY), space=Name.DeviceGray),
    "raw with a profile": raw(flate(RGB), space=profile("sRGB", 3, Alternate=Name.DeviceRGB)),
    "raw with a broken profile": raw(flate(RGB), space=profile(None, 3)),
    "raw with a plain Decode": raw(flate(RGB), Decode=[0, 1, 0, 1, 0, 1]),
}
LEFT = {
    "grey in RGB": (dct(jpeg(GREY)), "of a different shape than the PDF says"),
    "RGB in grey": (jpx(jp2(RGB), space=Name.DeviceGray), "of a different shape than the PDF says"),
    "RGB with one channel": (dct(jpeg(RGB), space=profile("sRGB", 1)), "of a different shape than the PDF says"),
    "CMYK": (dct(jpeg(np.dstack([RGB, GREY]), "CMYK", adobe=0), space=Name.DeviceCMYK, Decode=[1, 0] * 4), "CMYK"),
    "YCCK": (dct(jpeg(np.dstack([RGB, GREY]), "YCCK", adobe=2), space=Name.DeviceCMYK), "CMYK"),
    "Lab": (dct(jpeg(RGB), space=LAB), "CIELAB"),
    "Lab profile": (raw(flate(RGB), space=profile("LAB", 3)), "CIELAB"),
    "broken profile, Lab instead": (raw(flate(RGB), space=profile(None, 3, Alternate=Array(LAB))), "CIELAB"),
    "other alternate": (raw(flate(RGB), space=profile("sRGB", 3, Alternate=Name.DeviceGray)), "of other colours"),
    "no channels": (raw(flate(RGB), space=[Name.ICCBased, Dictionary()]), "with unclear entries"),
    "palette": (dct(jpeg(GREY), space=PALETTE), "indexed"),
    "inverted": (dct(jpeg(GREY), space=Name.DeviceGray, Decode=[1, 0]), "inverted by /Decode"),
    "half the levels": (raw(flate(GREY), space=Name.DeviceGray, Decode=[0, 0.5]), "with a /Decode of its own"),
    "short Decode": (raw(flate(RGB), Decode=[0, 1]), "with a /Decode of its own"),
    "no levels": (raw(flate(RGB), Decode=Name.x), "with unclear entries"),
    "abbreviated": (dct(AS_RGB, DP=transform(0)), "with unclear entries"),
    "unknown filter": (raw(RGB.tobytes(), Filter=Name.Foo), "of an unknown codec"),
    "no width": (raw(flate(RGB), Width=Name.x), "small"),
    "not a whole number": (dct(AS_RGB, DecodeParms=Dictionary(ColorTransform=0.5)), "with unclear entries"),
    "lossless JPEG": (dct(imagecodecs.ljpeg_encode(GREY), space=Name.DeviceGray), "lossless JPEG"),
    "JPEG 2000 of 16 bits": (jpx(jp2(RGB.astype(np.uint16) * 257)), "of 16 bits"),
    "JPEG 2000 of YCbCr": (jpx(jp2(RGB, colorspace="SYCC")), "YCbCr"),
    "JPEG 2000 with opacity": (jpx(jp2(np.dstack([RGB, GREY]))), "mixed with its opacity"),
    "soft mask with a matte": (raw(flate(RGB), SMask=opacity(Matte=Array([0, 0, 0]))), "mixed with its opacity"),
    "colour as a mask": (raw(flate(RGB), Mask=[0, 9] * 3), "masked by colour"),
    "spot colour": (raw(flate(GREY), space=[Name.Separation, Name.Spot, Name.DeviceGray, {}]), "of other colours"),
    "4 bits": (raw(flate(GREY), space=Name.DeviceGray, BitsPerComponent=4), "of 4 bits"),
    "16 bits": (raw(flate(GREY.astype(">u2")), space=Name.DeviceGray, BitsPerComponent=16), "of 16 bits"),
}  # fmt: skip


def blackened(page):
    """The page with a black corner."""
    pixels = page.pixels.copy()
    pixels[-16:, -16:] = 0
    return pixels


def shows_the_patches(pixels):
    colours = pixels if pixels.ndim == 3 else pixels[..., None]
    for (row, column), colour in PATCHES.items():
        assert np.allclose(colours[row, column], colour[: colours.shape[2]], atol=4), (row, column)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("case", RESTORED)
def test_a_restored_picture_has_its_colours(case, lossless, tmp_path):
    content, target = document(*RESTORED[case]), tmp_path / "a.pdf"
    result = rewrite(content, "a.pdf", target, blackened, lossless=lossless)
    assert result.left == []
    after = target.read_bytes()
    for before_or_after in (content, after):
        (page,) = scan_pages(before_or_after, "a.pdf")
        shows_the_patches(page.pixels)
    with pikepdf.open(target) as written:
        picture = written.pages[0].Resources.XObject.Im0
        if picture.Filter == Name.DCTDecode:  # a JPEG that needs no word of the PDF
            assert Name.DecodeParms not in picture
            shows_the_patches(np.asarray(Image.open(io.BytesIO(picture.read_raw_bytes()))))
    shown = [rendered(source, tmp_path) for source in (content, after)]
    if shown[0] is not None and case != "JPEG 2000 by itself":
        assert np.abs(shown[0][:76] - shown[1][:76]).mean() < 1
        assert shown[1][-10:, -10:].max() < 12


@pytest.mark.parametrize("case", LEFT)
def test_another_picture_stays_and_is_named(case, tmp_path):
    (data, entries), kind = LEFT[case]
    content = document(data, entries)
    result = rewrite(content, "a.pdf", tmp_path / "a.pdf", blackened)
    assert (result.left, result.codecs) == ([(1, kind)], {})
    assert (tmp_path / "a.pdf").read_bytes() == content


def rendered(content, folder):
    """The page as another program draws it, if there is one."""
    if not shutil.which("pdftoppm"):
        return None
    (folder / "drawn.pdf").write_bytes(content)
    subprocess.run(["pdftoppm", "-r", "72", "-singlefile", "drawn.pdf", "drawn"], cwd=folder, check=True)
    with Image.open(folder / "drawn.ppm") as image:
        return np.asarray(image.convert("RGB")).astype(float)

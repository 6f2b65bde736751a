"""Scans of every format are rewritten without losing metadata."""

import contextlib
import hashlib
import io
import struct
from xml.etree import ElementTree as ET

import imagecodecs
import numpy as np
import pikepdf
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from vaeguard import RefusedError, UnreadableError
from vaeguard.data.encodings import jpeg_segments
from vaeguard.restoration.formats.jpeg import segment
from vaeguard.restoration.formats.scans import _check_facts, facts_of, page_sizes, rewrite, scan_pages, written_name
from vaeguard.restoration.formats.tiff_directories import amend, resolution_of

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"


def exif():
    made = Image.Exif()
    made[0x010F] = "Maker"
    made[0x0112] = 6
    made.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    made.get_ifd(0x8825)[1] = "N"
    return made


def pixels(channels=1, dtype=np.uint8, height=40, width=30, seed=0):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def picture(kind, image, **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def inverted(page):
    if page.pixels.dtype == np.bool_:
        return page.pixels
    return (np.iinfo(page.pixels.dtype).max - page.pixels).astype(page.pixels.dtype)


def check(content, name, tmp_path, pages=1, jpeg=None):
    """Invert a scan, rewrite the written file, compare the pixels of both, and return the file."""
    first_pages, second_pages = [], []

    def first(page):
        first_pages.append(page)
        return inverted(page)

    def second(page):
        second_pages.append(page)
        return page.pixels

    target = tmp_path / written_name(name, jpeg=jpeg)
    rewrite(content, name, target, first, jpeg=jpeg, lossless=not jpeg)
    rewrite(target.read_bytes(), target.name, tmp_path / f"again{target.suffix}", second)
    assert len(first_pages) == len(second_pages) == pages
    for before, after in zip(first_pages, second_pages, strict=True):
        assert before.dpi == pytest.approx(after.dpi, abs=0.02) if before.dpi else after.dpi is None
        if not jpeg:
            np.testing.assert_array_equal(inverted(before), after.pixels)
    return target


BESIDE = {"dpi": (300, 300), "icc_profile": ICC, "exif": exif()}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(channels, dtype, tmp_path):
    content = imagecodecs.png_encode(pixels(channels, dtype))
    (facts,) = facts_of(check(content, "a.png", tmp_path).read_bytes(), "a.png")
    assert (facts.channels, facts.bits) == (channels, 8 * np.dtype(dtype).itemsize)
    if dtype == np.uint8 and channels >= 3:
        rich = picture("PNG", pixels(channels), pnginfo=None, **BESIDE)
        (facts,) = facts_of(check(rich, "a.png", tmp_path).read_bytes(), "a.png")
        assert (facts.dpi, facts.icc) == ((300, 300), ICC)
        assert len(facts.exif) == 4


def test_a_palette_becomes_colour_and_keeps_its_transparency(tmp_path):
    plain = Image.fromarray(pixels(3)).convert("P")
    (facts,) = facts_of(check(picture("PNG", plain, **BESIDE), "p.png", tmp_path).read_bytes(), "p.png")
    assert facts.channels == 3
    clear = picture("PNG", plain, transparency=0)
    (facts,) = facts_of(check(clear, "p.png", tmp_path).read_bytes(), "p.png")
    assert facts.channels == 4


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_becomes_a_png_with_its_metadata(channels, tmp_path):
    beside = BESIDE if channels == 3 else {"dpi": (300, 300), "exif": exif()}
    content = picture("JPEG", pixels(channels), comment="hello", xmp=XMP, **beside)
    target = check(content, "a.jpg", tmp_path)
    assert target.name == "a.jpg.png"
    (facts,) = facts_of(target.read_bytes(), target.name)
    assert facts.dpi == (300, 300)
    assert facts.xmp == XMP
    assert len(facts.exif) == 4
    assert b"Comment\0hello" in target.read_bytes()


@pytest.mark.parametrize("jpeg", [None, 95])
def test_captions_and_all_comments_of_a_jpeg_are_kept(jpeg, tmp_path):
    caption = "Äußere Ansicht, 1911".encode()
    resources = (
        b"8BIM\x04\x04\0\0" + (len(caption) + 5).to_bytes(4) + b"\x1c\x02\x78" + len(caption).to_bytes(2) + caption
    )
    segment = b"Photoshop 3.0\0" + resources + b"\0" * (len(resources) % 2)
    plain = picture("JPEG", pixels(3), **BESIDE)
    segments = [(b"\xff\xed", segment), (b"\xff\xfe", b"first"), (b"\xff\xfe", "Grüße".encode())]
    content = plain[:2] + b"".join(mark + (len(data) + 2).to_bytes(2) + data for mark, data in segments) + plain[2:]
    target = check(content, "a.jpg", tmp_path, jpeg=jpeg)
    (facts,) = facts_of(target.read_bytes(), target.name)
    assert caption in facts.iptc
    assert facts == facts_of(content, "a.jpg")[0]
    with Image.open(target) as after:
        after.load()
        if jpeg:
            assert [data for marker, data in after.applist if marker == "COM"] == [b"first", "Grüße".encode()]
            assert after.info["photoshop"][0x0404].endswith(caption)
        else:
            assert after.info["Comment"] == "Grüße"
            assert b"Comment\0first" in target.read_bytes()


RDF = "xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'"
DC = "xmlns:dc='http://purl.org/dc/elements/1.1/'"
NOTE = "xmlns:xmpNote='http://ns.adobe.com/xmp/note/'"


def long_xmp(main, extension, *, leave_out=None):
    """A JPEG with XMP in one segment and its extension in others, in reverse order."""
    digest = hashlib.md5(extension).hexdigest().upper()
    plain = picture("JPEG", pixels(3, height=90, width=90), quality=95, xmp=main.replace("DIGEST", digest).encode())
    parts = [extension[at : at + 60000] for at in range(0, len(extension), 60000)]
    more = [
        b"http://ns.adobe.com/xmp/extension/\0"
        + digest.encode() + struct.pack(">II", len(extension), number * 60000) + part
        for number, part in reversed([*enumerate(parts)]) if number != leave_out
    ]  # fmt: skip
    return plain[:20] + b"".join(segment(0xE1, data) for data in more) + plain[20:]


LONG_XMP = {
    "descriptions": (
        (
            f"<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF {RDF}><rdf:Description {NOTE} "
            "xmpNote:HasExtendedXMP='DIGEST'/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
        ),
        (
            f"<x:xmpmeta xmlns:x='adobe:ns:meta/' {DC}><rdf:RDF {RDF}><rdf:Description><dc:source>{'k' * 90000}"
            "</dc:source></rdf:Description></rdf:RDF></x:xmpmeta>"
        ),
    ),
    "an element names the digest": (
        (
            f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF {RDF}><rdf:Description {NOTE}>"
            "<xmpNote:HasExtendedXMP>DIGEST</xmpNote:HasExtendedXMP></rdf:Description></rdf:RDF></x:xmpmeta>"
        ),
        f"<rdf:RDF {RDF} {DC}><rdf:Description dc:source='{'k' * 90000}'/></rdf:RDF>",
    ),
    "not quite XMP": (
        "<x:xmpmeta xmlns:x='adobe:ns:meta/' xmpNote:HasExtendedXMP='DIGEST'/>",
        f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{'k' * 90000}</x:xmpmeta>",
    ),
}


@pytest.mark.parametrize("jpeg", [None, 95])
@pytest.mark.parametrize("case", LONG_XMP)
def test_long_xmp_of_a_jpeg_is_joined_in_a_png_and_kept_in_a_jpeg(case, jpeg, tmp_path):
    main, extension = LONG_XMP[case]
    content = long_xmp(main, extension.encode())
    target = check(content, "a.jpg", tmp_path, jpeg=jpeg)
    (before,), (after,) = facts_of(content, "a.jpg"), facts_of(target.read_bytes(), target.name)
    assert before == after
    assert b"k" * 90000 in after.xmp
    assert b"HasExtendedXMP" not in after.xmp
    if case != "not quite XMP":
        assert "{http://purl.org/dc/elements/1.1/}source" in str(
            [(element.tag, element.attrib) for element in ET.fromstring(after.xmp).iter()]
        )
    if jpeg:
        old, new = (
            {data for marker, data in jpeg_segments(file) if marker == 0xE1} for file in (content, target.read_bytes())
        )
        assert old == new


def with_segments(*more):
    plain = picture("JPEG", pixels(3, height=90, width=90), quality=95)
    return plain[:20] + b"".join(segment(marker, data) for marker, data in more) + plain[20:]


def parts_of(profile, *, leave_out=None):
    cut = [profile[at : at + 60000] for at in range(0, len(profile), 60000)]
    numbered = [b"ICC_PROFILE\0" + bytes([number, len(cut)]) + part for number, part in enumerate(cut, 1)]
    return [(0xE2, data) for number, data in enumerate(numbered) if number != leave_out]


@pytest.mark.parametrize("jpeg", [None, 95])
def test_long_exif_and_a_long_profile_are_kept(jpeg, tmp_path):
    made = exif()
    made.get_ifd(0x8769)[0x927C] = bytes(range(256)) * 400
    data, profile = made.tobytes().removeprefix(b"Exif\0\0"), np.random.default_rng(0).bytes(1_200_000)
    cut = [(0xE1, b"Exif\0\0" + part) for part in (data[:60000], data[60000:])]
    content = with_segments(*cut, *parts_of(profile))
    target = check(content, "a.jpg", tmp_path, jpeg=jpeg)
    (before,), (after,) = facts_of(content, "a.jpg"), facts_of(target.read_bytes(), target.name)
    assert before == after
    assert after.icc == profile
    assert len(after.exif) == 5


@pytest.mark.parametrize("jpeg", [None, 95])
@pytest.mark.parametrize("data", [b"garbage", b"", b"II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_copied(data, jpeg, tmp_path):
    target = check(with_segments((0xE1, b"Exif\0\0" + data)), "a.jpg", tmp_path, jpeg=jpeg)
    assert data in target.read_bytes()


def test_a_jpeg_whose_profile_is_incomplete_is_refused(tmp_path):
    with pytest.raises(UnreadableError, match="a part of its colour profile is missing"):
        check(with_segments(*parts_of(bytes(150_000), leave_out=1)), "a.jpg", tmp_path)


def test_a_jpeg_whose_xmp_is_incomplete_is_refused(tmp_path):
    main, extension = LONG_XMP["descriptions"]
    with pytest.raises(UnreadableError, match="a part of its XMP is missing"):
        check(long_xmp(main, extension.encode(), leave_out=1), "a.jpg", tmp_path)


def test_a_jpeg_stays_a_jpeg_if_asked_for(tmp_path):
    target = check(picture("JPEG", pixels(3), xmp=XMP, **BESIDE), "a.jpg", tmp_path, jpeg=95)
    assert target.name == "a.jpg"
    assert target.read_bytes().startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("WEBP", {"lossless": True, "exif": exif(), "icc_profile": ICC}), ("BMP", {"dpi": (300, 300)})],
)
def test_other_pictures(kind, options, tmp_path):
    check(picture(kind, pixels(3), **options), f"a.{kind.lower()}", tmp_path)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_of_several_pages(compression, channels, tmp_path):
    more = [Image.fromarray(pixels(1, height=50, width=20)), Image.fromarray(pixels(1)).convert("1")]
    content = picture("TIFF", pixels(channels), save_all=True, append_images=more, compression=compression, **BESIDE)
    target = check(content, "a.tif", tmp_path, pages=3)
    facts = facts_of(target.read_bytes(), "a.tif")
    assert [page.size for page in facts] == [(40, 30), (50, 20), (40, 30)]
    assert facts[2].bits == 1
    assert facts[0].icc == ICC
    with tifffile.TiffFile(target) as before, tifffile.TiffFile(io.BytesIO(content)) as after:
        assert before.pages[0].compression == after.pages[0].compression
        np.testing.assert_array_equal(before.pages[2].asarray(), after.pages[2].asarray())


@pytest.mark.parametrize(("channels", "photometric"), [(1, "minisblack"), (1, "miniswhite"), (3, "rgb"), (4, "rgb")])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiff_of_16_bits(channels, photometric, byteorder, tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        pixels(channels, np.uint16),
        photometric=photometric,
        byteorder=byteorder,
        resolution=(300, 300),
        compression="zlib",
        predictor=True,
        iccprofile=ICC,
        extrasamples=["unassalpha"] if channels == 4 else None,
        extratags=[(700, 1, len(XMP), XMP, True), (315, 2, 0, "artist", True)],
    )
    target = check(file.getvalue(), "a.tiff", tmp_path)
    (facts,) = facts_of(target.read_bytes(), "a.tiff")
    assert (facts.bits, facts.channels, facts.dpi, facts.xmp) == (16, channels, (300, 300), XMP)
    assert (315, "artist") in facts.exif


def test_texts_of_a_tiff_in_any_encoding(tmp_path):
    content = picture("TIFF", pixels(3), description="four")
    for text in (b"f\xc3\xbc\0", b"f\xfc\x82\0"):
        assert check(content.replace(b"four", text), "a.tif", tmp_path).read_bytes().count(text) == 1


@pytest.mark.parametrize(("byteorder", "bigtiff"), [("<", False), (">", False), ("<", True)])
def test_exif_and_gps_of_a_tiff(byteorder, bigtiff, tmp_path):
    path = tmp_path / "e.tif"
    with tifffile.TiffWriter(path, byteorder=byteorder, bigtiff=bigtiff) as writer:
        for _ in range(3):
            writer.write(pixels(3), photometric="rgb", metadata=None)
    values = {
        34665: {0x9003: "2020:01:01 00:00:00", 0x829A: (1, 125), 0x927C: b"made by", 0xA005: {1: "R98"}},
        34853: {1: "N", 2: (1.0, 2.0, 3.5)},
    }
    with tifffile.TiffFile(path) as written:
        same = [resolution_of(page) for page in written.pages]
    amend(path, same, [{}, values, {}])
    target = check(path.read_bytes(), "a.tif", tmp_path, pages=3)
    with Image.open(target) as image:
        assert not image.getexif().get_ifd(34665)
        image.seek(1)
        assert image.getexif().get_ifd(34665)[0x9003] == "2020:01:01 00:00:00"
        assert image.getexif().get_ifd(34853)[2] == (1.0, 2.0, 3.5)
        assert image.getexif().get_ifd(0xA005) == {1: "R98"}


def test_tiff_in_planes_and_tiles_and_as_a_palette(tmp_path):
    file = io.BytesIO()
    planes = np.random.default_rng(0).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate", tile=(32, 32))
    check(file.getvalue(), "a.tif", tmp_path)
    check(picture("TIFF", Image.fromarray(pixels(3)).convert("P"), dpi=(300, 300)), "p.tif", tmp_path)
    check(picture("TIFF", pixels(3), compression="jpeg", dpi=(300, 300)), "j.tif", tmp_path)


def test_white_is_the_largest_value_even_if_zero_is_white(tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((20, 20), np.uint8), photometric="miniswhite")
    pages = []
    rewrite(file.getvalue(), "a.tif", tmp_path / "a.tif", lambda page: (pages.append(page), page.pixels)[1])
    assert (pages[0].pixels == 255).all()


def raw(page):
    (image,) = page.get_images().values()
    return image.read_raw_bytes()


def test_pdf(tmp_path):
    more = [
        Image.fromarray(pixels(1, height=90, width=80)),
        Image.fromarray(pixels(1, height=90, width=80)).convert("1"),
    ]
    content = picture("PDF", pixels(3, height=90, width=80), save_all=True, append_images=more, resolution=100)
    assert page_sizes(content, "a.pdf") == [(90, 80), (90, 80)]
    target = check(content, "a.pdf", tmp_path, pages=2)
    with pikepdf.open(target) as after, pikepdf.open(io.BytesIO(content)) as before:
        assert [page.mediabox for page in after.pages] == [page.mediabox for page in before.pages]
        assert raw(after.pages[2]) == raw(before.pages[2])


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
def test_one_bit_passes_through(name, tmp_path):
    kind = name[2:].upper()
    content = picture(kind, Image.fromarray(pixels(1)).convert("1"))
    rewrite(content, name, tmp_path / name, inverted)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b"no picture"),
        ("a.tif", b"no picture"),
        ("a.pdf", b"no picture"),
        ("a.tif", picture("TIFF", Image.new("CMYK", (20, 20)))),
        ("a.jpg", picture("JPEG", Image.new("CMYK", (20, 20)))),
        ("a.tif", picture("TIFF", Image.new("F", (20, 20)))),
        ("a.png", picture("PNG", pixels(3))[:-100]),
        ("a.jpg", picture("JPEG", pixels(3))[:200]),
    ],
)
def test_scans_that_cannot_be_restored_are_refused(name, content, tmp_path):
    if name == "a.tif":  # a plan refuses it as well
        with pytest.raises(UnreadableError):
            page_sizes(content, name)
    with pytest.raises(UnreadableError) as caught:
        rewrite(content, name, tmp_path / "out", lambda page: page.pixels)
    assert name in str(caught.value)


def test_lost_metadata_is_noticed(tmp_path):
    content = picture("PNG", pixels(3), **BESIDE)
    for change, what in (({"dpi": (200, 200)}, "dpi"), ({"icc_profile": None}, "icc"), ({"exif": b""}, "exif")):
        (tmp_path / "b.png").write_bytes(picture("PNG", pixels(3), **{**BESIDE, **change}))
        with pytest.raises(RefusedError, match=f"would lose its {what}"):
            _check_facts(content, tmp_path / "b.png", "a.png")
    (tmp_path / "b.png").write_bytes(picture("PNG", pixels(3, height=41), **BESIDE))
    with pytest.raises(RefusedError, match="would lose its size"):
        _check_facts(content, tmp_path / "b.png", "a.png")


def test_an_unchanged_file_is_copied(tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels(3), photometric="rgb", tile=(16, 16))
    for content, name in ((file.getvalue(), "a.tif"), (picture("PNG", pixels(3)), "a.png")):
        rewrite(content, name, tmp_path / name, lambda page: page.pixels)
        assert (tmp_path / name).read_bytes() == content


def pdf(image, **entries):
    """A PDF of one page with one RGB picture, and further entries of its dictionary."""
    made = pikepdf.new()
    stream = pikepdf.Stream(made, image.tobytes())
    height, width = image.shape[:2]
    stream.stream_dict = pikepdf.Dictionary(
        Type=pikepdf.Name.XObject,
        Subtype=pikepdf.Name.Image,
        Width=width,
        Height=height,
        ColorSpace=pikepdf.Name.DeviceRGB if image.ndim == 3 else pikepdf.Name.DeviceGray,
        BitsPerComponent=8,
    )
    for key, value in entries.items():
        if value is None:
            del stream.stream_dict[f"/{key}"]
        else:
            stream.stream_dict[f"/{key}"] = value(made) if callable(value) else value
    page = made.add_blank_page(page_size=(width, height))
    page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(image=made.make_indirect(stream)))
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


def soft_mask(made):
    mask = pikepdf.Stream(made, bytes(90 * 80))
    mask.stream_dict = pikepdf.Dictionary(
        Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Image, Width=80, Height=90,
        ColorSpace=pikepdf.Name.DeviceGray, BitsPerComponent=8,
    )  # fmt: skip
    return made.make_indirect(mask)


def test_a_soft_mask_of_a_pdf_stays_and_the_picture_is_restored(tmp_path):
    image = pixels(3, height=90, width=80)
    target = check(pdf(image, SMask=soft_mask), "a.pdf", tmp_path)
    with pikepdf.open(target) as after:
        (picture_,) = after.pages[0].get_images().values()
        assert len(picture_.read_bytes()) == image.size
        assert bytes(picture_.SMask.read_bytes()) == bytes(90 * 80)


def test_jpegs_in_a_pdf_stay_jpegs_if_asked_for(tmp_path):
    content = picture("PDF", pixels(3, height=90, width=80), resolution=100)
    for jpeg, kind in ((None, pikepdf.Name.FlateDecode), (90, pikepdf.Name.DCTDecode)):
        assert rewrite(content, "a.pdf", tmp_path / "a.pdf", inverted, jpeg=jpeg, lossless=not jpeg).left == []
        with pikepdf.open(tmp_path / "a.pdf") as after:
            (picture_,) = after.pages[0].get_images().values()
            assert picture_.Filter == kind
            decoded = np.asarray(pikepdf.PdfImage(picture_).as_pil_image()).astype(float)
        (before,) = scan_pages(content, "a.pdf")
        # A JPEG of noise differs much, but less than another picture.
        assert np.abs(decoded - (255 - before.pixels)).mean() <= (12 if jpeg else 0)


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ({"Decode": [1, 0, 1, 0, 1, 0]}, "inverted by /Decode"),
        ({"Mask": [0, 10, 0, 10, 0, 10]}, "masked by colour"),
        ({"ColorSpace": pikepdf.Name.Pattern}, "of other colours"),
        ({"ColorSpace": pikepdf.Name.DeviceCMYK}, "CMYK"),
        ({"ColorSpace": [pikepdf.Name.Indexed, pikepdf.Name.DeviceRGB, 1, b"abcdef"]}, "indexed"),
        ({"ColorSpace": None}, "without a colour space"),
        ({"SMaskInData": 1}, "mixed with its opacity"),
        ({"BitsPerComponent": 4}, "of 4 bits"),
        ({"BitsPerComponent": 1}, "bilevel"),
        ({"ImageMask": True}, "a mask"),
        ({"Width": 10, "Height": 10}, "small"),
    ],
)
def test_pictures_in_a_pdf_with_other_values_stay_with_a_reason(entries, kind, tmp_path):
    content = pdf(pixels(3, height=90, width=80), **entries)
    result = rewrite(content, "a.pdf", tmp_path / "a.pdf", lambda page: pytest.fail("was restored"))
    assert (result.left, result.codecs) == ([(1, kind)], {})
    assert (tmp_path / "a.pdf").read_bytes() == content


def test_default_entries_of_a_pdf_do_not_prevent_restoring(tmp_path):
    check(pdf(pixels(3, height=90, width=80), Decode=[0, 1, 0, 1, 0, 1]), "a.pdf", tmp_path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_pdf_that_is_cut_short_is_refused(share, tmp_path):
    content = picture("PDF", pixels(3, height=90, width=80), save_all=True, append_images=[Image.new("L", (80, 90))])
    cut = content[: int(share * len(content))]
    for read in (lambda: list(scan_pages(cut, "c.pdf")), lambda: page_sizes(cut, "c.pdf")):
        with pytest.raises(UnreadableError, match=r"c\.pdf.*damaged or cut short") as caught:
            read()
        assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_pages_are_turned_upright(kind, turned):
    tags = Image.Exif()
    tags[274] = turned
    flat = Image.new("L", (48, 32), 60)
    flat.paste(220, (0, 0, 16, 8))
    content = picture(kind, flat, exif=tags)
    (page,) = scan_pages(content, f"a.{kind.lower()}")
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_allclose(page.upright(page.pixels).astype(float), expected.astype(float), atol=3)


def test_a_turned_page_of_a_pdf_is_turned_upright():
    image = pixels(1, height=90, width=80)
    with pikepdf.open(io.BytesIO(pdf(image[..., 0] if image.ndim == 3 else image))) as opened:
        opened.pages[0].Rotate = 90
        file = io.BytesIO()
        opened.save(file)
    (page,) = scan_pages(file.getvalue(), "a.pdf")
    np.testing.assert_array_equal(page.upright(page.pixels), np.rot90(page.pixels, -1))


def test_a_signed_pdf_is_refused(tmp_path):
    with pikepdf.open(io.BytesIO(pdf(pixels(3, height=90, width=80)))) as plain:
        plain.Root.AcroForm = pikepdf.Dictionary(SigFlags=3, Fields=[])
        plain.save(tmp_path / "s.pdf")
    with pytest.raises(UnreadableError, match=r"s\.pdf.*it is signed"):
        rewrite((tmp_path / "s.pdf").read_bytes(), "s.pdf", tmp_path / "out.pdf", inverted)


def test_pages_of_a_pdf_keep_their_numbers():
    blank = Image.new("1", (80, 90))
    grey = [Image.fromarray(pixels(1, height=90, width=80)) for _ in range(2)]
    content = picture("PDF", blank, save_all=True, append_images=[grey[0], blank, grey[1]])
    assert [page.number for page in scan_pages(content, "a.pdf")] == [2, 4]
    with pikepdf.open(io.BytesIO(content)) as opened:
        both = opened.pages[1].Resources.XObject
        both.other = opened.pages[3].Resources.XObject.image
        file = io.BytesIO()
        opened.save(file)
    assert [page.number for page in scan_pages(file.getvalue(), "a.pdf")] == [
        1,
        2,
    ]  # pictures are counted if a page has two


def in_strips(image, heights, gap=0.0):
    """A PDF of a page at 144 dpi that shows `image` in strips, which its resources name in another order."""
    made, page_height, page_width = pikepdf.new(), image.shape[0] / 2 + gap, image.shape[1] / 2
    page = made.add_blank_page(page_size=(page_width + 10, page_height))
    page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary())
    content, ends = "q 0.5 0 0 0.5 3 0 cm\n", np.cumsum(heights)
    for number, strip in enumerate(np.split(image, ends[:-1])):
        with pikepdf.open(io.BytesIO(pdf(strip))) as one:
            name = f"/s{9 - number}"
            page.Resources.XObject[name] = made.copy_foreign(one.pages[0].Resources.XObject.image)
        bottom = image.shape[0] - ends[number] + (2 * gap if number == 0 else 0)
        content += f"q {image.shape[1]} 0 0 {len(strip)} 0.002 {bottom:.3f} cm {name} Do Q\n"
    page.Contents = made.make_stream((content + "Q").encode())
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_strips_of_a_page_of_a_pdf_are_one_page(channels, tmp_path):
    image = pixels(channels, height=150, width=80)
    image = image[..., 0] if channels == 1 and image.ndim == 3 else image
    content = in_strips(image, [40, 40, 40, 30])
    (page,) = scan_pages(content, "a.pdf")
    assert np.array_equal(page.pixels, image)
    assert page.dpi == pytest.approx(144)
    assert page_sizes(content, "a.pdf") == [(150, 80)]
    assert rewrite(content, "a.pdf", tmp_path / "a.pdf", inverted).left == []
    written = (tmp_path / "a.pdf").read_bytes()
    (after,) = scan_pages(written, "a.pdf")
    assert np.array_equal(after.pixels, 255 - image)
    with pikepdf.open(tmp_path / "a.pdf") as opened:
        assert sorted(int(strip.Height) for strip in opened.pages[0].get_images().values()) == [30, 40, 40, 40]


def test_pictures_in_a_pdf_with_a_gap_stay_separate():
    image = pixels(3, height=150, width=80)
    assert page_sizes(in_strips(image, [80, 70], gap=2.0), "a.pdf") == [(80, 80), (70, 80)]
    assert page_sizes(in_strips(image, [80, 70]), "a.pdf") == [(150, 80)]


def test_strips_that_several_pages_share_stay_separate():
    with pikepdf.open(io.BytesIO(in_strips(pixels(3, height=160, width=80), [80, 80]))) as opened:
        opened.pages.append(opened.pages[0])
        file = io.BytesIO()
        opened.save(file)
    assert page_sizes(file.getvalue(), "a.pdf") == [(80, 80), (80, 80)]


def test_a_protected_pdf_is_refused(tmp_path):
    with pikepdf.open(io.BytesIO(pdf(pixels(3, height=90, width=80)))) as plain:
        for password in ("", "secret"):
            plain.save(tmp_path / "p.pdf", encryption=pikepdf.Encryption(owner="owner", user=password))
            with pytest.raises(UnreadableError, match=r"p\.pdf"):
                rewrite((tmp_path / "p.pdf").read_bytes(), "p.pdf", tmp_path / "out.pdf", inverted)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "pdf", "webp", "bmp", "jp2"])
def test_damaged_bytes_are_read_or_refused(kind, tmp_path):
    if kind == "pdf":
        content = pdf(pixels(3, height=90, width=80))
    else:
        content = picture(
            {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(kind, kind.upper()), pixels(3), **BESIDE
        )
    rng = np.random.default_rng(0)
    for number in range(100):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        if number % 5 == 0:
            damaged = damaged[: rng.integers(1, len(damaged))]
        with contextlib.suppress(RefusedError):
            rewrite(bytes(damaged), f"a.{kind}", tmp_path / written_name(f"a.{kind}", jpeg=None), inverted)


def test_a_tiff_with_missing_pages_is_refused(tmp_path):
    content = picture("TIFF", pixels(3), save_all=True, append_images=[Image.fromarray(pixels(3))] * 2)
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        third = tiff.pages[2].offset
    for damaged, word in ((b"II*\0junk", "no page"), (content[:third], "breaks off after page 2")):
        for read in (facts_of, page_sizes, lambda *given: list(scan_pages(*given))):
            with pytest.raises(UnreadableError, match=word):
                read(damaged, "a.tif")
        with pytest.raises(UnreadableError, match=word):
            rewrite(damaged, "a.tif", tmp_path / "a.tif", inverted)


def test_an_error_of_the_restorer_is_not_blamed_on_the_file(tmp_path):
    def broken(page):
        raise IndexError("in the restorer")

    for content, name in ((picture("TIFF", pixels(3)), "a.tif"), (picture("PNG", pixels(3)), "a.png")):
        with pytest.raises(IndexError, match="in the restorer"):
            rewrite(content, name, tmp_path / name, broken)


def test_sub_directories_and_ycbcr_of_a_tiff_are_refused(tmp_path):
    path = tmp_path / "s.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels(3), photometric="rgb", subifds=1)
        writer.write(pixels(3, height=20, width=15), photometric="rgb", subfiletype=1)
    with pytest.raises(UnreadableError, match="SubIFDs"):
        list(scan_pages(path.read_bytes(), "s.tif"))
    tifffile.imwrite(path, pixels(3), photometric="ycbcr", subsampling=(1, 1))
    with pytest.raises(UnreadableError, match="YCbCr"):
        list(scan_pages(path.read_bytes(), "s.tif"))


@pytest.mark.parametrize(
    ("tags", "dpi"),
    [
        ({282: (3, struct.pack("<HH", 240, 0)), 283: (3, struct.pack("<HH", 240, 0))}, 240),
        ({282: (11, struct.pack("<f", 200.0)), 283: (11, struct.pack("<f", 200.0))}, 200),
        ({282: (3, struct.pack("<HH", 0, 0))}, None),
        ({262 + 12: (3, struct.pack("<HH", 6, 6), 2)}, 300),
    ],
)
def test_odd_resolutions_and_orientations_of_a_tiff_are_harmless(tags, dpi, tmp_path):
    content = bytearray(picture("TIFF", pixels(1), dpi=(300, 300), tiffinfo={274: 1}))
    (at,) = struct.unpack("<I", content[4:8])
    for entry in range(at + 2, at + 2 + 12 * struct.unpack("<H", content[at : at + 2])[0], 12):
        (code,) = struct.unpack("<H", content[entry : entry + 2])
        if code in tags:
            kind, value, count = (*tags[code], 1)[:3]
            content[entry + 2 : entry + 12] = struct.pack("<HI", kind, count) + value
    (page,) = scan_pages(bytes(content), "a.tif")
    assert page.dpi == dpi
    assert page.orientation == 1
    check(bytes(content), "a.tif", tmp_path)


def test_a_palette_of_two_colours_passes_through(tmp_path):
    page = Image.fromarray(np.random.default_rng(0).integers(0, 2, (70, 90), np.uint8)).convert("P")
    page.putpalette([255, 250, 230, 20, 10, 0])
    content = picture("PNG", page)
    (decoded,) = scan_pages(content, "a.png")
    assert decoded.pixels.dtype == np.bool_
    target = tmp_path / "a.png"
    rewrite(content, "a.png", target, lambda page: page.pixels)
    assert target.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("a.tif", "JPEG", "it is a JPEG, but its name ends like that of a TIFF; rename it"),
        ("a.png", "TIFF", "it is a TIFF, but its name"),
        ("a.png", "JPEG2000", "it is a JPEG 2000, but its name ends like that of a PNG; rename it"),
    ],
)
def test_a_file_with_the_name_of_another_format_is_refused(name, kind, message, tmp_path):
    content = picture(kind, pixels(3))
    for look in (page_sizes, lambda content, name: list(scan_pages(content, name))):
        with pytest.raises(UnreadableError, match=message):
            look(content, name)
    with pytest.raises(UnreadableError, match=message):
        rewrite(content, name, tmp_path / name, lambda page: page.pixels)


def test_pictures_of_a_page_and_of_its_form_may_share_a_name(tmp_path):
    pdf = pikepdf.new()
    pdf.add_blank_page(page_size=(200, 200))
    shades = [np.full((80, 90), level, np.uint8) for level in (100, 200)]
    own, inner = (
        pikepdf.Stream(
            pdf,
            shade.tobytes(),
            Type=pikepdf.Name.XObject,
            Subtype=pikepdf.Name.Image,
            Width=90,
            Height=80,
            ColorSpace=pikepdf.Name.DeviceGray,
            BitsPerComponent=8,
        )
        for shade in shades
    )
    form = pikepdf.Stream(
        pdf,
        b"q 90 0 0 80 0 0 cm /Im0 Do Q",
        Type=pikepdf.Name.XObject,
        Subtype=pikepdf.Name.Form,
        BBox=[0, 0, 200, 200],
        Resources={"/XObject": {"/Im0": inner}},
    )
    pdf.pages[0].Resources = pikepdf.Dictionary({"/XObject": {"/Im0": own, "/Fm0": form}})
    pdf.pages[0].Contents = pdf.make_stream(b"q 90 0 0 80 0 0 cm /Im0 Do Q /Fm0 Do")
    file = io.BytesIO()
    pdf.save(file)
    assert sorted(int(page.pixels[0, 0]) for page in scan_pages(file.getvalue(), "a.pdf")) == [100, 200]
    target = tmp_path / "a.pdf"
    assert rewrite(file.getvalue(), "a.pdf", target, lambda page: page.pixels + np.uint8(1)).left == []
    assert sorted(int(page.pixels[0, 0]) for page in scan_pages(target.read_bytes(), "a.pdf")) == [101, 201]


def bmp(across, down):
    """A BMP with a resolution in pixels per metre."""
    content = bytearray(picture("BMP", pixels(3)))
    content[38:46] = struct.pack("<ii", across, down)
    return bytes(content)


@pytest.mark.parametrize("resolution", [(0, 0), (2835, 0), (1, 1), (11811, 5906), (-2835, -1), (2**31 - 1, 10**7)])
def test_a_bmp_keeps_any_resolution(resolution, tmp_path):
    target = tmp_path / "a.bmp"
    rewrite(bmp(*resolution), "a.bmp", target, inverted)
    assert struct.unpack("<ii", target.read_bytes()[38:46]) == resolution


def test_a_bmp_whose_header_has_no_resolution_gets_none(tmp_path):
    colours = pixels(3, height=40, width=48)
    header = b"BM" + struct.pack("<IHHI", 26 + colours.nbytes, 0, 0, 26) + struct.pack("<IHHHH", 12, 48, 40, 1, 24)
    target = tmp_path / "a.bmp"
    rewrite(header + colours.tobytes(), "a.bmp", target, inverted)
    assert struct.unpack("<ii", target.read_bytes()[38:46]) == (0, 0)


def bmp_of_version_5(image, *, top_down=False, profile=b""):
    """A BMP of 32 bits, or of 24 without opacity, whose header tells opacity and colours."""
    height, width, channels = image.shape
    size, stride = 124, -(-width * channels // 4) * 4
    rows = np.zeros((height, stride), np.uint8)
    rows[:, : width * channels] = image[:: 1 if top_down else -1][..., [2, 1, 0, 3][:channels]].reshape(height, -1)
    sides = width, -height if top_down else height
    kind = (8 * channels, 3 if channels == 4 else 0)
    header = struct.pack("<IiiHHIIiiII", size, *sides, 1, *kind, rows.size, 2835, 2835, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + (b"DEBM" if profile else b"BGRs") + bytes(52)
    header += struct.pack("<3I", size + rows.size, len(profile), 0)
    place = 14 + len(header)
    return (
        b"BM" + struct.pack("<IHHI", place + rows.size + len(profile), 0, 0, place) + header + rows.tobytes() + profile
    )


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_bmp_keeps_its_opacity_and_profile(channels, top_down, tmp_path):
    content = bmp_of_version_5(pixels(channels, width=31), top_down=top_down, profile=b"profile")
    target = check(content, "a.bmp", tmp_path)
    assert facts_of(target.read_bytes(), "a.bmp") == facts_of(content, "a.bmp")
    assert facts_of(content, "a.bmp")[0].icc == b"profile"
    assert len(target.read_bytes()) == len(content)


def jpeg_of(unit, across, down):
    content = bytearray(picture("JPEG", pixels(), quality=95))
    content[13:18] = struct.pack(">BHH", unit, across, down)
    return bytes(content)


DENSITIES = [(0, 1, 1), (0, 0, 0), (1, 0, 0), (1, 1, 1), (1, 72, 0), (2, 65535, 3), (2, 118, 118), (0, 2, 1), (3, 9, 9)]


@pytest.mark.parametrize("density", DENSITIES)
def test_a_jpeg_that_stays_a_jpeg_keeps_any_density(density, tmp_path):
    target = tmp_path / "a.jpg"
    rewrite(jpeg_of(*density), "a.jpg", target, inverted, jpeg=95)
    assert struct.unpack(">BHH", target.read_bytes()[13:18]) == density


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        ((1, 300, 150), (11811, 5906, 1)),
        ((2, 118, 65535), (11800, 6553500, 1)),
        ((1, 1, 1), (39, 39, 1)),
        ((0, 2, 1), (2, 1, 0)),
        ((0, 1, 1), None),
        ((1, 72, 0), None),
    ],
)
def test_a_png_keeps_the_density_of_a_jpeg_if_it_can(density, expected, tmp_path):
    target = tmp_path / "a.png"
    rewrite(jpeg_of(*density), "a.jpg", target, inverted)
    content = target.read_bytes()
    at = content.find(b"pHYs")
    assert (struct.unpack(">IIB", content[at + 4 : at + 13]) if at > 0 else None) == expected


@pytest.mark.parametrize("dpi", [72.5, 73.5, 299.5])
def test_a_fractional_resolution_does_not_count_as_lost(dpi, tmp_path):
    made = Image.Exif()
    made[282] = made[283] = dpi
    made[296] = 2
    content = picture("JPEG", pixels(), exif=made, quality=95)
    rewrite(content, "a.jpg", tmp_path / "a.png", inverted)
    assert facts_of((tmp_path / "a.png").read_bytes(), "a.png")[0].dpi[0] == pytest.approx(dpi, abs=1)


ODD = {
    "zero": ((5, 0, 1), (5, 0, 1), (3, 2)),
    "no number": ((5, 0, 0), (5, 7, 0), (3, 3)),
    "absurd": ((5, 2**32 - 1, 1), (5, 1, 2**32 - 1), (3, 2)),
    "unequal": ((5, 204, 1), (5, 98, 1), (3, 2)),
    "unknown unit": ((5, 300, 1), (5, 300, 1), (3, 9)),
    "whole numbers": ((3, 300), (3, 300), (3, 2)),
    "absent": (None, None, None),
    "without a unit": ((5, 300, 1), (5, 300, 1), None),
}


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("case", ODD)
def test_a_tiff_keeps_any_resolution(case, byteorder, tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels(3), photometric="rgb", byteorder=byteorder, resolution=(7, 9), resolutionunit=2)
    content = bytearray(file.getvalue())
    stated = dict(zip((282, 283, 296), ODD[case], strict=True))
    (at,) = struct.unpack(byteorder + "I", content[4:8])
    (count,) = struct.unpack(byteorder + "H", content[at : at + 2])
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        code, _, _, place = struct.unpack(byteorder + "HHII", content[entry : entry + 12])
        if code in stated and stated[code] is None:
            content[entry : entry + 2] = struct.pack(byteorder + "H", 65000 + code - 282)  # another tag
        elif code in stated and stated[code][0] == 5:
            content[place : place + 8] = struct.pack(byteorder + "II", *stated[code][1:])
        elif code in stated:
            content[entry + 2 : entry + 12] = struct.pack(byteorder + "HIHH", stated[code][0], 1, stated[code][1], 0)
    target = tmp_path / "a.tif"
    rewrite(bytes(content), "a.tif", target, inverted)
    with tifffile.TiffFile(io.BytesIO(content)) as before, tifffile.TiffFile(target) as after:
        old, new = (
            {tag.code: (tag.dtype, tag.value) for tag in tiff.pages[0].tags if tag.code in stated}
            for tiff in (before, after)
        )
    assert old == new
    assert len(new) == sum(entry is not None for entry in ODD[case])


def with_entry(content, code, value):
    """A little-endian TIFF with another value of an entry, or of the first of the values that it points to."""
    made = bytearray(content)
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        tag = tiff.pages[0].tags[code]
        place, size = tag.valueoffset, tag.valuebytecount // tag.count
    made[place : place + size] = value.to_bytes(size, "little")
    return bytes(made)


@pytest.mark.parametrize(
    ("code", "value", "message"),
    [
        (262, 9, "its colours are CIELAB; convert"),
        (262, 32803, "are neither grey nor RGB; convert"),
        (259, 32809, "its compression .THUNDERSCAN. is not supported; convert"),
        (279, 0, "damaged or cut short .a part of its pixels is missing"),
        (273, 0, "damaged or cut short .a part of its pixels is missing"),
    ],
)
def test_a_tiff_of_another_kind_is_refused_by_name(code, value, message, tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels(3), photometric="rgb", rowsperstrip=8)
    with pytest.raises(UnreadableError, match=message):
        rewrite(with_entry(file.getvalue(), code, value), "a.tif", tmp_path / "a.tif", inverted)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_palette_of_a_tiff_becomes_colour(bits, tmp_path):
    indices = np.arange(64, dtype=np.uint8).reshape(8, 8) & (2**bits - 1)
    packed = np.packbits(np.unpackbits(indices[..., None], axis=2)[..., 8 - bits :].reshape(8, -1), axis=1)
    colours = np.random.default_rng(0).integers(0, 256, (3, 2**bits)).astype(np.uint16) * 257
    file = io.BytesIO()
    entry = (320, 3, colours.size, colours.ravel().tolist(), True)
    tifffile.imwrite(file, packed, photometric="minisblack", extratags=[entry], metadata=None)
    content = with_entry(with_entry(with_entry(file.getvalue(), 262, 3), 258, bits), 256, 8)
    target = check(content, "a.tif", tmp_path)
    (page,) = scan_pages(target.read_bytes(), "a.tif")
    assert np.array_equal(page.pixels, 255 - (colours >> 8).T[indices])


def test_a_jpeg_without_density_that_stays_a_jpeg_gets_none(tmp_path):
    made = Image.Exif()
    made[282] = made[283] = 72.5
    made[296] = 2
    content = picture("JPEG", pixels(), exif=made, quality=95)
    content = content[:2] + content[20:]  # without the segment of JFIF
    rewrite(content, "a.jpg", tmp_path / "a.jpg", inverted, jpeg=95)
    (before,), (after,) = scan_pages(content, "a.jpg"), scan_pages((tmp_path / "a.jpg").read_bytes(), "a.jpg")
    assert before.dpi == after.dpi == 72.5


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000", "PDF"])
def test_a_file_without_a_suffix_is_known_by_its_first_bytes(kind, tmp_path):
    content = picture(kind, pixels(3, height=90, width=80))
    (before,) = scan_pages(content, "scan")
    assert written_name("scan", jpeg=None) == "scan"
    rewrite(content, "scan", tmp_path / "scan", inverted, lossless=True)
    (after,) = scan_pages((tmp_path / "scan").read_bytes(), "scan")
    assert np.array_equal(after.pixels, inverted(before))

"""Pictures of PDFs that are not cleaned stay byte for byte, and cleaned ones keep their codec."""

import io
import json
import math
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pikepdf
import pytest
from pikepdf import Array, Dictionary, Name
from PIL import Image
from scipy import ndimage

from vaeguard import DenoiseOutputs, UsageError, denoise_scans, undo_scans
from vaeguard.restoration.formats.pdf_codecs import decoded
from vaeguard.restoration.formats.scan_page import digest_of_pixels
from vaeguard.restoration.formats.scans import rewrite, scan_pages
from vaeguard.restoration.nearness import LARGEST_DIFFERENCE, difference

HEIGHT, WIDTH = 150, 110


def sheet(seed=0, channels=1, height=HEIGHT, width=WIDTH):
    """Lines of print on stained and noisy paper."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    letters = np.kron(rng.random((height // 5 + 1, width // 3 + 1)) < 0.4, np.ones((5, 3)))[:height, :width]
    ink = letters * (rows % 10 < 5) * (abs(columns - width / 2) < width / 2 - 12)
    page = (215 - 40 * np.sin(columns / 40) * np.sin(rows / 50)) * (1 - 0.8 * ink) + rng.normal(0, 8, ink.shape)
    grey = np.clip(page, 0, 255).astype(np.uint8)
    return grey if channels == 1 else np.stack([grey, grey, (grey * 0.9).astype(np.uint8)], -1)


def cleaned(page):
    """A stand-in for a denoiser: white paper, dark ink with soft edges, no noise."""
    flat = np.where(page.pixels > 120, 250.0, 30.0)
    return ndimage.gaussian_filter(flat, 0.7, axes=(0, 1)).astype(np.uint8)


def encoded(kind, pixels):
    """The stream of a picture in a PDF, and the entries of its dictionary."""
    entries = {"Width": pixels.shape[1], "Height": pixels.shape[0], "BitsPerComponent": 8}
    entries["ColorSpace"] = Name.DeviceRGB if pixels.ndim == 3 else Name.DeviceGray
    raw, file = pixels.tobytes(), io.BytesIO()
    if kind == "jpeg":
        Image.fromarray(pixels).save(file, "JPEG", quality=80)
        return file.getvalue(), {**entries, "Filter": Name.DCTDecode}
    if kind == "jpeg2000":
        return bytes(imagecodecs.jpeg2k_encode(pixels, level=38)), {**entries, "Filter": Name.JPXDecode}
    if kind == "lzw":
        return bytes(imagecodecs.lzw_encode(raw)), {**entries, "Filter": Name.LZWDecode}
    if kind == "runs":
        return bytes(imagecodecs.packbits_encode(raw)) + b"\x80", {**entries, "Filter": Name.RunLengthDecode}
    if kind == "hex":
        return raw.hex().encode() + b">", {**entries, "Filter": Name.ASCIIHexDecode}
    if kind == "raw":
        return raw, entries
    if kind in ("fax", "jbig2", "bits", "mask"):  # never decoded
        filters = {"fax": Name.CCITTFaxDecode, "jbig2": Name.JBIG2Decode}
        entries = {**entries, "BitsPerComponent": 1, "Filter": filters.get(kind, Name.FlateDecode)}
        return zlib.compress(raw[: len(raw) // 8], 1), {**entries, **({"ImageMask": True} if kind == "mask" else {})}
    return zlib.compress(raw, 1), {**entries, "Filter": Name.FlateDecode}


def document(pictures, *, size=None):
    """A document with one picture of `encoded` on each page."""
    made = pikepdf.new()
    for data, entries in pictures:
        width, height = size or (entries["Width"] * 0.5, entries["Height"] * 0.5)
        page = made.add_blank_page(page_size=(width, height))
        picture = pikepdf.Stream(made, data)
        picture.stream_dict = Dictionary(Type=Name.XObject, Subtype=Name.Image, **entries)
        page.Resources = Dictionary(XObject=Dictionary(Im0=made.make_indirect(picture)))
        page.Contents = made.make_stream(f"q {width} 0 0 {height} 0 0 cm /Im0 Do Q".encode())
    return made


def saved(made, **options):
    file = io.BytesIO()
    made.save(file, **options)
    return file.getvalue()


def pictures_in(content):
    with pikepdf.open(io.BytesIO(content)) as opened:
        return [
            (bytes(picture.read_raw_bytes()), {key: str(value) for key, value in picture.stream_dict.items()})
            for page in opened.pages
            for picture in page.Resources.XObject.values()
        ]


def written(content, tmp_path, restore=cleaned, **coding):
    target = tmp_path / "out.pdf"
    result = rewrite(content, "a.pdf", target, restore, **coding)
    return result, target.read_bytes()


KINDS = ("jpeg", "jpeg2000", "flate", "lzw", "runs", "hex", "raw", "fax", "jbig2", "bits", "mask")


@pytest.mark.parametrize("packed", [False, True])
def test_streams_of_pictures_that_do_not_change_stay_byte_for_byte(packed, tmp_path):
    made = document([encoded("flate", sheet()), *(encoded(kind, sheet(7)) for kind in KINDS)])
    mode = pikepdf.ObjectStreamMode.generate if packed else pikepdf.ObjectStreamMode.disable
    content = saved(made, object_stream_mode=mode, stream_decode_level=pikepdf.StreamDecodeLevel.none,
                    compress_streams=packed)  # fmt: skip
    result, after = written(
        content, tmp_path, lambda page: cleaned(page) if page.number == 1 else page.pixels.copy() + np.uint8(0)
    )
    assert result.codecs == {1: "Flate"}
    assert result.left == [(9, "bilevel"), (10, "bilevel"), (11, "bilevel"), (12, "a mask")]
    first, *others = zip(pictures_in(content), pictures_in(after), strict=True)
    assert first[0] != first[1]
    for kind, (old, new) in zip(KINDS, others, strict=True):
        assert old == new, kind
    assert (b"/MediaBox" in after) == (b"/MediaBox" in content) == (not packed)  # packed objects stay packed


def test_an_unchanged_document_is_copied(tmp_path):
    content = saved(document([encoded("jpeg", sheet())]))
    result, after = written(content, tmp_path, lambda page: page.pixels.copy())
    assert (result.codecs, after) == ({}, content)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["jpeg", "jpeg2000", "flate", "lzw", "runs", "hex", "raw"])
def test_a_clean_picture_keeps_its_codec_and_does_not_grow(kind, channels, tmp_path):
    content = saved(document([encoded(kind, sheet(3, channels))]))
    restored = []
    result, after = written(content, tmp_path, lambda page: restored.append(cleaned(page)) or restored[0])
    codec = {"jpeg": "JPEG", "jpeg2000": "JPEG 2000"}.get(kind, "Flate")
    assert result.codecs == {1: codec}
    assert len(after) <= 1.3 * len(content)
    ((_, entries),) = pictures_in(after)
    assert entries["/Filter"] == {"JPEG": "/DCTDecode", "JPEG 2000": "/JPXDecode"}.get(codec, "/FlateDecode")
    (page,) = scan_pages(after, "out.pdf")
    assert difference(page.pixels, restored[0]) <= (0 if codec == "Flate" else LARGEST_DIFFERENCE)
    if codec != "Flate":
        result, after = written(content, tmp_path, lossless=True)
        (page,) = scan_pages(after, "out.pdf")
        assert result.codecs == {1: "Flate" if kind == "jpeg" else "JPEG 2000 without loss"}
        assert np.array_equal(page.pixels, restored[0])


@pytest.mark.parametrize("refused", range(5))
def test_a_refused_page_is_written_with_less_loss(refused, tmp_path, monkeypatch):
    content = saved(document([encoded("jpeg", sheet())]))
    asked = []

    def check(restored, pixels):
        asked.append((restored, pixels.copy()))
        return len(asked) > refused

    monkeypatch.setattr("vaeguard.restoration.formats.scan_format.is_near", check)
    result, after = written(content, tmp_path)
    # The last attempt is lossless and needs no check.
    assert len(asked) == min(refused + 1, 4)
    assert result.codecs == {1: {0: "JPEG", 4: "Flate"}.get(refused, "JPEG with less loss")}
    (before,), (page,) = scan_pages(content, "a.pdf"), scan_pages(after, "out.pdf")
    lost = [difference(pixels, cleaned(before)) for _, pixels in asked]
    assert lost == sorted(lost, reverse=True)
    assert all(np.array_equal(restored, cleaned(before)) for restored, _ in asked)
    assert np.array_equal(page.pixels, asked[-1][1] if refused < 4 else cleaned(before))


def test_a_page_that_a_codec_would_damage_is_written_without_loss(tmp_path):
    content = saved(document([encoded("jpeg", sheet(channels=3))]))
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=10)
    worst = saved(document([(file.getvalue(), encoded("jpeg", noise)[1])]))
    result, after = written(worst, tmp_path, lambda _page: noise)
    (page,) = scan_pages(after, "out.pdf")
    assert result.codecs == {1: "Flate"}
    assert np.array_equal(page.pixels, noise)
    result, after = written(content, tmp_path, lambda _page: noise, jpeg=10)  # the quality was asked for
    assert result.codecs == {1: "JPEG"}


def test_an_unchanged_strip_keeps_its_stream(tmp_path):
    image, made = sheet(height=240), pikepdf.new()
    page = made.add_blank_page(page_size=(WIDTH, 240))
    page.Resources, drawn = Dictionary(XObject=Dictionary()), b""
    for number in range(3):
        data, entries = encoded("jpeg", image[80 * number : 80 * number + 80])
        picture = pikepdf.Stream(made, data)
        picture.stream_dict = Dictionary(Type=Name.XObject, Subtype=Name.Image, **entries)
        page.Resources.XObject[f"/s{number}"] = made.make_indirect(picture)
        drawn += f"q {WIDTH} 0 0 80 0 {160 - 80 * number} cm /s{number} Do Q ".encode()
    page.Contents = made.make_stream(drawn)
    content = saved(made)

    def middle(page):
        pixels = page.pixels.copy()
        pixels[80:160] = 250
        return pixels

    result, after = written(content, tmp_path, middle)
    assert result.codecs == {1: "JPEG"}
    same = [old == new for old, new in zip(pictures_in(content), pictures_in(after), strict=True)]
    assert same == [True, False, True]


XMP = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
xmlns:pdf="http://ns.adobe.com/pdf/1.3/" xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/"><pdf:PDFVersion>1.4</pdf:PDFVersion>
<pdfaid:part>2</pdfaid:part><pdfaid:conformance>B</pdfaid:conformance>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def read_by_ocr(packed):
    """A document of an archive: invisible words over each page, a table of contents, and the metadata of PDF/A."""
    made = document([encoded("jpeg", sheet(seed)) for seed in range(3)])
    font = made.make_indirect(Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica))
    for number, page in enumerate(made.pages, 1):
        page.Resources.Font = Dictionary(F1=font)
        page.contents_add(f"BT 3 Tr /F1 9 Tf 10 20 Td (words of page {number}) Tj ET".encode())
    with made.open_outline() as outline:
        outline.root += [pikepdf.OutlineItem(f"Chapter {number}", number) for number in range(3)]
    profile = made.make_stream(b"an ICC profile", N=3)
    made.Root.OutputIntents = Array([made.make_indirect(Dictionary(
        Type=Name.OutputIntent, S=Name.GTS_PDFA1, OutputConditionIdentifier="sRGB", DestOutputProfile=profile,
    ))])  # fmt: skip
    made.Root.Metadata = made.make_stream(XMP, Type=Name.Metadata, Subtype=Name.XML)
    made.Root.PageLabels = Dictionary(Nums=Array([0, Dictionary(S=Name.r), 2, Dictionary(S=Name.D)]))
    made.Root.Lang, made.docinfo.Title = "de", "Kirchenbuch"
    made.attachments["note.txt"] = b"hello"
    mode = pikepdf.ObjectStreamMode.generate if packed else pikepdf.ObjectStreamMode.disable
    return saved(made, object_stream_mode=mode, linearize=packed, fix_metadata_version=False)


@pytest.mark.parametrize("packed", [False, True])
def test_the_rest_of_a_document_is_kept(packed, tmp_path):
    content = read_by_ocr(packed)
    result, after = written(content, tmp_path)
    assert result.codecs == {1: "JPEG", 2: "JPEG", 3: "JPEG"}
    assert len(after) <= 1.3 * len(content)
    with pikepdf.open(io.BytesIO(content)) as old, pikepdf.open(io.BytesIO(after)) as new:
        assert old.is_linearized == new.is_linearized == packed
        assert new.pdf_version == old.pdf_version
        for number, (before, page) in enumerate(zip(old.pages, new.pages, strict=True), 1):
            drawn = b"".join(part.read_bytes() for part in page.Contents)
            assert drawn == b"".join(part.read_bytes() for part in before.Contents)
            assert f"(words of page {number}) Tj".encode() in drawn
            assert page.Resources.Font == before.Resources.Font
            assert page.label == before.label == ["i", "ii", "1"][number - 1]
            assert page.mediabox == before.mediabox
        assert (str(new.Root.Lang), str(new.docinfo.Title)) == ("de", "Kirchenbuch")
        assert new.Root.Metadata.read_raw_bytes() == old.Root.Metadata.read_raw_bytes() == XMP
        assert new.Root.OutputIntents[0].DestOutputProfile.read_bytes() == b"an ICC profile"
        with new.open_metadata() as metadata:
            assert metadata.pdfa_status == "2B"
        with new.open_outline() as outline:
            assert [item.title for item in outline.root] == [f"Chapter {number}" for number in range(3)]
            places = [item.destination or item.action.D for item in outline.root]
            assert [pikepdf.Page(place[0]).index for place in places] == [0, 1, 2]
        assert new.attachments["note.txt"].get_file().read_bytes() == b"hello"


def drawn_by_a_viewer(pixels, matrix, turn):
    """The page of a picture that fills it, at a pixel a point, computed from the definition."""
    right, top, at = np.array(matrix).reshape(3, 2)
    corners = np.array([at, at + right, at + top, at + right + top])
    width, height = np.rint(corners.max(0) - corners.min(0)).astype(int)
    drawn = np.zeros((height, width), np.uint8)
    inverse = np.linalg.inv(np.array([right, top]).T)
    for row in range(height):
        for column in range(width):
            across, up = inverse @ (np.array([column + 0.5, height - row - 0.5]) + corners.min(0) - at)
            drawn[row, column] = pixels[int((1 - up) * pixels.shape[0]), int(across * pixels.shape[1])]
    return np.rot90(drawn, -(turn // 90))


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("matrix", [
    (80, 0, 0, 70, 0, 0), (-80, 0, 0, 70, 80, 0), (80, 0, 0, -70, 0, 70), (-80, 0, 0, -70, 80, 70),
    (0, 80, 70, 0, 0, 0), (0, -80, 70, 0, 0, 80), (0, 80, -70, 0, 70, 0), (0, -80, -70, 0, 70, 80),
])  # fmt: skip
def test_pages_are_turned_as_viewers_draw_them(matrix, turn):
    pixels = sheet(height=70, width=80)
    made = document([encoded("flate", pixels)], size=(90, 90))
    made.pages[0].Rotate = turn
    made.pages[0].Contents = made.make_stream(f"q {' '.join(map(str, matrix))} cm /Im0 Do Q".encode())
    (page,) = scan_pages(saved(made), "a.pdf")
    assert np.array_equal(page.upright(page.pixels), drawn_by_a_viewer(pixels, matrix, turn))
    assert page.dpi == pytest.approx(72)


@pytest.mark.parametrize("unit", [1, 2])
@pytest.mark.parametrize("way", ["rotate", "matrix", "form", "form's matrix"])
def test_every_way_to_turn_a_page_gives_the_same_page(way, unit):
    pixels = sheet(height=80, width=120)
    made = document([encoded("flate", pixels)], size=(60 / unit, 40 / unit))
    page = made.pages[0]
    page.UserUnit = unit
    long, short = 60 / unit, 40 / unit
    turned, lying = f"0 {-long} {short} 0 0 {long} cm", f"{long} 0 0 {short} 0 0 cm"
    if way == "rotate":
        page.Rotate = 90
    elif way == "matrix":
        page.Contents = made.make_stream(f"q {turned} /Im0 Do Q".encode())
    else:
        by_form = way == "form's matrix"
        own = Array([0, -1, 1, 0, 0, long] if by_form else [1, 0, 0, 1, 0, 0])
        drawn = f"{lying if by_form else turned} /Im0 Do".encode()
        form = pikepdf.Stream(made, drawn, Type=Name.XObject, Subtype=Name.Form, BBox=[0, 0, 99, 99], Matrix=own)
        form.Resources = Dictionary(XObject=Dictionary(Im0=page.Resources.XObject.Im0))
        page.Resources = Dictionary(XObject=Dictionary(Fm0=made.make_indirect(form)))
        page.Contents = made.make_stream(b"/Fm0 Do")
    (read,) = scan_pages(saved(made), "a.pdf")
    assert (read.dpi, read.orientation) == (pytest.approx(144), 6)


@pytest.mark.parametrize("quarters", range(4))
def test_strips_of_a_page_that_its_content_turns_are_joined(quarters):
    image = sheet(height=192, width=80)
    made = document([encoded("flate", image[:96])], size=(200, 200))
    data, entries = encoded("flate", image[96:])
    lower = pikepdf.Stream(made, data, Type=Name.XObject, Subtype=Name.Image, **entries)
    made.pages[0].Resources.XObject.Im1 = made.make_indirect(lower)
    matrix = [b"1 0 0 1 0 0", b"0 1 -1 0 200 0", b"-1 0 0 -1 200 200", b"0 -1 1 0 0 200"][quarters]
    content = matrix + b" cm q 80 0 0 96 0 96 cm /Im0 Do Q q 80 0 0 96 0 0 cm /Im1 Do Q"
    made.pages[0].Contents = made.make_stream(content)
    (read,) = scan_pages(saved(made), "a.pdf")
    assert np.array_equal(read.pixels, image)
    assert read.orientation == [1, 8, 3, 6][quarters]


@pytest.mark.parametrize("entry", [{"Rotate": Name.x}, {"UserUnit": Name.x}])
def test_a_page_with_an_odd_entry_is_read(entry):
    made = document([encoded("flate", sheet())])
    made.pages[0].obj.update({f"/{key}": value for key, value in entry.items()})
    (read,) = scan_pages(saved(made), "a.pdf")
    assert (read.dpi, read.orientation) == (pytest.approx(144), 1)


def test_the_pictures_of_a_page_with_an_odd_content_are_restored(tmp_path):
    made = document([encoded("flate", sheet())])
    made.pages[0].Contents = made.make_stream(b"q 200 0 0 200 zz cm /Im0 Do Q")
    result, _ = written(saved(made), tmp_path)
    assert (result.codecs, result.left) == ({1: "Flate"}, [])


@pytest.mark.parametrize("degrees", [-2, 3, 88, 181])
def test_tilted_pages_have_the_nearest_orientation(degrees):
    cosine, sine = 40 * math.cos(math.radians(degrees)), 40 * math.sin(math.radians(degrees))
    made = document([encoded("flate", sheet(height=80, width=80))], size=(99, 99))
    made.pages[0].Contents = made.make_stream(f"{cosine} {sine} {-sine} {cosine} 50 50 cm /Im0 Do".encode())
    (page,) = scan_pages(saved(made), "a.pdf")
    assert page.dpi == pytest.approx(144)
    assert page.orientation == {0: 1, 90: 8, 180: 3}[round(degrees / 90) * 90]


@pytest.mark.parametrize("drawn", [True, False])
def test_the_user_unit_of_a_page_counts(drawn):
    made = document([encoded("flate", sheet(height=80, width=80))], size=(80, 80))
    made.pages[0].UserUnit = 2.5
    if not drawn:  # the picture is assumed to be as wide as the page
        made.pages[0].Contents = made.make_stream(b"")
    (page,) = scan_pages(saved(made), "a.pdf")
    assert page.dpi == pytest.approx(72 / 2.5)


def test_inline_pictures_are_reported(tmp_path):
    made = document([encoded("flate", sheet())])
    large, small = (bytes([200]) * side * side for side in (70, 9))
    for side, data in ((70, large), (9, small)):
        made.pages[0].contents_add(
            f"q 9 0 0 9 0 0 cm BI /W {side} /H {side} /BPC 8 /CS /G ID ".encode() + data + b" EI Q"
        )
    result, _ = written(saved(made), tmp_path)
    assert result.left == [(1, "inline"), (1, "small")]


@pytest.mark.parametrize("wrong", [{"Height": 100}, {"ColorSpace": Name.DeviceRGB}])
def test_a_picture_with_a_wrong_shape_is_reported(wrong, tmp_path):
    data, entries = encoded("jpeg", sheet())
    result, after = written(saved(document([(data, {**entries, **wrong})])), tmp_path)
    assert (result.left, result.codecs) == ([(1, "of a different shape than the PDF says")], {})
    assert pictures_in(after)[0][0] == data


@pytest.mark.parametrize("kind", ["jpeg", "jpeg2000"])
def test_a_depth_in_the_data_alone_is_enough(kind, tmp_path):
    data, entries = encoded(kind, sheet())
    del entries["BitsPerComponent"]
    for lossless in (False, True):
        result, after = written(saved(document([(data, entries)])), tmp_path, lossless=lossless)
        assert len(result.codecs) == 1
        with pikepdf.open(io.BytesIO(after)) as opened:
            assert decoded(opened.pages[0].Resources.XObject.Im0).shape == (HEIGHT, WIDTH)


@pytest.fixture
def pages_of_jpegs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("scans").mkdir()
    Path("scans/book.pdf").write_bytes(read_by_ocr(packed=False))
    return tmp_path


def test_a_run_records_sizes_codecs_and_digests(pages_of_jpegs):
    done = denoise_scans("scans", "clean", device="cpu")
    assert (done.pages, done.errors) == (3, ())
    record = json.loads(Path("clean/book.pdf.json").read_text())
    sizes = [Path(folder, "book.pdf").stat().st_size for folder in ("scans", "clean")]
    assert record["bytes"] == sizes
    assert set(record["codecs"]) <= {"1", "2", "3"}
    assert set(record["codecs"].values()) == {"JPEG"}
    assert record["kept"] == []
    assert sizes[1] <= 1.3 * sizes[0]
    assert not [note for note in done.notes if "grew" in note]
    assert denoise_scans("scans", "clean", device="cpu").resumed == 1


def test_a_pdf_that_grows_much_is_named_in_both_runs(pages_of_jpegs, monkeypatch):
    monkeypatch.setattr("vaeguard.restoration.notes.MUCH_LARGER", 1.05)  # clean print takes little room anyway
    outputs = DenoiseOutputs(lossless=True)
    for resumed in (0, 1):
        done = denoise_scans("scans", "clean", outputs=outputs, device="cpu")
        before, after = (Path(folder, "book.pdf").stat().st_size / 1000 for folder in ("scans", "clean"))
        assert after > 1.05 * before
        note = f"1 PDF grew to more than 1.05 times the original size: 'book.pdf' ({before:.0f} kB to {after:.0f} kB)"
        assert (done.notes, done.resumed) == ((note,), resumed)


def test_the_exact_difference_implies_lossless_pictures(pages_of_jpegs):
    denoise_scans("scans", "clean", outputs=DenoiseOutputs(residual=True), device="cpu")
    assert set(json.loads(Path("clean/book.pdf.json").read_text())["codecs"].values()) == {"Flate"}
    assert undo_scans("clean") == (1, [])
    before, after = (
        [digest_of_pixels(page.pixels) for page in scan_pages(Path(folder, "book.pdf").read_bytes(), "book.pdf")]
        for folder in ("scans", "clean-originals")
    )
    assert before == after
    with pytest.raises(UsageError, match="`lossless` and `jpeg` exclude each other"):
        DenoiseOutputs(jpeg=90, lossless=True)

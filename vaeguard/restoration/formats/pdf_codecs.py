"""How clean pictures go back into a PDF: in the codec they came in, at about its quality, or without loss."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pikepdf
from pikepdf import Name
from PIL import Image, JpegImagePlugin

from vaeguard.restoration.formats.picture import png_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaeguard.restoration.formats.scan_page import Page, Pixels

    Check = Callable[[Page, Pixels], bool]

FINER = (1, 1.4, 2, 4)
"""A lossy codec is tried at the quality of the original, then with its quantisation divided by so much. Divided by 1.4,
a page takes a fifth more room."""
LARGEST_DIFFERENCE = 6.0
"""Levels (root of the mean square) by which a picture may change in a lossy codec. At quality 75, pages of small print
change by 3 to 6."""
LEVEL = 6
"""Of compression without loss: the next levels take twice the time for a few percent."""
_ADOBE = b"\xff\xee"
_SIZE, _CODING_STYLE, _TRANSFORM = b"\xff\x4f\xff\x51", b"\xff\x52", 13
"""Of a JPEG 2000: its start, the mark of its coding style, and the place of the wavelet's kind after that mark."""


@dataclass(frozen=True)
class Coding:
    """How clean pictures are written.

    Attributes
    ----------
    jpeg : int or None
        Write what was a JPEG with this quality, 1 to 100; None with that of the original.
    lossless : bool
        Write all without loss.
    check : callable or None
        Takes a page and its pixels as decoded from what was written; if it returns False, less loss is tried.
        It is called right after the page was restored, once for each quality that is tried.
    """

    jpeg: int | None = None
    lossless: bool = False
    check: Check | None = None

    @property
    def steps(self) -> tuple[float, ...]:
        """What is tried in turn: divisors of the quantisation, 0 for no loss at all."""
        return (0,) if self.lossless else (1, 0) if self.jpeg else (*FINER, 0)

    def accepts(self, page: Page, restored: Pixels, decoded: Pixels) -> bool:
        """Whether `decoded` is near enough to what was to be written, and passes the check."""
        near = self.jpeg or difference(restored, decoded) <= LARGEST_DIFFERENCE
        return bool(near) and (self.check is None or self.check(page, decoded))


@dataclass(frozen=True)
class Source:
    """How a picture of a PDF is coded.

    Attributes
    ----------
    codec : str
        The name of the filter: `/DCTDecode` is JPEG, `/JPXDecode` JPEG 2000; others lose nothing.
    data : bytes
        A JPEG or a JPEG 2000 file; empty for others.
    rgb : bool
        Whether the PDF says of a JPEG that its values are red, green and blue themselves.
    """

    codec: str
    data: bytes = b""
    rgb: bool = False


def difference(one: Pixels, other: Pixels) -> float:
    """Root of the mean square of the differences between two pictures of 8 bits, in levels."""
    apart = one.astype(np.int16) - other
    return float(np.sqrt(np.mean(np.square(apart, dtype=np.float32))))


def source_of(picture: Any) -> Source:
    """How a picture of a PDF is coded now."""
    filters = _listed(picture.get(Name.Filter))
    codec = str(filters[-1]) if filters else ""
    if codec not in ("/DCTDecode", "/JPXDecode"):
        return Source(codec)
    said = _listed(picture.get(Name.DecodeParms))
    data = _without_wrapping(picture, filters, said)
    told = said[-1].get("/ColorTransform") if said and isinstance(said[-1], pikepdf.Dictionary) else None
    return Source(codec, data, rgb=codec == "/DCTDecode" and told == 0 and _ADOBE not in data[: data.find(b"\xff\xda")])


def decoded(picture: Any) -> Pixels:
    """The pixels of a picture of a PDF."""
    source = source_of(picture)
    if source.rgb:  # the reader takes it for luminance and colour differences, as a JPEG mostly is
        pixels: Pixels = imagecodecs.jpeg8_decode(source.data, colorspace="RGB", outcolorspace="RGB")
        return pixels
    image = pikepdf.PdfImage(picture).as_pil_image()
    # A soft mask, a file of its own, comes back as opacity.
    colours = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
    return np.asarray(image.convert(colours) if colours != image.mode else image)


def replace(picture: Any, pixels: Pixels, source: Source, coding: Coding, finer: float) -> str:
    """Write `pixels` in place of those of a picture; returns what they are written in.

    Parameters
    ----------
    picture : pikepdf stream
        Changed in place; what is written beside its pixels stays.
    pixels : ndarray
        uint8, (H, W) or (H, W, 3).
    source : Source
        How the original is coded.
    coding : Coding
        How it is written.
    finer : float
        Divisor of the quantisation of the original; 0 loses nothing.

    Raises
    ------
    OSError
        The codec cannot hold them.
    """
    picture.BitsPerComponent = 8
    less_loss = " with less loss" if finer > 1 else ""
    if finer and source.codec == "/DCTDecode":
        picture.write(_jpeg(pixels, source.data, coding.jpeg, finer), filter=Name.DCTDecode)
        return "JPEG" + less_loss
    if finer and source.codec == "/JPXDecode":
        picture.write(_jpeg2000(pixels, source.data, finer), filter=Name.JPXDecode)
        return "JPEG 2000" + less_loss
    data, predicted = _deflated(pixels)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    rows = pikepdf.Dictionary(Predictor=15, Colors=channels, BitsPerComponent=8, Columns=pixels.shape[1])
    picture.write(data, filter=Name.FlateDecode, decode_parms=rows if predicted else None)
    return "Flate"


def _jpeg(pixels: Pixels, original: bytes, quality: int | None, finer: float) -> bytes:
    """A JPEG with the quantisation and the subsampling of the original, or without subsampling where that is finer."""
    how: dict[str, Any] = {"quality": quality, "subsampling": 0}
    if not quality:
        with Image.open(io.BytesIO(original)) as image:
            header: Any = image
            tables = [list(header.quantization[layer[3]]) for layer in header.layer]
            sampling = JpegImagePlugin.get_sampling(header)
            how = {"progressive": "progressive" in image.info}
        while len(tables) > 1 and tables[-1] == tables[-2]:  # the last one stands for further channels
            tables.pop()
        how["qtables"] = [[max(1, round(step / finer)) for step in table] for table in tables]
        how["subsampling"] = sampling if sampling > 0 and finer == 1 else 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", optimize=finer == 1, **how)
    return file.getvalue()


def _jpeg2000(pixels: Pixels, original: bytes, finer: float) -> bytes:
    """A JPEG 2000 with the wavelet of the original, and at most about `finer` times its size."""
    size = original.index(_SIZE)
    style = original.index(_CODING_STYLE, size + 4 + int.from_bytes(original[size + 4 : size + 6]))
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file,
        format="JPEG2000",
        quality_mode="rates",
        quality_layers=[pixels.size / (len(original) * finer)],
        irreversible=original[style + _TRANSFORM] == 0,
        num_resolutions=min(6, min(pixels.shape[:2]).bit_length()),
    )
    return file.getvalue()


def _deflated(pixels: Pixels) -> tuple[bytes, bool]:
    """Pixels without loss, and whether they are predicted row by row as in a PNG: whatever is smaller.

    Print compresses better as it is, photographs with predictors.
    """
    plain = bytes(imagecodecs.deflate_encode(pixels.tobytes(), level=LEVEL))
    # Only runs are looked for, four times as fast, since after a prediction hardly anything longer repeats.
    how = {"strategy": imagecodecs.PNG.STRATEGY.RLE, "filter": imagecodecs.PNG.FILTER.ALL}
    png = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), LEVEL, **how))
    predicted = b"".join(data for kind, data in png_chunks(png) if kind == b"IDAT")
    return (predicted, True) if len(predicted) < len(plain) else (plain, False)


def _listed(value: Any) -> list[Any]:
    """A filter or its parameters, or a list of several, as a list."""
    return list(value) if isinstance(value, pikepdf.Array) else [] if value is None else [value]


def _without_wrapping(picture: Any, filters: list[Any], said: list[Any]) -> bytes:
    """The bytes that the last filter takes: some writers pack a JPEG once more."""
    raw = bytes(picture.read_raw_bytes())
    if len(filters) == 1:
        return raw
    with pikepdf.new() as empty:
        outer = pikepdf.Stream(empty, b"")
        outer.write(raw, filter=_copied(filters[:-1]), decode_parms=_copied(said[:-1]) if said else None)
        return bytes(outer.read_bytes())


def _copied(values: list[Any]) -> Any:
    """A list of plain values of a PDF, for another PDF."""
    return pikepdf.Object.parse(pikepdf.Array(values).unparse(resolved=True))

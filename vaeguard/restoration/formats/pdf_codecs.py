"""Write clean pictures into a PDF: in their original codec at about the original quality, or without loss."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pikepdf
from pikepdf import Name
from PIL import Image, JpegImagePlugin

from vaeguard.data.encodings import png_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaeguard.restoration.formats.scan_page import Page, Pixels

    Check = Callable[[Page, Pixels], bool]

FINER = (1, 1.4, 2, 4)
"""The divisors of the original's quantisation that a lossy codec tries in turn.

A divisor of 1.4 makes a page a fifth larger."""
LARGEST_DIFFERENCE = 6.0
"""The largest root mean square, in levels, by which a lossy codec may change a picture.

At quality 75, pages of small print change by 3 to 6 levels."""
LEVEL = 6
"""The level of lossless compression; higher levels take twice the time for a few percent."""
_ADOBE = b"\xff\xee"
"""The mark of a JPEG's segment that states its colour transform."""
_SIZE = b"\xff\x4f\xff\x51"
"""The start of a JPEG 2000."""
_CODING_STYLE = b"\xff\x52"
"""The mark of a JPEG 2000's coding style."""
_TRANSFORM = 13
"""The offset of the kind of wavelet from that mark."""


@dataclass(frozen=True)
class Coding:
    """The coding of clean pictures.

    Attributes
    ----------
    jpeg : int or None
        Quality of pictures that were JPEGs, 1 to 100; None for that of the original.
    lossless : bool
        Write every picture without loss.
    check : callable or None
        Takes a page, and its pixels as decoded from the written picture, right after the page was restored. If it
        returns False, the next quality is tried.
    """

    jpeg: int | None = None
    lossless: bool = False
    check: Check | None = None

    @property
    def steps(self) -> tuple[float, ...]:
        """The divisors of the quantisation that are tried in turn; 0 means no loss."""
        return (0,) if self.lossless else (1, 0) if self.jpeg else (*FINER, 0)

    def accepts(self, page: Page, restored: Pixels, decoded: Pixels) -> bool:
        """Whether the `decoded` pixels are near the restored ones and pass the check."""
        near = self.jpeg or difference(restored, decoded) <= LARGEST_DIFFERENCE
        return bool(near) and (self.check is None or self.check(page, decoded))


@dataclass(frozen=True)
class Source:
    """The coding of an original picture in a PDF.

    Attributes
    ----------
    codec : str
        Name of the filter: `/DCTDecode` is JPEG, `/JPXDecode` is JPEG 2000; other filters lose nothing.
    data : bytes
        The JPEG or JPEG 2000 file; empty for other filters.
    rgb : bool
        Whether the PDF states that a JPEG contains red, green and blue, without a colour transform.
    """

    codec: str
    data: bytes = b""
    rgb: bool = False


def difference(one: Pixels, other: Pixels) -> float:
    """The root mean square difference between two pictures of 8 bits, in levels."""
    differences = one.astype(np.int16) - other
    return float(np.sqrt(np.mean(np.square(differences, dtype=np.float32))))


def source_of(picture: Any) -> Source:
    """Read the coding of a picture in a PDF."""
    filters = _listed(picture.get(Name.Filter))
    codec = str(filters[-1]) if filters else ""
    if codec not in ("/DCTDecode", "/JPXDecode"):
        return Source(codec)
    parameters = _listed(picture.get(Name.DecodeParms))
    data = _unwrapped(picture, filters, parameters)
    own = parameters[-1] if parameters else None
    transform = own.get("/ColorTransform") if isinstance(own, pikepdf.Dictionary) else None
    header = data[: data.find(b"\xff\xda")]
    return Source(codec, data, rgb=codec == "/DCTDecode" and transform == 0 and _ADOBE not in header)


def decoded(picture: Any) -> Pixels:
    """Decode the pixels of a picture in a PDF."""
    source = source_of(picture)
    if source.rgb:
        # The reader would assume luminance and colour differences, as in most JPEGs.
        pixels: Pixels = imagecodecs.jpeg8_decode(source.data, colorspace="RGB", outcolorspace="RGB")
        return pixels
    image = pikepdf.PdfImage(picture).as_pil_image()
    # The reader returns a soft mask, which is a picture of its own, as opacity.
    colours = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
    return np.asarray(image.convert(colours) if colours != image.mode else image)


def replace(picture: Any, pixels: Pixels, source: Source, coding: Coding, finer: float) -> str:
    """Replace the pixels of a picture, and return the name of the codec.

    Parameters
    ----------
    picture : pikepdf stream
        Changed in place; its metadata stays.
    pixels : ndarray
        uint8, shape (H, W) or (H, W, 3).
    source : Source
        The coding of the original.
    coding : Coding
        The coding of the clean picture.
    finer : float
        Divisor of the original's quantisation; 0 means no loss.

    Raises
    ------
    OSError
        The codec cannot encode the pixels.
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
    prediction = pikepdf.Dictionary(Predictor=15, Colors=channels, BitsPerComponent=8, Columns=pixels.shape[1])
    picture.write(data, filter=Name.FlateDecode, decode_parms=prediction if predicted else None)
    return "Flate"


def _jpeg(pixels: Pixels, original: bytes, quality: int | None, finer: float) -> bytes:
    """Encode a JPEG with the original's quantisation divided by `finer`; subsampling stays only if `finer` is 1."""
    options: dict[str, Any] = {"quality": quality, "subsampling": 0}
    if not quality:
        with Image.open(io.BytesIO(original)) as image:
            header: Any = image
            tables = [list(header.quantization[layer[3]]) for layer in header.layer]
            sampling = JpegImagePlugin.get_sampling(header)
            options = {"progressive": "progressive" in image.info}
        # The last table serves all further channels.
        while len(tables) > 1 and tables[-1] == tables[-2]:
            tables.pop()
        options["qtables"] = [[max(1, round(step / finer)) for step in table] for table in tables]
        options["subsampling"] = sampling if sampling > 0 and finer == 1 else 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", optimize=finer == 1, **options)
    return file.getvalue()


def _jpeg2000(pixels: Pixels, original: bytes, finer: float) -> bytes:
    """Encode a JPEG 2000 with the original's wavelet, and at most about `finer` times its size."""
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
    """Deflate pixels with or without the row predictors of PNG, whichever is smaller; returns whether with.

    Photographs compress better with predictors, print without.
    """
    plain = bytes(imagecodecs.deflate_encode(pixels.tobytes(), level=LEVEL))
    # Predicted rows repeat little but runs, and looking for runs alone is four times as fast.
    options = {"strategy": imagecodecs.PNG.STRATEGY.RLE, "filter": imagecodecs.PNG.FILTER.ALL}
    png = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), LEVEL, **options))
    predicted = b"".join(data for kind, data in png_chunks(png) if kind == b"IDAT")
    return (predicted, True) if len(predicted) < len(plain) else (plain, False)


def _listed(value: Any) -> list[Any]:
    """One value, a list of values, or None, as a list."""
    return list(value) if isinstance(value, pikepdf.Array) else [] if value is None else [value]


def _unwrapped(picture: Any, filters: list[Any], parameters: list[Any]) -> bytes:
    """Undo all filters but the last, since some writers compress a JPEG once more."""
    raw = bytes(picture.read_raw_bytes())
    if len(filters) == 1:
        return raw
    with pikepdf.new() as empty:
        outer = pikepdf.Stream(empty, b"")
        outer.write(raw, filter=_copied(filters[:-1]), decode_parms=_copied(parameters[:-1]) if parameters else None)
        return bytes(outer.read_bytes())


def _copied(values: list[Any]) -> Any:
    """Copy a list of plain values for another PDF."""
    return pikepdf.Object.parse(pikepdf.Array(values).unparse(resolved=True))

"""Write clean pictures into a PDF: in their original codec at about the original quality, or without loss."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pikepdf
from pikepdf import Name
from PIL import Image, JpegImagePlugin

from vaeguard.data.encodings import kind_of_jpeg, png_chunks
from vaeguard.restoration.formats.jpeg import frame_of
from vaeguard.restoration.formats.jpeg2000 import GREY, SRGB, codestream_of, encoded, header_of, with_codestream

if TYPE_CHECKING:
    from vaeguard.restoration.formats.scan_format import Coding
    from vaeguard.restoration.formats.scan_page import Pixels

LEVEL = 6
"""The level of lossless compression; higher levels take twice the time for a few percent."""
CHANNELS = {"/DeviceGray": 1, "/CalGray": 1, "/DeviceRGB": 3, "/CalRGB": 3}
"""The colour spaces whose pictures are restored, besides those of a profile."""
_ABBREVIATIONS = {"/DCT": "/DCTDecode", "/CCF": "/CCITTFaxDecode"}
_LOSSLESS = (
    *("", "/FlateDecode", "/LZWDecode", "/RunLengthDecode", "/ASCIIHexDecode", "/ASCII85Decode"),
    *("/Fl", "/LZW", "/RL", "/AHx", "/A85", "/Crypt"),
)
"""The filters that lose nothing."""
_CODING_STYLE = b"\xff\x52"
"""The mark of a JPEG 2000's coding style."""
_TRANSFORM = 13
"""The offset of the kind of wavelet from that mark."""


@dataclass(frozen=True)
class Source:
    """The coding of an original picture in a PDF.

    Attributes
    ----------
    codec : str
        Name of the filter: `/DCTDecode` is JPEG, `/JPXDecode` is JPEG 2000; other filters lose nothing.
    data : bytes
        The JPEG or JPEG 2000 file; empty for other filters.
    colours : str or None
        `RGB` or `YCbCr` if the PDF states that a JPEG contains these, and a reader of JPEG files would not know.
    """

    codec: str
    data: bytes = b""
    colours: str | None = None


def codec_of(picture: Any) -> str:
    """The last filter of a picture, which encodes the pixels; earlier filters pack the stream."""
    filters = _listed(picture.get(Name.Filter))
    return _ABBREVIATIONS.get(str(filters[-1]), str(filters[-1])) if filters else ""


def source_of(picture: Any) -> Source:
    """Read the coding of a picture in a PDF.

    Raises
    ------
    ValueError
        Viewers do not agree on what the entries of the picture mean.
    """
    filters, parameters = _listed(picture.get(Name.Filter)), _listed(picture.get(Name.DecodeParms))
    codec = codec_of(picture)
    # Viewers ignore parameters that are no list beside a list of filters, and the reverse; other readers do not.
    matching = _is_list(picture, Name.Filter) == _is_list(picture, Name.DecodeParms)
    if Name.DP in picture or (parameters and not matching and filters != [Name.DCTDecode]):
        raise ValueError("its parameters are unclear")
    if codec not in ("/DCTDecode", "/JPXDecode"):
        return Source(codec)
    data = _unwrapped(picture, filters, parameters)
    if codec == "/DCTDecode":  # viewers skip what stands before the JPEG
        data = data[max(0, data.find(b"\xff\xd8")) :]
    own = parameters[-1] if parameters and matching else None
    transform = own.get("/ColorTransform") if isinstance(own, pikepdf.Dictionary) else None
    return Source(codec, data, _stated_colours(data, transform) if codec == "/DCTDecode" else None)


def _stated_colours(jpeg: bytes, transform: Any) -> str | None:
    """The colours of three components by the rules of PDF, if these differ from those of JPEG files."""
    frame = frame_of(jpeg)
    if frame is None or len(frame.components) != 3:
        return None
    if frame.adobe is not None:
        rgb = frame.adobe == 0
    elif transform is None:
        rgb = frame.reads_as_rgb
    elif isinstance(transform, int):
        rgb = transform == 0
    else:
        raise ValueError("its colour transform is not a whole number")
    return None if rgb == frame.reads_as_rgb else "RGB" if rgb else "YCbCr"


def decoded(picture: Any) -> Pixels:
    """Decode the pixels of a picture of 8 bits in a PDF."""
    source = source_of(picture)
    pixels: Pixels
    if source.codec == "/JPXDecode":
        pixels = imagecodecs.jpeg2k_decode(codestream_of(source.data))
    elif source.colours:
        pixels = imagecodecs.jpeg8_decode(source.data, colorspace=source.colours, outcolorspace="RGB")
    elif source.codec == "/DCTDecode":
        with Image.open(io.BytesIO(source.data), formats=["JPEG"]) as image:
            pixels = np.asarray(image)
    else:
        data = picture.read_bytes(pikepdf.StreamDecodeLevel.specialized)
        shape = int(picture.Height), int(picture.Width), *([3] if channels_of(picture) == 3 else [])
        pixels = np.frombuffer(data, np.uint8, math.prod(shape)).reshape(shape)
    return pixels


def unfit_coding(picture: Any) -> str:
    """The kind of a picture whose data are not decoded, in a few words; empty for others."""
    source = source_of(picture)
    if source.codec == "/DCTDecode":
        return kind_of_jpeg(source.data)
    if source.codec == "/JPXDecode":
        try:
            header = header_of(source.data)
        except ValueError:  # a damaged one, which cannot be decoded either
            return ""
        opacity = "mixed with its opacity" if len(header.bits) in (2, 4) else ""
        return header.other_kind or opacity or (f"of {header.bits[0]} bits" if header.bits[0] != 8 else "")
    return "" if source.codec in _LOSSLESS else "of an unknown codec"


def channels_of(picture: Any) -> int:
    """The number of channels that the colour space of a picture has; 0 if it has none or is not restored."""
    space = picture.get(Name.ColorSpace)
    if space is None:
        colours = header_of(source_of(picture).data).colours if codec_of(picture) == "/JPXDecode" else None
        return {SRGB: 3, GREY: 1}.get(colours or 0, 0)
    kind = str(space[0] if isinstance(space, pikepdf.Array) else space)
    return int(space[1].N) if kind == "/ICCBased" else CHANNELS.get(kind, 0)


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
    if source.codec == "/JPXDecode":
        stream = _jpeg2000(pixels, source.data, finer) if finer else encoded(pixels)
        picture.write(with_codestream(source.data, stream), filter=Name.JPXDecode)
        return "JPEG 2000" + (less_loss if finer else " without loss")
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
    """Encode a stream of JPEG 2000 with the original's wavelet, and at most about `finer` times its size."""
    stream = codestream_of(original)
    style = stream.index(_CODING_STYLE, 4 + int.from_bytes(stream[4:6]))
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file,
        format="JPEG2000",
        no_jp2=True,
        quality_mode="rates",
        quality_layers=[pixels.size / (len(original) * finer)],
        irreversible=stream[style + _TRANSFORM] == 0,
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


def _is_list(picture: Any, key: Name) -> bool:
    return isinstance(picture.get(key), pikepdf.Array)


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

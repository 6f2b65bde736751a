"""The images, tables and scans that the cases read: small, and the same bits every time."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pikepdf
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from PIL import Image, ImageCms, ImageDraw, ImageFont

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 32
"""Pixels a side of the parts: enough for a convolutional model and for patches."""
SMALL_SPEC = """[model]
hidden = [16]
latent = 4
pseudo_classes = 0
[training]
epochs = 2
"""


def make_corpus(folder: Path) -> None:
    """Write all of it below `folder`."""
    folder.mkdir(parents=True)
    (folder / "data").mkdir()
    _write_parts(folder)
    _write_arrays(folder)
    _write_tables(folder)
    _write_damaged(folder / "damaged")
    _write_scans(folder)
    _write_pairs(folder)
    (folder / "small.toml").write_text(SMALL_SPEC)
    (folder / "misspelled.toml").write_text("[model]\nlatnet = 3\n")
    (folder / "empty").mkdir()


def _part(number: int, *, cracked: bool) -> np.ndarray:
    """A textured surface (SIDE, SIDE), uint8; a cracked one has a bright line."""
    rng = np.random.default_rng((number, cracked))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    surface = 120 + 30 * np.sin((rows + number % 7) / 4) * np.cos(columns / 5) + rng.normal(0, 6, (SIDE, SIDE))
    if cracked:
        surface[_crack(number)] += 90
    return surface.clip(0, 255).astype(np.uint8)


def _crack(number: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return (abs(rows - columns + number % 9 - 4) < 2) & (columns > 8) & (columns < 26)


def _write_parts(folder: Path) -> None:
    """Folders of classes with masks of the defects, and a CSV file of groups."""
    groups = ["path,group"]
    for name, count in (("good", 60), ("crack", 12)):
        for number in range(count):
            path = folder / "parts" / name / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_part(number, cracked=name == "crack")).save(path)
            groups.append(f"{name}/{number:02}.png,{name}-{number // 2}")
    for number in range(12):
        path = folder / "masks" / "crack" / f"{number:02}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_crack(number).astype(np.uint8) * 255).save(path)
    (folder / "groups.csv").write_text("\n".join(groups) + "\n")
    for number in range(30):
        colour = np.stack([_part(number, cracked=False)] * 3, -1)
        colour[..., 0] //= 2
        (folder / "colour").mkdir(exist_ok=True)
        Image.fromarray(colour).save(folder / "colour" / f"{number}.png")


def _write_arrays(folder: Path) -> None:
    """The same parts as arrays, IDX, tar and Parquet."""
    paths = sorted((folder / "parts").rglob("*.png"))
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    labels = np.array([int(path.parent.name == "good") for path in paths], np.uint8)
    np.save(folder / "parts.npy", images)
    np.savez(folder / "parts.npz", images=images, labels=labels)
    (folder / "idx").mkdir()
    (folder / "idx/t10k-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, *images.shape) + images.tobytes())
    (folder / "idx/t10k-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, len(labels)) + labels.tobytes())
    with tarfile.open(folder / "parts.tar", "w") as archive:
        for path in paths:
            info = tarfile.TarInfo(str(path.relative_to(folder / "parts")))
            info.size = path.stat().st_size
            archive.addfile(info, io.BytesIO(path.read_bytes()))
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    pq.write_table(pa.table({"image": cells, "label": labels}), folder / "parts.parquet")


def _write_tables(folder: Path) -> None:
    """Rows of correlated floats, and outliers."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    labels = np.repeat([0, 1], [250, 50])
    rows[250:] = 5 * rng.normal(size=(50, 5))
    train, test = slice(0, 200), slice(200, 300)
    np.savez(
        folder / "table.npz", x_train=rows[train], y_train=labels[train], x_test=rows[test], y_test=labels[test]
    )  # fmt: skip
    np.save(folder / "table.npy", rows[:250])
    np.save(folder / "whole.npy", np.zeros((40, 5), int))


def _write_damaged(folder: Path) -> None:
    """One file of each kind that cannot be read, beside good ones."""
    folder.mkdir()
    for number in range(30):
        Image.fromarray(_part(number, cracked=False)).save(folder / f"good-{number:02}.png")
    (folder / "text.png").write_text("no picture at all")
    (folder / "empty.png").write_bytes(b"")
    colour = Image.fromarray(np.random.default_rng(2).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    colour.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:700])
    colour.convert("CMYK").save(folder / "cmyk.jpg")
    colour.save(folder / "moving.webp", save_all=True, append_images=[colour.rotate(90)])
    header = struct.pack(">II", 40_000, 40_000) + b"\x01\x00\x00\x00\x00"
    bomb = (folder / "good-00.png").read_bytes()
    bomb = bomb[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + bomb[33:]
    (folder / "bomb.png").write_bytes(bomb)
    (folder / "new\nline.png").write_bytes((folder / "good-00.png").read_bytes())


def _page(seed: int, *, height: int = 150, width: int = 190, noise: float = 8) -> np.ndarray:
    """Text on stained and noisy paper, float (height, width), 0 to 255."""
    rng = np.random.default_rng(seed)
    page = Image.new("L", (width, height), 255)
    font = ImageFont.load_default(13)
    for top in range(4, height, 17):
        letters = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz     "), 60))
        ImageDraw.Draw(page).text((4, top), letters, fill=20, font=font)
    rows, columns = np.mgrid[:height, :width]
    paper = 0.85 + 0.1 * np.sin(columns / 60) * np.sin(rows / 45)
    return (np.asarray(page, float) * paper + rng.normal(0, noise, (height, width))).clip(0, 255)


def _photo(seed: int, *, side: int = 128, noise: float = 14) -> np.ndarray:
    """A smooth scene in colour with grain, uint8 (side, side, 3)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    scene = [110 + 70 * np.sin(rows / (9 + k)) * np.cos(columns / (14 - 2 * k)) for k in range(3)]
    return (np.stack(scene, -1) + rng.normal(0, noise, (side, side, 3))).clip(0, 255).astype(np.uint8)


def _exif() -> Image.Exif:
    made = Image.Exif()
    made[0x010F] = "Maker"
    made[0x0112] = 6
    return made


def _write_scans(folder: Path) -> None:
    """A tree of scans of every format, a folder of photographs, and one scan that is damaged."""
    scans = folder / "scans"
    (scans / "box").mkdir(parents=True)
    grey = [_page(seed).astype(np.uint8) for seed in range(5)]
    tinted = np.stack([grey[1], grey[1] * 0.95, grey[1] * 0.8], -1).astype(np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(grey[0]).save(scans / "page.png", dpi=(150, 150))
    # The date of creation in a fresh profile is of today: it would make another corpus every second.
    profile = profile[:24] + b"\x07\xea\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00" + profile[36:]
    Image.fromarray(tinted).save(
        scans / "tinted.jpg", quality=92, dpi=(150, 150), exif=_exif(), icc_profile=profile, comment="first"
    )  # fmt: skip
    deep = (_page(3) * 257).astype(np.uint16)
    (scans / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    with tifffile.TiffWriter(scans / "box/pages.tif") as file:
        for page in (grey[2], tinted, deep):
            file.write(
                page, resolution=(150, 150), compression="deflate", software="scanner",
                photometric="rgb" if page.ndim == 3 else "minisblack",
            )  # fmt: skip
    Image.fromarray(grey[3]).save(scans / "box/plain.bmp", dpi=(150, 150))
    Image.fromarray(tinted).save(scans / "box/lossless.webp", lossless=True)
    (scans / "box/book.pdf").write_bytes(_pdf([grey[4], tinted]))
    (folder / "photos").mkdir()
    for seed in range(3):
        Image.fromarray(_photo(seed)).save(folder / "photos" / f"{seed}.jpg", quality=95)
    (folder / "broken").mkdir()
    Image.fromarray(grey[0]).save(folder / "broken/good.png", dpi=(150, 150))
    (folder / "broken/cut.tif").write_bytes((scans / "box/pages.tif").read_bytes()[:500])
    (folder / "broken/text.png").write_text("no picture")
    (folder / "broken/cut.pdf").write_bytes((scans / "box/book.pdf").read_bytes()[:900])


def _pdf(pages: list[np.ndarray]) -> bytes:
    """One picture a page, JPEG of the first and deflated of the others."""
    made, file = pikepdf.new(), io.BytesIO()
    for number, pixels in enumerate(pages):
        height, width = pixels.shape[:2]
        said = {"Width": width, "Height": height, "BitsPerComponent": 8}
        said["ColorSpace"] = pikepdf.Name.DeviceRGB if pixels.ndim == 3 else pikepdf.Name.DeviceGray
        data = io.BytesIO()
        if number:
            data.write(zlib.compress(pixels.tobytes()))
        else:
            Image.fromarray(pixels).save(data, "JPEG", quality=85)
        said["Filter"] = pikepdf.Name.FlateDecode if number else pikepdf.Name.DCTDecode
        size = width / 2, height / 2
        page = made.add_blank_page(page_size=size)
        picture = pikepdf.Stream(made, data.getvalue())
        picture.stream_dict = pikepdf.Dictionary(Type=pikepdf.Name.XObject, Subtype=pikepdf.Name.Image, **said)
        page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im0=made.make_indirect(picture)))
        page.Contents = made.make_stream(f"q {size[0]} 0 0 {size[1]} 0 0 cm /Im0 Do Q".encode())
    made.save(file, deterministic_id=True)
    return file.getvalue()


def _write_pairs(folder: Path) -> None:
    """Small pictures to fit a denoiser: clean pages, the same ones noisy, photographs with grain."""
    for name, noise in (("clean", 0.0), ("noisy", 12.0)):
        (folder / name).mkdir()
        for seed in range(4):
            page = _page(seed, height=64, width=64, noise=noise)
            Image.fromarray(page.astype(np.uint8)).save(folder / name / f"{seed}.png")
    (folder / "grain").mkdir()
    for seed in range(2):
        Image.fromarray(_photo(seed, side=64)[..., 0]).save(folder / "grain" / f"{seed}.png")

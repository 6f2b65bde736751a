"""Images as pictures: each beside its restoration and heatmap, in a PNG file or a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vaeguard.engines.inspection import concatenate
from vaeguard.errors import UsageError
from vaeguard.storage.files import writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from vaeguard.engines.detector import Detector
    from vaeguard.engines.inspection import Inspection

HEATMAP_COLOURS = (
    *((0, 0, 3), (22, 11, 57), (65, 9, 103), (106, 23, 110), (146, 37, 104), (187, 55, 84)),
    *((220, 80, 57), (243, 118, 25), (251, 165, 10), (245, 214, 70), (252, 254, 164)),
)
"""Colours from 0 to 1 in equal steps: the map "inferno" of van der Walt and Smith (CC0), safe for colour-blind eyes."""
TILE = 112
"""The least pixels of an image's longest side; smaller images are enlarged by whole factors."""
MAX_TILE = 288
"""The most pixels of an image's longest side; larger images are reduced."""
LARGEST = 1024
"""Pictures of more pixels a side are reduced by a whole factor as soon as they are inspected."""
SHEET_WIDTH = 1200
PAD = 12
GRID_GAP = 3
FONT_SIZE = 15
INK = "#1a1a1a"
PALE_INK = "#595959"
PAPER = "#ffffff"


def inspect_reduced(
    detector: Detector, images: npt.NDArray[Any], rows: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[Any], Inspection]:
    """These `rows` of `images` (N, C, H, W) and their inspection with pictures, no larger than a report shows them.

    Pictures of large images are reduced one by one, since all of them would not fit in memory: a pixel then has the
    mean of the pixels that it covers, in a heatmap the largest value.
    """
    by = -(-max(images.shape[2:]) // LARGEST)
    if by == 1:
        return images[rows], detector.inspect(images[rows], pictures=True)
    reduced, parts = [], []
    for row in rows:
        seen = detector.inspect(images[row][None], pictures=True)
        assert seen.heatmap is not None
        restored = None if seen.restored is None else _blocks(seen.restored, by).mean((-3, -1), dtype=np.float32)
        parts.append(replace(seen, restored=restored, heatmap=_blocks(seen.heatmap, by).max((-3, -1))))
        reduced.append(_blocks(images[row], by).mean((-3, -1), dtype=np.float32).round().astype(images.dtype))
    return np.stack(reduced), concatenate(parts)


def _blocks(values: npt.NDArray[Any], by: int) -> npt.NDArray[Any]:
    """Values (..., H, W) in blocks of `by` pixels a side, (..., H / by, by, W / by, by), without an incomplete rim."""
    *outer, height, width = values.shape
    rows, columns = height // by, width // by
    return values[..., : rows * by, : columns * by].reshape(*outer, rows, by, columns, by)


def pick_examples(scores: npt.NDArray[np.floating], n: int) -> npt.NDArray[np.intp]:
    """Return the positions of up to `n` images, a third each of the lowest, the middle and the highest scores.

    The positions are in rising order of score, and distinct.
    """
    order = np.argsort(scores, kind="stable")
    if n >= len(order):
        return order
    lowest, highest = (n + 1) // 3, (n + 2) // 3
    middle = n - lowest - highest
    rest = order[lowest : len(order) - highest]
    start = (len(rest) - middle) // 2
    return np.concatenate([order[:lowest], rest[start : start + middle], order[len(order) - highest :]])


def draw_reconstructions(
    path: str | Path,
    images: npt.NDArray[Any],
    inspection: Inspection,
    indices: Sequence[int] | npt.NDArray[np.integer],
    paths: Sequence[str],
    hottest: float | None = None,
) -> None:
    """Draw input, restored image (if any) and heatmap side by side for each of `indices`, with its score and p-value.

    All heatmaps of the picture share one scale, shown at its foot, so that a quiet image looks quiet.

    Parameters
    ----------
    path : path
        The PNG file.
    images : uint8 (N, C, H, W), or floats in [0, 1]
        The inputs.
    inspection : Inspection
        The inspection of these images, with pictures.
    indices : sequence of int
        The images to draw, see `pick_examples`.
    paths : sequence of str
        The names of the N images.
    hottest : float or None
        The value of the heatmap that is drawn in the last colour; None takes the greatest value in the picture.

    Raises
    ------
    UsageError
        The inspection has no pictures, or there is no image to draw.
    """
    if inspection.heatmap is None or not len(indices):
        raise UsageError("reconstructions need at least one image, inspected with pictures=True")
    font = ImageFont.load_default(FONT_SIZE)
    top = hottest or float(inspection.heatmap[np.asarray(indices)].max()) or 1.0
    cells = []
    for index in indices:
        restored = [] if inspection.restored is None else [picture_of(inspection.restored[index])]
        drawn = (picture_of(images[index]), *restored, heat_picture(inspection.heatmap[index] / top))
        tiles = [_enlarge(picture) for picture in drawn]
        caption = f"score {inspection.score[index]:.2f}   p {inspection.p_value[index]:.3g}"
        cells.append(_cell(tiles, _short_name(paths[index]), caption, font))
    sheet, foot = _sheet(cells)
    _draw_scale(sheet, foot, f"{top:.3g} and above" if hottest else f"{top:.3g}", font)
    draw = ImageDraw.Draw(sheet)
    shown = "input, heatmap" if inspection.restored is None else "input, restored, heatmap"
    draw.text((PAD, PAD), f"each image: {shown}", fill=INK, font=font)
    _save_image(sheet, path)


def draw_grid(path: str | Path, rows: Sequence[tuple[str, npt.NDArray[Any]]]) -> None:
    """Draw rows of images, each behind a label that may be empty, as one PNG file.

    Parameters
    ----------
    path : path
        The PNG file.
    rows : sequence of (str, uint8 or float (n, C, H, W))
        Labels and images; floats lie in [0, 1], and rows may have different lengths.

    Raises
    ------
    UsageError
        There is no image to draw.
    """
    if not any(len(images) for _, images in rows):
        raise UsageError("a picture needs at least one image")
    font = ImageFont.load_default(FONT_SIZE)
    drawn = [[_enlarge(picture_of(image)) for image in images] for _, images in rows]
    first = next(tile for tiles in drawn for tile in tiles)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    margin = max(int(pen.textlength(label, font=font)) for label, _ in rows)
    margin += PAD if margin else 0
    width, height = first.width + GRID_GAP, first.height + GRID_GAP
    size = (margin + width * max(map(len, drawn)) + 2 * PAD, height * len(rows) + 2 * PAD)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, ((label, _), tiles) in enumerate(zip(rows, drawn, strict=True)):
        top = PAD + number * height
        pen.text((PAD, top + (first.height - FONT_SIZE) // 2), label, fill=INK, font=font)
        for column, tile in enumerate(tiles):
            sheet.paste(tile, (PAD + margin + column * width, top))
    _save_image(sheet, path)


def _save_image(image: Image.Image, path: str | Path) -> None:
    with writing(path) as temporary:
        image.save(temporary, format="PNG")


def picture_of(pixels: npt.NDArray[Any]) -> Image.Image:
    """One image, uint8 (C, H, W), or floats in [0, 1], as an RGB picture; transparency lies on white."""
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * 255).clip(0, 255).astype(np.uint8)
    channels = pixels.shape[0]
    if channels == 1:
        pixels = np.repeat(pixels, 3, axis=0)
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if channels in {2, 4}:
        paper = Image.new("RGBA", picture.size, PAPER)
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    return picture.convert("RGB")


def heat_picture(heat: npt.NDArray[np.float32]) -> Image.Image:
    """A heatmap (H, W), 0 to 1, in colours."""
    steps = np.linspace(0, 1, len(HEATMAP_COLOURS))
    colours = [np.interp(heat, steps, channel) for channel in zip(*HEATMAP_COLOURS, strict=True)]
    return Image.fromarray(np.rint(np.stack(colours, -1)).astype(np.uint8))


def _enlarge(picture: Image.Image) -> Image.Image:
    """Bring a picture to a readable size; enlarged pixels stay sharp squares."""
    longest = max(picture.size)
    if longest > MAX_TILE:
        width, height = (max(1, side * MAX_TILE // longest) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    factor = -(-TILE // longest)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def printable(text: str) -> str:
    """Text on one line, with a question mark for each character that cannot be printed."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _short_name(path: str, limit: int = 40) -> str:
    name = printable(Path(path).name)
    return name if len(name) <= limit else name[: limit // 2 - 1] + "…" + name[-limit // 2 :]


def _cell(tiles: list[Image.Image], name: str, caption: str, font: ImageFont.ImageFont | Any) -> Image.Image:
    gap, line = 4, FONT_SIZE + 5
    width = sum(tile.width for tile in tiles) + gap * (len(tiles) - 1)
    height = max(tile.height for tile in tiles)
    cell = Image.new("RGB", (width, height + 2 * line + 6), PAPER)
    left = 0
    for tile in tiles:
        cell.paste(tile, (left, 0))
        left += tile.width + gap
    draw = ImageDraw.Draw(cell)
    while len(name) > 4 and draw.textlength(name, font=font) > width:
        name = "…" + name[2:]
    draw.text((0, height + 3), caption, fill=INK, font=font)
    draw.text((0, height + 3 + line), name, fill=PALE_INK, font=font)
    return cell


def _sheet(cells: list[Image.Image]) -> tuple[Image.Image, int]:
    """Lay cells out in rows below a heading; also return the top of the foot, in pixels from the top of the sheet."""
    width = max(cell.width for cell in cells) + 2 * PAD
    height = max(cell.height for cell in cells) + PAD
    columns = max(1, min(len(cells), SHEET_WIDTH // width))
    rows = -(-len(cells) // columns)
    head = foot = FONT_SIZE + 3 * PAD
    sheet = Image.new("RGB", (max(columns * width, 420), head + rows * height + foot), PAPER)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        sheet.paste(cell, (PAD + column * width, head + row * height))
    return sheet, head + rows * height


def _draw_scale(sheet: Image.Image, foot: int, top: str, font: ImageFont.ImageFont | Any) -> None:
    """Draw the heatmap's colour scale, from 0 to `top`."""
    bar = heat_picture(np.tile(np.linspace(0, 1, 160, dtype=np.float32), (FONT_SIZE, 1)))
    draw = ImageDraw.Draw(sheet)
    left = PAD
    for part in ("heatmap  0", bar, top):
        if isinstance(part, str):
            draw.text((left, foot + PAD), part, fill=INK, font=font)
            left += int(draw.textlength(part, font=font)) + 8
        else:
            sheet.paste(part, (left, foot + PAD + 2))
            left += part.width + 8

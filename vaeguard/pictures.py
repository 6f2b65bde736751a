"""Pictures as PNG files: score histograms, ROC curves, training history, and images beside their reconstructions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import UsageError
from vaeguard.files import writing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image, ImageFont

    from vaeguard.inspection import Inspection

# Okabe and Ito (2008): told apart also with colour-blind eyes; the yellow is left out, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
NORMAL, ANOMALOUS, THRESHOLD = COLOURS[0], COLOURS[1], "#333333"
LINE_STYLES = ("-", "--", "-.", ":")
HEATMAP_COLOURS = "inferno"
BINS = 60
WIDE, LINEAR = 15.0, 2.0
"""Scores beyond the first are drawn on an axis that is logarithmic well above the second."""
TILE = 112
"""Images below this many pixels are enlarged by whole factors until they reach it."""
MAX_TILE = 288
"""Larger images are reduced to this many pixels."""
SHEET_WIDTH = 1200
PAD = 12
FONT_SIZE = 15
INK, PALE_INK, PAPER = "#1a1a1a", "#595959", "#ffffff"

HISTORY_PANELS = {
    "loss": "loss (nats per image)",
    "distortion": "distortion (nats per image)",
    "rate": "rate, KL (nats per image)",
    "active_units": "active latent units",
}
"""Columns of the training history that are drawn, and the labels of their axes."""


def draw_histogram(
    path: str | Path,
    normal_scores: npt.NDArray[np.floating],
    anomalous_scores: npt.NDArray[np.floating],
    threshold: float | None,
) -> None:
    """Draw how the combined score is spread over normal and anomalous images, with the threshold between them."""
    figure, axes = _figure(7.2, 4.2)
    edges = _edges(np.concatenate([normal_scores, anomalous_scores]))
    for name, scores, colour in (("normal", normal_scores, NORMAL), ("anomalous", anomalous_scores, ANOMALOUS)):
        if len(scores):
            share = np.histogram(scores, edges)[0] / len(scores) * 100
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(share, edges, color=colour, linewidth=1.6, label=f"{name} ({len(scores):,} images)")
    if threshold is not None:
        axes.axvline(threshold, color=THRESHOLD, linestyle="--", linewidth=1.4, label=f"threshold {threshold:.3g}")
    if edges[-1] > WIDE:
        axes.set_xscale("asinh", linear_width=LINEAR)
        ticks = [step * 10.0**power for power in range(9) for step in ((1, 2, 5) if edges[-1] < 2000 else (1,))]
        axes.set_xticks([0, *(tick for tick in ticks if edges[0] <= tick <= edges[-1])])
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(edges[0] - 0.02 * (edges[1] - edges[0]), edges[-1])
    axes.set(xlabel="score (higher = more anomalous)", ylabel="share of images per bin (%)", ylim=(0, None))
    axes.legend(frameon=False)
    _save(figure, path)


def draw_roc(path: str | Path, curves: Mapping[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]]) -> None:
    """Draw ROC curves of named `(anomalous, scores)` pairs; the first one, the combined score, is drawn strongest."""
    from sklearn.metrics import auc, roc_curve

    figure, axes = _figure(8.0, 5.8)
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":", label="chance 0.500")
    for index, (name, (anomalous, scores)) in enumerate(curves.items()):
        ranks = np.unique(scores, return_inverse=True)[1]
        false_positive_rate, true_positive_rate, _ = roc_curve(anomalous, ranks)
        axes.plot(
            false_positive_rate,
            true_positive_rate,
            color=COLOURS[index % len(COLOURS)],
            linestyle=LINE_STYLES[index % len(LINE_STYLES)],
            linewidth=1.4 if index else 2.8,
            zorder=3 if index else 4,
            label=f"{name} {auc(false_positive_rate, true_positive_rate):.3f}",
        )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel("false positive rate (share of normal images flagged)")
    axes.set_ylabel("true positive rate (share of anomalous images flagged)")
    handles, labels = axes.get_legend_handles_labels()
    # Beside the axes: a term that ranks the wrong way round runs through every corner.
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
    axes.legend(handles[1:] + handles[:1], labels[1:] + labels[:1], title="ROC-AUC", frameon=False, **place)
    _save(figure, path)


def draw_history(path: str | Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Draw loss, distortion, rate and active units over the epochs, those that the rows of `history` have.

    A row is one epoch: `loss` and the others are means over its training images, `valid_loss` and the others over the
    validation images.

    Raises
    ------
    UsageError
        No row has any of the columns.
    """
    from matplotlib.ticker import MaxNLocator

    present = {name for row in history for name in row}
    lines = {"": "training", "valid_": "validation"}
    panels = {
        panel: [prefix for prefix in lines if prefix + panel in present]
        for panel in HISTORY_PANELS
        if present & {prefix + panel for prefix in lines}
    }
    if not panels:
        raise UsageError(
            f"the training history has none of the columns {', '.join(HISTORY_PANELS)}; fit the model anew"
        )
    epochs = [row.get("epoch", index) for index, row in enumerate(history, start=1)]
    figure, grid = _figures(4.6, 3.3, len(panels))
    for axes, (panel, prefixes) in zip(grid, panels.items(), strict=True):
        for prefix in prefixes:
            values = [np.nan if row.get(prefix + panel) is None else float(row[prefix + panel]) for row in history]
            style: dict[str, Any] = {"color": COLOURS[bool(prefix)], "linestyle": LINE_STYLES[bool(prefix)]}
            axes.plot(epochs, values, marker="o" if len(epochs) < 30 else None, ms=3, label=lines[prefix], **style)
        axes.set(xlabel="epoch", ylabel=HISTORY_PANELS[panel])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(prefixes) > 1:
            axes.legend(frameon=False)
    _save(figure, path)


def pick_examples(scores: npt.NDArray[np.floating], n: int) -> npt.NDArray[np.intp]:
    """Return the positions of up to `n` images, a third each of the lowest, the middle and the highest scores.

    They come in rising order of score, and none twice.
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
    images: npt.NDArray[np.uint8],
    inspection: Inspection,
    indices: Sequence[int] | npt.NDArray[np.integer],
    paths: Sequence[str],
) -> None:
    """Draw input, restored image and heatmap side by side for each of `indices`, with its score and p-value.

    All heatmaps of the picture share one scale, shown at its foot, so that a quiet image looks quiet.

    Parameters
    ----------
    path : path
        The PNG file.
    images : uint8 (N, C, H, W)
        The inputs.
    inspection : Inspection
        Of these images, with pictures.
    indices : sequence of int
        The images to draw, see `pick_examples`.
    paths : sequence of str
        Names of the N images.

    Raises
    ------
    UsageError
        The inspection has no pictures, or there is no image to draw.
    """
    from PIL import ImageDraw, ImageFont

    if inspection.restored is None or inspection.heatmap is None or not len(indices):
        raise UsageError("reconstructions need at least one image, inspected with pictures=True")
    font = ImageFont.load_default(FONT_SIZE)
    top = float(inspection.heatmap[np.asarray(indices)].max()) or 1.0
    cells = []
    for index in indices:
        restored = np.rint(inspection.restored[index] * 255).clip(0, 255).astype(np.uint8)
        tiles = [_tile(images[index]), _tile(restored), _enlarge(_heat_image(inspection.heatmap[index] / top))]
        caption = f"score {inspection.score[index]:.2f}   p {inspection.p_value[index]:.3g}"
        cells.append(_cell(tiles, _short_name(paths[index]), caption, font))
    sheet, foot = _sheet(cells)
    _draw_scale(sheet, foot, top, font)
    draw = ImageDraw.Draw(sheet)
    draw.text((PAD, PAD), "each image: input, restored, heatmap", fill=INK, font=font)
    _save_image(sheet, path)


def _edges(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the edges of the bins, equally wide as drawn: far anomalies must not press the other bins together."""
    scores = scores[np.isfinite(scores)].astype(np.float64)
    low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 1.0)
    low, high = min(low, 0.0), max(high, low + 1)
    if high <= WIDE:
        return np.linspace(low, high, BINS + 1)
    edges = np.sinh(np.linspace(np.arcsinh(low / LINEAR), np.arcsinh(high / LINEAR), BINS + 1)) * LINEAR
    edges[0], edges[-1] = low, high
    return edges


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure, grid = _figures(width, height, 1)
    return figure, grid[0]


def _figures(width: float, height: float, panels: int) -> tuple[Figure, list[Axes]]:
    """Make panels, two in a row; a figure of its own, since pyplot's global state is not ours to touch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(panels, 2)
    rows = -(-panels // columns)
    figure = Figure(figsize=(width * columns, height * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = [figure.add_subplot(rows, columns, index + 1) for index in range(panels)]
    for axes in grid:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    return figure, grid


def _save(figure: Figure, path: str | Path) -> None:
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _save_image(image: Image.Image, path: str | Path) -> None:
    with writing(path) as temporary:
        image.save(temporary, format="PNG")


def _tile(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """Turn one image, uint8 (C, H, W), into a readable RGB picture; transparency lies on white."""
    from PIL import Image

    channels = pixels.shape[0]
    if channels == 1:
        pixels = np.repeat(pixels, 3, axis=0)
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if channels in {2, 4}:
        paper = Image.new("RGBA", picture.size, PAPER)
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    return _enlarge(picture.convert("RGB"))


def _heat_image(heat: npt.NDArray[np.float32]) -> Image.Image:
    from matplotlib import colormaps
    from PIL import Image

    return Image.fromarray(colormaps[HEATMAP_COLOURS](heat.clip(0, 1), bytes=True)[..., :3].copy())


def _enlarge(picture: Image.Image) -> Image.Image:
    """Bring a picture to a readable size: pixels stay sharp squares when enlarged."""
    from PIL import Image

    longest = max(picture.size)
    if longest > MAX_TILE:
        width, height = (max(1, side * MAX_TILE // longest) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    factor = -(-TILE // longest)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _short_name(path: str, limit: int = 40) -> str:
    name = "".join(character if character.isprintable() else "?" for character in Path(path).name)
    return name if len(name) <= limit else name[: limit // 2 - 1] + "…" + name[-limit // 2 :]


def _cell(tiles: list[Image.Image], name: str, caption: str, font: ImageFont.ImageFont | Any) -> Image.Image:
    from PIL import Image, ImageDraw

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
    """Lay cells out in rows below a heading; also return where the foot begins, in pixels from the top."""
    from PIL import Image

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


def _draw_scale(sheet: Image.Image, foot: int, top: float, font: ImageFont.ImageFont | Any) -> None:
    """Draw the heatmap's colour scale, from 0 to `top`."""
    from PIL import ImageDraw

    bar = _heat_image(np.tile(np.linspace(0, 1, 160, dtype=np.float32), (FONT_SIZE, 1)))
    draw = ImageDraw.Draw(sheet)
    left = PAD
    for part in ("heatmap  0", bar, f"{top:.3g}"):
        if isinstance(part, str):
            draw.text((left, foot + PAD), part, fill=INK, font=font)
            left += int(draw.textlength(part, font=font)) + 8
        else:
            sheet.paste(part, (left, foot + PAD + 2))
            left += part.width + 8

"""What `vaeguard denoise` does to real old pages with hand-made truth of the ink, and to pages on a scanner's lid.

python -m benchmarks.old_documents [--only pages,lids]

The pages and the dirty documents are found as data/README.md says; the peers come with `pip install vaeguard[peers]`.
Nothing was trained on the old pages; the constants of the gate were chosen with them in view.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps
from skimage.filters import threshold_otsu, threshold_sauvola

import vaeguard
from benchmarks.common import data_dir, write_result
from vaeguard.restoration.denoiser import shipped_denoiser

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Mask = npt.NDArray[np.bool_]

SQUARE = 64
"""Paper is the median of the pixels without ink in three by three squares of so many pixels a side."""
LEAST_CONTRAST = 8
"""Levels; ink with less contrast to its paper can hardly be seen."""
HARM = (0.02, 0.05)
LID_PAGES, LIDS, LID_LEVEL = 12, (8, 16, 32, 64), 20


def sauvola(page: Floats) -> Floats:
    """The threshold of Sauvola and Pietikäinen (2000) with the usual settings."""
    return np.asarray(threshold_sauvola(page, 51, k=0.2, r=128))


THRESHOLDS: dict[str, Callable[[Floats], Any]] = {"Otsu": threshold_otsu, "Sauvola": sauvola}


def measure_pages() -> None:
    """Measure all old pages with the command's defaults, and again with all taken for documents."""
    folder = data_dir() / "old-documents"
    rows = []
    for name, settings in (
        ("default", vaeguard.RestoreSettings()),
        ("--kind document", vaeguard.RestoreSettings(kind="document")),
    ):
        with tempfile.TemporaryDirectory() as home:
            vaeguard.denoise_scans(folder / "pages", Path(home) / "clean", settings, device="cpu")
            pages = [
                _changes(path, Path(home) / "clean" / path.name, folder / "ink" / path.name)
                for path in sorted((folder / "pages").glob("*.png"))
            ]
        rows.append({"pages": f"{len(pages)}, {name}", **_summary(pages)})
        print(rows[-1], flush=True)
    note = (
        "F-measure of two plain thresholds against the truth of the ink, before and after; ink kept: share of the ink"
        " that is at least half as dark against the paper around it as it was; colour: mean shift of the ink's red and"
        " blue against green, in levels of 0 to 255."
    )
    write_result("old_documents/pages", "Real old pages", rows, [note])


def _summary(pages: list[dict[str, float]]) -> dict[str, str]:
    row = {
        name: f"{np.mean([page[f'{name} before'] for page in pages]):.3f} -> "
        f"{np.mean([page[f'{name} after'] for page in pages]):.3f}"
        for name in THRESHOLDS
    }
    row["ink kept, mean (least)"] = "{:.4f} ({:.4f})".format(
        float(np.mean([page["kept"] for page in pages])), min(page["kept"] for page in pages)
    )
    row["colour"] = f"{np.mean([page['colour'] for page in pages]):.2f}"
    for limit in HARM:
        harmed = sum(any(page[f"{n} after"] < page[f"{n} before"] - limit for n in THRESHOLDS) for page in pages)
        row[f"harmed by more than {limit}"] = str(harmed)
    return row


def _changes(before: Path, after: Path, truth: Path) -> dict[str, float]:
    ink = ~np.asarray(Image.open(truth).convert("1"))
    colours = [np.asarray(Image.open(path).convert("RGB"), np.float64) for path in (before, after)]
    greys = [np.asarray(Image.open(path).convert("L"), np.float64) for path in (before, after)]
    found: dict[str, float] = {}
    for name, threshold in THRESHOLDS.items():
        for when, page in zip(("before", "after"), greys, strict=True):
            found[f"{name} {when}"] = f_measure(page < threshold(page), ink)
    was, now = (contrast(page, ink)[ink] for page in greys)
    visible = was > LEAST_CONTRAST
    found["kept"] = float((now >= 0.5 * was)[visible].mean())
    shifts = [page[ink][:, [0, 2]] - page[ink][:, [1]] for page in colours]
    found["colour"] = float(np.abs(shifts[1] - shifts[0]).mean())
    return found


def f_measure(found: Mask, ink: Mask) -> float:
    """The harmonic mean of precision and recall."""
    return float(2 * (found & ink).sum() / max(1, found.sum() + ink.sum()))


def contrast(page: Floats, ink: Mask) -> Floats:
    """How much darker each pixel is than the median of the paper around it, in levels."""
    paper = np.empty([-(-side // SQUARE) for side in page.shape])
    for row, column in np.ndindex(paper.shape):
        around = tuple(slice(max(0, at - 1) * SQUARE, (at + 2) * SQUARE) for at in (row, column))
        bare = page[around][~ink[around]]
        paper[row, column] = np.median(bare if bare.size else page)
    return paper.repeat(SQUARE, 0).repeat(SQUARE, 1)[: page.shape[0], : page.shape[1]] - page


def measure_lids() -> None:
    """Measure dirty documents with a dark border against the same pages without a border."""
    folder = data_dir() / "dirty-documents"
    how = vaeguard.RestoreSettings(paper="white")
    rows: dict[str, list[tuple[float, bool]]] = {}
    for path in sorted((folder / "train").glob("*.png"))[:LID_PAGES]:
        page = Image.open(path).convert("L")
        clean = np.asarray(Image.open(folder / "train_cleaned" / path.name).convert("L"), np.float64)
        plain = _restored(page, how)
        for border in LIDS:
            inside = slice(border, border + clean.shape[0]), slice(border, border + clean.shape[1])
            bordered = ImageOps.expand(page, border, fill=LID_LEVEL)
            found = _restored(bordered, how)
            outside = np.ones(found.shape, np.bool_)
            outside[inside] = False
            errors = [float(np.sqrt(((each - clean) ** 2).mean())) / 255 for each in (found[inside], plain)]
            untouched = bool((found[outside] == LID_LEVEL).all())
            rows.setdefault(f"border of {border}", []).append((errors[0] - errors[1], untouched))
    table = [
        {
            "pages": f"{len(some)}, {name}",
            "RMSE inside, largest difference to the page without": f"{max(abs(row[0]) for row in some):.4f}",
            "border left as it is": f"{sum(row[1] for row in some)} of {len(some)}",
        }
        for name, some in rows.items()
    ]
    write_result("old_documents/lids", "Pages on a dark lid", table, ["RMSE on pixels 0 to 1 against the clean page."])


def _restored(page: Image.Image, how: vaeguard.RestoreSettings) -> Floats:
    found = vaeguard.restore_page(np.asarray(page), lambda kind: shipped_denoiser(kind, "cpu", 1), how)
    return found.pixels.astype(np.float64)


def main() -> None:
    """Measure both, or what `--only` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="pages,lids")
    for name in parser.parse_args().only.split(","):
        globals()[f"measure_{name}"]()


if __name__ == "__main__":
    main()

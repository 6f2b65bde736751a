"""How exact the angle of `vaeguard denoise --derive deskewed` is, and how good the copies of `--derive bilevel` are.

python -m benchmarks.derived [--only angles,ink,reading]

Old pages with hand-made truth of the ink, and odd pages of the dirty documents, are found as data/README.md says.
The threshold was chosen on pages worn by a program. Reading needs the program tesseract.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from doxapy import Binarization
from PIL import Image
from skimage.filters import threshold_otsu

import vaeguard
from benchmarks.common import data_dir, write_result
from benchmarks.ocr_plugin import KINDS, PAGES
from benchmarks.old_documents import f_measure
from benchmarks.restoration import document_rows, error_rate, grey, text_of
from vaeguard.restoration.derived import THRESHOLD_K, Turn, turned, window_of
from vaeguard.restoration.skew import skew_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Grey = npt.NDArray[np.uint8]

ANGLES = (-5.0, -3.0, -1.5, -0.5, 0.5, 1.5, 3.0, 5.0)
OUTPUTS = vaeguard.DenoiseOutputs(derive=("bilevel",))


def old_pages() -> list[Path]:
    """The old pages."""
    return sorted((data_dir() / "old-documents" / "pages").glob("*.png"))


def dirty_pages() -> list[Path]:
    """Odd pages of the dirty documents, three of each kind of dirt."""
    rows, folder = document_rows(odd=True), data_dir() / "dirty-documents" / "train"
    names = chain.from_iterable([row["image"] for row in rows if row["noise"] == kind][:PAGES] for kind in KINDS)
    return [folder / name for name in names]


def cleaned(paths: list[Path], home: str) -> dict[str, Path]:
    """Clean pages, whose bilevel copies lie beside them, by name."""
    vaeguard.denoise_scans(paths, Path(home) / "clean", outputs=OUTPUTS, device="cpu")
    return {path.name: next((Path(home) / "clean").rglob(path.name)) for path in paths}


def levels(path: Path) -> Grey:
    """A page in grey."""
    return np.asarray(Image.open(path).convert("L"), np.uint8)


def measure_angles() -> None:
    """Turn every page by known angles; the angle that is found before counts as its own."""
    rows = []
    groups = {
        "old, print": [path for path in old_pages() if "print" in path.name],
        "old, handwriting": [path for path in old_pages() if "hand" in path.name],
        "dirty": dirty_pages(),
    }
    for name, paths in groups.items():
        with tempfile.TemporaryDirectory() as home:
            clean = cleaned(paths, home)
            for when, pages in (("as scanned", paths), ("cleaned", [clean[path.name] for path in paths])):
                rows.append({"pages": f"{len(pages)} {name}, {when}", **_errors([levels(page) for page in pages])})
                print(rows[-1], flush=True)
    note = (
        f"Each page is turned by {', '.join(f'{angle:g}' for angle in ANGLES)} degrees, and its own angle subtracted;"
        " errors in degrees. Without lines: pages on which no angle is found, as they are; lost: turned pages of the"
        " others on which none is found."
    )
    write_result("derived/angles", "The angle of a page", rows, [note])


def _errors(pages: list[Grey]) -> dict[str, Any]:
    errors, missed, without = [], 0, 0
    for page in pages:
        own = skew_of(page)
        if own is None:
            without += 1
            continue
        paper = (float(np.median(page)),)
        found = {angle: skew_of(turned(page, Turn(-angle, paper)).astype(np.uint8)) for angle in ANGLES}
        errors += [abs(each - own - angle) for angle, each in found.items() if each is not None]
        missed += sum(each is None for each in found.values())
    return {
        "turned pages": len(errors),
        "median error": round(float(np.median(errors)), 3),
        "95 % below": round(float(np.quantile(errors, 0.95)), 3),
        "worst error": round(max(errors), 3),
        "lost": missed,
        "without lines": without,
    }


def _threshold(kind: Any) -> Callable[[Grey], npt.NDArray[np.bool_]]:
    def white(page: Grey) -> npt.NDArray[np.bool_]:
        result = np.ascontiguousarray(page).copy()
        Binarization.update_to_binary(kind, result, {"window": window_of(page), "k": THRESHOLD_K})
        return result > 0

    return white


def measure_ink() -> None:
    """The F-measure of the ink of old pages."""
    paths, kinds = old_pages(), Binarization.Algorithms
    ways: dict[str, tuple[str, Callable[[Grey], npt.NDArray[np.bool_]]]] = {
        "Otsu, as scanned": ("scan", lambda page: page >= threshold_otsu(page)),
        "Otsu, cleaned": ("clean", lambda page: page >= threshold_otsu(page)),
        "ISauvola, as scanned": ("scan", _threshold(kinds.ISAUVOLA)),
        "Wolf, cleaned": ("clean", _threshold(kinds.WOLF)),
        "Sauvola, cleaned": ("clean", _threshold(kinds.SAUVOLA)),
    }
    rows = []
    with tempfile.TemporaryDirectory() as home:
        clean = cleaned(paths, home)
        inks = [levels(data_dir() / "old-documents" / "ink" / path.name) < 128 for path in paths]
        copies = [levels(Path(f"{clean[path.name]}.bilevel.tif")) < 128 for path in paths]
        rows.append(_row("--derive bilevel (ISauvola, cleaned)", copies, inks))
        for name, (which, threshold) in ways.items():
            pages = [levels(path if which == "scan" else clean[path.name]) for path in paths]
            rows.append(_row(name, [~threshold(page) for page in pages], inks))
    write_result("derived/ink", "Ink of old pages in black and white", rows, [f"{len(paths)} pages."])


def _row(name: str, found: list[Any], inks: list[Any]) -> dict[str, Any]:
    values = [f_measure(*pair) for pair in zip(found, inks, strict=True)]
    return {"copy": name, "F-measure, mean": round(float(np.mean(values)), 4), "worst page": round(min(values), 4)}


def measure_reading() -> None:
    """Wrong characters that tesseract reads on dirty pages."""
    paths = dirty_pages()
    truth = [text_of(grey(path.parent.parent / "train_cleaned" / path.name)) for path in paths]
    with tempfile.TemporaryDirectory() as home:
        clean = cleaned(paths, home)
        pages = {
            "as scanned": [grey(path) for path in paths],
            "Otsu, as scanned": [_otsu(levels(path)) for path in paths],
            "cleaned": [grey(clean[path.name]) for path in paths],
            "Otsu, cleaned": [_otsu(levels(clean[path.name])) for path in paths],
            "--derive bilevel": [grey(Path(f"{clean[path.name]}.bilevel.tif")) for path in paths],
        }
    rows = []
    for name, found in pages.items():
        rates = [error_rate(text, text_of(page)) for text, page in zip(truth, found, strict=True)]
        whole = sum(rate * len(text) for rate, text in zip(rates, truth, strict=True)) / sum(map(len, truth))
        rows.append({"page": name, "wrong_characters": round(whole, 5), "worst_page": round(max(rates), 5)})
    note = f"{len(paths)} pages; the truth is what tesseract reads on the clean page of each."
    write_result("derived/reading", "Dirty pages in black and white, read by tesseract", rows, [note])


def _otsu(page: Grey) -> Any:
    return (page >= threshold_otsu(page)).astype(np.float32)


def main() -> None:
    """Measure all, or what `--only` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="angles,ink,reading")
    for name in parser.parse_args().only.split(","):
        globals()[f"measure_{name}"]()


if __name__ == "__main__":
    main()

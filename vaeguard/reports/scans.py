"""The report of a batch of scans: before and after, the changes, and the pages that deserve a look."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from vaeguard.data.images import read_bytes
from vaeguard.data.split import spread_out
from vaeguard.errors import RefusedError, UnreadableError, as_objects
from vaeguard.reports.gallery import fitting
from vaeguard.reports.kinds import Part, ReportFigures, Verdict
from vaeguard.reports.marks import marks_of
from vaeguard.reports.pictures import heat_picture, picture_of
from vaeguard.reports.report_file import JSON_NAME, heading, write_report
from vaeguard.restoration.formats.isolated import scan_pages
from vaeguard.restoration.formats.scan_page import colours_of
from vaeguard.restoration.formats.scans import written_name
from vaeguard.restoration.reasons import CLEAN, left_clause, why_look
from vaeguard.restoration.records import TABLE, clean_store
from vaeguard.storage.files import sweep
from vaeguard.storage.tables import read_table
from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt
    from PIL import Image

    from vaeguard.reports.report_file import Report
    from vaeguard.restoration.denoising import DenoiseSummary

WORST = 8
"""The number of drawn pages from the top of the table, which deserve a look first."""
OTHERS = 4
"""The number of drawn pages from the rest of the table, evenly spread."""
ROWS = 500
"""The most rows of the table of pages in the report."""
SIDES = (900, 640, 420)
BUDGET = 2_000_000
DETAIL = 300
"""The side of the square that changed most, in pixels; the report shows it pixel by pixel."""
BLOCK = 4
"""The side of the blocks over which changes are summed, in pixels."""
STRIP = 512
"""The rows of a page that are compared at a time."""
AMPLIFIED = 4
"""The factor by which the residual is amplified in its picture."""
LINES = 10
ERRORS_SHOWN = 50


def write_scan_report(summary: DenoiseSummary, *, jpeg: int | None = None, command: str = "") -> Report:
    """Write `report.json` and `report.html` into the folder of clean scans, and return the report.

    Only the files whose pages are drawn are read again, each once.

    Parameters
    ----------
    summary : DenoiseSummary
        The summary that `denoise_scans` returned.
    jpeg : int or None
        The setting in the `DenoiseOutputs` of the scans.
    command : str
        The command line.

    Raises
    ------
    VaeguardError
        The files cannot be written.
    """
    root, target = Path(summary.root), Path(summary.output)
    table = read_table(target / TABLE)
    table["look"] = [why_look(row) for row in table.to_dict("records")]
    rows = table.head(ROWS).to_dict("records")
    look_first = int((table["look"] != "").sum())
    shown = table.iloc[_shown(len(table), look_first)].to_dict("records")
    pictures, marks = _pictures(shown, root, target, jpeg)
    source = rows[0]["path"] if summary.files == 1 and rows else root.resolve().name
    title = f"{source} to {target.name or target}"
    report = {
        **heading("scans", title, command=command, device=summary.device),
        "files": summary.files,
        "pages": summary.pages,
        "megapixels": summary.megapixels,
        "resumed": summary.resumed,
        "seconds": summary.seconds,
        "notes": list(summary.notes),
        "actions": table["action"].value_counts(sort=False).to_dict(),
        "left": list(summary.left),
        "look_first": look_first,
        "table": rows,
        "shown": [{**row, "pictures": key, "marks": marks.get(key)} for key, row in _keyed(shown)],
        "errors": {
            "count": len(summary.errors),
            "shown": as_objects(summary.errors[:ERRORS_SHOWN]),
        },
        "pictures": pictures,
    }
    sweep(target)  # removes half-written files of a killed run
    write_report(target / JSON_NAME, report)
    return report


def _shown(pages: int, look_first: int) -> list[int]:
    """The rows of the table that are drawn; the table begins with the `look_first` pages to check first."""
    first = min(pages, max(WORST, min(look_first, WORST + OTHERS)))
    rest = range(first, pages)
    picked = spread_out(len(rest), WORST + OTHERS - first)
    return [*range(first), *(rest[at] for at in picked.tolist())]


def _keyed(shown: list[Report]) -> list[tuple[str, Report]]:
    """The rows that are drawn, with the keys of their pictures."""
    return [(f"page-{number}", row) for number, row in enumerate(shown)]


def _pictures(
    shown: list[Report], root: Path, target: Path, jpeg: int | None
) -> tuple[dict[str, dict[str, str]], dict[str, Report]]:
    """Pictures of the pages that are shown, as far as there is room, and the marks over them."""
    drawn: dict[str, dict[str, Image.Image]] = {}
    marks: dict[str, Report] = {}
    for path in dict.fromkeys(row["path"] for row in shown):
        keys = {row["page"]: key for key, row in _keyed(shown) if row["path"] == path}
        clean = target / written_name(path, jpeg=jpeg)
        with contextlib.suppress(UnreadableError, RefusedError, OSError):
            sizes = _of_file(root / path, clean, keys, drawn)
            record = clean_store(target).part(clean.relative_to(target)).record
            marks |= {keys[number]: marks_of(record, number, size) for number, size in sizes.items()}
    # If not all pictures fit, the last in the order of the report are left out.
    return fitting({key: drawn[key] for key in sorted(drawn, key=lambda key: int(key[5:]))}, SIDES, BUDGET), marks


def _of_file(
    before: Path, after: Path, keys: dict[int, str], drawn: dict[str, dict[str, Image.Image]]
) -> dict[int, tuple[int, int]]:
    """Add pictures of the pages whose numbers are in `keys` to `drawn`, and return the sizes of these pages.

    One page is in memory at a time.
    """
    pages = [scan_pages(read_bytes(path), str(path)) for path in (before, after)]
    sizes: dict[int, tuple[int, int]] = {}
    for old, new in zip(*pages, strict=False):
        if old.number in keys and old.pixels.shape == new.pixels.shape:
            uncertainty = after.with_name(f"{after.name}.page-{old.number}.uncertainty.png")
            drawn[keys[old.number]] = _drawn(_eight_bits(old.pixels), _eight_bits(new.pixels), uncertainty)
            sizes[old.number] = (old.pixels.shape[0], old.pixels.shape[1])
        if len(sizes) == len(keys):
            break
    return sizes


def _drawn(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], uncertainty: Path) -> dict[str, Image.Image]:
    """Pictures of one page: before, after, and the square that changed most, if anything changed."""
    pictures = {"before": _picture(before), "after": _picture(after)}
    for picture in pictures.values():
        picture.thumbnail((SIDES[0], SIDES[0]))
    place = _most_changed(before, after)
    if place is None:
        return pictures
    old, new = before[place], after[place]
    change = colours_of(old.astype(np.int16) - new)
    pictures |= {
        "detail_before": _picture(old),
        "detail_after": _picture(new),
        "residual": _picture((128 + AMPLIFIED * change).clip(0, 255).astype(np.uint8)),
    }
    if uncertainty.exists():
        values = _eight_bits(next(scan_pages(read_bytes(uncertainty), str(uncertainty))).pixels)
        values = values if values.ndim == 2 else values.max(2)
        pictures["uncertainty"] = heat_picture(values[place].astype(np.float32) / (float(values.max()) or 1.0))
    return pictures


def _eight_bits(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    return pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels


def _most_changed(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> tuple[slice, slice] | None:
    """The square of `DETAIL` pixels with about the greatest sum of changes, or None if nothing changed.

    Changes are summed over blocks of `BLOCK` pixels, a strip at a time, as a page may have tens of millions of pixels.
    """
    height, width = before.shape[:2]
    strips = []
    for top in range(0, height, STRIP):
        part = np.abs(before[top : top + STRIP].astype(np.int16) - after[top : top + STRIP])
        change = part.reshape(len(part), width, -1).sum(2, dtype=np.int64)
        rows = np.add.reduceat(change, np.arange(0, len(part), BLOCK), 0)
        strips.append(np.add.reduceat(rows, np.arange(0, width, BLOCK), 1))
    blocks = np.concatenate(strips)
    if not blocks.any():
        return None
    high, wide = (min(DETAIL // BLOCK, side) for side in blocks.shape)
    summed = np.pad(blocks.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = summed[high:, wide:] - summed[:-high, wide:] - summed[high:, :-wide] + summed[:-high, :-wide]
    top, left = (BLOCK * int(at) for at in np.unravel_index(int(sums.argmax()), sums.shape))
    top, left = max(0, min(top, height - DETAIL)), max(0, min(left, width - DETAIL))
    return slice(top, top + DETAIL), slice(left, left + DETAIL)


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return picture_of(channels)


class Errors(Part):
    """Files that could not be read."""

    count: int


class Figures(ReportFigures):
    """The figures of a batch of scans that its verdict and its lines take; `table` has rows of `pages.csv`."""

    files: int
    pages: int
    notes: tuple[str, ...]
    actions: dict[str, int]
    left: tuple[dict[str, Any], ...]
    look_first: int
    table: tuple[dict[str, Any], ...]
    errors: Errors

    def verdict(self) -> Verdict:
        """Return whether the scans are clean, and how many pages a person should look at."""
        sentence, notes = self._sentence(), self.notes
        if not self.pages:
            return Verdict("Nothing to restore" if self.files else "No input could be read", sentence, notes, "poor")
        if self.look_first:
            return Verdict(f"{counted(self.look_first, 'page')} to check first", sentence, notes, "fair")
        unjudged = sum(row["pages"] for row in self.left if row["reason"] != CLEAN)
        if unjudged == self.pages:
            return Verdict("No page was changed", sentence, notes, "fair")
        if unjudged:
            return Verdict(f"Clean, except for {counted(unjudged, 'page')} left unchanged", sentence, notes, "fair")
        headline = "Cleaned without problems" if self._restored else "Every page was already clean"
        return Verdict(headline, sentence, notes, "fair" if self.errors.count else "good")

    @property
    def _restored(self) -> int:
        return self.actions.get("restored", 0)

    def _sentence(self) -> str:
        restored = "" if self._restored == self.pages else f"{self._restored:,} of "
        clauses = [f"{restored}{counted(self.pages, 'page')} in {counted(self.files, 'file')} restored"]
        if self.left:
            clauses.append(left_clause(self.left))
        if self.errors.count:
            clauses.append(f"{counted(self.errors.count, 'file', 'was were')} skipped")
        return "; ".join(clauses) + "."

    def lines(self) -> Iterable[str]:
        """Yield the pages to look at."""
        for row in self.table[: min(LINES, self.look_first)]:
            yield f"check {escape(row['path'])}, page {row['page']}: {escape(why_look(row))}"
        if self.look_first > LINES:
            yield f"more pages to check are at the top of pages.csv: {self.look_first - LINES:,}"

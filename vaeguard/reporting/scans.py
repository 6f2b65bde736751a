"""The report of a batch of scans: before and after, what was changed, and which pages deserve a look."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vaeguard.errors import RefusedError, UnreadableError
from vaeguard.images import read_bytes
from vaeguard.pictures import heat_picture, picture_of
from vaeguard.reporting.gallery import fitting
from vaeguard.reporting.report_file import JSON_NAME, heading, write_report
from vaeguard.scans import scan_pages, written_name
from vaeguard.tables import table_chunks

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    from vaeguard.denoising import DenoiseSummary
    from vaeguard.reporting.report_file import Report

WORST, OTHERS = 8, 4
"""So many pages are drawn: those worth a look first, and some of the rest, evenly spread."""
ROWS = 500
"""Of the table of pages that a page shows."""
SIDES = (900, 640, 420)
BUDGET = 2_000_000
DETAIL = 300
"""Side of the square in which most was changed, shown pixel by pixel."""
AMPLIFIED = 4
"""So much stronger the residual is drawn than it is."""
ERRORS_SHOWN = 50


def write_scan_report(summary: DenoiseSummary, scans: str | Path, *, command: str = "") -> Report:
    """Write `report.json` and `report.html` into the folder of clean scans, and return the report.

    Only the pages that are drawn are read again.

    Parameters
    ----------
    summary : DenoiseSummary
        What `denoise_scans` returned.
    scans : path
        The scans as they were.
    command : str
        The command line.

    Raises
    ------
    VaeguardError
        The files cannot be written.
    """
    from vaeguard.denoising import COLUMNS, TABLE

    target, source = Path(summary.output), Path(scans)
    actions: Counter[str] = Counter()
    look_first = 0
    rows: list[Report] = []
    for chunk in table_chunks(target / TABLE, COLUMNS):
        found = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*(chunk[name] for name in COLUMNS), strict=True)]
        actions.update(row["action"] for row in found)
        look_first += sum(bool(row["reverted"] > 0) for row in found)
        rows += found
    shown = _shown(rows)
    drawn = {f"page-{number}": _drawn(row, source, target) for number, row in enumerate(shown)}
    pictures = fitting({key: each for key, each in drawn.items() if each}, SIDES, BUDGET)
    report = {
        **heading("scans", f"{source.name or source} to {target.name or target}", command=command),
        "files": summary.files,
        "pages": summary.pages,
        "megapixels": summary.megapixels,
        "resumed": summary.resumed,
        "seconds": summary.seconds,
        "actions": dict(actions),
        "look_first": look_first,
        "table": [_plain(row) for row in rows[:ROWS]],
        "shown": [{**_plain(row), "pictures": f"page-{number}"} for number, row in enumerate(shown)],
        "errors": {
            "count": len(summary.errors),
            "shown": [{"path": path, "error": why} for path, why in summary.errors[:ERRORS_SHOWN]],
        },
        "pictures": pictures,
    }
    write_report(target / JSON_NAME, report)
    return report


def _shown(rows: list[Report]) -> list[Report]:
    """The pages to draw; `rows` begin with those worth a look first."""
    rest = rows[WORST:]
    if not rest:
        return rows
    picked = np.unique(np.linspace(0, len(rest) - 1, min(OTHERS, len(rest))).astype(int))
    return rows[:WORST] + [rest[at] for at in picked.tolist()]


def _plain(row: Report) -> Report:
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
    return {**plain, "page": int(plain["page"])}


def _drawn(row: Report, source: Path, target: Path) -> dict[str, Image.Image]:
    """Pictures of one page: before, after, and the square that changed most; empty where a file is gone."""
    root = source if source.is_dir() else source.parent
    name, number = row["path"], int(row["page"])
    clean = target / written_name(name, jpeg=None)
    clean = clean if clean.exists() else target / name
    try:
        before, after = _page(root / name, number), _page(clean, number)
    except (UnreadableError, RefusedError, OSError):
        return {}
    if before is None or after is None or before.shape != after.shape:
        return {}
    place = _most_changed(before, after)
    difference = before[place].astype(np.int16) - after[place]
    residual = (128 + AMPLIFIED * difference).clip(0, 255).astype(np.uint8)
    pictures = {
        "before": _picture(before),
        "after": _picture(after),
        "detail_before": _picture(before[place]),
        "detail_after": _picture(after[place]),
        "residual": _picture(residual),
    }
    uncertainty = _page(clean.with_name(f"{clean.name}.page-{number}.uncertainty.png"), 1)
    if uncertainty is not None:
        values = uncertainty if uncertainty.ndim == 2 else uncertainty.max(2)
        pictures["uncertainty"] = heat_picture(values[place].astype(np.float32) / (float(values.max()) or 1.0))
    return pictures


def _page(path: Path, number: int) -> npt.NDArray[np.uint8] | None:
    """Page `number` of a scan, 8 bits, (H, W) or (H, W, C); None where there is none."""
    if not path.exists():
        return None
    page = next(islice(scan_pages(read_bytes(path), str(path)), number - 1, None), None)
    if page is None:
        return None
    pixels: npt.NDArray[Any] = page.pixels
    if pixels.dtype == np.uint16:
        pixels = pixels >> 8
    return (pixels * 255 if pixels.dtype == np.bool_ else pixels).astype(np.uint8)


def _most_changed(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    """The square of `DETAIL` pixels with the greatest sum of changes."""
    height, width = before.shape[:2]
    change = np.abs(before.astype(np.int16) - after).reshape(height, width, -1).sum(2, dtype=np.int64)
    rows, columns = min(DETAIL, height), min(DETAIL, width)
    summed = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = summed[rows:, columns:] - summed[:-rows, columns:] - summed[rows:, :-columns] + summed[:-rows, :-columns]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return slice(int(top), int(top) + rows), slice(int(left), int(left) + columns)


def _picture(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return picture_of(channels)

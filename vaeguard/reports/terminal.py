"""A report in a terminal: the verdict, a histogram in one line for each kind of image, and one small table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from vaeguard.reports.kinds import Part, read_figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console

BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = str.maketrans(BARS, " .:-=+*#%")
COLUMNS = 60
"""The most bins of a histogram in a line, one letter each."""
TONES = {"good": "green", "fair": "yellow", "poor": "red", "plain": ""}
SHOWN = 3
"""The most classes or images of a kind that are named."""


class Histogram(Part):
    """Counts of each kind of image between common edges."""

    edges: list[float]
    counts: dict[str, list[int]]


def show_report(report: Mapping[str, Any], console: Console) -> None:
    """Print a summary of `report`, in about ten lines."""
    figures = read_figures(report)
    verdict = figures.verdict()
    tone = TONES[verdict.tone]
    headline = f"[bold {tone}]{escape(verdict.headline)}[/]" if tone else f"[bold]{escape(verdict.headline)}[/]"
    console.print(f"{headline}: {escape(verdict.sentence)}", highlight=False)
    for note in verdict.notes:
        console.print(f"note: {escape(note)}", highlight=False)
    plain = not _can_encode(console.encoding, BARS)
    for line in figures.lines():
        console.print(line.translate(PLAIN_BARS) if plain and isinstance(line, str) else line, highlight=False)


def _can_encode(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def table_of(*headings: str) -> Table:
    """A table with a column of names, and one of numbers for each heading."""
    table = Table("", box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def sparklines(histogram: Histogram, threshold: float | None) -> Iterable[str]:
    """One line for each kind of a histogram, all on the same axis, and a line that marks the threshold."""
    edges = histogram.edges
    width = max(map(len, histogram.counts))
    for kind, counts in histogram.counts.items():
        yield f"{kind:<{width}} {sparkline(counts)} {sum(counts):,}"
    if threshold is not None:
        at = int(np.clip(np.searchsorted(edges, threshold, "right") - 1, 0, len(edges) - 2))
        yield f"{'':<{width}} {'':<{at}}^ flagged from {threshold:.3g}"


def sparkline(values: Iterable[float | None]) -> str:
    """Values as bars of one letter each, at most `COLUMNS` of them; only zero has no bar."""
    heights = np.array([np.nan if value is None else value for value in values], float)
    if len(heights) > COLUMNS:
        heights = np.array([part.mean() for part in np.array_split(heights, COLUMNS)])
    finite = heights[np.isfinite(heights)]
    low, high = (min(finite.min(), 0.0), finite.max()) if len(finite) else (0.0, 0.0)
    if low == 0.0 and len(finite) and finite.min() > high / 2:
        low = 2 * finite.min() - high  # a curve far above zero is drawn by its changes
    scale = (high - low) or 1.0
    steps = np.ceil((np.nan_to_num(heights, nan=low, posinf=high, neginf=low) - low) / scale * (len(BARS) - 1))
    return "".join(BARS[int(step)] for step in steps)

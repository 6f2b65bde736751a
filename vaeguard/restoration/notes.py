"""What a person should know about a run of `denoise`, one sentence each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vaeguard.restoration.reasons import FEWER_WORDS
from vaeguard.restoration.records import TABLE
from vaeguard.wording import counted, skipped_by_suffix, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vaeguard.restoration.places import Places
    from vaeguard.restoration.work import Restored

MUCH_LARGER = 1.3
"""A note names a clean PDF if its size, in units of the size of the scan, exceeds this factor."""


@dataclass
class Notes:
    """The files that a person should know about, named as in a sentence.

    Attributes
    ----------
    gone, edited : list of str
        Clean files whose scans are gone, and clean files that somebody changed.
    left, bare, larger : list of str
        PDFs with pictures that are left as they are, PDFs without a picture to restore, and PDFs that grew much.
    aside : Path or None
        The new name of an edited table.
    """

    gone: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)
    larger: list[str] = field(default_factory=list)
    aside: Path | None = None

    def add(self, result: Restored) -> None:
        """Note whatever a person should know about a file."""
        name, (size, written) = repr(result.name), result.bytes
        if result.edited:
            self.edited.append(repr(str(result.place)))
        if not result.pages:
            self.bare.append(name)
        if result.left:
            kinds = sorted(Counter(kind for _, kind in result.left).items())
            self.left.append(f"{name} ({', '.join(f'{count} {kind}' for kind, count in kinds)})")
        if result.name.lower().endswith(".pdf") and written > MUCH_LARGER * size:
            self.larger.append(f"{name} ({size / 1000:,.0f} kB to {written / 1000:,.0f} kB)")

    def sentences(self, places: Places, rows: Sequence[Mapping[str, Any]] = ()) -> Iterator[str]:
        """What a person should know about a run with these `rows` of `pages.csv`, one sentence each."""
        yield from self._of_pdfs()
        yield from _of_failures(rows)
        yield from _of_places(places)
        if self.gone:
            files = counted(len(self.gone), "clean file")
            verb = "has" if len(self.gone) == 1 else "have"
            yield f"{files} no longer {verb} a scan: {some(self.gone)}; delete them if you do not need them"
        if self.edited:
            files = counted(len(self.edited), "clean file", "was were")
            yield (
                f"{files} changed by hand and kept: {some(self.edited)}; to clean these scans again, move the"
                " files away"
            )
        if self.aside:
            yield f"the edited {TABLE} was kept as {str(self.aside)!r}"

    def _of_pdfs(self) -> Iterator[str]:
        if self.left:
            yield f"{counted(len(self.left), 'PDF', 'has have')} pictures that were not changed: {some(self.left)}"
        if self.larger:
            pdfs = counted(len(self.larger), "PDF")
            yield f"{pdfs} grew to more than {MUCH_LARGER} times the original size: {some(self.larger)}"
        if self.bare:
            has = _plural(self.bare, "it has", "they have")
            pdfs = counted(len(self.bare), "PDF", "was were")
            yield f"{pdfs} copied unchanged, because {has} no picture to restore: {some(self.bare)}"


def _of_failures(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Pages that tesseract could not read."""
    failed = [row for row in rows if row["action"] == "reverted" and row["reason"] != FEWER_WORDS]
    if unread := [f"page {row['page']} of {row['path']!r} ({row['reason']})" for row in failed]:
        pages = counted(len(unread), "page", "was were")
        yield f"{pages} left unchanged: {some(unread)}; to try again, move the clean files away"


def _of_places(places: Places) -> Iterator[str]:
    """Files that are not scans, and folders that already hold clean scans."""
    if places.others:
        yield skipped_by_suffix(places.others)
    if skipped := places.skipped:
        folders = counted(len(skipped), "folder", "was were")
        yield f"{folders} skipped, because clean scans are already in them: {some(skipped)}"


def _plural(items: Sequence[str], one: str, many: str) -> str:
    return one if len(items) == 1 else many

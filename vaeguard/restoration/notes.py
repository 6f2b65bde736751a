"""What a person should know of a run of `denoise`, a sentence each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from vaeguard.restoration.reasons import FEWER_WORDS
from vaeguard.restoration.records import TABLE
from vaeguard.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vaeguard.restoration.places import Places
    from vaeguard.restoration.work import Restored

MUCH_LARGER = 1.3
"""A clean PDF is named if it is more than so many times as large as the scan."""


def notes_of(
    places: Places,
    rows: Sequence[dict[str, Any]] = (),
    gone: Sequence[str] = (),
    edited: Sequence[str] = (),
    kept: Sequence[str] = (),
    bare: Sequence[str] = (),
    aside: Path | None = None,
    larger: Sequence[str] = (),
) -> Iterator[str]:
    """What a person should know of a run, a sentence each."""
    yield from _pdf_notes(kept, bare, larger)
    failed = [row for row in rows if row["action"] == "reverted" and row["reason"] != FEWER_WORDS]
    if unread := [f"page {row['page']} of {row['path']!r} ({row['reason']})" for row in failed]:
        pages = counted(len(unread), "page", "was were")
        yield f"{pages} left as before: {some(unread)}; to try again, move the clean files away"
    if places.others:
        count = sum(number for _, number in places.others)
        kinds = [f"{number} {suffix or 'without a suffix'}" for suffix, number in places.others]
        stay = "is no scan and stays" if count == 1 else "are no scans and stay"
        yield f"{counted(count, 'file')} {stay} behind: {some(kinds)}"
    if skipped := places.skipped:
        folders = counted(len(skipped), "folder", "was were")
        yield f"{folders} left out for holding clean scans already: {some(skipped)}"
    if gone:
        files = counted(len(gone), "clean file", "has have")
        yield f"{files} no scan any more: {some(gone)}; delete what is not wanted"
    if edited:
        files, stay = counted(len(edited), "clean file", "was were"), "stays" if len(edited) == 1 else "stay"
        yield f"{files} changed by hand and {stay}: {some(edited)}; move away what is to be made again"
    if aside:
        yield f"{TABLE} had been edited, and was kept as {str(aside)!r}"


def kept_in(result: Restored) -> list[str]:
    """A PDF with pictures that stay as they are, and how many of each kind."""
    kinds = Counter(kind for _, kind in result.kept)
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return [f"{result.name!r} ({said})"] if said else []


def grown(result: Restored) -> list[str]:
    """A PDF that grew much, with the sizes before and after."""
    if not result.name.lower().endswith(".pdf") or result.written <= MUCH_LARGER * result.size:
        return []
    before, after = (f"{size / 1000:,.0f} KB" for size in (result.size, result.written))
    return [f"{result.name!r} ({before} to {after})"]


def _pdf_notes(kept: Sequence[str], bare: Sequence[str], larger: Sequence[str]) -> Iterator[str]:
    """What a person should know of PDFs."""
    if kept:
        yield f"{counted(len(kept), 'PDF', 'has have')} pictures that stay as they are: {some(kept)}"
    if larger:
        yield f"{counted(len(larger), 'PDF')} grew to more than {MUCH_LARGER} times the size: {some(larger)}"
    if bare:
        has = "it has" if len(bare) == 1 else "they have"
        yield f"{counted(len(bare), 'PDF', 'is are')} copied, since {has} no picture that is restored: {some(bare)}"

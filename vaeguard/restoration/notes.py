"""What a person should know of a run of `denoise`, a sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaeguard.restoration.reasons import FEWER_WORDS
from vaeguard.restoration.records import TABLE
from vaeguard.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from vaeguard.restoration.places import Places


def notes_of(
    places: Places,
    rows: Sequence[dict[str, Any]] = (),
    gone: Sequence[str] = (),
    edited: Sequence[str] = (),
    kept: Sequence[str] = (),
    bare: Sequence[str] = (),
    aside: Path | None = None,
) -> Iterator[str]:
    """What a person should know of a run, a sentence each."""
    if kept:
        what = "pictures that stay as they are, being bilevel, CMYK, indexed, masked or of another depth than 8 bits"
        yield f"{counted(len(kept), 'PDF', 'has have')} {what}: {some(kept)}"
    if bare:
        has = "it has" if len(bare) == 1 else "they have"
        yield f"{counted(len(bare), 'PDF', 'is are')} copied, since {has} no picture that is restored: {some(bare)}"
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
        yield f"{folders} left out, which this command has written: {some(skipped)}"
    if gone:
        files = counted(len(gone), "clean file", "has have")
        yield f"{files} no scan any more: {some(gone)}; delete what is not wanted"
    if edited:
        files, stay = counted(len(edited), "clean file", "was were"), "stays" if len(edited) == 1 else "stay"
        yield f"{files} changed by hand and {stay}: {some(edited)}; move away what is to be made again"
    if aside:
        yield f"{TABLE} had been edited, and was kept as {str(aside)!r}"

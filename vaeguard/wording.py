"""Sentences for people: numbers that agree with their nouns, and long lists cut short."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMED = 3
"""A sentence names at most so many items of a list."""
SUFFIXES_NAMED = 8
"""A sentence counts files by at most so many suffixes."""


def counted(count: int, noun: str, verbs: str = "") -> str:
    """A number with its noun, and with a verb if `verbs` gives both forms: `counted(1, "page", "was were")`."""
    singular, _, plural = verbs.partition(" ")
    verb = singular if count == 1 else plural
    return f"{count:,} {noun}{'' if count == 1 else 's'}" + (f" {verb}" if verb else "")


def some(items: Sequence[str]) -> str:
    """The first of many items, and how many more there are."""
    more = f" and {len(items) - NAMED:,} more" if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def of_suffixes(counts: Sequence[tuple[str, int]], one: str, many: str) -> str:
    """Files that stay behind, counted by suffix; `one` and `many` are verbs, such as `are no scans and stay`."""
    count = sum(number for _, number in counts)
    by_count = sorted(counts, key=lambda kind: (-kind[1], kind[0]))
    kinds = [f"{number:,} {suffix or 'without a suffix'}" for suffix, number in by_count[:SUFFIXES_NAMED]]
    rest = sum(number for _, number in by_count[SUFFIXES_NAMED:])
    others = [f"{rest:,} others"] if rest else []
    return f"{counted(count, 'file')} {one if count == 1 else many} behind: {', '.join([*kinds, *others])}"

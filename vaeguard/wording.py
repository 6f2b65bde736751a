"""Words for people: numbers that agree with their nouns, long lists cut short, and short reprs."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMED = 3
"""A sentence names at most so many items of a list."""
FEW, WIDE = 12, 100
"""A repr shows collections of at most so many items, in at most so many characters."""
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


def brief(thing: object, **facts: object) -> str:
    """A short repr of `thing`: its class with these facts, or else with the fields of a dataclass.

    An array is shown by its type and shape, and any other long value by its beginning or its length.
    """
    shown = facts or {field.name: getattr(thing, field.name) for field in fields(cast("Any", thing)) if field.repr}
    return f"{type(thing).__name__}({', '.join(f'{name}={_short(value)}' for name, value in shown.items())})"


def brief_settings(spec: object) -> str:
    """A short repr of a dataclass of settings: the settings that are not at their default."""
    shown = [(field, getattr(spec, field.name)) for field in fields(cast("Any", spec))]
    changed = [f"{field.name}={value!r}" for field, value in shown if value != field.default]
    return f"{type(spec).__name__}({', '.join(changed)})"


def _short(value: object) -> str:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, Sized) and not isinstance(value, str) and len(value) > FEW:
        return f"<{len(value):,} items>"
    text = repr(value)
    return text if len(text) <= WIDE else f"{text[: WIDE - 1]}…"


def skipped_by_suffix(counts: Sequence[tuple[str, int]]) -> str:
    """A clause that counts the files of an unsupported type by suffix."""
    count = sum(number for _, number in counts)
    by_count = sorted(counts, key=lambda kind: (-kind[1], kind[0]))
    kinds = [f"{number:,} {suffix or 'without a suffix'}" for suffix, number in by_count[:SUFFIXES_NAMED]]
    rest = sum(number for _, number in by_count[SUFFIXES_NAMED:])
    others = [f"{rest:,} others"] if rest else []
    return f"{counted(count, 'file')} skipped (unsupported type): {', '.join([*kinds, *others])}"

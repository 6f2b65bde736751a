"""Lists of classes as text, such as `0-8`, `0,2,5-7` or `good,ok`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vaeguard.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_RANGE = re.compile(r"(\d{1,9})\s*-\s*(\d{1,9})", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_SHOWN = 20
"""A message names at most so many classes."""


def parse_classes(text: str, class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the sorted indices into `class_names` of the classes that `text` lists.

    Items are separated by commas. A class name takes precedence over any other reading. A number is a class name if
    classes are named by numbers, and otherwise an index from 0. A range has two such numbers and includes both.

    >>> parse_classes("0,2,5-7", tuple("0123456789"))
    (0, 2, 5, 6, 7)
    >>> parse_classes("good", ("crack", "good"))
    (1,)

    Raises
    ------
    UsageError
        An item is no class of the data, or the list is empty.
    """
    if not class_names:
        raise UsageError("the data have no classes; sort the images into class sub-folders, or do not name any class")
    whole = text.strip()
    items = [whole] if whole in class_names else [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise UsageError(f"the list of classes is empty; {_existing(class_names)}")
    return tuple(sorted({index for item in items for index in _indices(item, class_names)}))


def resolve_classes(
    classes: str | int | Sequence[str | int], class_names: Sequence[str], *, must_leave_anomalies: bool = False
) -> tuple[int, ...]:
    """Return the sorted indices of the normal classes, from text (see `parse_classes`) or a sequence.

    Raises
    ------
    UsageError
        As `parse_classes`; or no class is named; or, with `must_leave_anomalies`, all of several classes are.
    """
    items = classes if isinstance(classes, Iterable) and not isinstance(classes, str) else [classes]
    try:
        indices = sorted({index for item in items for index in parse_classes(str(item), class_names)})
    except UsageError as error:
        raise UsageError(f"`normal_classes` is {classes!r}: {error}") from error
    if not indices:
        raise UsageError(f"`normal_classes` is empty; {_existing(class_names)}")
    if must_leave_anomalies and 1 < len(indices) == len(class_names):
        raise UsageError(
            f"`normal_classes` {', '.join(map(str, items))} contains every class, so there are no anomalies to find;"
            f" {_existing(class_names)}"
        )
    return tuple(indices)


def _indices(item: str, class_names: Sequence[str]) -> list[int]:
    if item in class_names:
        return [class_names.index(item)]
    limits = _RANGE.fullmatch(item)
    if limits:
        first, last = int(limits[1]), int(limits[2])
        if first > last:
            raise UsageError(f"the range {item!r} is reversed; write {last}-{first}")
        if last - first >= 1_000_000:
            raise UsageError(f"the range {item!r} is too long; {_existing(class_names)}")
        return [_number(str(value), item, class_names) for value in range(first, last + 1)]
    return [_number(item, item, class_names)]


def _number(number: str, item: str, class_names: Sequence[str]) -> int:
    if number in class_names:
        return class_names.index(number)
    # If any class is named by a number, an index could silently mean another class.
    indexable = not any(_NUMBER.fullmatch(name) for name in class_names)
    if indexable and _NUMBER.fullmatch(number) and int(number) < len(class_names):
        return int(number)
    close = difflib.get_close_matches(number, class_names, 1)
    hint = f"did you mean {close[0]!r}? " if close and not _NUMBER.fullmatch(number) else ""
    within = "" if number == item else f" (in {item!r})"
    raise UsageError(f"the data have no class {number!r}{within}; {hint}{_existing(class_names)}")


def _existing(class_names: Sequence[str]) -> str:
    shown = ", ".join(class_names[:_SHOWN])
    more = f" and {len(class_names) - _SHOWN} more" if len(class_names) > _SHOWN else ""
    return f"the classes are {shown}{more}"

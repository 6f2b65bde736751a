"""Why a page was left as it was, and why a person should look at one.

A reason is a clause in the singular without numbers, so that the pages of one reason can be counted.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CLEAN = "nothing to restore was found"
"""The only reason by which a page counts as judged clean."""
BILEVEL = "it has only two levels"
NO_STRENGTH = "the strength is 0"
TOO_SMALL = "it is too small for an estimate of its noise"
IN_DOUBT = "its noise cannot be told from texture"
ONLY_DETAIL = "only detail would be removed"
FEWER_WORDS = "tesseract read fewer words"
SURE = (CLEAN, BILEVEL, NO_STRENGTH)
"""Reasons that leave no doubt: such a page need not be looked at."""
MUCH_LIGHTENED, MUCH_REMOVED = 0.03, 0.03
"""If a larger share of a page was made as bright as paper or cleared of marks, that may have been a picture or ink."""
_PLURAL = {"it is ": "they are ", "it has ": "they have ", "it was ": "they were ", "its ": "their "}


def why_look(row: Mapping[str, Any]) -> str:
    """What to check on the page that `row` of `pages.csv` describes; empty where there is nothing."""
    if row["action"] != "restored":
        return "" if row["reason"] in SURE else f"left as it was because {row['reason']}"
    shares = (
        ("reverted", "put back", 0.0),
        ("lightened", "made as bright as paper", MUCH_LIGHTENED),
        ("removed", "cleared of marks", MUCH_REMOVED),
    )
    said = [f"{100 * row[name]:.1f} % of it {what}" for name, what, least in shares if row[name] > least]
    return ", ".join(said)


def worth_a_look(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """A sort key, smallest for the page that a person should look at first."""
    most = max(row["reverted"], row["lightened"], row["removed"])
    return not why_look(row), -most, -row["uncertainty"], row["path"], row["page"]


def left_pages(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The reasons for which pages were left as they were, each with its number of `pages`, most first."""
    counts = Counter(row["reason"] for row in rows if row["action"] != "restored")
    return [{"reason": reason, "pages": pages} for reason, pages in counts.most_common()]


def left_clause(left: Sequence[Mapping[str, Any]]) -> str:
    """How many pages were left as they were and why, from what `left_pages` returns, which must not be empty."""
    pages = sum(each["pages"] for each in left)
    said = [(each["pages"], _agreeing(each["reason"], each["pages"])) for each in left]
    start = counted(pages, "page") + (" was left as it was" if pages == 1 else " were left as they were")
    if len(said) == 1:
        return f"{start} because {said[0][1]}"
    return f"{start}: " + ", ".join(f"{count:,} because {reason}" for count, reason in said)


def _agreeing(reason: str, pages: int) -> str:
    return reason if pages == 1 else re.sub("^(it is|it has|it was|its) ", lambda found: _PLURAL[found[0]], reason)

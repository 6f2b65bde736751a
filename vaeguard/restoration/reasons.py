"""The reasons why a page was left unchanged, and why a person should look at a page.

A reason is a clause in the singular without numbers, so that the pages with the same reason can be counted.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from vaeguard.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CLEAN = "nothing to restore was found"
"""The only reason for which a page counts as judged clean."""
BILEVEL = "it has only two grey levels"
NO_STRENGTH = "the strength is 0"
TOO_SMALL = "it is too small to estimate its noise"
IN_DOUBT = "its noise cannot be separated from texture"
ONLY_DETAIL = "only detail would be removed"
FEWER_WORDS = "tesseract would read fewer words or misread a number after cleaning"
SURE = (CLEAN, BILEVEL, NO_STRENGTH)
"""Reasons that leave no doubt, so that nobody needs to look at the page."""
MUCH_PUT_BACK = 0.01
"""Share of a page from which what was put back is more than a few squares that needed protection."""
MUCH_LIGHTENED = 0.03
"""Share of a page from which its lightened part may have been a picture."""
MUCH_REMOVED = 0.03
"""Share of a page from which its removed marks may have been ink."""
_PLURAL = {"it is ": "they are ", "it has ": "they have ", "it was ": "they were ", "its ": "their "}


def why_look(row: Mapping[str, Any]) -> str:
    """What to check on the page that `row` of `pages.csv` describes; empty if there is nothing to check."""
    if row["action"] != "restored":
        return "" if row["reason"] in SURE else f"left unchanged because {row['reason']}"
    shares = (
        ("reverted", "ink or detail was put back in {} of the page", MUCH_PUT_BACK),
        ("lightened", "{} of the page was made as bright as paper", MUCH_LIGHTENED),
        ("removed", "{} of the page was cleared of marks", MUCH_REMOVED),
    )
    clauses = [clause.format(f"{100 * row[name]:.1f} %") for name, clause, limit in shares if row[name] > limit]
    return ", ".join(clauses)


def worth_a_look(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """A sort key that puts the page that a person should look at first in front."""
    largest = max(row["reverted"], row["lightened"], row["removed"])
    return not why_look(row), -largest, -row["uncertainty"], row["path"], row["page"]


def left_pages(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The reasons for which pages were left unchanged, each with its number of `pages`, most frequent first."""
    counts = Counter(row["reason"] for row in rows if row["action"] != "restored")
    return [{"reason": reason, "pages": pages} for reason, pages in counts.most_common()]


def left_clause(left: Sequence[Mapping[str, Any]]) -> str:
    """A clause that counts the pages in `left`, the result of `left_pages`, by reason; `left` must not be empty."""
    pages = sum(group["pages"] for group in left)
    reasons = [(group["pages"], _agreeing(group["reason"], group["pages"])) for group in left]
    start = counted(pages, "page") + (" was left unchanged" if pages == 1 else " were left unchanged")
    if len(reasons) == 1:
        return f"{start} because {reasons[0][1]}"
    return f"{start}: " + ", ".join(f"{count:,} because {reason}" for count, reason in reasons)


def _agreeing(reason: str, pages: int) -> str:
    return reason if pages == 1 else re.sub("^(it is|it has|it was|its) ", lambda match: _PLURAL[match[0]], reason)

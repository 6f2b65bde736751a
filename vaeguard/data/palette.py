"""How few colours a picture has: masks have few, photographs many."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaeguard.data.decoding import read_one
from vaeguard.data.images import open_picture, read_bytes
from vaeguard.errors import UnreadableError

FEW = 32
"""A mask has at most so many colours, or at least `MOST` of its pixels have one of the `FEWEST` commonest."""
PIXELS_A_COLOUR = 16
"""A picture has few colours only if it has at least so many pixels for each; tiny pictures never have many."""
FEWEST = 8
MOST = 0.9


def has_few_colours(path: str, *, exactly: bool = True, damaged: bool = False) -> bool:
    """Whether a picture has few colours; unless `exactly`, a few of them may also be frequent enough.

    The answer for a picture that cannot be read is `damaged`.
    """
    try:
        found, _ = read_one("vaeguard.data.palette:palette", path)
    except UnreadableError:
        return damaged
    return bool(found["few"] or (not exactly and found["frequent"]))


def palette(name: str, content: bytes | None, rule: None = None) -> tuple[dict[str, Any]]:
    """Whether a picture has few colours, and whether a few of them are frequent, as a process for decoding counts."""
    del rule
    picture = open_picture(read_bytes(name) if content is None else content, name)
    most = min(FEW, picture.width * picture.height // PIXELS_A_COLOUR)
    if picture.mode.startswith("I"):
        kinds, counts = np.unique(np.asarray(picture), return_counts=True)
        few = len(kinds) <= most
    else:
        few = picture.getcolors(most) is not None
        counts = np.array(picture.convert("L").histogram())
    return ({"few": few, "frequent": bool(np.sort(counts)[-FEWEST:].sum() >= MOST * counts.sum())},)

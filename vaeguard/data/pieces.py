"""Pieces of sources: what is read, scored and kept between two savings."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vaeguard.data.containers import Source

SHARD_ROWS, SHARD_VALUES = 4096, 2**26
"""A shard has at most so many images, fewer of large ones: what a kill can cost."""


@dataclass(frozen=True)
class Piece:
    """The images `start` to `stop` of a source: what a shard is made of."""

    source: Source
    start: int
    stop: int

    @property
    def count(self) -> int:
        """How many images it has."""
        return self.stop - self.start

    def key(self, settings: str) -> str:
        """Name of the shard that comes of it under `settings`."""
        return hashlib.sha256(settings.encode() + b"\0" + self.source.stamp(self.start, self.stop)).hexdigest()[:40]


def rows_of_a_shard(values: int) -> int:
    """How many images of so many numbers each are scored between two savings."""
    return max(16, min(SHARD_ROWS, SHARD_VALUES // values))


def pieces_of(sources: Iterable[Source], values: int) -> list[Piece]:
    """Cut sources, whose images have `values` numbers each, into pieces; always the same ones."""
    rows = rows_of_a_shard(values)
    return [
        Piece(source, start, min(start + rows, source.count))
        for source in sources
        for start in range(0, source.count, rows)
    ]

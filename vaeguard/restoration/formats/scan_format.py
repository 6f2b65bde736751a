"""What a module of this folder offers for its file format, and how clean pictures are coded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from vaeguard.restoration.nearness import is_near

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vaeguard.restoration.formats.scan_page import Page, PageFacts, Pixels

    Restore = Callable[[Page], Pixels]

FINER = (1, 1.4, 2, 4)
"""The divisors of the original's quantisation that a lossy codec tries in turn.

A divisor of 1.4 makes a page a fifth larger."""


@dataclass(frozen=True)
class Coding:
    """The coding of clean pictures.

    Attributes
    ----------
    jpeg : int or None
        Quality of pictures that were JPEGs, 1 to 100; None for that of the original.
    lossless : bool
        Write every picture without loss.
    """

    jpeg: int | None = None
    lossless: bool = False

    @property
    def steps(self) -> tuple[float, ...]:
        """The divisors of the quantisation that are tried in turn; 0 means no loss."""
        return (0,) if self.lossless else (1, 0) if self.jpeg else (*FINER, 0)

    def accepts(self, restored: Pixels, decoded: Pixels) -> bool:
        """Whether a picture may be written with loss: the quality was asked for, or the decoded pixels are near."""
        return bool(self.jpeg) or is_near(restored, decoded)


@dataclass
class Rewritten:
    """The outcome of rewriting a scan.

    Attributes
    ----------
    left : list of (int, str)
        Page and kind of each picture in a PDF that stays as it is, since pictures of this kind are not restored.
    codecs : dict
        Codec of each restored page of a PDF, by the page's number.
    digests : list of str or None
        The `digest_of_pixels` of each page as it must be read back; None if each page must be read back as restored.
    """

    left: list[tuple[int, str]] = field(default_factory=list)
    codecs: dict[int, str] = field(default_factory=dict)
    digests: list[str] | None = None


class ScanFormat(Protocol):
    """A module that reads and writes the scans of a file format; it names what of a page must not change.

    Every function takes the bytes of a scan and its name for messages, and raises an UnreadableError if the scan is
    damaged or its kind is not restored.
    """

    def pages(self, content: bytes, name: str) -> Iterator[Page]:
        """Read the pages one by one, in the order in which `rewrite` restores them."""

    def sizes(self, content: bytes, name: str) -> list[tuple[int, int]]:
        """Read the height and width of each of these pages from the headers."""

    def facts(self, content: bytes, name: str) -> list[PageFacts]:
        """Read the metadata that `rewrite` must keep, page by page; empty if it copies all of it unread."""

    def rewrite(self, content: bytes, name: str, target: Path, restore: Restore, coding: Coding) -> Rewritten:
        """Write the scan to `target` with the pixels that `restore` returns for each page.

        `restore` returns the page's own array if the page does not change. Whatever is written is read back by `pages`
        and `facts`, and must be the same.
        """

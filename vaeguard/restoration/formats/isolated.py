"""Scans read and written in other processes, which a broken or hostile scan cannot leave.

The functions are those of `scans`. The pixels of each page come to this process, which restores them; everything else
of a scan is parsed, decoded, encoded and read back in the other process, by the functions whose names begin with
`serve`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeguard.data.channel import as_array
from vaeguard.data.limits import limit_memory
from vaeguard.data.workers import borrowed
from vaeguard.restoration.formats import scans
from vaeguard.restoration.formats.scan_format import Rewritten
from vaeguard.restoration.formats.scan_page import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vaeguard.data.channel import Values
    from vaeguard.data.decoder import Caller
    from vaeguard.restoration.formats.pdf_copies import Frame
    from vaeguard.restoration.formats.scan_format import Restore
    from vaeguard.restoration.formats.scan_page import Pixels

_HERE = "vaeguard.restoration.formats.isolated"


def rewrite(
    content: bytes,
    name: str,
    target: Path,
    restore: Restore,
    *,
    jpeg: int | None = None,
    lossless: bool = False,
) -> Rewritten:
    """As `scans.rewrite`.

    Raises
    ------
    UnreadableError, RefusedError
        As `scans.rewrite`; or the process ended, as a `DiedError`.
    """
    arguments = {"name": name, "target": str(Path.cwd() / target), "jpeg": jpeg, "lossless": lossless}
    with borrowed() as worker:
        worker.call(name, f"{_HERE}:serve_rewrite", arguments, as_array(content))
        while "result" not in (answer := worker.receive())[0]:
            page = _page(*answer)
            restored = restore(page)
            if restored is page.pixels:
                worker.send({})
            else:
                worker.send({}, restored)
    left, codecs = answer[0]["result"]
    return Rewritten([(number, kind) for number, kind in left], {int(number): codec for number, codec in codecs})


def rewrite_bilevel(content: bytes, name: str, target: Path, threshold: Callable[[Page], Any]) -> None:
    """Write a scan in black and white, as `bilevel.write_bilevel`, or `pdf_copies.write_bilevel` if it is a PDF.

    Raises
    ------
    UnreadableError, RefusedError
        As by these; or the process ended, as a `DiedError`.
    """
    with borrowed() as worker:
        arguments = {"name": name, "target": str(Path.cwd() / target)}
        worker.call(name, f"{_HERE}:serve_bilevel", arguments, as_array(content))
        while "result" not in (answer := worker.receive())[0]:
            worker.send({}, threshold(_page(*answer)))


def rewrite_turned(
    content: bytes, name: str, target: Path, turn_of: Callable[[Page], tuple[float, Sequence[float]]]
) -> dict[int, Frame]:
    """Turn the pages of a PDF, as `pdf_copies.write_turned`.

    Raises
    ------
    UnreadableError, RefusedError
        As `pdf_copies.write_turned`; or the process ended, as a `DiedError`.
    """
    with borrowed() as worker:
        arguments = {"name": name, "target": str(Path.cwd() / target)}
        worker.call(name, f"{_HERE}:serve_turned", arguments, as_array(content))
        while "result" not in (answer := worker.receive())[0]:
            angle, colour = turn_of(_page(*answer))
            worker.send({"angle": angle, "colour": list(colour)})
    return {int(number): (tuple(centre), tuple(size)) for number, (centre, size) in answer[0]["result"]}


def scan_pages(content: bytes, name: str) -> Iterator[Page]:
    """As `scans.scan_pages`.

    Raises
    ------
    UnreadableError
        As `scans.scan_pages`; or the process ended, as a `DiedError`.
    """
    with borrowed() as worker:
        worker.call(name, f"{_HERE}:serve_pages", {"name": name}, as_array(content))
        more = True
        while "result" not in (answer := worker.receive())[0]:
            try:
                yield _page(*answer)
            except GeneratorExit:  # the caller needs no more pages, and the process can go on with other work
                more = False
            worker.send({"more": more})


def page_sizes(content: bytes, name: str) -> list[tuple[int, int]]:
    """As `scans.page_sizes`.

    Raises
    ------
    UnreadableError
        As `scans.page_sizes`; or the process ended, as a `DiedError`.
    """
    with borrowed() as worker:
        worker.call(name, f"{_HERE}:serve_sizes", {"name": name}, as_array(content))
        answer, _ = worker.receive()
    return [(int(height), int(width)) for height, width in answer["result"]]


def _page(header: dict[str, Any], pixels: Values | None) -> Page:
    assert pixels is not None
    return Page(header["number"], pixels, header["dpi"], header["orientation"])


def serve_rewrite(
    caller: Caller, content: bytes, *, name: str, target: str, jpeg: int | None, lossless: bool
) -> tuple[Any, Any]:
    """Rewrite a scan with the pixels that the caller returns for each page."""

    def restore(page: Page) -> Pixels:
        limit_memory(held=page.pixels.nbytes)  # a PDF keeps the pages before this one in memory
        _send_page(caller, page)
        restored = caller.receive()[1]
        return page.pixels if restored is None else restored

    result = scans.rewrite(content, name, Path(target), restore, jpeg=jpeg, lossless=lossless)
    return result.left, list(result.codecs.items())


def serve_bilevel(caller: Caller, content: bytes, *, name: str, target: str) -> None:
    """Write a scan in black and white, with the white pixels that the caller returns for each page."""
    from vaeguard.restoration.formats import bilevel, pdf_copies

    def threshold(page: Page) -> Any:
        _send_page(caller, page)
        return caller.receive()[1]

    module = pdf_copies if name.lower().endswith(".pdf") else bilevel
    module.write_bilevel(content, name, Path(target), threshold)


def serve_turned(caller: Caller, content: bytes, *, name: str, target: str) -> list[Any]:
    """Turn the pages of a PDF by the angles that the caller returns."""
    from vaeguard.restoration.formats import pdf_copies

    def turn_of(page: Page) -> tuple[float, list[float]]:
        _send_page(caller, page)
        answer = caller.receive()[0]
        return answer["angle"], answer["colour"]

    return list(pdf_copies.write_turned(content, name, Path(target), turn_of).items())


def serve_pages(caller: Caller, content: bytes, *, name: str) -> None:
    """Send the pages of a scan, each after the caller has asked for it."""
    for page in scans.scan_pages(content, name):
        _send_page(caller, page)
        if not caller.receive()[0]["more"]:
            break


def serve_sizes(caller: Caller, content: bytes, *, name: str) -> list[tuple[int, int]]:
    """The sizes of the pages of a scan."""
    del caller
    return scans.page_sizes(content, name)


def _send_page(caller: Caller, page: Page) -> None:
    caller.send({"number": page.number, "dpi": page.dpi, "orientation": page.orientation}, page.pixels)

"""The process that parses and decodes files for another process, so that a hostile file harms only this one.

`workers` starts it, and it answers calls of functions one by one until its input ends. It limits its own memory, and
ends if a file takes too long, even within a library that never returns.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import threading
import time
import warnings
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from PIL import Image

from vaeguard.data.channel import BUFFER, Channel
from vaeguard.data.images import ImageRule, decode_bytes, decode_image, read_header, reduced
from vaeguard.data.limits import MAX_MEMORY, MAX_PIXELS, MAX_SECONDS, MOST_SIDE, clock, limit_memory, too_much_memory
from vaeguard.errors import RefusedError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaeguard.data.channel import Values

TOGETHER_SECONDS = 0.02
"""Answers wait for each other no longer."""
QUICK_SECONDS = min(1.0, MAX_SECONDS / 4)
"""The time for a file while answers wait for it."""


class Caller:
    """The process that called a function, as the function sees it; while it is waited for, no time is counted."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def send(self, header: dict[str, Any], *arrays: Values) -> None:
        """Answer, and allow the next image the whole time."""
        clock.stop()
        self._channel.send(header, *arrays)
        clock.restart()

    def receive(self) -> tuple[dict[str, Any], Values | None]:
        """Wait for the next message."""
        clock.stop()
        message = self._channel.receive(MAX_MEMORY)
        clock.restart()
        return message


def main() -> None:
    """Answer calls until the input ends."""
    channel = Channel(*_own_pipes())
    clock.on = True
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # or Pillow refuses some formats below a limit that was raised
    _go_first()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    warnings.simplefilter("ignore")
    logging.disable()
    caller = Caller(channel)
    channel.send({"ready": True})
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            call, content = channel.receive_bytes(MAX_MEMORY)
            limit_memory(held=len(content))
            clock.restart()
            try:
                caller.send({"result": _named(call["function"])(caller, content, **call["arguments"])})
            except (EOFError, BrokenPipeError):
                raise
            except Exception as error:  # noqa: BLE001 -- the caller gets every error
                caller.send(as_message(error))
            clock.stop()
            del content  # before the next call brings more


def _named(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def as_message(error: Exception) -> dict[str, Any]:
    """An error as plain values, from which `workers` makes an error again."""
    if isinstance(error, RefusedError) and not isinstance(error, UnreadableError):
        return {"error": "", "refusal": str(error)}
    if isinstance(error, OSError) and error.errno:
        place = None if error.filename is None else str(error.filename)
        return {"error": "", "system": [error.errno, error.strerror, place]}
    return {"error": _reason(error)}


def _rule(**fields: Any) -> ImageRule:
    """A rule whose tuples have become lists on the way."""
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return ImageRule(**given)


def _reason(error: Exception) -> str:
    """Why a file cannot be read, from any error of reading it."""
    if isinstance(error, UnreadableError):
        return error.reason
    if isinstance(error, MemoryError):
        return too_much_memory()
    return f"this is a bug in vaeguard ({type(error).__name__}: {error}); please report it, and leave this file out"


def read_files(
    caller: Caller,
    content: bytes,
    *,
    what: str,
    files: list[str],
    sizes: list[list[int]] | None,
    rule: dict[str, Any] | None,
    singly: bool,
) -> None:
    """Answer each file by what the function `what` returns, or by the reason why the file cannot be read.

    `files` are paths; with `sizes`, they are names, and the files make up `content`, each perhaps with its region.
    Quick answers are sent together, unless `singly` is set, and a file that is not quick then ends the process early:
    the caller asks again, singly.
    """
    read, wanted = _named(what), rule and _rule(**rule)
    answers: list[dict[str, Any]] = []
    arrays: list[Values] = []
    sent = time.monotonic()
    for name, held, *region in _contents(files, sizes, content):
        if answers:
            clock.restart(QUICK_SECONDS)
        try:
            answer, *array = read(name, held, wanted, *(region if wanted and wanted.regions else ()))
        except Exception as error:  # noqa: BLE001 -- one strange file must not end a run of hours
            answer, array = {"reason": _reason(error)}, []
        answers.append(answer)
        arrays += array
        if singly or sum(map(_size, arrays)) > BUFFER or time.monotonic() - sent > TOGETHER_SECONDS:
            caller.send({"answers": answers}, *arrays)
            answers, arrays, sent = [], [], time.monotonic()
    if answers:
        caller.send({"answers": answers}, *arrays)


def _contents(files: list[str], sizes: list[list[int]] | None, content: bytes) -> Iterator[tuple[Any, ...]]:
    start = 0
    for number, name in enumerate(files):
        if sizes is None:
            yield name, None
        else:
            ends = [*accumulate(sizes[number], initial=start)]
            yield name, *(content[begin:end] for begin, end in pairwise(ends))  # the same bytes if the file is alone
            start = ends[-1]


def pixels(
    name: str, content: bytes | None, rule: ImageRule, region: bytes | None = None
) -> tuple[dict[str, Any], Values]:
    """The pixels of an image file, uint8 (1, C, H, W) by the rule."""
    from vaeguard.data.own_regions import with_region

    image = decode_image(name, rule) if content is None else decode_bytes(content, rule, name)
    return {}, (with_region(image, name, content, region) if rule.regions else image)[None]


def picture(name: str, content: bytes | None, rule: ImageRule) -> tuple[dict[str, Any], Values]:
    """An image file as people look at it, uint8 (1, C, H, W), by the rule but for `MOST_SIDE`, and its own size."""
    whole = decode_image(name, rule) if content is None else decode_bytes(content, rule, name)
    return {"size": whole.shape[1:]}, reduced(whole, MOST_SIDE)[None]


def header(name: str, content: bytes | None, rule: None) -> tuple[dict[str, Any]]:
    """The size and the channels that the pixels of an image file would have without a rule."""
    del rule
    size, channels = read_header(name, content)
    return ({"size": size, "channels": channels},)


def _size(array: Values) -> int:
    return array.nbytes


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output, which no library can read from or print to any more.

    Standard error leads nowhere either, since libtiff writes there what it finds, without the name of the file.
    """
    pipes = os.fdopen(os.dup(0), "rb", BUFFER), os.fdopen(os.dup(1), "wb", BUFFER)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    return pipes


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, even while it decodes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _go_first() -> None:
    """Where memory runs out all the same, Linux ends this process before others."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")

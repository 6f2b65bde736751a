"""Types that workflows share: the receiver of their messages, their results, and their own settings."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vaeguard.data.shards import Limits
from vaeguard.settings.checks import check_positive, settle_types
from vaeguard.settings.evaluation import DEFAULT_FPR, PIXELS
from vaeguard.settings.field import setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vaeguard.progress import Progress

NAMED = 10
"""A message names at most so many classes, or inputs that were left out."""


@contextlib.contextmanager
def _silent(_task: str) -> Iterator[Progress]:
    yield lambda *_: None


@dataclass(frozen=True)
class Reporter:
    """Receives the messages and the progress of a workflow.

    Attributes
    ----------
    say : callable
        Called with a line of text.
    progress : callable
        Called with the name of a task; returns a context manager that gives a `Progress`.
    command : str
        The command line, for reports.
    """

    say: Callable[[str], None] = lambda _: None
    progress: Callable[[str], contextlib.AbstractContextManager[Progress]] = _silent
    command: str = ""

    @contextlib.contextmanager
    def going_on(self, where: str) -> Iterator[None]:
        """Have an interruption say `where` the finished parts are and how to resume the work."""
        try:
            yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Interrupted; {where}. To continue, run the same command again") from None

    def left_out(self, errors: Sequence[tuple[str, str]]) -> None:
        """Name the inputs that were left out, at most ten of them, mostly because they cannot be read."""
        for path, reason in errors[:NAMED]:
            self.say(f"skipped: {path!r}: {reason}")
        if len(errors) > NAMED:
            self.say(f"... and {len(errors) - NAMED:,} more")


@dataclass(frozen=True)
class Outcome:
    """The result of a workflow.

    Attributes
    ----------
    output : str
        The file or folder that was written.
    result : Any
        The result of the library function.
    report : dict
        The report, if there is one.
    errors : sequence of (path, reason)
        Inputs that were left out.
    seconds : float
        How long the library function took.
    left_out : str or None
        One sentence on files beside the images that look like images and are not read.
    """

    output: str
    result: Any = None
    report: dict[str, Any] | None = None
    errors: Sequence[tuple[str, str]] = ()
    seconds: float = 0.0
    left_out: str | None = None


@dataclass(frozen=True)
class FitRun:
    """Settings of a run, apart from those of the fit."""

    tensorboard: str | None = setting(
        None, "Folder for TensorBoard logs; each run gets a sub-folder with the name of its run folder."
    )
    jobs: int | None = setting(
        None, "Number of threads that decode images.", unset="one per core, at most 16; 1 for tiny files"
    )
    processes: int = setting(
        1,
        "Number of processes on this machine that train the model together, each on its own GPU or on a share of the"
        " CPU cores.",
    )
    cache_gb: float | None = setting(
        None,
        "Maximum size of the cache of decoded images, in gigabytes; a larger data set is read from its files in every"
        " epoch.",
        unset="half of the free disk space",
    )
    buffer_gb: float = setting(
        1.0, "If images are read from their files in every epoch: gigabytes of decoded images to shuffle at a time."
    )
    finish: bool = setting(
        False, "With --resume: run no more epochs, but calibrate and save the model of the finished epochs."
    )

    def __post_init__(self) -> None:
        settle_types(self)
        for name in ("processes", "cache_gb", "buffer_gb"):
            check_positive(name, getattr(self, name))

    @property
    def limits(self) -> Limits:
        """What of the images is decoded into the cache, and what is mixed in memory."""
        return Limits(None if self.cache_gb is None else int(self.cache_gb * 1e9), int(self.buffer_gb * 1e9))


@dataclass(frozen=True)
class DenoiseRun:
    """How a tree of scans is processed."""

    jobs: int | None = setting(None, "Number of files to process at the same time.", unset="one per core, at most 4")

    def __post_init__(self) -> None:
        settle_types(self)


@dataclass(frozen=True)
class ExportSettings:
    """How a model is exported: the parameters of `vaeguard.export`."""

    pixels: str = setting(
        "uint8", "Type of the pixels that the file takes: uint8 (0 to 255) or float32 (0 to 1).", of=PIXELS
    )
    fpr: float = setting(
        DEFAULT_FPR, "False-alarm rate to store in the file; commands that use the file take this rate by default."
    )
    fp16: bool = setting(False, "For GPUs: let the exported model compute in half precision (float16).")
    tolerance: float | None = setting(
        None,
        "Largest relative error that an output of the file may have, compared with the PyTorch model.",
        unset="0.0001; with export.fp16, 0.02",
    )
    parts: bool = setting(False, "Also write the encoder and the decoder as separate files.")

    def __post_init__(self) -> None:
        settle_types(self)

"""What workflows have in common: whom they tell while they work, what they return, and settings of their own."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vaeguard.settings.checks import settle_types
from vaeguard.settings.evaluation import DEFAULT_FPR, PIXELS
from vaeguard.settings.field import setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vaeguard.progress import Progress

NAMED = 10
"""So many inputs that were left out, or classes, are named."""


@contextlib.contextmanager
def _silent(_what: str) -> Iterator[Progress]:
    yield lambda *_: None


@dataclass(frozen=True)
class Reporter:
    """Whom a workflow tells while it works.

    Attributes
    ----------
    say : callable
        Called with a line of text.
    progress : callable
        Called with what is done, gives a context manager of a `Progress`.
    command : str
        The command line, to be named in a report.
    """

    say: Callable[[str], None] = lambda _: None
    progress: Callable[[str], contextlib.AbstractContextManager[Progress]] = _silent
    command: str = ""

    @contextlib.contextmanager
    def going_on(self, where: str) -> Iterator[None]:
        """Tell an interrupted user how the work goes on, and `where` its finished parts are."""
        try:
            yield
        except KeyboardInterrupt:
            self.say(f"{where}; the same command goes on")
            raise

    def left_out(self, errors: Sequence[tuple[str, str]]) -> None:
        """Tell what was left out, mostly because it cannot be read, or the first ten of it."""
        for path, reason in errors[:NAMED]:
            self.say(f"left out: {path!r}: {reason}")
        if len(errors) > NAMED:
            self.say(f"... and {len(errors) - NAMED} more")


@dataclass(frozen=True)
class Outcome:
    """What a workflow made.

    Attributes
    ----------
    output : str
        The file or folder that was written.
    found : Any
        What the verb itself returned.
    report : dict
        The report, if there is one.
    errors : sequence of (path, reason)
        Inputs that were left out.
    seconds : float
        How long the verb took.
    """

    output: str
    found: Any = None
    report: dict[str, Any] | None = None
    errors: Sequence[tuple[str, str]] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class FitRun:
    """What a fit does beside fitting."""

    tensorboard: str | None = setting(None, "Log the fit for TensorBoard into DIR/<name of the run folder>.")
    jobs: int | None = setting(None, "Threads that decode images.", unset="by the machine")

    def __post_init__(self) -> None:
        settle_types(self)


@dataclass(frozen=True)
class DenoiseRun:
    """How a tree of scans is worked through."""

    jobs: int | None = setting(None, "Files in work at a time.", unset="one a core, at most 4")

    def __post_init__(self) -> None:
        settle_types(self)


@dataclass(frozen=True)
class ExportSettings:
    """How a model is exported; the names are those of `vaeguard.export`."""

    pixels: str = setting("uint8", "Type of the input image: 0 to 255, or 0 to 1.", of=PIXELS)
    fpr: float = setting(DEFAULT_FPR, "False-alarm rate where the input `fpr` is not given.")
    fp16: bool = setting(False, "Compute the network in float16, for GPUs.")
    tolerance: float | None = setting(None, "Largest relative error allowed.", unset="0.0001, with fp16 0.02")
    parts: bool = setting(False, "Also write the encoder and the decoder as files of their own.")

    def __post_init__(self) -> None:
        settle_types(self)

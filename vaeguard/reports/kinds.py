"""The kinds of reports, each with a verdict and some lines for a terminal.

A kind is a module and a template of its name. The class `Figures` of the module names the keys of the report that
`verdict` and `lines` take. The module also builds the report, except for searches and benchmarks, whose packages lie
above this one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from types import UnionType
from typing import TYPE_CHECKING, Any, cast, dataclass_transform, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

SHARED_TEMPLATES = {"base", "parts"}


@dataclass(frozen=True)
class Verdict:
    """The main result: a `headline`, one `sentence` with the figures, `notes` of caution, and the `tone`.

    `tone` is `good`, `fair`, `poor` or `plain`.
    """

    headline: str
    sentence: str
    notes: tuple[str, ...] = ()
    tone: str = "plain"


@dataclass_transform(frozen_default=True)
class Part:
    """The base of the classes that name keys of a report; each of them is a frozen dataclass."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


class ReportFigures(Part, ABC):
    """The figures of a report of one kind that its verdict and its lines in a terminal take."""

    @abstractmethod
    def verdict(self) -> Verdict:
        """Return the main result."""

    def lines(self) -> Iterable[RenderableType]:
        """Yield the lines that a terminal shows below the verdict."""
        return ()


@cache
def report_kinds() -> tuple[str, ...]:
    """The names of all kinds of report, which are those of the templates of pages."""
    templates = (files("vaeguard.reports") / "templates").iterdir()
    # A tuple, since a damaged report may ask for a kind that is no text and has no hash.
    return tuple(sorted({template.name.removesuffix(".html") for template in templates} - SHARED_TEMPLATES))


def kind_of(report: Mapping[str, Any]) -> str:
    """The kind of a report, one of `report_kinds`."""
    return str(report["kind"])


def read_figures(report: Mapping[str, Any]) -> ReportFigures:
    """The figures of a report of any kind.

    Raises
    ------
    KeyError, TypeError
        The report lacks a key of its kind.
    """
    kind = import_module(f"vaeguard.reports.{kind_of(report)}").Figures
    return cast("ReportFigures", typed(kind, report))


def verdict(report: Mapping[str, Any]) -> Verdict:
    """The main result of a report of any kind; errors are those of `read_figures`."""
    return read_figures(report).verdict()


def typed(hint: Any, value: Any) -> Any:
    """Convert a value from JSON to its type hint: a dataclass, a tuple of these, or either of them or None.

    A value of any other hint stays as it is. Keys that a dataclass does not name are left out; a missing key takes its
    default.
    """
    if isinstance(hint, UnionType):
        return None if value is None else typed(get_args(hint)[0], value)
    if is_dataclass(hint):
        kind: Any = hint
        hints = _hints(kind)
        named = [field.name for field in fields(kind) if field.name in value or field.default is MISSING]
        return kind(**{name: typed(hints[name], value[name]) for name in named})
    if get_origin(hint) is tuple:
        return tuple(typed(get_args(hint)[0], item) for item in value)
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def percent(share: float) -> str:
    """A share as text for a sentence."""
    return f"{100 * share:.1f} %"

"""The HTML page of a report: one file with everything in it, made from the report's JSON alone."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from vaeguard.reports.kinds import kind_of, verdict
from vaeguard.reports.pictures import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import jinja2
    from markupsafe import Markup

MOST_CHARACTERS = 240
"""The most characters of a name that is shown; longer names are cut in the middle, and whole in their title."""


def page(report: Mapping[str, Any]) -> str:
    """The page of `report`, as `report_file.read_report` returns it: HTML that needs no network.

    Raises
    ------
    KeyError, TypeError, jinja2.UndefinedError
        The report lacks a key of its kind.
    """
    template = _templates().get_template(f"{kind_of(report)}.html")
    scripts = ["d3.min.js", "plot.min.js", "charts.js", "page.js", *(["review.js"] if report.get("review") else [])]
    html = template.render(
        report=report,
        verdict=verdict(report),
        data=_script_json({key: value for key, value in report.items() if key != "pictures"}),
        figure=lambda path, digits=3, *, percent=False: _figure(report, path, digits, percent=percent),
        style=_static("style.css"),
        scripts=[_static(name) for name in scripts],
    )
    # File names may contain bytes that are no valid text.
    return html.encode("utf-8", "replace").decode()


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("vaeguard.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "number": _number,
        "percent": _percent,
        "count": _count,
        "name": _short,
        "line": printable,
        "setting": _setting,
    }
    return templates


def _static(name: str) -> Markup:
    """One of the package's own files, which the page contains unescaped."""
    from markupsafe import Markup

    return Markup((files("vaeguard.reports") / "static" / name).read_text(encoding="utf-8"))  # noqa: S704


def _script_json(value: Any) -> Markup:
    """JSON for the inside of a script element, escaped so that no name can end the element."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704


def _figure(report: Mapping[str, Any], path: str, digits: int, *, percent: bool) -> Markup:
    """The number at a `path` of the report (keys and positions, with dots between), marked with this path."""
    from markupsafe import Markup

    value: Any = report
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    text = _percent(value, digits) if percent else _number(value, digits)
    return Markup('<span class="figure" data-figure="{}">{}</span>').format(path, text)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value * 100:.{digits}f} %"


def _count(value: int) -> str:
    return f"{value:,}"


def _setting(value: Any) -> str:
    if value is None:
        return "automatic"
    if isinstance(value, list | tuple):
        return printable(",".join(map(str, value))) or "none"
    return printable(f"{value:.6g}" if isinstance(value, float) else str(value))


def _short(text: str) -> str:
    """The text, cut in the middle if it is long."""
    shown = printable(text)
    half = MOST_CHARACTERS // 2
    return shown if len(shown) <= MOST_CHARACTERS else f"{shown[:half]}…{shown[-half:]}"

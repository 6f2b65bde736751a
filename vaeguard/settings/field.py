"""Fields of a spec that carry their help."""

from __future__ import annotations

from dataclasses import field, fields
from inspect import cleandoc
from typing import Any, TypeVar

Spec = TypeVar("Spec", bound=type)


def setting(
    default: Any, text: str, *, of: tuple[str, ...] | None = None, unset: str = "", none: str | None = None
) -> Any:
    """A field with its help text.

    `of` lists the allowed values, `unset` says what None means, and `none` is the value that the text `none` means.
    """
    return field(default=default, metadata={"help": text, "of": of, "unset": unset, "none": none})


def default_of(item: Any) -> str:
    """The default of a field as users read it; empty if it goes without saying."""
    shown: str = item.metadata["unset"]
    if not shown and item.default is not False and item.default not in (None, "", ()):
        plain = ",".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
        shown = f"{plain:.4g}" if isinstance(plain, float) else str(plain).lower() if plain is True else str(plain)
    return f"  [default: {shown}]" if shown else ""


def help_of(item: Any) -> str:
    """The help text of a field, with the values that it may have and its default."""
    choices = f" One of {', '.join(item.metadata['of'])}." if item.metadata["of"] else ""
    return f"{item.metadata['help']}{choices}{default_of(item)}"


def documented(spec: Spec) -> Spec:
    """Add the settings of a dataclass to its docstring, where `help` shows them."""
    rows = [f"{item.name} : {item.type}\n    {help_of(item)}" for item in fields(spec) if item.metadata]
    spec.__doc__ = "\n".join([cleandoc(spec.__doc__ or ""), "", "Attributes", "----------", *rows])
    return spec

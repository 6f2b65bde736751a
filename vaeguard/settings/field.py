"""Fields of a spec that carry their help."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, text: str, *, of: tuple[str, ...] | None = None, unset: str = "") -> Any:
    """A field with its help text; `of` lists the allowed values, and `unset` says what None means."""
    return field(default=default, metadata={"help": text, "of": of, "unset": unset})
